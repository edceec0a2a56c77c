"""A source of connections: what a sync and a verification ask, by the few questions that a connection answers.

Must not know a driver, nor the target.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from starbase_data_replication.dialect_kit.batching import batches, key_reader, storable
from starbase_data_replication.dialect_kit.connection_pool import ConnectionPool
from starbase_data_replication.dialect_kit.connections import AsyncConnection
from starbase_data_replication.dialect_kit.positions import Value, position_text
from starbase_data_replication.dialect_kit.read_comparison import ReadComparison
from starbase_data_replication.dialect_kit.row_plan import RowPlan, row_plan
from starbase_data_replication.dialect_kit.tracking_times import ahead_of, before, is_time, settled
from starbase_data_replication.errors import NO_KEY, CastFailed, SourceRejected, SourceUnavailable, SyncError
from starbase_data_replication.model import (
    Batch,
    Candidate,
    Column,
    HighWatermark,
    OpenTransactions,
    Options,
    Row,
    Rows,
    TableName,
    TableSchema,
)
from starbase_data_replication.sources import (
    AHEAD_SECONDS,
    MAX_AHEAD,
    Comparing,
    NoTrackingColumn,
    Reader,
    ReadPlan,
    below_a_shown_number,
)
from starbase_data_replication.sources.network import ON_ACTIVITY
from starbase_host import kind_of


class KitSource:
    """One configured source. Every method has the contract of `Source`, `Comparable` or `Pingable`.

    make: makes a connection, without connecting.
    max_connections: how many may be open at once.
    heeds: what `rows` of a connection heeds of a plan; see `BaseDialect.rows_heed`.
    """

    def __init__(
        self, make: Callable[[], AsyncConnection], *, max_connections: int, heeds: frozenset[str] = frozenset()
    ) -> None:
        self._make = make
        self._pool = ConnectionPool(make, most=max_connections)
        self._heeds = heeds

    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        async with self._asking(f"looking up {table}") as connection:
            schema = await connection.describe(table, tracking_column)
        names = [column.name for column in schema.columns]
        if tracking_column not in names:
            raise NoTrackingColumn(replace(schema, tracking_column=names[0]), tracking_column)
        return replace(schema, tracking_column=tracking_column)

    async def check_filter_and_key(self, schema: TableSchema, *, key: bool) -> None:
        if schema.where is not None:
            if "where" not in self._heeds:
                raise SourceRejected("where: this kind of source filters no rows; leave it out")
            try:
                async with self._reading(RowPlan(schema=schema), f"checking the filter of {schema.table}") as chunks:
                    async for _ in chunks:
                        break
            except SyncError as error:
                if error.transient:
                    raise
                raise SourceRejected(str(error) if str(error).startswith("where") else f"where: {error}") from error
        if key:
            narrow = _narrowed(schema, schema.key)
            async with self._compared(narrow, narrow.columns, RowPlan(schema=narrow)) as found:
                if await found.no_key():
                    raise SourceRejected(f"keyColumns: {NO_KEY.format(table=schema.table)}")

    async def count_nulls(self, schema: TableSchema, *, at_most: int | None) -> int:
        if not schema.tracking.nullable or at_most == 0:
            return 0
        doing = f"counting the rows of {schema.table} without a tracking value"
        async with self._asking(doing) as connection:
            highest = await connection.high_watermark(schema)
        # Only the rows without a value are read, and those that have just come in.
        plan = RowPlan(schema=_narrowed(schema, (schema.tracking_column,)), floor=highest)
        count = 0
        async with self._reading(plan, doing) as chunks:
            async for chunk in chunks:
                count += sum(row[0] is None for row in chunk)
                if at_most is not None and count >= at_most:
                    return at_most
        return count

    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        doing = f"reading the highest tracking value of {schema.table}"
        async with self._asking(doing) as connection:
            # The clock before the value, and the transactions after it: see Inspector.read_high_watermark.
            shown = await connection.clock()
            highest = await connection.high_watermark(schema)
            seen = await connection.open_transactions()
        if highest is None:
            return HighWatermark()
        clock = noted_at if shown is None else shown
        value = _stored(schema, highest)
        timed = schema.tracking.rises == "time" and is_time(value)
        ahead, lookback_value = 0, None
        if timed:
            ahead = await self._ahead(schema, value, clock, doing)
            value = settled(value, clock=clock, settle_seconds=options.settle_seconds)
            known = seen.known and schema.unprotected is None
            lookback_value = position_text(before(value, options.lookback(known=known)))
        elif isinstance(value, int) and schema.comes_again:
            value = int(below_a_shown_number(str(value), str(clock), settle_seconds=options.settle_seconds))
        candidate = Candidate(
            value=position_text(value), lookback_value=lookback_value, noted_at=noted_at, open_transactions=seen
        )
        return HighWatermark(candidate=candidate, ahead=ahead, clocked=timed)

    async def still_open(self, noted: Sequence[OpenTransactions]) -> list[OpenTransactions]:
        if not noted:
            return []
        async with self._asking("asking which transactions are open") as connection:
            now = await connection.open_transactions()
        return [_still_open(each, now) for each in noted]

    @asynccontextmanager
    async def read(self, plan: ReadPlan) -> AsyncIterator[AsyncIterator[Batch]]:
        async with self.snapshot() as snapshot, snapshot.read(plan) as found:
            yield found

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Reader]:
        async with self._snapshot("opening a snapshot") as connection:
            yield _Snapshot(connection, self._heeds)

    @asynccontextmanager
    async def comparing(
        self, schema: TableSchema, columns: Sequence[Column], options: Options
    ) -> AsyncIterator[Comparing]:
        wanted = [column.name for column in columns]
        deleted = options.deleted_column
        narrow = _narrowed(schema, (*wanted, *schema.key, *([] if deleted is None else [deleted])))
        plan = RowPlan(schema=narrow, nulls=options.null_tracking != "ignore")
        async with self._compared(narrow, columns, plan, deleted=deleted) as found:
            yield found

    async def ping(self) -> None:
        connection = self._make()
        try:
            with _explained(connection, "asking whether the source answers"):
                await connection.connect()
        finally:
            with contextlib.suppress(Exception):
                await connection.disconnect()

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def _asking(self, doing: str) -> AsyncIterator[AsyncConnection]:
        """A connection, whose driver's errors in the body are explained."""
        async with self._pool.lend(lambda each: _explained(each, doing)) as connection:
            with _explained(connection, doing):
                yield connection

    @asynccontextmanager
    async def _snapshot(self, doing: str) -> AsyncIterator[AsyncConnection]:
        async with self._pool.lend(lambda each: _explained(each, doing)) as connection:
            with _explained(connection, doing):
                await connection.begin()
            yield connection
            with _explained(connection, doing):
                await connection.end()

    @asynccontextmanager
    async def _reading(self, plan: RowPlan, doing: str) -> AsyncIterator[AsyncIterator[Sequence[Row]]]:
        async with self._snapshot(doing) as connection, aclosing(_chunks(connection, plan, doing)) as chunks:
            yield chunks

    @asynccontextmanager
    async def _compared(
        self, schema: TableSchema, columns: Sequence[Column], plan: RowPlan, *, deleted: str | None = None
    ) -> AsyncIterator[ReadComparison]:
        """The hashes of the rows of a plan, without those whose column `deleted` is not NULL."""
        at = None if deleted is None else [column.name for column in schema.columns].index(deleted)
        found = ReadComparison(schema, columns)
        try:
            await found.open()
            async with self._reading(plan, f"comparing {schema.table}") as chunks:
                async for chunk in chunks:
                    await found.add(chunk if at is None else [row for row in chunk if row[at] is None])
            await found.sort()
            yield found
        finally:
            await found.close()

    async def _ahead(self, schema: TableSchema, value: Value, clock: float, doing: str) -> int:
        """How many rows are ahead of the clock, up to MAX_AHEAD."""
        floor = ahead_of(value, clock=clock, seconds=AHEAD_SECONDS)
        if floor is None:
            return 0
        plan = RowPlan(schema=_narrowed(schema, (schema.tracking_column,)), floor=floor, nulls=False)
        count = 0
        async with self._reading(plan, doing) as chunks:
            async for chunk in chunks:
                count += len(chunk)
                if count >= MAX_AHEAD:
                    return MAX_AHEAD
        return count


