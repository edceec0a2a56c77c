"""The one thread that writes to the internal database: jobs in their order; and the journal, written back beside it.

SQLite itself would write the journal (its WAL) back within the commit that fills it. Whoever waits for that commit
would wait for the disk as well, and nothing else would be written meanwhile: a quarter of a load's time.
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

# Pages of 4 KiB. So much is worth the two waits for the disk that each time costs.
WORTH_PAGES = 7_000
# The journal begins anew only when all of it is written back, and nothing is added meanwhile: here the writer waits.
FULL_PAGES = 15_000
# Past this, reads that overlap have kept it from beginning again: new ones wait for those that run. 234 MiB.
CROWDED_PAGES = 60_000
# How long the reads that wait are held up once nobody reads, where the writer is in the middle of something.
LULL_SECONDS = 0.5
# While nobody has written for so long, less is worth it: what is written next finds room.
IDLE_PAGES = 1_000
IDLE_SECONDS = 0.25
# Whatever has held it up, a reader's snapshot or a disk: it is tried again without anybody writing.
RETRY_SECONDS = 5.0
# Steps of the kernel's priority: a thread that writes has a third of the weight of one that answers.
STEPS_BACK = 5


class Writer:
    """Owns two connections: one to write on, and one to write the journal back. A job must not raise.

    gate: what reads that may be long go through.
    """

    def __init__(self, connection: apsw.Connection, beside: apsw.Connection) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._journal = Journal(beside)
        self.gate = self._journal.gate
        self._thread = threading.Thread(target=self._run, args=(connection,), name="writer", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.put(job)

    def empty_journal(self) -> None:
        """Write all of the journal back, and cut it to nothing. For a job.

        Raises apsw.BusyError when a reader needs it for longer than the busy timeout.
        """
        self._journal.empty()

    def close(self) -> None:
        """Finish what is queued, then close the connections. Blocks."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self, connection: apsw.Connection) -> None:
        _step_back()
        # In the place of SQLite's own, which writes back by itself.
        connection.set_wal_hook(self._journal.committed)
        # The last to be closed writes back what is left.
        with contextlib.closing(connection), contextlib.closing(self._journal):
            while (job := self._jobs.get()) is not None:
                self._journal.writing = True
                job(connection)
                self._journal.writing = False
                # What it has written is not to be kept until the next one comes.
                del job
                if self._journal.pages >= FULL_PAGES:
                    self._journal.write_back()


class Journal:
    """What is committed and not yet in the file itself, and the thread that writes it back on its own connection.

    pages: how long it is, those included that are written back already. held_up: the last time, much of it stayed.
    writing: whether a job runs, which may have begun to add to it. gate: opened when it can begin at its start again.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.pages = 0
        self.held_up = False
        self.writing = False
        self.gate = ReadGate(self._wake)
        self._connection = connection
        self._written_back = 0
        self._warned = False
        self._closed = False
        self._changed = threading.Condition()
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def committed(self, _: apsw.Connection, name: str, pages: int) -> int:
        """SQLite's hook: a commit has made it so long."""
        if name == "main":
            with self._changed:
                if pages < self.pages:
                    self._written_back = 0
                self.pages = pages
                # A host whose syncs find nothing need not wake another thread for each of their records.
                if pages - self._written_back >= IDLE_PAGES:
                    self._changed.notify()
            if pages >= CROWDED_PAGES:
                self.gate.close()
        return apsw.SQLITE_OK

    def _wake(self) -> None:
        """Nobody reads, and nobody begins to."""
        with self._changed:
            self._changed.notify()

    def write_back(self) -> None:
        """Write back what no reader's snapshot keeps from it. Blocks."""
        with self._one_at_a_time:
            try:
                there, done = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.Error as error:
                # Everything in it is committed, and stays; a disk that fails is told to whoever writes next.
                if not self._warned:
                    log.warning("the journal cannot be written back into the database now (%s); it grows", error)
                self._warned = self.held_up = True
                return
            self._wrote_back(there, done)

    def empty(self) -> None:
        # Two at a time would be refused at once, whatever the busy timeout.
        with self._one_at_a_time:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._wrote_back(0, 0)

    def _wrote_back(self, there: int, done: int) -> None:
        with self._changed:
            self._warned, self.held_up = False, there - done >= IDLE_PAGES
            if there == 0:
                self.pages = 0
            # It may have begun anew since.
            self._written_back = min(done, self.pages)
        if there == done and not self.writing:
            # What is written next begins at its start: those that read now read the file itself.
            self.gate.open()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        _step_back()
        while self._wait():
            self.write_back()
            if self.gate.drained:
                # The writer adds to it meanwhile, and writes it back itself as soon as it may.
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or not self.gate.drained, LULL_SECONDS)
                self.write_back()
                self.gate.open()

    def _wait(self) -> bool:
        """Wait until writing back is worth it; whether it still is, or this is the end."""
        with self._changed:
            if self.held_up:
                self._changed.wait_for(lambda: self._closed or self.gate.drained, RETRY_SECONDS)
            while not self._closed:
                if self.gate.drained:
                    return True
                new = self.pages - self._written_back
                if new >= WORTH_PAGES:
                    return True
                if not self._changed.wait(IDLE_SECONDS if new >= IDLE_PAGES else None):
                    return True
        return False


def _step_back() -> None:
    """Let whoever answers go first, where there are fewer cores than work. On Linux alone a thread has a priority."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + STEPS_BACK)
