"""A source that does not tell who is alive, for one sync: no row is lost, whatever the lookback, and it is said."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.hosts import HostProcess, running, until
from tests.servers import TestDatabase

USER = "told"


@pytest.fixture
def user(either_mysql: TestDatabase) -> Iterator[str]:
    """A user for the host, as docs/consistency.md asks for one."""
    name = f"{USER}_{either_mysql.name[-8:]}"
    either_mysql.execute(f"CREATE USER {name}@'%' IDENTIFIED BY 'a password'")
    either_mysql.execute(f"GRANT SELECT ON {either_mysql.name}.* TO {name}@'%'")
    either_mysql.execute(f"GRANT PROCESS ON *.* TO {name}@'%'")
    yield name
    either_mysql.execute(f"DROP USER {name}@'%'")


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
        yield "fresh"
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


Untold = Callable[[TestDatabase, str], contextlib.AbstractContextManager[str]]


def configure(host: HostProcess, database: TestDatabase, user: str, **more: Any) -> None:
    source = {**database.source_config, "user": user, "password": "a password"}
    body = {"name": "t", "sourceConfig": source, "sourceTable": "t", "targetTable": "t", "isActive": False}
    host.configure(**{**body, "lookbackSeconds": 0, "closeWaitSeconds": 0, **more})


@pytest.mark.parametrize("untold", [watched, read_only, revoked])
def test_a_transaction_that_is_open_around_a_sync_that_is_not_told(
    either_mysql: TestDatabase, user: str, tmp_path: Path, untold: Untold
) -> None:
    """One that was known before it, and one that began just before it and was never seen."""
    database = either_mysql
    database.execute("CREATE TABLE t (id bigint AUTO_INCREMENT PRIMARY KEY, v int); INSERT INTO t (v) VALUES (1)")
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
            assert any("until it tells again" in warning and why in warning for warning in run["warnings"])
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


def test_a_first_load_waits_for_a_look_that_tells(either_mysql: TestDatabase, user: str, tmp_path: Path) -> None:
    """Begun without one, it would end without a floor, and the whole table be read once more."""
    database = either_mysql
    database.execute("CREATE TABLE t (id bigint AUTO_INCREMENT PRIMARY KEY, v int); INSERT INTO t (v) VALUES (1)")
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
