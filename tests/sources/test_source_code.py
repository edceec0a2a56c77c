"""What functions of a source set in the session decides no answer: neither of the table whose view or `where` calls
them, nor of another table that is read over the same connection or in the same transaction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import CONFIG, HostProcess, running, until
from tests.support.servers import TestDatabase

ONE_CONNECTION = f"{CONFIG}max_connections_per_source = 1\n"
ROWS = 100
# The status of an answer while another run is under way.
BUSY = 409
AT = "2024-06-01 12:00:00"

PLAIN_OF_MYSQL = (
    "CREATE TABLE plain (id int PRIMARY KEY, name varchar(20), ts timestamp NULL, at datetime NOT NULL); "
    "CREATE TABLE base (id int PRIMARY KEY, at datetime NOT NULL); "
    f"SET time_zone = '+00:00'; INSERT INTO base VALUES (1, '{AT}'); "
    + "".join(f"INSERT INTO plain VALUES ({number}, 'ä€', '{AT}', '{AT}'); " for number in range(ROWS))
)
# What a function sets, and the variable that the error names; None if the run succeeds and what was set is gone.
MYSQL_BODIES = {
    "time zone": ("SET SESSION time_zone = '+09:00'", "time_zone"),
    "rows": ("SET SESSION sql_select_limit = 60", "sql_select_limit"),
    "no rows": ("SET SESSION sql_select_limit = 0", "sql_select_limit"),
    "characters": ("SET SESSION character_set_results = latin1", "character_set_results"),
    "wide characters": ("SET SESSION character_set_results = utf16", "character_set_results"),
    "names": ("SET NAMES latin1", "character_set_results"),
    # These two the server sets back itself.
    "collation": ("SET SESSION collation_connection = utf8mb4_bin", None),
    "sorting": ("SET SESSION max_sort_length = 64", "max_sort_length"),
    "clock": ("SET SESSION timestamp = 5", "timestamp"),
    "modes": ("SET SESSION sql_mode = 'ANSI_QUOTES'", None),
    "texts": ("SET SESSION group_concat_max_len = 4", None),
    "digits": ("SET SESSION div_precision_increment = 9", None),
    "words": ("SET SESSION lc_time_names = 'de_DE'", None),
    "end": ("SET SESSION completion_type = 2", None),
    "read write": ("SET SESSION TRANSACTION READ WRITE", None),
    "lock": ("SET @held = GET_LOCK(CONCAT(DATABASE(), '_lock'), 0)", None),
}
MARIADB_BODIES = {
    "old rows": ("SET SESSION system_versioning_asof = '2000-01-01 00:00:00'", "system_versioning_asof"),
    "time limit": ("SET SESSION max_statement_time = 0.001", None),
}
OFTEN = ("time zone", "rows", "texts", "end")


def cases() -> list[Any]:
    found = []
    for name, body in {**MYSQL_BODIES, **MARIADB_BODIES}.items():
        marks = [*([pytest.mark.mariadb_only] if name in MARIADB_BODIES else [])]
        marks += [] if name in OFTEN else [pytest.mark.prove]
        found.append(pytest.param(*body, id=name, marks=marks))
    return found


def configure(host: HostProcess, database: TestDatabase, name: str, **more: Any) -> None:
    body = {"sourceTable": name, "trackingColumn": "at", "isActive": False, "settleSeconds": 0, **more}
    host.configure(name=name, sourceConfig=database.source_config, targetTable=name, **body)


def outcome(host: HostProcess, action: str, name: str) -> str:
    """The error; empty if there is none."""
    answer = host.request("POST", f"/data-replication/{action}/{name}", {})
    return "" if answer.is_success else str(answer.json()["error"])


def settled(host: HostProcess, action: str, name: str) -> str:
    """The same, once no other run of the replication is under way."""

    def again() -> tuple[str] | None:
        answer = host.request("POST", f"/data-replication/{action}/{name}", {})
        if answer.status_code == BUSY:
            return None
        return ("" if answer.is_success else str(answer.json()["error"]),)

    (error,) = until(again, what="a run") or ("",)
    return error


def create_on_mysql(database: TestDatabase, body: str) -> None:
    database.execute(PLAIN_OF_MYSQL)
    database.execute(f"CREATE FUNCTION f() RETURNS int NO SQL BEGIN {body}; RETURN 1; END")
    database.execute("CREATE VIEW a AS SELECT id, at, f() AS x FROM base")


def check_plain(host: HostProcess, database: TestDatabase) -> None:
    expected = [[ROWS, "2024-06-01T12:00:00.000000Z", "ä€"]]
    assert host.query("SELECT count(*), min(ts), min(name) FROM plain") == expected
    found = host.result("POST", "/data-replication/verify/plain", {})
    assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0)


@pytest.mark.parametrize(("body", "named"), cases())
def test_a_view_of_mysql_changes_no_other_table(
    either_mysql: TestDatabase, tmp_path: Path, body: str, named: str | None
) -> None:
    create_on_mysql(either_mysql, body)
    with running(tmp_path, ONE_CONNECTION) as host:
        configure(host, either_mysql, "a", keyColumns=["id"])
        configure(host, either_mysql, "plain")
        for action in ("sync", "reset", "sync"):
            error = outcome(host, action, "a")
            assert named in error if named is not None else error == ""
        if named is None:
            assert host.query("SELECT x FROM a") == [[1]]
        assert outcome(host, "sync", "plain") == ""
        check_plain(host, either_mysql)
        assert either_mysql.fetch("SELECT IS_FREE_LOCK(%s)", f"{either_mysql.name}_lock") == [(1,)]


def test_a_where_of_mysql_changes_no_table(either_mysql: TestDatabase, tmp_path: Path) -> None:
    create_on_mysql(either_mysql, "SET SESSION time_zone = '+09:00'; SET SESSION sql_select_limit = 60")
    with running(tmp_path, ONE_CONNECTION) as host:
        configure(host, either_mysql, "plain")
        body = {"sourceTable": "plain", "targetTable": "some", "trackingColumn": "at", "isActive": False}
        host.configure(name="some", sourceConfig=either_mysql.source_config, where="f() + id > 0", **body)
        for _ in range(2):
            error = outcome(host, "sync", "some")
            assert "time_zone, sql_select_limit" in error
            assert "must not change" in error
        assert outcome(host, "sync", "plain") == ""
        check_plain(host, either_mysql)
        # The replication works once the function is corrected.
        either_mysql.execute("DROP FUNCTION f")
        either_mysql.execute("CREATE FUNCTION f() RETURNS int NO SQL RETURN 1")
        assert outcome(host, "sync", "some") == ""
        assert host.query("SELECT count(*), min(ts) FROM some") == [[ROWS, "2024-06-01T12:00:00.000000Z"]]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        pytest.param("SET SESSION time_zone = '+09:00'", "time_zone", id="fails"),
        pytest.param("SET SESSION group_concat_max_len = 4", None, id="set back"),
    ],
)
def test_tables_of_a_group_of_mysql_do_not_change_each_other(
    either_mysql: TestDatabase, tmp_path: Path, body: str, named: str | None
) -> None:
    create_on_mysql(either_mysql, body)
    either_mysql.execute("CREATE VIEW b AS SELECT id, at, GROUP_CONCAT('abcdefgh') AS y FROM base GROUP BY id, at")
    with running(tmp_path, ONE_CONNECTION) as host:
        configure(host, either_mysql, "a", keyColumns=["id"], group="g", isActive=True)
        configure(host, either_mysql, "b", keyColumns=["id"], group="g", isActive=True)
        configure(host, either_mysql, "plain", group="g", isActive=True)
        error = settled(host, "sync", "a")
        if named is not None:
            assert named in error
            assert [host.status(name)["last_success_at"] for name in ("a", "b", "plain")] == [None] * 3
            return
        assert error == ""
        assert host.query("SELECT y FROM b") == [["abcdefgh"]]
        check_plain(host, either_mysql)


PLAIN_OF_POSTGRESQL = f"""
    CREATE TABLE plain (
        id int PRIMARY KEY, ts timestamptz, f float8, b bytea, i interval, m money, at timestamptz NOT NULL);
    INSERT INTO plain SELECT g, '{AT}+00', 0.1::float8 + 0.2, '\\xdeadbeef', '1 year 2 days', 1.5, '{AT}+00'
    FROM generate_series(1, {ROWS}) g;
    CREATE TABLE a_base (id int PRIMARY KEY, ts timestamptz, at timestamptz NOT NULL);
    INSERT INTO a_base VALUES (1, '{AT}+00', '{AT}+00');
