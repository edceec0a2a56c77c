"""What the checks ask of a dialect's author: settings, a table, and functions that change it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import apsw

from starbase_data_replication.conformance.promises import Promise
from starbase_data_replication.model import Batch, Options, Row, TableName, TableSchema
from starbase_data_replication.sources import Dialect, ReadPlan, Source

# Texts that are no expression in any SQL, or that would reach beyond the brackets around one.
NO_EXPRESSIONS = ("(1 = 1", "1 = 1) OR (1 = 1", "1 = 1; SELECT 1", "1 = 1 1", "SELECT")

# How many characters of a value an error shows.
SHOWN = 200


class NotConforming(AssertionError):
    """The dialect breaks a promise. promise: which one; the message says how."""

    def __init__(self, promise: Promise, how: str) -> None:
        self.promise = promise
        super().__init__(f"{promise.name}, {promise}: {how}")


class SampleLacks(ValueError):
    """The sample lacks what a check of this dialect needs; the message names the attribute."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A table of at least five rows, in a source that the checks read and the author's functions write.

    What a feature of the dialect needs must be given: `where`, `fits` and `not_where` for the feature `where`, `no_key`
    unless the source has no columns that are no key.

    Attributes:
        dialect: the dialect to check.
        settings: a sourceConfig that works.
        source_table: the table's name, as a user gives it.
        tracking_column: the name of its tracking column.
        rows: returns all rows in the order of the key, as the replica is to store them. If the tracking column may be
            NULL, at least one row has NULL there.
        add: inserts a row whose key and tracking value are above all others, and returns it as the replica is to store
            it.
        where: a filter that some rows fit, and some do not. At least one row with a tracking value must not fit.
        fits: whether a row fits it.
        not_where: texts that the source must refuse as a filter, besides those that no SQL takes.
        no_key: names of columns of which two rows have the same values, or one has NULL.
        stamp: for a tracking column of times: inserts a row whose time is so many seconds after the source's clock, and
            returns it as `add` does. The first row is then older than a day.
        deleted: the name of a column that is NULL in some rows and not in others, as one of deletes.sourceColumn.
        hold: opens a transaction that has added a row, and rolls it back when the context ends; None for a source
            without transactions.
        secrets: the texts in settings that must not be shown.
        hosts: what `hosts` of the dialect must answer for the settings.
        elsewhere: a sourceConfig of another source, which need not exist, that may have a table of the same name.
        broken: settings with which connecting fails, by what is wrong with them: a password, a port, a file.
        connections: how many connections of the dialect are open at the source; None if that cannot be counted.
        options: the options to read with.
        timeout_seconds: a check that takes longer has failed.
    """

    dialect: Dialect
    settings: Mapping[str, Any]
    source_table: str
    tracking_column: str
    rows: Callable[[], Sequence[Row]]
    add: Callable[[], Row]
    where: str | None = None
    fits: Callable[[Row], bool] | None = None
    not_where: Sequence[str] = ()
    no_key: Sequence[str] = ()
    stamp: Callable[[float], Row] | None = None
    deleted: str | None = None
    hold: Callable[[], AbstractContextManager[object]] | None = None
    secrets: Sequence[str] = ()
    hosts: Sequence[str] = ()
    elsewhere: Mapping[str, Any] | None = None
    broken: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    connections: Callable[[], int] | None = None
    options: Options = field(default_factory=lambda: Options(lookback_seconds=0.0, settle_seconds=0.0))
    timeout_seconds: float = 30.0

    @property
    def table(self) -> TableName:
        return self.dialect.table_name(self.settings, self.source_table)


def broken(promise: Promise, how: str) -> NoReturn:
    raise NotConforming(promise, how)


# How the promise HIGHEST breaks.
NO_HIGHEST = "a table with rows has no highest tracking value"


def must(condition: bool, promise: Promise, how: str) -> None:
    if not condition:
        raise NotConforming(promise, how)


@asynccontextmanager
async def opened(sample: Sample, *, max_connections: int = 2) -> AsyncIterator[tuple[Source, TableSchema]]:
    """A source of the sample, and its table."""
    source = sample.dialect.open(sample.settings, max_connections=max_connections)
    try:
        yield source, await source.describe(sample.table, sample.tracking_column)
    finally:
        async with asyncio.timeout(sample.timeout_seconds):
            await source.close()


@asynccontextmanager
async def within(sample: Sample, promise: Promise, how: str) -> AsyncIterator[None]:
    """Break the promise if the body takes too long."""
    try:
        async with asyncio.timeout(sample.timeout_seconds):
            yield
    except TimeoutError:
        broken(promise, f"{how} within {sample.timeout_seconds:g} s")


async def read(source: Source, plan: ReadPlan) -> list[Batch]:
    async with source.read(plan) as batches:
        return [batch async for batch in batches]


def rows_of(batches: Iterable[Batch]) -> list[Row]:
    return [row for batch in batches for row in batch.rows]


def same(
    schema: TableSchema,
    promise: Promise,
    found: Sequence[Row],
    expected: Sequence[Row],
    what: str,
    *,
    ordered: bool = True,
) -> None:
    """Break the promise unless SQLite stores the same values of the same types for both."""
    width = len(schema.columns)
    for row in found:
        must(len(row) == width, Promise.WIDTH, f"{what} gives a row of {len(row)} values, not {width}")
    as_read, wanted = as_stored(schema, found), [tuple(row) for row in expected]
    if not ordered:
        as_read, wanted = sorted(as_read, key=repr), sorted(wanted, key=repr)
    if repr(as_read) != repr(wanted):
        broken(promise, f"{what} gives {_difference(schema, as_read, wanted)}")


def _difference(schema: TableSchema, found: Sequence[Row], wanted: Sequence[Row]) -> str:
    """The counts of rows, and the first row that differs by its column and both values, or that one side lacks."""
    counts = f"{len(found)} rows, and {len(wanted)} were expected"
    for number, (row, other) in enumerate(zip(found, wanted, strict=False), start=1):
        if len(row) != len(other):
            return f"{counts}; row {number} has {len(row)} values, and in the sample {len(other)}"
        for column, value, right in zip(schema.columns, row, other, strict=True):
            if repr(value) != repr(right):
                return f"{counts}; in row {number}, {column.name} is {_short(value)}, not {_short(right)}"
    at = min(len(found), len(wanted))
    which, rows = ("too much", found) if len(found) > at else ("missing", wanted)
    return f"{counts}; row {at + 1} is {which}: {_short(rows[at])}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def as_stored(schema: TableSchema, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    """What SQLite stores of these rows."""
    connection = apsw.Connection(":memory:")
    columns = ", ".join(f"c{number} {column.cast.declared}" for number, column in enumerate(schema.columns))
    connection.execute(f"CREATE TABLE stored ({columns})")
    connection.executemany(
        f"INSERT INTO stored VALUES ({', '.join('?' * len(schema.columns))})", [tuple(row) for row in rows]
    )
    return connection.execute("SELECT * FROM stored ORDER BY _rowid_").fetchall()


def place(schema: TableSchema, name: str) -> int:
    return [column.name for column in schema.columns].index(name)
