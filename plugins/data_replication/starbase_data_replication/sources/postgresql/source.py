"""A PostgreSQL table as a source: describe, note, who is alive, read. Knows nothing of SQLite.

Every statement runs inside a READ ONLY transaction with SET LOCAL, so that nothing outlives it: behind a pooler
that hands connections out by transaction, a session setting would be another client's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

import asyncpg

from starbase_data_replication.errors import SourceChanged, SourceRejected, TableMissing
from starbase_data_replication.model import Alive, Batch, Candidate, Column, Options, TableName, TableSchema
from starbase_data_replication.sources.base import AHEAD_SECONDS, NO_KEY, Comparing, Reader, ReadPlan
from starbase_data_replication.sources.batches import BatchSizer, convert
from starbase_data_replication.sources.pool import Pool
from starbase_data_replication.sources.postgresql.compare import PostgresqlComparing
from starbase_data_replication.sources.postgresql.door import door
from starbase_data_replication.sources.postgresql.settings import READER_NAME
from starbase_data_replication.sources.postgresql.sql import among, key_text, quoted, selected, table_sql, where_sql
from starbase_data_replication.sources.postgresql.types import CLOCKS, LOCAL_CLOCK, UNBOUNDED, cast_for, clock_unit
from starbase_data_replication.sources.reach import DEFAULT, CheckedLoop, Reach

DESCRIBE = files(__package__).joinpath("describe.sql").read_text(encoding="utf-8")
ALIVE = files(__package__).joinpath("alive.sql").read_text(encoding="utf-8")

# By pg_class.relkind.
KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}

# A source that hangs must not hold a run for ever; a table that must be scanned may take minutes to answer.
STATEMENT_TIMEOUT_SECONDS = 600.0
GOODBYE_SECONDS = 2.0

# What makes `::text` mean the same on every server, and keeps a role's own limits from cutting a long read.
SETTINGS = (
    "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'iso_8601'; "
    "SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL statement_timeout = 0; "
    "SET LOCAL idle_in_transaction_session_timeout = 0"
)


class PostgresqlSource:
    """One configured PostgreSQL. `arguments` are those of asyncpg.create_pool; reach: where it may be."""

    def __init__(self, arguments: Mapping[str, Any], *, max_connections: int, reach: Reach = DEFAULT) -> None:
        async def connect(*words: Any, loop: Any = None, **options: Any) -> Any:
            checked: Any = CheckedLoop(asyncio.get_running_loop(), reach)
            return await asyncpg.connect(*words, loop=checked, **options)

        self._pool = Pool("postgresql", {**arguments, "connect": connect}, max_connections=max_connections)

    async def close(self) -> None:
        await self._pool.close()

    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        with door(f"looking up {table}"):
            async with self._transaction("READ COMMITTED") as connection:
                rows = await connection.fetch(DESCRIBE, table.schema, table.name, timeout=STATEMENT_TIMEOUT_SECONDS)
        if not rows:
            raise TableMissing(f"the source has no table or view {table} that this user can see")
        if rows[0]["relpersistence"] == "t":
            raise SourceRejected(f"{table} is a temporary table: only the session that made it can read it")
        columns = tuple(_column(row) for row in rows)
        names = [column.name for column in columns]
        if tracking_column not in names:
            raise SourceRejected(f"{table} has no column {tracking_column}; trackingColumn must be one of its columns")
        key = sorted((row["key_position"], row["name"]) for row in rows if row["key_position"] is not None)
        estimate = rows[0]["reltuples"]
        return TableSchema(
            table=table,
            columns=columns,
            key=tuple(name for _, name in key),
            tracking_column=tracking_column,
            estimated_rows=int(estimate) if estimate >= 0 else None,
            unprotected=_unprotected(next(row for row in rows if row["name"] == tracking_column)),
            kind=KINDS[rows[0]["relkind"]],
            incarnation=rows[0]["relation"],
        )

    async def count_nulls(self, schema: TableSchema, *, at_most: int | None) -> int:
        limit = "" if at_most is None else f" LIMIT {at_most:d}"
        wanted = "" if schema.where is None else f" AND {where_sql(schema.where)}"
        tracking = f"t.{quoted(schema.tracking_column)}"
        rows = f"SELECT 1 FROM {table_sql(schema.table)} AS t WHERE {tracking} IS NULL{wanted}{limit}"
        with door(f"counting the rows of {schema.table} without a tracking value"):
            async with self._transaction("READ COMMITTED") as connection:
                sql = f"SELECT count(*) FROM ({rows}) AS nulls"
                return int(await connection.fetchval(sql, timeout=STATEMENT_TIMEOUT_SECONDS))

    async def count_ahead(self, schema: TableSchema, options: Options, *, at_most: int) -> int:
        if schema.tracking.tracking_kind not in CLOCKS:
            return 0
        clock, values = _clock(schema.tracking, options, settle_seconds=-AHEAD_SECONDS)
        rows = f"SELECT 1 FROM {table_sql(schema.table)} AS t WHERE t.{quoted(schema.tracking_column)} > {clock}"
        with door(f"counting the rows of {schema.table} that lie in the future"):
            async with self._transaction("READ COMMITTED") as connection:
                sql = f"SELECT count(*) FROM ({rows} LIMIT {at_most:d}) AS ahead"
                return int(await connection.fetchval(sql, *values, timeout=STATEMENT_TIMEOUT_SECONDS))

    async def note(self, schema: TableSchema, options: Options, *, noted_at: float) -> Candidate | None:
        with door(f"noting the watermark of {schema.table}"):
            async with self._transaction("READ COMMITTED") as connection:
                told = schema.unprotected is None and not await connection.fetchval("SELECT pg_is_in_recovery()")
                # The value first, then who is alive, in two statements: see Source.note.
                sql, values = _highest(schema, options, options.lookback(known=told))
                row = await connection.fetchrow(sql, *values, timeout=STATEMENT_TIMEOUT_SECONDS)
                if row is None:
                    return None
                if schema.unprotected is not None:
                    alive = Alive(known=False, reason=schema.unprotected)
                else:
                    alive = await self._alive_now(connection)
        return Candidate(value=row[0], lookback_value=row[1], noted_at=noted_at, alive=alive)

    async def still_alive(self, noted: Sequence[Alive]) -> list[Alive]:
        with door("asking which transactions are alive"):
            async with self._transaction("READ COMMITTED") as connection:
                now = await self._alive_now(connection)
        return [_still_alive(each, now) for each in noted]

    async def check(self, schema: TableSchema, *, key: bool) -> None:
        async with self._transaction("READ COMMITTED") as connection:
            if schema.where is not None:
                # Between words and between brackets, so that nothing but one whole expression fits.
                chosen = f"CASE WHEN {schema.where}\n THEN 1 END"
                sql = f"SELECT {chosen} FROM {table_sql(schema.table)} AS t WHERE {where_sql(schema.where)} LIMIT 0"
                try:
                    with door("where"):
                        await connection.fetch(sql, timeout=STATEMENT_TIMEOUT_SECONDS)
                except SourceChanged as error:
                    raise SourceRejected(str(error)) from error
            if key:
                names = ", ".join(f"t.{quoted(name)}" for name in schema.key)
                nulls = " OR ".join(f"t.{quoted(name)} IS NULL" for name in schema.key)
                filtered = "" if schema.where is None else f" WHERE {where_sql(schema.where)}"
                sql = (
                    f"SELECT 1 FROM {table_sql(schema.table)} AS t{filtered} GROUP BY {names} "
                    f"HAVING count(*) > 1 OR bool_or({nulls}) LIMIT 1"
                )
                with door("keyColumns"):
                    found = await connection.fetchval(sql, timeout=STATEMENT_TIMEOUT_SECONDS)
                if found is not None:
                    raise SourceRejected(f"keyColumns: {NO_KEY.format(table=schema.table)}")

    @contextlib.asynccontextmanager
    async def read(self, plan: ReadPlan) -> AsyncIterator[AsyncIterator[Batch]]:
        async with self.snapshot() as snapshot, snapshot.read(plan) as batches:
            yield batches

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Reader]:
        async with contextlib.AsyncExitStack() as stack:
            with door("opening a snapshot"):
                connection = await stack.enter_async_context(self._transaction("REPEATABLE READ"))
            # Outside the door: what the caller raises in here is not the source's fault.
            yield _Snapshot(connection)

    @contextlib.asynccontextmanager
    async def comparing(
        self, schema: TableSchema, columns: Sequence[Column], options: Options
    ) -> AsyncIterator[Comparing]:
        async with contextlib.AsyncExitStack() as stack:
            with door(f"comparing {schema.table}"):
                connection = await stack.enter_async_context(self._transaction("REPEATABLE READ"))
                comparing = await PostgresqlComparing.open(connection, schema, columns, options)
            yield comparing

    @contextlib.asynccontextmanager
    async def _transaction(self, isolation: str) -> AsyncIterator[Any]:
        async with self._pool.connection() as connection:
            transaction = connection.transaction(isolation=isolation.lower().replace(" ", "_"), readonly=True)
            await transaction.start()
            try:
                await connection.execute(SETTINGS)
                yield connection
            finally:
                await _end(connection, transaction)

    async def _alive_now(self, connection: Any) -> Alive:
        server = await connection.fetchrow(
            "SELECT pg_is_in_recovery() AS standby, pg_postmaster_start_time()::text AS epoch"
        )
        if server["standby"]:
            return Alive(known=False, reason="the source is a standby, which does not tell who is writing")
        # In this order: one that is prepared in between is seen as virtual; the other way round it is in neither.
        virtual = await connection.fetch(ALIVE, READER_NAME)
        prepared = await connection.fetch(
            "SELECT transaction::text AS token FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()"
        )
        tokens = {f"v:{row['token']}" for row in virtual} | {f"p:{row['token']}" for row in prepared}
        return Alive(known=True, tokens=frozenset(tokens), reason="pg_locks", epoch=server["epoch"])


class _Snapshot:
    """A connection inside a transaction whose snapshot is taken by the first read."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @contextlib.asynccontextmanager
    async def read(self, plan: ReadPlan) -> AsyncIterator[AsyncIterator[Batch]]:
        doing = f"reading {plan.schema.table}"
        with door(doing):
            if plan.in_key_order:
                # The planner believes that all rows are wanted at once, and would rather sort the table.
                await self._connection.execute("SET LOCAL enable_sort = off")
            sql, values = _select(plan)
            cursor = await self._connection.cursor(sql, *values, timeout=STATEMENT_TIMEOUT_SECONDS)
        yield _batches(cursor, plan, doing)


