"""Pools of connections to sources. The one module that knows that `databases` exists.

`databases` gives the pool and its lifecycle; rows go over the driver's own connection, because its row path
costs several times what the driver's does. It is never given a user's URL: it would drop `sslmode`, several
hosts and whatever else it does not know, in silence.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import quote as percent_encode

from starbase_data_replication.sources.network.activity import listen

GOODBYE_SECONDS = 2.0

# What the MySQL backend of `databases` takes from its URL and from nowhere else.
URL_PARTS = ("host", "port", "user", "password", "db")


class Pool:
    """Connections to one remote, opened when first needed.

    scheme: "postgresql" or "mysql". arguments: what the driver's own pool takes (asyncpg.create_pool,
    aiomysql.create_pool). transport: that of a driver's connection. adopt: is given the driver's own pool, which
    has no connection yet, and answers the one to use in its place.
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
        """The driver's own connection, for the length of the context. Raises what the driver raises.

        Contexts of one task that lie inside each other share a connection; `databases` keeps one for each task.
        """
        database = await self._open()
        connection = database.connection()
        await connection.__aenter__()
        line = None
        try:
            line = listen(self._transport(connection.raw_connection))
            yield connection.raw_connection
        finally:
            if line is not None:
                line.heard = None
            # A pool that was closed meanwhile has no place any more to give a connection back to.
            if database.is_connected:
                await connection.__aexit__()

    async def close(self) -> None:
        if self._database is not None:
            database, self._database = self._database, None
            # A server need not answer a goodbye; given up, the connections are cut.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await database.disconnect()

    async def _open(self) -> Any:
        async with self._opening:
            if self._database is None:
                database_class = await asyncio.to_thread(_import, self._scheme)
                arguments = dict(self._arguments)
                url = f"{self._scheme}://"
                if self._scheme == "mysql":
                    # Its backend sets this one itself, always to true.
                    arguments.pop("autocommit", None)
                    url += _authority({part: arguments.pop(part, None) for part in URL_PARTS})
                database = database_class(url, min_size=0, max_size=self._max_connections, **arguments)
                await database.connect()
                if self._adopt is not None:
                    database._backend._pool = self._adopt(database._backend._pool)
                self._database = database
        return self._database


def _import(scheme: str) -> Any:
    """Imported on first use, and off the event loop: SQLAlchemy, which comes with it, takes most of a second."""
    from databases import Database, DatabaseURL

    # It imports the driver's side only when it is made.
    Database(DatabaseURL(f"{scheme}://localhost/"))
    return Database


def _authority(parts: Mapping[str, Any]) -> str:
    def encode(value: Any) -> str:
        return percent_encode(str(value if value is not None else ""), safe="")

    host = parts["host"] or "localhost"
    host = f"[{host}]" if ":" in host else host
    return f"{encode(parts['user'])}:{encode(parts['password'])}@{host}:{parts['port'] or 3306}/{encode(parts['db'])}"
