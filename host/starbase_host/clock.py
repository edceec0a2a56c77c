"""The one source of time and of sleep, so that a test can control both.

Code that reads the time or sleeps takes a `Clock`; only this module calls `time` and `asyncio.sleep`.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


class Clock:
    """The clock of the system. Tests pass a subclass that they can move."""

    def now(self) -> float:
        """Return seconds since 1970, UTC. The value can jump when the clock of the machine is set."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment; the value never jumps. For durations and time-outs."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep this many seconds. Only cancellation ends it early."""
        await asyncio.sleep(seconds)


def iso(at: float | None) -> str | None:
    """Format seconds since 1970 as every time on the wire: ISO 8601, UTC, milliseconds and Z. None stays None."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
