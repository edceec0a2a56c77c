"""SIGKILL at each named point of a run; after a restart and one more sync, the replica equals the source.

The points are put into the host from outside, by a plugin that wraps the step and ends the process there.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.fault_plugins import CRASHER
from tests.support.hosts import CONFIG, HostProcess, until
from tests.support.servers import TestDatabase, sequence

CASES = [
    ("before the batch commits", 1),
    ("before the batch commits", 3),
    ("after the position is set", 1),
    ("after the position is set", 4),
    ("after the batch commits", 2),
    ("before the run is recorded", 1),
    ("before the run is recorded", 2),
    ("between runs", 2),
    ("before a swap", 1),
    ("during a swap", 1),
    ("during a reconciliation", 1),
]

CREATE = {
    "postgresql": "CREATE TABLE t (id int PRIMARY KEY, name text, at timestamptz DEFAULT now());"
    "INSERT INTO t SELECT n, 'name ' || n, now() - interval '1 day' FROM generate_series(1, 5000) n",
    "mysql": "CREATE TABLE t (id int PRIMARY KEY, name varchar(50), at timestamp(6) NOT NULL DEFAULT now(6))",
}


@pytest.mark.parametrize(("point", "nth"), CASES)
def test_killed_at(source_database: TestDatabase, tmp_path: Path, point: str, nth: int) -> None:
    source_database.execute(CREATE[source_database.dialect])
    if source_database.dialect == "mysql":
        source_database.execute(
            f"INSERT INTO t SELECT seq, concat('name ', seq), now(6) - interval 1 day FROM {sequence(5000)}"
        )
    (tmp_path / "crasher.py").write_text(CRASHER)
    options = f'\n[plugins.crasher]\nmodule = "crasher"\npoint = "{point}"\nnth = {nth}\n'
    host = HostProcess(tmp_path, CONFIG + options)
    try:
        host.start()
        run_until_it_dies(host, source_database)
        assert (tmp_path / "crashed").exists(), "the point was never reached"
        host.kill()
        host.start()
        host.sync("t")
        host.result("POST", "/data-replication/reconcile/t")
        wanted = [list(row) for row in source_database.fetch("SELECT id, name FROM t ORDER BY id")]
        assert host.query("SELECT id, name FROM t ORDER BY id") == wanted
        leftovers = (
            "SELECT name FROM sqlite_schema WHERE name LIKE 'tmp_replication_shadow%' OR name LIKE '%differences%'"
        )
        assert host.query(leftovers) == []
    finally:
        host.stop()


def run_until_it_dies(host: HostProcess, database: TestDatabase) -> None:
    """A first load, changes, an incremental sync, a reset: somewhere on the way the host is killed."""
    changes = iter(range(1, 100))

    def steps() -> Any:
        body = {"sourceConfig": database.source_config, "sourceTable": "t", "targetTable": "t"}
        host.configure(name="t", isActive=False, trackingColumn="at", lookbackSeconds=0, deletes="reconcile", **body)
        for path in ("sync", "sync", "sync", "reconcile", "reset", "sync"):
            number = next(changes)
            database.execute(f"INSERT INTO t (id, name) VALUES ({-number}, 'new {number}')")
            database.execute(f"DELETE FROM t WHERE id = {number}")
            host.result("POST", f"/data-replication/{path}/t")

    with contextlib.suppress(httpx.TransportError):
        steps()
    assert host._process is not None
    until(lambda: host._process is not None and host._process.poll() is not None, what="the host's end")
