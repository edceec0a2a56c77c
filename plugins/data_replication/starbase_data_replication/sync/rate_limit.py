"""Batches no faster than a replication may read: the load on the source is bounded. Knows no source."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starbase_data_replication.model import Batch
from starbase_host import Clock


async def throttled(batches: AsyncIterator[Batch], rows_per_second: float | None, clock: Clock) -> AsyncIterator[Batch]:
    """The same batches; before each next one is asked for, a pause that keeps the average. None is no bound."""
    began, rows = clock.monotonic(), 0
    async for batch in batches:
        yield batch
        rows += len(batch.rows)
        if rows_per_second is not None and not batch.last:
            ahead = began + rows / rows_per_second - clock.monotonic()
            if ahead > 0:
                await clock.sleep(ahead)


def batch_rows(usual: int, rows_per_second: float | None) -> int:
    """How many rows to ask for at once: about a second's worth, so that the load has no peaks."""
    return usual if rows_per_second is None else max(1, min(usual, int(rows_per_second)))
