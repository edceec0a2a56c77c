"""Comparing by reading: the rows of a source are read once, and their hashes kept in a temporary SQLite file.

So every source that can be read can be compared, and orders its keys as the replica does. Must not know a source.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import apsw

from starbase_data_replication.dialect_kit.batching import storable
from starbase_data_replication.dialect_kit.driver_thread import DriverThread
from starbase_data_replication.model import NO_AFFINITY, Column, Row, Rows, TableSchema
from starbase_data_replication.sources import MD5, Key, Part, Summary
from starbase_data_replication.verify import CanonicalText
from starbase_host import quote

FETCHED_ROWS = 1_000
# Sums of hashes of 60 bits leave SQLite's 64, so their halves are summed.
HALF_BITS = 30


class ReadComparison:
    """A `Comparing` of rows that were read. Made by `open`; `close` removes its file.

    schema: the table. columns: those to compare; with the key's, they are read.
    """

    digest = MD5
    digests: frozenset[str] = frozenset()

    def __init__(self, schema: TableSchema, columns: Sequence[Column]) -> None:
        self.order: tuple[str, ...] = schema.key
        self.forms: Mapping[str, Callable[[float], str]] = {
            column.name: float.hex
            for column in schema.columns
            if column.cast.declared == NO_AFFINITY and not column.cast.decimal
        }
        self._schema = schema
        self._text = CanonicalText(schema, columns, self)
        self._keys = ", ".join(f"k{number}" for number in range(len(schema.key)))
        self._thread = DriverThread()
        self._connection: apsw.Connection | None = None

    async def open(self) -> None:
        """Make the file. Its size is that of the keys, and some 30 bytes a row."""
        await self._thread.call(self._open)

    async def add(self, rows: Sequence[Row]) -> None:
        """Add rows, as the source sends them. Raises CastFailed."""
        await self._thread.call(self._add, rows)

    async def sort(self) -> None:
        """End the adding: order the keys."""
        if self._keys:
            await self._thread.call(self._execute, f"CREATE INDEX by_key ON hashes ({self._keys})")

    async def close(self) -> None:
        if self._connection is not None and not self._thread.given_up:
            await self._thread.call(self._connection.close)
        self._thread.close()

    async def no_key(self) -> bool:
        """Whether two rows have the same key, or one has NULL in it."""
        nulls = " OR ".join(f"k{number} IS NULL" for number in range(len(self._schema.key)))
        same = f"SELECT 1 FROM hashes GROUP BY {self._keys} HAVING count(*) > 1"
        sql = f"SELECT EXISTS (SELECT 1 FROM hashes WHERE {nulls}) OR EXISTS ({same})"
        ((found,),) = await self._thread.call(self._execute, sql)
        return bool(found)

    async def summarise(self, parts: Sequence[Part]) -> list[dict[int, Summary]]:
        return await self._thread.call(lambda: [self._summary(part) for part in parts])

    async def hashes(self, part: Part) -> AsyncIterator[list[tuple[Key, int]]]:
        found = await self._thread.call(self._found, part)
        while rows := await self._thread.call(_fetch, found):
            yield [(tuple(row[:-1]), row[-1]) for row in rows]

    def _open(self) -> None:
        # The empty name is a file of its own, which SQLite removes.
        self._connection = connection = apsw.Connection("")
        self._text.register(connection)
        hash_of: Any = self._text.hash_of
        connection.create_scalar_function("kit_hash", hash_of, 1, deterministic=True)
        columns = ", ".join(f"{quote(column.target)} {column.cast.declared}" for column in self._schema.columns)
        connection.execute(f"CREATE TEMP TABLE staged ({columns})")
        keys = f"{self._keys}, " if self._keys else ""
        connection.execute(f"CREATE TABLE hashes ({keys}key_hash INTEGER, row_hash INTEGER)")

    def _add(self, rows: Sequence[Row]) -> None:
        assert self._connection is not None, "open comes first"
        values = storable(Rows.of([*map(tuple, rows)], len(self._schema.columns)), self._schema)
        key = "".join(f"{quote(name)}, " for name in self._schema.target_key)
        with self._connection:
            self._connection.executemany(
                f"INSERT INTO staged VALUES ({', '.join('?' * len(self._schema.columns))})", values
            )
            self._connection.execute(
                f"INSERT INTO hashes SELECT {key}kit_hash({self._text.key}), kit_hash({self._text.row}) FROM staged"
            )
            self._connection.execute("DELETE FROM staged")

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        assert self._connection is not None, "open comes first"
        return self._connection.execute(sql, values).fetchall()

    def _summary(self, part: Part) -> dict[int, Summary]:
        if part.keys is not None:
            rows = list(self._found(part))
            return {0: Summary(len(rows), sum(row[-1] for row in rows))} if rows else {}
        where, values = self._where(part)
        mask = (1 << HALF_BITS) - 1
        sql = (
            f"SELECT key_hash % {part.buckets}, count(*), sum(row_hash >> {HALF_BITS}), sum(row_hash & {mask}) "
            f"FROM hashes{where} GROUP BY 1"
        )
        return {
            bucket: Summary(rows, (high << HALF_BITS) + low) for bucket, rows, high, low in self._execute(sql, values)
        }

    def _found(self, part: Part) -> Any:
        assert self._connection is not None, "open comes first"
        names = f"{self._keys}, row_hash" if self._keys else "row_hash"
        if part.keys is not None:
            same = " AND ".join(f"k{number} = ?" for number in range(len(self._schema.key)))
            sql = f"SELECT {names} FROM hashes WHERE {same}"
            return iter([row for key in dict.fromkeys(part.keys) for row in self._execute(sql, key)])
        where, values = self._where(part)
        return iter(self._connection.execute(f"SELECT {names} FROM hashes{where}", values))

    def _where(self, part: Part) -> tuple[str, tuple[Any, ...]]:
        conditions, values = [], tuple[Any, ...]()
        for operator, key in ((">", part.after), ("<=", part.through)):
            if key is not None:
                conditions.append(f"({self._keys}) {operator} ({', '.join('?' * len(key))})")
                values += tuple(key)
        if part.only_buckets is not None:
            conditions.append(f"key_hash % {part.buckets} IN ({', '.join(map(str, part.only_buckets)) or 'NULL'})")
        return f" WHERE {' AND '.join(conditions)}" if conditions else "", values


def _fetch(found: Any) -> list[Any]:
    return [row for _, row in zip(range(FETCHED_ROWS), found, strict=False)]