async def _batches(cursor: Any, plan: ReadPlan, doing: str) -> AsyncIterator[Batch]:
    columns = plan.schema.columns
    positions = [next(i for i, c in enumerate(columns) if c.name == name) for name in plan.schema.key]
    resumable = plan.in_key_order and all(column.cast.resumable for column in plan.schema.key_columns)
    sizer = BatchSizer(plan)
    last = False
    while not last:
        wanted = sizer.rows
        with door(doing):
            records = await cursor.fetch(wanted, timeout=STATEMENT_TIMEOUT_SECONDS)
        rows = convert(records, columns)
        last = len(rows) < wanted
        last_key = tuple(key_text(rows[-1][each]) for each in positions) if rows and resumable else None
        yield Batch(rows=rows, bytes=sizer.measure(rows), last_key=last_key, last=last)


_SERVER_ZONE = "SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'TimeZone'"


async def _end(connection: Any, transaction: Any) -> None:
    """Roll back: nothing was written. A connection that broke must not hide why, and one that hangs is cut."""
    try:
        async with asyncio.timeout(GOODBYE_SECONDS):
            await transaction.rollback()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, asyncio.CancelledError):
        connection.terminate()


def _still_alive(noted: Alive, now: Alive) -> Alive:
    if not now.known or not noted.known:
        return replace(noted, known=False, reason=now.reason)
    virtual = {token for token in noted.tokens if token.startswith("v:")}
    prepared = noted.tokens - virtual
    virtual_now = {token for token in now.tokens if token.startswith("v:")}
    prepared_now = now.tokens - virtual_now
    if now.epoch != noted.epoch:
        # Virtual ids begin anew with the server; only what was prepared outlives it.
        virtual_now = set()
    still = (virtual & virtual_now) | (prepared & prepared_now)
    if virtual - virtual_now:
        # PREPARE TRANSACTION takes a transaction's virtual id away while it lives on: whatever was prepared
        # since may be the one that vanished.
        still |= prepared_now - prepared
    return replace(noted, tokens=frozenset(still), epoch=now.epoch)


