"""A caller's expression becomes a part of a statement, and reaches nothing beyond the brackets that it is put in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pymysql.err import ProgrammingError

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.sources.expressions import Syntax, bracketed
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

# What quotes, closes, hides and ends: a text of these is an attack more often than not.
PIECES = (
    "'", '"', "`", "\\", "$", "$$", "$q$", "$1", "q$", "E'", "e'", "U&'", "N'", "1E'", "x'", "/*", "*/", "/*!", "--",
    "-- ", "#", "\n", "\r", ";", "(", ")", "a", "1", " ", "é", "\x7f", "\t", "/", "*", "-", "|", "0",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def accepted(text: str, syntax: Syntax) -> bool:
    try:
        return bracketed(text, syntax) == f"({text}\n)"
    except SourceRejected:
        return False


class Postgresql:
    """The server's scanner (scan.l) once more, character by character: what is open at the end of a text."""

    def __init__(self, *, escapes: bool) -> None:
        self._escapes = escapes

    def run(self, text: str) -> tuple[int, bool]:
        """The depth of brackets at the end, and whether nothing but brackets is open, and nothing was ended."""
        at, depth, fine, word = 0, 0, True, ""
        while at < len(text):
            character = text[at]
            if text.startswith("--", at):
                while at < len(text) and text[at] not in "\r\n":
                    at += 1
            elif text.startswith("/*", at):
                nested, at = 1, at + 2
                while nested and at < len(text):
                    if text.startswith("/*", at):
                        nested, at = nested + 1, at + 2
                    elif text.startswith("*/", at):
                        nested, at = nested - 1, at + 2
                    else:
                        at += 1
                fine &= not nested
            elif character in "'\"":
                escapes = character == "'" and (word in ("E", "e") or (self._escapes and word not in ("U&", "u&")))
                at, closed = after_quote(text, at, character, escapes)
                fine &= closed
            elif character == "$" and not word and (tag := dollar_tag(text, at)):
                end = text.find(tag, at + len(tag))
                fine &= end >= 0
                at = end + len(tag) if end >= 0 else len(text)
            else:
                if is_name(character) or (character == "$" and word):
                    word += character
                    # A number, or a parameter, ends where the letters begin.
                    if word[0] in "0123456789" and character not in "0123456789":
                        word = character if is_name(character) else ""
                    at += 1
                    continue
                depth += (character == "(") - (character == ")")
                fine &= depth >= 0 and character != ";"
                at += 1
            word = ""
        return depth, fine


def is_name(character: str) -> bool:
    return (character.isascii() and (character.isalnum() or character == "_")) or ord(character) >= 128


def dollar_tag(text: str, at: int) -> str:
    end = text.find("$", at + 1)
    tag = text[at + 1 : end]
    return text[at : end + 1] if end > 0 and all(map(is_name, tag)) and tag[:1] not in tuple("0123456789") else ""


def after_quote(text: str, at: int, quote: str, escapes: bool) -> tuple[int, bool]:
    at += 1
    while at < len(text):
        if (escapes and text[at] == "\\") or (text[at] == quote and text[at + 1 : at + 2] == quote):
            at += 2
        elif text[at] == quote:
            return at + 1, True
        else:
            at += 1
    return len(text), False


def mysql(text: str, *, escapes: bool, ansi: bool) -> tuple[int, bool]:
    """The same of MySQL's scanner (sql_lex.cc), in a session of these modes."""
    at, depth, fine = 0, 0, True
    while at < len(text):
        character, after = text[at], text[at + 2 : at + 3]
        if character == "#" or (text.startswith("--", at) and (not after or ord(after) <= 32 or after == "\x7f")):
            at = text.find("\n", at) if "\n" in text[at:] else len(text)
        elif text.startswith("/*", at):
            fine &= not text.startswith("/*!", at)
            end = text.find("*/", at + 2)
            fine &= end >= 0
            at = end + 2 if end >= 0 else len(text)
        elif character in "'\"`":
            bare = character == "`" or (character == '"' and ansi)
            at, closed = after_quote(text, at, character, escapes and not bare)
            fine &= closed
        else:
            depth += (character == "(") - (character == ")")
            fine &= depth >= 0 and character != ";"
            at += 2 if character == "\\" else 1
    return depth, fine


