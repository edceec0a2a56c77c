"""Another attempt at a sync when the table changed between two of its steps. Must not know what a sync does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from starbase_data_replication.errors import ReadAgain, ReplicaChanged, SourceChanged

T = TypeVar("T")


async def attempt_again(attempt: Callable[[], Awaitable[T]]) -> T:
    """Await an attempt, and another one if the table changed between two steps. Raises what the last one raises.

    Attempts follow without a pause: each sees the table as it is now, so waiting gains nothing. A table that changes
    twice in one run is left to the schedule.
    """
    changed = False
    while True:
        try:
            return await attempt()
        except ReadAgain:
            # It ends: each table is read in another way at most once.
            continue
        except (SourceChanged, ReplicaChanged):
            if changed:
                raise
            changed = True
