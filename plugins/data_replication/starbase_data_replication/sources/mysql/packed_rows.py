"""Packed rows: the server joins a row's columns into one value, and one `split` in C separates those of many rows.

Owns the form of such a value: the columns in their order, separated by bytes that do not occur in UTF-8. Parsing a
column from the protocol costs Python as much as storing it, and the server sends one value faster than eight.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from starbase_data_replication.model import NO_AFFINITY, Cast, Column, Rows, text_or_bytes
from starbase_data_replication.sources.mysql.packets import HEADER_BYTES, LENGTHS, RowParser, check_number
from starbase_data_replication.sources.mysql.sql import column_sql, selected
from starbase_data_replication.sources.mysql.types import AS_BYTES, EXACT_ALONE

BETWEEN = b"\xff"
# Replaces NULL, which CONCAT_WS would leave out.
NULL = b"\xfe"
OPEN, CLOSE = b"\xf8", b"\xf9"
BEGIN, END = OPEN + BETWEEN, BETWEEN + CLOSE
# From the end of a row to the beginning of the next: a packet's header, and the length of its one value.
ROW_EDGE = re.compile(rb"\xff\xf9.{4}(?:[\x00-\xfa]|\xfc..|\xfd...)\xf8\xff", re.DOTALL)
# From one row's end to the next there are at least a header, a length, and two values that are empty.
SHORTEST_ROW = 11
# ASCII stands in for two of the bytes above, where no value holds it: a text in ASCII is split fastest.
BETWEEN_ASCII = b"\x1f"
NULL_ASCII = b"\x1e"
BETWEEN_TEXT, NULL_TEXT = BETWEEN_ASCII.decode(), NULL_ASCII.decode()

# Types whose text is ASCII in every character set.
ASCII_KINDS = frozenset({"decimal", "date", "time", "datetime", "timestamp"})
# Types with few bytes, which are sent in hexadecimal.
SHORT_BYTES = frozenset({"binary", "varbinary", "tinyblob"})


class Unpackable(Exception):
    """A row is larger than a text may be on the server, or contains bytes that do not occur in UTF-8."""


class Packing:
    """How the columns of a table are packed into one value. possible: whether they can be."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self.possible = len(columns) > 1 and all(map(fits, columns))

    @property
    def expression(self) -> str:
        """What to select."""
        values = [f"X'{OPEN.hex()}'", *map(_packed, self._columns), f"X'{CLOSE.hex()}'"]
        return f"CONCAT_WS(CAST(X'{BETWEEN.hex()}' AS BINARY), {', '.join(values)})"

    @property
    def columns(self) -> list[Column]:
        """The columns as they arrive: texts that were sent as bytes are texts, and bytes are in hexadecimal."""
        return [replace(column, cast=replace(column.cast, convert=_convert(column.cast))) for column in self._columns]

    def parser(self, *, sequence: int) -> RowParser:
        return PackedParser(len(self._columns), sequence=sequence)


class PackedParser(RowParser):
    """As RowParser, for rows of so many columns in one value. Raises Unpackable as well.

    It gives all the rows that a piece of the stream holds.
    """

    def __init__(self, width: int, *, sequence: int) -> None:
        super().__init__([True], sequence=sequence)
        self.width = width

    def _parse_small(self, taken: Rows, rows: int, size: int) -> int:
        data, at = self._data, self._at
        start = at + HEADER_BYTES
        start += 1 + LENGTHS.get(data[start], 0) if start < len(data) else 0
        # No large row can be in between: a large row is only read when it is first, and little comes with it.
        end = data.rfind(END, at)
        before = data.rfind(END, at, max(end, 0))
        if before >= 0 and end - before < SHORTEST_ROW:
            # Not the end of a row, but a part of the header or length of an incomplete packet.
            end = before
        if end < start or data[start : start + len(BEGIN)] != BEGIN:
            # Not a row of this form, such as the end of all rows.
            records = Rows([], 1)
            length = super()._parse_small(records, 1, size)
            self._unpack(taken, records)
            return length
        check_number(data[at + HEADER_BYTES - 1], self._sequence)
        together, edges = ROW_EDGE.subn(BETWEEN, data[start + len(BEGIN) : end])
        taken.values += self._values(together, edges + 1)
        # The number of the next packet shows whether one was left out.
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
            # The server returns NULL if a text would be larger than max_allowed_packet.
            if packed is None or not (packed.startswith(BEGIN) and packed.endswith(END)):
                raise Unpackable
            taken.values += self._values(packed[len(BEGIN) : -len(END)], 1)

    def _values(self, together: bytes, count: int) -> list[Any]:
        """The values of so many rows."""
        values = _texts(together)
        if values is None:
            values = [None if value == NULL else text_or_bytes(value) for value in together.split(BETWEEN)]
        # There cannot be too few, because NULL is replaced; there are too many if a value contains BETWEEN.
        if len(values) != count * self.width:
            raise Unpackable
        return values


def _texts(together: bytes) -> list[Any] | None:
    """The values; None if they are not all text, or contain one of the two ASCII separators."""
    if BETWEEN_ASCII in together or NULL_ASCII in together:
        return None
    nulls = together.count(NULL) if NULL in together else 0
    try:
        text = together.replace(BETWEEN, BETWEEN_ASCII).replace(NULL, NULL_ASCII).decode()
    except UnicodeDecodeError:
        return None
    values: list[Any] = text.split(BETWEEN_TEXT)
    if nulls:
        if values.count(NULL_TEXT) != nulls:
            return None
        values = [None if value == NULL_TEXT else value for value in values]
    return values


def fits(column: Column) -> bool:
    """Whether the column's values keep their form in a packed row, and contain no separator."""
    cast = column.cast
    if cast.convert is text_or_bytes:
        return cast.select == AS_BYTES
    if cast.select == EXACT_ALONE:
        return False
    return cast.decimal or cast.declared in ("INTEGER", "TEXT", NO_AFFINITY) or column.tracking_kind in SHORT_BYTES


def _packed(column: Column) -> str:
    expression = selected(column)
    if column.cast.declared == "BLOB":
        expression = f"HEX({expression})"
    elif column.cast.declared == "TEXT" and column.tracking_kind not in ASCII_KINDS:
        if column.cast.convert is not text_or_bytes and not column.compare_type.startswith("utf8mb4 "):
            expression = f"CONVERT({expression} USING utf8mb4)"
        # Applied twice, to a value that is bytes already, it costs nothing.
        expression = AS_BYTES.replace("{}", expression)
    # For every column: a view may wrongly declare one NOT NULL. If a column has a value and the function returns NULL,
    # the value is too long; the row then has one value too many, and is read unpacked.
    return (
        f"IFNULL({expression}, IF({column_sql(column)} IS NULL, CAST(X'{NULL.hex()}' AS BINARY), X'{BETWEEN.hex()}'))"
    )


def _convert(cast: Cast) -> Any:
    if cast.declared == "BLOB":
        return bytes.fromhex
    return None if cast.convert is text_or_bytes else cast.convert
