"""Which runs may work now: a limit over all, for each source and for each server, so that one that hangs delays no
others.

A run whose source has been silent for a while does no work: until the source sends something again, it counts for its
source and its server, and not towards the limit over all. Must not know what a run does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass(eq=False, kw_only=True)
class Slot:
    """What a run holds while it works.

    source: the key of the source that it reads from.
    server: the key of the server that has it; several sources may be databases of one server.
    granted: resolves when the run may begin.
    quiet: whether its source is silent, so that another run may work in its place.
    """

    source: str
    server: str
    granted: asyncio.Future[None]
    quiet: bool = False


@dataclass(kw_only=True)
class Slots:
    """The slots of one host.

    total: how many runs may work at once.
    per_source: how many runs of one source may work at once, quiet ones included.
    per_server: how many runs of one server may work at once, quiet ones included: else one whose databases are quiet
        by turns would have them all at work in the end.
    """

    total: int
    per_source: int
    per_server: int
    _waiting: list[Slot] = field(default_factory=list)
    _held: list[Slot] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def hold(self, source: str, server: str) -> AsyncIterator[Slot]:
        """Wait for a slot, and hold it for the context. First come, first served, among runs whose source has room."""
        slot = Slot(source=source, server=server, granted=asyncio.get_running_loop().create_future())
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
        """Let another run work in the place of this one, or end that; then more than `total` may work for a while."""
        if slot.quiet != quiet:
            slot.quiet = quiet
            self._grant()

    def _grant(self) -> None:
        working = sum(not slot.quiet for slot in self._held)
        of_source = Counter(slot.source for slot in self._held)
        of_server = Counter(slot.server for slot in self._held)
        for slot in list(self._waiting):
            if working >= self.total:
                return
            has_room = of_source[slot.source] < self.per_source and of_server[slot.server] < self.per_server
            if has_room and not slot.granted.done():
                self._waiting.remove(slot)
                self._held.append(slot)
                working += 1
                of_source[slot.source] += 1
                of_server[slot.server] += 1
                slot.granted.set_result(None)
