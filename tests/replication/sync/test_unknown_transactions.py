"""A source that does not list open transactions for one sync: no row is lost with any lookback, and it is reported."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pymysql
import pytest

from tests.support.hosts import HostProcess, running, until
from tests.support.servers import TestDatabase


@pytest.fixture
def user(source: TestDatabase) -> Iterator[str]:
    """A user for the host, as docs/explanation/consistency.md asks for one."""
    name = f"told_{source.name[-8:]}"
    if source.dialect == "postgresql":
        source.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'a password'")
        source.execute(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {name}")
        yield name
        source.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        return
    source.execute(f"CREATE USER {name}@'%' IDENTIFIED BY 'a password'")
    source.execute(f"GRANT SELECT ON {source.name}.* TO {name}@'%'")
    source.execute(f"GRANT PROCESS ON *.* TO {name}@'%'")
    yield name
    source.execute(f"DROP USER {name}@'%'")


@pytest.fixture
def source(request: pytest.FixtureRequest) -> TestDatabase:
    return cast(TestDatabase, request.getfixturevalue(f"{request.param}_database"))


def cut(database: TestDatabase, user: str) -> None:
    """A session keeps the privileges that it began with."""
    for (found,) in database.fetch(f"SELECT id FROM information_schema.processlist WHERE user = '{user}'"):
        with contextlib.suppress(pymysql.err.OperationalError):
            database.execute(f"KILL CONNECTION {found}")
    query = f"SELECT 1 FROM information_schema.processlist WHERE user = '{user}'"
    until(lambda: not database.fetch(query), what="the end of the sessions")


@contextlib.contextmanager
def watched(database: TestDatabase, user: str) -> Iterator[str]:
    """Monitors that read the list of transactions every few milliseconds, so that it is never renewed."""
    stop, ready = threading.Event(), threading.Barrier(4)

    def watch() -> None:
        with database.connect() as session:
            ready.wait(20)
            while not stop.wait(0.005):
                session.fetch("SELECT trx_id FROM information_schema.innodb_trx")

    threads = [threading.Thread(target=watch) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        ready.wait(20)
        yield "out of date"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def read_only(database: TestDatabase, user: str) -> Iterator[str]:
    database.execute("SET GLOBAL read_only = ON")
    try:
        yield "read-only"
    finally:
        database.execute("SET GLOBAL read_only = OFF")


@contextlib.contextmanager
def revoked(database: TestDatabase, user: str) -> Iterator[str]:
    database.execute(f"REVOKE PROCESS ON *.* FROM {user}@'%'")
    cut(database, user)
    try:
        yield "GRANT PROCESS"
    finally:
        database.execute(f"GRANT PROCESS ON *.* TO {user}@'%'")
        cut(database, user)


@contextlib.contextmanager
def hidden(database: TestDatabase, user: str) -> Iterator[str]:
    database.execute("REVOKE SELECT ON pg_catalog.pg_locks FROM PUBLIC")
    try:
        yield "GRANT SELECT ON TABLE pg_catalog.pg_locks"
    finally:
        database.execute("GRANT SELECT ON pg_catalog.pg_locks TO PUBLIC")


Untold = Callable[[TestDatabase, str], contextlib.AbstractContextManager[str]]


def configure(host: HostProcess, database: TestDatabase, user: str, **more: Any) -> None:
    source = {**database.source_config, "user": user, "password": "a password"}
    body = {"name": "t", "sourceConfig": source, "sourceTable": "t", "targetTable": "t", "isActive": False}
    host.configure(**{**body, "lookbackSeconds": 0, "closeWaitSeconds": 0, **more})


# On MySQL what differs most, the rest as a proof.
WAYS = [
    ("mariadb", watched), ("mariadb", read_only), ("mariadb", revoked), ("mysql", watched), ("postgres", hidden),
    pytest.param("mysql", read_only, marks=pytest.mark.prove), pytest.param("mysql", revoked, marks=pytest.mark.prove),
]  # fmt: skip


def table(database: TestDatabase) -> None:
    kind = "bigserial" if database.dialect == "postgresql" else "bigint AUTO_INCREMENT"
    database.execute(f"CREATE TABLE t (id {kind} PRIMARY KEY, v int); INSERT INTO t (v) VALUES (1)")


@pytest.mark.parametrize(("source", "untold"), WAYS, indirect=["source"])
def test_a_transaction_that_is_open_during_a_sync_without_a_transaction_list(
    source: TestDatabase, user: str, tmp_path: Path, untold: Untold
) -> None:
    """One that was known before it, and one that began just before it and was never seen."""
    database = source
    table(database)
    with running(tmp_path) as host, database.connect() as known, database.connect() as unseen:
        configure(host, database, user)
        host.sync("t")
        known.execute("BEGIN; INSERT INTO t (v) VALUES (2)")
        database.execute("INSERT INTO t (v) VALUES (3)")
        host.sync("t")
        assert host.status("t")["protection"].startswith("transactions")
        unseen.execute("BEGIN; INSERT INTO t (v) VALUES (4)")
        database.execute("INSERT INTO t (v) VALUES (5)")
        with untold(database, user) as why:
            run = host.sync("t")
            assert why in host.status("t")["protection"]
            assert any("until it does, for at most" in warning and why in warning for warning in run["warnings"])
        database.execute("INSERT INTO t (v) VALUES (6)")
        host.sync("t")
        for session in (known, unseen):
            session.execute("COMMIT")
            host.sync("t")
        assert [row[0] for row in host.query("SELECT v FROM t ORDER BY id")] == [1, 2, 3, 4, 5, 6]
        # Nothing waits any more: the floor is at the top, and the protection is what it was.
        run = host.sync("t")
        assert (run["rows_read"], run["warnings"]) == (0, [])
        assert host.status("t")["protection"].startswith("transactions")


@pytest.mark.parametrize("source", ["mariadb", pytest.param("mysql", marks=pytest.mark.prove)], indirect=True)
def test_a_first_load_waits_until_the_transactions_are_known(source: TestDatabase, user: str, tmp_path: Path) -> None:
    """Begun without one, it would end without a floor, and the whole table be read once more."""
    database = source
    table(database)
    with running(tmp_path) as host, database.connect() as late:
        configure(host, database, user)
        late.execute("BEGIN; INSERT INTO t (v) VALUES (2)")
        database.execute("INSERT INTO t (v) VALUES (3)")
        with watched(database, user):
            host.result("POST", "/data-replication/sync/t", wait="false")
            began = time.monotonic()
            until(lambda: time.monotonic() > began + 3, what="a moment longer than a look tries")
            assert host.status("t")["is_running"]
        late.execute("COMMIT")
        until(lambda: not host.status("t")["is_running"], what="the end of the load")
        assert host.status("t")["watermark"] is not None
        assert host.sync("t")["rows_read"] == 0
        assert [row[0] for row in host.query("SELECT v FROM t ORDER BY id")] == [1, 2, 3]
