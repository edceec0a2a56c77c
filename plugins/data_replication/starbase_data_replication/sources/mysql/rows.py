"""A stream of rows from one SELECT, with never more in memory than the caller asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from starbase_data_replication.sources.batches import OVERHEAD_BYTES, Buffered
from starbase_data_replication.sources.mysql.connection import STATEMENT_TIMEOUT_SECONDS, Connection
from starbase_data_replication.sources.mysql.packets import RowParser


class RowStream(Buffered):
    """Rows that the server sends as the caller takes them: the socket's buffer makes it wait.

    The connection cannot be used for anything else until all rows have come.
    """

    def __init__(self, connection: Connection, parser: RowParser) -> None:
        super().__init__(parser.width, timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
        self._connection = connection
        self._parser = parser

    @property
    def ended(self) -> bool:
        """Whether all have been taken."""
        return self._parser.ended and not self._more.values

    @classmethod
    async def open(cls, connection: Connection, sql: str, *, parser: Callable[..., RowParser] | None = None) -> Self:
        """parser: as in Connection.stream."""
        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS):
            return cls(connection, await connection.stream(sql, parser=parser))

    async def _some(self, rows: int, size: int) -> bool:
        parser = self._parser
        while not self._more.values and not parser.ended:
            if parser.wanted > 0:
                # Bytes that are there are read without waiting, so first let other tasks of the loop run.
                await asyncio.sleep(0)
                parser.feed(await self._connection.receive(parser.wanted))
            self._more, found_bytes = parser.parse(rows, size)
            if self._more.values:
                self._row_bytes = found_bytes // len(self._more) + parser.width * OVERHEAD_BYTES
            if parser.ended:
                self._connection.streamed()
        return bool(self._more.values)
