"""The JSON of a query's answer: encoded in small pieces, in the thread of a reader, and counted as it grows.

Encoding holds Python's interpreter lock for the whole call, so each piece is short, and the event loop runs in between.
Owns how values look on the wire, and how many bytes of answers the host holds at once. Must not know SQLite, roles or
HTTP.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from starbase_host.errors import TooLarge, Unavailable

Row = tuple[Any, ...]
# For each column of an answer, its table and its name there; None for an expression.
Origins = tuple[tuple[str, str] | None, ...]

KIB = 1024
# About what one call encodes. A row that is longer than LONG_BYTES is split.
PIECE_BYTES = 32 * KIB
LONG_BYTES = 128 * KIB
# Shorter answers do not count for the quota: a caller that asks for little always gets its answer.
SMALL_BYTES = 64 * KIB
# A multiple of 3, so that the base64 pieces of a BLOB can be joined.
_BLOB_PIECE = 48 * KIB

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_escape = json.JSONEncoder(separators=(",", ":")).encode


class Quota:
    """How many bytes of one kind the host may hold at once for all callers. Small amounts do not count.

    limit: bytes.
    what: names the kind and says how to need fewer bytes; the end of the error message.
    """

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._bytes = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Count this many bytes more. Raises Unavailable when that exceeds the limit."""
        with self._lock:
            if self._bytes + count > self._limit:
                raise Unavailable(f"the host already holds {self._limit:,} bytes of {self._what}")
            self._bytes += count

    def give(self, count: int) -> None:
        with self._lock:
            self._bytes -= count


class Budget:
    """How many bytes one request may use, in all its statements together.

    bytes: the limit.
    quota: the quota of the host. What the request has used counts for it until `close`, or while this object exists.
    small: a request that has used at most this much does not count for the quota.
    """

    def __init__(self, *, bytes: int, quota: Quota, small: int = SMALL_BYTES) -> None:
        self._bytes = bytes
        self._small = small
        self._spent = self._taken = 0
        self._quota = quota

    def spend(self, count: int) -> None:
        """Use this many bytes. Raises TooLarge when the request has no more, Unavailable when the host has no more."""
        self._spent += count
        if self._spent > self._bytes:
            raise TooLarge("the answer is too large; ask for fewer rows or columns")
        if self._spent > self._small:
            self._quota.take(self._spent - self._taken)
            self._taken = self._spent

    def give_back(self, count: int) -> None:
        self._spent -= count
        if self._taken > self._spent:
            self._quota.give(self._taken - self._spent)
            self._taken = self._spent

    def close(self) -> None:
        """Give back all bytes, after an error. The traceback may keep this object for long."""
        self._quota.give(self._taken)
        self._taken = 0

    def __del__(self) -> None:
        self.close()


class Sink(Protocol):
    """Where the rows of a statement go: `restart`, `begin`, any number of `take` and `take_long`, then `finish`.

    When the statement runs again, so does `restart`, which drops the rows.

    row_bytes: what each row costs beside its texts and BLOBs.
    seconds: how long the statement ran.
    origins: for each column, its table and its name there; None where nobody asks.
    """

    row_bytes: int
    seconds: float
    origins: Origins | None

    def restart(self) -> None: ...

    def begin(self, columns: tuple[str, ...]) -> None: ...

    def take(self, rows: list[Row]) -> None: ...

    def take_long(self, row: Row) -> None: ...

    def finish(self, columns: tuple[str, ...], read: int, written: int) -> None: ...


class RowSink:
    """Keeps the rows as Python values; counts the memory that they take."""

    def __init__(self, budget: Budget) -> None:
        self.columns: tuple[str, ...] = ()
        self.rows: list[Row] = []
        self.read = self.written = self.row_bytes = 0
        self.seconds = 0.0
        self.origins: Origins | None = ()
        self._budget = budget
        self._spent = 0

    def restart(self) -> None:
        self._budget.give_back(self._spent)
        self._spent = 0
        self.rows = []

    def begin(self, columns: tuple[str, ...]) -> None:
        self.row_bytes = 64 + 32 * len(columns)

    def take(self, rows: list[Row]) -> None:
        spent = self.row_bytes * len(rows)
        for row in rows:
            for value in row:
                if value.__class__ is str or value.__class__ is bytes:
                    spent += sys.getsizeof(value)
        self._budget.spend(spent)
        self._spent += spent
        self.rows += rows

    def take_long(self, row: Row) -> None:
        self.take([row])

    def finish(self, columns: tuple[str, ...], read: int, written: int) -> None:
        self.columns, self.read, self.written = columns, read, written


