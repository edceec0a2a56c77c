"""Verify and reconcile: compare a replica with its source, and act on the differences.

Owns which differences count, the second look at rows that may have changed meanwhile, the limit on removals, and the
table that holds the differences of a comparison, so that memory does not grow with them. `compare` finds them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import apsw

from starbase_data_replication.errors import SchemaMismatch
from starbase_data_replication.model import Options, Position, Row, RunKind, TableSchema, as_stored, rows_in_words
from starbase_data_replication.sources import MAX_KEYS, Comparable, Feature, Key, ReadPlan, RegisteredDialect, read_rows
from starbase_data_replication.storage import Target, sqlite_tables, store
from starbase_data_replication.sync import Sync
from starbase_data_replication.verify.compare import CompareProgress, Comparison, Differences, compare, recheck
from starbase_host import InvalidRequest, iso, quote

REPORTED_KEYS = 100
KINDS: tuple[Literal["missing", "extra", "different"], ...] = ("missing", "extra", "different")


class TooManyRemovals(SchemaMismatch):
    """Reconciling would remove a larger share of the replica than `deletesMaxShare`."""

    code = "too_many_removals"


@dataclass(frozen=True, kw_only=True)
class VerificationResult:
    """What a verification or a reconciliation has found and done.

    Attributes:
        rows_compared: rows of the source.
        ranges: parts whose sums were compared.
        missing: rows that are not in the replica, counted after the second look and before any repair.
        extra: rows that are not in the source, counted so too.
        different: rows that are in both and not the same, counted so too.
        keys: the keys of each kind, at most REPORTED_KEYS; bytes as hex.
        changed: rows written, marked or removed.
        warnings: what was not done, for the user.
    """

    rows_compared: int
    ranges: int
    missing: int
    extra: int
    different: int
    keys: dict[str, list[list[Any]]]
    changed: int
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def allow(options: Options, kind: RunKind, *, repair: bool, dialect: RegisteredDialect) -> None:
    """Raise InvalidRequest if a replication with these options, of this dialect, may not be checked so.

    Call it before a run begins: a caller's mistake is not a failure of the replication.
    """
    if kind is RunKind.RECONCILE and not options.reconciles:
        raise InvalidRequest(
            fields={"deletes": "is not reconcile or mark, so nothing may be removed; configure it first"}
        )
    if not kind.syncs and Feature.COMPARE not in dialect.features:
        why = (
            f"{dialect.label} offers no comparison (it lacks the feature compare), so nothing can be verified or "
            "reconciled; a reset loads the table again"
        )
        raise InvalidRequest(fields={"sourceConfig.dialect": why})
    if kind is RunKind.VERIFY and repair and options.group is not None:
        raise InvalidRequest(
            fields={"repair": "would show this table at another moment than the others of its group; reset it"}
        )


@dataclass(kw_only=True)
class Check:
    """One verification or reconciliation of the replication of `sync`, within its run."""

    sync: Sync

    async def verify(self, *, repair: bool) -> VerificationResult:
        """Compare every row. What differs is synced and compared again before it is reported or repaired."""
        async with _FirstLook(self.sync, "rows") as (schema, comparison, replica, found):
            above: Position | None = None
            if comparison.differences and schema.key:
                # What changed since the last sync is not a difference: bring the replica up to date, and look again.
                above = await self._sync_again()
            counts = {kind: 0 if schema.key else int(getattr(comparison, kind)) for kind in KINDS}
            keys: dict[str, list[list[Any]]] = {kind: [] for kind in KINDS}
            changed = 0
            async for again in self._look_again(schema, found, "rows"):
                differences = await self._without_younger(schema, again, above)
                for kind in KINDS:
                    counts[kind] += len(getattr(differences, kind))
                    room = REPORTED_KEYS - len(keys[kind])
                    keys[kind] += [[_shown(value) for value in key] for key in getattr(differences, kind)[:room]]
                if repair:
                    changed += await self._repair(schema, replica, differences)
            if repair and not schema.key and comparison.differences:
                # Without a key there is no row to name: the next load is the repair.
                await self.sync.run()
                changed = self.sync.progress.changed
            return VerificationResult(
                rows_compared=comparison.rows_compared, ranges=comparison.ranges, keys=keys, changed=changed,
                missing=counts["missing"], extra=counts["extra"], different=counts["different"],
                warnings=_warnings_of_kept(schema, counts["extra"]) if repair else (),
            )  # fmt: skip

    async def reconcile(self, *, force: bool) -> VerificationResult:
        """Remove, or mark, the rows of the replica whose keys are gone from the source."""
        async with _FirstLook(self.sync, "keys") as (schema, comparison, replica, found):
            if not schema.key:
                raise SchemaMismatch(f"deletes: {schema.table} has no key; every sync loads it whole")
            if schema.hidden is not None and comparison.extra and not force:
                raise TooManyRemovals(
                    f"rowSecurity: {schema.table} does not show {rows_in_words(comparison.extra)} of the replica, "
                    "which may be gone, or hidden from this user, so nothing is removed; look at the source, then "
                    "reconcile with force"
                )
            gone, share = comparison.extra, self._options.deletes_max_share
            if not force and gone > share * comparison.replica_rows:
                raise TooManyRemovals(
                    f"deletes: {gone} of {comparison.replica_rows} rows are gone from {schema.table}, more than "
                    f"deletesMaxShare ({share:g}) allows; check the source, then reconcile with force"
                )
            changed = missing = 0
            async for differences in self._look_again(schema, found, "keys"):
                changed += await self._remove(replica, differences.extra)
                missing += len(differences.missing)
            return VerificationResult(
                rows_compared=comparison.rows_compared, ranges=comparison.ranges, missing=comparison.missing,
                extra=gone, different=0, keys={}, changed=changed,
                warnings=_warnings_of_missing(schema, missing) if changed else (),
            )  # fmt: skip

    @property
    def _options(self) -> Options:
        return self.sync.stored.replication.options

    async def _sync_again(self) -> Position | None:
        """Bring the replica up to date. Returns its position; None in a group, where it must not pass the others."""
        return None if self.sync.together else (await self.sync.run()).position

    async def _look_again(
        self, schema: TableSchema, found: DifferencesTable, what: Literal["keys", "rows"]
    ) -> AsyncIterator[Differences]:
        """Compare what was found once more, piece by piece. Yields what still differs."""
        name = self.sync.stored.replication.target_table
        async for keys in found.pieces():
            yield await recheck(
                _comparable(self.sync), schema, self.sync.database, name, keys, options=self._options, what=what
            )

    async def _without_younger(self, schema: TableSchema, found: Differences, position: Position | None) -> Differences:
        """The differences without rows above the floor.

        Every sync reads those, so a difference in one that was just synced is a change that is younger than the sync.
        """
        if position is None or self._options.mode == "full":
            return found
        keys = [*found.missing, *found.different]
        young = {_key(schema, row) for row in await self._read(schema, keys, floor=position.floor)}
        return Differences(
            missing=tuple(key for key in found.missing if key not in young),
            extra=found.extra,
            different=tuple(key for key in found.different if key not in young),
        )

    async def _repair(self, schema: TableSchema, replica: Target, differences: Differences) -> int:
        read = await self._read(schema, [*differences.missing, *differences.different])
        rows = await self.sync.transforms.apply(self.sync.stored.name, schema, read)

        def write(connection: apsw.Connection) -> int:
            self.sync.preparation.check(connection, replica)
            store.mark_uncounted(connection, self.sync.stored)
            return replica.apply(connection, rows)

        written = await self.sync.database.write(write)
        # Rows that are hidden from this user may be there all the same.
        return written + (await self._remove(replica, differences.extra) if schema.hidden is None else 0)

    async def _remove(self, replica: Target, keys: Sequence[Key]) -> int:
        at = iso(self.sync.clock.now()) or ""

        def write(connection: apsw.Connection) -> int:
            self.sync.preparation.check(connection, replica)
            store.mark_uncounted(connection, self.sync.stored)
            if replica.mark is not None:
                return replica.mark_removed(connection, keys, at)
            return replica.remove(connection, keys)

        return await self.sync.database.write(write) if keys else 0

    async def _read(self, schema: TableSchema, keys: Sequence[Key], *, floor: str | None = None) -> list[Row]:
        rows: list[Row] = []
        for at in range(0, len(keys), MAX_KEYS):
            plan = ReadPlan(schema=schema, floor=floor, keys=tuple(keys[at : at + MAX_KEYS]))
            rows += await read_rows(self.sync.source, plan)
        return rows


class DifferencesTable:
    """The keys of one comparison's differences, in a table."""

    def __init__(self, sync: Sync, schema: TableSchema) -> None:
        self._database = sync.database
        self.table = sqlite_tables.differences_name(sync.stored.id)
        self._width = len(schema.key)
        self._columns = ", ".join(f"k{number}" for number in range(self._width))

    async def create(self) -> None:
        columns = self._columns or "none"
        await self._execute(f"DROP TABLE IF EXISTS {quote(self.table)}")
        await self._execute(f"CREATE TABLE {quote(self.table)} ({columns})")

    async def drop(self) -> None:
        await self._execute(f"DROP TABLE IF EXISTS {quote(self.table)}")

    async def add(self, differences: Differences) -> None:
        rows = [*differences.missing, *differences.extra, *differences.different]
        marks = ", ".join("?" * self._width)

        def write(connection: apsw.Connection) -> None:
            connection.executemany(f"INSERT INTO {quote(self.table)} VALUES ({marks})", rows)

        if self._width:
            await self._database.write(write)

    async def pieces(self) -> AsyncIterator[list[Key]]:
        """The keys, at most MAX_KEYS at once."""
        after = 0
        sql = f"SELECT rowid, {self._columns} FROM {quote(self.table)} WHERE rowid > ? ORDER BY rowid LIMIT ?"
        while self._width:

            def read(connection: apsw.Connection, after: int = after) -> list[tuple[Any, ...]]:
                return connection.execute(sql, (after, MAX_KEYS)).fetchall()

            rows = await self._database.read(read)
            if not rows:
                return
            after = rows[-1][0]
            yield [tuple(row[1:]) for row in rows]

    async def _execute(self, sql: str) -> None:
        def write(connection: apsw.Connection) -> None:
            connection.execute(sql)

        await self._database.write(write)


