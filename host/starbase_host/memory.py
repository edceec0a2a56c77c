"""How much memory the process uses, and SQLite's share of it."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

MIB = 1024 * 1024
# SQLite's memory over all connections. Above the first value its caches stop growing; above the second, the host stops
# a query. SQLite's hard limit would fail any allocation that comes next, such as that of the host's own write.
CACHED_BYTES, TOO_MUCH_BYTES = 96 * MIB, 128 * MIB
# Asking SQLite waits for a lock that all its threads compete for, and the event loop waits too. So the host asks only
# after the process has grown by this much.
GROWN_BYTES = 128 * MIB
_STATM = Path("/proc/self/statm")


class Memory:
    """Measures memory against what the process used when this object was made."""

    def __init__(self) -> None:
        apsw.soft_heap_limit(CACHED_BYTES)
        self._at_first = _resident()

    def is_too_much(self) -> bool:
        """Whether SQLite uses more than TOO_MUCH_BYTES."""
        resident = _resident()
        if resident is not None and self._at_first is not None and resident < self._at_first + GROWN_BYTES:
            return False
        return apsw.memory_used() > TOO_MUCH_BYTES


def _resident() -> int | None:
    """Resident memory of this process in bytes; None when the system does not report it."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
