"""Rows that come as one value each: the server puts the columns together, and one `split` in C takes many rows apart.

Owns the form of such a value: the columns in their order, between bytes that no text in UTF-8 holds. To take a column
out of the protocol costs Python as much as to store it, and the server sends one value sooner than eight.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from starbase_data_replication.casts import NO_AFFINITY, Cast, text_or_bytes
from starbase_data_replication.model import Column, Rows
from starbase_data_replication.sources.mysql.packets import HEADER_BYTES, LENGTHS, RowParser
from starbase_data_replication.sources.mysql.sql import selected
from starbase_data_replication.sources.mysql.types import AS_BYTES

BETWEEN = b"\xff"
# In the place of a NULL, which CONCAT_WS would leave out.
NULL = b"\xfe"
OPEN, CLOSE = b"\xf8", b"\xf9"
BEGIN, END = OPEN + BETWEEN, BETWEEN + CLOSE
# From the end of a row to the beginning of the next: a packet's header, and the length of its one value.
ROW_EDGE = re.compile(rb"\xff\xf9.{4}(?:[\x00-\xfa]|\xfc..|\xfd...)\xf8\xff", re.DOTALL)
# ASCII stands in for two of the bytes above, where no value holds it: a text in ASCII is split fastest.
BETWEEN_TEXT = "\x1f"
NULL_TEXT = "\x1e"

# Text of these is ASCII, whatever the character set.
ASCII_KINDS = frozenset({"decimal", "date", "time", "datetime", "timestamp"})
# Bytes of these are few, and travel in hexadecimal.
SHORT_BYTES = frozenset({"binary", "varbinary", "tinyblob"})


class Unpackable(Exception):
    """A row is larger than the server may make of a text, or holds bytes that no text has."""


class Packing:
    """How the columns of a table go into one value. possible: whether they do."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self.possible = len(columns) > 1 and all(map(fits, columns))

    @property
    def expression(self) -> str:
        """What to select."""
        between, edges = (f"CAST(X'{BETWEEN.hex()}' AS BINARY)", (f"X'{OPEN.hex()}'", f"X'{CLOSE.hex()}'"))
        return f"CONCAT_WS({between}, {edges[0]}, {', '.join(map(_packed, self._columns))}, {edges[1]})"

    @property
    def columns(self) -> list[Column]:
        """The columns as they come: texts that were sent as their bytes are texts, and bytes are in hexadecimal."""
        return [replace(column, cast=replace(column.cast, convert=_convert(column.cast))) for column in self._columns]

    def parser(self, *, sequence: int) -> RowParser:
        nullable = [index for index, column in enumerate(self._columns) if column.nullable]
        return PackedParser(len(self._columns), nullable, sequence=sequence)


class PackedParser(RowParser):
    """As RowParser, for rows of so many columns in one value. Raises Unpackable as well.

    It gives all the rows that a piece of the stream holds. nullable: the columns that may be NULL.
    """

    def __init__(self, width: int, nullable: Sequence[int], *, sequence: int) -> None:
        super().__init__([True], sequence=sequence)
        self.width = width
        self._nullable = nullable

    def _parse_small(self, taken: Rows, rows: int, size: int) -> int:
        data, at = self._data, self._at
        start = at + HEADER_BYTES
        start += 1 + LENGTHS.get(data[start], 0) if start < len(data) else 0
        # Nothing large can lie between: what is large is waited for when it stands first, and little comes with it.
        end = data.rfind(END, at)
        if end < start or data[start : start + len(BEGIN)] != BEGIN:
            # What is no row of this form, the end of all rows among it.
            records = Rows([], 1)
            length = super()._parse_small(records, 1, size)
            self._unpack(taken, records)
            return length
        self._expect(data[at + HEADER_BYTES - 1])
        together, edges = ROW_EDGE.subn(BETWEEN, data[start + len(BEGIN) : end])
        taken.values += self._values(together, edges + 1)
        # That no packet was left out, the number of the next one will tell.
        self._sequence = (self._sequence + edges + 1) & 0xFF
        self._at = end + len(END)
        return self._at - at

    def _parse_large(self, taken: Rows, length: int) -> int:
        records = Rows([], 1)
        size = super()._parse_large(records, length)
        self._unpack(taken, records)
        return size

    def _unpack(self, taken: Rows, records: Rows) -> None:
        for packed in records.values:
            # The server answers NULL where a text would be larger than max_allowed_packet.
            if packed is None or not (packed.startswith(BEGIN) and packed.endswith(END)):
                raise Unpackable
            taken.values += self._values(packed[len(BEGIN) : -len(END)], 1)

    def _values(self, together: bytes, count: int) -> list[Any]:
        """The values of so many rows."""
        values, null = _split(together)
        if len(values) != count * self.width:
            raise Unpackable
        rows = Rows(values, self.width)
        for index in self._nullable if null is not None else ():
            column = rows.column(index)
            if null in column:
                rows.replace_column(index, [None if value == null else value for value in column])
        return rows.values


def _split(together: bytes) -> tuple[list[str | bytes | None], str | None]:
    """The values, and the text that stands for NULL among them, if any does."""
    if BETWEEN_TEXT.encode() not in together and NULL_TEXT.encode() not in together:
        ascii_bytes = together.replace(BETWEEN, BETWEEN_TEXT.encode()).replace(NULL, NULL_TEXT.encode())
        try:
            return [*ascii_bytes.decode().split(BETWEEN_TEXT)], NULL_TEXT if NULL in together else None
        except UnicodeDecodeError:
            pass
    return [None if value == NULL else text_or_bytes(value) for value in together.split(BETWEEN)], None


def fits(column: Column) -> bool:
    """Whether no value of the column, as it is put in, holds a byte of those that stand between."""
    cast = column.cast
    if cast.convert is text_or_bytes:
        return cast.select == AS_BYTES
    return cast.declared in ("INTEGER", "TEXT", NO_AFFINITY) or column.tracking_kind in SHORT_BYTES


def _packed(column: Column) -> str:
    expression = selected(column)
    if column.cast.declared == "BLOB":
        expression = f"HEX({expression})"
    elif column.cast.declared == "TEXT" and column.tracking_kind not in ASCII_KINDS:
        if column.cast.convert is not text_or_bytes and not column.compare_type.startswith("utf8mb4 "):
            expression = f"CONVERT({expression} USING utf8mb4)"
        expression = f"CAST({expression} AS BINARY)"
    return f"IFNULL({expression}, CAST(X'{NULL.hex()}' AS BINARY))" if column.nullable else expression


def _convert(cast: Cast) -> Any:
    if cast.declared == "BLOB":
        return bytes.fromhex
    return None if cast.convert is text_or_bytes else cast.convert
