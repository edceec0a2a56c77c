"""The body of `configure` for an existing replication: what is kept of the stored one, secrets above all."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.config.parse import to_json
from starbase_data_replication.model.options import Options
from tests.support.bodies import BODY, DIALECTS, SOURCE, configure, problems


def test_a_left_out_field_keeps_its_value() -> None:
    stored = configure({**BODY, "isActive": False, "lookbackSeconds": 5, "syncIntervalMinutes": 1})
    assert configure({"name": "orders"}, stored) == stored
    changed = configure({"name": "orders", "lookbackSeconds": None, "sourceTable": "v2.orders"}, stored)
    assert changed == dataclasses.replace(stored, source_table="v2.orders", options=Options())


def test_a_changed_table_is_judged_by_the_stored_dialect() -> None:
    assert "more than two names" in problems({"name": "orders", "sourceTable": "a.b.c"}, configure(BODY))["sourceTable"]


def test_a_source_config_replaces_the_stored_one_but_for_its_masked_secrets() -> None:
    stored = configure(BODY)
    sent = {**SOURCE, "database": "other", "password": "***"}
    assert configure({"name": "orders", "sourceConfig": sent}, stored).source_config == {**SOURCE, "database": "other"}
    del sent["password"]
    assert configure({"name": "orders", "sourceConfig": sent}, stored).source_config == sent


def test_a_masked_connection_string_keeps_its_password() -> None:
    source = {"dialect": "postgresql", "connectionString": "postgresql://u:p%40w@h/db"}
    stored = configure({**BODY, "sourceConfig": source})
    sent = {"dialect": "postgresql", "connectionString": "postgresql://u:***@H:5432/db2?sslmode=require"}
    kept = configure({"name": "orders", "sourceConfig": sent}, stored).source_config
    assert kept["connectionString"] == "postgresql://u:p%40w@H:5432/db2?sslmode=require"


@pytest.mark.parametrize(
    "change",
    [
        {"host": "elsewhere.example.com"}, {"port": 9999}, {"user": "somebody"}, {"host": "${HOST}"},
        {"host": "db.example.com,elsewhere.example.com"}, {"dialect": "mysql", "database": "shop"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["fields", "connection string"])
def test_a_masked_secret_is_never_sent_elsewhere(form: str, change: dict[str, Any]) -> None:
    """Who cannot read a password must not be able to have it sent to a server of their own."""
    source = {"dialect": "postgresql", "host": "db.example.com", "user": "app", "password": "s3cret", "database": "d"}
    stored = configure({**BODY, "sourceConfig": source})
    sent, field = {**source, "password": "***", **change}, "password"
    if form == "connection string":
        url = "{dialect}://{user}:***@{host}:{port}/{database}".format(**{"port": 5432, **sent})
        sent, field = {"dialect": sent["dialect"], "connectionString": url}, "connectionString"
    found = problems({"name": "orders", "sourceConfig": sent}, stored)
    assert "give it again" in found[f"sourceConfig.{field}"] or "dialect does not take" in str(found)


@pytest.mark.parametrize(
    "source",
    [{**SOURCE, "password": "***"}, {"dialect": "postgresql", "connectionString": "postgresql://u:***@h/d"}],
)
def test_a_mask_without_a_stored_password_is_refused(source: dict[str, Any]) -> None:
    assert "write the password itself" in str(problems({**BODY, "sourceConfig": source}, None))


def test_a_third_partys_masked_secret_is_kept_too() -> None:
    source = {"dialect": "vault", "auth": {"token": "s3cret", "role": "a"}}
    stored = configure({**BODY, "sourceConfig": source})
    sent = {"dialect": "vault", "auth": {"token": "<hidden>", "role": "b"}}
    kept = configure({"name": "orders", "sourceConfig": sent}, stored).source_config
    assert kept["auth"] == {"token": "s3cret", "role": "b"}


def test_a_stored_dialect_that_is_gone() -> None:
    stored = dataclasses.replace(configure(BODY), source_config={"dialect": "gone", "password": "s3cret"})
    assert "is not a dialect" in problems({"name": "orders", "isActive": False}, stored)["sourceConfig.dialect"]
    found = problems({"name": "orders", "sourceConfig": {**SOURCE, "password": "***"}}, stored)
    assert "give it again" in found["sourceConfig.password"]


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(str.strip)
BODIES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True),
        "sourceConfig": st.builds(lambda user, password: {**SOURCE, "user": user, "password": password}, NAMES, NAMES),
        "sourceTable": NAMES.map(lambda name: '"' + name.replace('"', '""') + '"'),
        "targetTable": NAMES.map(lambda name: f"t{name}".rstrip()),
    },
    optional={
        "syncIntervalMinutes": st.floats(0.01, 525_600) | st.integers(1, 525_600),
        "trackingColumn": NAMES,
        "isActive": st.booleans(),
        "closeWaitSeconds": st.floats(0, 300),
        "lookbackSeconds": st.none() | st.integers(0, 86_400),
        "settleSeconds": st.floats(0, 3600),
        "trackingTimeZone": st.none() | st.sampled_from(["UTC", "+02:00", "Asia/Tokyo"]),
    },
)


@given(BODIES.filter(lambda body: body["sourceConfig"]["password"] != "***"))
def test_what_is_shown_may_be_sent_back_and_changes_nothing(body: dict[str, Any]) -> None:
    stored = configure(body)
    shown = json.loads(json.dumps(to_json(stored, DIALECTS["postgresql"])))
    assert shown["sourceConfig"]["password"] == "***" or "${" in stored.source_config["password"]
    assert configure(shown, stored) == stored
    assert configure({"name": stored.name}, stored) == stored
