"""When reads may begin: at once, or, while the journal is too long, when those that run have ended.

SQLite begins at its journal's start again only when nobody reads from it. Reads that overlap without a gap would let it
grow for as long as somebody writes.

Knows threads, and nothing of SQLite. A read that has waited once does not wait for later ones.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class ReadGate:
    """Counts the reads that run. drained: called in the thread of the last of them, when no other may begin."""

    def __init__(self, drained: Callable[[], None]) -> None:
        self._call = drained
        self._changed = threading.Condition()
        self._running = 0
        self._closed = False
        self._stopped = False
        # How often it has been opened.
        self._rounds = 0

    @property
    def drained(self) -> bool:
        """Whether reads wait, and none runs."""
        return self._closed and not self._running

    @contextlib.contextmanager
    def reading(self, seconds: float) -> Iterator[None]:
        """One read. It waits for the next opening, for so many seconds at most, while the gate is closed."""
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
                self._call()

    def close(self) -> None:
        """Let no read begin beside those that run, if any does, until `open`."""
        # Nobody but the one thread that writes closes it.
        if self._closed:
            return
        with self._changed:
            self._closed = self._running > 0

    def open(self) -> None:
        """Let those that wait begin."""
        if not self._closed:
            return
        with self._changed:
            self._closed = False
            self._rounds += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Let nobody wait any more: the host is stopping."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
