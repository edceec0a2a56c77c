"""A time limit for what users have added to a replica, because it runs within the writes of a run.

That is triggers, computed columns, CHECKs, and expressions in indexes. None of them may hold up all other writes.
Functions of an APSW connection, on the thread that writes. A replica without additions costs one query of the schema.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence

import apsw

from starbase_data_replication.errors import SyncError
from starbase_data_replication.storage.sqlite_tables import TAG

# A table's own code, and an index that computes something, or is over some rows only.
IN_TABLE = re.compile(r"\bCHECK\b|\bAS\s*\(", re.IGNORECASE)
IN_INDEX = re.compile(r"\(.*\(|\bWHERE\b", re.IGNORECASE | re.DOTALL)
# How often to interrupt again: SQLite loses an interrupt that comes between two statements.
AGAIN_SECONDS = 0.02
MIB = 1024 * 1024
# The default of max_trigger_seconds.
SECONDS = 30.0


class AddedTooSlow(SyncError):
    """What users have added to a replica has held up a write for too long. Nothing of that write is kept."""

    code = "added_too_slow"


@contextlib.contextmanager
def bounded(connection: apsw.Connection, table: str, seconds: float, *, whole: bool = False) -> Iterator[None]:
    """Bound the time of statements that write to the table, where anything was added to it.

    seconds: for a batch, which is small. whole: for a statement that may write all of the table's rows, which gets a
    second more for each MiB of the database. Raises AddedTooSlow, which names what was added.
    """
    found = _added(connection, table)
    if not found:
        yield
        return
    what = f"table {table} was being written for over {{:g}} seconds because of what was added to it: {_words(found)}"
    with deadline(connection, for_all(connection, seconds) if whole else seconds, what):
        yield


def for_all(connection: apsw.Connection, seconds: float) -> float:
    """How long a statement may take that goes through a whole table."""
    size = connection.pragma("page_count") * connection.pragma("page_size")
    return seconds + float(size) / MIB


@contextlib.contextmanager
def deadline(connection: apsw.Connection, seconds: float, what: str) -> Iterator[None]:
    """Interrupt what runs on the connection when the time is over, and raise AddedTooSlow with `what`."""
    ended, over = threading.Event(), threading.Event()

    def watch() -> None:
        if ended.wait(seconds):
            return
        over.set()
        connection.interrupt()
        while not ended.wait(AGAIN_SECONDS):
            connection.interrupt()

    watching = threading.Thread(target=watch, name="deadline", daemon=True)
    watching.start()
    try:
        yield
    except apsw.InterruptError as error:
        if not over.is_set():
            raise
        raise AddedTooSlow(
            f"{what.format(seconds)}; drop it, or make it do less; max_trigger_seconds is the limit"
        ) from error
    finally:
        ended.set()
        # Wait for the thread, so that it cannot interrupt a later statement.
        watching.join()


def _added(connection: apsw.Connection, table: str) -> Sequence[tuple[str, str]]:
    """Type and name of what was added and runs when the table is written; `table` stands for its own definition."""
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name = ? COLLATE NOCASE AND sql IS NOT NULL", (table,)
    )
    return [
        (kind, name)
        for kind, name, sql in rows
        if kind == "trigger"
        or (kind == "table" and IN_TABLE.search(sql))
        or (kind == "index" and not name.startswith(TAG) and IN_INDEX.search(sql))
    ]


def _words(found: Sequence[tuple[str, str]]) -> str:
    return ", ".join(
        "a CHECK or computed column of the table" if kind == "table" else f"the {kind} {name}" for kind, name in found
    )
