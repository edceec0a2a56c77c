"""`row_count` of status: counted in the background, and right in the end, whatever happens in between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw
import pytest

from starbase_data_replication.errors import SourceUnavailable
from starbase_data_replication.plugin import plugin as data_replication
from starbase_data_replication.runs import row_counts
from starbase_data_replication.storage import store
from starbase_data_replication.storage.store import count_rows
from starbase_data_replication.verify import compare, verify
from starbase_host import Clock
from tests.support.hosts import running, until
from tests.support.plugin_hosts import InProcess, body, counted, host_with
from tests.support.servers import TestDatabase

pytestmark = pytest.mark.elsewhere_in_prove

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


async def sync(host: InProcess) -> None:
    answer = await host.request("POST", "/data-replication/sync/t")
    assert answer.status_code == 200, answer.text


@pytest.mark.anyio
@pytest.mark.parametrize("ends", [False, True], ids=["rested", "the host ends"])
async def test_a_count_that_falls_due_too_soon_is_made_up(
    source_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """Two syncs shortly after each other: the second's rows are counted later, or when the host ends."""
    source_database.execute(CREATE)
    source_database.execute("INSERT INTO t VALUES (1), (2)")
    clock = SlowCounts()
    monkeypatch.setattr(store, "count_rows", clock.count_rows)
    async with host_with(tmp_path, {"data_replication": data_replication({})}, clock=clock) as host:
        await host.request("POST", "/data-replication/configure", body(source_database))
        await sync(host)
        await counted(host, 2)
        source_database.execute("INSERT INTO t VALUES (3)")
        await sync(host)
        await asyncio.wait_for(clock.resting.wait(), 30)
        assert (await host.status("t"))["row_count"] == 2
        if not ends:
            clock.rested.set()
            await counted(host, 3)
    async with host_with(tmp_path, {"data_replication": data_replication({})}) as host:
        assert (await host.status("t"))["row_count"] == 3


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


def test_another_target_is_another_number(source_database: TestDatabase, tmp_path: Path) -> None:
    """A first load that finds nothing writes no row, and there is a number all the same."""
    source_database.execute(CREATE)
    source_database.execute("INSERT INTO t VALUES (1), (2)")
    with running(tmp_path) as host:
        host.configure(**body(source_database))
        host.sync("t")
        until(lambda: host.status("t")["row_count"] == 2, what="the first count")
        source_database.execute("DELETE FROM t")
        host.configure(**body(source_database, targetTable="other"))
        assert host.status("t")["row_count"] is None
        host.sync("t")
        until(lambda: host.status("t")["row_count"] == 0, what="the count of the other table")


@pytest.mark.anyio
async def test_a_check_that_fails_has_removed_rows_all_the_same(
    source_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_database.execute(CREATE)
    source_database.execute("INSERT INTO t VALUES " + ", ".join(f"({n})" for n in range(1500)))
    looked = 0
    recheck = compare.recheck

    async def fails_later(*of: Any, **more: Any) -> Any:
        nonlocal looked
        looked += 1
        if looked > 1:
            raise SourceUnavailable("it is gone")
        return await recheck(*of, **more)

    monkeypatch.setattr(verify, "recheck", fails_later)
    async with host_with(tmp_path, {"data_replication": data_replication({})}) as host:
        config = body(source_database, deletes="reconcile", deletesMaxShare=1)
        await host.request("POST", "/data-replication/configure", config)
        await sync(host)
        await counted(host, 1500)
        source_database.execute("DELETE FROM t WHERE id < 1200")
        assert (await host.request("POST", "/data-replication/reconcile/t")).status_code != 200
        await counted(host, 1000)


@pytest.mark.anyio
async def test_a_count_that_cannot_be_noted_is_tried_again(
    postgres_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_database.execute(CREATE)
    postgres_database.execute("INSERT INTO t VALUES (1), (2)")
    tried = 0
    save_row_count = store.save_row_count

    def busy_at_first(*of: Any, **more: Any) -> None:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise apsw.BusyError("database is locked")
        save_row_count(*of, **more)

    monkeypatch.setattr(store, "save_row_count", busy_at_first)
    monkeypatch.setattr(row_counts, "AGAIN_SECONDS", 0.01)
    async with host_with(tmp_path, {"data_replication": data_replication({})}) as host:
        await host.request("POST", "/data-replication/configure", body(postgres_database))
        await sync(host)
        await counted(host, 2)


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
