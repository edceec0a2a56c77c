"""How many rows each replica has, as status shows it: counted in the background, and always right in the end.

Owns when a table is counted. Runs never wait for a count. Counts pending at shutdown are done at the next start.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

import apsw

from starbase_data_replication.storage import StoredReplication, store
from starbase_host import Clock, Database, StarbaseError

# A table is counted again only after so many times as long as its last count took: counting takes at most a twentieth
# of a reader's time.
COUNT_SHARE = 20
# How long the end of the host waits for counts: a part of the five seconds that it may take.
CLOSE_SECONDS = 1.0
# How long to wait before a database that is locked or full is asked again.
AGAIN_SECONDS = 5.0


@dataclass(kw_only=True)
class _Count:
    """The counting of one replica.

    again_at: when it may be counted again, monotonic seconds.
    due: the replication, if its rows have changed since the last count began; else None.
    counting: the task that counts it; None before the first.
    """

    again_at: float = float("-inf")
    due: StoredReplication | None = None
    counting: asyncio.Task[None] | None = None


@dataclass(kw_only=True)
class RowCounts:
    """Counts the replicas of one host.

    database: has the replicas, and keeps the counts.
    clock: the source of time.
    """

    database: Database
    clock: Clock
    _counts: dict[int, _Count] = field(default_factory=dict)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)
    # A count may take long, and the database has few readers.
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    def schedule(self, stored: StoredReplication) -> None:
        """Count a replica soon, whose rows may have changed: at once, or COUNT_SHARE times its last count later."""
        count = self._counts.setdefault(stored.id, _Count())
        count.due = stored
        if count.counting is None or count.counting.done():
            count.counting = asyncio.create_task(self._count(count))

    async def catch_up(self) -> None:
        """Count the replicas that an earlier host has changed and not counted since."""
        for stored in await self.database.read(store.all_of):
            if stored.uncounted:
                self.schedule(stored)

    async def close(self) -> None:
        """Finish the counts that are due, at most CLOSE_SECONDS: a command's host lives no longer than its one sync."""
        self._closing.set()
        counting = {each.counting for each in self._counts.values() if each.counting is not None}
        if counting:
            _, late = await asyncio.wait(counting, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()

    async def _count(self, count: _Count) -> None:
        while count.due is not None:
            await self._rest(count.again_at - self.clock.monotonic())
            stored, count.due = count.due, None
            try:
                async with self._one_at_a_time:
                    began = self.clock.monotonic()
                    rows, changes = await self.database.read(partial(store.count_rows, stored=stored))
                    ended = self.clock.monotonic()
                await self.database.write(partial(store.save_row_count, stored=stored, rows=rows, changes=changes))
                count.again_at = ended + COUNT_SHARE * (ended - began)
            except (StarbaseError, apsw.Error) as error:
                if isinstance(error, StarbaseError) and not error.transient:
                    # A view in the replica's place, for example: the next run reports that.
                    continue
                if self._closing.is_set():
                    return
                count.due = count.due or stored
                count.again_at = self.clock.monotonic() + AGAIN_SECONDS

    async def _rest(self, seconds: float) -> None:
        """Wait for so long, or until the host ends."""
        if seconds <= 0:
            return
        ends = [asyncio.create_task(each) for each in (self.clock.sleep(seconds), self._closing.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ends:
                each.cancel()
