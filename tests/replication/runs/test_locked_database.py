"""A run that cannot begin, because another process holds the database's write lock: it is said, and recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from tests.support.hosts import HostProcess, running, until
from tests.support.servers import TestDatabase

PREFIX = "/data-replication"


@contextlib.contextmanager
def locked(host: HostProcess) -> Iterator[None]:
    other = apsw.Connection(str(host.database))
    # The host may be writing itself just then.
    other.set_busy_timeout(30_000)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextlib.contextmanager
def replicating(directory: Path, database: TestDatabase, **schedules: float | None) -> Iterator[HostProcess]:
    """Replications of one table, by name, that have been synced; those with an interval go on by themselves."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    with running(directory) as host:
        for name, interval in schedules.items():
            host.configure(
                name=name, sourceConfig=database.source_config, sourceTable="t", targetTable=name,
                syncIntervalMinutes=interval or 60, isActive=interval is not None, deletes="reconcile",
            )  # fmt: skip
            if interval is None:
                host.sync(name)
            else:
                until(lambda name=name: host.status(name)["last_success_at"], what="the first sync")  # type: ignore[misc]
        yield host


def test_a_sync_that_meets_a_locked_database(postgres_database: TestDatabase, tmp_path: Path) -> None:
    with replicating(tmp_path, postgres_database, hand=None, tick=0.01) as host:
        with locked(host):
            answer = host.request("POST", f"{PREFIX}/sync/hand")
            assert answer.status_code == 503
            for word in ("run of hand could not begin", "locked by another process", "recorded once"):
                assert word in answer.text
            state = host.status("hand")
            assert state["state"] == "degraded"
            assert "locked by another process" in state["last_error"]
            # It does not wait for its turn again, nor is it called a run that goes on.
            again = host.request("POST", f"{PREFIX}/sync/hand", wait="false")
            assert (again.status_code, "could not begin" in again.text) == (503, True)
            until(lambda: "could not begin" in (host.status("tick")["last_error"] or ""), what="the tick's failure")
        for name, kind in (("hand", "manual"), ("tick", "scheduled")):
            until(lambda name=name: not host.status(name)["is_running"], what="the record")  # type: ignore[misc]
            (record,) = [run for run in host.logs(name) if run["status"] == "error"]
            assert record["kind"] == kind
            assert "could not begin: the database is locked by another process" in record["error_message"]
            assert host.status(name)["last_error"] == record["error_message"]
        postgres_database.execute("INSERT INTO t VALUES (2)")
        assert host.sync("hand")["status"] == "success"
        until(lambda: host.query("SELECT count(*) FROM tick") == [[2]], what="the ticks that go on")
        assert [host.status(name)["consecutive_failures"] for name in ("hand", "tick")] == [0, 0]


@pytest.mark.prove
@pytest.mark.parametrize("verb", ["reset", "verify", "reconcile"])
def test_other_runs_that_meet_a_locked_database(postgres_database: TestDatabase, tmp_path: Path, verb: str) -> None:
    with replicating(tmp_path, postgres_database, hand=None) as host:
        with locked(host):
            answer = host.request("POST", f"{PREFIX}/{verb}/hand")
            assert (answer.status_code, "could not begin: the database is locked" in answer.text) == (503, True)
            # What is not a run leaves nothing to record.
            answer = host.request("POST", f"{PREFIX}/configure", {"name": "hand", "syncIntervalMinutes": 5})
            assert (answer.status_code, "locked by another process" in answer.text) == (503, True)
        until(lambda: not host.status("hand")["is_running"], what="the record")
        (record,) = [run for run in host.logs("hand") if run["status"] == "error"]
        assert record["kind"] == verb
        assert host.status("hand")["last_error"] == record["error_message"]
        assert host.query("SELECT count(*) FROM hand") == [[1]]
        assert host.result("POST", f"{PREFIX}/{verb}/hand")["success"]