class JsonSink:
    """Encodes the rows as the JSON of /query, one object a row, or of /query/raw, which keeps duplicate names."""

    def __init__(self, budget: Budget, *, raw: bool, lock: threading.Lock) -> None:
        """lock: held while a piece is encoded. Two threads would not encode faster than one, because both need Python's
        interpreter lock, and the event loop would wait for both.
        """
        self._lock = lock
        self.row_bytes = 0
        self.seconds = 0.0
        self.origins: Origins | None = None
        self._budget = budget
        self._raw = raw
        self._columns: tuple[str, ...] = ()
        self._pieces: list[bytes] = []
        self._spent = 0

    @property
    def pieces(self) -> list[bytes]:
        """The whole text, after `finish`."""
        return self._pieces

    def restart(self) -> None:
        self._budget.give_back(self._spent)
        self._spent = 0
        self._pieces = []
        self._columns = ()

    def begin(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self.row_bytes = 16 * len(columns) + (0 if self._raw else sum(map(len, columns)))

    def take(self, rows: list[Row]) -> None:
        """Encode rows that are short together, in one call."""
        with self._lock:
            if self._raw:
                text = _utf8([_json_row(row) for row in rows])
            else:
                # Of two columns with the same name, the last one stays.
                text = _utf8([dict(zip(self._columns, _json_row(row), strict=False)) for row in rows])
        self._add(self._head() + text[1:-1])

    def take_long(self, row: Row) -> None:
        """Encode one long row in several calls."""
        piece = bytearray(self._head())
        parts = _row_parts(None if self._raw else self._columns, row)
        while True:
            with self._lock:
                part = next(parts, None)
            if part is None:
                break
            piece += part
            if len(piece) >= PIECE_BYTES:
                self._add(bytes(piece))
                piece.clear()
        self._add(bytes(piece))

    def finish(self, columns: tuple[str, ...], read: int, written: int) -> None:
        # If no row has come, the columns are not written yet.
        head = b"" if self._pieces else self._opening(columns)
        tail = b"" if not self._raw else b',"meta":{"rows_read":%d,"rows_written":%d}}' % (read, written)
        self._add(head + b"]" + tail)

    def _head(self) -> bytes:
        return b"," if self._pieces else self._opening(self._columns)

    def _opening(self, columns: tuple[str, ...]) -> bytes:
        return b'{"columns":%b,"rows":[' % _utf8(columns) if self._raw else b"["

    def _add(self, piece: bytes) -> None:
        self._budget.spend(len(piece))
        self._spent += len(piece)
        self._pieces.append(piece)


class Body:
    """The whole JSON of an answer, `{"result": …}`, in pieces. It counts for the quota while this object exists.

    size: bytes, of all pieces.
    """

    def __init__(self, texts: Sequence[JsonSink], budget: Budget, *, transaction: bool) -> None:
        self._budget = budget
        pieces = [b'{"result":[' if transaction else b'{"result":']
        for number, text in enumerate(texts):
            if number:
                pieces.append(b",")
            pieces += text.pieces
        pieces.append(b"]}" if transaction else b"}")
        self.size = sum(map(len, pieces))
        self.pieces = list(_join_short(pieces))


def _join_short(pieces: Sequence[bytes]) -> Iterator[bytes]:
    """Join short pieces: sending each piece costs the event loop one iteration."""
    short: list[bytes] = []
    size = 0
    for piece in pieces:
        short.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            yield b"".join(short)
            short, size = [], 0
    if short:
        yield b"".join(short)


def write_rows(rows: Iterator[Row], sink: Sink, most: int) -> int:
    """Write the rows into the sink, a few at a time; return how many there were.

    Raises TooLarge when there are more than `most`.
    """
    count = 0
    batch: list[Row] = []
    size = 0
    for row in rows:
        if count == most:
            raise TooLarge(f"the answer has more than {most:,} rows, the limit of this host; add a LIMIT")
        count += 1
        long = sink.row_bytes
        for value in row:
            if value.__class__ is str or value.__class__ is bytes:
                long += len(value)
        if long > LONG_BYTES:
            if batch:
                sink.take(batch)
                batch, size = [], 0
            sink.take_long(row)
            continue
        batch.append(row)
        size += long
        if size >= PIECE_BYTES:
            sink.take(batch)
            batch, size = [], 0
    if batch:
        sink.take(batch)
    return count


def _json_row(row: Row) -> Sequence[Any]:
    return row if {float, bytes}.isdisjoint(map(type, row)) else [_json_value(value) for value in row]


def _json_value(value: Any) -> Any:
    if type(value) is bytes:
        return {"$base64": base64.b64encode(value).decode("ascii")}
    if type(value) is float and value - value != 0:
        return None if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def _utf8(value: Any) -> bytes:
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; JSON can still escape it.
        return _escape(value).encode()


def _row_parts(columns: tuple[str, ...] | None, row: Row) -> Iterator[bytes]:
    """Encode one row in short parts."""
    if columns is None:
        yield b"["
        for number, value in enumerate(row):
            if number:
                yield b","
            yield from _value_parts(value)
        yield b"]"
        return
    yield b"{"
    for number, (name, value) in enumerate(dict(zip(columns, row, strict=False)).items()):
        if number:
            yield b","
        yield from _value_parts(name)
        yield b":"
        yield from _value_parts(value)
    yield b"}"


def _value_parts(value: Any) -> Iterator[bytes]:
    if type(value) is str and len(value) > PIECE_BYTES:
        yield b'"'
        for start in range(0, len(value), PIECE_BYTES):
            yield _utf8(value[start : start + PIECE_BYTES])[1:-1]
        yield b'"'
    elif type(value) is bytes and len(value) > _BLOB_PIECE:
        yield b'{"$base64":"'
        for start in range(0, len(value), _BLOB_PIECE):
            yield base64.b64encode(value[start : start + _BLOB_PIECE])
        yield b'"}'
    else:
        yield _utf8(_json_value(value))
