"""Helpers of the dialects for batches: buffered rows, the memory that values take, and casts that Python does."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any

from starbase_data_replication.model import Column, Row, Rows, UnrepresentableValues, as_stored

# The memory of a value besides its bytes, roughly: a Python object's header.
OVERHEAD_BYTES = 56

# The largest value, and the largest row, of SQLite; and the most that a value adds to a row besides its bytes.
MAX_BYTES = 1_000_000_000
ROW_OVERHEAD_BYTES = 9
MAX_BYTES_OF_ONE_CHARACTER = 4
TOO_LARGE = "are too large for SQLite, whose rows hold 1,000,000,000 bytes, and became NULL"

# No server sends a longer row: PostgreSQL's texts and MySQL's packets end here.
LONGEST_ROW_BYTES = 1 << 30

# The memory that an answer may take if it is not the stream of a table's rows. The widest tables, the longest views and
# ten thousand sessions take less. Then, roughly, what a message, a value and a column take besides their bytes.
ANSWER_BYTES = 32 << 20
MESSAGE_BYTES = 100
VALUE_BYTES = 50
COLUMN_BYTES = 2_000


class TooMuch(Exception):
    """A server sends more than any real answer has."""

    def __init__(self, what: str = "an answer", at_most: int = ANSWER_BYTES) -> None:
        super().__init__(
            f"the server sends {what} of more than {at_most >> 20:,} MiB, which a real server never does; check host "
            "and port of sourceConfig"
        )


class Damaged(Exception):
    """Bytes that cannot be a value of their column."""


class Buffered(ABC):
    """A stream of rows that may bring more at once than were asked for; the others wait for the next call.

    width: how many values a row has.
    timeout_seconds: how long one call may take.
    """

    def __init__(self, width: int, *, timeout_seconds: float) -> None:
        self._more = Rows([], width)
        self._row_bytes = 0
        self._timeout_seconds = timeout_seconds

    async def take(self, rows: int, size: int) -> tuple[Rows, int]:
        """Take up to `rows` of the next rows, or about `size` bytes. Returns them and their approximate bytes."""
        width = self._more.width
        taken = Rows([], width)
        taken_bytes = 0
        async with asyncio.timeout(self._timeout_seconds):
            while len(taken) < rows and taken_bytes < size and await self._some(rows - len(taken), size - taken_bytes):
                count = min(rows - len(taken), -(-(size - taken_bytes) // self._row_bytes), len(self._more))
                values = self._more.values
                self._more = Rows(values[count * width :], width)
                del values[count * width :]
                taken.values += values
                taken_bytes += count * self._row_bytes
        return taken, taken_bytes

    @abstractmethod
    async def _some(self, rows: int, size: int) -> bool:
        """Whether `_more` has rows. If it has none, wait for some, and set `_row_bytes` to the bytes of one of them.

        rows: how many are still wanted.
        size: how many bytes are still wanted.
        """


def convert(
    rows: Rows, columns: Sequence[Column], unrepresentable: Counter[UnrepresentableValues] | None = None
) -> Rows:
    """Apply the casts' `convert` in place. Raises Damaged for bytes that cannot be a value of their column.

    unrepresentable: counts the values that are `unrepresentable`, if given.
    """
    for index, column in enumerate(columns):
        function, kind = column.cast.convert, column.cast.unrepresentable
        if function is not None:
            try:
                values = [None if value is None else function(value) for value in rows.column(index)]
            except ValueError as error:
                raise Damaged from error
            rows.replace_column(index, values)
        if kind is not None and unrepresentable is not None:
            found = sum(isinstance(value, kind) for value in rows.column(index))
            if found:
                unrepresentable[UnrepresentableValues(column.name, column.cast.policy)] += found
    return rows


def keys_of(records: Sequence[Sequence[Any]], key: Sequence[Column]) -> Sequence[Row]:
    """The keys at the beginning of the records, as the replica stores them; () for each if the table has no key."""
    if not key:
        return [()] * len(records)
    rows = convert(Rows.of([tuple(record)[: len(key)] for record in records], len(key)), key)
    for index, column in enumerate(key):
        if column.cast.decimal or column.cast.declared == "INTEGER":
            rows.replace_column(index, [as_stored(column.cast, value) for value in rows.column(index)])
    return rows


def fitting(
    rows: Sequence[Row],
    size: int,
    columns: Sequence[Column],
    unrepresentable: Counter[UnrepresentableValues],
    *,
    limit: int = MAX_BYTES,
) -> Sequence[Row]:
    """Replace values that are too large for SQLite, alone or with the others of their row, by NULL, and count them.

    size: the approximate size of the batch, in characters or bytes. Only a batch that may be too large is checked.
    limit: the bytes of a row.
    """
    if size <= limit // MAX_BYTES_OF_ONE_CHARACTER:
        return rows
    return [_fitting(row, columns, unrepresentable, limit) for row in rows]


def _fitting(row: Row, columns: Sequence[Column], unrepresentable: Counter[UnrepresentableValues], limit: int) -> Row:
    sizes = [len(value.encode()) if isinstance(value, str) else len(value) if isinstance(value, bytes) else 0
             for value in row]  # fmt: skip
    fitted = list(row)
    # SQLite limits a row as it does a value: drop the largest values until the others fit.
    for index in sorted(range(len(row)), key=sizes.__getitem__, reverse=True):
        if sum(sizes) + ROW_OVERHEAD_BYTES * len(row) <= limit:
            break
        fitted[index], sizes[index] = None, 0
        unrepresentable[UnrepresentableValues(columns[index].name, TOO_LARGE)] += 1
    return tuple(fitted)
