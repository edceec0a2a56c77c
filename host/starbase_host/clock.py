"""The one source of time and of waiting, so that a test can own both.

Everything that asks the time or sleeps takes a `Clock`; nothing else calls `time` or `asyncio.sleep`.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


class Clock:
    """The system's clock. Tests pass a subclass that they can move."""

    def now(self) -> float:
        """Seconds since 1970, UTC; may step when the machine's clock is set."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; never steps. For durations and time-outs."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait; returns early only by cancellation."""
        await asyncio.sleep(seconds)


def iso(at: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 UTC with milliseconds and Z, the form of every time on the wire."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
