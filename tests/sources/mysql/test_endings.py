"""How a read from MySQL or MariaDB ends before its end, and what becomes of connections that break or never begin."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pymysql.err import DataError, InternalError, OperationalError, ProgrammingError

from starbase_data_replication.errors import SourceChanged, SourceRejected, SourceUnavailable, SyncError
from starbase_data_replication.model import Batch, TableName, TableSchema
from starbase_data_replication.sources.mysql.errors import translate_errors
from starbase_data_replication.sources.mysql.source import MysqlSource
from starbase_data_replication.sources.protocols import ReadPlan
from tests.support.mysql_sources import (
    ENDLESS,
    batches_of,
    described,
    opened,
    rows_of,
    running,
    wait_until,
    with_source,
)
from tests.support.servers import TestDatabase

MEBIBYTE = 1 << 20


def endless(database: TestDatabase) -> None:
    """A view that would take hours to read."""
    # Wide rows: what the sockets hold of them when a connection is cut is read to its end.
    database.execute(f"CREATE VIEW t AS SELECT a.seq AS id, repeat('x', 500) AS pad FROM {ENDLESS}")


@pytest.mark.parametrize("how", ["left", "failed", "cancelled"])
def test_leaving_early_does_not_read_the_rest(either_mysql: TestDatabase, how: str) -> None:
    endless(either_mysql)

    class Failed(Exception):
        pass

    async def leave(source: MysqlSource, schema: TableSchema) -> None:
        async with source.read(ReadPlan(schema=schema)) as batches:
            async for batch in batches:
                assert len(batch.rows) == 5000
                assert running(either_mysql, "`t` AS t")
                if how == "failed":
                    raise Failed
                if how == "left":
                    break

    async def work(source: MysqlSource) -> float:
        schema = await described(source, either_mysql, "t")
        task = asyncio.create_task(leave(source, schema))
        await asyncio.sleep(0 if how != "cancelled" else 0.5)
        began = time.monotonic()
        if how == "cancelled":
            task.cancel()
        await asyncio.wait({task})
        took = time.monotonic() - began
        assert task.cancelled() == (how == "cancelled")
        assert task.cancelled() or isinstance(task.exception(), Failed) == (how == "failed")
        # The source goes on working, also one that may have only this one connection.
        assert (await described(source, either_mysql, "t")).columns == schema.columns
        return took

    assert with_source(either_mysql, work, max_connections=1) < 5
    wait_until(lambda: not running(either_mysql, "`t` AS t"))


def test_a_reader_that_pauses_makes_the_server_wait(either_mysql: TestDatabase) -> None:
    endless(either_mysql)

    async def work(source: MysqlSource) -> int:
        schema = await described(source, either_mysql, "t")
        async with source.read(ReadPlan(schema=schema)) as batches:
            await anext(batches)
            tracemalloc.start()
            try:
                await asyncio.sleep(1)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    assert with_source(either_mysql, work) < 4 * MEBIBYTE


def test_who_waits_for_a_connection_gets_it_when_another_is_given_up(either_mysql: TestDatabase) -> None:
    endless(either_mysql)

    async def work(source: MysqlSource) -> None:
        schema = await described(source, either_mysql, "t")
        async with source.read(ReadPlan(schema=schema)) as batches:
            await anext(batches)
            waiting = asyncio.create_task(described(source, either_mysql, "t"))
            await asyncio.sleep(0.1)
            assert not waiting.done()
        async with asyncio.timeout(10):
            await waiting

    with_source(either_mysql, work, max_connections=1)


@pytest.mark.anyio
async def test_closing_ends_a_read_in_progress(either_mysql: TestDatabase) -> None:
    endless(either_mysql)
    async with asyncio.timeout(10), opened(either_mysql) as source:
        schema = await described(source, either_mysql, "t")
        async with source.read(ReadPlan(schema=schema)) as batches:
            await anext(batches)
            await source.close()
            with pytest.raises(SourceUnavailable):
                await anext(batches)


async def to_the_end(batches: AsyncIterator[Batch]) -> None:
    async for _ in batches:
        pass


def test_a_killed_connection_is_transient_and_a_dropped_table_is_not(either_mysql: TestDatabase) -> None:
    endless(either_mysql)

    async def work(source: MysqlSource) -> None:
        schema = await described(source, either_mysql, "t")
        async with source.read(ReadPlan(schema=schema)) as batches:
            await anext(batches)
            ((thread,),) = either_mysql.fetch(
                "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> CONNECTION_ID()"
                " AND command = 'Query'",
                either_mysql.name,
            )
            either_mysql.execute(f"KILL {thread}")
            with pytest.raises(SourceUnavailable) as caught:
                await to_the_end(batches)
        assert caught.value.transient
        either_mysql.execute("DROP VIEW t")
        with pytest.raises(SourceRejected, match="error 1146"):
            await batches_of(source, ReadPlan(schema=schema))
        either_mysql.execute("CREATE TABLE t (id int, pad text)")
        assert await rows_of(source, ReadPlan(schema=schema)) == []

    with_source(either_mysql, work)


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def pretended(talk: Talk) -> AsyncIterator[int]:
    """A server on a free port that talks so with each client."""
    tasks: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        with contextlib.suppress(OSError):
            await talk(reader, writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]
        await asyncio.gather(*filter(None, tasks))


def refusal(talk: Talk, *, tls_required: bool = False) -> SyncError:
    """What comes of connecting to such a server, within a time that nothing may exceed."""

    async def main() -> SyncError:
        async with pretended(talk) as port:
            where = {"host": "127.0.0.1", "port": port, "user": "u", "password": "s3cret", "db": "d"}
            source = MysqlSource(
                {**where, "connect_timeout": 0.5, "charset": "utf8mb4", "autocommit": True},
                max_connections=1,
                tls_required=tls_required,
            )
            with pytest.raises(SyncError) as caught:
                await source.describe(TableName(schema="d", name="t"), "id")
            await source.close()
            return caught.value

    return asyncio.run(asyncio.wait_for(main(), 10))


def test_a_server_that_says_nothing_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    error = refusal(silent)
    assert (type(error), "does not answer" in str(error)) == (SourceUnavailable, True)


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x05\0\0\0hello", b"\x01\0\0\0\x0a", b""])
def test_a_server_that_is_not_mysql_is_refused(greeting: bytes) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.write_eof()
        await reader.read()

    assert isinstance(refusal(other), SourceUnavailable)


def test_a_server_without_tls_learns_nothing_when_tls_is_required() -> None:
    received: list[bytes] = []

    async def without_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        capabilities = struct.pack("<HBHH", 0xF7FF, 33, 2, 8)
        text = b"\x0a8.0.1\0" + bytes(4) + b"a" * 8 + b"\0" + capabilities + b"\x15" + bytes(10) + b"b" * 12
        text += b"\0mysql_clear_password\0"
        writer.write(struct.pack("<I", len(text)) + text)
        received.append(await reader.read())

    error = refusal(without_tls, tls_required=True)
    assert (type(error), received) == (SourceRejected, [b""])
    assert "has no TLS" in str(error)


def test_a_wrong_password_is_not_transient_and_stays_secret(either_mysql: TestDatabase) -> None:
    with pytest.raises(SourceRejected, match="error 1045") as caught:
        with_source(either_mysql, lambda source: described(source, either_mysql, "t"), password="wr0ng")
    assert "wr0ng" not in str(caught.value)


def test_nobody_listens(either_mysql: TestDatabase) -> None:
    with pytest.raises(SourceUnavailable, match="nothing listens at"):
        with_source(either_mysql, lambda source: described(source, either_mysql, "t"), port=1)


ENDINGS: list[tuple[Exception, type[SyncError]]] = [
    (OperationalError(1205, "Lock wait timeout exceeded"), SourceUnavailable),
    (InternalError("Packet sequence number wrong"), SourceUnavailable),
    (TimeoutError(), SourceUnavailable),
    (ProgrammingError(1146, "Table 'shop.orders' doesn't exist", sqlstate="42S02"), SourceChanged),
    (OperationalError(2059, "Authentication plugin 'x' not configured"), SourceRejected),
    (DataError(1292, "Truncated incorrect value: 's3cret'", sqlstate="22007"), SourceRejected),
    (ProgrammingError(1064, "You have an error near 's3cret'", sqlstate="42000"), SourceRejected),
    (OperationalError(1300, "Invalid utf8mb4 character string: 's3cret'", sqlstate="HY000"), SourceRejected),
    (RuntimeError("'cryptography' package is required"), SourceRejected),
]


def test_no_error_is_called_by_a_name_of_the_drivers() -> None:
    for number, said in (
        (1064, "there is a syntax error in it"),
        (1149, "there is a syntax error in it"),
        (1292, "a value"),
    ):
        with pytest.raises(SyncError) as caught, translate_errors("where"):
            raise ProgrammingError(number, "near 's3cret'", sqlstate="42000")
        assert str(caught.value).startswith(f"where: the server says: {said}")
        assert "ProgrammingError" not in str(caught.value)


@pytest.mark.parametrize(("error", "kind"), ENDINGS)
def test_every_error_becomes_a_kind_without_a_value(error: Exception, kind: type[SyncError]) -> None:
    with pytest.raises(SyncError, match=r"^reading orders: ") as caught, translate_errors("reading orders"):
        raise error
    assert type(caught.value) is kind
    assert "s3cret" not in str(caught.value)