class _Snapshot:
    """A connection inside a snapshot."""

    def __init__(self, connection: AsyncConnection, heeds: frozenset[str]) -> None:
        self._connection = connection
        self._heeds = heeds

    @asynccontextmanager
    async def read(self, plan: ReadPlan) -> AsyncIterator[AsyncIterator[Batch]]:
        asked = row_plan(plan)
        only = None if "keys" in self._heeds else plan.keys
        if only is not None:
            asked = replace(asked, keys=None)
        async with aclosing(_chunks(self._connection, asked, f"reading {plan.schema.table}")) as chunks:
            found = batches(chunks, plan)
            yield found if only is None else _only(found, plan.schema, frozenset(only))


async def _chunks(connection: AsyncConnection, plan: RowPlan, doing: str) -> AsyncGenerator[Sequence[Row], None]:
    """The rows of a plan as the connection gives them; each piece counts as activity of the source."""
    with _explained(connection, doing):
        async with aclosing(connection.chunks(plan)) as chunks:
            async for chunk in chunks:
                if (on_activity := ON_ACTIVITY.get()) is not None:
                    on_activity()
                yield chunk


async def _only(found: AsyncIterator[Batch], schema: TableSchema, keys: frozenset[Any]) -> AsyncIterator[Batch]:
    key_of = key_reader(schema)
    async for batch in found:
        rows = [row for row in batch.rows if key_of(row) in keys]
        if rows or batch.last:
            yield replace(batch, rows=rows)


