"""Before a shadow replaces a replica: what becomes of the rows that only the replica holds.

If the user has not asked for a load, it removes nothing that a sync would have kept: rows that `deletes` keeps are
copied into the shadow, or the load waits. If the user has asked for the load, it warns how many rows it removes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import apsw

from starbase_data_replication.errors import ReplicaChanged, SchemaMismatch
from starbase_data_replication.model import Former, Options, Position, TableSchema, as_stored, rows_in_words
from starbase_data_replication.sources import MAX_KEYS, Key, Reader, ReadPlan, read_rows
from starbase_data_replication.storage import Leftovers, Piece, Target, count_by_former_key, store
from starbase_data_replication.sync import identity
from starbase_data_replication.sync.prepare import Preparation
from starbase_host import Clock, iso

T = TypeVar("T")


class RowsToKeep(SchemaMismatch):
    """A load would remove rows that `deletes` keeps, and cannot copy them."""

    code = "rows_to_keep"


@dataclass(kw_only=True)
class KeptRows:
    """The rows that a load into a shadow has not found, once all others are written.

    Attributes:
        preparation: how the sync was prepared.
        replica: the target, and its shadow.
        schema: what of the table is copied.
        source: where a row is looked up.
        clock: the host's.
        position: as it is stored; it counts the rows that were kept.
        force: whether rows are removed that may only be hidden from the source's user.
    """

    preparation: Preparation
    replica: Target
    schema: TableSchema
    source: Reader
    clock: Clock
    position: Position
    force: bool = False

    async def keep(self) -> list[str]:
        """Keep or drop the rows that the load has not found. Returns warnings. Raises RowsToKeep."""
        if self.schema.hidden is not None and not self.force:
            return await self._withhold()
        former = self.position.former
        asked_for = former is None or not self._same_source(former)
        if not await self.preparation.database.read(self._replica_exists):
            return []
        leftovers = await self._read(
            partial(
                Leftovers.of, old=self.replica.name, new=self.replica.shadow, schema=self.schema,
                former=former, mark=self.replica.mark,
            )
        )  # fmt: skip
        if former is None or asked_for:
            return self._let_go(leftovers if isinstance(leftovers, str) else await self._count(leftovers))
        why_not = self._why_not(former)
        if isinstance(leftovers, str) or why_not is not None:
            await self._refuse_to_drop(former, leftovers, why_not)
            return []
        return await self._take_over(leftovers)

    async def _withhold(self) -> list[str]:
        """Keep every row that the source does not show, whatever `deletes` says: it may only be hidden."""
        if not await self.preparation.database.read(self._replica_exists):
            return []
        former, names = self.position.former, (self.replica.name, self.replica.shadow)
        find = partial(
            Leftovers.of, old=names[0], new=names[1], schema=self.schema, former=former, mark=self.replica.mark
        )
        leftovers = await self._read(find)
        why_not = None if former is None else self._why_not(former)
        if isinstance(leftovers, str) or why_not is not None:
            raise RowsToKeep(
                f"rowSecurity: the replica cannot be replaced: some of its rows may only be hidden from this user, and "
                f"they cannot be copied into the new table: {why_not or leftovers}; {self._forced}"
            )
        after: int | None = None
        count = 0
        while True:
            piece = await self._read(partial(leftovers.piece, after=after))
            gone = await self._not_shown(piece)
            count += len(gone)

            await self.preparation.database.write(
                partial(self._withhold_piece, leftovers=leftovers, after=after, end=piece.end, gone=gone)
            )
            if piece.end is None:
                break
            after = piece.end
        if not count:
            return []
        return [
            f"{rows_in_words(count)} that {self.schema.table} does not show were kept: they may be gone, or hidden "
            f"from this user; {self._forced}"
        ]

    def _withhold_piece(
        self, connection: apsw.Connection, *, leftovers: Leftovers, after: int | None, end: int | None, gone: list[int]
    ) -> None:
        self._check_replica(connection)
        self.preparation.check(connection, self.replica)
        leftovers.fill(connection, after, end)
        if gone:
            leftovers.unmarked().carry(connection, gone, "")

    async def _not_shown(self, piece: Piece) -> list[int]:
        """The places of rows that the source does not have, not even among those that are not copied."""
        there = await self._at_the_source(piece.keys)
        return [place for place, key in zip(piece.places, piece.keys, strict=True) if self._as_stored(key) not in there]

    @property
    def _forced(self) -> str:
        return f"to remove them, reset with force (POST /data-replication/reset/{self.preparation.stored.name})"

    async def _take_over(self, leftovers: Leftovers) -> list[str]:
        """Copy the rows piece by piece. No reader sees the shadow yet."""
        after: int | None = None
        lacking = 0
        while True:
            piece = await self._read(partial(leftovers.piece, after=after))
            gone = await self._gone(piece)
            lacking += len(gone)
            await self.preparation.database.write(
                partial(self._piece, leftovers=leftovers, after=after, end=piece.end, gone=gone)
            )
            if piece.end is None:
                break
            after = piece.end
        return self._kept() if self._keeps else self._let_go(lacking)

    def _piece(
        self, connection: apsw.Connection, *, leftovers: Leftovers, after: int | None, end: int | None, gone: list[int]
    ) -> None:
        self._check_replica(connection)
        self.preparation.check(connection, self.replica)
        leftovers.fill(connection, after, end)
        former = self.position.former
        if gone and self._keeps and former is not None:
            kept = leftovers.carry(connection, gone, iso(self.clock.now()) or "")
            self.position = replace(self.position, former=replace(former, kept=former.kept + kept))
            if not self.preparation.together:
                store.save_position(connection, self.preparation.stored, self.position)

    async def _gone(self, piece: Piece) -> list[int]:
        """The places of rows that are gone from the source; rows that only left the selection are not among them."""
        return await self._not_shown(piece) if self._asks else piece.places

    async def _at_the_source(self, keys: Sequence[Key]) -> set[Key]:
        """Those of the keys that the source has a row for, whatever the filter says of the row."""
        key = self.schema.key_columns
        others = tuple(each for each in (*self.schema.columns, *self.schema.left_out) if each not in key)
        schema = replace(self.schema, columns=key, left_out=others, where=None)
        there: set[Key] = set()
        for at in range(0, len(keys), MAX_KEYS):
            plan = ReadPlan(schema=schema, keys=tuple(keys[at : at + MAX_KEYS]))
            there.update(self._as_stored(row) for row in await read_rows(self.source, plan))
        return there

    def _as_stored(self, key: Sequence[object]) -> Key:
        """A key as the replica stores it, from either side: the source may give a number as its digits."""
        return tuple(as_stored(column.cast, value) for column, value in zip(self.schema.key_columns, key, strict=True))

    async def _count(self, leftovers: Leftovers) -> int:
        after: int | None = None
        count = 0
        while True:
            piece = await self._read(partial(leftovers.piece, after=after))
            count += len(piece.places)
            if piece.end is None:
                return count
            after = piece.end

    def _why_not(self, former: Former) -> str | None:
        """Why rows of the replica cannot be copied into the shadow; None if they can."""
        forms = self.schema.fingerprint.columns
        changed = [
            name for name in self.schema.key if former.fingerprint.columns.get(name, forms[name])[1] != forms[name][1]
        ]
        if changed and tuple(former.fingerprint.key) == self.schema.key:
            return f"the key's column {changed[0]} is stored in another form"
        before = identity.parse_identity(former.identity).selection.get("transforms", {})
        for column in self.schema.columns:
            plugins = [_plugins(each, column.name) for each in (before, self._options.transforms)]
            if plugins[0] != plugins[1]:
                return f"other plugins change the values of {column.name} (transforms)"
        return None

    async def _refuse_to_drop(self, former: Former, leftovers: Leftovers | str, why_not: str | None) -> None:
        """Raise RowsToKeep if there are rows to keep, or if that is unknown."""
        if not self._keeps or not former.fingerprint.key:
            # A table without a key was loaded whole at every sync: nothing was kept that the source did not have.
            return
        if isinstance(leftovers, Leftovers):
            count: int | None = await self._count(leftovers)
        else:
            names = (self.replica.name, self.replica.shadow)
            count = await self._read(lambda connection: count_by_former_key(connection, *names, self.schema, former))
        if count != 0:
            table, name = self.schema.table, self.preparation.stored.name
            rows = rows_in_words(count) if count is not None else "some rows"
            raise RowsToKeep(
                f"{rows} of the replica may be gone from {table}, and deletes keeps such rows; a load is due "
                f"({former.why}), and cannot copy them: {why_not or leftovers}; undo the change, or reset the "
                f"replication (POST /data-replication/reset/{name}), which removes them"
            )

    def _kept(self) -> list[str]:
        former = self.position.former
        if former is None or not former.kept:
            return []
        warning = (
            f"{rows_in_words(former.kept)} that {self.schema.table} no longer has were kept, as deletes says, when the "
            f"table was loaded again ({former.why}); they hold what was copied before that, and a reset removes them"
        )
        if self.replica.mark is not None:
            mark = self.replica.mark
            warning += (
                f"; when they were deleted is unknown: where {mark} was empty, it now holds the time of this load"
            )
        if identity.parse_identity(former.identity).selection.get("where") != self._options.where:
            warning += "; whether they match the new where is unknown"
        return [warning]

    def _let_go(self, count: int | str) -> list[str]:
        """The warning of removed rows. count: how many, or why they cannot be counted."""
        if isinstance(count, str):
            return [f"the rows that only the replica held were removed, and not counted: {count}"]
        if not count:
            return []
        return [f"this load removed {rows_in_words(count)} that {self.schema.table} does not have"]

    def _same_source(self, former: Former) -> bool:
        return (
            identity.parse_identity(former.identity).source == identity.parse_identity(self.preparation.identity).source
        )

    async def _read(self, function: Callable[[apsw.Connection], T]) -> T:
        """Read the replica that is to be replaced. Raises ReplicaChanged if it was dropped meanwhile."""

        def read(connection: apsw.Connection) -> T:
            self._check_replica(connection)
            try:
                return function(connection)
            except apsw.SQLError:
                # It may be dropped between two statements.
                self._check_replica(connection)
                raise

        return await self.preparation.database.read(read)

    def _check_replica(self, connection: apsw.Connection) -> None:
        if not self._replica_exists(connection):
            raise ReplicaChanged(
                f"table {self.replica.name} was dropped or replaced while its rows were compared with the load; the "
                "next run makes it again"
            )

    def _replica_exists(self, connection: apsw.Connection) -> bool:
        return store.owns_target(connection, self.replica.name)

    @property
    def _options(self) -> Options:
        return self.preparation.stored.replication.options

    @property
    def _keeps(self) -> bool:
        """Whether `deletes` keeps rows that the source no longer has."""
        return self._options.deletes == "ignore" or self._options.mark_column is not None

    @property
    def _asks(self) -> bool:
        """Whether the source may have rows that the load does not read, so that it must be asked."""
        ignored = self._options.null_tracking == "ignore" and self.schema.tracking.nullable
        return self._keeps and (self.schema.where is not None or ignored)


def _plugins(transforms: Mapping[str, Sequence[str]], column: str) -> list[str]:
    return [plugin for plugin, columns in transforms.items() if column in columns]
