"""The rows of one long SELECT, as the server sends them: never more of them in memory than were asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from starbase_data_replication.model import Rows
from starbase_data_replication.sources.batches import OVERHEAD_BYTES
from starbase_data_replication.sources.mysql.connection import STATEMENT_TIMEOUT_SECONDS, Connection
from starbase_data_replication.sources.mysql.packets import RowParser


class RowStream:
    """Rows that the server still has to send; the socket's buffer keeps it waiting while nobody takes them.

    The connection cannot be used for anything else until all have come.
    """

    def __init__(self, connection: Connection, parser: RowParser) -> None:
        self._connection = connection
        self._parser = parser
        # Rows that came with those that were asked for.
        self._more = Rows([], parser.width)
        self._row_bytes = 0

    @property
    def ended(self) -> bool:
        """Whether all have been taken."""
        return self._parser.ended and not self._more.values

    @classmethod
    async def open(cls, connection: Connection, sql: str, *, parser: Callable[..., RowParser] | None = None) -> Self:
        """parser: makes the parser of the rows, given the `sequence` to begin with; None is that of plain columns."""
        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS):
            plain = await connection.stream(sql)
        return cls(connection, plain if parser is None else parser(sequence=connection.sequence))

    async def take(self, rows: int, size: int) -> tuple[Rows, int]:
        """The next rows, as many as `rows` or as come to `size` bytes, and how many bytes they are, about."""
        width = self._parser.width
        taken = Rows([], width)
        taken_bytes = 0
        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS):
            while len(taken) < rows and taken_bytes < size and await self._some(rows - len(taken), size - taken_bytes):
                count = min(rows - len(taken), -(-(size - taken_bytes) // self._row_bytes))
                values = self._more.values[: count * width]
                del self._more.values[: len(values)]
                taken.values += values
                taken_bytes += len(values) // width * self._row_bytes
        return taken, taken_bytes

    async def _some(self, rows: int, size: int) -> bool:
        """Whether there are rows; waits for them."""
        parser = self._parser
        while not self._more.values and not parser.ended:
            if parser.wanted > 0:
                parser.feed(await self._connection.receive(parser.wanted))
            self._more, found_bytes = parser.parse(rows, size)
            if self._more.values:
                self._row_bytes = found_bytes // len(self._more) + parser.width * OVERHEAD_BYTES
            if parser.ended:
                self._connection.streamed()
        return bool(self._more.values)
