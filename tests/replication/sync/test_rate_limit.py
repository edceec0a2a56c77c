"""`maxRowsPerSecond`: how fast a sync may read, even from a faster source."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from starbase_data_replication.model import Batch
from starbase_data_replication.sync.rate_limit import batch_rows, limit_rate
from starbase_host import Clock
from tests.support.faults import CREATE, FILL
from tests.support.hosts import running
from tests.support.servers import TestDatabase

pytestmark = pytest.mark.elsewhere_in_prove


class Hand(Clock):
    """A clock that a test moves: sleeping takes no time but its own."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("rate", "reading_seconds", "seconds"), [(100, 0, 9), (100, 0.5, 9.5), (100, 2, 20), (None, 0, 0)]
)
async def test_the_average_is_kept(rate: float | None, reading_seconds: float, seconds: float) -> None:
    """Ten batches of a hundred rows: reading takes its share of the time, and the last one needs no pause."""
    clock = Hand()

    async def batches() -> AsyncIterator[Batch]:
        for number in range(10):
            clock.at += reading_seconds
            yield Batch(rows=[(1,)] * 100, bytes=100, last=number == 9)

    assert sum([len(batch.rows) async for batch in limit_rate(batches(), rate, clock)]) == 1000
    assert clock.at == pytest.approx(seconds)


@pytest.mark.parametrize(("rate", "rows"), [(None, 5000), (1, 1), (1.9, 1), (700, 700), (1e6, 5000)])
def test_a_batch_takes_at_most_a_second(rate: float | None, rows: int) -> None:
    assert batch_rows(5000, rate) == rows


def test_a_source_is_read_no_faster(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute(CREATE[source_database.dialect].format(name="t"))
    source_database.execute(FILL[source_database.dialect].format(name="t", rows=1200, width=1))
    with running(tmp_path) as host:
        body = {"sourceConfig": source_database.source_config, "sourceTable": "t", "targetTable": "t"}
        host.configure(name="t", isActive=False, maxRowsPerSecond=600, **body)
        began = time.monotonic()
        assert host.sync("t")["records_processed"] == 1200
        assert time.monotonic() - began >= 1
        assert host.status("t")["max_rows_per_second"] == 600
        host.configure(name="t", maxRowsPerSecond=None)
        assert host.status("t")["max_rows_per_second"] is None
