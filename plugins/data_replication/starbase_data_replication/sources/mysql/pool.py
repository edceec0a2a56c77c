"""The pool of connections to MySQL or MariaDB: which may be given out again, and for how long.

aiomysql's pool, repaired: that one does not wake those who wait for a connection when one comes back closed. Must not
know what is read over a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiomysql
from pymysql.err import OperationalError

from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.network import HostPolicy
from starbase_host import check_overrides, overrides

# A firewall may forget a connection that is not used for a while, without a sign to either end.
IDLE_SECONDS = 300.0


class ConnectionPool(aiomysql.Pool):  # type: ignore[misc]
    """Replaces the pool that `databases` has made, before that has a connection.

    made: that pool.
    tls_required: whether a server without TLS is refused.
    ssl_fallback: whether to connect without TLS if the TLS handshake fails.
    policy: where the server may be.
    """

    def __init__(self, made: aiomysql.Pool, *, tls_required: bool, ssl_fallback: bool, policy: HostPolicy) -> None:
        # Not at import: importing `databases` takes most of a second, and it is imported by now.
        check_overrides(ConnectionPool)
        super().__init__(
            minsize=0,
            maxsize=made.maxsize,
            echo=False,
            pool_recycle=IDLE_SECONDS,
            loop=asyncio.get_running_loop(),
            **made._conn_kwargs,
        )
        self._tls_required = tls_required
        self._policy = policy
        self._ssl_fallback = ssl_fallback
        self._waking: set[asyncio.Future[Any]] = set()
        self._not_before = 0.0

    def renew(self) -> None:
        """Do not give out a connection that began before now."""
        self._not_before = self._loop.time()

    @overrides("aiomysql.pool.Pool._acquire")
    async def _fill_free_pool(self, override_min: bool) -> None:
        """Close the free connections that are broken or old; open one if none is left and the limit allows it."""
        for connection in list(self._free):
            if connection.began_at < self._not_before or _is_stale(connection):
                self._free.remove(connection)
                connection.close()
        if self._free or self.size >= self.maxsize:
            return
        self._acquiring += 1
        try:
            self._free.append(await self._connected())
        finally:
            self._acquiring -= 1

    @contextlib.asynccontextmanager
    async def apart(self) -> AsyncIterator[Connection]:
        """A new connection that is not the pool's, closed with the context."""
        connection = await self._connected()
        try:
            yield connection
        finally:
            connection.close()

    @overrides("databases.backends.mysql.MySQLConnection.release", library="aiomysql")
    def release(self, connection: Connection) -> asyncio.Future[None]:
        """Take a connection back, and wake a task that waits for one, also if it comes back closed."""
        self._used.discard(connection)
        self._terminated.discard(connection)
        if self._closing or connection.get_transaction_status():
            connection.close()
        if not connection.closed:
            self._free.append(connection)
        # Waking needs the lock, which a task that connects holds; a task that releases must not wait for it.
        waking = self._loop.create_task(self._wakeup())
        self._waking.add(waking)
        waking.add_done_callback(self._waking.discard)
        released: asyncio.Future[None] = self._loop.create_future()
        released.set_result(None)
        return released

    @overrides(library="aiomysql")
    async def wait_closed(self) -> None:
        """End every connection: those in use at once, the others in order."""
        self.terminate()
        await self.clear()
        await super().wait_closed()

    async def _connected(self) -> Connection:
        arguments = dict(self._conn_kwargs)
        try:
            connection = Connection(policy=self._policy, tls_required=self._tls_required, **arguments)
            await connection.open()
        except OperationalError as error:
            if not self._ssl_fallback or not isinstance(error.__cause__, ssl.SSLError):
                raise
            connection = Connection(policy=self._policy, **{**arguments, "ssl": None})
            await connection.open()
        return connection


def _is_stale(connection: Connection) -> bool:
    reader = connection._reader
    idle = connection.loop.time() - connection.last_usage
    return bool(
        connection.closed or reader.at_eof() or reader.eof_received or reader.exception() or idle > IDLE_SECONDS
    )
