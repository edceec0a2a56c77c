"""A transaction that is left open keeps the floor from rising: since when, whose it is, and what it costs is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_plugins import STEPPER
from tests.support.hosts import CONFIG, HostProcess, running
from tests.support.servers import TestDatabase


@pytest.fixture
def source(source_database: TestDatabase) -> Iterator[TestDatabase]:
    """As a role sees it that may do no more than docs/explanation/consistency.md asks for."""
    user = f"plain_{source_database.name[-8:]}"
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamp(6) NULL DEFAULT current_timestamp(6))"
                            if source_database.dialect == "mysql" else
                            "CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT now())")  # fmt: skip
    if source_database.dialect == "mysql":
        source_database.execute(f"CREATE USER {user}@'%' IDENTIFIED BY 'a password'")
        source_database.execute(f"GRANT SELECT ON {source_database.name}.* TO {user}@'%'")
        source_database.execute(f"GRANT PROCESS ON *.* TO {user}@'%'")
    else:
        source_database.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'a password'; GRANT SELECT ON t TO {user}")
    config = {**source_database.source_config, "user": user, "password": "a password"}
    yield dataclasses.replace(source_database, source_config=config)
    if source_database.dialect == "mysql":
        source_database.execute(f"DROP USER {user}@'%'")
    else:
        source_database.execute(f"DROP OWNED BY {user}; DROP ROLE {user}")


def step(host: HostProcess, seconds: float) -> None:
    (host.directory / "offset").write_text(str(seconds))


def test_who_holds_the_floor_is_said(source: TestDatabase, tmp_path: Path) -> None:
    (tmp_path / "stepper.py").write_text(STEPPER)
    (tmp_path / "offset").write_text("0")
    postgresql = source.dialect == "postgresql"
    with (
        running(tmp_path, CONFIG + '\n[plugins.stepper]\nmodule = "stepper"\n') as host,
        source.connect() as abandoned,
    ):
        host.configure(
            name="t", sourceConfig=source.source_config, sourceTable="t", targetTable="t", trackingColumn="at",
            isActive=False, lookbackSeconds=0, closeWaitSeconds=0, settleSeconds=0,
        )  # fmt: skip
        source.execute("INSERT INTO t (id) VALUES (1)")
        host.sync("t")
        abandoned.execute("BEGIN")
        abandoned.execute("INSERT INTO t (id) VALUES (100)")
        abandoned.execute("UPDATE t SET id = 100 WHERE id = 100 /* a secret */")
        own = "pg_backend_pid()" if postgresql else "connection_id()"
        session = f"{'pid' if postgresql else 'thread'} {abandoned.fetch(f'SELECT {own}')[0][0]}"
        for number in (2, 3):
            source.execute(f"INSERT INTO t (id) VALUES ({number})")
            assert host.sync("t")["warnings"] == []
        assert host.status("t")["floor_held"] is None
        step(host, 301)
        source.execute("INSERT INTO t (id) VALUES (4)")
        run = host.sync("t")
        held = host.status("t")["floor_held"]
        assert (held["open_transactions"], held["rows_read_again"]) == (1, run["rows_read"] - 1)
        assert held["rows_read_again"] >= 2
        assert held["since"] < host.status("t")["last_sync_timestamp"]
        (shown,) = held["transactions"]
        assert shown["session"] == session
        if postgresql:
            # It is another role's: an ordinary one sees its session, and how to see more.
            assert "GRANT pg_monitor" in shown["state"]
            user = source.source_config["user"]
            source.execute(f"GRANT pg_monitor TO {user}")
            host.sync("t")
            (shown,) = host.status("t")["floor_held"]["transactions"]
            assert shown["since"] is not None
        assert shown["state"] == "idle in transaction"
        run = host.sync("t")
        (warning,) = [text for text in run["warnings"] if "the floor waits" in text]
        for words in (session, "idle in transaction", f"{run['rows_read']} rows this time"):
            assert words in warning
        assert "a secret" not in host.log + str(host.status("t"))
        abandoned.execute("COMMIT")
        host.sync("t")
        run = host.sync("t")
        assert (run["rows_read"], run["warnings"]) == (0, [])
        assert host.status("t")["floor_held"] is None
        assert [row[0] for row in host.query("SELECT id FROM t ORDER BY id")] == [1, 2, 3, 4, 100]
