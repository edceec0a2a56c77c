"""A connection that blocks, as one with coroutines: each call runs in the connection's thread."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from starbase_data_replication.dialect_kit.batching import size_of
from starbase_data_replication.dialect_kit.connections import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    AsyncConnection,
    BlockingConnection,
)
from starbase_data_replication.dialect_kit.driver_thread import DriverThread
from starbase_data_replication.dialect_kit.positions import Value
from starbase_data_replication.dialect_kit.row_plan import RowPlan
from starbase_data_replication.errors import SyncError
from starbase_data_replication.model import OpenTransactions, Row, TableName, TableSchema

# A driver that gives single rows slowly must not hold back those that it has given.
CHUNK_SECONDS = 1.0


class InThread(AsyncConnection):
    """One connection of a class of BlockingConnection."""

    def __init__(self, kind: type[BlockingConnection], settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._kind = kind
        self._thread = DriverThread()
        self._connection: BlockingConnection | None = None

    async def connect(self) -> None:
        self._connection = await self._thread.call(self._kind, self.settings)
        self._thread.interrupt_by(self._connection.interrupt)

    async def disconnect(self) -> None:
        try:
            if self._connection is not None and not self._thread.given_up:
                await self._thread.call(self._connection.close)
        finally:
            self._thread.close()

    def explain(self, error: Exception) -> SyncError | None:
        # A constructor that has failed has left no object. What it says of an error must not depend on one.
        connection = self._connection if self._connection is not None else self._kind.__new__(self._kind)
        return connection.explain(error)

    async def begin(self) -> None:
        await self._thread.call(self._made.begin)

    async def end(self) -> None:
        await self._thread.call(self._made.end)

    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        return await self._thread.call(self._made.describe, table, tracking_column)

    async def high_watermark(self, schema: TableSchema) -> Value | None:
        return await self._thread.call(self._made.high_watermark, schema)

    async def open_transactions(self) -> OpenTransactions:
        return await self._thread.call(self._made.open_transactions)

    async def clock(self) -> float | None:
        return await self._thread.call(self._made.clock)

    async def rows(self, plan: RowPlan) -> AsyncGenerator[Row, None]:
        async for chunk in self.chunks(plan):
            for row in chunk:
                yield row

    async def chunks(self, plan: RowPlan) -> AsyncGenerator[Sequence[Row], None]:
        """The rows of a plan, some at a time. The driver's cursor is closed when the generator is."""
        rows = await self._thread.call(lambda: iter(self._made.rows(plan)))
        try:
            while chunk := await self._thread.call(_take, rows):
                yield chunk
        finally:
            close = getattr(rows, "close", None)
            if close is not None and not self._thread.given_up:
                with suppress(Exception):
                    await self._thread.call(close)

    @property
    def _made(self) -> BlockingConnection:
        assert self._connection is not None, "connect comes first"
        return self._connection


def _take(rows: Iterator[Row]) -> list[Row]:
    taken: list[Row] = []
    size, begun = 0, time.monotonic()
    for row in rows:
        taken.append(row)
        size += size_of(row)
        if len(taken) >= CHUNK_ROWS or size >= CHUNK_BYTES or time.monotonic() - begun > CHUNK_SECONDS:
            break
    return taken