class _FirstLook:
    """The comparison of a whole replica, and the table that holds its differences until the context ends."""

    def __init__(self, sync: Sync, what: Literal["keys", "rows"]) -> None:
        self._sync = sync
        self._what: Literal["keys", "rows"] = what
        self._found: DifferencesTable | None = None

    async def __aenter__(self) -> tuple[TableSchema, Comparison, Target, DifferencesTable]:
        sync = self._sync
        source = _comparable(sync)
        replication = sync.stored.replication
        position = await sync.preparation.stored_position()
        if position is not None and (why := sync.preparation.configured_since(position)) is not None:
            # No sync has had the source check a new `where`, and another selection is another replica.
            raise SchemaMismatch(f"{why} since the last sync; sync first")
        schema = await sync.preparation.describe(sync.source, position)
        replica = sync.preparation.replica(schema, position.dropped if position is not None else ())
        if not await sync.database.read(lambda c: store.owns_target(c, replica.name) and replica.has_mark(c)):
            raise SchemaMismatch(f"there is no table {replica.name} yet that fits the configuration; sync first")
        if not await sync.database.read(partial(_fits, replica=replica)):
            raise SchemaMismatch(f"{schema.table} has changed since the last sync; sync first")
        self._found = found = DifferencesTable(sync, schema)
        await found.create()

        def on_progress(progress: CompareProgress) -> None:
            sync.progress.rows = progress.rows

        sync.progress.estimated_rows = schema.estimated_rows
        comparison = await compare(
            source,
            schema,
            sync.database,
            replica.name,
            options=replication.options,
            what=self._what,
            on_progress=on_progress,
            on_differences=found.add,
        )
        return schema, comparison, replica, found

    async def __aexit__(self, *_: object) -> None:
        if self._found is not None:
            await self._found.drop()