@contextlib.contextmanager
def _explained(connection: AsyncConnection, doing: str) -> Iterator[None]:
    """Raise a kind of SyncError for whatever the driver, or the author's code, raises in the body."""
    try:
        yield
    except SyncError:
        raise
    except Exception as error:
        explained = connection.explain(error)
        if explained is not None:
            raise explained from error
        if isinstance(error, OSError | EOFError):
            # TimeoutError and ConnectionError are kinds of OSError.
            why = error.strerror or kind_of(error) if isinstance(error, OSError) else kind_of(error)
            raise SourceUnavailable(f"{doing}: the source cannot be reached ({why})") from error
        raise SourceRejected(f"{doing}: the driver raised {kind_of(error)}; the host's log has the details") from error


def _narrowed(schema: TableSchema, names: Sequence[str]) -> TableSchema:
    """The schema with these columns only, in the order of the table; the rest is left out."""
    everything = (*schema.columns, *schema.left_out)
    return replace(
        schema,
        columns=tuple(column for column in everything if column.name in names),
        left_out=tuple(column for column in everything if column.name not in names),
    )


def _stored(schema: TableSchema, value: Value) -> Value:
    """The highest tracking value as the replica stores it."""
    narrow = _narrowed(schema, (schema.tracking_column,))
    try:
        stored: Value = storable(Rows([value], 1), narrow).values[0]
    except CastFailed as error:
        hint = f"`high_watermark` returned it{error.hint and '; '}{error.hint}"
        raise CastFailed(error.table, error.column, error.type_name, hint=hint) from error
    return stored


def _still_open(noted: OpenTransactions, now: OpenTransactions) -> OpenTransactions:
    if not now.known or not noted.known:
        return replace(noted, known=False, reason=now.reason)
    if now.epoch != noted.epoch:
        return replace(noted, tokens=frozenset(), epoch=now.epoch)
    return replace(noted, tokens=noted.tokens & now.tokens)
