"""Connections of the kit, opened when they are first needed, at most so many at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager

from starbase_data_replication.dialect_kit.connections import AsyncConnection

# How long a connection may take to end; a stop of the host waits for it.
GOODBYE_SECONDS = 2.0

Explained = Callable[[AsyncConnection], AbstractContextManager[None]]


class ConnectionPool:
    """The connections of one source.

    make: makes a connection, without connecting.
    most: how many may be open at once.
    """

    def __init__(self, make: Callable[[], AsyncConnection], *, most: int) -> None:
        self._make = make
        self._room = asyncio.Semaphore(most)
        self._free: list[AsyncConnection] = []
        self._lent: set[AsyncConnection] = set()
        self._closed = False

    @asynccontextmanager
    async def lend(self, explained: Explained) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for the length of the context. One that the context has left by an error is closed.

        explained: a context that explains what connecting raises.
        """
        async with self._room:
            connection = self._free.pop() if self._free else await self._connected(explained)
            self._lent.add(connection)
            whole = False
            try:
                yield connection
                whole = True
            finally:
                self._lent.discard(connection)
                if whole and not self._closed:
                    self._free.append(connection)
                else:
                    await _end(connection)

    async def close(self) -> None:
        """Close every connection; one that is lent as soon as it comes back."""
        self._closed = True
        free, self._free = self._free, []
        await asyncio.gather(*map(_end, free))

    async def _connected(self, explained: Explained) -> AsyncConnection:
        connection = self._make()
        try:
            with explained(connection):
                await connection.connect()
        except BaseException:
            await _end(connection)
            raise
        return connection


async def _end(connection: AsyncConnection) -> None:
    """Disconnect. What that raises says nothing about the rows."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(GOODBYE_SECONDS):
            await connection.disconnect()
