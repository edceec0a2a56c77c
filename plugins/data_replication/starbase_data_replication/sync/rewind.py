"""A source that went back: its highest tracking value lies below one that an earlier sync has noted.

Deleting the last rows causes this often, and does no harm. But after a TRUNCATE that restarts ids, a restore or a
failover, other rows lie below the floor, where no sync reads any more. The rows themselves show which it was.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import apsw

from starbase_data_replication.errors import SchemaMismatch
from starbase_data_replication.model import Column, HighWatermark, Options, Row, TableSchema
from starbase_data_replication.sources import MAX_KEYS, MAX_NEWEST, Key, Reader, ReadPlan, Rewindable, read_rows
from starbase_host import Database, quote

# The search for one of the replica's newest rows that the source still has ends after the first MAX_NEWEST rows and
# this many more: 10,000 together, as the warning says. Their keys are in memory at once, hence a bound on their bytes.
MAX_GONE = 9_900
MAX_GONE_BYTES = 8 * 1024 * 1024

HIDDEN = (
    "; this user cannot see the counter that assigns the values, which shows whether rows changed or others took their "
    "place (on PostgreSQL: GRANT SELECT ON SEQUENCE)"
)


class SourceWentBack(SchemaMismatch):
    """The source's tracking values have gone back, and `onSourceRewind` is `error`."""

    code = "source_went_back"


def refusal(why: str, name: str) -> SourceWentBack:
    """The error for onSourceRewind `error`. name: the replication's."""
    return SourceWentBack(
        f"{why}; onSourceRewind is error: check the source, then set it to reload, or reset the replication "
        f"(POST /data-replication/reset/{name})"
    )


def joined(schema: TableSchema) -> str:
    """Why the table is loaded again after another table brought rows below the floor."""
    return f"a table has joined {schema.table} (ATTACH PARTITION, INHERIT) with rows that lie below what was read"


def unsure(schema: TableSchema, passed: int) -> str:
    """The warning after `passed` of the replica's newest rows, none of which is as it was read."""
    return (
        f"the {passed} newest rows of {schema.table} that were read are gone at the source, or have changed: this was "
        "treated as ordinary changes, but after a restore, earlier rows may be older versions; verify with repair, "
        "or reset"
    )


class Unlike(NamedTuple):
    """How rows of the source compare with the replica's.

    Attributes:
        missing: rows that the replica does not have.
        different: rows that it has in another version.
        alike: rows that it has as the source does.
        stale: of the different ones, those with the source's tracking value.
    """

    missing: int = 0
    different: int = 0
    alike: int = 0
    stale: int = 0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a source, compared with those of a table of the replica by their keys."""

    reader: Reader
    database: Database
    table: str
    schema: TableSchema
    options: Options

    async def compared(self, plan: ReadPlan, columns: Sequence[Column]) -> Unlike:
        """Read rows of the source, and compare these columns of them with the replica."""
        rows = await read_rows(self.reader, plan)
        return await self.database.read(partial(self._unlike, rows=rows, columns=columns))

    def _unlike(self, connection: apsw.Connection, rows: Sequence[Row], columns: Sequence[Column]) -> Unlike:
        """Count rows that the replica lacks or holds in another version. Rows marked as deleted are not counted."""
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
    """SQL: whether columns hold exactly the given values. A column's own collation might take others for equal."""
    names = ", ".join(f"{quote(column.target)} COLLATE BINARY" for column in columns)
    return f"({names}) IS ({', '.join('?' * len(columns))})" if columns else "1"


def outer_keys(connection: apsw.Connection, table: str, schema: TableSchema) -> list[Key]:
    """The keys of a table's first and last rows."""
    names = [quote(name) for name in schema.target_key]
    outer: list[Key] = []
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{name} {direction}" for name in names)
        sql = f"SELECT {', '.join(names)} FROM {quote(table)} ORDER BY {order} LIMIT {MAX_NEWEST // 2}"
        outer += [tuple(row) for row in connection.execute(sql)]
    return outer


