"""A PostgreSQL database as a source: what a sync asks it, each question in a transaction. Must not know SQLite.

Every statement runs in a READ ONLY transaction with SET LOCAL, so that nothing outlives it: behind a pooler that hands
out connections by transaction, a session setting would apply to another client.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from typing import Any

import asyncpg

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
from starbase_data_replication.sources.expressions import Syntax, bracketed, negated
from starbase_data_replication.sources.network import HostPolicy, Pool, allowed_hosts
from starbase_data_replication.sources.postgresql import privileges, transactions
from starbase_data_replication.sources.postgresql.compare import PostgresqlComparing
from starbase_data_replication.sources.postgresql.connection import STATEMENT_TIMEOUT_SECONDS, Connection, connect
from starbase_data_replication.sources.postgresql.describe import ASKED, describe
from starbase_data_replication.sources.postgresql.errors import translate_errors
from starbase_data_replication.sources.postgresql.handshake import MD5_EXPOSED, HandshakeLoop
from starbase_data_replication.sources.postgresql.snapshot import POLICED, Snapshot, policy_sql
from starbase_data_replication.sources.postgresql.source_code import SourceCode
from starbase_data_replication.sources.postgresql.sql import (
    high_watermark_sql,
    oid_of,
    operator,
    quoted,
    settled,
    table_sql,
)
from starbase_data_replication.sources.postgresql.transaction_details import transaction_details
from starbase_data_replication.sources.protocols import Comparing, Inspector, Reader, ReadPlan
from starbase_data_replication.sources.rounding import shows_a_time
from starbase_host import check_overrides

GOODBYE_SECONDS = 2.0
# What the driver raises for a connection that cannot be used any more, such as one with an unfinished statement.
UNUSABLE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

# The errors of a server that has no such locks, or does not let this role take them.
NO_READER_LOCK = (
    asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedFunctionError, asyncpg.FeatureNotSupportedError,
)  # fmt: skip

# Settings that make `::text` the same on every server and for every role; that keep a role's limits from ending a long
# read (before 17 there is no transaction_timeout); and that put the schemas of extensions last in the search path:
# without its schema, a citext would have the operators of text, which order it differently from ORDER BY and its index.
# The server's DateStyle still decides how a date in a `where` is read (01/02 is in January or February); only the
# output is ISO. Without row_security, the server raises an error for a table that a policy would filter, also if the
# policy was created after the table was looked up.
SETTINGS = """
    SET LOCAL standard_conforming_strings = on; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO';
    SET LOCAL IntervalStyle = 'iso_8601'; SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex';
    SET LOCAL array_nulls = on; SET LOCAL jit = off; SET LOCAL row_security = off;
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
    SELECT pg_catalog.set_config('transaction_timeout', '0', true)
    WHERE pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL;
    SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ',
        nullif(pg_catalog.current_setting('search_path'), ''),
        pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(n.nspname), ', ')), true)
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE n.nspname <> 'pg_catalog'
"""
# A text in which a backslash is an escape under any settings.
ESCAPED_TEXT = re.compile(r"(?<![A-Za-z0-9_$])[eE]'(?:[^'\\]++|''|\\.?)*+(?:'|\Z)", re.DOTALL)
READ_COMMITTED = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"
# The first statement that needs a snapshot opens the transaction's.
SNAPSHOT = "SELECT"
# The last value of the sequences of a column or its default; NULL if one of them is hidden from this role.
COUNTER = files(__package__).joinpath("counter.sql").read_text(encoding="utf-8")
# A partition or child table, by its oid.
JOINED = """
    SELECT n.nspname AS schema, c.relname AS name, pg_catalog.has_table_privilege(c.oid, 'SELECT') AS readable
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1
"""
# The types of column that a sequence can fill.
COUNTED = ("int2", "int4", "int8")


class PostgresqlSource:
    """One configured PostgreSQL server.

    arguments: those of asyncpg.create_pool.
    max_connections: how many connections it may have at once.
    policy: where it may be.
    """

    counts_shared = True

    def __init__(
        self, arguments: Mapping[str, Any], *, max_connections: int, policy: HostPolicy = allowed_hosts.DEFAULT
    ) -> None:
        check_overrides(Connection, HandshakeLoop)
        self._arguments = {**arguments, "connection_class": Connection}
        self._connect = partial(connect, policy=policy)
        self._pool = Pool(
            "postgresql",
            {**self._arguments, "connect": self._connect, "reset": _keep_session},
            max_connections=max_connections,
            transport=lambda connection: connection._transport,
        )
        # Whether the server lets our transactions take the lock by which other readers recognise them.
        self._takes_reader_lock = True
        # The connection whose READ COMMITTED transaction every question uses; None if each has its own.
        self._inspecting: Any = None

    async def close(self) -> None:
        await self._pool.close()

    async def ping(self) -> None:
        with translate_errors("asking whether the source answers"):
            try:
                connection = await self._connect(**self._arguments)
            except asyncpg.PostgresError:
                return
            try:
                await connection.fetchval("SELECT 1")
            finally:
                connection.terminate()

    @contextlib.asynccontextmanager
    async def inspect(self, table: TableName) -> AsyncIterator[Inspector]:
        # READ COMMITTED: each statement in it sees what is committed when it begins.
        async with contextlib.AsyncExitStack() as stack:
            with translate_errors(f"looking up {table}"):
                connection = await stack.enter_async_context(self._transaction("READ COMMITTED"))
            inspector = copy.copy(self)
            inspector._inspecting = connection
            yield inspector

    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        with translate_errors(f"looking up {table}"):
            async with self._transaction("READ COMMITTED") as connection:
                schema = await self._described(connection, table, tracking_column)
                if connection.md5_exposed:
                    schema = replace(schema, warnings=(*schema.warnings, MD5_EXPOSED))
                if schema.policed:
                    await connection.execute(POLICED)
                return schema

    async def count_nulls(self, schema: TableSchema, *, at_most: int | None) -> int:
        limit = "" if at_most is None else f" LIMIT {at_most:d}"
        wanted = "" if schema.where is None else f" AND {bracketed(schema.where, Syntax.POSTGRESQL)}"
        tracking = f"t.{quoted(schema.tracking_column)}"
        rows = f"SELECT 1 FROM {table_sql(schema.table)} AS t WHERE {tracking} IS NULL{wanted}{limit}"
        doing = f"counting the rows of {schema.table} without a tracking value"
        with translate_errors(doing):
            async with self._transaction("READ COMMITTED", *policy_sql(schema)) as connection:
                sql = f"SELECT count(*) FROM ({rows}) AS nulls"
                code = SourceCode(connection, schema, doing)
                await code.begin()
                with translate_errors(doing, rows=True):
                    count = int(await connection.fetchval(sql, timeout=STATEMENT_TIMEOUT_SECONDS))
                await code.check()
                return count

    async def read_high_watermark(
        self,
        schema: TableSchema,
        options: Options,
        *,
        noted_at: float,
        reached: str | None = None,
        floor: str | None = None,
    ) -> HighWatermark:
        with translate_errors(doing := f"reading the highest tracking value of {schema.table}"):
            async with self._transaction("READ COMMITTED", *policy_sql(schema)) as connection:
                # The value first, then the open transactions, in two statements: see Inspector.read_high_watermark.
                sql, values = high_watermark_sql(schema, options, reached=reached, floor=floor)
                code = SourceCode(connection, schema, doing)
                await code.begin()
                with translate_errors(doing, rows=True):
                    (row,) = await connection.fetch_known(sql, *values)
                await code.check()
                ahead, shared, edge, value, below, lookback_if_known, lookback_if_unknown = row
                if value is None:
                    return HighWatermark(ahead=ahead)
                seen = await transactions.open_transactions(connection, self._begin_again)
            protects = seen.known and schema.unprotected is None
            lookback_value = lookback_if_known if protects else lookback_if_unknown
            floor_value = settled(schema, options, value, edge)
            candidate = Candidate(
                value=floor_value, lookback_value=lookback_value, noted_at=noted_at, open_transactions=seen
            )
            clocked = edge is not None and (floor_value != value or shows_a_time(value, edge))
            return HighWatermark(
                candidate=candidate, ahead=ahead, below=value if below else None, shared=shared, clocked=clocked
            )

    async def counter_passed(self, schema: TableSchema, floor: str) -> bool | None:
        if schema.tracking.tracking_kind not in COUNTED:
            return None
        with translate_errors(f"reading the sequence of {schema.table}.{schema.tracking_column}"):
            async with self._transaction("READ COMMITTED") as connection:
                names = (schema.table.schema, schema.table.name, schema.tracking_column)
                last = await connection.fetchval(COUNTER, *names, timeout=STATEMENT_TIMEOUT_SECONDS)
        return None if last is None else int(last) >= int(floor)

    async def holds_below(self, schema: TableSchema, tables: Sequence[str], floor: str) -> bool | None:
        if schema.kind == "view":
            # The tracking column may have another name there.
            return None
        with translate_errors(doing := f"looking for rows that have joined {schema.table}"):
            async with self._transaction("READ COMMITTED") as connection:
                for oid in map(oid_of, tables):
                    named = await connection.fetchrow(JOINED, oid, timeout=STATEMENT_TIMEOUT_SECONDS)
                    if named is None:
                        continue
                    # Read alone, it is searched by its index. If this role may not do that, all of the table is.
                    name = table_sql(TableName(schema=named["schema"], name=named["name"]))
                    source = f"ONLY {name}" if named["readable"] else table_sql(schema.table)
                    tracking = f"t.{quoted(schema.tracking_column)}"
                    sql = (
                        f"SELECT EXISTS (SELECT 1 FROM {source} AS t WHERE t.tableoid = $1 "
                        f"AND {tracking} {operator('<=', schema.tracking)} $2::text::{schema.tracking.compare_type})"
                    )
                    with translate_errors(doing, rows=True):
                        found = await connection.fetchval(sql, oid, floor, timeout=STATEMENT_TIMEOUT_SECONDS)
                    if found:
                        return True
        return False

    async def still_open(self, noted: Sequence[OpenTransactions]) -> list[OpenTransactions]:
        with translate_errors("asking which transactions are open"):
            async with self._transaction("READ COMMITTED") as connection:
                now = await transactions.open_transactions(connection, self._begin_again)
            return [transactions.still_open(each, now) for each in noted]

    async def transaction_details(self, open_transactions: OpenTransactions) -> list[OpenTransaction]:
        with translate_errors("reading the open transactions"):
            async with self._transaction("READ COMMITTED") as connection:
                return await transaction_details(connection, open_transactions)

    async def check_filter_and_key(self, schema: TableSchema, *, key: bool) -> None:
        async with self._transaction("READ COMMITTED", *policy_sql(schema)) as connection:
            code = SourceCode(connection, schema, f"looking at the rows of {schema.table}")
            await code.begin()
            if schema.where is not None:
                unmet = negated(schema.where, Syntax.POSTGRESQL)
                await _check_backslashes(connection, schema.where)
                sql = f"SELECT 1 FROM {table_sql(schema.table)} AS t WHERE {unmet} LIMIT 0"
                try:
                    with translate_errors("where"):
                        # Errors in the text itself are shown in full: the server has read no row yet.
                        await connection.prove_single(sql)
                    with translate_errors("where", rows=True):
                        await connection.fetch(sql, timeout=STATEMENT_TIMEOUT_SECONDS)
                except SourceChanged as error:
                    raise SourceRejected(str(error)) from error
                except SourceRejected as error:
                    if isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):
                        raise SourceRejected(f"{error}{_unreadable(schema)}") from error
                    raise
            if key:
                names = ", ".join(f"t.{quoted(name)}" for name in schema.key)
                nulls = " OR ".join(f"t.{quoted(name)} IS NULL" for name in schema.key)
                filtered = "" if schema.where is None else f" WHERE {bracketed(schema.where, Syntax.POSTGRESQL)}"
                sql = (
                    f"SELECT 1 FROM {table_sql(schema.table)} AS t{filtered} GROUP BY {names} "
                    f"HAVING count(*) > 1 OR pg_catalog.bool_or({nulls}) LIMIT 1"
                )
                with translate_errors(f"comparing the rows of {schema.table} by keyColumns", rows=True):
                    found = await connection.fetchval(sql, timeout=STATEMENT_TIMEOUT_SECONDS)
                if found is not None:
                    raise SourceRejected(f"keyColumns: {NO_KEY.format(table=schema.table)}")
            await code.check()

    @contextlib.asynccontextmanager
    async def read(self, plan: ReadPlan) -> AsyncIterator[AsyncIterator[Batch]]:
        async with self.snapshot() as snapshot, snapshot.read(plan) as batches:
            yield batches

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Reader]:
        async with contextlib.AsyncExitStack() as stack:
            with translate_errors("opening a snapshot"):
                connection = await stack.enter_async_context(self._transaction("REPEATABLE READ", SNAPSHOT))
            # Not translated: errors that the caller raises in here are not the source's.
            yield Snapshot(connection)

    @contextlib.asynccontextmanager
    async def comparing(
        self, schema: TableSchema, columns: Sequence[Column], options: Options
    ) -> AsyncIterator[Comparing]:
        async with contextlib.AsyncExitStack() as stack:
            with translate_errors(f"comparing {schema.table}"):
                connection = await stack.enter_async_context(self._transaction("REPEATABLE READ", *policy_sql(schema)))
                comparing = await PostgresqlComparing.open(connection, schema, columns, options)
            yield comparing

    @contextlib.asynccontextmanager
    async def _transaction(self, isolation: str, *first: str) -> AsyncIterator[Any]:
        """A READ ONLY transaction. BEGIN, the settings and the statements in `first` go in one message."""
        if self._inspecting is not None:
            yield self._inspecting
            return
        async with self._pool.connection() as connection:
            try:
                await self._begin(connection, f"BEGIN ISOLATION LEVEL {isolation} READ ONLY", SETTINGS, *first)
                yield connection
            finally:
                await _end(connection)

    async def _described(self, connection: Any, table: TableName, tracking_column: str) -> TableSchema:
        """As describe; again without the question that this server does not allow. Raises SourceRejected with the GRANT
        if the role may not read enough."""
        try:
            return await describe(connection, table, tracking_column)
        except asyncpg.PostgresError as error:
            if _is_gone(connection):
                # It broke, which does not show what the role may ask.
                raise
            await self._begin_again(connection)
            if not connection.tells_server:
                if not isinstance(error, asyncpg.InsufficientPrivilegeError):
                    raise
                connection.ask_for_server(True)
                grants = await privileges.missing(connection, *ASKED, begin_again=self._begin_again)
                if not grants:
                    raise
                raise SourceRejected(
                    f"looking up {table}: this role may not read its description in the catalogue: run {grants}"
                ) from error
        connection.ask_for_server(False)
        return await self._described(connection, table, tracking_column)

    async def _begin_again(self, connection: Any) -> None:
        """Begin another transaction after a failed statement ended the last one."""
        await connection.execute("ROLLBACK")
        await self._begin(connection, READ_COMMITTED, SETTINGS)

    async def _begin(self, connection: Any, begin: str, *first: str) -> None:
        """Begin a transaction with our reader lock. If the role cannot call that function, it has no lock, and
        other readers count it as open."""
        if self._takes_reader_lock:
            try:
                await connection.execute("; ".join((begin, transactions.READER_LOCK, *first)))
                return
            except NO_READER_LOCK:
                await connection.execute("ROLLBACK")
        await connection.execute("; ".join((begin, *first)))
        # Only now, because the first attempt may have failed for another reason.
        self._takes_reader_lock = False


async def _check_backslashes(connection: Any, where: str) -> None:
    """Raises SourceRejected for a backslash whose meaning depends on the server's settings."""
    if "\\" in ESCAPED_TEXT.sub("", where):
        sql = "SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'standard_conforming_strings'"
        if await connection.fetchval(sql) == "off":
            raise SourceRejected(
                "where: holds a backslash, which is an escape on this server (standard_conforming_strings is off); "
                "write the text as E'…', which means the same everywhere"
            )


def _unreadable(schema: TableSchema) -> str:
    """Which columns the user may not read, as the end of a message."""
    names = [column.name for column in (*schema.columns, *schema.left_out) if not column.readable]
    return f"; this user may not read {', '.join(names)}" if names else ""


def _is_gone(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        # The pool has closed a connection that broke.
        return True


async def _keep_session(connection: object) -> None:
    """Every setting is local to a transaction, so there is nothing to reset; asyncpg's reset costs a round trip."""


async def _end(connection: Any) -> None:
    """Roll back. A broken connection must not hide the first error, and one that hangs is closed."""
    try:
        async with asyncio.timeout(GOODBYE_SECONDS):
            await connection.execute("ROLLBACK")
    except (*UNUSABLE, OSError, TimeoutError, asyncio.CancelledError):
        # The connection of a stream that was left early or broke is back in the pool, which does not allow this call.
        with contextlib.suppress(asyncpg.InterfaceError):
            connection.terminate()
