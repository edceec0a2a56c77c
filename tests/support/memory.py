"""What a process takes of memory while a test does something."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

MEBIBYTE = 1 << 20


@contextmanager
def watched(pid: int) -> Iterator[list[int]]:
    """Resident memory before, and the most that was seen meanwhile."""
    process = psutil.Process(pid)
    seen = [process.memory_info().rss] * 2
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            seen[1] = max(seen[1], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()
