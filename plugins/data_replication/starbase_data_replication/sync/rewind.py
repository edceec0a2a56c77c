"""A source that went back: its highest tracking value lies below one that was noted at an earlier sync.

Rows at the end that were deleted look like that, often and without harm. After a TRUNCATE with restarted ids, a restore
or a failover, other rows stand below the floor, where no sync looks any more. What tells the two apart is asked here.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import apsw

from starbase_data_replication.errors import SchemaMismatch
from starbase_data_replication.model import Column, HighWatermark, Options, Row, TableSchema
from starbase_data_replication.sources import MAX_KEYS, MAX_NEWEST, Key, Reader, ReadPlan, Rewindable
from starbase_host import Database, quote

# Behind the first ones, so many of the replica's newest rows may be gone at the source before the search for one that
# is there ends. Their keys are held at once, up to so many bytes.
MAX_GONE = 9_900
MAX_GONE_BYTES = 8 * 1024 * 1024

HIDDEN = (
    "; what assigns the values cannot be seen, and would tell rows that have changed from others in their place "
    "(on PostgreSQL: GRANT SELECT ON SEQUENCE)"
)


class SourceWentBack(SchemaMismatch):
    """The source's tracking values have gone back, and `onSourceRewind` says to ask."""

    code = "source_went_back"


def refusal(why: str, name: str) -> SourceWentBack:
    """For onSourceRewind error. `name` is the replication's."""
    return SourceWentBack(
        f"{why}; onSourceRewind is error: look at the source, then set it to reload, or reset the replication "
        f"(POST /data-replication/reset/{name})"
    )


def joined(schema: TableSchema) -> str:
    """What to say of rows that came in below the floor with a table of their own."""
    return f"a table has joined {schema.table} (ATTACH PARTITION, INHERIT) with rows that lie below what was read"


def unsure(schema: TableSchema, passed: int) -> str:
    """What to report where so many of the replica's newest rows were passed over, and none is as it was read."""
    return (
        f"the {passed} newest rows of {schema.table} that were read are gone at the source, or have changed: that was "
        "taken for ordinary changes, but after a restore rows behind them may be older versions; verify with repair, "
        "or reset"
    )


class Unlike(NamedTuple):
    """How many rows of the source the replica does not have, of how many it holds another version, and the others.

    stale: of those in another version, how many have the tracking value that the source has.
    """

    missing: int = 0
    different: int = 0
    alike: int = 0
    stale: int = 0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a source, to be compared with those of a table of the replica's, by their keys."""

    reader: Reader
    database: Database
    table: str
    schema: TableSchema
    options: Options

    async def compared(self, plan: ReadPlan, columns: Sequence[Column]) -> Unlike:
        """Read rows of the source, and compare these columns of them."""
        rows: list[Row] = []
        async with self.reader.read(plan) as batches:
            async for batch in batches:
                rows += batch.rows
        return await self.database.read(partial(self._unlike, rows=rows, columns=columns))

    def _unlike(self, connection: apsw.Connection, rows: Sequence[Row], columns: Sequence[Column]) -> Unlike:
        """The rows that the replica lacks, or holds otherwise. Those that their own column marks it does not hold."""
        schema = self.schema
        places = {column.name: at for at, column in enumerate(schema.columns)}
        tracked = [column for column in columns if column == schema.tracking]
        where = " AND ".join(f"{quote(name)} IS ?" for name in schema.target_key)
        sql = f"SELECT {_same(columns)}, {_same(tracked)} FROM {quote(self.table)} WHERE {where}"
        missing = different = alike = stale = 0
        for row in rows:
            if self.options.deleted_column is not None and row[places[self.options.deleted_column]] is not None:
                continue
            values = [row[places[column.name]] for column in (*columns, *tracked, *schema.key_columns)]
            found = connection.execute(sql, values).fetchone()
            missing += found is None
            different += found is not None and not found[0]
            alike += found is not None and bool(found[0])
            stale += found is not None and not found[0] and bool(found[1])
        return Unlike(missing, different, alike, stale)


def _same(columns: Sequence[Column]) -> str:
    """Whether columns hold the values given, to the letter: a column's own collation may take others for the same."""
    names = ", ".join(f"{quote(column.target)} COLLATE BINARY" for column in columns)
    return f"({names}) IS ({', '.join('?' * len(columns))})" if columns else "1"


def outer_keys(connection: apsw.Connection, table: str, schema: TableSchema) -> list[Key]:
    """A table's first and last rows, by their keys."""
    names = [quote(name) for name in schema.target_key]
    outer: list[Key] = []
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{name} {direction}" for name in names)
        sql = f"SELECT {', '.join(names)} FROM {quote(table)} ORDER BY {order} LIMIT {MAX_NEWEST // 2}"
        outer += [tuple(row) for row in connection.execute(sql)]
    return outer


