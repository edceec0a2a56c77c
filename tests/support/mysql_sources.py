"""What the tests of the MySQL room share: a source on a test's database, waiting for things, work in threads."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import apsw

from starbase_data_replication.model import Batch, Row, TableName, TableSchema
from starbase_data_replication.sources.mysql import settings
from starbase_data_replication.sources.mysql.source import MysqlSource
from starbase_data_replication.sources.protocols import ReadPlan
from tests.support.servers import TestDatabase, sequence
from tests.support.sessions import Session

T = TypeVar("T")
# A table with more rows than anybody can wait for.
ENDLESS = f"{sequence(100_000, 'a')}, {sequence(100_000, 'b')}"
PATIENCE_SECONDS = 20.0


@contextlib.asynccontextmanager
async def opened(database: TestDatabase, *, max_connections: int = 4, **changed: Any) -> AsyncIterator[MysqlSource]:
    arguments = settings.pool_arguments(settings.read({**database.source_config, **changed}))
    source = MysqlSource(arguments, max_connections=max_connections)
    try:
        yield source
    finally:
        await source.close()


def with_source(database: TestDatabase, work: Callable[[MysqlSource], Coroutine[Any, Any, T]], **changed: Any) -> T:
    """Run a coroutine with a new source, on a new loop."""

    async def main() -> T:
        async with opened(database, **changed) as source:
            return await work(source)

    return asyncio.run(main())


def table_name(database: TestDatabase, name: str) -> TableName:
    return TableName(schema=database.name, name=name)


async def described(source: MysqlSource, database: TestDatabase, table: str, tracking: str = "id") -> TableSchema:
    return await source.describe(table_name(database, table), tracking)


async def batches_of(source: MysqlSource, plan: ReadPlan) -> list[Batch]:
    async with source.read(plan) as batches:
        return [batch async for batch in batches]


async def rows_of(source: MysqlSource, plan: ReadPlan) -> list[Row]:
    return [row for batch in await batches_of(source, plan) for row in batch.rows]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextlib.contextmanager
def in_background(session: Session, sql: str) -> Iterator[Future[None]]:
    """Run a statement in a thread; at the end of the context it must have ended, or end by itself."""
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(session.execute, sql)


def running(database: TestDatabase, text: str) -> bool:
    """Whether some session runs a statement with this text in it."""
    found = database.fetch(
        "SELECT 1 FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND COALESCE(info, '') LIKE %s",
        f"%{text}%",
    )
    return bool(found)


def plan_of(database: TestDatabase, sql: str) -> tuple[str, str, str]:
    """Of a statement with one step: how the server gets at the table, by which index, and what it says besides."""
    # Without its name, MySQL of today draws the plan as a tree.
    with database.connect() as session:
        session.execute("SET sql_mode = 'ALLOW_INVALID_DATES'")
        ((*step,),) = session.fetch(f"EXPLAIN FORMAT=TRADITIONAL {sql}")
    # MySQL names the partitions too, and the share of rows that stay.
    how, index = (step[3], step[5]) if len(step) == 10 else (step[4], step[6])
    return how, index, step[-1] or ""


def in_sqlite(schema: TableSchema, row: Any) -> tuple[Any, ...]:
    """What SQLite holds once the row is in a table declared by its casts."""
    connection = apsw.Connection(":memory:")
    connection.execute(f"CREATE TABLE t ({', '.join(f'c{n} {c.cast.declared}' for n, c in enumerate(schema.columns))})")
    connection.execute(f"INSERT INTO t VALUES ({', '.join('?' * len(row))})", tuple(row))
    (stored,) = connection.execute("SELECT * FROM t")
    return tuple(stored)
