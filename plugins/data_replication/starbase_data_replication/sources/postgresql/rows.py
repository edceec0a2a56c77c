"""A stream of rows by COPY, parsed from its text format, with never more in memory than the caller asks for.

A driver's fetch limits how many rows come, not how large they are; COPY gives what the socket has, and waits. Parsing
its text is also cheaper than building records: tabs are only between values and line breaks only after rows, so one
`split` in C does most of the work. Must not know what is read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import asyncpg

from starbase_data_replication.model import (
    NO_AFFINITY,
    Cast,
    Column,
    Rows,
    UnrepresentableValues,
    text_or_bytes,
    unsigned,
)
from starbase_data_replication.sources.batches import (
    LONGEST_ROW_BYTES,
    OVERHEAD_BYTES,
    Buffered,
    Damaged,
    TooMuch,
    convert,
)
from starbase_data_replication.sources.postgresql.connection import STATEMENT_TIMEOUT_SECONDS
from starbase_data_replication.sources.postgresql.encodings import Encoding, encoding_of

# How much text is parsed at once. The event loop is blocked meanwhile.
PIECE_BYTES = 1 << 17
# A larger row, which came in pieces, is parsed in a thread.
LONG_BYTES = 1 << 22

# Each piece that arrives costs at least a turn of the event loop. In a long stream, after a small piece, reading pauses
# for a moment: the server keeps writing into the socket, and the next piece is larger.
SMALL_BYTES = 1 << 17
PAUSE_SECONDS = 0.002

# Stands for a backslash while other escapes are replaced: no decoded text contains half of a surrogate pair.
BACKSLASH = "\udc5c"
ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class RowStream(Buffered):
    """Rows that the server sends as the caller takes them.

    Attributes:
        ended: whether all were taken. Until then the connection cannot be used for anything else.
        unrepresentable: how many values of the rows so far could not be represented; the caller empties it.
    """

    def __init__(self, connection: Any, sql: str, columns: Sequence[Column], width: int) -> None:
        encoding = encoding_of(connection.get_settings().server_encoding)
        if encoding is not None:
            # Decoded with the whole piece, or one value at a time.
            columns = [
                replace(column, cast=replace(column.cast, convert=None))
                if column.cast.unrepresentable is bytes
                else column
                for column in columns
            ]
        super().__init__(width, timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
        self.ended = False
        self.unrepresentable: Counter[UnrepresentableValues] = Counter()
        self._columns = columns
        self._text = CopyText(columns, width=width, encoding=encoding)
        self._encoding = None if encoding is None else encoding.name
        self._overhead = OVERHEAD_BYTES * (width + 1)
        self._arrived: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._taken = asyncio.Event()
        self._copying = asyncio.create_task(self._copy(connection, sql))

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, connection: Any, sql: str, columns: Sequence[Column], *, width: int) -> AsyncIterator[Self]:
        """Open a stream of rows with `width` values, first those of the columns.

        Leaving the context before the end of the rows closes the connection.
        """
        stream = cls(connection, sql, columns, width)
        try:
            yield stream
        finally:
            if not stream._copying.done():
                # The caller has stopped waiting, so nothing could report an error.
                stream._arrived.cancel()
                # An orderly end of COPY would read the rest of its rows.
                with contextlib.suppress(asyncpg.InterfaceError):
                    connection.terminate()
                stream._copying.cancel()
                await asyncio.wait({stream._copying})

    async def _some(self, rows: int, size: int) -> bool:
        while not self._more.values and not self.ended:
            # Parsing a long row can take seconds, which must not block the event loop.
            if await asyncio.to_thread(self._parse) if self._text.is_long else self._parse():
                break
            # Not earlier: while a large row is written, the next one must not arrive.
            self._taken.set()
            arrived = await self._arrived
            self._arrived = asyncio.get_running_loop().create_future()
            self.ended = arrived is None
            self._text.feed(arrived or b"")
            del arrived
        return not self.ended

    def _parse(self) -> bool:
        length, found = self._text.rows()
        if found:
            self._more = convert(found, self._columns, self.unrepresentable)
            self._row_bytes = length // len(found) + self._overhead
        return bool(found)

    async def _copy(self, connection: Any, sql: str) -> None:
        received = 0

        async def sink(data: bytes) -> None:
            nonlocal received
            received += len(data)
            pause = PAUSE_SECONDS if len(data) < SMALL_BYTES < received else 0.0
            connection.limiter.taken()
            self._taken.clear()
            self._arrived.set_result(data)
            del data
            await self._taken.wait()
            await asyncio.sleep(pause)

        failure = None
        try:
            with connection.limiter.streaming():
                await connection.copy_from_query(sql, output=sink, timeout=None, encoding=self._encoding)
        except Exception as error:
            failure = error
        if self._arrived.done():
            # The caller that waited for rows was cancelled.
            return
        if failure is not None:
            self._arrived.set_exception(failure)
        else:
            self._arrived.set_result(None)


class CopyText:
    """COPY's text format, parsed piece by piece into the values that the binary protocol would give.

    encoding: the encoding of the text; None is UTF-8.
    """

    def __init__(self, columns: Sequence[Column], *, width: int, encoding: Encoding | None = None) -> None:
        self._encoding = encoding
        self._width = width
        self._parsers = [
            (index, parser) for index, column in enumerate(columns) if (parser := parser_of(column.cast)) is not None
        ]
        self._data = b""
        self._at = 0
        # Pieces of a row that has not ended, and their length in bytes.
        self._begun: list[bytes] = []
        self._begun_bytes = 0
        # Whether the next row to parse has more than LONG_BYTES.
        self.is_long = False

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream, of any length, after `rows` has returned none.

        Raises TooMuch for a row that is too long.
        """
        rest = self._data[self._at :] if self._at < len(self._data) else b""
        self._data, self._at = b"", 0
        if b"\n" not in data:
            # Joined once at the end: joining each time would copy every earlier piece again.
            self._begun += [piece for piece in (rest, data) if piece]
            self._begun_bytes += len(rest) + len(data)
            if self._begun_bytes > LONGEST_ROW_BYTES:
                raise TooMuch("a row", LONGEST_ROW_BYTES)
        elif self._begun or rest:
            self.is_long = self._begun_bytes > LONG_BYTES
            self._data = b"".join((*self._begun, rest, data))
            self._begun, self._begun_bytes = [], 0
        else:
            self.is_long = False
            self._data = data

    def rows(self) -> tuple[int, Rows]:
        """Some whole rows and their size in bytes; no rows if there is not a whole one."""
        end = self._data.find(b"\n", self._at + PIECE_BYTES)
        if end < 0:
            end = self._data.rfind(b"\n", self._at)
        if end < 0:
            return 0, Rows([], self._width)
        piece: memoryview | bytes = memoryview(self._data)[self._at : end]
        if len(piece) <= 2 * PIECE_BYTES:
            piece = bytes(piece)
            # `count` looks at each byte by itself; this takes a third of its time.
            lines = len(piece) - len(piece.replace(b"\n", b"")) + 1
        else:
            lines = self._data.count(b"\n", self._at, end) + 1
            if self._data.count(b"\t", self._at, end) != lines * (self._width - 1):
                # Counted first: as a list, a row of nothing but tabs would take ten times its size.
                raise Damaged
        values = self._values(piece)
        if len(values) != lines * self._width:
            raise Damaged
        del piece
        length = end + 1 - self._at
        self._at = end + 1
        if self._at == len(self._data):
            # Do not keep a second copy of a large row.
            self._data, self._at = b"", 0
        rows = Rows(values, self._width)
        for index, parser in self._parsers:
            try:
                parsed = [None if value is None else parser(value) for value in rows.column(index)]
            except ValueError as error:
                raise Damaged from error
            rows.replace_column(index, parsed)
        return length, rows

    def _values(self, piece: memoryview | bytes) -> list[Any]:
        if self._encoding is None:
            return split(str(piece, "utf-8"))
        try:
            return split(self._encoding.text(piece))
        except UnicodeError:
            # One character for each byte: COPY's own characters are all ASCII.
            decoded = self._encoding.decoded
            values = split(str(piece, "latin-1"))
            return [value if value is None or value.isascii() else decoded(value.encode("latin-1")) for value in values]


