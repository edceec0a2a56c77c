"""How much memory the process uses, and SQLite's share of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

import apsw

MIB = 1024 * 1024
# SQLite's memory over all connections. Above the first value its caches stop growing; above the second, the host stops
# a query. SQLite's hard limit would fail any allocation that comes next, such as that of the host's own write.
CACHED_BYTES, TOO_MUCH_BYTES = 96 * MIB, 128 * MIB
# Asking SQLite waits for a lock that all its threads compete for. So the host asks only after the process has grown by
# this much.
GROWN_BYTES = 128 * MIB
_STATM = Path("/proc/self/statm")


class Memory:
    """Measures memory against what the process used when this object was made."""

    def __init__(self) -> None:
        apsw.soft_heap_limit(CACHED_BYTES)
        self._at_first = _resident()

    def excess(self) -> float:
        """Return how many times TOO_MUCH_BYTES SQLite uses; 0 while the process has not grown."""
        if self._has_grown():
            return apsw.memory_used() / TOO_MUCH_BYTES
        return 0

    def release(self) -> None:
        """Return freed memory to the system: the C library keeps it, in a pool for each thread."""
        if self._has_grown():
            # Only glibc has this function.
            with contextlib.suppress(AttributeError):
                ctypes.CDLL(None).malloc_trim(0)

    def _has_grown(self) -> bool:
        resident = _resident()
        return resident is None or self._at_first is None or resident >= self._at_first + GROWN_BYTES


def _resident() -> int | None:
    """Resident memory of this process in bytes; None when the system does not report it."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