@settings(max_examples=500, deadline=None)
@given(text=TEXTS | st.text(max_size=20))
@example(text="true OR 'a' = $q$ THEN 'x' END FROM pg_class WHERE (true")
@example(text="'a' = 'b\\' OR 'c'")
@example(text="a -- )\r) OR (1")
@example(text="/* /* */ ) */ (")
@example(text="E'a'\n'b\\' OR ('")
@example(text="1E'\\' OR (' OR '")
@example(text="1$q$) OR (1")
def test_no_text_escapes_its_brackets_on_postgresql(text: str) -> None:
    if accepted(text, Syntax.POSTGRESQL):
        for escapes in (False, True):
            assert Postgresql(escapes=escapes).run(f"{text}\n") == (0, True)


@settings(max_examples=500, deadline=None)
@given(text=TEXTS | st.text(max_size=20))
@example(text='1 OR 2 = \' THEN 1 END INTO OUTFILE "…" FROM mysql.user WHERE (1')
@example(text='"a\\" OR (1) OR "b"')
@example(text="1 --x\n) OR (1")
@example(text="/*! ) */ (1")
def test_no_text_escapes_its_brackets_on_mysql(text: str) -> None:
    for syntax in (Syntax.MYSQL, Syntax.MYSQL_PLAIN_BACKSLASHES):
        if accepted(text, syntax):
            for ansi in (False, True):
                assert mysql(f"{text}\n", escapes=syntax is Syntax.MYSQL, ansi=ansi) == (0, True)


FINE = (
    "tenant_id = 7", "note = 'it''s; (fine' -- and nothing else", "x IN (SELECT y FROM z WHERE (y > 0))",
    "a = \"b\" /* (no; harm */", "5 - -1 = 6", "note = ';--/*'", "(a) AND (b OR (c))", "naïve = 'ü'",
)  # fmt: skip


@pytest.mark.parametrize("syntax", Syntax)
@pytest.mark.parametrize("text", FINE)
def test_what_is_an_expression_goes_through(text: str, syntax: Syntax) -> None:
    unlike = syntax is Syntax.STANDARD and ("/*" in text or "-- " in text)
    assert accepted(text, syntax) or (unlike and "';--/*'" not in text)


@pytest.mark.parametrize(
    ("text", "syntax"),
    [
        (r"path = 'c:\new'", Syntax.POSTGRESQL),
        (r"path = E'c:\\new\\'", Syntax.POSTGRESQL),
        ("a = $q$it's ( $ fine$q$", Syntax.POSTGRESQL),
        ("a /* one /* two */ ( */ = 1", Syntax.POSTGRESQL),
        ("$1 = 1", Syntax.POSTGRESQL),
        (r"path = 'it\'s' OR `a``;` = 1", Syntax.MYSQL),
        (r"path = 'c:\new' OR path = '\'", Syntax.MYSQL_PLAIN_BACKSLASHES),
        ("a--1 = 2 # (", Syntax.MYSQL),
    ],
)
def test_what_one_dialect_has_goes_through_there(text: str, syntax: Syntax) -> None:
    assert accepted(text, syntax)


def configure(host: HostProcess, database: TestDatabase, table: str, **more: Any) -> None:
    body = {"name": "r", "sourceConfig": database.source_config, "sourceTable": table, "targetTable": "r"}
    host.configure(**{**body, "trackingColumn": "id", "isActive": False, "lookbackSeconds": 0, **more})


def refused(host: HostProcess) -> str:
    answer = host.request("POST", "/data-replication/sync/r")
    assert answer.status_code == 502, answer.text
    return str(answer.json()["error"])


ON_MYSQL = (
    "1 THEN 1 END; COMMIT; SET SESSION TRANSACTION READ WRITE; DELETE FROM {0}.victim; -- ",
    "1) ; COMMIT; SET SESSION TRANSACTION READ WRITE; DELETE FROM {0}.victim; -- ",
    "1 OR 2 = ' THEN 1 END INTO OUTFILE \"/tmp/starbase-out\" FROM mysql.user WHERE (1",
    "id IN (SELECT 1 INTO OUTFILE '/tmp/starbase-out')",
    "SELECT 1 INTO OUTFILE '/tmp/starbase-out'",
    "SELECT 1", "1, 2", "1 THEN 2 WHEN 3",
)  # fmt: skip


def test_no_filter_writes_at_a_mysql(either_mysql: TestDatabase, tmp_path: Path) -> None:
    either_mysql.execute("CREATE TABLE victim (id int PRIMARY KEY)")
    either_mysql.execute("INSERT INTO victim VALUES (1)")
    either_mysql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with running(tmp_path) as host:
        for where in ON_MYSQL:
            configure(host, either_mysql, "t", where=where.format(either_mysql.name))
            said = refused(host)
            assert "where: " in said, where
            assert either_mysql.fetch("SELECT count(*) FROM victim") == [(1,)], where
    assert not Path("/tmp/starbase-out").exists()


