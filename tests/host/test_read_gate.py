"""Reads that overlap without a gap during writes: the WAL is restarted, and no reader waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import apsw
import pytest

from starbase_host.errors import StarbaseError
from starbase_host.query import Query
from starbase_host.read_gate import ReadGate
from tests.support.filling import CREATE, fill
from tests.support.hosts import until
from tests.support.query_bench import Bench

CROWDED = 600
EACH = 100
# Never done before it is stopped.
LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n, filled"


def _execute(connection: apsw.Connection, sql: str) -> None:
    connection.execute(sql)


@pytest.fixture(name="bench")
def _bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("starbase_host.writer.GATE_PAGES", CROWDED)
    monkeypatch.setattr("starbase_host.writer.FULL_PAGES", CROWDED // 2)
    bench = Bench(tmp_path / "one.db", max_seconds=0.3)
    bench.write(f"{CREATE}; {fill(10)}")
    yield bench
    bench.close()


def restarts(bench: Bench) -> int:
    """How often the WAL was restarted: its header counts them (sqlite.org/fileformat.html, 4.1)."""
    with bench.database.path.with_name("one.db-wal").open("rb") as wal:
        return int.from_bytes(wal.read(16)[12:], "big")


def overlapping(bench: Bench, *, wanted: int, commits: int) -> tuple[int, list[float]]:
    """While long reads overlap, commit until the WAL has been restarted so often, or so many times.

    Returns how often it was restarted, and how long each short read took.
    """
    waits, done = [], False
    first = restarts(bench)

    async def reads(at: float) -> None:
        await asyncio.sleep(at)
        while not done:
            with pytest.raises(StarbaseError, match="longer than"):
                await bench.runner.run(Query(sql=LONG, role="client"))

    async def short() -> None:
        while not done:
            began = time.monotonic()
            await bench.runner.run(Query(sql="SELECT 1 FROM filled LIMIT 1", role="admin"))
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.005)

    async def run() -> None:
        nonlocal done
        others = [asyncio.create_task(reads(at)) for at in (0, 0.1, 0.2)] + [asyncio.create_task(short())]
        await asyncio.sleep(0.25)
        for _ in range(commits):
            await bench.database.write(partial(_execute, sql=fill(EACH)))
            if restarts(bench) - first >= wanted:
                break
            await asyncio.sleep(0.02)
        done = True
        await asyncio.gather(*others)

    bench.loop.run(run())
    return restarts(bench) - first, waits


def test_the_wal_is_restarted_while_reads_overlap(bench: Bench) -> None:
    # Counted, not timed: a busy machine takes longer to end a read, and writes more meanwhile.
    often, waits = overlapping(bench, wanted=3, commits=3000)
    assert often >= 3
    # The time that a read has, and what ends it; many get through at once.
    assert max(waits) < 15
    assert len(waits) > 10


def test_a_read_that_has_waited_is_not_made_to_wait_again() -> None:
    """The gate may close again at once, with any number of readers."""
    drained = threading.Event()
    gate = ReadGate(drained.set)
    first, ended = gate.read(0), threading.Event()
    first.__enter__()
    gate.close()

    def read() -> None:
        with gate.read(30):
            ended.wait(30)

    waiting = [threading.Thread(target=read) for _ in range(4)]
    for each in waiting:
        each.start()
    assert not drained.is_set()
    first.__exit__(None, None, None)
    assert drained.wait(5)
    with gate.read(0):
        gate.open()
        gate.close()
        until(lambda: gate._running == 5, what="all that waited are in")
        ended.set()
    for each in waiting:
        each.join(5)
        assert not each.is_alive()


def test_no_read_waits_longer_than_it_may_nor_when_the_host_stops() -> None:
    gate = ReadGate(lambda: None)
    with gate.read(0):
        gate.close()
        began = time.monotonic()
        with gate.read(0.05):
            assert 0.05 <= time.monotonic() - began < 5
        waiting = threading.Thread(target=lambda: gate.read(30).__enter__())
        waiting.start()
        gate.stop()
        waiting.join(5)
        assert not waiting.is_alive()


def test_closing_the_gate_without_readers_delays_no_read() -> None:
    gate = ReadGate(lambda: None)
    gate.close()
    with gate.read(0):
        assert not gate.drained
