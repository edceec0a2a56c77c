"""Secrets and `${NAME}`: what is shown, kept and scrubbed, and that no text makes any of it raise."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from starbase_data_replication.sources.mysql import settings as mysql
from starbase_data_replication.sources.postgresql import settings as postgresql
from starbase_data_replication.sources.settings import connection_string
from starbase_data_replication.sources.settings.env_references import resolve
from starbase_data_replication.sources.settings.scrubbing import MASK, scrub
from starbase_data_replication.sources.settings.secrets import masked, secrets, unmasked
from starbase_host import InvalidRequest
from tests.support.source_configs import POSTGRESQL, TEXTS, url

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("${NAME}") | st.just(MASK),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PIECES = r"""
    postgresql:// mysql:// u : @ / ? & = # % %41 [::1] , 5432 password= sslmode= require
    ${NAME} *** h . é + $ {
"""
URL_PIECES = st.lists(st.sampled_from([*PIECES.split(), " ", "\0"]), max_size=14).map("".join)
WRITTEN = st.none() | st.text() | URL_PIECES


def test_masked_hides_the_password_and_nothing_else() -> None:
    assert masked(POSTGRESQL) == {**POSTGRESQL, "password": MASK}
    before = "postgresql://app:{}@h1:1,h2/my%20db?sslmode=require&password={}&application_name=a+b"
    assert masked(url(before.format("p%40w", "p%40w"))) == url(before.format(MASK, MASK))
    assert masked(url("postgresql://app@h/db")) == url("postgresql://app@h/db")


@pytest.mark.parametrize(
    "settings",
    [
        {**POSTGRESQL, "password": "${PG_PASSWORD}"},
        {**POSTGRESQL, "password": ""},
        {**POSTGRESQL, "password": None},
        url("postgresql://u:${PG_PASSWORD}@h/db?password=${OTHER}"),
        {"dialect": "postgresql", "connectionString": "${DATABASE_URL}"},
    ],
)
def test_settings_that_are_not_secret_stay_visible(settings: dict[str, Any]) -> None:
    assert masked(settings) == settings
    assert secrets(settings) == ()


def test_what_cannot_be_taken_apart_is_hidden_whole() -> None:
    for text in ("host=h password=x", "postgresql://u:1?a=b@h/db", 5):
        assert masked({"connectionString": text})["connectionString"] == MASK
    assert masked({"password": 5})["password"] == MASK
    assert masked({"password": "half${X}"})["password"] == MASK


@pytest.mark.parametrize("name", ["sslkey", "sslKey", "someThirdPartysKey"])
def test_the_text_of_a_private_key_is_a_secret_and_a_file_name_is_not(name: str) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END PRIVATE KEY-----\n"
    stored = {**POSTGRESQL, name: key}
    assert masked(stored)[name] == MASK
    assert unmasked(masked(stored), stored) == stored
    assert unmasked({**POSTGRESQL, name: MASK}, POSTGRESQL)[name] == MASK
    assert "MC4C" not in scrub(f"refused {key} and {key!r}", secrets(stored))
    assert masked({**POSTGRESQL, name: "/etc/key.pem"})[name] == "/etc/key.pem"
    inside = url(f"postgresql://u@h/db?sslkey={quote(key)}")
    assert masked(inside)["connectionString"] == MASK
    assert unmasked(masked(inside), inside) == inside
    assert "MC4C" not in scrub(f"refused {key} and {quote(key)}", secrets(inside))


def test_unmasked_keeps_what_was_sent_back_masked() -> None:
    assert unmasked({**POSTGRESQL, "password": MASK, "host": "h2"}, POSTGRESQL) == {
        **POSTGRESQL,
        "host": "h2",
    }
    stored = url("postgresql://u:p%40w@h1/db")
    assert unmasked(url("postgresql://u:***@h1/db"), stored) == stored
    assert unmasked(url("postgresql://v:***@h2/db?sslmode=require"), stored) == url(
        "postgresql://v:p%40w@h2/db?sslmode=require"
    )
    assert unmasked(url("postgresql://u:new@h1/db"), stored) == url("postgresql://u:new@h1/db")


def test_unmasked_carries_the_password_from_one_form_to_the_other() -> None:
    stored = {**POSTGRESQL, "password": "p@w"}
    assert unmasked(url("postgresql://u:***@h/db"), stored) == url("postgresql://u:p%40w@h/db")
    assert unmasked({"password": MASK}, url("postgresql://u:p%40w@h/db")) == {"password": "p@w"}
    assert unmasked({"password": MASK}, {"host": "h"}) == {"password": MASK}


@given(
    st.fixed_dictionaries({}, optional={"password": WRITTEN, "connectionString": WRITTEN, "host": JSON | URL_PIECES})
)
def test_masked_sent_back_is_what_was_stored(stored: dict[str, Any]) -> None:
    assert unmasked(masked(stored), stored) == stored


@given(
    st.text(min_size=8, max_size=20, alphabet="xyzXYZ@:/?#%&=+ é"),
    st.sampled_from(["raw", "encoded", "field"]),
)
def test_no_password_is_shown_and_every_one_is_scrubbed(password: str, form: str) -> None:
    raw = password if form == "raw" else quote(password, safe="")
    settings = {"password": password} if form == "field" else url(f"postgresql://u:{raw}@h:1/db?connect_timeout=1")
    assert password not in str(masked(settings))
    assert raw not in str(masked(settings))
    if form == "field" or not postgresql.check(settings, "t"):
        assert password in secrets(settings)
        for shown in (password, raw):
            assert password not in scrub(f"cannot connect as {shown}.", secrets(settings))


@given(settings=st.dictionaries(st.sampled_from([*postgresql.KEYS, *mysql.KEYS, "connectionString", "x"]), JSON))
def test_check_reports_problems_and_never_raises(settings: dict[str, Any]) -> None:
    for room in (postgresql, mysql):
        problems = room.check(settings, "t")
        assert all(field.startswith("sourceConfig.") and why for field, why in problems.items())
        if not problems:
            room.identity(settings, "t")
        masked(settings)
        secrets(settings)


@given(text=URL_PIECES, resolved=st.booleans())
def test_any_text_as_a_connection_string_is_understood_or_refused(text: str, resolved: bool) -> None:
    settings = {"connectionString": text}
    for room in (postgresql, mysql):
        if not room.check(settings, "t"):
            assert room.identity(settings, "t") == room.identity(masked(settings), "t")
        with contextlib.suppress(InvalidRequest):
            room.read(resolve(settings, {"NAME": "a@b/c"}) if resolved else settings)
    with contextlib.suppress(ValueError):
        assert str(connection_string.split(text)) == text


def test_resolve_reads_the_environment() -> None:
    settings = {"password": "${A}-${B}", "port": "${PORT}", "ssl": True, "tls": {"key": ["${A}"]}}
    resolved = resolve(settings, {"A": "1", "B": "${A}", "PORT": "99"})
    assert resolved == {"password": "1-${A}", "port": "99", "ssl": True, "tls": {"key": ["1"]}}


def test_resolve_names_the_field_and_the_variable() -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve({"host": "${NO_HOST}", "connectionString": "postgresql://${B}:${A}@h"}, {})
    assert "NO_HOST is not set" in caught.value.fields["sourceConfig.host"]
    assert "A, B are not set" in caught.value.fields["sourceConfig.connectionString"]


def test_resolve_reads_the_process_environment_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARBASE_TEST_PASSWORD", "x")
    assert resolve({"password": "${STARBASE_TEST_PASSWORD}"}) == {"password": "x"}


@given(user=TEXTS, password=TEXTS, database=TEXTS)
def test_a_variable_inside_a_connection_string_stays_as_written(user: str, password: str, database: str) -> None:
    settings = url("postgresql://${U}:${P}@${H}/${D}?application_name=${A}")
    environ = {"U": user, "P": password, "H": "h1:1,[::1]:2", "D": database, "A": "x&sslmode=disable"}
    assume(password != MASK)
    read = postgresql.read(resolve(settings, environ))
    assert (read.user, read.password, read.database) == (user, password, database)
    assert (read.hosts, read.ports) == (("h1", "::1"), (1, 2))
    assert (read.application_name, read.sslmode) == ("x&sslmode=disable", "prefer")
    assert password in secrets(resolve(settings, environ))


def test_a_socket_in_a_variable_is_a_host() -> None:
    settings = resolve(url("postgresql://u@${H}/db"), {"H": "/var/run/postgresql"})
    assert postgresql.read(settings).hosts == ("/var/run/postgresql",)


def test_what_a_variable_holds_is_judged_when_it_is_known() -> None:
    settings = {**POSTGRESQL, "port": "${PORT}"}
    assert postgresql.read(resolve(settings, {"PORT": "6543"})).ports == (6543,)
    with pytest.raises(InvalidRequest) as caught:
        postgresql.read(resolve(settings, {"PORT": "six"}))
    assert "whole number" in caught.value.fields["sourceConfig.port"]
    whole = {"connectionString": "${URL}"}
    assert mysql.read(resolve(whole, {"URL": "mysql://u:p@h/db"})).database == "db"
    with pytest.raises(InvalidRequest):
        mysql.read(resolve(whole, {"URL": "${URL}"}))
