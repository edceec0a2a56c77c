"""How many rows each replica holds, as status shows it: counted in the background, and in the end always right.

Owns when a table is counted. No run waits for it, and what is due when a host ends is counted by the next that stays.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

import apsw

from starbase_data_replication.storage import StoredReplication, store
from starbase_host import Clock, Database, StarbaseError

# A table is counted again only after so many times as long as counting it took the last time.
COUNT_SHARE = 20
CLOSE_SECONDS = 1.0
# A database that is locked or full is asked again after so long.
AGAIN_SECONDS = 5.0


@dataclass(kw_only=True)
class Counted:
    """When a replica may be counted again (monotonic seconds), and what counts it now.

    due: whose rows have changed since the last count began.
    """

    again_at: float = float("-inf")
    due: StoredReplication | None = None
    counting: asyncio.Task[None] | None = None


@dataclass(kw_only=True)
class Counts:
    """Counts the replicas of one host."""

    database: Database
    clock: Clock
    _counted: dict[int, Counted] = field(default_factory=dict)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)
    # A count may take long, and the database has few readers.
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    def schedule(self, stored: StoredReplication) -> None:
        """Have its replica counted, as soon as that is cheap next to how often it is done."""
        counted = self._counted.setdefault(stored.id, Counted())
        counted.due = stored
        if counted.counting is None or counted.counting.done():
            counted.counting = asyncio.create_task(self._count(counted))

    async def catch_up(self) -> None:
        """Have the replicas counted that an earlier host has changed, and has not counted since."""
        for stored in await self.database.read(store.all_of):
            if stored.uncounted:
                self.schedule(stored)

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
            await self._rest(counted.again_at - self.clock.monotonic())
            stored, counted.due = counted.due, None
            try:
                async with self._one_at_a_time:
                    began = self.clock.monotonic()
                    rows, changes = await self.database.read(partial(store.count_rows, stored=stored))
                    ended = self.clock.monotonic()
                await self.database.write(partial(store.save_row_count, stored=stored, rows=rows, changes=changes))
                counted.again_at = ended + COUNT_SHARE * (ended - began)
            except (StarbaseError, apsw.Error) as error:
                if isinstance(error, StarbaseError) and not error.transient:
                    # A view in the replica's place, say: the next run tells.
                    continue
                if self._closing.is_set():
                    return
                counted.due = counted.due or stored
                counted.again_at = self.clock.monotonic() + AGAIN_SECONDS

    async def _rest(self, seconds: float) -> None:
        """Wait so long, or until the host ends."""
        if seconds <= 0:
            return
        ends = [asyncio.create_task(each) for each in (self.clock.sleep(seconds), self._closing.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ends:
                each.cancel()
