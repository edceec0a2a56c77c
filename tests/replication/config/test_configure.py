"""The body of `configure` for a new replication: what it becomes, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.config.fields import FIELDS
from starbase_data_replication.config.parse import to_json
from starbase_data_replication.model.options import Options, Replication
from starbase_data_replication.sources.settings.secrets import masked
from starbase_host import Conflict, InvalidRequest, StarbaseError
from tests.support.bodies import BODY, DIALECTS, SOURCE, configure, problems


def test_the_least_that_is_needed_and_the_defaults() -> None:
    assert configure(BODY) == Replication(
        name="orders", source_config=SOURCE, source_table="orders", target_table="orders"
    )


def test_the_table_of_fields_agrees_with_the_values() -> None:
    replication = configure(BODY)
    for field in FIELDS:
        owner = replication.options if hasattr(replication.options, field.attribute) else replication
        assert field.required or getattr(owner, field.attribute) == field.default
        assert field.doc.endswith(".")
    attributes = {field.attribute for field in FIELDS}
    names = {one.name for one in (*dataclasses.fields(Replication), *dataclasses.fields(Options))}
    assert attributes == names - {"options"}


def test_an_error_names_each_wrong_field_in_a_sentence() -> None:
    with pytest.raises(InvalidRequest) as caught:
        configure({"name": "orders", "targetTable": ""})
    assert str(caught.value) == ("sourceConfig is required; sourceTable is required; targetTable must not be empty")
    # A plugin may word a reason as it likes.
    assert str(InvalidRequest(fields={"a": "its b is wrong", "c": "isolated"})) == "a: its b is wrong; c: isolated"


def test_every_field() -> None:
    replication = configure(
        {
            **BODY,
            "syncIntervalMinutes": 30,
            "trackingColumn": "updated_at",
            "isActive": False,
            "closeWaitSeconds": 0,
            "lookbackSeconds": 90.5,
            "settleSeconds": 3600,
            "trackingTimeZone": "Europe/Berlin",
        }
    )
    assert (replication.sync_interval_minutes, replication.interval_seconds) == (30.0, 1800.0)
    assert (replication.tracking_column, replication.is_active) == ("updated_at", False)
    assert replication.options == Options(
        close_wait_seconds=0.0,
        lookback_seconds=90.5,
        settle_seconds=3600.0,
        tracking_time_zone="Europe/Berlin",
    )


@pytest.mark.parametrize("body", [None, [], "x", 5, [BODY]])
def test_a_body_that_is_not_an_object_is_refused(body: object) -> None:
    with pytest.raises(InvalidRequest, match="must be a JSON object"):
        configure(body)


def test_every_problem_is_reported_at_once() -> None:
    found = problems({"name": "-", "sourceConfig": {"dialect": "mysql"}, "targetTable": "", "trackingcolumn": "x"})
    assert set(found) == {
        "name",
        "sourceTable",
        "targetTable",
        "trackingcolumn",
        "sourceConfig.host",
        "sourceConfig.user",
        "sourceConfig.database",
    }
    assert "did you mean trackingColumn?" in found["trackingcolumn"]


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("name", "", "must not be empty"),
        ("name", "-a", "a letter or digit first"),
        ("name", "a" * 64, "not be longer than 63"),
        ("name", "a/b", "1 to 63"),
        ("name", "ä", "1 to 63"),
        ("name", "a\n", "control characters"),
        ("name", 5, "must be a string"),
        ("name", None, "must be a string, not null"),
        ("sourceConfig", "postgresql://h", "must be an object"),
        ("sourceConfig", None, "must be an object"),
        ("sourceConfig", {**SOURCE, "x": float("nan")}, "NaN"),
        ("sourceConfig", {**SOURCE, "password": "\ud800"}, "not valid Unicode"),
        ("sourceConfig", {**SOURCE, "\ud800": 1}, "not valid Unicode"),
        ("sourceConfig", {**SOURCE, **{f"k{number}": 0 for number in range(20_000)}}, "holds more than 200 values"),
        ("sourceConfig", {**SOURCE, "deep": [[0] * 150] * 150}, "holds more than 200 values"),
        ("sourceConfig", {**SOURCE, "password": "x" * 65_537}, "its password is longer than 65536 characters"),
        ("sourceConfig", {**SOURCE, "password": "${PG_A}" * 100_000}, "its password is longer than"),
        ("sourceConfig", {**SOURCE, "sslcert": "-----BEGIN " + "A" * 1_048_576}, "longer than 1048576 characters"),
        ("sourceConfig", {**SOURCE, "k" * 256: 0}, "one of its keys is longer than 255 characters"),
        ("transforms", {f"p{number}": ["a"] for number in range(101)}, "must not name more than 100 plugins"),
        ("rename", {"a": "A" * 4_000_000}, "or of more than 255"),
        ("rename", {f"a{number}": "b" for number in range(200_000)}, "must not name more than 2000 columns"),
        ("sourceTable", "a.b.c", "more than two names"),
        ("sourceTable", "", "must not be empty"),
        ("sourceTable", 5, "must be a string"),
        ("sourceTable", "a\0", "NUL"),
        ("targetTable", " ", "must not be empty"),
        ("targetTable", "a\0", "NUL"),
        ("targetTable", "  x ", "has a space at the beginning or end; remove it"),
        ("targetTable", "x\u00a0", "has a space at the beginning or end"),
        ("targetTable", "a\nb", "control characters"),
        ("targetTable", "\udfff", "not valid Unicode"),
        ("targetTable", "x" * 256, "not be longer than 255"),
        ("targetTable", "TMP_x", "reserved"),
        ("targetTable", "Sqlite_x", "reserved"),
        ("syncIntervalMinutes", 0, "from 0.01 to 525600"),
        ("syncIntervalMinutes", 525_600.1, "from 0.01 to 525600"),
        ("syncIntervalMinutes", 10**400, "from 0.01 to 525600"),
        ("syncIntervalMinutes", float("nan"), "from 0.01 to 525600"),
        ("syncIntervalMinutes", float("inf"), "from 0.01 to 525600"),
        ("syncIntervalMinutes", True, "must be a number"),
        ("syncIntervalMinutes", "60", "must be a number"),
        ("syncIntervalMinutes", None, "must be a number, not null"),
        ("trackingColumn", "", "must not be empty"),
        ("trackingColumn", 1, "must be a string"),
        ("isActive", 1, "must be a boolean"),
        ("isActive", "true", "must be a boolean"),
        ("closeWaitSeconds", -1, "from 0 to 300"),
        ("closeWaitSeconds", 301, "from 0 to 300"),
        ("lookbackSeconds", 86_401, "from 0 to 86400 or null"),
        ("settleSeconds", 3601, "from 0 to 3600"),
        ("trackingTimeZone", "", "must not be empty"),
        ("trackingTimeZone", "Mars/Base", "write an IANA name"),
        ("trackingTimeZone", "America", "write an IANA name"),
        ("trackingTimeZone", "../../etc/passwd", "write an IANA name"),
        ("trackingTimeZone", "+2:00", "write an IANA name"),
        ("trackingTimeZone", "+14:30", "write an IANA name"),
        ("trackingTimeZone", 2, "must be a string"),
    ],
)
def test_a_wrong_value_names_its_field_and_the_fix(field: str, value: Any, fix: str) -> None:
    found = problems({**BODY, field: value})
    assert list(found) == [field]
    assert fix in found[field]


@pytest.mark.parametrize(
    ("settings", "field", "fix"),
    [
        ({}, "sourceConfig.dialect", "must be one of mysql, postgresql, vault"),
        ({"dialect": 1}, "sourceConfig.dialect", "must be one of"),
        ({"dialect": "postgres"}, "sourceConfig.dialect", "did you mean postgresql?"),
        ({"dialect": "mariadb"}, "sourceConfig.dialect", "is called mysql for MariaDB too; write mysql"),
        ({"dialect": "MariaDB"}, "sourceConfig.dialect", "write mysql"),
        ({**SOURCE, "host": "d\0b"}, "sourceConfig", "its host must not hold a NUL character"),
        ({**SOURCE, "x": {"y": ["\ud800"]}}, "sourceConfig", "its x.y.0 is not valid Unicode"),
        ({**SOURCE, "\0": 1}, "sourceConfig", "one of its keys must not hold a NUL character"),
        ({"dialect": "oracle"}, "sourceConfig.dialect", "known: mysql, postgresql, vault"),
        ({**SOURCE, "port": 70_000}, "sourceConfig.port", "from 1 to 65535"),
        ({**SOURCE, "password": "***"}, "sourceConfig.password", "write the password itself"),
        ({"dialect": "postgresql", "a": [[[[[[[[[[[]]]]]]]]]]]}, "sourceConfig", "is nested more than"),
    ],
)
def test_a_wrong_source(settings: dict[str, Any], field: str, fix: str) -> None:
    assert fix in problems({**BODY, "sourceConfig": settings})[field]


NO_REFERENCES = ("${A-B}", "${}", "${A", "${", "${1A}", "${A B}", "${A}${B-C}", "${$A}")
URL = "postgresql://u:{}@h/d"


@pytest.mark.parametrize("text", NO_REFERENCES)
def test_text_that_only_looks_like_a_reference_is_refused(text: str) -> None:
    """It would be sent to the source as a password, letter by letter."""
    nested = {"dialect": "vault", "auth": {"token": [text]}}
    url = {"dialect": "postgresql", "connectionString": URL.format(text)}
    for settings, field in (
        ({**SOURCE, "password": text}, "sourceConfig.password"),
        ({**SOURCE, "host": text}, "sourceConfig.host"),
        ({"dialect": "postgresql", "connectionString": text}, "sourceConfig.connectionString"),
        (url, "sourceConfig.connectionString"),
        (nested, "sourceConfig.auth.token[0]"),
    ):
        found = problems({**BODY, "sourceConfig": settings})
        assert list(found) == [field]
        assert "looks like a ${NAME} but is not one" in found[field]
        assert "A-B" not in found[field]


@pytest.mark.parametrize(
    "text", ["${A}", "${A}${B_2}", "${A}x-{y}", "x${A-B}", "$A", "a${", "${x!9", "pa${ss}w", "{A}"]
)
def test_a_password_may_hold_what_references_are_made_of(text: str) -> None:
    for settings in ({**SOURCE, "password": text}, {"dialect": "postgresql", "connectionString": URL.format(text)}):
        replication = configure({**BODY, "sourceConfig": settings})
        assert replication.source_config == settings
        configure({**BODY, "sourceConfig": masked(settings)}, replication)


def test_a_stored_password_is_not_judged_again() -> None:
    stored = Replication(
        name="orders", source_config={**SOURCE, "password": "${A-B}"}, source_table="orders", target_table="orders"
    )
    body = {**BODY, "sourceConfig": {**SOURCE, "password": "***"}}
    assert configure(body, stored).source_config["password"] == "${A-B}"


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+02:00", "-09:30", "+14:00", None])
def test_time_zones(zone: str | None) -> None:
    assert configure({**BODY, "trackingTimeZone": zone}).options.tracking_time_zone == zone


def test_unknown_fields_are_shown_so_that_any_answer_can_hold_them() -> None:
    found = problems({**BODY, "\ud800": 1, "x" * 999: 1, **{f"unknown{number}": 1 for number in range(99)}})
    assert len(found) == 20
    assert all(len(name) <= 70 for name in found)
    json.dumps(found, ensure_ascii=False).encode()


def test_a_target_of_another_replication_is_a_conflict_as_sqlite_compares() -> None:
    with pytest.raises(Conflict, match="already the target of other"):
        configure({**BODY, "targetTable": "Orders"}, targets={"other": "orders"})
    assert configure({**BODY, "targetTable": "ORDERS"}, targets={"orders": "orders"}).target_table == "ORDERS"
    # SQLite folds ASCII only: these two are different tables.
    assert configure({**BODY, "targetTable": "Ä"}, targets={"other": "ä"}).target_table == "Ä"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    changes=st.dictionaries(st.sampled_from([field.json for field in FIELDS]) | st.text(), JSON, max_size=4),
    source=st.dictionaries(st.sampled_from([*SOURCE, "connectionString", "port"]), JSON, max_size=3),
    new=st.booleans(),
)
def test_any_json_is_a_replication_or_an_error_of_ours(
    changes: dict[str, Any], source: dict[str, Any], new: bool
) -> None:
    body = {**BODY, "sourceConfig": {**SOURCE, **source}, **changes}
    outcome: Replication | StarbaseError
    try:
        outcome = configure(body, None if new else configure(BODY))
    except StarbaseError as error:
        outcome = error
    if isinstance(outcome, StarbaseError):
        assert outcome.status in (400, 409)
        str(outcome).encode()
    else:
        json.dumps(to_json(outcome, DIALECTS[outcome.dialect]), allow_nan=False).encode()
