"""The one thread that writes to the internal database, and the thread that checkpoints its write-ahead log (WAL).

SQLite itself would checkpoint inside the commit that fills the WAL. The caller of that commit would then wait for the
disk, and no other job would run meanwhile: that took a quarter of the time of a load.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable

import apsw

from starbase_host.read_gate import ReadGate

log = logging.getLogger("starbase.database")

Job = Callable[[apsw.Connection], None]

# Pages of 4 KiB. Each checkpoint waits for the disk twice; with this many pages, that is worth it.
CHECKPOINT_PAGES = 7_000
# The WAL starts from the beginning again only when all of it is checkpointed and nothing is added meanwhile. With this
# many pages, the writer itself checkpoints, so that nothing is added.
FULL_PAGES = 15_000
# With this many pages (234 MiB), overlapping reads have kept the WAL from starting again: new reads wait until the
# current ones have ended.
GATE_PAGES = 60_000
# How long waiting reads wait for the end of a write, once no read runs.
DRAINED_WAIT_SECONDS = 0.5
# After this many seconds without a write, fewer pages are worth a checkpoint: the next writes find an empty WAL.
IDLE_PAGES = 1_000
IDLE_SECONDS = 0.25
# When a reader's snapshot or the disk has stopped a checkpoint, it is tried again after this time without a write.
RETRY_SECONDS = 5.0
# Steps of the kernel's priority: a writing thread gets a third of the CPU time of an answering thread.
PRIORITY_STEPS = 5


class Writer:
    """The writer thread. It owns two connections: one to write, and one to checkpoint.

    gate: reads that may be long go through it.
    jobs: how many jobs have begun.
    plugin: the plugin whose job is the latest; None for one of the host.
    """

    def __init__(self, connection: apsw.Connection, checkpoint_connection: apsw.Connection) -> None:
        self._jobs: queue.SimpleQueue[tuple[Job, str | None] | None] = queue.SimpleQueue()
        self.jobs = 0
        self.plugin: str | None = None
        self._checkpointer = Checkpointer(checkpoint_connection)
        self.gate = self._checkpointer.gate
        self._thread = threading.Thread(target=self._run, args=(connection,), name="writer", daemon=True)
        self._thread.start()

    @property
    def writing(self) -> bool:
        """Whether a job runs."""
        return self._checkpointer.writing

    @property
    def thread_id(self) -> int:
        """The id of the thread, as Python's `threading` has it."""
        return self._thread.ident or 0

    def put(self, job: Job, plugin: str | None = None) -> None:
        """Queue a job, which must not raise. plugin: whose job it is; None for one of the host."""
        self._jobs.put((job, plugin))

    def truncate_wal(self) -> None:
        """Checkpoint the whole WAL and truncate its file. Call it only from a job.

        Raises apsw.BusyError when a read keeps it from that for longer than the busy timeout.
        """
        self._checkpointer.truncate()

    def close(self) -> None:
        """Finish the queued jobs, then close the connections. Blocks."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self, connection: apsw.Connection) -> None:
        _lower_priority()
        # Replaces SQLite's own hook, which would checkpoint inside a commit.
        connection.set_wal_hook(self._checkpointer.on_commit)
        # The connection that closes last checkpoints what is left.
        with contextlib.closing(connection), contextlib.closing(self._checkpointer):
            while (given := self._jobs.get()) is not None:
                self.jobs += 1
                job, self.plugin = given
                self._checkpointer.writing = True
                job(connection)
                self._checkpointer.writing = False
                # Without this, the job's data would stay in memory until the next job.
                del job, given
                if self._checkpointer.pages >= FULL_PAGES:
                    self._checkpointer.checkpoint()


class Checkpointer:
    """Checkpoints the WAL, on its own thread and connection.

    pages: the length of the WAL in pages, with the pages that are already checkpointed.
    held_up: whether the last checkpoint left many pages.
    writing: whether a job runs, which may be adding pages.
    gate: opened when the WAL can start from the beginning again.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.pages = 0
        self.held_up = False
        self.writing = False
        self.gate = ReadGate(self._wake)
        self._connection = connection
        self._checkpointed = 0
        self._warned = False
        self._closed = False
        self._changed = threading.Condition()
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="checkpointer", daemon=True)
        self._thread.start()

    def on_commit(self, _: apsw.Connection, name: str, pages: int) -> int:
        """SQLite calls this after each commit, with the length of the WAL in pages."""
        if name == "main":
            with self._changed:
                if pages < self.pages:
                    self._checkpointed = 0
                self.pages = pages
                # Else each record of a sync that finds nothing would wake the other thread.
                if pages - self._checkpointed >= IDLE_PAGES:
                    self._changed.notify()
            if pages >= GATE_PAGES:
                self.gate.close()
        return apsw.SQLITE_OK

    def _wake(self) -> None:
        """Wake the thread: no read runs, and none can begin."""
        with self._changed:
            self._changed.notify()

    def checkpoint(self) -> None:
        """Checkpoint every page that no reader's snapshot still needs. Blocks."""
        with self._one_at_a_time:
            try:
                there, done = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.Error as error:
                # The WAL keeps everything that is committed. If the disk fails, the next write reports that.
                if not self._warned:
                    log.warning("the write-ahead log cannot be checkpointed now (%s), so it grows", error)
                self._warned = self.held_up = True
                return
            self._record_checkpoint(there, done)

    def truncate(self) -> None:
        # SQLite refuses two checkpoints at a time at once, whatever the busy timeout.
        with self._one_at_a_time:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._record_checkpoint(0, 0)

    def _record_checkpoint(self, there: int, done: int) -> None:
        with self._changed:
            self._warned, self.held_up = False, there - done >= IDLE_PAGES
            if there == 0:
                self.pages = 0
            # The WAL may have started again since.
            self._checkpointed = min(done, self.pages)
        if there == done and not self.writing:
            # The next write starts the WAL again, because reads that begin now read the database file itself.
            self.gate.open()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        _lower_priority()
        while self._wait():
            self.checkpoint()
            if self.gate.drained:
                # The writer may be adding pages; it checkpoints itself at its next chance.
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or not self.gate.drained, DRAINED_WAIT_SECONDS)
                self.checkpoint()
                self.gate.open()

    def _wait(self) -> bool:
        """Wait until a checkpoint is worth it; return False when this object is closed."""
        with self._changed:
            if self.held_up:
                self._changed.wait_for(lambda: self._closed or self.gate.drained, RETRY_SECONDS)
            while not self._closed:
                if self.gate.drained:
                    return True
                new = self.pages - self._checkpointed
                if new >= CHECKPOINT_PAGES:
                    return True
                if not self._changed.wait(IDLE_SECONDS if new >= IDLE_PAGES else None):
                    return True
        return False


def _lower_priority() -> None:
    """Give this thread a lower priority than threads that answer requests. Only on Linux do threads have one."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + PRIORITY_STEPS)