@dataclass(frozen=True, kw_only=True)
class Rewind:
    """One check of a source whose highest value lies below what was reached.

    Attributes:
        reader: reads rows of the source.
        counter: says whether the source's counter is past a value.
        database: the internal database.
        replica: the replica's table.
        schema: what of the table is copied.
        options: the replication's.
        noted: what the source shows of its highest value.
        reached: the highest value that was noted before.
        floor: the floor; None if there is none.
        closed: whether the highest value lies below the floor too, so that every row up to it was read.
        known: the columns that were read when the replica was last brought up to date; None for all.
        warnings: what the check has left open.
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
        """Why rows below the floor may be others than those that were read; None if rows were only deleted.

        The newest rows show it. Values that are assigned again rise, so the highest of them belongs to another row; and
        after a restore, the replica's newest rows are newer versions than the source's.
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
            # No value was assigned again, so these rows have changed without a new tracking value.
            return None
        return went_back + (HIDDEN if passed is None else "")

    async def refilled(self) -> str | None:
        """Why the rows are others than those that were read; None if they are the same.

        Asked if the table is in other files, was recreated or altered, or another server answers. Compares the source's
        newest rows up to the floor, and the replica's newest, first and last ones. Rows that the source no longer has
        were deleted, which is no reason.
        """
        if self.floor is None:
            # Every sync reads everything.
            return None
        newest = await self._compared(ReadPlan(schema=self.schema, newest_through=self.floor))
        keys = await self.database.read(partial(outer_keys, table=self.replica, schema=self.schema))
        outer = await self._compared(ReadPlan(schema=self.schema, keys=tuple(keys), newest_through=self.floor))
        if not (newest.missing or newest.different or outer.different):
            ours = await self._ours(through=self.floor)
            if not ours.different:
                return None
        return f"{self.schema.table} went back: it has rows that were not read, or other rows than those that were read"

    async def _compared(self, plan: ReadPlan) -> Unlike:
        columns = [column for column in self.schema.columns if self._identifies(column)]
        rows = Rows(
            reader=self.reader, database=self.database, table=self.replica, schema=self.schema, options=self.options
        )
        return await rows.compared(plan, columns)

    async def _ours(self, through: str | None = None) -> Unlike:
        """Compare the replica's newest rows, up to `through`, with the source's.

        After a restore the source has older versions of them, behind any number of rows that came in since the backup.
        """
        keys, more = await self.database.read(partial(self._newest_keys, passed=0, limit=MAX_NEWEST))
        passed = len(keys)
        while keys:
            page, keys = keys[:MAX_KEYS], keys[MAX_KEYS:]
            found = await self._compared(ReadPlan(schema=self.schema, keys=tuple(page), newest_through=through))
            if found != Unlike():
                return found
            if more and passed == MAX_NEWEST:
                # The others in one read: the replica may have no index on the column.
                keys, more = await self.database.read(partial(self._newest_keys, passed=passed, limit=MAX_GONE))
                passed += len(keys)
        if more:
            self.warnings.append(unsure(self.schema, passed))
        return Unlike()

    def _newest_keys(self, connection: apsw.Connection, *, passed: int, limit: int) -> tuple[list[Key], bool]:
        """The keys of the replica's newest rows after the first `passed`, and whether there are more.

        Empty if the replica does not hold the tracking values, or they are the key: no other version can exist then.
        """
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

    def _identifies(self, column: Column) -> bool:
        """Whether another value of a column means another row. A tracking time decides alone: each version has one."""
        if self._is_a_time and self.schema.tracking in self.schema.columns and not self.schema.tracking.transformed:
            return column == self.schema.tracking
        return not column.transformed and (self.known is None or column.name in self.known)

    @property
    def _is_a_time(self) -> bool:
        return self.noted.candidate is not None and self.noted.candidate.lookback_value is not None