@dataclass(frozen=True, kw_only=True)
class Rewind:
    """One look at a source whose highest value, `noted`, lies below what was reached. replica: the table's name.

    closed: it lies below the floor too, so that every row which stands there was read. known: the columns that were
    read when the replica was last brought up to date; None for all. warnings: what a question has left open.
    """

    reader: Reader
    counter: Rewindable
    database: Database
    replica: str
    schema: TableSchema
    options: Options
    noted: HighWatermark
    reached: str
    floor: str | None
    closed: bool
    known: Container[str] | None = None
    warnings: list[str] = field(default_factory=list)

    async def why(self) -> str | None:
        """Why other rows may stand where those of the floor stood, in words; None where rows were only deleted.

        The newest rows tell. Values that are assigned again are assigned upwards, so that the highest of them is one of
        the others; and of what was restored to an older version, the replica's newest rows are the newer ones.
        """
        newest = await self._compared(ReadPlan(schema=self.schema, newest_through=self.noted.below))
        ours = await self._ours()
        missing = newest.missing if self.closed else 0
        if not missing and not newest.different and not ours.different:
            return None
        went_back = (
            f"{self.schema.tracking_column} of {self.schema.table} went back: its highest value lies below what was "
            "read, and the newest rows are not those that were read"
        )
        if missing or self._is_a_time:
            return went_back
        passed = await self.counter.counter_passed(self.schema, self.reached)
        if passed:
            # No value is assigned again: these rows have changed without their tracking values.
            return None
        return went_back + (HIDDEN if passed is None else "")

    async def refilled(self) -> str | None:
        """Why the rows are others than those that were read, in words, where the table lies in other files, was made or
        altered, or another server answers; None where that is all that happened.

        Of the newest rows that lie no higher than the floor, and of the replica's newest, first and last ones that
        still do, each is in the replica as it is at the source. Rows that the source no longer has were deleted.
        """
        if self.floor is None:
            # Everything is read at each sync.
            return None
        newest = await self._compared(ReadPlan(schema=self.schema, newest_through=self.floor))
        keys = await self.database.read(partial(outer_keys, table=self.replica, schema=self.schema))
        outer = await self._compared(ReadPlan(schema=self.schema, keys=tuple(keys), newest_through=self.floor))
        if not (newest.missing or newest.different or outer.different):
            ours = await self._ours(through=self.floor)
            if not ours.different:
                return None
        return f"{self.schema.table} went back: rows stand there that were not read, or others than were read"

    async def _compared(self, plan: ReadPlan) -> Unlike:
        columns = [column for column in self.schema.columns if self._tells(column)]
        rows = Rows(
            reader=self.reader, database=self.database, table=self.replica, schema=self.schema, options=self.options
        )
        return await rows.compared(plan, columns)

    async def _ours(self, through: str | None = None) -> Unlike:
        """The replica's newest rows that the source still has, no higher than `through`, beside those it has.

        After a restore they are older versions there, however many rows that came in since the backup lie before them.
        """
        keys, more = await self.database.read(partial(self._newest_keys, passed=0, limit=MAX_NEWEST))
        passed = len(keys)
        while keys:
            page, keys = keys[:MAX_KEYS], keys[MAX_KEYS:]
            found = await self._compared(ReadPlan(schema=self.schema, keys=tuple(page), newest_through=through))
            if found != Unlike():
                return found
            if more and passed == MAX_NEWEST:
                # All others in one read: the replica may have no index on the column.
                keys, more = await self.database.read(partial(self._newest_keys, passed=passed, limit=MAX_GONE))
                passed += len(keys)
        if more:
            self.warnings.append(unsure(self.schema, passed))
        return Unlike()

    def _newest_keys(self, connection: apsw.Connection, *, passed: int, limit: int) -> tuple[list[Key], bool]:
        """Of the replica's newest rows behind so many, where they may stand in another version at the source; and
        whether there are more of them."""
        tracking = self.schema.tracking
        if tracking not in self.schema.columns or tracking.transformed or tracking in self.schema.key_columns:
            return [], False
        names = ", ".join(quote(name) for name in self.schema.target_key)
        sql = (
            f"SELECT {names} FROM {quote(self.replica)} ORDER BY {quote(tracking.target)} DESC "
            f"LIMIT {limit + 1} OFFSET {passed}"
        )
        keys: list[Key] = []
        size = 0
        for row in connection.execute(sql):
            size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
            if len(keys) == limit or size > MAX_GONE_BYTES:
                return keys, True
            keys.append(tuple(row))
        return keys, False

    def _tells(self, column: Column) -> bool:
        """Whether another value of a column means another row. Of a time, it alone: a version of a row has its own."""
        if self._is_a_time and self.schema.tracking in self.schema.columns and not self.schema.tracking.transformed:
            return column == self.schema.tracking
        return not column.transformed and (self.known is None or column.name in self.known)

    @property
    def _is_a_time(self) -> bool:
        return self.noted.candidate is not None and self.noted.candidate.lookback_value is not None