def _unprotected(row: Mapping[str, Any]) -> str | None:
    cache = row["sequence_cache"]
    if cache is None or cache <= 1:
        return None
    return (
        f"the sequence of {row['name']} has CACHE {cache}: a session takes values ahead of its transactions; "
        "ALTER SEQUENCE … CACHE 1, or track a time"
    )


def _column(row: Mapping[str, Any]) -> Column:
    return Column(
        name=row["name"],
        source_type=row["source_type"],
        nullable=not row["not_null"],
        cast=cast_for(name=row["base_name"], kind=row["base_kind"], category=row["base_category"]),
        tracking_kind=row["base_name"],
        compare_type=row["base_type"],
        time_digits=row["time_digits"],
    )


def _highest(schema: TableSchema, options: Options, lookback_seconds: float) -> tuple[str, list[str]]:
    """The statement that answers the highest tracking value, for a time also the same less the lookback.

    A time is capped below the source's clock: PostgreSQL reads the clock for now() a moment before the
    transaction shows, and a value still current may be stamped again.
    """
    column = schema.tracking
    name = f"t.{quoted(column.name)}"
    cap, lookback = "", "NULL::text"
    values: list[str] = []
    if column.tracking_kind in CLOCKS:
        clock, values = _clock(column, options, settle_seconds=options.settle_seconds)
        cap = f" AND {name} < {clock}"
        lookback = f"({name} - make_interval(secs => {lookback_seconds:.6f}))::{column.compare_type}::text"
    elif column.tracking_kind in UNBOUNDED:
        # NaN stands above all numbers: as a floor it would hide every row to come. It is read at each sync instead.
        cap = f" AND {name} < 'Infinity'::{column.tracking_kind}"
    sql = (
        f"SELECT {name}::text, {lookback} FROM {table_sql(schema.table)} AS t "
        f"WHERE {name} IS NOT NULL{cap} ORDER BY {name} DESC LIMIT 1"
    )
    return sql, values


