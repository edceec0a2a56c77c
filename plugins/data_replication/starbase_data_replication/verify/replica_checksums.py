"""The replica's side of a comparison: parts, sums and hashes like those of `Comparing`, from SQLite.

Each function on a connection reads a bounded number of rows, so that
no reader is busy for long. Must not know what it is compared with, and changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import apsw

from starbase_data_replication.errors import SchemaMismatch
from starbase_data_replication.model import NO_AFFINITY, Column, TableSchema
from starbase_data_replication.sources import Comparing, Key, Part, Summary
from starbase_data_replication.verify.canonical_text import CanonicalText
from starbase_host import Database, fold_name, quote

# Rows of a part at first: enough that its statement costs little beside them, and few enough to bound a reader's time.
# And rows of a part that is compared row by row, instead of being split further.
PART_ROWS = 8192
LEAF_ROWS = 256

Visit = Callable[[Key, int, int], None]


class Replica:
    """One replica table, compared in these columns, as the source's `Comparing` has it.

    mark: the column that is set in rows that are gone from the source: they are not seen.
    """

    def __init__(
        self,
        database: Database,
        table: str,
        schema: TableSchema,
        columns: Sequence[Column],
        source: Comparing,
        *,
        mark: str | None = None,
    ) -> None:
        self._database = database
        self._name = table
        self._table = quote(table)
        self._seen = [] if mark is None else [f"{quote(mark)} IS NULL"]
        self._canonical = CanonicalText(schema, columns, source)
        self._hash_of = self._canonical.hash_of
        order = [schema.column(name) for name in source.order]
        self._order = [quote(column.target) for column in order]
        self._mixed = bool(order) and order[0].cast.declared == NO_AFFINITY
        self._key = schema.target_key
        # A table without a key is walked along SQLite's own, and a row is known by all that it holds.
        self._walked = [quote(name) for name in self._key] or [_rowid(schema)]

    async def parts(self) -> AsyncIterator[Part]:
        """The whole table in parts. The first has no lower bound and the last no upper one: the source has more."""
        await self._database.read(self._check)
        part = await self._database.read(partial(self._next_part, after=None))
        yield part
        while part.through is not None:
            part = await self._database.read(partial(self._next_part, after=part.through))
            yield part

    async def split(self, part: Part) -> list[Part]:
        """The same rows in smaller parts; in one, where the key cannot take them apart."""
        return await self._database.read(partial(self._split, part=part))

    async def summarise(self, part: Part) -> dict[int, Summary]:
        if part.buckets == 1:
            return {0: await self._database.read(partial(self._sum, part=part))}
        rows, sums = [0] * part.buckets, [0] * part.buckets

        def add(key: Key, bucket: int, hashed: int) -> None:
            rows[bucket] += 1
            sums[bucket] += hashed

        await self.walk(part, add)
        return {bucket: Summary(rows[bucket], sums[bucket]) for bucket in range(part.buckets) if rows[bucket]}

    async def walk(self, part: Part, visit: Visit) -> None:
        """Call `visit(key, bucket, hash)` for each row of a part, in a reader's thread."""
        if part.keys is not None:
            await self._database.read(partial(self._look_up, keys=part.keys, visit=visit))
            return
        reached = await self._database.read(partial(self._step, part=part, after=None, visit=visit))
        while reached is not None:
            reached = await self._database.read(partial(self._step, part=part, after=reached, visit=visit))

    def _check(self, connection: apsw.Connection) -> None:
        """A table that a user has made may order its key in another way than by its bytes, so not as the source."""
        try:
            # Looking a column up does not notice that the schema has changed; a statement does.
            connection.execute(f"SELECT {', '.join(self._walked)} FROM {self._table} LIMIT 0")
            collations = {connection.column_metadata(None, self._name, name)[1] for name in self._key}
        except apsw.SQLError as error:
            raise SchemaMismatch(f"there is no replica {self._name} with the source's key: sync first") from error
        if collations - {"BINARY"}:
            self._order = []

    def _next_part(self, connection: apsw.Connection, *, after: Key | None) -> Part:
        part = Part(after=after)
        part = replace(part, through=self._boundary(connection, part, PART_ROWS))
        where, values = self._where(part)
        found: int = connection.execute(f"SELECT count(*) FROM {self._table}{where}", values).get
        # Rows whose place in the order is the same cannot be taken apart by it, but by their keys' hashes.
        buckets = 1 << (found // PART_ROWS).bit_length() if found > 4 * PART_ROWS else 1
        return replace(part, buckets=buckets)

    def _split(self, connection: apsw.Connection, *, part: Part) -> list[Part]:
        parts = []
        while (through := self._boundary(connection, part, LEAF_ROWS)) not in (None, part.through):
            parts.append(replace(part, through=through))
            part = replace(part, after=through)
        return [*parts, part]

    def _boundary(self, connection: apsw.Connection, part: Part, rows: int) -> Key | None:
        """Where the order has come after so many rows of a part; None when that is past the last of them.

        The rows that it steps over are bounded, and it steps over each of them once: no walk by OFFSET.
        """
        if not self._order:
            return None
        names = ", ".join(self._order)
        where, values = self._where(part)
        sql = f"SELECT {names} FROM {self._table}{where} ORDER BY {names} LIMIT 1 OFFSET {rows - 1}"
        found: Key | None = connection.execute(sql, values).fetchone()
        if found is not None and self._mixed and isinstance(found[0], str):
            # An integer above 2^63: the source does not order it as text, so nothing may end in between.
            return None
        return found

    def _sum(self, connection: apsw.Connection, *, part: Part) -> Summary:
        self._canonical.register(connection)
        where, values = self._where(part)
        sql = f"SELECT count(*), replica_sum({self._canonical.row}) FROM {self._table}{where}"
        answer: Any = connection.execute(sql, values).fetchone()
        return Summary(answer[0], int(answer[1]))

    def _step(self, connection: apsw.Connection, *, part: Part, after: Key | None, visit: Visit) -> Key | None:
        """Visit the next rows of a walk. Where it has come; None at its end."""
        self._canonical.register(connection)
        names = ", ".join(self._walked)
        where, values = self._where(part)
        if after is not None:
            where += f" {'AND' if where else 'WHERE'} ({names}) > ({_marks(after)})"
            values += after
        key_text = self._canonical.key if part.buckets > 1 else "x''"
        sql = f"SELECT {names}, {key_text}, {self._canonical.row} FROM {self._table}{where}"
        sql = f"{sql} ORDER BY {names} LIMIT {PART_ROWS}"
        chosen = None if part.only_buckets is None else frozenset(part.only_buckets)
        rows, length, bucket = 0, len(self._key), 0
        row: tuple[Any, ...] = ()
        for row in connection.execute(sql, values):
            rows += 1
            if part.buckets > 1:
                bucket = self._hash_of(row[-2]) % part.buckets
            if chosen is None or bucket in chosen:
                visit(row[:length], bucket, self._hash_of(row[-1]))
        return row[:-2] if rows == PART_ROWS else None

    def _look_up(self, connection: apsw.Connection, *, keys: Sequence[Key], visit: Visit) -> None:
        self._canonical.register(connection)
        names = ", ".join(self._walked)
        same = " AND ".join([*self._seen, f"({names}) = ({_marks(self._walked)})"])
        sql = f"SELECT {names}, {self._canonical.row} FROM {self._table} WHERE {same}"
        for key in keys:
            for *found, text in connection.execute(sql, key):
                # Another row may be the same to the table, if a user has given it a collation.
                if tuple(found) == key:
                    visit(key, 0, self._hash_of(text))

    def _where(self, part: Part) -> tuple[str, Key]:
        conditions = list(self._seen)
        values: Key = ()
        for operator, key in ((">", part.after), ("<=", part.through)):
            if key is not None:
                conditions.append(f"({', '.join(self._order)}) {operator} ({_marks(key)})")
                values += key
        return f" WHERE {' AND '.join(conditions)}" if conditions else "", values


def _rowid(schema: TableSchema) -> str:
    taken = {fold_name(column.target) for column in schema.columns}
    free = next((name for name in ("rowid", "oid", "_rowid_") if name not in taken), None)
    if free is None:
        raise SchemaMismatch(
            f"{schema.table} has no key, and its columns take every name that SQLite has for a row: "
            'rename one, as in rename: {"oid": "oid_2"}'
        )
    return free


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
