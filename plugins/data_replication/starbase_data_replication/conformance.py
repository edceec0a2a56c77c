"""Checks that a dialect keeps the contract of `sources.protocols`. The author of a dialect runs them in its tests.

A `Sample` is a table that the author provides, and each of `CHECKS` is a coroutine function that takes it and raises
`NotConforming`. Must not know a dialect.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import apsw

from starbase_data_replication.errors import SourceRejected, SyncError
from starbase_data_replication.model import Batch, Options, Row, TableName, TableSchema
from starbase_data_replication.sources import DIGESTS, MD5, Comparable, Dialect, Feature, ReadPlan, Source, inspecting
from starbase_data_replication.storage import Target
from starbase_data_replication.verify import compare
from starbase_host import Database, quote

DECLARED = ("INTEGER", "TEXT", "BLOB", "")
DECIMALS = ("REAL", "NUMERIC", "")
# A check that waits for so long has failed.
TIMEOUT_SECONDS = 30.0


class NotConforming(AssertionError):
    """The dialect does not keep the contract; the message says where."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A table of at least five rows, in a source that the checks read and the author's functions write.

    Attributes:
        dialect: the dialect to check.
        settings: a sourceConfig that works.
        source_table: the table's name, as a user gives it.
        tracking_column: the name of its tracking column.
        rows: returns all rows in the order of the key, as the replica is to store them. If the tracking column may be
            NULL, at least one row has NULL there.
        add: inserts a row whose key and tracking value are above all others, and returns it as the replica is to store
            it.
        hold: opens a transaction that has added a row, and rolls it back when the context ends; None for a source
            without transactions.
        secrets: the texts in settings that must not be shown.
        options: the options to read with.
    """

    dialect: Dialect
    settings: Mapping[str, Any]
    source_table: str
    tracking_column: str
    rows: Callable[[], Sequence[Row]]
    add: Callable[[], Row]
    hold: Callable[[], AbstractContextManager[object]] | None = None
    secrets: Sequence[str] = ()
    options: Options = field(default_factory=lambda: Options(lookback_seconds=0.0, settle_seconds=0.0))


Check = Callable[[Sample], Awaitable[None]]


async def check_all(sample: Sample) -> None:
    """Run every check, in order. Raises NotConforming at the first that fails, TimeoutError after 30 seconds of one."""
    for check in CHECKS:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await check(sample)


async def settings(sample: Sample) -> None:
    """Good settings pass, wrong ones are named by field, a table has one identity, and secrets stay hidden."""
    dialect, good, table = sample.dialect, sample.settings, sample.source_table
    _must(isinstance(dialect, Dialect), "the dialect does not have all methods of Dialect, or no features")
    _must(dialect.check(good, table) == {}, "check rejects the settings of the sample")
    wrong = dialect.check({**good, "no_such_setting": 1}, table)
    _must("sourceConfig.no_such_setting" in wrong, "check does not name sourceConfig.no_such_setting, which is unknown")
    identity = dialect.identity(good, table)
    _must(all(isinstance(part, str) for part in identity), "identity is not a tuple of texts")
    _must(identity == dialect.identity(dict(good), table), "identity is not the same for the same table")
    _must(identity != dialect.identity(good, table + "2"), "identity is the same for two tables")
    shown = json.dumps(dict(dialect.secret_parts(good)))
    for secret in sample.secrets:
        _must(secret in json.dumps(dict(good)), "a secret of the sample is not in its settings")
        _must(secret not in shown, "secret_parts shows a secret")
        _must(secret not in str(identity), "identity holds a secret")


async def description(sample: Sample) -> None:
    """describe gives the columns in their order and a key, and the right errors for what does not exist."""
    async with _opened(sample) as (source, schema):
        names = [column.name for column in schema.columns]
        _must(len(names) == len(sample.rows()[0]), "describe finds other columns than the rows of the sample have")
        _must(sample.tracking_column == schema.tracking_column in names, "describe loses the tracking column")
        _must(set(schema.key) <= set(names), "the key has columns that the table does not have")
        for column in schema.columns:
            _must(
                column.cast.declared in (DECIMALS if column.cast.decimal else DECLARED),
                f"the cast of {column.name} must declare INTEGER, TEXT, BLOB or nothing; a decimal REAL, NUMERIC or "
                "nothing",
            )
        table = _table(sample)
        async with inspecting(source, table) as inspector:
            _must(await inspector.describe(table, sample.tracking_column) == schema, "within inspect, describe differs")
        for missing, tracking in ((replace(table, name="no_such_table"), "id"), (table, "no_such_column")):
            try:
                await source.describe(missing, tracking)
            except SourceRejected:
                continue
            except SyncError as error:
                raise NotConforming("describe must raise SourceRejected for what does not exist") from error
            raise NotConforming("describe finds a table or a tracking column that does not exist")


async def first_load(sample: Sample) -> None:
    """A first load reads all rows in the order of the key, in batches within the limit, and resumes after each key."""
    expected = list(sample.rows())
    async with _opened(sample) as (source, schema):
        plan = ReadPlan(schema=schema, in_key_order=bool(schema.key), batch_rows=2)
        batches = await _batches(source, plan)
        _must(
            [batch.last for batch in batches] == [False] * (len(batches) - 1) + [True],
            "only the last batch must have `last`",
        )
        _must(all(len(batch.rows) <= 2 for batch in batches), "a batch has more rows than batch_rows")
        _same(schema, _rows(batches), expected, "a first load", ordered=bool(schema.key))
        read = 0
        for batch in batches:
            read += len(batch.rows)
            if batch.last_key is not None:
                rest = await _batches(source, replace(plan, after_key=batch.last_key))
                _same(schema, _rows(rest), expected[read:], "a load that resumes after a key")


async def following(sample: Sample) -> None:
    """Above a high watermark are only rows without a tracking value, and then the rows added since."""
    async with _opened(sample) as (source, schema):
        at = [column.name for column in schema.columns].index(schema.tracking_column)
        nulls = [row for row in sample.rows() if row[at] is None]
        _must(await source.count_nulls(schema, at_most=None) == len(nulls), "count_nulls is wrong")
        _must(await source.count_nulls(schema, at_most=0) == 0, "count_nulls counts beyond at_most")
        kept = _rows(await _batches(source, ReadPlan(schema=schema, nulls=False)))
        _same(
            schema, kept, [row for row in sample.rows() if row[at] is not None], "a read without nulls", ordered=False
        )
        noted = await source.read_high_watermark(schema, sample.options, noted_at=0.0)
        _must(noted.ahead == 0, "read_high_watermark counts the rows of the sample as ahead of the source's clock")
        if noted.candidate is None:
            return
        plan = ReadPlan(schema=schema, floor=noted.candidate.value)
        _same(schema, _rows(await _batches(source, plan)), nulls, "a read above the watermark", ordered=False)
        added = sample.add()
        _same(schema, _rows(await _batches(source, plan)), [*nulls, added], "a read after an insert", ordered=False)
        bare = _rows(await _batches(source, replace(plan, nulls=False)))
        _same(schema, bare, [added], "a read after an insert, without nulls")


async def snapshots(sample: Sample) -> None:
    """A read sees the rows of the moment when its context was entered; leaving it early frees the source at once.

    A dialect without the feature `snapshot` passes.
    """
    if Feature.SNAPSHOT not in sample.dialect.features:
        return
    async with _opened(sample) as (source, schema):
        before = list(sample.rows())
        plan = ReadPlan(schema=schema, batch_rows=1)
        async with source.read(plan) as batches:
            sample.add()
            found = [row async for batch in batches for row in batch.rows]
        _same(schema, found, before, "a read during an insert", ordered=False)
        async with source.read(plan) as batches:
            await anext(aiter(batches))
        again = _rows(await _batches(source, plan))
        _must(len(again) == len(before) + 1, "a read after one that was left early does not see all rows")


async def open_transactions(sample: Sample) -> None:
    """A transaction that has written counts as open until it ends, or the source says that it does not know."""
    async with _opened(sample) as (source, schema):
        if sample.hold is None:
            return
        with ExitStack() as held:
            async with inspecting(source, schema.table) as inspector:
                # It begins after the transaction that asks, and must be listed all the same.
                held.enter_context(sample.hold())
                candidate = (await inspector.read_high_watermark(schema, sample.options, noted_at=0.0)).candidate
            _must(candidate is not None, "read_high_watermark finds no value in a table with rows")
            assert candidate is not None
            (noted,) = await source.still_open([candidate.open_transactions])
            if not candidate.open_transactions.known:
                _must(
                    bool(candidate.open_transactions.reason),
                    "open transactions are not known, without a reason",
                )
                return
            _must(
                not candidate.open_transactions.ended and not noted.ended,
                "a transaction that writes does not count as open",
            )
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not noted.ended:
                (noted,) = await source.still_open([candidate.open_transactions])
        _must(await source.still_open([]) == [], "still_open answers for sets that it was not given")


async def comparing(sample: Sample) -> None:
    """Source and replica have the same hashes, a row that the replica lacks is found, and a row is read by its key.

    A dialect without the feature `compare` passes.
    """
    async with _opened(sample) as (source, schema):
        if not isinstance(source, Comparable) or Feature.COMPARE not in sample.dialect.features:
            return
        with tempfile.TemporaryDirectory() as directory:
            database = Database(Path(directory) / "replica.db")
            database.open()
            try:
                await _compare(sample, source, schema, database)
            finally:
                database.close()


async def _compare(sample: Sample, source: Source, schema: TableSchema, database: Database) -> None:
    rows = _rows(await _batches(source, ReadPlan(schema=schema)))
    assert isinstance(source, Comparable)
    target = Target("replica", schema, shadow_id=1)

    def load(connection: apsw.Connection) -> None:
        target.match(connection, shadow=False, fresh=True)
        target.apply(connection, rows)

    await database.write(load)
    async with source.comparing(schema, schema.columns, sample.options) as remote:
        _must(getattr(remote, "digest", MD5) in DIGESTS, f"digest must be one of {', '.join(DIGESTS)}")
    for what in ("rows", "keys"):
        found = await compare.compare(source, schema, database, "replica", options=sample.options, what=what)
        _must(found.equal and found.rows_compared == len(rows), f"the canonical text of {what} is not the replica's")
    if not schema.key:
        return
    key = ", ".join(map(quote, schema.key))
    keys = await database.read(lambda c: c.execute(f"SELECT {key} FROM replica ORDER BY {key}").fetchall())
    where = " AND ".join(f"{quote(name)} IS ?" for name in schema.key)
    await database.write(lambda c: c.execute(f"DELETE FROM replica WHERE {where}", keys[1]).fetchall())
    found = await compare.compare(source, schema, database, "replica", options=sample.options, what="rows")
    _must(found.keys.missing == (keys[1],) and found.differences == 1, "a row that the replica lacks is not found")
    asked = ReadPlan(schema=schema, keys=(keys[1],))
    missing = _rows(await _batches(source, asked))
    await database.write(lambda c: target.apply(c, missing))
    found = await compare.compare(source, schema, database, "replica", options=sample.options, what="rows")
    _must(len(missing) == 1 and found.equal, "a read by a key does not give the row of that key")


CHECKS: tuple[Check, ...] = (settings, description, first_load, following, snapshots, open_transactions, comparing)


@asynccontextmanager
async def _opened(sample: Sample) -> AsyncIterator[tuple[Source, TableSchema]]:
    source = sample.dialect.open(sample.settings, max_connections=2)
    try:
        yield source, await source.describe(_table(sample), sample.tracking_column)
    finally:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await source.close()


def _table(sample: Sample) -> TableName:
    return sample.dialect.table_name(sample.settings, sample.source_table)


async def _batches(source: Source, plan: ReadPlan) -> list[Batch]:
    async with source.read(plan) as batches:
        return [batch async for batch in batches]


def _rows(batches: Iterable[Batch]) -> list[Row]:
    return [row for batch in batches for row in batch.rows]


def _same(schema: TableSchema, found: list[Row], expected: Sequence[Row], what: str, *, ordered: bool = True) -> None:
    """Raises NotConforming unless SQLite stores the same values of the same types for both."""
    read, wanted = _as_stored(schema, found), [tuple(row) for row in expected]
    if not ordered:
        read, wanted = sorted(read, key=repr), sorted(wanted, key=repr)
    if repr(read) != repr(wanted):
        raise NotConforming(f"{what} gives {read}, not {wanted}")


def _as_stored(schema: TableSchema, rows: list[Row]) -> list[tuple[Any, ...]]:
    connection = apsw.Connection(":memory:")
    columns = ", ".join(f"c{number} {column.cast.declared}" for number, column in enumerate(schema.columns))
    connection.execute(f"CREATE TABLE stored ({columns})")
    connection.executemany(
        f"INSERT INTO stored VALUES ({', '.join('?' * len(schema.columns))})", [tuple(r) for r in rows]
    )
    return connection.execute("SELECT * FROM stored ORDER BY _rowid_").fetchall()


def _must(condition: bool, why: str) -> None:
    if not condition:
        raise NotConforming(why)
