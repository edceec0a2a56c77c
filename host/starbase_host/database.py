"""The internal SQLite database: one writer, read-only readers, migrations.

APSW is the only SQLite library that may touch the file in this process: two copies of SQLite in one process
drop each other's file locks, and a commit can fail or tear. `guard` refuses the standard module on it. For the same
reason the descriptor that holds the file against other processes is opened before SQLite's, and closed after them.

A function given to `write` or `read` gets an `apsw.Connection` and runs in another thread: it must not touch
the event loop, nor keep the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import apsw

from starbase_host import temporary
from starbase_host.errors import Conflict, StarbaseError, Unavailable
from starbase_host.modes import remove_other_access
from starbase_host.writer import Writer

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5_000
INTERNAL_READERS = 2
PUT_BACK = "nothing more is written; stop the host, put the file back, and start it again"
# What SQLite says when it is not the statement's fault, and the mend. Nothing of the transaction is kept.
UNUSABLE: dict[type[apsw.Error], str] = {
    apsw.BusyError: "the database is locked by another process; end what writes to it, or try again",
    apsw.FullError: "the database's disk is full; free some space",
    apsw.IOError: "the database's disk fails or is full; look at the disk",
    apsw.ReadOnlyError: "the database cannot be written; look at the file's mode and its disk",
    apsw.CantOpenError: "the database cannot be opened; look at the file and its directory",
    apsw.CorruptError: "the database file is damaged; stop the host, and put a copy in its place",
    apsw.NotADBError: "the database file is damaged; stop the host, and put a copy in its place",
}
# Of the file's bytes, one that it never has, and far from those that SQLite locks.
HELD_BYTE = 1 << 62
MIGRATION_FILE = re.compile(r"(\d{3})_[a-z0-9_]+\.sql\Z")

# An audit hook can never be taken out again, so there is one for the process, and this is what it looks at.
_guarded: set[str] = set()
_hook_installed = threading.Lock()


class DatabaseError(StarbaseError):
    """The internal database cannot be used: its file, its lock or its contents. The message says which."""

    code = "database"


def quote(identifier: str) -> str:
    """An identifier as SQL, whatever it holds. The one way a name gets into a statement."""
    if "\x00" in identifier:
        raise ValueError("an identifier cannot hold NUL")
    return '"' + identifier.replace('"', '""') + '"'


def fold_name(name: str) -> str:
    """Fold a name as SQLite does to compare names: ASCII letters become lowercase, all else stays."""
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in name)


def connect(path: Path, *, readonly: bool) -> apsw.Connection:
    """Open a connection with the settings that every connection of the host has."""
    flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    try:
        temporary.register()
        connection = apsw.Connection(str(path), flags=flags, vfs=temporary.VFS)
    except apsw.Error as error:
        raise DatabaseError(f"{path}: cannot be opened: {error}; look at the file and its directory") from error
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    # A misspelt column in double quotes is an error, not a string.
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    if not readonly:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        # In KiB: the inner pages of a large table's trees stay, where changes lie scattered.
        connection.execute("PRAGMA cache_size = -8192")
        # A swap drops a table and renames another into its place; the newer rename would refuse while a view
        # speaks of the table that is gone for a moment, and would rewrite the triggers of others.
        connection.execute("PRAGMA legacy_alter_table = ON")
    return connection


def guard(path: Path) -> None:
    """Refuse `sqlite3.connect` on this file, in this process, from now on."""
    with _hook_installed:
        if not _guarded:
            sys.addaudithook(_refuse_second_library)
        _guarded.add(os.path.realpath(path))


def _refuse_second_library(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "sqlite3.connect" or not arguments:
        return
    try:
        name = os.fsdecode(arguments[0])
    except TypeError:
        return
    if name.startswith("file:"):
        name = unquote(urlsplit(name).path)
    if os.path.realpath(name) in _guarded:
        raise RuntimeError(
            "a second SQLite library on the host's database would break its locks; use host.database.read or .write"
        )


class Database:
    """The internal database, open between `open` and `close`.

    private_tables: tables that no query of any role may read (they hold secrets); plugins add theirs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.private_tables: set[str] = set()
        self._writer: Writer | None = None
        self._gate = threading.Lock()
        self._open = False
        self._file = (0, 0)
        self._held: int | None = None
        self._readers = ReaderPool(path, INTERNAL_READERS, "reader")

    def open(self) -> None:
        """Open the file (made if missing) and start the writer.

        Raises DatabaseError, and Conflict when another process has it open as this one would.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            # It may hold secrets. SQLite gives the files beside it the mode of the database.
            self._held = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            why = f"cannot be opened: {error.strerror}; name a file that can be written"
            raise DatabaseError(f"{self.path}: {why}") from error
        try:
            self._open_held(self._held)
        except BaseException:
            self._let_go()
            raise

    def _open_held(self, descriptor: int) -> None:
        opened = os.fstat(descriptor)
        if not _hold(descriptor):
            # The lock file has been removed, or this file has come here under another path.
            raise Conflict(
                f"another host, or a `starbase` command, has {self.path} open, although its lock file does not say so; "
                "stop that one, and start it again"
            )
        if opened.st_nlink > 1:
            # Under its other name another host would find no lock, and SQLite another journal.
            raise DatabaseError(f"{self.path}: the file has another name too (a hard link); remove that, or copy it")
        try:
            connection = connect(self.path, readonly=False)
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            beside = connect(self.path, readonly=False)
        except (apsw.FullError, apsw.IOError) as error:
            raise DatabaseError(f"{self.path}: {UNUSABLE[type(error)]} ({error})") from error
        except apsw.Error as error:
            why = f"is not a usable SQLite database: {error}; name another file, or put a copy in its place"
            raise DatabaseError(f"{self.path}: {why}") from error
        # It is a database, and not something else that was named by mistake.
        for suffix in ("", "-wal", "-shm", "-journal"):
            remove_other_access(Path(os.path.realpath(self.path) + suffix), "host.database")
        guard(self.path)
        self._file = opened.st_dev, opened.st_ino
        self._writer = Writer(connection, beside)
        self._open = True

    def close(self) -> None:
        """Finish what is queued, then close. Blocks: call it from a thread, or when the loop has nothing left."""
        with self._gate:
            # A job behind the last one would never be done, and its caller would wait for ever.
            self._open = False
        # The last connection writes the journal back into the file, which a reader may not.
        self._readers.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._let_go()

    def _let_go(self) -> None:
        """Only when SQLite has closed the file: to close any descriptor of it drops SQLite's own locks on it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    async def write(self, function: Callable[[apsw.Connection], T]) -> T:
        """Run `function(connection)` on the writer thread inside BEGIN IMMEDIATE, and commit.

        When this returns, it is committed; when it raises, nothing is. A caller that is cancelled does not
        stop the function.
        """
        return await self._on_writer(lambda connection: _in_transaction(connection, function))

    async def empty_journal(self) -> None:
        """Leave nothing in the journal, of what was overwritten in the file itself either.

        Raises Unavailable when somebody reads from it and does not end within the busy timeout.
        """
        await self._on_writer(lambda _: self._writer.empty_journal() if self._writer is not None else None)

    async def _on_writer(self, function: Callable[[apsw.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job(connection: apsw.Connection) -> None:
            try:
                self._check_file()
                result = function(connection)
            except tuple(UNUSABLE) as error:
                if getattr(error, "extendedresult", None) == apsw.SQLITE_CORRUPT_VTAB:
                    # A virtual table's own: the file is as it should be.
                    _deliver(loop, future, error=error)
                    return
                why = next(why for kind, why in UNUSABLE.items() if isinstance(error, kind))
                unavailable = Unavailable(f"{why} ({error})")
                unavailable.__cause__ = error
                _deliver(loop, future, error=unavailable)
            except BaseException as error:
                _deliver(loop, future, error=error)
            else:
                _deliver(loop, future, result=result)

        with self._gate:
            if not self._open or self._writer is None:
                raise Unavailable("the database is closed")
            self._writer.put(job)
        return await future

    def turn(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """What a read that may be long is inside of. It waits while the journal is too long, at most `seconds`."""
        if self._writer is None:
            raise Unavailable("the database is closed")
        return self._writer.gate.reading(seconds)

    def end_turns(self) -> None:
        """Let no read wait any more: the host is stopping."""
        if self._writer is not None:
            self._writer.gate.stop()

    async def read(self, function: Callable[[apsw.Connection], T]) -> T:
        """Run `function(connection)` on a read-only connection in another thread."""
        return await self._readers.run(function)

    async def migrate(self, owner: str, package: str) -> None:
        """Apply the numbered files `NNN_name.sql` of `package` that this database does not have yet.

        Raises DatabaseError when the database is newer than the code.
        """
        found = sorted(
            (int(match.group(1)), entry.name, entry.read_text(encoding="utf-8"))
            for entry in files(package).iterdir()
            if (match := MIGRATION_FILE.match(entry.name))
        )
        await self.write(lambda connection: _migrate(connection, owner, found))

    def _check_file(self) -> None:
        """SQLite would go on writing into a file that has no name any more, and all of it would be gone at the end."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise Unavailable(f"{self.path}: {error.strerror}; {PUT_BACK}") from None
        if (found.st_dev, found.st_ino) != self._file:
            raise Unavailable(f"{self.path}: is another file than when the host started; {PUT_BACK}")


def _hold(descriptor: int) -> bool:
    """Whether nobody else holds this database file. Then it is held until the descriptor is closed.

    The lock file can be removed while a host runs; what is on the file itself cannot. The lock is the descriptor's
    (OFD), not the process's, and on one byte: neither are SQLite's locks in its way, nor it in theirs.
    """
    if sys.platform == "linux":
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, HELD_BYTE, 1, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            # A file system, or a kernel, that has no such locks: there is the lock file.
            pass
    return True


class ReaderPool:
    """Threads with a read-only connection each; connections are opened when first needed.

    prepare: called once for each new connection, to set its limits. turn: what each read is inside of.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        name: str,
        prepare: Callable[[apsw.Connection], None] | None = None,
        turn: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._path = path
        self._turn = turn
        self._prepare = prepare
        self._local = threading.local()
        self._connections: list[apsw.Connection] = []
        self._executor = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def run(self, function: Callable[[apsw.Connection], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._in_turn, function)
        except RuntimeError as error:
            if "shutdown" in str(error):
                raise Unavailable("the database is closed") from error
            raise

    def _in_turn(self, function: Callable[[apsw.Connection], T]) -> T:
        with self._turn():
            return function(self._connection())

    def interrupt(self) -> None:
        """Stop every statement that runs now."""
        for connection in list(self._connections):
            with contextlib.suppress(apsw.ConnectionClosedError):
                connection.interrupt()

    def close(self) -> None:
        self.interrupt()
        self._executor.shutdown(wait=True, cancel_futures=True)
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _connection(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = connect(self._path, readonly=True)
            self._connections.append(connection)
            if self._prepare is not None:
                self._prepare(connection)
            self._local.connection = connection
        return connection


@contextlib.contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE … COMMIT, or ROLLBACK on any exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite itself has rolled back after a full disk or an I/O error; a second ROLLBACK would hide that.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _in_transaction(connection: apsw.Connection, function: Callable[[apsw.Connection], T]) -> T:
    with transaction(connection):
        return function(connection)


def _deliver(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    *,
    result: Any = None,
    error: BaseException | None = None,
) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    # The loop may be gone when a write that nobody waits for ends during shutdown.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(settle)


def _migrate(connection: apsw.Connection, owner: str, found: list[tuple[int, str, str]]) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS tmp_migrations "
        "(owner TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (owner, number))"
    )
    done = {row[0] for row in connection.execute("SELECT number FROM tmp_migrations WHERE owner = ?", (owner,))}
    newest = max((number for number, _, _ in found), default=0)
    if done and max(done) > newest:
        raise DatabaseError(f"the database was made by a newer version of {owner}; install that version")
    for number, name, sql in found:
        if number not in done:
            connection.execute(sql)
            connection.execute("INSERT INTO tmp_migrations VALUES (?, ?, ?)", (owner, number, name))
