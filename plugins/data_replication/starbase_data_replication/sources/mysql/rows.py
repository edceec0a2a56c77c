"""The rows of one long SELECT, as the server sends them: never more of them in memory than were asked for."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from starbase_data_replication.sources.batches import OVERHEAD_BYTES
from starbase_data_replication.sources.mysql.connection import (
    STATEMENT_TIMEOUT_SECONDS,
    Connection,
    Record,
    StreamingCursor,
)


class RowStream:
    """Rows that the server still has to send; the socket's buffer keeps it waiting while nobody takes them.

    ended: all have been taken. Until then the connection cannot be used for anything else.
    """

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self.ended = False

    @classmethod
    async def open(cls, connection: Connection, sql: str) -> Self:
        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS):
            cursor = await connection.cursor(StreamingCursor)
            await cursor.execute(sql)
        return cls(cursor)

    async def take(self, rows: int, size: int) -> tuple[list[Record], int]:
        """The next rows, as many as `rows` or as come to `size` bytes, and how many bytes they are, about."""
        taken: list[Record] = []
        taken_bytes = 0
        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS):
            while len(taken) < rows and taken_bytes < size:
                row = await self._cursor.fetchone()
                if row is None:
                    self.ended = True
                    break
                taken.append(row)
                taken_bytes += sum(map(len, filter(None, row))) + OVERHEAD_BYTES * (len(row) + 1)
        return taken, taken_bytes
