"""When reads may begin: at once, or, while the write-ahead log (WAL) is too long, after the current reads have ended.

SQLite starts the WAL from the beginning again only when no connection reads from it. Reads that always overlap would
let it grow as long as something writes.

Knows threads, and nothing of SQLite. A read that has waited once does not wait for later reads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class ReadGate:
    """Counts the current reads.

    on_drained: called in the thread of the last read that ends while the gate is closed.
    """

    def __init__(self, on_drained: Callable[[], None]) -> None:
        self._on_drained = on_drained
        self._changed = threading.Condition()
        self._running = 0
        self._closed = False
        self._stopped = False
        # How often the gate has been opened.
        self._rounds = 0

    @property
    def drained(self) -> bool:
        """Whether the gate is closed and no read runs."""
        return self._closed and not self._running

    @contextlib.contextmanager
    def read(self, seconds: float) -> Iterator[None]:
        """Count one read. While the gate is closed, wait until it opens, for at most this many seconds."""
        with self._changed:
            if self._closed and not self._stopped:
                rounds = self._rounds
                self._changed.wait_for(lambda: self._rounds != rounds or self._stopped, seconds)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                drained = self.drained
            if drained:
                self._on_drained()

    def close(self) -> None:
        """Let new reads wait until `open`; if no read runs now, do nothing."""
        # Without the lock: only the writer thread closes the gate.
        if self._closed:
            return
        with self._changed:
            self._closed = self._running > 0

    def open(self) -> None:
        """Let the waiting reads begin."""
        if not self._closed:
            return
        with self._changed:
            self._closed = False
            self._rounds += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Let no read wait any more: the host is stopping."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