def _warnings_of_kept(schema: TableSchema, extra: int) -> tuple[str, ...]:
    """What to tell the user of rows that a repair has not removed."""
    if schema.hidden is None or not extra:
        return ()
    return (
        f"{rows_in_words(extra)} that {schema.table} does not show were kept: they may be gone, or hidden from this "
        "user; to remove them, reset with force",
    )


def _warnings_of_missing(schema: TableSchema, missing: int) -> tuple[str, ...]:
    """What to tell the user of rows that a reconciliation has not added: it only removes the old of a changed key."""
    if not missing:
        return ()
    return (
        f"{missing} keys of {schema.table} are not in the replica: a sync adds those whose tracking value has risen; "
        "verify with repair adds the others, such as keys that were changed",
    )


def _comparable(sync: Sync) -> Comparable:
    """The sync's source. `allow` has seen that its dialect declares the feature."""
    assert isinstance(sync.source, Comparable)
    return sync.source


def _fits(connection: apsw.Connection, *, replica: Target) -> bool:
    """Whether the replica has the columns and the key of the source's table now."""
    try:
        return replica.adopt(connection, shadow=False)
    except SchemaMismatch:
        return False


def _key(schema: TableSchema, row: Row) -> Key:
    """The key of a row that was read, as the replica stores it: SQLite turns digits into numbers."""
    values = dict(zip((column.name for column in schema.columns), row, strict=True))
    return tuple(as_stored(column.cast, values[column.name]) for column in schema.key_columns)


def _shown(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
