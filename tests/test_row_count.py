"""`row_count` of status: counted in the background, and right in the end, whatever comes in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication import store
from starbase_data_replication.plugin import plugin as data_replication
from starbase_data_replication.store import count_rows
from starbase_host import Clock
from tests.hosts import running, until
from tests.plugin_hosts import InProcess, host_with
from tests.servers import TestDatabase

pytestmark = pytest.mark.mariadb_in_prove

CREATE = "CREATE TABLE t (id int PRIMARY KEY)"
COUNT_SECONDS = 1000.0


class SlowCounts(Clock):
    """To count takes long, and the rest after that ends when the test says so."""

    def __init__(self) -> None:
        self.counting = 0.0
        self.rested = asyncio.Event()
        self.resting = asyncio.Event()

    def count_rows(self, *of: Any, **more: Any) -> tuple[int | None, int]:
        self.counting += COUNT_SECONDS
        return count_rows(*of, **more)

    def monotonic(self) -> float:
        return super().monotonic() + self.counting

    async def sleep(self, seconds: float) -> None:
        if seconds > COUNT_SECONDS:
            self.resting.set()
            await self.rested.wait()
        else:
            await asyncio.sleep(seconds)


def body(database: TestDatabase, **more: Any) -> dict[str, Any]:
    options = {"name": "t", "sourceConfig": database.source_config, "sourceTable": "t", "targetTable": "t"}
    return {**options, "isActive": False, "lookbackSeconds": 0, "trackingColumn": "id", **more}


async def come_true(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


async def sync(host: InProcess) -> None:
    answer = await host.request("POST", "/data-replication/sync/t")
    assert answer.status_code == 200, answer.text


async def row_count(host: InProcess) -> int | None:
    (config,) = (await host.request("GET", "/data-replication/status")).json()["result"]["configs"]
    found: int | None = config["row_count"]
    return found


@pytest.mark.parametrize("ends", [False, True], ids=["rested", "the host ends"])
def test_a_count_that_falls_due_too_soon_is_made_up(
    source_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """Two syncs shortly after each other: the second's rows are counted later, or when the host ends."""
    source_database.execute(CREATE)
    source_database.execute("INSERT INTO t VALUES (1), (2)")

    async def play() -> None:
        clock = SlowCounts()
        monkeypatch.setattr(store, "count_rows", clock.count_rows)
        async with host_with(tmp_path, {"data_replication": data_replication({})}, clock=clock) as host:
            await host.request("POST", "/data-replication/configure", body(source_database))
            await sync(host)
            await come_true(lambda: _is(host, 2))
            source_database.execute("INSERT INTO t VALUES (3)")
            await sync(host)
            await asyncio.wait_for(clock.resting.wait(), 30)
            assert await row_count(host) == 2
            if not ends:
                clock.rested.set()
                await come_true(lambda: _is(host, 3))
        async with host_with(tmp_path, {"data_replication": data_replication({})}) as host:
            assert await row_count(host) == 3

    asyncio.run(play())


async def _is(host: InProcess, rows: int) -> bool:
    return await row_count(host) == rows


@pytest.mark.parametrize(
    ("options", "action", "flags"),
    [
        ({"mode": "full"}, "sync", None),
        ({}, "reset", None),
        ({"deletes": "reconcile"}, "reconcile", None),
        ({}, "verify", {"repair": True}),
    ],
)
def test_rows_that_are_gone_are_not_counted(
    source_database: TestDatabase, tmp_path: Path, options: dict[str, Any], action: str, flags: dict[str, bool] | None
) -> None:
    source_database.execute(CREATE)
    source_database.execute("INSERT INTO t VALUES (1), (2)")
    with running(tmp_path) as host:
        host.configure(**body(source_database, deletesMaxShare=1, **options))
        host.sync("t")
        until(lambda: host.status("t")["row_count"] == 2, what="the first count")
        source_database.execute("DELETE FROM t")
        answer = host.request("POST", f"/data-replication/{action}/t", flags)
        assert answer.status_code in (200, 202), answer.text
        until(lambda: host.status("t")["row_count"] == 0, what="the count of what is left")


def test_what_a_killed_host_had_not_counted(source_database: TestDatabase, tmp_path: Path) -> None:
    """Killed as soon as it has answered, or in the middle: the next host counts, though nothing changes any more."""
    source_database.execute(CREATE)
    with running(tmp_path) as host:
        host.configure(**body(source_database))
        for rows in range(1, 6):
            source_database.execute(f"INSERT INTO t VALUES ({rows})")
            host.sync("t")
            host.kill()
            host.start()
            until(lambda rows=rows: host.status("t")["row_count"] == rows, what="the count")  # type: ignore[misc]
