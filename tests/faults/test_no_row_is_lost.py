"""Equality after everything: concurrent writers, syncs in a tight loop, the host killed, connections cut.

And the same workload with the algorithm broken on purpose, which shows that the test can fail.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.support.hosts import CONFIG, HostProcess
from tests.support.servers import TestDatabase
from tests.support.workload import Workload

# Plugins that break the algorithm, each in one way.
SABOTAGE = {
    "the naive rule": """
from dataclasses import replace
from starbase_data_replication.sync import watermarks
# The highest value seen becomes the floor at once, even if transactions are still open.
watermarks.rise = lambda p, closed, options, now: (
    replace(p, floor=p.candidates[-1].value, candidates=()) if p.candidates else p)
watermarks.closed = lambda p: p.candidates
watermarks.worth_waiting = lambda p: False
""",
    "the floor lifted before the read": """
from dataclasses import replace
from starbase_data_replication.sync import watermarks
add, closed = watermarks.add, watermarks.closed
# A value that has become closed since the last sync is taken for the floor of this read already.
def early(p, candidate, options, **more):
    done = closed(p)
    if done:
        p = replace(p, floor=done[-1].value, candidates=p.candidates[p.candidates.index(done[-1]) + 1:])
    return add(p, candidate, options, **more)
answered = watermarks.answered
def lift(p, alive, **more):
    p = answered(p, alive, **more)
    done = closed(p)
    return replace(p, floor=done[-1].value) if done else p
watermarks.add, watermarks.answered = early, lift
watermarks.worth_waiting = lambda p: False
""",
}


def prepare(database: TestDatabase, directory: Path, *, seed: int, tracking: str, sabotage: str | None = None) -> Any:
    config = CONFIG
    if sabotage is not None:
        (directory / "sabotage.py").write_text(SABOTAGE[sabotage] + "\ndef plugin(options):\n    return object()\n")
        config += '\n[plugins.sabotage]\nmodule = "sabotage"\n'
    workload = Workload(database, seed=seed, inserts_only=tracking == "id")
    workload.create_table()
    host = HostProcess(directory, config)
    return workload, host


def configure(host: HostProcess, database: TestDatabase, tracking: str, **more: Any) -> None:
    host.configure(
        name="items", sourceConfig=database.source_config, sourceTable="items", targetTable="items",
        trackingColumn=tracking, isActive=False, **more,
    )  # fmt: skip


def differences(host: HostProcess, workload: Workload) -> tuple[int, int, int]:
    """Rows missing from the replica, stale in it, and too many in it."""
    wanted = {row[0]: row for row in workload.rows()}
    found = {row[0]: row for row in host.query("SELECT id, writer, note FROM items ORDER BY id")}
    stale = sum(1 for key in wanted.keys() & found.keys() if wanted[key] != found[key])
    return len(wanted.keys() - found.keys()), stale, len(found.keys() - wanted.keys())


def sync_until(host: HostProcess, seconds: float) -> int:
    """Sync in a tight loop; how many succeeded."""
    deadline = time.monotonic() + seconds
    done = 0
    while time.monotonic() < deadline:
        done += host.request("POST", "/data-replication/sync/items").is_success
    return done


# How to find the host's connections, to cut them and not the writers': by their name, or by their user.
CUT = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'starbase-host%' "
    "AND datname = current_database()",
    "mysql": "SELECT id FROM information_schema.processlist WHERE user = '{user}'",
}


def host_user(database: TestDatabase) -> TestDatabase:
    """The same database as the host sees it: as a user who may read, and see open transactions."""
    if database.dialect == "postgresql":
        return database
    user = f"host_{database.name[-8:]}"
    database.execute(f"CREATE USER {user}@'%' IDENTIFIED BY 'a password'")
    database.execute(f"GRANT SELECT ON {database.name}.* TO {user}@'%'")
    database.execute(f"GRANT PROCESS ON *.* TO {user}@'%'")
    config = {**database.source_config, "user": user, "password": "a password"}
    return dataclasses.replace(database, source_config=config)


@contextlib.contextmanager
def cutting(database: TestDatabase, user: str, choose: random.Random) -> Iterator[None]:
    """Cut the host's connections now and then, wherever they are."""
    stop = threading.Event()

    def cut() -> None:
        with database.connect() as session:
            while not stop.wait(choose.uniform(0.1, 0.8)):
                for (found,) in session.fetch(CUT[database.dialect].format(user=user)):
                    if database.dialect == "mysql":
                        # One that has just ended by itself is as good as cut.
                        with contextlib.suppress(pymysql.err.OperationalError):
                            session.execute(f"KILL CONNECTION {found}")

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


MIN_COMMITS = 50


@pytest.mark.parametrize("tracking", ["id", "updated_at"])
@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.prove) for n in range(2, 17))])
def test_no_row_is_lost(
    source_database: TestDatabase, tmp_path: Path, tracking: str, seed: int, record_property: Any
) -> None:
    """Without lookback: transactions alone protect, so that nothing hides what they would lose."""
    record_property("seeds", f"no row lost: {source_database.dialect} {tracking} {seed}")
    workload, host = prepare(source_database, tmp_path, seed=seed, tracking=tracking)
    choose = random.Random(seed)
    seen = host_user(source_database)
    floors: set[Any] = set()
    with host:
        configure(host, seen, tracking, lookbackSeconds=0, closeWaitSeconds=choose.choice((0, 0.1, 2)))
        with workload.running():
            for _ in range(2):
                with cutting(source_database, seen.source_config["user"], choose):
                    sync_until(host, choose.uniform(1.0, 2.5))
                host.request("POST", "/data-replication/sync/items", wait="false")
                time.sleep(choose.uniform(0, 0.05))
                host.kill()
                host.start()
            syncs = sync_until(host, 1)
            deadline = time.monotonic() + 30
            while workload.commits <= MIN_COMMITS and time.monotonic() < deadline:
                # On a busy machine the writers need longer to have given it enough to lose.
                syncs += sync_until(host, 0.5)
                floors.add(host.status("items")["watermark"])
            while len(floors - {None}) < 2 and time.monotonic() < deadline:
                syncs += sync_until(host, 0.2)
                floors.add(host.status("items")["watermark"])
        assert syncs > 0
        assert workload.commits > MIN_COMMITS
        # A floor that does not move passes no transaction, and would prove nothing.
        assert len(floors - {None}) >= 2
        assert host.sync("items")["status"] == "success"
        assert differences(host, workload) == (0, 0, 0)
    if seen is not source_database:
        source_database.execute(f"DROP USER {seen.source_config['user']}@'%'")


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_the_test_can_fail(source_database: TestDatabase, tmp_path: Path, sabotage: str) -> None:
    """The same writers, and an algorithm with one step wrong: rows are lost."""
    workload, host = prepare(source_database, tmp_path, seed=1, tracking="updated_at", sabotage=sabotage)
    lost = 0
    with host:
        configure(host, source_database, "updated_at", lookbackSeconds=0, closeWaitSeconds=0, settleSeconds=0)
        for seed in range(2, 12):
            with workload.running():
                sync_until(host, 3)
            host.sync("items")
            missing, stale, _ = differences(host, workload)
            lost = missing + stale
            if lost:
                break
            # These were lucky.
            workload = Workload(source_database, seed=seed)
    assert lost > 0