@pytest.mark.anyio
async def test_a_connection_carries_one_statement_at_a_time(either_mysql: TestDatabase) -> None:
    """Where the scanner above was wrong, the server still would not go on."""
    source: Any = MysqlDialect().open(either_mysql.source_config, max_connections=1)
    try:
        async with source._transaction() as connection:
            with pytest.raises(ProgrammingError):
                await connection.fetch("SELECT 1; SELECT 2")
    finally:
        await source.close()


ODD_KEY = "$q$)) TO STDOUT;COMMIT;DELETE FROM public.victim;--"
ON_POSTGRESQL = (
    "true OR 'a' = $q$ THEN 'x' END FROM pg_class WHERE (true",
    "true OR 'a' = $q$",
    "true); COMMIT; DELETE FROM public.victim; --",
    "set_config('standard_conforming_strings', 'off', true) = 'x\\' OR true) ; DELETE FROM public.victim; --'",
    "SELECT true", "true, true", "true THEN 1 WHEN true",
)  # fmt: skip


def test_no_filter_writes_at_a_postgresql(postgres_database: TestDatabase, tmp_path: Path) -> None:
    name = '"' + ODD_KEY + '"'
    postgres_database.execute(
        "CREATE TABLE public.victim (id int PRIMARY KEY); INSERT INTO public.victim VALUES (1);"
        f"CREATE TABLE t (id int, {name} int, PRIMARY KEY (id, {name})); INSERT INTO t VALUES (1, 1)"
    )
    with running(tmp_path) as host:
        for where in ON_POSTGRESQL:
            configure(host, postgres_database, "t", where=where)
            assert "where: " in refused(host), where
            assert postgres_database.fetch("SELECT count(*) FROM public.victim") == [(1,)], where
        configure(host, postgres_database, "t", where="id > 0")
        host.sync("r")
        assert host.query("SELECT count(*) FROM r") == [[1]]


@pytest.mark.anyio
async def test_copy_sends_only_what_is_one_statement(postgres_database: TestDatabase) -> None:
    source: Any = PostgresqlDialect().open(postgres_database.source_config, max_connections=1)
    try:
        async with source._transaction("READ COMMITTED") as connection:
            with pytest.raises(asyncpg.PostgresSyntaxError):
                await connection.prove_single("SELECT 1) TO STDOUT; COMMIT; SELECT (2")
    finally:
        await source.close()


def test_a_filter_that_no_sync_has_checked_is_not_used(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source_database.execute("INSERT INTO t VALUES (1)")
    checks: dict[str, dict[str, Any]] = {"verify": {"repair": True}, "reconcile": {}}
    with running(tmp_path) as host:
        configure(host, source_database, "t", deletes="reconcile")
        host.sync("r")
        configure(host, source_database, "t", deletes="reconcile", where="SELECT 1 = 1")
        for route, body in checks.items():
            answer = host.request("POST", f"/data-replication/{route}/r", body)
            assert "where changed since the last sync; sync first" in answer.text
        configure(host, source_database, "t", deletes="reconcile", where="id > 0")
        host.sync("r")
        for route, body in checks.items():
            assert host.result("POST", f"/data-replication/{route}/r", body)["extra"] == 0


def test_rows_without_a_tracking_value_follow_the_filter(source_database: TestDatabase, tmp_path: Path) -> None:
    """One copy of the filter tells which rows leave, and which rows without a tracking value come at all."""
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, n int, in_filter_0 int)")
    source_database.execute("INSERT INTO t VALUES (1, 1, 1), (2, NULL, 1), (3, NULL, 0), (4, 2, 0), (5, 3, 1)")
    with running(tmp_path) as host:
        configure(host, source_database, "t", trackingColumn="n", where="in_filter_0 = 1")
        host.sync("r")
        ids = "SELECT id FROM r ORDER BY id"
        assert host.query(ids) == [[1], [2], [5]]
        source_database.execute("INSERT INTO t VALUES (6, NULL, 0), (7, NULL, 1), (8, 5, 0), (9, 5, 1)")
        source_database.execute("UPDATE t SET n = 6, in_filter_0 = 0 WHERE id = 1")
        assert host.sync("r")["status"] == "success"
        assert host.query(ids) == [[2], [5], [7], [9]]
        counts = host.result("POST", "/data-replication/verify/r", {})
        assert [counts[kind] for kind in ("missing", "extra", "different")] == [0, 0, 0]