def _clock(column: Column, options: Options, *, settle_seconds: float) -> tuple[str, list[str]]:
    """The source's clock, so many seconds ago, as a tracking column shows it; and what to bind."""
    zone, values = f"({_SERVER_ZONE})", list[str]()
    if options.tracking_time_zone is not None and column.tracking_kind != "timestamptz":
        zone, values = "$1::text", [options.tracking_time_zone]
    # statement_timestamp() is stable, so that an index serves; clock_timestamp() is not.
    now = f"(statement_timestamp() - make_interval(secs => {settle_seconds:.6f}))"
    local = LOCAL_CLOCK.format(now=now, zone=zone)
    return CLOCKS[column.tracking_kind].format(now=now, local=local, unit=clock_unit(column.time_digits)), values


def _select(plan: ReadPlan) -> tuple[str, list[Any]]:
    """The SELECT of a plan, and what to bind. Columns are qualified and unaliased: ORDER BY must mean the column."""
    schema = plan.schema
    expressions = ", ".join(selected(column) for column in schema.columns)
    wanted = None if schema.where is None else where_sql(schema.where)
    if plan.departed:
        expressions += f", ({wanted} IS TRUE)::int4"
    sql = f"SELECT {expressions} FROM {table_sql(schema.table)} AS t"
    values: list[Any] = []
    conditions = [wanted] if wanted is not None and not plan.departed else []
    tracking = f"t.{quoted(schema.tracking_column)}"
    if plan.floor is not None:
        values.append(plan.floor)
        above = f"{tracking} > $1::text::{schema.tracking.compare_type}"
        if plan.nulls and schema.tracking.nullable:
            without = f"{tracking} IS NULL" if wanted is None else f"({tracking} IS NULL AND {wanted})"
            above = f"({above} OR {without})"
        conditions.append(above)
    elif not plan.nulls and schema.tracking.nullable:
        conditions.append(f"{tracking} IS NOT NULL")
    if plan.after_key is not None:
        columns = list(enumerate(schema.key_columns, len(values) + 1))
        values += plan.after_key
        left = ", ".join(f"t.{quoted(column.name)}" for _, column in columns)
        right = ", ".join(f"${number}::text::{column.compare_type}" for number, column in columns)
        conditions.append(f"({left}) > ({right})")
    if plan.keys is not None:
        conditions.append(among(schema, plan.keys, values))
    if conditions:
        sql += " WHERE " + " AND ".join(conditions)
    if plan.in_key_order:
        sql += " ORDER BY " + ", ".join(f"t.{quoted(name)}" for name in schema.key)
    return sql, values
