"""Which runs may work now: a bound over all, and for each source, so that one that hangs holds up no other's.

A run that has heard nothing from its source for a while does no work, and does not count in the bound over all
until it hears again. It still counts for its source.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass(eq=False, kw_only=True)
class Slot:
    """What a run holds while it works. quiet: it waits for its source, and leaves its place to another."""

    source: str
    granted: asyncio.Future[None]
    quiet: bool = False


@dataclass(kw_only=True)
class Slots:
    """total: how many runs may work at once. per_source: how many of one source, quiet ones included."""

    total: int
    per_source: int
    _waiting: list[Slot] = field(default_factory=list)
    _held: list[Slot] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def taken(self, source: str) -> AsyncIterator[Slot]:
        """Wait for a place, first come first served among those whose source has room; hold it for the context."""
        slot = Slot(source=source, granted=asyncio.get_running_loop().create_future())
        self._waiting.append(slot)
        self._grant()
        try:
            await slot.granted
            yield slot
        finally:
            for places in (self._waiting, self._held):
                if slot in places:
                    places.remove(slot)
            self._grant()

    def set_quiet(self, slot: Slot, quiet: bool) -> None:
        """Give the place away, or take it back. Taken back, there may be more at work than the bound for a while."""
        if slot.quiet != quiet:
            slot.quiet = quiet
            self._grant()

    def _grant(self) -> None:
        working = sum(not slot.quiet for slot in self._held)
        of_source = Counter(slot.source for slot in self._held)
        for slot in list(self._waiting):
            if working >= self.total:
                return
            if of_source[slot.source] < self.per_source and not slot.granted.done():
                self._waiting.remove(slot)
                self._held.append(slot)
                working += 1
                of_source[slot.source] += 1
                slot.granted.set_result(None)
