"""Plain connections to a source, outside the project's own code, for a test to write and look with.

They are synchronous, and work whether or not the calling thread runs an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self, TypeVar

import asyncpg
import pymysql
from pymysql.constants import CLIENT

_CONNECT_TIMEOUT = 15

T = TypeVar("T")


class Session(Protocol):
    """One connection. Without BEGIN each statement commits itself."""

    def execute(self, sql: str, *args: Any) -> None: ...
    def fetch(self, sql: str, *args: Any) -> list[tuple[Any, ...]]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class PostgresSession:
    """asyncpg on its own loop and thread."""

    def __init__(self, host: str, port: int, user: str, password: str, database: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postgres-session")
        self._runner = asyncio.Runner()
        self._closed = False
        try:
            self._connection: asyncpg.Connection[asyncpg.Record] = self._run(
                asyncpg.connect(
                    host=host,
                    port=port,
                    user=user,
                    password=password,
                    database=database,
                    timeout=_CONNECT_TIMEOUT,
                )
            )
        except BaseException:
            self._end_thread()
            raise

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._thread.submit(self._runner.run, work).result()

    def execute(self, sql: str, *args: Any) -> None:
        self._run(self._connection.execute(sql, *args))

    def fetch(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._run(self._connection.fetch(sql, *args))]

    def close(self) -> None:
        """Close, also when the server has gone. A transaction that is open is rolled back."""
        if self._closed:
            return
        self._closed = True
        try:
            self._run(self._disconnect())
        finally:
            self._end_thread()

    async def _disconnect(self) -> None:
        try:
            await self._connection.close(timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._connection.terminate()

    def _end_thread(self) -> None:
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class MySQLSession:
    """PyMySQL; several statements in one string are allowed."""

    def __init__(self, host: str, port: int, user: str, password: str, database: str) -> None:
        self._connection = pymysql.connect(
            host=host,
            port=port,
            user=user,
            password=password,
            database=database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=_CONNECT_TIMEOUT,
            client_flag=CLIENT.MULTI_STATEMENTS,
        )

    def execute(self, sql: str, *args: Any) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, args or None)
            while cursor.nextset():
                pass

    def fetch(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, args or None)
            return list(cursor.fetchall())

    def close(self) -> None:
        """Close, also when the server has gone. A transaction that is open is rolled back."""
        if self._connection.open:
            with contextlib.suppress(pymysql.err.Error):
                self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
