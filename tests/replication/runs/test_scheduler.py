"""Alarms change with the replication that they are of, in one transaction, and only then."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import apsw
import pytest

from starbase_data_replication.plugin import plugin as data_replication
from starbase_data_replication.runs.scheduler import PRUNE_INTERVAL_SECONDS
from starbase_host import Clock
from tests.support.plugin_hosts import Gate, InProcess, body, host_with
from tests.support.servers import TestDatabase

pytestmark = [pytest.mark.elsewhere_in_prove, pytest.mark.anyio]

UNREACHABLE = {"dialect": "mysql", "host": "127.0.0.1", "port": 1, "user": "u", "database": "d"}
CONFIG = {"name": "t", "sourceConfig": UNREACHABLE, "sourceTable": "t", "targetTable": "t", "syncIntervalMinutes": 60}
MINUTE = 60.0
# Of the request that is being counted; runs and alarms have contexts of their own.
commits: ContextVar[list[object]] = ContextVar("commits")


class StandingClock(Clock):
    """The real time until a test moves it; what waits, waits as ever."""

    def __init__(self) -> None:
        self.moved = 0.0

    def now(self) -> float:
        return super().now() + self.moved


async def request(host: InProcess, method: str, path: str, body: Any = None) -> list[object]:
    """Ask for something, and return what its transactions have returned."""
    found: list[object] = []
    commits.set(found)
    answer = await host.request(method, f"/data-replication/{path}", body)
    assert answer.status_code == 200, answer.text
    commits.set([])
    return found


async def alarms(host: InProcess) -> dict[str, float]:
    """The alarms of the replication, by name."""
    found = await host.core.alarms.of_plugin("data_replication")
    return {alarm.name: alarm.at for alarm in found if alarm.name.endswith(":t")}


def count_commits(host: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    write = host.core.database.write

    async def counted(function: Any) -> Any:
        result = await write(function)
        commits.get([]).append(result)
        return result

    monkeypatch.setattr(host.core.database, "write", counted)


async def test_a_change_takes_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating, changing, stopping, starting and deleting a replication, its alarms included; two at the most."""
    checks = {"deletes": "reconcile", "verifyIntervalMinutes": 90, "deletesIntervalMinutes": 80}
    async with host_with(tmp_path, {"data_replication": data_replication({})}) as host:
        count_commits(host, monkeypatch)
        for method, path, config, names in (
            ("POST", "configure", CONFIG, {"sync:t"}),
            ("POST", "configure", {**CONFIG, **checks}, {"sync:t", "deletes:t", "verify:t"}),
            ("POST", "configure", {**CONFIG, **checks, "isActive": False}, set()),
            ("POST", "start/t", None, {"sync:t", "deletes:t", "verify:t"}),
            ("POST", "stop/t", None, set()),
            ("DELETE", "configure/t", None, set()),
        ):
            assert 1 <= len(await request(host, method, path, config)) <= 2, path
            assert set(await alarms(host)) == names, path


async def test_a_replication_is_never_stored_without_its_alarms(
    source_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the host ends: each commit leaves an active replication with its alarm, and no other with one."""
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    config = body(source_database, syncIntervalMinutes=60, isActive=True)
    async with host_with(tmp_path, {"data_replication": data_replication({})}) as host:
        write = host.core.database.write
        seen: list[tuple[bool, bool]] = []

        def look(connection: apsw.Connection) -> None:
            active = connection.execute("SELECT count(*) FROM tmp_replication_configs WHERE is_active").get
            alarm = connection.execute("SELECT count(*) FROM tmp_alarms WHERE name = 'sync:t'").get
            seen.append((bool(active), bool(alarm)))

        async def observed(function: Any) -> Any:
            def both(connection: apsw.Connection) -> Any:
                result = function(connection)
                look(connection)
                return result

            return await write(both)

        monkeypatch.setattr(host.core.database, "write", observed)
        for method, path, sent in (
            ("POST", "configure", config),
            ("POST", "sync/t", None),
            ("POST", "configure", {**config, "syncIntervalMinutes": 30}),
            ("POST", "stop/t", None),
            ("POST", "start/t", None),
            ("DELETE", "configure/t", None),
        ):
            answer = await host.request(method, f"/data-replication/{path}", sent)
            assert answer.status_code in (200, 409), answer.text
    assert {(True, True), (False, False)} == set(seen)


async def test_a_sync_that_is_due_while_its_former_run_is_ended_is_not_skipped(
    source_database: TestDatabase, tmp_path: Path
) -> None:
    """The new configuration is due at once, also where the run with the former one still holds the name."""
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(9))")
    source_database.execute("INSERT INTO t VALUES (1, 'a')")
    gate = Gate()
    config = body(source_database, transforms={"gate": ["v"]}, isActive=True, syncIntervalMinutes=60)
    async with host_with(tmp_path, {"data_replication": data_replication({}), "gate": gate}) as host:
        gate.closed = True
        assert (await host.request("POST", "/data-replication/configure", config)).status_code == 200
        await asyncio.wait_for(gate.reached.wait(), 30)
        answer = await host.request("POST", "/data-replication/configure", {**config, "lookbackSeconds": 1})
        assert answer.status_code == 200, answer.text
        await host.until_status("t", lambda now: now["last_success_at"] is not None)
        logs = (await host.request("GET", "/data-replication/logs")).json()["result"]["logs"]
        assert [run["status"] for run in logs] == ["success", "interrupted"]


async def test_a_clock_that_is_set_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No alarm is further away than its interval afterwards, that of the record of runs included."""
    clock = StandingClock()
    clock.moved = 10 * 86_400.0
    config = {**CONFIG, "verifyIntervalMinutes": 90}
    async with host_with(tmp_path, {"data_replication": data_replication({})}, clock=clock) as host:
        assert (await host.request("POST", "/data-replication/configure", config)).status_code == 200
        await host.until_status("t", lambda now: now["last_error"] is not None)
        clock.moved = 0.0

        async def repaired() -> bool:
            await asyncio.sleep(0.05)
            found = {each.name: each.at - clock.now() for each in await host.core.alarms.of_plugin("data_replication")}
            limits = {"sync:t": 60 * MINUTE, "verify:t": 90 * MINUTE, "prune": PRUNE_INTERVAL_SECONDS}
            return set(found) == set(limits) and all(found[name] <= limit for name, limit in limits.items())

        async with asyncio.timeout(30):
            while not await repaired():
                pass
    assert "the clock was set by -864000 s" in caplog.text
