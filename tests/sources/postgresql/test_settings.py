"""What a PostgreSQL server, a database or a role is set to, as to conditions, keys, limits of time and rights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication.sources.postgresql.source import ESCAPED_TEXT
from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase


def configure(host: HostProcess, database: TestDatabase, name: str = "t", **more: Any) -> None:
    body = {"name": name, "sourceConfig": database.source_config, "sourceTable": "t", "targetTable": name}
    host.configure(**{**body, "trackingColumn": "id", "isActive": False, "lookbackSeconds": 0, **more})


def refused(host: HostProcess, name: str = "t") -> str:
    answer = host.request("POST", f"/data-replication/sync/{name}")
    assert answer.status_code == 502
    return str(answer.json()["error"])


def test_dates_of_a_condition_are_read_in_the_servers_order_and_times_in_utc(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    name = postgres_database.name
    postgres_database.execute(
        f"ALTER DATABASE {name} SET DateStyle = 'German, DMY'; ALTER DATABASE {name} SET TimeZone = 'Asia/Kolkata';"
        "CREATE TABLE t (id int PRIMARY KEY, day date, at timestamptz);"
        "INSERT INTO t VALUES (1, '2026-02-01', '2026-02-01 03:00Z'), (2, '2026-01-02', '2026-01-31 23:00Z')"
    )
    with running(tmp_path) as host:
        for number, where in enumerate(("day = '01.02.2026'", "day = '01/02/2026'", "at >= '2026-02-01 00:00'")):
            configure(host, postgres_database, f"r{number}", where=where)
            host.sync(f"r{number}")
            row = "2026-02-01", "2026-02-01T03:00:00.000000Z"
            assert host.query(f"SELECT id, day, at FROM r{number}") == [[1, *row]]


def test_a_backslash_that_means_another_thing_on_its_server_is_refused(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    postgres_database.execute(
        r"CREATE TABLE t (id int PRIMARY KEY, path text); INSERT INTO t VALUES (1, E'c:\\new'), (2, 'c')"
    )
    with running(tmp_path) as host:
        configure(host, postgres_database, "before", where=r"path = 'c:\new'")
        host.sync("before")
        assert host.query("SELECT id FROM before") == [[1]]
        postgres_database.execute(f"ALTER DATABASE {postgres_database.name} SET standard_conforming_strings = off")
    with running(tmp_path) as host:
        configure(host, postgres_database, where=r"path = 'c:\new'")
        assert "where: holds a backslash, which is an escape on this server" in refused(host)
        configure(host, postgres_database, where=r"path = E'c:\\new'")
        host.sync("t")
        assert host.query("SELECT id FROM t") == [[1]]


@pytest.mark.parametrize(
    ("where", "left"),
    [(r"a = E'\'' AND b", "a =  AND b"), (r"a = e'x''\\' OR E'\n' = b", "a =  OR  = b"), (r"name'\x'", r"name'\x'")],
)
def test_texts_whose_backslashes_mean_the_same_everywhere(where: str, left: str) -> None:
    assert ESCAPED_TEXT.sub("", where) == left


def test_not_null_that_was_never_checked_makes_no_key(embedded_database: TestDatabase, tmp_path: Path) -> None:
    """From PostgreSQL 18 on, NOT NULL may hold for new rows alone."""
    embedded_database.execute(
        "CREATE TABLE t (id int, v int); INSERT INTO t VALUES (NULL, 1), (1, 1);"
        "ALTER TABLE t ADD CONSTRAINT there NOT NULL id NOT VALID; CREATE UNIQUE INDEX ON t (id)"
    )
    with running(tmp_path) as host:
        configure(host, embedded_database, nullTracking="read")
        (warning,) = host.sync("t")["warnings"]
        assert "has no primary key and no unique index without NULLs" in warning
        assert host.query("SELECT id, v FROM t ORDER BY id") == [[None, 1], [1, 1]]
        embedded_database.execute("DELETE FROM t WHERE id IS NULL; ALTER TABLE t VALIDATE CONSTRAINT there")
        host.result("POST", "/data-replication/reset/t")
        assert host.sync("t")["warnings"] == []
        assert host.query("SELECT pk FROM pragma_table_info('t')") == [[1], [0]]


@pytest.mark.parametrize("limit", ["transaction_timeout", "statement_timeout", "idle_in_transaction_session_timeout"])
def test_a_limit_of_time_does_not_end_a_read(embedded_database: TestDatabase, tmp_path: Path, limit: str) -> None:
    embedded_database.execute(
        "CREATE TABLE base (id int PRIMARY KEY); INSERT INTO base SELECT generate_series(1, 4);"
        "CREATE VIEW t AS SELECT id, pg_sleep(0.1)::text AS slept FROM base;"
        f"ALTER DATABASE {embedded_database.name} SET {limit} = '200ms'"
    )
    with running(tmp_path) as host:
        configure(host, embedded_database, keyColumns=["id"])
        assert host.sync("t")["status"] == "success"
        assert host.query("SELECT count(*) FROM t") == [[4]]


def test_a_column_that_may_not_be_read_is_named(either_postgres: TestDatabase, tmp_path: Path) -> None:
    role = f"{either_postgres.name}_reader"
    either_postgres.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text, salary int, note text); INSERT INTO t VALUES (1, 'a', 2, 'b');"
        f"CREATE ROLE {role} LOGIN PASSWORD 'reader-s3cret'; GRANT SELECT (id, v) ON t TO {role}"
    )
    config = {**either_postgres.source_config, "user": role, "password": "reader-s3cret"}
    database = replace(either_postgres, source_config=config)
    try:
        with running(tmp_path) as host:
            configure(host, database)
            assert (
                "may not read these columns of public.t: salary, note; GRANT SELECT (salary, note) on it, or name them "
                "in excludeColumns"
            ) in refused(host)
            configure(host, database, excludeColumns=["note"])
            assert "these columns of public.t: salary; GRANT" in refused(host)
            configure(host, database, excludeColumns=["note", "salary"])
            host.sync("t")
            assert host.query("SELECT * FROM t") == [[1, "a"]]
            configure(host, database, columns=["id", "v"], where="salary > 1")
            error = refused(host)
            assert "where: PostgreSQL says: permission denied for table t" in error
            assert error.endswith("; this user may not read salary, note")
            either_postgres.execute(f"REVOKE SELECT (id, v) ON t FROM {role}")
            assert "the source's user may not read public.t; GRANT SELECT on it" in refused(host)
            # And what was there stays.
            assert host.query("SELECT * FROM t") == [[1, "a"]]
    finally:
        either_postgres.execute(f"REVOKE ALL ON t FROM {role}; DROP ROLE {role}")
