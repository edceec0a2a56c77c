"""Pools of connections to sources. The one module that knows that `databases` exists.

`databases` gives the pool and its lifecycle. Rows go over the driver's own connection, because the row path of
`databases` costs several times what the driver's does. It never gets a user's URL: it would silently drop `sslmode`,
several hosts and any other part that it does not know.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import quote as percent_encode

from starbase_data_replication.sources.network.activity import watch

# How long a server may take to end its connections; a stop of the host waits for it.
GOODBYE_SECONDS = 2.0

# The MySQL backend of `databases` takes these from its URL only.
URL_PARTS = ("host", "port", "user", "password", "db")


class Pool:
    """Connections to one source, opened when first needed.

    scheme: "postgresql" or "mysql".
    arguments: those of the driver's own pool (asyncpg.create_pool, aiomysql.create_pool).
    max_connections: how many may be open at once.
    transport: returns the asyncio transport of a driver's connection.
    adopt: gets the driver's own pool, which has no connection yet, and returns the pool to use instead.
    """

    def __init__(
        self,
        scheme: str,
        arguments: Mapping[str, Any],
        *,
        max_connections: int,
        transport: Callable[[Any], Any],
        adopt: Callable[[Any], Any] | None = None,
    ) -> None:
        self._scheme = scheme
        self._adopt = adopt
        self._transport = transport
        self._arguments = dict(arguments)
        self._max_connections = max_connections
        self._database: Any = None
        self._opening = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend the driver's own connection for the length of the context. Raises what the driver raises.

        Nested contexts of one task share a connection, because `databases` keeps one for each task.
        """
        database = await self._open()
        connection = database.connection()
        await connection.__aenter__()
        protocol = None
        try:
            protocol = watch(self._transport(connection.raw_connection))
            yield connection.raw_connection
        finally:
            if protocol is not None:
                protocol.on_activity = None
            # A pool that was closed meanwhile takes no connection back.
            if database.is_connected:
                await connection.__aexit__()

    async def close(self) -> None:
        if self._database is not None:
            database, self._database = self._database, None
            # A server need not answer a goodbye. After the timeout, the connections are cut.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await database.disconnect()
        # asyncio closes the socket of a connection in the loop's next turn, and a command's loop may end before.
        await asyncio.sleep(0)

    async def _open(self) -> Any:
        async with self._opening:
            if self._database is None:
                database_class = await asyncio.to_thread(_import, self._scheme)
                arguments = dict(self._arguments)
                url = f"{self._scheme}://"
                if self._scheme == "mysql":
                    # The backend sets this argument itself, always to true.
                    arguments.pop("autocommit", None)
                    url += _authority({part: arguments.pop(part, None) for part in URL_PARTS})
                database = database_class(url, min_size=0, max_size=self._max_connections, **arguments)
                await database.connect()
                if self._adopt is not None:
                    database._backend._pool = self._adopt(database._backend._pool)
                self._database = database
        return self._database


def _import(scheme: str) -> Any:
    """Import `databases` on first use, off the event loop: SQLAlchemy, which it imports, takes most of a second."""
    from databases import Database, DatabaseURL

    # `databases` imports the driver's backend only when an object is made.
    Database(DatabaseURL(f"{scheme}://localhost/"))
    return Database


def _authority(parts: Mapping[str, Any]) -> str:
    def encode(value: Any) -> str:
        return percent_encode(str(value if value is not None else ""), safe="")

    host = parts["host"] or "localhost"
    host = f"[{host}]" if ":" in host else host
    return f"{encode(parts['user'])}:{encode(parts['password'])}@{host}:{parts['port'] or 3306}/{encode(parts['db'])}"
