"""A database with secrets in it and a QueryRunner on it, for the tests of /query below HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw
import pytest

from starbase_host.clock import Clock
from starbase_host.database import Database
from starbase_host.errors import StarbaseError
from starbase_host.query import Query, QueryRunner, Result
from starbase_host.read_rules import ReadDecision
from starbase_host.sandbox_rules import Role

T = TypeVar("T")

CANARY = "canary-9e1f"
SCHEMA = f"""
CREATE TABLE orders(id INTEGER PRIMARY KEY, name TEXT, total REAL);
INSERT INTO orders VALUES (1, 'one', 1.5), (2, 'two', 2.5), (3, 'three', NULL);
CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT);
INSERT INTO counted DEFAULT VALUES;
CREATE TABLE watched(id INTEGER);
CREATE TABLE tmp_notes(id INTEGER PRIMARY KEY, hushed TEXT);
INSERT INTO tmp_notes VALUES (1, '{CANARY}');
CREATE INDEX tmp_notes_hushed ON tmp_notes(hushed);
CREATE TABLE tmp_vault(id INTEGER PRIMARY KEY, hushed TEXT);
INSERT INTO tmp_vault VALUES (1, '{CANARY}');
CREATE INDEX tmp_vault_hushed ON tmp_vault(hushed);
CREATE VIEW over_orders AS SELECT id FROM orders;
CREATE VIEW over_notes AS SELECT hushed FROM tmp_notes;
CREATE VIEW over_over_notes AS SELECT * FROM over_notes;
CREATE VIEW over_vault AS SELECT * FROM tmp_vault;
CREATE VIEW joined_notes AS SELECT hushed FROM tmp_notes FULL JOIN (SELECT NULL AS hushed WHERE 0) USING (hushed);
CREATE VIEW over_joined_notes AS SELECT hushed FROM joined_notes;
CREATE VIEW joined_vault AS SELECT hushed FROM tmp_vault FULL JOIN (SELECT NULL AS hushed WHERE 0) USING (hushed);
CREATE TRIGGER watched_delete BEFORE DELETE ON watched BEGIN SELECT count(*) FROM tmp_vault; END;
CREATE VIRTUAL TABLE search USING fts5(body);
INSERT INTO search VALUES ('hello world');
CREATE VIRTUAL TABLE tmp_search USING fts5(hushed);
INSERT INTO tmp_search VALUES ('{CANARY}');
CREATE VIRTUAL TABLE notes_search USING fts5(hushed, content='tmp_notes', content_rowid='id');
INSERT INTO notes_search(notes_search) VALUES ('rebuild');
CREATE VIRTUAL TABLE view_search USING fts5(hushed, Content = "over_over_notes", content_rowid=rowid);
INSERT INTO view_search(rowid, hushed) VALUES (1, '{CANARY}');
CREATE VIRTUAL TABLE places USING rtree(id, x, y);
INSERT INTO places VALUES (1, 2, 3);
ANALYZE;
"""


class Hooks:
    """No plugin, until a test puts one there."""

    async def before_query(self, query: Query) -> Query:
        return query

    async def after_query(self, query: Query, result: Result) -> Result:
        return result

    async def authorize_read(self, role: Role, table: str, column: str) -> ReadDecision:
        return "allow"

    def implementers(self, hook: str) -> list[str]:
        return []


class Bench:
    """A database, a runner, and the loop they live on."""

    def __init__(self, path: Path, hooks: Hooks | None = None, *, clock: Clock | None = None, **limits: Any) -> None:
        self.loop = asyncio.Runner()
        self.database = Database(path)
        self.database.open()
        for name in ("tmp_vault", "tmp_future"):
            self.database.make_private(name)
        limits = {"max_rows": 1000, "max_seconds": 0.4, **limits}
        self.runner = QueryRunner(self.database, hooks or Hooks(), clock=clock or Clock(), **limits)

    def close(self) -> None:
        self.runner.close()
        self.database.close()
        self.loop.close()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(coroutine)

    def write(self, sql: str) -> None:
        self.wait(self.database.write(lambda connection: connection.execute(sql).fetchall()))

    def run(self, sql: str, params: Any = None, role: Role = "client") -> Result:
        return self.wait(self.runner.run(Query(sql=sql, params=params, role=role)))

    def json(self, sql: str, params: Any = None, role: Role = "client", *, raw: bool = False) -> Any:
        """What the route answers."""
        body = self.wait(self.runner.answer(Query(sql=sql, params=params, role=role, raw=raw)))
        return json.loads(b"".join(body.pieces))["result"]

    def rows(self, sql: str, params: Any = None, role: Role = "client") -> list[tuple[Any, ...]]:
        return self.run(sql, params, role).rows

    def transaction(self, statements: Sequence[str | tuple[str, Any]], role: Role = "admin") -> list[Result]:
        pairs = [(each, None) if isinstance(each, str) else each for each in statements]
        return self.wait(
            self.runner.run_transaction([Query(sql=sql, params=params, role=role) for sql, params in pairs])
        )

    def refusal(self, sql: str, params: Any = None, role: Role = "client") -> StarbaseError:
        with pytest.raises(StarbaseError) as caught:
            self.run(sql, params, role)
        return caught.value


@contextmanager
def a_bench(path: Path, hooks: Hooks | None = None, **options: Any) -> Iterator[Bench]:
    bench = Bench(path / "test.db", hooks, **options)
    try:
        bench.write(SCHEMA)
        yield bench
    finally:
        bench.close()


def contents(bench: Bench) -> list[Any]:
    def read(connection: apsw.Connection) -> list[Any]:
        tables = ("sqlite_schema", "orders", "tmp_notes", "tmp_vault", "search", "watched")
        state = [connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
        return [
            *state,
            connection.execute("PRAGMA user_version").fetchall(),
            sorted(bench.database.path.parent.iterdir()),
        ]

    return bench.wait(bench.database.read(read))
