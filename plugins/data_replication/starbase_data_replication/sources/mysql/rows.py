"""The rows of one long SELECT, as the server sends them: never more of them in memory than were asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from starbase_data_replication.sources.batches import OVERHEAD_BYTES, Buffered
from starbase_data_replication.sources.mysql.connection import STATEMENT_TIMEOUT_SECONDS, Connection
from starbase_data_replication.sources.mysql.packets import RowParser


class RowStream(Buffered):
    """Rows that the server still has to send; the socket's buffer keeps it waiting while nobody takes them.

    The connection cannot be used for anything else until all have come.
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
                # What is there is read without waiting: whoever else needs the loop comes first.
                await asyncio.sleep(0)
                parser.feed(await self._connection.receive(parser.wanted))
            self._more, found_bytes = parser.parse(rows, size)
            if self._more.values:
                self._row_bytes = found_bytes // len(self._more) + parser.width * OVERHEAD_BYTES
            if parser.ended:
                self._connection.streamed()
        return bool(self._more.values)