def split(text: str) -> list[Any]:
    """The values of whole rows, one after the other."""
    values: list[Any] = text.replace("\n", "\t").split("\t")
    if "\\" in text:
        del text
        values = [value if "\\" not in value else unescaped(value) for value in values]
    return values


def unescaped(value: str) -> str | None:
    """A value in which there is a backslash."""
    if value == "\\N":
        return None
    if value.startswith("\\\\x") and value.count("\\") == 2:
        # Bytes, which may be long.
        return value[1:]
    # A list of the parts would take ten times the size of a text of nothing but backslashes.
    pairs = value.count("\\\\")
    if value.count("\\") == 2 * pairs:
        return value.replace("\\\\", "\\")
    if pairs:
        value = value.replace("\\\\", BACKSLASH)
    for letter, character in ESCAPES.items():
        value = value.replace("\\" + letter, character)
    return value.replace(BACKSLASH, "\\") if pairs else value


def _bytes(value: str) -> bytes:
    return bytes.fromhex(value[2:])


def parser_of(cast: Cast) -> Callable[[str], Any] | None:
    """The function from a value's text to what `convert` expects, or SQLite stores; None if that is the text."""
    if cast.convert is text_or_bytes:
        return _bytes
    if cast.declared == "BLOB":
        return _bytes
    # SQLite's affinity, or `convert`, turns the digits of integers and decimals into numbers.
    return float if cast.declared == NO_AFFINITY and not cast.decimal and cast.convert is not unsigned else None
