"""Dialects with one bug each: wrappers that change one answer of a dialect that is right otherwise.

Each is listed with the promise that it breaks, and the check that must say so.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from starbase_data_replication.conformance import Check, Promise
from starbase_data_replication.conformance.comparing import comparing
from starbase_data_replication.conformance.following import following, open_transactions, times
from starbase_data_replication.conformance.loading import filters, first_load, keys, snapshots
from starbase_data_replication.conformance.settings import connections, description, errors, settings
from starbase_data_replication.errors import SourceRejected, SourceUnavailable, SyncError
from starbase_data_replication.model import (
    Batch,
    Column,
    HighWatermark,
    OpenTransactions,
    Options,
    TableName,
    TableSchema,
)
from starbase_data_replication.sources import Comparing, Dialect, Part, Reader, ReadPlan, Source, Summary

Batches = AsyncIterator[Batch]
Reading = Callable[[ReadPlan], AbstractAsyncContextManager[Batches]]


class Mutant:
    """A source that passes every question on. A mutant changes one method."""

    def __init__(self, source: Any) -> None:
        self.right = source

    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        found: TableSchema = await self.right.describe(table, tracking_column)
        return found

    async def check_filter_and_key(self, schema: TableSchema, *, key: bool) -> None:
        await self.right.check_filter_and_key(schema, key=key)

    async def count_nulls(self, schema: TableSchema, *, at_most: int | None) -> int:
        found: int = await self.right.count_nulls(schema, at_most=at_most)
        return found

    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        found: HighWatermark = await self.right.read_high_watermark(schema, options, noted_at=noted_at)
        return found

    @asynccontextmanager
    async def read(self, plan: ReadPlan) -> AsyncIterator[Batches]:
        async with self.reading(self.right, plan) as batches:
            yield batches

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Reader]:
        async with self.right.snapshot() as snapshot:
            yield _Snapshot(self, snapshot)

    @asynccontextmanager
    async def reading(self, reader: Reader, plan: ReadPlan) -> AsyncIterator[Batches]:
        async with reader.read(self.plan(plan)) as batches:
            yield self.batches(batches, plan)

    def plan(self, plan: ReadPlan) -> ReadPlan:
        return plan

    async def batches(self, batches: Batches, plan: ReadPlan) -> Batches:
        async for batch in batches:
            changed = self.batch(batch, plan)
            if changed is not None:
                yield changed

    def batch(self, batch: Batch, plan: ReadPlan) -> Batch | None:
        return batch

    async def still_open(self, noted: Sequence[OpenTransactions]) -> list[OpenTransactions]:
        found: list[OpenTransactions] = await self.right.still_open(noted)
        return found

    @asynccontextmanager
    async def comparing(
        self, schema: TableSchema, columns: Sequence[Column], options: Options
    ) -> AsyncIterator[Comparing]:
        async with self.right.comparing(schema, columns, options) as found:
            yield found

    async def close(self) -> None:
        await self.right.close()


class _Snapshot:
    def __init__(self, mutant: Mutant, snapshot: Reader) -> None:
        self._mutant, self._snapshot = mutant, snapshot

    def read(self, plan: ReadPlan) -> AbstractAsyncContextManager[Batches]:
        return self._mutant.reading(self._snapshot, plan)


class MutantDialect:
    """A dialect that passes every question on, with a changed source."""

    def __init__(self, dialect: Dialect, source: type[Mutant] = Mutant) -> None:
        self.right, self._source = dialect, source

    @property
    def features(self) -> Collection[str]:
        return self.right.features

    def check(self, settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        return self.right.check(settings, source_table)

    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        return self.right.identity(settings, source_table)

    def secret_parts(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.right.secret_parts(settings)

    def hosts(self, settings: Mapping[str, Any]) -> Sequence[str]:
        return self.right.hosts(settings)

    def table_name(self, settings: Mapping[str, Any], source_table: str) -> TableName:
        return self.right.table_name(settings, source_table)

    def open(self, settings: Mapping[str, Any], *, max_connections: int) -> Source:
        mutant: Any = self._source(self.right.open(settings, max_connections=max_connections))
        opened: Source = mutant
        return opened


@dataclass(frozen=True)
class Bug:
    """One mutant. promise: what it breaks; check: the check that finds it."""

    promise: Promise
    check: Check
    make: Callable[[Dialect], Dialect]


BUGS: dict[str, Bug] = {}


def _source(promise: Promise, check: Check) -> Callable[[type[Mutant]], type[Mutant]]:
    def add(kind: type[Mutant]) -> type[Mutant]:
        BUGS[_words(kind)] = Bug(promise, check, lambda dialect: MutantDialect(dialect, kind))
        return kind

    return add


def _dialect(promise: Promise, check: Check) -> Callable[[type[MutantDialect]], type[MutantDialect]]:
    def add(kind: type[MutantDialect]) -> type[MutantDialect]:
        BUGS[_words(kind)] = Bug(promise, check, kind)
        return kind

    return add


def _words(kind: type) -> str:
    return kind.__name__.replace("_", " ").lower()


@_dialect(Promise.SETTINGS, settings)
class Nothing_is_wrong(MutantDialect):
    def check(self, settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        return {}


@_dialect(Promise.SETTINGS, settings)
class Everything_is_wrong(MutantDialect):
    def check(self, settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        return {"sourceConfig.host": "is wrong"}


@_dialect(Promise.IDENTITY, settings)
class One_identity_for_two_tables(MutantDialect):
    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        return self.right.identity(settings, "t")


@_dialect(Promise.IDENTITY, settings)
class One_identity_for_two_sources(MutantDialect):
    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        return ("server", source_table)


@_dialect(Promise.IDENTITY, settings)
class An_identity_of_numbers(MutantDialect):
    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        numbers: Any = (5432, *self.right.identity(settings, source_table))
        found: tuple[str, ...] = numbers
        return found


@_dialect(Promise.HOSTS, settings)
class Another_host_is_named(MutantDialect):
    def hosts(self, settings: Mapping[str, Any]) -> Sequence[str]:
        return ("localhost",)


@_dialect(Promise.HOSTS, settings)
class Hosts_that_are_not_texts(MutantDialect):
    def hosts(self, settings: Mapping[str, Any]) -> Sequence[str]:
        found: Any = [None]
        hosts: Sequence[str] = found
        return hosts


@_dialect(Promise.SECRETS, settings)
class A_secret_in_the_identity(MutantDialect):
    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        return (*self.right.identity(settings, source_table), str(settings["password"]))


@_dialect(Promise.SECRETS, settings)
class A_secret_is_shown(MutantDialect):
    def secret_parts(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return settings


@_dialect(Promise.SECRETS, settings)
class A_secret_in_an_error_of_check(MutantDialect):
    def check(self, settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        found = self.right.check(settings, source_table)
        return {field: f"{why}; not {settings['password']}" for field, why in found.items()}


@_source(Promise.DESCRIBED, description)
class A_column_is_lost(Mutant):
    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        schema = await super().describe(table, tracking_column)
        return replace(
            schema, columns=schema.columns[:-1] if schema.columns[-1].name != tracking_column else schema.columns[1:]
        )


@_source(Promise.DESCRIBED, description)
class Columns_that_are_never_null(Mutant):
    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        schema = await super().describe(table, tracking_column)
        return replace(schema, columns=tuple(replace(column, nullable=False) for column in schema.columns))


@_source(Promise.DESCRIBED, description)
class A_key_that_the_table_lacks(Mutant):
    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        return replace(await super().describe(table, tracking_column), key=("no_such_column",))


@_source(Promise.DESCRIBED, description)
class A_type_that_sqlite_converts(Mutant):
    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        schema = await super().describe(table, tracking_column)
        first = replace(schema.columns[0], cast=replace(schema.columns[0].cast, declared="VARCHAR(20)"))
        return replace(schema, columns=(first, *schema.columns[1:]))


@_source(Promise.TIMES, description)
class Times_are_not_seen_as_times(Mutant):
    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        schema = await super().describe(table, tracking_column)
        columns = (replace(each, rises="") if each.name == tracking_column else each for each in schema.columns)
        return replace(schema, columns=tuple(columns))


@_source(Promise.MISSING, description)
class A_missing_table_is_an_outage(Mutant):
    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        try:
            return await super().describe(table, tracking_column)
        except SourceRejected as error:
            raise SourceUnavailable(str(error)) from error


@_source(Promise.MISSING, description)
class A_missing_tracking_column_is_found(Mutant):
    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        try:
            return await super().describe(table, tracking_column)
        except SourceRejected:
            return await super().describe(table, "at")


@_source(Promise.TRANSLATED, errors)
class Errors_are_not_translated(Mutant):
    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        try:
            return await super().describe(table, tracking_column)
        except SyncError as error:
            raise ConnectionError("the driver's own") from error


@_dialect(Promise.SECRETS, errors)
class A_secret_in_an_error(MutantDialect):
    def open(self, settings: Mapping[str, Any], *, max_connections: int) -> Source:
        class Shows(Mutant):
            async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
                try:
                    return await super().describe(table, tracking_column)
                except SyncError as error:
                    raise type(error)(f"{error}: password={settings['password']}") from error

        mutant: Any = Shows(self.right.open(settings, max_connections=max_connections))
        opened: Source = mutant
        return opened


@_source(Promise.WIDTH, first_load)
class A_value_too_many(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, rows=[(*row, 1) for row in batch.rows])


@_source(Promise.WIDTH, first_load)
class A_value_too_few(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, rows=[tuple(row)[:-1] for row in batch.rows])


@_source(Promise.VALUES, first_load)
class A_row_is_lost_at_the_end_of_a_batch(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, rows=list(batch.rows)[:-1] if len(batch.rows) > 1 else batch.rows)


@_source(Promise.VALUES, first_load)
class A_row_comes_twice(Mutant):
    async def batches(self, batches: Batches, plan: ReadPlan) -> Batches:
        first = True
        async for batch in batches:
            if first:
                yield replace(batch, last=False)
            first = False
            yield batch


@_source(Promise.VALUES, first_load)
class Null_becomes_an_empty_text(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, rows=[tuple("" if value is None else value for value in row) for row in batch.rows])


@_source(Promise.VALUES, first_load)
class Floats_are_rounded(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        rows = [tuple(round(value, 6) if isinstance(value, float) else value for value in row) for row in batch.rows]
        return replace(batch, rows=rows)


@_source(Promise.VALUES, first_load)
class Texts_are_ascii(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        def ascii_of(value: Any) -> Any:
            return value.encode("ascii", "ignore").decode() if isinstance(value, str) else value

        return replace(batch, rows=[tuple(map(ascii_of, row)) for row in batch.rows])


@_source(Promise.VALUES, first_load)
class Bytes_become_hex(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        rows = [tuple(value.hex() if isinstance(value, bytes) else value for value in row) for row in batch.rows]
        return replace(batch, rows=rows)


@_source(Promise.VALUES, first_load)
class Columns_in_another_order(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, rows=[(row[1], row[0], *tuple(row)[2:]) for row in batch.rows])


@_source(Promise.LAST, first_load)
class The_last_batch_is_missing(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, last=False)


@_source(Promise.LAST, first_load)
class Every_batch_is_the_last(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, last=True)


@_source(Promise.BATCHES, first_load)
class Batch_rows_are_ignored(Mutant):
    def plan(self, plan: ReadPlan) -> ReadPlan:
        return replace(plan, batch_rows=5000)


@_source(Promise.BATCHES, first_load)
class Batch_bytes_are_ignored(Mutant):
    def plan(self, plan: ReadPlan) -> ReadPlan:
        return replace(plan, batch_bytes=4 << 20)


@_source(Promise.BATCHES, first_load)
class Batches_have_no_size(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, bytes=0)


@_source(Promise.ORDER, first_load)
class Rows_in_another_order(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, rows=list(batch.rows)[::-1])


@_source(Promise.RESUME, first_load)
class A_load_starts_over(Mutant):
    def plan(self, plan: ReadPlan) -> ReadPlan:
        return replace(plan, after_key=None)


@_source(Promise.RESUME, first_load)
class A_load_that_goes_on_skips_a_row(Mutant):
    async def batches(self, batches: Batches, plan: ReadPlan) -> Batches:
        skip = plan.after_key is not None
        async for batch in batches:
            yield replace(batch, rows=list(batch.rows)[1:] if skip else batch.rows)
            skip = False


@_source(Promise.RESUME, first_load)
class A_load_that_goes_on_repeats_a_row(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        rows = list(batch.rows)
        places = [column.name for column in plan.schema.columns]
        if batch.last_key is None or len(rows) < 2:
            return batch
        before = [rows[-2][places.index(name)] for name in plan.schema.key]
        return replace(batch, last_key=tuple(map(str, before)))


@_source(Promise.RESUME, first_load)
class No_batch_says_where_a_load_goes_on(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, last_key=None)


@_source(Promise.RESUME, first_load)
class Positions_that_are_not_read_back(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        if batch.last_key is None:
            return batch
        return replace(batch, last_key=tuple(text.encode("ascii", "replace").decode() for text in batch.last_key))


@_source(Promise.FILTER, filters)
class A_filter_leaks(Mutant):
    def plan(self, plan: ReadPlan) -> ReadPlan:
        return plan if plan.left_filter else replace(plan, schema=replace(plan.schema, where=None))


@_source(Promise.FILTER, filters)
class Rows_without_a_value_pass_the_filter(Mutant):
    async def count_nulls(self, schema: TableSchema, *, at_most: int | None) -> int:
        return await super().count_nulls(schema, at_most=at_most) + (schema.where is not None)


@_source(Promise.EXPRESSION, filters)
class Any_text_is_a_filter(Mutant):
    async def check_filter_and_key(self, schema: TableSchema, *, key: bool) -> None:
        await super().check_filter_and_key(replace(schema, where=None), key=key)


@_source(Promise.EXPRESSION, filters)
class A_wrong_filter_is_not_named(Mutant):
    async def check_filter_and_key(self, schema: TableSchema, *, key: bool) -> None:
        try:
            await super().check_filter_and_key(schema, key=key)
        except SourceRejected as error:
            raise SourceRejected("the statement is wrong") from error


@_source(Promise.LEFT_FILTER, filters)
class Rows_that_left_the_filter_are_not_read(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, rows=[row for row in batch.rows if int(row[-1])]) if plan.left_filter else batch


@_source(Promise.LEFT_FILTER, filters)
class Rows_that_left_the_filter_are_not_marked(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, rows=[(*tuple(row)[:-1], 1) for row in batch.rows]) if plan.left_filter else batch


@_source(Promise.LEFT_FILTER, filters)
class Rows_have_no_mark(Mutant):
    def plan(self, plan: ReadPlan) -> ReadPlan:
        return replace(plan, left_filter=False)


@_source(Promise.LEFT_FILTER, filters)
class The_marks_are_the_wrong_way_round(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        if not plan.left_filter:
            return batch
        return replace(batch, rows=[(*tuple(row)[:-1], 1 - int(row[-1])) for row in batch.rows])


@_source(Promise.KEY, keys)
class Any_columns_are_a_key(Mutant):
    async def check_filter_and_key(self, schema: TableSchema, *, key: bool) -> None:
        await super().check_filter_and_key(schema, key=False)


@_source(Promise.KEY, keys)
class A_wrong_key_is_not_named(Mutant):
    async def check_filter_and_key(self, schema: TableSchema, *, key: bool) -> None:
        try:
            await super().check_filter_and_key(schema, key=key)
        except SourceRejected as error:
            raise SourceRejected("two rows are alike") from error


@_source(Promise.BY_KEY, keys)
class Keys_are_ignored(Mutant):
    def plan(self, plan: ReadPlan) -> ReadPlan:
        return replace(plan, keys=None)


@_source(Promise.BY_KEY, keys)
class The_last_key_is_forgotten(Mutant):
    def plan(self, plan: ReadPlan) -> ReadPlan:
        return plan if plan.keys is None or len(plan.keys) < 2 else replace(plan, keys=plan.keys[:-1])


@_source(Promise.FLOOR, following)
class A_row_above_the_floor_is_missed(Mutant):
    def batch(self, batch: Batch, plan: ReadPlan) -> Batch:
        return replace(batch, rows=list(batch.rows)[1:]) if plan.floor is not None and not plan.nulls else batch


@_source(Promise.HIGHEST, following)
class A_floor_is_ignored(Mutant):
    def plan(self, plan: ReadPlan) -> ReadPlan:
        return replace(plan, floor=None)


@_source(Promise.HIGHEST, following)
class No_row_is_the_highest(Mutant):
    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        return HighWatermark()


@_source(Promise.NULLS, following)
class Nulls_are_always_read(Mutant):
    def plan(self, plan: ReadPlan) -> ReadPlan:
        return replace(plan, nulls=True)


@_source(Promise.NULLS, following)
class Nulls_are_never_read_above_a_floor(Mutant):
    def plan(self, plan: ReadPlan) -> ReadPlan:
        return replace(plan, nulls=plan.nulls and plan.floor is None)


@_source(Promise.NULLS, following)
class Nulls_are_not_counted(Mutant):
    async def count_nulls(self, schema: TableSchema, *, at_most: int | None) -> int:
        return 0


@_source(Promise.NULLS, following)
class Nulls_are_counted_without_a_limit(Mutant):
    async def count_nulls(self, schema: TableSchema, *, at_most: int | None) -> int:
        return await super().count_nulls(schema, at_most=None)


@_source(Promise.SETTLED, times)
class Times_never_settle(Mutant):
    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        return await super().read_high_watermark(schema, replace(options, settle_seconds=86_400.0), noted_at=noted_at)


@_source(Promise.SETTLED, times)
class Times_settle_at_once(Mutant):
    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        return await super().read_high_watermark(schema, replace(options, settle_seconds=-60.0), noted_at=noted_at)


class _Candidate(Mutant):
    def changed(self, value: str, lookback_value: str | None) -> str | None:
        return lookback_value

    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        noted = await super().read_high_watermark(schema, options, noted_at=noted_at)
        if noted.candidate is None:
            return noted
        value = self.changed(noted.candidate.value, noted.candidate.lookback_value)
        return replace(noted, candidate=replace(noted.candidate, lookback_value=value))


@_source(Promise.LOOKBACK, times)
class No_lookback_value(_Candidate):
    def changed(self, value: str, lookback_value: str | None) -> str | None:
        return None


@_source(Promise.LOOKBACK, times)
class A_lookback_of_nothing(_Candidate):
    def changed(self, value: str, lookback_value: str | None) -> str | None:
        return value


@_source(Promise.LOOKBACK, times)
class A_lookback_of_days(Mutant):
    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        longer = replace(options, lookback_seconds=(options.lookback_seconds or 1) * 86_400)
        return await super().read_high_watermark(schema, longer, noted_at=noted_at)


@_source(Promise.AHEAD, times)
class Rows_ahead_are_not_counted(Mutant):
    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        return replace(await super().read_high_watermark(schema, options, noted_at=noted_at), ahead=0)


@_source(Promise.AHEAD, following)
class Every_row_is_ahead(Mutant):
    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        return replace(await super().read_high_watermark(schema, options, noted_at=noted_at), ahead=5)


@_source(Promise.MOMENT, snapshots)
class A_read_begins_with_its_first_row(Mutant):
    @asynccontextmanager
    async def reading(self, reader: Reader, plan: ReadPlan) -> AsyncIterator[Batches]:
        async with AsyncExitStack() as stack:

            async def later() -> Batches:
                async for batch in await stack.enter_async_context(reader.read(plan)):
                    yield batch

            yield later()


@_source(Promise.MOMENT, snapshots)
class Two_snapshots_in_one_read(Mutant):
    @asynccontextmanager
    async def reading(self, reader: Reader, plan: ReadPlan) -> AsyncIterator[Batches]:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(reader.read(plan))

            async def both() -> Batches:
                yield replace(await anext(first), last=False)
                await stack.aclose()
                second = await stack.enter_async_context(reader.read(plan))
                await anext(second)
                async for batch in second:
                    yield batch

            yield both()


@_source(Promise.SAME_MOMENT, snapshots)
class Each_read_of_a_snapshot_has_its_own(Mutant):
    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Reader]:
        reader: Any = self
        found: Reader = reader
        yield found


@_source(Promise.FREED, snapshots)
class A_read_that_is_left_keeps_its_connection(Mutant):
    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.kept = AsyncExitStack()

    @asynccontextmanager
    async def reading(self, reader: Reader, plan: ReadPlan) -> AsyncIterator[Batches]:
        entered = reader.read(plan)
        batches = await entered.__aenter__()
        ended = False

        async def watched() -> Batches:
            nonlocal ended
            async for batch in batches:
                ended = batch.last
                yield batch

        yield watched()
        if ended:
            await entered.__aexit__(None, None, None)
        else:
            self.kept.push_async_exit(entered)

    async def close(self) -> None:
        await self.kept.aclose()
        await super().close()


class _Open(Mutant):
    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        noted = await super().read_high_watermark(schema, options, noted_at=noted_at)
        if noted.candidate is None:
            return noted
        seen = self.seen(noted.candidate.open_transactions)
        return replace(noted, candidate=replace(noted.candidate, open_transactions=seen))

    def seen(self, found: OpenTransactions) -> OpenTransactions:
        return found


@_source(Promise.OPEN, open_transactions)
class A_look_that_misses_a_transaction(_Open):
    def seen(self, found: OpenTransactions) -> OpenTransactions:
        return replace(found, tokens=frozenset())


@_source(Promise.OPEN, open_transactions)
class Unknown_transactions_without_a_reason(_Open):
    def seen(self, found: OpenTransactions) -> OpenTransactions:
        return OpenTransactions(known=False)


@_source(Promise.OPEN, open_transactions)
class A_second_look_that_misses_a_transaction(Mutant):
    async def still_open(self, noted: Sequence[OpenTransactions]) -> list[OpenTransactions]:
        return [replace(each, tokens=frozenset()) for each in await super().still_open(noted)]


@_source(Promise.OPEN, open_transactions)
class Sets_of_transactions_are_forgotten(Mutant):
    async def still_open(self, noted: Sequence[OpenTransactions]) -> list[OpenTransactions]:
        return (await super().still_open(noted))[:1]


@_source(Promise.ENDED, open_transactions)
class A_transaction_never_ends(Mutant):
    async def still_open(self, noted: Sequence[OpenTransactions]) -> list[OpenTransactions]:
        await super().still_open(noted)
        return list(noted)


class _Answers:
    def __init__(self, right: Any) -> None:
        self.right = right

    def __getattr__(self, name: str) -> Any:
        return getattr(self.right, name)

    @property
    def order(self) -> tuple[str, ...]:
        found: tuple[str, ...] = self.right.order
        return found

    @property
    def forms(self) -> Mapping[str, Callable[[float], str]]:
        found: Mapping[str, Callable[[float], str]] = self.right.forms
        return found

    @property
    def digests(self) -> frozenset[str]:
        found: frozenset[str] = self.right.digests
        return found

    async def summarise(self, parts: Sequence[Part]) -> list[dict[int, Summary]]:
        found: list[dict[int, Summary]] = await self.right.summarise(parts)
        return found

    async def hashes(self, part: Part) -> AsyncIterator[list[tuple[Any, int]]]:
        async for rows in self.right.hashes(part):
            yield rows


class _Comparing(Mutant):
    """What a comparison answers, changed."""

    kind: type[_Answers]

    @asynccontextmanager
    async def comparing(
        self, schema: TableSchema, columns: Sequence[Column], options: Options
    ) -> AsyncIterator[Comparing]:
        async with super().comparing(schema, columns, options) as found:
            answers: Any = self.kind(found)
            yield answers


@_source(Promise.HASHES, comparing)
class Sums_of_other_texts(_Comparing):
    class kind(_Answers):
        async def summarise(self, parts: Sequence[Part]) -> list[dict[int, Summary]]:
            found = await super().summarise(parts)
            return [{at: Summary(each.rows, each.checksum + 1) for at, each in part.items()} for part in found]

        async def hashes(self, part: Part) -> AsyncIterator[list[tuple[Any, int]]]:
            async for rows in super().hashes(part):
                yield [(key, hashed ^ 1) for key, hashed in rows]


@_source(Promise.HASHES, comparing)
class A_digest_that_the_replica_lacks(_Comparing):
    class kind(_Answers):
        digest = "crc32"


@_source(Promise.DIFFERENCES, comparing)
class Sums_count_rows_only(_Comparing):
    class kind(_Answers):
        async def hashes(self, part: Part) -> AsyncIterator[list[tuple[Any, int]]]:
            async for rows in super().hashes(part):
                yield [(tuple(map(repr, key)), hashed) for key, hashed in rows]


@_source(Promise.DIFFERENCES, comparing)
class A_row_is_missing_among_the_hashes(_Comparing):
    class kind(_Answers):
        async def hashes(self, part: Part) -> AsyncIterator[list[tuple[Any, int]]]:
            async for rows in super().hashes(part):
                yield rows[1:]


@_source(Promise.COMPARED, comparing)
class Deleted_rows_are_compared(Mutant):
    @asynccontextmanager
    async def comparing(
        self, schema: TableSchema, columns: Sequence[Column], options: Options
    ) -> AsyncIterator[Comparing]:
        async with super().comparing(schema, columns, replace(options, deletes="keep")) as found:
            yield found


@_source(Promise.COMPARED, comparing)
class Ignored_rows_are_compared(Mutant):
    @asynccontextmanager
    async def comparing(
        self, schema: TableSchema, columns: Sequence[Column], options: Options
    ) -> AsyncIterator[Comparing]:
        async with super().comparing(schema, columns, replace(options, null_tracking="read")) as found:
            yield found


@_source(Promise.COMPARED, comparing)
class Rows_outside_the_filter_are_compared(Mutant):
    @asynccontextmanager
    async def comparing(
        self, schema: TableSchema, columns: Sequence[Column], options: Options
    ) -> AsyncIterator[Comparing]:
        async with super().comparing(replace(schema, where=None), columns, options) as found:
            yield found


@_dialect(Promise.BOUND, connections)
class Connections_over_the_bound(MutantDialect):
    def open(self, settings: Mapping[str, Any], *, max_connections: int) -> Source:
        return self.right.open(settings, max_connections=max_connections + 2)


LEAKED: list[Any] = []


@_source(Promise.CLOSED, connections)
class Close_leaks(Mutant):
    async def close(self) -> None:
        LEAKED.append(self.right)


async def close_leaked() -> None:
    """Close what mutants have left open."""
    while LEAKED:
        with contextlib.suppress(Exception):
            await LEAKED.pop().close()
