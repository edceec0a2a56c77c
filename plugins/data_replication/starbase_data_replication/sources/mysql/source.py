"""A MySQL or MariaDB server as a source: what a sync asks it, each question in a transaction. Must not know SQLite.

Every statement runs in a READ ONLY transaction with a snapshot, on a connection that connection.py has prepared. A
row's value enters a statement only in a form that needs no escaping: see types.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from pymysql.constants import CR
from pymysql.err import Error, OperationalError

from starbase_data_replication.errors import NO_KEY, SourceChanged, SourceRejected
from starbase_data_replication.model import (
    Batch,
    Candidate,
    Column,
    HighWatermark,
    OpenTransaction,
    OpenTransactions,
    Options,
    TableName,
    TableSchema,
)
from starbase_data_replication.sources.expressions import bracketed, negated
from starbase_data_replication.sources.mysql import source_clock, transactions
from starbase_data_replication.sources.mysql.authentication import AuthenticatingConnection
from starbase_data_replication.sources.mysql.compare import MysqlComparing
from starbase_data_replication.sources.mysql.connection import (
    BEGIN,
    STATEMENT_TIMEOUT_SECONDS,
    Connection,
    Cursor,
)
from starbase_data_replication.sources.mysql.describe import counter_passed, describe
from starbase_data_replication.sources.mysql.errors import translate_errors
from starbase_data_replication.sources.mysql.missing_tables import hides_columns
from starbase_data_replication.sources.mysql.pool import ConnectionPool
from starbase_data_replication.sources.mysql.snapshot import Snapshot
from starbase_data_replication.sources.mysql.source_code import SourceCode
from starbase_data_replication.sources.mysql.sql import (
    column_sql,
    high_watermark_sql,
    key_text,
    settled,
    table_sql,
)
from starbase_data_replication.sources.mysql.table_ids import table_ids
from starbase_data_replication.sources.mysql.transaction_details import transaction_details
from starbase_data_replication.sources.mysql.types import CLOCKS
from starbase_data_replication.sources.network import HostPolicy, Pool, allowed_hosts
from starbase_data_replication.sources.protocols import AHEAD_SECONDS, Comparing, Inspector, Reader, ReadPlan
from starbase_data_replication.sources.rounding import shows_a_time
from starbase_host import check_overrides


class MysqlSource:
    """One configured MySQL or MariaDB server.

    arguments: those of aiomysql.create_pool.
    max_connections: how many connections it may have at once.
    tls_required: whether a server without TLS is refused before anything is sent.
    ssl_fallback: whether to connect without TLS if the TLS handshake fails.
    policy: where it may be.
    """

    counts_shared = True

    def __init__(
        self,
        arguments: Mapping[str, Any],
        *,
        max_connections: int,
        tls_required: bool = False,
        ssl_fallback: bool = False,
        policy: HostPolicy = allowed_hosts.DEFAULT,
    ) -> None:
        check_overrides(AuthenticatingConnection, Connection, Cursor)
        # Set once the pool is open.
        self._open_pool: ConnectionPool | None = None

        def adopt(made: Any) -> ConnectionPool:
            pool = ConnectionPool(made, tls_required=tls_required, ssl_fallback=ssl_fallback, policy=policy)
            self._open_pool = pool
            return pool

        self._pool = Pool(
            "mysql",
            arguments,
            max_connections=max_connections,
            transport=lambda connection: connection._writer.transport,
            adopt=adopt,
        )
        self._connect = partial(Connection, tls_required=tls_required, policy=policy, **arguments)
        self._server = tuple(arguments.get(name) for name in ("unix_socket", "host", "port"))
        self._database = arguments.get("db")
        # The connection whose transaction every question uses; None if each has its own.
        self._inspecting: Connection | None = None
        # Tables with a row that could not be packed into one value.
        self._unpackable: set[TableName] = set()

    async def close(self) -> None:
        with translate_errors("closing the connections"):
            await self._pool.close()

    async def ping(self) -> None:
        with translate_errors("asking whether the source answers"):
            connection = self._connect()
            try:
                await connection.open()
            except OperationalError as error:
                # An error of the server, not of the driver: the server is there.
                if error.args[0] in range(CR.CR_ERROR_FIRST, CR.CR_ERROR_LAST + 1):
                    raise
            finally:
                connection.close()

    @contextlib.asynccontextmanager
    async def inspect(self, table: TableName) -> AsyncIterator[Inspector]:
        # Its snapshot is older than the list of open transactions, as if each question had its own transaction, so a
        # value read from it closes no later.
        async with contextlib.AsyncExitStack() as stack:
            with translate_errors(f"looking up {table}"):
                connection = await stack.enter_async_context(self._transaction())
            inspector = copy.copy(self)
            inspector._inspecting = connection
            yield inspector

    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        with translate_errors(f"looking up {table}"):
            async with self._transaction() as connection:
                named = TableName(schema=table.schema or self._database, name=table.name)
                return await describe(connection, named, tracking_column)

    async def count_nulls(self, schema: TableSchema, *, at_most: int | None) -> int:
        limit = "" if at_most is None else f" LIMIT {at_most:d}"
        missing = f"{column_sql(schema.tracking)} IS NULL"
        with translate_errors(doing := f"counting the rows of {schema.table} without a tracking value"):
            async with self._transaction() as connection:
                if schema.where is not None:
                    missing += f" AND {bracketed(schema.where, connection.syntax)}"
                rows = f"SELECT 1 FROM {table_sql(schema.table)} AS t WHERE {missing}{limit}"
                code = SourceCode(connection, schema, doing)
                await code.begin()
                with translate_errors(doing, rows=True):
                    counted = await connection.fetch(f"SELECT COUNT(*) FROM ({rows}) AS n")
                await code.check()
                ((count,),) = counted
                return int(count)

    async def read_high_watermark(
        self,
        schema: TableSchema,
        options: Options,
        *,
        noted_at: float,
        reached: str | None = None,
        floor: str | None = None,
    ) -> HighWatermark:
        column = schema.tracking
        with translate_errors(doing := f"reading the highest tracking value of {schema.table}"):
            async with self._transaction() as connection:
                # The value first, then the open transactions, in two statements: see Inspector.read_high_watermark.
                now = await _source_clock(connection, column, options)
                unsettled_from, ahead_from = (
                    _first_unsettled(column, now, seconds) for seconds in (options.settle_seconds, -AHEAD_SECONDS)
                )
                sql = high_watermark_sql(
                    schema, unsettled_from=unsettled_from, ahead_from=ahead_from, reached=reached, floor=floor
                )
                code = SourceCode(connection, schema, doing)
                await code.begin()
                with translate_errors(doing, rows=True):
                    answer = await connection.fetch(sql)
                await code.check()
                ((rows_ahead, shared, found, below, seconds),) = answer
                if found is None:
                    return HighWatermark(ahead=int(rows_ahead))
                seen = (await self._list_transactions(connection)).open_transactions
            value = key_text(found)
            lookback = options.lookback(known=seen.known and schema.unprotected is None)
            shown = None if seconds is None else key_text(seconds)
            floor_value = settled(column, options, value, unsettled_from=unsettled_from, now=shown)
            lookback_value = None
            if unsettled_from is not None:
                lookback_value = source_clock.minus_seconds(value, column.tracking_kind, column.time_digits, lookback)
            candidate = Candidate(
                value=floor_value, lookback_value=lookback_value, noted_at=noted_at, open_transactions=seen
            )
            clocked = shown is not None and (floor_value != value or shows_a_time(value, shown))
            return HighWatermark(
                candidate=candidate, ahead=int(rows_ahead), below=value if int(below) else None, shared=int(shared),
                clocked=clocked,
            )  # fmt: skip

    async def counter_passed(self, schema: TableSchema, floor: str) -> bool | None:
        if schema.kind != "table":
            return None
        try:
            # Not from information_schema, whose AUTO_INCREMENT may be a day old on MySQL.
            with translate_errors(f"reading the AUTO_INCREMENT of {schema.table}"):
                async with self._transaction() as connection:
                    ((_, made, *_),) = await connection.fetch(f"SHOW CREATE TABLE {table_sql(schema.table)}")
        except SourceRejected:
            # It needs a privilege on the whole table; one on some columns is not enough.
            return None
        return counter_passed(made if isinstance(made, str) else made.decode(), schema.tracking_column, floor)

    async def still_open(self, noted: Sequence[OpenTransactions]) -> list[OpenTransactions]:
        with translate_errors("asking which transactions are open"):
            async with self._transaction() as connection:
                now = await self._list_transactions(connection)
            return [transactions.still_open(each, now) for each in noted]

    async def transaction_details(self, open_transactions: OpenTransactions) -> list[OpenTransaction]:
        with translate_errors("reading the open transactions"):
            async with self._transaction() as connection:
                return await transaction_details(connection, open_transactions)

    async def _list_transactions(self, connection: Connection) -> transactions.TransactionList:
        """List the open transactions; over a new session if this one lacks the privilege.

        GRANT PROCESS takes effect for new sessions only, and ours live as long as the host.
        """
        seen = await transactions.open_transactions(connection, self._server)
        if seen.unknown not in transactions.HIDDEN_FROM_SESSION or connection.uses == 1:
            return seen
        pool = self._open_pool
        assert pool is not None
        # If the account may have no more sessions, this one's answer stands.
        with contextlib.suppress(Error, OSError):
            async with pool.apart() as fresh:
                await fresh.fetch(BEGIN)
                seen = await transactions.open_transactions(fresh, self._server, apart=str(fresh.began_at))
        if seen.unknown not in transactions.HIDDEN_FROM_SESSION:
            pool.renew()
        return seen

    async def located(self, schema: TableSchema) -> Mapping[str, str]:
        with translate_errors(f"finding the storage of {schema.table}"):
            async with self._transaction() as connection:
                return await table_ids(connection, schema.table, view=schema.kind == "view")

    async def hides_columns(self, schema: TableSchema) -> bool:
        if schema.kind != "table":
            return False
        with translate_errors(f"looking up the columns of {schema.table}"):
            async with self._transaction() as connection:
                return await hides_columns(connection, schema.table)

    async def check_filter_and_key(self, schema: TableSchema, *, key: bool) -> None:
        async with self._transaction() as connection:
            code = SourceCode(connection, schema, f"looking at the rows of {schema.table}")
            await code.begin()
            if schema.where is not None:
                unmet = negated(schema.where, connection.syntax)
                sql = f"SELECT 1 FROM {table_sql(schema.table)} AS t WHERE {unmet} LIMIT 0"
                try:
                    with translate_errors("where", rows=True):
                        await connection.fetch(sql)
                except SourceChanged as error:
                    raise SourceRejected(str(error)) from error
            if key:
                names = ", ".join(map(column_sql, schema.key_columns))
                nulls = " OR ".join(f"{column_sql(column)} IS NULL" for column in schema.key_columns)
                filtered = ""
                if schema.where is not None:
                    filtered = f" WHERE {bracketed(schema.where, connection.syntax)}"
                sql = (
                    f"SELECT 1 FROM {table_sql(schema.table)} AS t{filtered} GROUP BY {names} "
                    f"HAVING COUNT(*) > 1 OR MAX({nulls}) LIMIT 1"
                )
                with translate_errors(f"comparing the rows of {schema.table} by keyColumns", rows=True):
                    found = await connection.fetch(sql)
                if found:
                    raise SourceRejected(f"keyColumns: {NO_KEY.format(table=schema.table)}")
            await code.check()

    @contextlib.asynccontextmanager
    async def read(self, plan: ReadPlan) -> AsyncIterator[AsyncIterator[Batch]]:
        async with self.snapshot() as snapshot, snapshot.read(plan) as batches:
            yield batches

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Reader]:
        async with contextlib.AsyncExitStack() as stack:
            # Only this is translated: errors that the caller raises in the context are not the source's.
            with translate_errors("opening a snapshot"):
                connection = await stack.enter_async_context(self._transaction())
            yield Snapshot(connection, self._unpackable)

    @contextlib.asynccontextmanager
    async def comparing(
        self, schema: TableSchema, columns: Sequence[Column], options: Options
    ) -> AsyncIterator[Comparing]:
        async with contextlib.AsyncExitStack() as stack:
            with translate_errors(f"comparing {schema.table}"):
                connection = await stack.enter_async_context(self._transaction())
            yield MysqlComparing(connection, schema, columns, options)

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction with a snapshot. Rows that were not taken by the end are not read."""
        if self._inspecting is not None:
            yield self._inspecting
            return
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS):
                connection: Connection = await stack.enter_async_context(self._pool.connection())
            stack.push_async_callback(connection.leave)
            connection.uses += 1
            await connection.fetch(BEGIN)
            yield connection


async def _source_clock(connection: Connection, column: Column, options: Options) -> source_clock.SourceClock | None:
    """The source's clock, for a column that holds a time."""
    if column.tracking_kind not in CLOCKS:
        return None
    ((utc, local, later),) = await connection.fetch(source_clock.CLOCK_SQL)
    if options.tracking_time_zone is not None:
        return source_clock.clock_in_zone(utc, options.tracking_time_zone)
    if local is None or later is None:
        raise SourceRejected(
            "the source's time zone has a name that the source itself cannot look up; set trackingTimeZone"
        )
    return source_clock.parse_clock(utc, local, later)


def _first_unsettled(column: Column, now: source_clock.SourceClock | None, seconds_ago: float) -> str | None:
    """The lowest value that the column's clock did not show yet so many seconds ago; None if it holds no time."""
    if now is None:
        return None
    return source_clock.first_unsettled(now, column.tracking_kind, column.time_digits, seconds_ago)
