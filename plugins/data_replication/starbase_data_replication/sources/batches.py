"""What the dialects share of making batches: rows that wait, what a value costs, and the casts that Python does."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any

from starbase_data_replication.model import Column, Row, Rows, UnrepresentableValues, as_stored

# What a value costs beside its own bytes, roughly: the object's header.
OVERHEAD_BYTES = 56

# What SQLite takes as one value, and as one row; and what a value costs in a row at most, beside its bytes.
MAX_BYTES = 1_000_000_000
ROW_OVERHEAD_BYTES = 9
MAX_BYTES_OF_ONE_CHARACTER = 4
TOO_LARGE = "are too large for SQLite, whose rows hold 1,000,000,000 bytes, and became NULL"


# No server sends a longer row: PostgreSQL's texts and MySQL's packets end here.
LONGEST_ROW_BYTES = 1 << 30

# What an answer may cost in memory that is not the stream of a table's rows: the widest tables, the longest views and
# ten thousand sessions take less. Of what its parts cost beside their bytes, about: a message, a value, and a column.
ANSWER_BYTES = 32 << 20
MESSAGE_BYTES = 100
VALUE_BYTES = 50
COLUMN_BYTES = 2_000


class TooMuch(Exception):
    """A server sends more than any answer takes."""

    def __init__(self, what: str = "an answer", at_most: int = ANSWER_BYTES) -> None:
        super().__init__(
            f"the server sends {what} of more than {at_most >> 20:,} MiB, which none of its kind does; look at host "
            "and port of sourceConfig"
        )


class Damaged(Exception):
    """Bytes that are no value of their column."""


class Buffered(ABC):
    """A stream of rows, of which more may come at once than were asked for: the others wait for the next question.

    timeout_seconds: how long a question may take.
    """

    def __init__(self, width: int, *, timeout_seconds: float) -> None:
        self._more = Rows([], width)
        self._row_bytes = 0
        self._timeout_seconds = timeout_seconds

    async def take(self, rows: int, size: int) -> tuple[Rows, int]:
        """The next rows, as many as `rows` or as come to `size` bytes, and how many bytes they are, about."""
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
        """Whether `_more` has rows; waits for them where it has none, and says in `_row_bytes` what one of them costs.

        rows, size: more than so many, or so many bytes, need not come.
        """


def convert(rows: Rows, columns: Sequence[Column], exceptions: Counter[UnrepresentableValues] | None = None) -> Rows:
    """Apply the casts' `convert` in place, where a column has one.

    exceptions: is added the values that a cast has `excepted`.
    """
    for index, column in enumerate(columns):
        function, kind = column.cast.convert, column.cast.unrepresentable
        if function is not None:
            try:
                values = [None if value is None else function(value) for value in rows.column(index)]
            except ValueError as error:
                raise Damaged from error
            rows.replace_column(index, values)
        if kind is not None and exceptions is not None:
            found = sum(isinstance(value, kind) for value in rows.column(index))
            if found:
                exceptions[UnrepresentableValues(column.name, column.cast.policy)] += found
    return rows


def keys_of(records: Sequence[Sequence[Any]], key: Sequence[Column]) -> Sequence[Row]:
    """The keys at the records' beginning, as the replica stores them; of a table without a key, nothing."""
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
    exceptions: Counter[UnrepresentableValues],
    *,
    limit: int = MAX_BYTES,
) -> Sequence[Row]:
    """The rows without the values that SQLite has no room for, in a value of their own or in a row of all.

    size: the batch's, about, in characters or bytes. Only a batch that may hold such a value is looked into.
    """
    if size <= limit // MAX_BYTES_OF_ONE_CHARACTER:
        return rows
    return [_fitting(row, columns, exceptions, limit) for row in rows]


def _fitting(row: Row, columns: Sequence[Column], exceptions: Counter[UnrepresentableValues], limit: int) -> Row:
    sizes = [len(value.encode()) if isinstance(value, str) else len(value) if isinstance(value, bytes) else 0
             for value in row]  # fmt: skip
    fitted = list(row)
    # SQLite bounds a row as it does a value: the largest go first, until the rest has room.
    for index in sorted(range(len(row)), key=sizes.__getitem__, reverse=True):
        if sum(sizes) + ROW_OVERHEAD_BYTES * len(row) <= limit:
            break
        fitted[index], sizes[index] = None, 0
        exceptions[UnrepresentableValues(columns[index].name, TOO_LARGE)] += 1
    return tuple(fitted)