"""
POSTGRESQL_SETTINGS = {
    "TimeZone": ("Asia/Tokyo", "TimeZone"),
    "DateStyle": ("SQL, DMY", "DateStyle"),
    "IntervalStyle": ("postgres_verbose", "IntervalStyle"),
    "extra_float_digits": ("-10", "extra_float_digits"),
    "bytea_output": ("escape", "bytea_output"),
    "row_security": ("on", "row_security"),
    "standard_conforming_strings": ("off", "standard_conforming_strings"),
    "search_path": ("pg_catalog", None),
    "lc_time": ("C", None),
    "default_text_search_config": ("simple", None),
    "transform_null_equals": ("on", None),
    "xmloption": ("document", None),
}
ALSO_OFTEN = ("TimeZone", "search_path")


@pytest.mark.parametrize("local", [pytest.param("true", id="local"), pytest.param("false", id="session")])
@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        pytest.param(setting, *rest, id=setting, marks=[] if setting in ALSO_OFTEN else pytest.mark.prove)
        for setting, rest in POSTGRESQL_SETTINGS.items()
    ],
)
def test_tables_of_a_group_of_postgresql_do_not_change_each_other(
    postgres_database: TestDatabase, tmp_path: Path, setting: str, value: str, named: str | None, local: str
) -> None:
    postgres_database.execute(PLAIN_OF_POSTGRESQL)
    postgres_database.execute(
        f"CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql VOLATILE AS $$ BEGIN "
        f"PERFORM set_config('{setting}', '{value}', {local}); RETURN 1; END $$; "
        f"CREATE FUNCTION g() RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN "
        f"RETURN current_setting('{setting}'); END $$"
    )
    postgres_database.execute("CREATE VIEW a AS SELECT id, ts, at, f() AS x FROM a_base")
    # How the settings are for the next table that runs code in the same transaction.
    postgres_database.execute("CREATE VIEW b AS SELECT id, at, g() AS found FROM a_base")
    with running(tmp_path, ONE_CONNECTION) as host:
        configure(host, postgres_database, "b", keyColumns=["id"])
        assert outcome(host, "sync", "b") == ""
        before = host.query("SELECT found FROM b")
        configure(host, postgres_database, "b", keyColumns=["id"], group="g", isActive=True)
        configure(host, postgres_database, "a", keyColumns=["id"], group="g", isActive=True)
        configure(host, postgres_database, "plain", group="g", isActive=True)
        error = settled(host, "reset", "a")
        if named is not None:
            assert f"has changed {named}" in error
            assert "must not change" in error
            for name in ("a", "b", "plain"):
                host.result("POST", f"/data-replication/stop/{name}")
            configure(host, postgres_database, "plain", group=None)
            assert settled(host, "sync", "plain") == ""
        else:
            assert error == ""
            assert host.query("SELECT found FROM b") == before
        rows = host.query("SELECT count(*), min(ts), min(f), hex(min(b)), min(i), min(m) FROM plain")
        assert rows == [[ROWS, "2024-06-01T12:00:00.000000Z", 0.1 + 0.2, "DEADBEEF", "P1Y2D", 1.5]]
        found = host.result("POST", "/data-replication/verify/plain", {})
        assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0)


def test_a_where_and_a_policy_of_postgresql_change_nothing(postgres_database: TestDatabase, tmp_path: Path) -> None:
    name = f"{postgres_database.name}_reader"
    postgres_database.execute(PLAIN_OF_POSTGRESQL)
    postgres_database.execute(
        "CREATE FUNCTION f() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ BEGIN "
        "PERFORM set_config('TimeZone', 'Asia/Tokyo', true); RETURN true; END $$; "
        "CREATE TABLE policed (LIKE plain INCLUDING ALL); INSERT INTO policed SELECT * FROM plain; "
        "ALTER TABLE policed ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON policed USING (f()); "
        f"CREATE ROLE {name} LOGIN PASSWORD 'a password'; GRANT SELECT ON plain, policed TO {name}"
    )
    config = {**postgres_database.source_config, "user": name, "password": "a password"}
    try:
        with running(tmp_path, ONE_CONNECTION) as host:
            configure(host, postgres_database, "plain", where="f()")
            assert "has changed TimeZone" in outcome(host, "sync", "plain")
            host.configure(
                name="policed", sourceConfig=config, sourceTable="policed", targetTable="policed", isActive=False,
                trackingColumn="at", rowSecurity="filtered",
            )  # fmt: skip
            assert "has changed TimeZone" in outcome(host, "sync", "policed")
            postgres_database.execute(
                "CREATE OR REPLACE FUNCTION f() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$"
            )
            for each in ("plain", "policed"):
                assert outcome(host, "sync", each) == ""
                assert host.query(f"SELECT count(*), min(ts) FROM {each}") == [[ROWS, "2024-06-01T12:00:00.000000Z"]]
    finally:
        postgres_database.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


LOCKING = (
    "1 IN (SELECT id FROM base LOCK IN SHARE MODE)",
    "1 IN (SELECT id FROM base lock/* a */in /* b */ share mode)",
    "1 IN (SELECT id FROM base FOR SHARE)",
    "1 IN (SELECT id FROM base FOR  UPDATE SKIP LOCKED)",
    "1 IN (SELECT 1e5FOR SHARE)",
)


def test_a_where_of_mysql_locks_no_rows(either_mysql: TestDatabase, tmp_path: Path) -> None:
    either_mysql.execute(PLAIN_OF_MYSQL)
    with running(tmp_path) as host:
        for where in LOCKING:
            configure(host, either_mysql, "plain", where=where)
            assert "where: locks rows of the source" in outcome(host, "sync", "plain"), where
        # The words are no lock in quotes, in a comment, or apart.
        configure(host, either_mysql, "plain", where="name <> 'FOR SHARE' /* FOR SHARE */ AND id IN (0, 1)")
        assert outcome(host, "sync", "plain") == ""
        assert host.query("SELECT count(*) FROM plain") == [[2]]
