"""Reading no faster than a replication may, so that the load on the source is bounded. Must not know sources."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starbase_data_replication.model import Batch
from starbase_host import Clock


async def limit_rate(
    batches: AsyncIterator[Batch], rows_per_second: float | None, clock: Clock
) -> AsyncIterator[Batch]:
    """Yield the batches, and pause before the next one is requested, so that the average rate is kept.

    rows_per_second: the bound; None does not bound.
    """
    began, rows = clock.monotonic(), 0
    async for batch in batches:
        yield batch
        rows += len(batch.rows)
        if rows_per_second is not None and not batch.last:
            ahead = began + rows / rows_per_second - clock.monotonic()
            if ahead > 0:
                await clock.sleep(ahead)


def batch_rows(usual: int, rows_per_second: float | None) -> int:
    """How many rows to request at once: about as many as a second allows, so that the load has no peaks."""
    return usual if rows_per_second is None else max(1, min(usual, int(rows_per_second)))
