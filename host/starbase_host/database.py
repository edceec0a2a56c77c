"""The internal SQLite database: one writer, read-only readers, migrations.

APSW is the only SQLite library that may open the file in this process: two copies of SQLite in one process drop each
other's file locks, and a commit can fail or be torn. `guard` makes `sqlite3.connect` refuse the file. For the same
reason, the descriptor that locks the file against other processes is opened before those of SQLite, and closed after
them.

A function that you give to `write` or `read` gets an `apsw.Connection` and runs in another thread: it must not use the
event loop, and must not keep the connection.
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
from starbase_host.isolation import RUNNING
from starbase_host.modes import refuse_of_another, remove_other_access
from starbase_host.writer import Writer

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5_000
INTERNAL_READERS = 2
RESTORE = "the host no longer writes; stop it, put the file back, and start it again"
# SQLite's errors that are not the fault of a statement, and the fix. The transaction is rolled back.
UNUSABLE: dict[type[apsw.Error], str] = {
    apsw.BusyError: "the database is locked by another process; stop that process, or try again",
    apsw.FullError: "the disk of the database is full; free some space",
    apsw.IOError: "the disk of the database fails or is full; check the disk",
    apsw.ReadOnlyError: "the database cannot be written; check the mode of the file, and its disk",
    apsw.CantOpenError: "the database cannot be opened; check the file and its directory",
    apsw.CorruptError: "the database file is damaged; stop the host, and replace the file by a backup",
    apsw.NotADBError: "the database file is damaged; stop the host, and replace the file by a backup",
}
# A byte beyond the end of any database file, and far from the bytes that SQLite locks.
LOCK_BYTE = 1 << 62
MIGRATION_FILE = re.compile(r"(\d{3})_[a-z0-9_]+\.sql\Z")

# An audit hook cannot be removed, so the process has one, which checks these paths.
_guarded: set[str] = set()
_hook_installed = threading.Lock()


class DatabaseError(StarbaseError):
    """The internal database cannot be used because of its file, its lock or its contents; the message says which."""

    code = "database"


def quote(identifier: str) -> str:
    """Quote an identifier for SQL. Every name in a statement goes through this.

    Raises ValueError when it contains NUL.
    """
    if "\x00" in identifier:
        raise ValueError("an identifier cannot contain NUL")
    return '"' + identifier.replace('"', '""') + '"'


def fold_name(name: str) -> str:
    """Fold a name as SQLite does to compare names: ASCII letters become lowercase, all else stays."""
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in name)


def connect(path: Path, *, readonly: bool) -> apsw.Connection:
    """Open a connection with the settings that all connections of the host share. Raises DatabaseError."""
    flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    try:
        temporary.register()
        connection = apsw.Connection(str(path), flags=flags, vfs=temporary.VFS)
    except apsw.Error as error:
        raise DatabaseError(f"{path}: cannot be opened: {error}; check the file and its directory") from error
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    # A misspelt column in double quotes is an error, not a string.
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    if not readonly:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        # In KiB. Scattered changes then find the inner pages of a large table's trees in memory.
        connection.execute("PRAGMA cache_size = -8192")
        # A swap drops a table and gives its name to another one. SQLite's newer rename fails while a view mentions the
        # dropped table, and rewrites triggers on other tables.
        connection.execute("PRAGMA legacy_alter_table = ON")
    return connection


def guard(path: Path) -> None:
    """Make `sqlite3.connect` refuse this file from now on, in this process."""
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
            "a second SQLite library would break the locks of the host's database; use host.database.read or .write"
        )


class Database:
    """The internal database; usable between `open` and `close`.

    path: the database file.
    private_tables: names of tables that no query may read, whatever its role, because they hold secrets.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.private_tables: frozenset[str] = frozenset()
        self._writer: Writer | None = None
        self._open_lock = threading.Lock()
        self._open = False
        self._file = (0, 0)
        self._held: int | None = None
        self._readers = ReaderPool(path, INTERNAL_READERS, "reader")

    def make_private(self, name: str) -> None:
        """Hide a table that holds secrets from the queries of every role, until the host stops. It need not exist yet.

        Raises ValueError when the name is empty.
        """
        if not name:
            raise ValueError("a private table needs a name")
        self.private_tables |= {name}

    def open(self) -> None:
        """Open the file, or make it, and start the writer.

        Raises DatabaseError; Conflict when another host or command has the file open.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            # The file may hold secrets. SQLite gives its other files the mode of the database file.
            self._held = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            why = f"cannot be opened: {error.strerror}; name a file that can be written"
            raise DatabaseError(f"{self.path}: {why}") from error
        try:
            self._open_held(self._held)
        except BaseException:
            self._unlock_file()
            raise

    def _open_held(self, descriptor: int) -> None:
        opened = os.fstat(descriptor)
        if not _lock_file(descriptor):
            # The lock file was removed, or the other process opened this file by another path.
            raise Conflict(
                f"another host, or a `starbase` command, has {self.path} open, although its lock file does not say so; "
                "stop that process, and start this one again"
            )
        if opened.st_nlink > 1:
            # Under the other name, another host would not find the lock, nor SQLite the write-ahead log.
            raise DatabaseError(
                f"{self.path}: the file has a second name (a hard link); remove that name, or copy the file"
            )
        try:
            connection = connect(self.path, readonly=False)
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            checkpoint_connection = connect(self.path, readonly=False)
        except (apsw.FullError, apsw.IOError) as error:
            raise DatabaseError(f"{self.path}: {UNUSABLE[type(error)]} ({error})") from error
        except apsw.Error as error:
            why = f"is not a usable SQLite database: {error}; name another file, or replace it by a backup"
            raise DatabaseError(f"{self.path}: {why}") from error
        # Only now is it certain that the file is a database, and not another file that was named by mistake.
        for suffix in ("", "-wal", "-shm", "-journal"):
            path = Path(os.path.realpath(self.path) + suffix)
            with contextlib.suppress(FileNotFoundError):
                refuse_of_another(path, path.stat().st_uid, "host.database")
            remove_other_access(path, "host.database")
        guard(self.path)
        self._file = opened.st_dev, opened.st_ino
        self._writer = Writer(connection, checkpoint_connection)
        self._open = True

    @property
    def writer(self) -> Writer:
        """The writer thread. Raises Unavailable when the database is closed."""
        if self._writer is None:
            raise Unavailable("the database is closed")
        return self._writer

    def close(self) -> None:
        """Finish the queued writes, then close. Blocks: call it in a thread, or when the event loop is idle."""
        with self._open_lock:
            # Else a job could be queued behind the last one; it would never run, and its caller would wait for ever.
            self._open = False
        # The connection that closes last checkpoints the WAL, which a read-only connection cannot.
        self._readers.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._unlock_file()

    def _unlock_file(self) -> None:
        """Call it only after SQLite has closed the file: closing any descriptor of the file drops SQLite's locks."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    async def write(self, function: Callable[[apsw.Connection], T]) -> T:
        """Run `function(connection)` on the writer thread in a transaction, commit, and return its result.

        When this raises, nothing is committed. Cancelling the caller does not stop the function.
        Raises what the function raises; Unavailable when the database cannot be written or is closed.
        """
        return await self._on_writer(lambda connection: _in_transaction(connection, function))

    async def truncate_wal(self) -> None:
        """Checkpoint and truncate the WAL, so that it no longer holds content that was overwritten.

        Raises Unavailable when a read keeps it from that for longer than the busy timeout.
        """
        await self._on_writer(lambda _: self._writer.truncate_wal() if self._writer is not None else None)

    async def _on_writer(self, function: Callable[[apsw.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job(connection: apsw.Connection) -> None:
            try:
                self._check_file()
                result = function(connection)
            except tuple(UNUSABLE) as error:
                if getattr(error, "extendedresult", None) == apsw.SQLITE_CORRUPT_VTAB:
                    # This comes from a virtual table; the file is not damaged.
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

        with self._open_lock:
            if not self._open or self._writer is None:
                raise Unavailable("the database is closed")
            self._writer.put(job, RUNNING.get())
        return await future

    def gated_read(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """A context for a read that may be long. While the WAL is too long, entering it waits, at most `seconds`."""
        if self._writer is None:
            raise Unavailable("the database is closed")
        return self._writer.gate.read(seconds)

    def stop_gate(self) -> None:
        """Let no read wait at the gate any more: the host is stopping."""
        if self._writer is not None:
            self._writer.gate.stop()

    async def read(self, function: Callable[[apsw.Connection], T]) -> T:
        """Run `function(connection)` on a read-only connection in another thread, and return its result.

        Raises what the function raises; Unavailable when the database is closed.
        """
        return await self._readers.run(function)

    async def migrate(self, owner: str, package: str) -> None:
        """Apply the files `NNN_name.sql` in a package that have not been applied yet, in the order of their numbers.

        owner: whose migrations these are: "host" or the plugin's name.
        package: the dotted name of the package that contains the files.
        Raises DatabaseError when a newer version of the owner has migrated this database.
        """
        found = sorted(
            (int(match.group(1)), entry.name, entry.read_text(encoding="utf-8"))
            for entry in files(package).iterdir()
            if (match := MIGRATION_FILE.match(entry.name))
        )
        await self.write(lambda connection: _migrate(connection, owner, found))

    def _check_file(self) -> None:
        """Raise Unavailable when the path no longer names the open file: writes to it would be lost."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise Unavailable(f"{self.path}: {error.strerror}; {RESTORE}") from None
        if (found.st_dev, found.st_ino) != self._file:
            raise Unavailable(f"{self.path}: is not the file that the host opened at its start; {RESTORE}")


def _lock_file(descriptor: int) -> bool:
    """Lock the database file until the descriptor is closed; return False when another process has locked it.

    The lock file can be removed while a host runs; this lock cannot. It belongs to the descriptor (OFD), not to the
    process, and covers one byte that SQLite never locks, so that it and SQLite's locks do not conflict.
    """
    if sys.platform == "linux":
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, LOCK_BYTE, 1, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            # This file system or kernel does not have such locks; the lock file remains.
            pass
    return True


class ReaderPool:
    """A pool of threads, each with its own read-only connection, which is opened at first use.

    path: the database file.
    size: how many threads.
    name: the prefix of the threads' names.
    prepare: called once for each new connection, to set its limits.
    gate: makes the context that each read runs in.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        name: str,
        prepare: Callable[[apsw.Connection], None] | None = None,
        gate: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._path = path
        self._gate_context = gate
        self._prepare = prepare
        self._local = threading.local()
        self._connections: list[apsw.Connection] = []
        self._executor = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def run(self, function: Callable[[apsw.Connection], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._run_gated, function)
        except RuntimeError as error:
            if "shutdown" in str(error):
                raise Unavailable("the database is closed") from error
            raise

    def _run_gated(self, function: Callable[[apsw.Connection], T]) -> T:
        with self._gate_context():
            return function(self._connection())

    def interrupt(self) -> None:
        """Interrupt every statement that runs now."""
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
    """Run the body in BEGIN IMMEDIATE … COMMIT; on any exception, ROLLBACK."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After a full disk or an I/O error, SQLite has already rolled back; a second ROLLBACK's error would hide that.
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

    # During shutdown, the loop may be closed when a write ends whose caller is gone.
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
