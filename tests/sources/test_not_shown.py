"""What a source does not show its user: broken views, and tables and columns that it may not read any more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

READER = "starbase_reader"
PASSWORD = "Secr3t!"


@contextlib.contextmanager
def reader(database: TestDatabase) -> Iterator[dict[str, Any]]:
    """A user of MySQL or MariaDB without any privilege; its sourceConfig."""
    database.execute(f"CREATE USER '{READER}'@'%' IDENTIFIED BY '{PASSWORD}'")
    try:
        yield {**database.source_config, "user": READER, "password": PASSWORD}
    finally:
        database.execute(f"DROP USER '{READER}'@'%'")


def configure(host: HostProcess, source: dict[str, Any], **more: Any) -> None:
    body = {"name": "t", "sourceConfig": source, "sourceTable": "t", "targetTable": "t", "trackingColumn": "id"}
    host.configure(**{**body, "isActive": False, "lookbackSeconds": 0, "closeWaitSeconds": 0, **more})


def refusal(host: HostProcess) -> str:
    response = host.request("POST", "/data-replication/sync/t")
    assert response.status_code == 502, response.text
    return str(response.json()["error"])


def test_a_broken_view_keeps_its_position(either_mysql: TestDatabase, tmp_path: Path) -> None:
    either_mysql.execute(
        "CREATE TABLE base (id int PRIMARY KEY, a int); INSERT INTO base VALUES (1, 1), (2, 2);"
        "CREATE VIEW t AS SELECT id, a FROM base"
    )
    with running(tmp_path) as host:
        configure(host, either_mysql.source_config, keyColumns=["id"])
        host.sync("t")
        host.sync("t")
        for broken, repaired in (
            ("RENAME TABLE base TO elsewhere", "RENAME TABLE elsewhere TO base"),
            ("ALTER TABLE base CHANGE a b int", "ALTER TABLE base CHANGE b a int"),
        ):
            either_mysql.execute(broken)
            error = refusal(host)
            assert "base below it does not exist" in error or "references invalid table(s)" in error
            either_mysql.execute(repaired)
            # Neither read again nor loaded again: the floor is where it was.
            run = host.sync("t")
            assert (run["status"], run["rows_read"], run["warnings"]) == ("success", 0, [])
        either_mysql.execute("DROP VIEW t")
        assert "has no table or view" in refusal(host)


def test_a_broken_function_of_a_view_keeps_its_position(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """Of PostgreSQL, what a view selects from cannot go, but what its functions do can."""
    postgres_database.execute(
        "CREATE TABLE base (id int PRIMARY KEY); INSERT INTO base VALUES (1), (2); CREATE TABLE helper (n int);"
        "CREATE FUNCTION helped(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS "
        "'BEGIN PERFORM count(*) FROM public.helper; RETURN n; END';"
        "CREATE VIEW t AS SELECT helped(id) AS id FROM base"
    )
    with running(tmp_path) as host:
        configure(host, postgres_database.source_config, keyColumns=["id"])
        host.sync("t")
        host.sync("t")
        postgres_database.execute("ALTER TABLE helper RENAME TO away")
        # The name is left out: a row's value may take its place.
        assert "UndefinedTableError (SQLSTATE 42P01)" in refusal(host)
        postgres_database.execute("ALTER TABLE away RENAME TO helper")
        assert host.sync("t")["rows_read"] == 0


def test_a_privilege_that_is_lost_for_a_while_costs_no_load(either_mysql: TestDatabase, tmp_path: Path) -> None:
    either_mysql.execute("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1), (2, 2)")
    either_mysql.execute("CREATE TABLE other (id int)")
    with reader(either_mysql) as source, running(tmp_path) as host:
        either_mysql.execute(f"GRANT SELECT ON other TO '{READER}'@'%'")
        configure(host, source)
        assert "GRANT SELECT ON" in refusal(host)
        either_mysql.execute(f"GRANT SELECT ON t TO '{READER}'@'%'")
        host.sync("t")
        host.sync("t")
        either_mysql.execute(f"REVOKE SELECT ON t FROM '{READER}'@'%'")
        assert "that this user may read" in refusal(host)
        either_mysql.execute(f"GRANT SELECT ON t TO '{READER}'@'%'")
        run = host.sync("t")
        assert (run["rows_read"], run["warnings"]) == (0, [])


def test_columns_that_this_user_may_not_read(either_mysql: TestDatabase, tmp_path: Path) -> None:
    either_mysql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int, secret int); INSERT INTO t VALUES (1, 1, 1, 1), (2, 2, 2, 2)"
    )
    with reader(either_mysql) as source, running(tmp_path) as host:
        either_mysql.execute(f"GRANT SELECT (id, a, b) ON t TO '{READER}'@'%'")
        configure(host, source)
        warnings = host.sync("t")["warnings"]
        assert any("has columns that this user may not read, and that are not copied" in each for each in warnings)
        assert host.query("SELECT * FROM t") == [[1, 1, 1], [2, 2, 2]]
        # One that is taken away keeps what was copied of it, also in rows that are read again.
        either_mysql.execute(f"REVOKE SELECT (b) ON t FROM '{READER}'@'%'")
        either_mysql.execute("INSERT INTO t VALUES (3, 3, 3, 3)")
        warnings = host.sync("t")["warnings"]
        assert any("column b (int" in each and "was dropped, or is no longer granted" in each for each in warnings)
        assert host.query("SELECT id, a, b FROM t") == [[1, 1, 1], [2, 2, 2], [3, 3, None]]
        # Another type has the table loaded again.
        either_mysql.execute("ALTER TABLE t MODIFY a varchar(9)")
        host.sync("t")
        assert host.query("SELECT id, a, b FROM t") == [[1, "1", 1], [2, "2", 2], [3, "3", None]]
        either_mysql.execute(f"GRANT SELECT (b) ON t TO '{READER}'@'%'")
        host.sync("t")
        assert host.query("SELECT id, a, b FROM t") == [[1, "1", 1], [2, "2", 2], [3, "3", 3]]
        # Named, they are a choice.
        configure(host, source, columns=["id", "a"])
        assert not any("may not read" in each for each in host.sync("t")["warnings"])
        # A column that is really gone is said to be.
        either_mysql.execute(f"GRANT SELECT ON t TO '{READER}'@'%'")
        configure(host, source, columns=None)
        host.sync("t")
        either_mysql.execute("ALTER TABLE t DROP COLUMN secret")
        (warning,) = host.sync("t")["warnings"]
        assert "column secret (int" in warning
        assert warning.endswith("was dropped")


def test_a_privilege_that_is_lost_erases_nothing(either_mysql: TestDatabase, tmp_path: Path) -> None:
    """A table that is loaded whole at each sync, or again for another `where`, would lose what was copied."""
    columns = "a int, secret int, at timestamp NOT NULL DEFAULT now()"
    either_mysql.execute(
        f"CREATE TABLE whole (id int PRIMARY KEY, {columns}); CREATE TABLE keyless ({columns});"
        "INSERT INTO whole (id, a, secret) VALUES (1, 1, 7), (2, 2, 8); INSERT INTO keyless (a, secret) VALUES (1, 7)"
    )
    with reader(either_mysql) as source, running(tmp_path) as host:
        either_mysql.execute(f"GRANT SELECT (id, a, secret, at) ON whole TO '{READER}'@'%'")
        either_mysql.execute(f"GRANT SELECT (a, secret, at) ON keyless TO '{READER}'@'%'")
        tables = {
            "whole": {"sourceTable": "whole", "mode": "full"},
            "keyless": {"sourceTable": "keyless", "trackingColumn": "at"},
            "chosen": {"sourceTable": "whole"},
        }
        for name, more in tables.items():
            configure(host, source, **{"name": name, "targetTable": name, **more})
            host.sync(name)
        for table in ("whole", "keyless"):
            either_mysql.execute(f"REVOKE SELECT (secret) ON {table} FROM '{READER}'@'%'")
        configure(host, source, name="chosen", sourceTable="whole", targetTable="chosen", where="a > 0")
        for name in tables:
            for _ in range(2):
                answer = host.request("POST", f"/data-replication/sync/{name}")
                assert answer.status_code == 502, (name, answer.text)
                assert "dropped, or are no longer granted to this user: secret" in answer.json()["error"]
                assert [7] in host.query(f"SELECT secret FROM {name}")
        # Granted again, all goes on.
        either_mysql.execute(f"GRANT SELECT (secret) ON whole TO '{READER}'@'%'")
        for name in ("whole", "chosen"):
            assert host.sync(name)["status"] == "success"
            assert host.query(f"SELECT secret FROM {name} ORDER BY id") == [[7], [8]]
        # Or it is let go by name, or by the user's word.
        either_mysql.execute(f"REVOKE SELECT (secret) ON whole FROM '{READER}'@'%'")
        configure(
            host, source, name="whole", sourceTable="whole", targetTable="whole", mode="full", columns=["id", "a"]
        )
        assert host.sync("whole")["status"] == "success"
        host.result("POST", "/data-replication/reset/keyless")
        assert host.sync("keyless")["status"] == "success"
        # What the user does not see stays as a column without values.
        assert host.query("SELECT a FROM keyless") == [[1]]


def test_a_privilege_that_postgresql_takes_away_for_a_while_costs_no_load(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    postgres_database.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, a int, b int); INSERT INTO t VALUES (1, 1, 1), (2, 2, 2);"
        f"CREATE ROLE {READER} LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT ON t TO {READER}"
    )
    try:
        with running(tmp_path) as host:
            configure(host, {**postgres_database.source_config, "user": READER, "password": PASSWORD})
            host.sync("t")
            host.sync("t")
            for taken, given in (
                ("REVOKE SELECT ON t FROM {0}", "GRANT SELECT ON t TO {0}"),
                ("REVOKE USAGE ON SCHEMA public FROM PUBLIC", "GRANT USAGE ON SCHEMA public TO PUBLIC"),
                ("REVOKE SELECT ON t FROM {0}; GRANT SELECT (id, a) ON t TO {0}", "GRANT SELECT ON t TO {0}"),
            ):
                postgres_database.execute(taken.format(READER))
                assert "permission denied" in refusal(host) or "may not read" in refusal(host)
                postgres_database.execute(given.format(READER))
                run = host.sync("t")
                assert (run["rows_read"], run["warnings"]) == (0, [])
            assert host.query("SELECT * FROM t") == [[1, 1, 1], [2, 2, 2]]
    finally:
        postgres_database.execute(f"DROP OWNED BY {READER} CASCADE; DROP ROLE {READER}")
