"""A thread for a driver that blocks: calls one after the other, and can be cancelled.

Must not know what is called.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from starbase_data_replication.errors import SourceUnavailable
from starbase_host import Worker

P = ParamSpec("P")
T = TypeVar("T")

# How long a cancelled call may take to return. Then its thread is given up, and the connection with it.
GRACE_SECONDS = 5.0


class DriverThread:
    """One thread. It ends with `close`; a call that never returns keeps it, and not the process."""

    def __init__(self) -> None:
        self._worker = Worker("source")
        self._interrupt: Callable[[], None] | None = None
        self.given_up = False

    def interrupt_by(self, function: Callable[[], None]) -> None:
        """Set what makes a running call return soon."""
        self._interrupt = function

    async def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function in the thread. If the caller is cancelled, the call is interrupted and waited for first.

        Raises what the function raises; SourceUnavailable after a call that was given up.
        """
        if self.given_up:
            raise SourceUnavailable("the source's driver has not come back from an earlier call")
        calling = asyncio.wrap_future(self._worker.submit(lambda: function(*arguments, **named)))
        try:
            return await asyncio.shield(calling)
        except asyncio.CancelledError:
            if self._interrupt is not None:
                with contextlib.suppress(Exception):
                    self._interrupt()
            await self._wait(calling)
            raise

    async def _wait(self, calling: asyncio.Future[T]) -> None:
        calling.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({calling}, timeout=GRACE_SECONDS)
        self.given_up = not calling.done()

    def close(self) -> None:
        self._worker.close()
