"""Limits what SQLite writes to temporary files for one caller: sorts, materialized tables, automatic indexes.

SQLite has no such limit, but opens every file through its VFS. So the host's connections use a VFS that differs from
the default VFS only in how it opens temporary files: when the calling thread has a limit, a file counts how it grows.
The database, its WAL and its shared memory keep the default functions, at no cost.

The structures have the layouts that sqlite3.h publishes for version 3. Must not know roles, statements, or any thread
but its caller's.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from ctypes import CFUNCTYPE, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import apsw

# The name of the VFS, for `apsw.Connection`.
VFS = "starbase"
TEMPORARY = (
    apsw.SQLITE_OPEN_TEMP_DB
    | apsw.SQLITE_OPEN_TEMP_JOURNAL
    | apsw.SQLITE_OPEN_TRANSIENT_DB
    | apsw.SQLITE_OPEN_SUBJOURNAL
)

_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Close = CFUNCTYPE(c_int, c_void_p)
_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)


class _Vfs(ctypes.Structure):
    """sqlite3_vfs."""

    _fields_ = [
        ("iVersion", c_int), ("szOsFile", c_int), ("mxPathname", c_int), ("pNext", c_void_p), ("zName", c_char_p),
        ("pAppData", c_void_p), ("xOpen", c_void_p), ("xDelete", c_void_p), ("xAccess", c_void_p),
        ("xFullPathname", c_void_p), ("xDlOpen", c_void_p), ("xDlError", c_void_p), ("xDlSym", c_void_p),
        ("xDlClose", c_void_p), ("xRandomness", c_void_p), ("xSleep", c_void_p), ("xCurrentTime", c_void_p),
        ("xGetLastError", c_void_p), ("xCurrentTimeInt64", c_void_p), ("xSetSystemCall", c_void_p),
        ("xGetSystemCall", c_void_p), ("xNextSystemCall", c_void_p),
    ]  # fmt: skip


class _Methods(ctypes.Structure):
    """sqlite3_io_methods; the structure of an open file begins with a pointer to it."""

    _fields_ = [
        ("iVersion", c_int), ("xClose", c_void_p), ("xRead", c_void_p), ("xWrite", c_void_p), ("xTruncate", c_void_p),
        ("xSync", c_void_p), ("xFileSize", c_void_p), ("xLock", c_void_p), ("xUnlock", c_void_p),
        ("xCheckReservedLock", c_void_p), ("xFileControl", c_void_p), ("xSectorSize", c_void_p),
        ("xDeviceCharacteristics", c_void_p), ("xShmMap", c_void_p), ("xShmLock", c_void_p), ("xShmBarrier", c_void_p),
        ("xShmUnmap", c_void_p), ("xFetch", c_void_p), ("xUnfetch", c_void_p),
    ]  # fmt: skip


class Space:
    """The temporary files of one caller.

    limit, used: bytes.
    refused: whether the caller needed more than the limit.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.refused = False

    def take(self, size: int) -> bool:
        """Count this many bytes more; return False when they would exceed the limit."""
        if self.used + size > self.limit:
            self.refused = True
            return False
        self.used += size
        return True


@dataclass
class _File:
    """An open temporary file.

    space: what its bytes count for.
    methods: the address of the default sqlite3_io_methods.
    size: bytes.
    """

    space: Space
    methods: int
    size: int = 0


_thread = threading.local()
# By the address of SQLite's structure of the open file.
_files: dict[int, _File] = {}
# By the address of the default methods: a copy that counts, and its three callbacks.
_counting: dict[int, tuple[_Methods, Any, Any, Any]] = {}
_registering = threading.Lock()
_keep_alive: list[Any] = []


@contextlib.contextmanager
def limit_space(limit: int) -> Iterator[Space]:
    """Limit the temporary files of this thread's statements to `limit` bytes, on connections that use the VFS.

    A statement that needs more fails with apsw.FullError.
    """
    space = _thread.space = Space(limit)
    try:
        yield space
    finally:
        _thread.space = None


def register() -> None:
    """Register the VFS, once for the process. Raises apsw.Error when SQLite has no default VFS."""
    with _registering:
        if _keep_alive:
            return
        made = apsw.VFS(VFS, base="")
        own, ours = _vfs_of(""), _vfs_of(VFS)
        for name in (field[0] for field in _Vfs._fields_):
            if name not in ("pNext", "zName"):
                setattr(ours, name, getattr(own, name))
        native = _Open(own.xOpen)

        def open_file(vfs: int, name: int | None, file: int, flags: int, answered: int | None) -> int:
            code: int = native(vfs, name, file, flags, answered)
            space = getattr(_thread, "space", None)
            if space is not None and flags & TEMPORARY and code == apsw.SQLITE_OK:
                _count(file, space)
            return code

        callback = _Open(open_file)
        ours.xOpen = ctypes.cast(callback, c_void_p).value
        # Connections may outlive the Python objects that the interpreter clears at its end.
        _keep_alive.extend((made, callback))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(callback))


def _vfs_of(name: str) -> _Vfs:
    """Return the sqlite3_vfs of this name, taken from a connection; "" stands for the default VFS."""
    with contextlib.closing(apsw.Connection(":memory:", vfs=name or None)) as connection:
        address = c_void_p()
        connection.file_control("main", apsw.SQLITE_FCNTL_VFS_POINTER, ctypes.addressof(address))
    assert address.value is not None
    return _Vfs.from_address(address.value)


def _count(file: int, space: Space) -> None:
    """Make an open file count for a space as it grows."""
    begins = c_void_p.from_address(file)
    methods = begins.value
    assert methods is not None
    if methods not in _counting:
        _counting[methods] = _make_counting(methods)
    _files[file] = _File(space, methods)
    begins.value = ctypes.addressof(_counting[methods][0])


def _make_counting(methods: int) -> tuple[_Methods, Any, Any, Any]:
    own = _Methods.from_address(methods)
    native_close, native_write, native_truncate = _Close(own.xClose), _Write(own.xWrite), _Truncate(own.xTruncate)

    def close(file: int) -> int:
        closed = _files.pop(file)
        closed.space.used -= closed.size
        c_void_p.from_address(file).value = closed.methods
        return int(native_close(file))

    def write(file: int, data: int, size: int, offset: int) -> int:
        written = _files[file]
        more = offset + size - written.size
        if more > 0:
            if not written.space.take(more):
                return apsw.SQLITE_FULL
            written.size += more
        return int(native_write(file, data, size, offset))

    def truncate(file: int, size: int) -> int:
        code = int(native_truncate(file, size))
        cut = _files[file]
        if code == apsw.SQLITE_OK and size < cut.size:
            cut.space.used -= cut.size - size
            cut.size = size
        return code

    callbacks = _Close(close), _Write(write), _Truncate(truncate)
    counting = _Methods.from_buffer_copy(own)
    counting.xClose, counting.xWrite, counting.xTruncate = (ctypes.cast(each, c_void_p).value for each in callbacks)
    return counting, *callbacks
