"""How many rows each replica holds, as status shows it: counted in the background, and in the end always right.

Owns when a table is counted. No run waits for it, and what is due when the host is killed is counted by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from functools import partial

import apsw

from starbase_data_replication import store
from starbase_data_replication.store import Stored
from starbase_host import Clock, Database, StarbaseError

# A table is counted again only after so many times as long as counting it took the last time.
COUNT_SHARE = 20
CLOSE_SECONDS = 1.0


@dataclass(kw_only=True)
class Counted:
    """When a replica was last counted, and how long that took (monotonic seconds); and what counts it now.

    due: whose rows have changed since the last count began.
    """

    at: float = float("-inf")
    seconds: float = 0.0
    due: Stored | None = None
    counting: asyncio.Task[None] | None = None


@dataclass(kw_only=True)
class Counts:
    """Counts the replicas of one host."""

    database: Database
    clock: Clock
    _counted: dict[int, Counted] = field(default_factory=dict)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    def due(self, stored: Stored) -> None:
        """Have its replica counted, as soon as that is cheap next to how often it is done."""
        counted = self._counted.setdefault(stored.id, Counted())
        counted.due = stored
        if counted.counting is None or counted.counting.done():
            counted.counting = asyncio.create_task(self._count(counted))

    async def close(self) -> None:
        """Let the counts that are due be done: a command's host lives no longer than its one sync."""
        self._closing.set()
        counting = {each.counting for each in self._counted.values() if each.counting is not None}
        if counting:
            _, late = await asyncio.wait(counting, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()

    async def _count(self, counted: Counted) -> None:
        while counted.due is not None:
            await self._rest(counted)
            stored, counted.due = counted.due, None
            # A host that ends, or a table that is gone, is no failure: it stays due, for the next run or the next host.
            with contextlib.suppress(StarbaseError, apsw.Error):
                began = self.clock.monotonic()
                rows, runs = await self.database.read(partial(store.count_rows, stored=stored))
                counted.at = self.clock.monotonic()
                counted.seconds = counted.at - began
                await self.database.write(partial(store.save_row_count, stored=stored, rows=rows, runs=runs))

    async def _rest(self, counted: Counted) -> None:
        """Wait until counting again is cheap, or the host ends."""
        seconds = counted.at + COUNT_SHARE * counted.seconds - self.clock.monotonic()
        if seconds <= 0:
            return
        ends = [asyncio.create_task(each) for each in (self.clock.sleep(seconds), self._closing.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ends:
                each.cancel()
