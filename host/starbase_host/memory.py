"""What the process has of memory, and SQLite's share of it."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

MIB = 1024 * 1024
# SQLite's own memory, of all connections: above the first, its caches stop growing; above the second it is too much.
# Not SQLite's hard limit, which fails whichever allocation comes next: one of the host's own writes, too.
CACHED_BYTES, TOO_MUCH_BYTES = 96 * MIB, 128 * MIB
# To ask SQLite waits for a lock that all its threads fight for, and the event loop with it. It is asked only once the
# process has grown by so much.
GROWN_BYTES = 128 * MIB
_STATM = Path("/proc/self/statm")


class Memory:
    """Watches the process from where it stands when this is made."""

    def __init__(self) -> None:
        apsw.soft_heap_limit(CACHED_BYTES)
        self._at_first = _resident()

    def is_too_much(self) -> bool:
        """Whether SQLite takes too much."""
        resident = _resident()
        if resident is not None and self._at_first is not None and resident < self._at_first + GROWN_BYTES:
            return False
        return apsw.memory_used() > TOO_MUCH_BYTES


def _resident() -> int | None:
    """Bytes; None where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
