"""The rows of one long SELECT, as the server sends them: never more of them in memory than were asked for."""

from __future__ import annotations

import asyncio
from typing import Self

from starbase_data_replication.sources.batches import OVERHEAD_BYTES
from starbase_data_replication.sources.mysql.connection import STATEMENT_TIMEOUT_SECONDS, Connection
from starbase_data_replication.sources.mysql.packets import Record, RowParser


class RowStream:
    """Rows that the server still has to send; the socket's buffer keeps it waiting while nobody takes them.

    ended: all have been taken. Until then the connection cannot be used for anything else.
    """

    def __init__(self, connection: Connection, parser: RowParser) -> None:
        self._connection = connection
        self._parser = parser
        self.ended = False

    @classmethod
    async def open(cls, connection: Connection, sql: str) -> Self:
        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS):
            return cls(connection, await connection.stream(sql))

    async def take(self, rows: int, size: int) -> tuple[list[Record], int]:
        """The next rows, as many as `rows` or as come to `size` bytes, and how many bytes they are, about."""
        parser = self._parser
        taken: list[Record] = []
        taken_bytes = 0
        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS):
            while len(taken) < rows and taken_bytes < size and not self.ended:
                if parser.wanted > 0:
                    parser.feed(await self._connection.receive(parser.wanted))
                found, found_bytes = parser.parse(rows - len(taken), size - taken_bytes)
                taken += found
                taken_bytes += found_bytes + sum(map(len, found)) * OVERHEAD_BYTES
                if parser.ended:
                    self._connection.streamed()
                    self.ended = True
        return taken, taken_bytes
