"""Writers that do what applications do to a table while it is replicated, and what the table holds in the end.

Each writer has its own connection: transactions of random length, which may take their time or their id long
before they commit, roll back, or roll back to a savepoint. Everything follows from one seed, except the timing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import aiomysql
import asyncpg
import pymysql
from pymysql.constants import ER

from tests.support.servers import TestDatabase

CREATE = {
    "postgresql": """
        CREATE TABLE items (id bigserial PRIMARY KEY, writer int NOT NULL, note text,
                            updated_at timestamptz NOT NULL DEFAULT now());
        CREATE INDEX ON items (updated_at);
        CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN NEW.updated_at := now(); RETURN NEW; END';
        CREATE TRIGGER stamp BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION stamp();
    """,
    "mysql": """
        CREATE TABLE items (id bigint AUTO_INCREMENT PRIMARY KEY, writer int NOT NULL, note varchar(100),
                            updated_at timestamp(6) NOT NULL DEFAULT now(6) ON UPDATE now(6),
                            KEY (updated_at), KEY (writer, id))
    """,
}


class RolledBack(Exception):
    """The server has ended the transaction, to break a deadlock."""


class Writer(Protocol):
    async def execute(self, sql: str) -> None: ...
    async def close(self) -> None: ...


class PostgresWriter:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def execute(self, sql: str) -> None:
        await self._connection.execute(sql)

    async def close(self) -> None:
        await self._connection.close()


class MysqlWriter:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def execute(self, sql: str) -> None:
        try:
            async with self._connection.cursor() as cursor:
                await cursor.execute(sql)
        except pymysql.err.OperationalError as error:
            if error.args[0] == ER.LOCK_DEADLOCK:
                raise RolledBack from error
            raise

    async def close(self) -> None:
        self._connection.close()


async def connect(database: TestDatabase) -> Writer:
    settings = database.source_config
    common = {name: settings[name] for name in ("host", "port", "user", "password")}
    if database.dialect == "postgresql":
        return PostgresWriter(await asyncpg.connect(**common, database=settings["database"]))
    return MysqlWriter(await aiomysql.connect(**common, db=settings["database"], autocommit=True))


class Workload:
    """Writers at work in a thread between `start` and `stop`. inserts_only: for a replication that tracks ids."""

    def __init__(self, database: TestDatabase, *, seed: int, writers: int = 8, inserts_only: bool = False) -> None:
        self.database = database
        self.inserts_only = inserts_only
        self.commits = 0
        self.late = 0
        self._random = random.Random(seed)
        self._writers = writers
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="workload")

    def create_table(self) -> None:
        self.database.execute(CREATE[self.database.dialect])

    def rows(self) -> list[list[Any]]:
        """What the replica must hold: id, writer and note. Every change writes a new note."""
        found = self.database.fetch("SELECT id, writer, note FROM items ORDER BY id")
        return [list(row) for row in found]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _main(self) -> None:
        try:
            asyncio.run(self._write_all())
        except BaseException as error:
            self._failure = error

    async def _write_all(self) -> None:
        seeds = [self._random.random() for _ in range(self._writers)]
        await asyncio.gather(*(self._write(number, random.Random(seed)) for number, seed in enumerate(seeds)))

    async def _write(self, number: int, choose: random.Random) -> None:
        writer = await connect(self.database)
        try:
            count = 0
            while not self._stop.is_set():
                count += 1
                with contextlib.suppress(RolledBack):
                    await self._transaction(writer, number, f"{number}-{count}", choose)
        finally:
            await writer.close()

    async def _transaction(self, writer: Writer, number: int, note: str, choose: random.Random) -> None:
        longest = choose.choice((0.0, 0.01, 0.1, 0.1, 0.5, 2.5))
        await writer.execute("BEGIN")
        # PostgreSQL's now() stands from here on, with nothing written yet.
        if choose.random() < 0.5:
            await writer.execute("SELECT 1")
            await asyncio.sleep(longest * choose.random())
        for step in range(choose.randint(1, 4)):
            sql = self._statement(number, f"{note}-{step}", choose)
            if choose.random() < 0.2:
                await writer.execute("SAVEPOINT s")
                await writer.execute(sql)
                await writer.execute("ROLLBACK TO SAVEPOINT s")
            else:
                await writer.execute(sql)
            await asyncio.sleep(longest * choose.random() / 3)
        if choose.random() < 0.15:
            await writer.execute("ROLLBACK")
        else:
            await writer.execute("COMMIT")
            self.commits += 1
            self.late += longest >= 0.1

    def _statement(self, number: int, note: str, choose: random.Random) -> str:
        if self.inserts_only or choose.random() < 0.6:
            rows = ", ".join(f"({number}, '{note}-{each}')" for each in range(choose.choice((1, 1, 2, 20))))
            return f"INSERT INTO items (writer, note) VALUES {rows}"
        # A writer changes only its own rows, so that writers never wait for each other for ever.
        own = f"SELECT id FROM items WHERE writer = {number} ORDER BY id DESC LIMIT 1"
        return f"UPDATE items SET note = '{note}-u' WHERE id = (SELECT id FROM ({own}) AS own)"
