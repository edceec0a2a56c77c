"""What a server says while it works on rows may quote them: no error, log or record has a row's value."""

from __future__ import annotations

from pathlib import Path

import pytest
from asyncpg.pgproto import pgproto

from starbase_data_replication.errors import SourceUnavailable
from starbase_data_replication.sources.mysql.errors import WORDING
from starbase_data_replication.sources.postgresql.errors import is_known, translate_errors
from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

VALUE = "canaryofarow"

# A condition that fails over a row's value v, and the SQLSTATE.
ON_POSTGRESQL = {
    "query_to_xml('SELECT ' || v || ' ' || v || ' ' || v, true, true, '') IS NULL": "42601",
    "query_to_xml('SELECT ' || v, true, true, '') IS NULL": "42703",
    "v::regtype IS NULL": "42704",
    "current_setting(v || '.' || v) IS NULL": "42704",
    "v::regproc IS NULL": "42883",
    "v::regclass IS NULL": "42P01",
    "pg_read_file(v) IS NULL": "58P01",
    "(v || '.x')::regclass IS NULL": "3F000",
    "raised(v)": "P0001",
    "raised_as(v)": "42501",
    "v::int = 1": "22P02",
    **{f"raised_in(v, '{state}')": state for state in ("08000", "08006", "08P01", "42501", "57014", "01000", "01004")},
    "shaped(v)": "P0001",
}
# One that fails while the key is looked up in, and while the text is judged.
ON_MYSQL = (
    "EXTRACTVALUE('<a/>', CONCAT('~', v)) = ''",
    "raised(v)",
    "EXTRACTVALUE('<a/>', CONCAT('~', (SELECT max(v) FROM t))) = ''",
)

# Numbers whose texts quote no row, or that are the driver's, when the server itself gives them.
SIGNALLED = (1205, 1969, 1290, 1227, 1317, 2000, 2013)


def configure(host: HostProcess, database: TestDatabase, where: str | None, table: str = "t") -> None:
    body = {"name": "r", "sourceConfig": database.source_config, "sourceTable": table, "targetTable": "r"}
    host.configure(**body, trackingColumn="id", where=where, isActive=False, lookbackSeconds=0)


def refused(host: HostProcess) -> str:
    answer = host.request("POST", "/data-replication/sync/r")
    assert answer.status_code >= 500, answer.text
    assert VALUE not in answer.text.lower()
    return str(answer.json()["error"])


def nowhere(directory: Path) -> None:
    """In no file that the host has written, its log and its database among them."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert VALUE.encode() not in path.read_bytes().lower(), path


def test_an_error_of_postgresql_quotes_no_row(postgres_database: TestDatabase, tmp_path: Path) -> None:
    postgres_database.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, '{VALUE}');"
        "CREATE VIEW seen AS SELECT id, v::regclass::text AS v FROM t;"
        "CREATE FUNCTION raised(v text) RETURNS bool LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'bad row %', v; END$$;"
        "CREATE FUNCTION raised_as(v text) RETURNS bool LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'no right to %', v USING ERRCODE = '42501'; END$$;"
        "CREATE FUNCTION raised_in(v text, state text) RETURNS bool LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'permission denied for table %', v USING ERRCODE = state; END$$;"
        "CREATE FUNCTION shaped(v text) RETURNS bool LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'canceling statement due to %', v; END$$;"
        "CREATE VIEW warned AS SELECT id, v, raised_in(v, '01000') AS w FROM t"
    )
    with running(tmp_path) as host:
        for where, state in ON_POSTGRESQL.items():
            configure(host, postgres_database, where)
            assert f"(SQLSTATE {state})" in refused(host), where
        for view in ("seen", "warned"):
            configure(host, postgres_database, None, view)
            assert "unexpected" not in refused(host)
        # An error in the text itself is shown in full.
        configure(host, postgres_database, "nonsense > 1")
        assert 'column "nonsense" does not exist (SQLSTATE 42703)' in refused(host)
    nowhere(tmp_path)


def test_an_error_of_mysql_quotes_no_row(either_mysql: TestDatabase, tmp_path: Path) -> None:
    either_mysql.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(20))")
    either_mysql.execute("INSERT INTO t VALUES (1, %s)", VALUE)
    either_mysql.execute(
        "CREATE FUNCTION raised(v varchar(20)) RETURNS int DETERMINISTIC READS SQL DATA "
        "BEGIN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = v; RETURN 1; END"
    )
    for number in SIGNALLED:
        either_mysql.execute(
            f"CREATE FUNCTION raised_{number}(v varchar(20)) RETURNS int DETERMINISTIC READS SQL DATA "
            f"BEGIN SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = v; RETURN 1; END"
        )
    with running(tmp_path) as host:
        for where in (*ON_MYSQL, *(f"raised_{number}(v)" for number in SIGNALLED)):
            configure(host, either_mysql, where)
            assert "its text is left out, because it may contain a row's value (error " in refused(host), where
        configure(host, either_mysql, "nonsense > 1")
        assert "where: the server says: Unknown column 'nonsense' in" in refused(host)
    nowhere(tmp_path)


@pytest.mark.parametrize(
    "error", [pgproto.BufferError("x"), BufferError("x"), UnicodeDecodeError("utf-8", b"x", 0, 1, "")]
)
def test_bytes_that_are_not_an_answer_are_named_as_such(error: Exception) -> None:
    with pytest.raises(SourceUnavailable, match="changed on their way"), translate_errors("reading t"):
        raise error


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("42501", "permission denied for table t"),
        ("42501", 'query would be affected by row-level security policy for table "t"'),
        ("40001", "canceling statement due to conflict with recovery"),
        ("57014", "canceling statement due to user request"),
        ("57P01", "terminating connection due to administrator command"),
        ("53100", 'could not write to file "base/pgsql_tmp/pgsql_tmp12.0": No space left on device'),
        ("25006", "cannot execute nextval() in a read-only transaction"),
        ("XX001", "invalid page in block 3 of relation base/16384/16385"),
        ("08P01", "query_wait_timeout"),
    ],
)
def test_an_error_of_postgresql_that_quotes_no_row_is_shown(code: str, text: str) -> None:
    assert is_known(text, code)
    assert not is_known(text, "P0001")
    assert not is_known(text, "08000")


@pytest.mark.parametrize(
    "text",
    [
        "Lock wait timeout exceeded; try restarting transaction",
        "Query execution was interrupted (max_statement_time exceeded)",
        "Access denied; you need (at least one of) the SUPER privilege(s) for this operation",
        "SELECT command denied to user 'x'@'localhost' for table 't'",
        "The MariaDB server is running with the --read-only option so it cannot execute this statement",
        "Got error 168 'Unknown (generic) error from engine' from storage engine InnoDB",
    ],
)
def test_an_error_of_mysql_that_quotes_no_row_is_shown(text: str) -> None:
    assert WORDING.match(text)


@pytest.mark.parametrize(
    "text",
    ['relation "x" does not exist', 'could not open file "x": No such file or directory', "x", "bad row x"],
)
def test_a_text_that_may_quote_one_is_not(text: str) -> None:
    assert not any(is_known(text, code) for code in ("42501", "58P01", "42P01", "P0001", "08000"))
