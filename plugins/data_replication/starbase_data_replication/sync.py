"""One sync, from the source's table to the replica: the algorithm, and nothing else.

The order of the steps is what keeps rows from being lost; see position.py for why. A group of tables takes the
same steps side by side, and commits once: see group.py.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import apsw

from starbase_data_replication import drift, store, target
from starbase_data_replication import position as floor
from starbase_data_replication.columns import selected
from starbase_data_replication.errors import SchemaMismatch, SourceChanged, TableMissing
from starbase_data_replication.model import (
    Alive,
    Batch,
    Candidate,
    Exceptions,
    Options,
    Phase,
    Position,
    Progress,
    Row,
    TableName,
    TableSchema,
)
from starbase_data_replication.sources.base import Reader, ReadPlan, Source
from starbase_data_replication.store import Stored
from starbase_data_replication.target import Target
from starbase_data_replication.throttle import batch_rows, throttled
from starbase_data_replication.transforms import Transforms
from starbase_host import Clock, Database

# How long to wait for the transactions that are alive before a first load, whose floor is dear.
LOAD_CLOSE_WAIT_SECONDS = 30.0
POLL_SECONDS = 0.05
# A batch of a row so large is written before the next one is fetched: both at once would take twice the memory.
LARGE_BYTES = 8 * 1024 * 1024
MAX_NULL_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Synced:
    """What a sync did: rows written, where the position stands, what protects it, what to tell the user."""

    changed: int
    position: Position
    protection: str | None
    warnings: tuple[str, ...]


@dataclass(kw_only=True)
class Sync:
    """One sync of one replication. `identity` is what its position must be about.

    together: what is read is held back, and written by `commit` with what others of a group have read.
    """

    stored: Stored
    source: Source
    table: TableName
    identity: str
    database: Database
    clock: Clock
    progress: Progress
    transforms: Transforms = field(default_factory=Transforms)
    together: bool = False
    schema: TableSchema = field(init=False)
    _replica: Target = field(init=False)
    # As it is stored; and as this run goes on with it.
    _stored: Position = field(init=False)
    _position: Position = field(init=False)
    _closed: tuple[Candidate, ...] = field(default=(), init=False)
    _after: Position = field(init=False)
    _noted: Alive | None = field(default=None, init=False)
    _warnings: list[str] = field(default_factory=list, init=False)
    _exceptions: Counter[Exceptions] = field(default_factory=Counter, init=False)

    async def run(self) -> Synced:
        """Bring the replica up to date. Raises SyncError; what was committed until then stays and counts."""
        try:
            return await self._run()
        except SourceChanged:
            # The table changed between two steps: look at it again. Twice in a row is for the schedule.
            return await self._run()

    async def _run(self) -> Synced:
        await self.begin()
        await self.wait()
        self.open()
        await self.copy(self.source)
        return self.synced()

    async def begin(self) -> None:
        """Look at the table, make the replica fit it, and note who could still commit below the watermark."""
        position = await self.stored_position()
        self.schema = schema = await self.describe(position)
        self.progress.estimated_rows = schema.estimated_rows
        await self._prepare(position)
        self._warnings = [*schema.warnings, *_warnings(schema), *self._drift_warnings()]
        self._warnings += [*await self._null_rows(), *await self._rows_ahead()]
        if self._position.load_key is None and not self._whole:
            candidate = await self.source.note(schema, self._options, noted_at=self.clock.now())
            self._noted = candidate.alive if candidate is not None else None
            self._position = floor.add(self._position, candidate, self._options)

    async def wait(self) -> None:
        """Give the transactions that were alive a while to end."""
        if self._position.load_key is not None or self._whole:
            return
        loading = self._position.phase is Phase.LOAD
        seconds = LOAD_CLOSE_WAIT_SECONDS if loading else self._options.close_wait_seconds
        deadline = self.clock.monotonic() + seconds
        if any(not alive.ended for alive in floor.asked(self._position)):
            await self._ask_again()
        while floor.worth_waiting(self._position) and self.clock.monotonic() < deadline:
            await self.clock.sleep(POLL_SECONDS)
            await self._ask_again()

    def open(self) -> None:
        """Fix what the floor may rise to. Before the snapshot: only what is closed now may lift it after the read."""
        opened_at = self.clock.now()
        if self._position.phase is Phase.LOAD:
            opened_at = self._position.loading_since or opened_at
            self._position = floor.begin_load(self._position, now=opened_at)
        self._closed = floor.closed(self._position)
        risen = floor.rise(self._position, self._closed, self._options, now=opened_at)
        self._after = replace(floor.finished_load(risen), shape=self.schema.shape, dropped=tuple(self._replica.dropped))

    async def copy(self, reader: Reader) -> None:
        """Write each batch with the position it leads to, while the next one is being fetched."""
        writing: asyncio.Task[None] | None = None
        async with reader.read(self._plan()) as batches:
            try:
                async for batch in throttled(batches, self._options.max_rows_per_second, self.clock):
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(self._write(batch))
                    self.progress.rows += len(batch.rows)
                    self.progress.bytes += batch.bytes
                    self._exceptions.update(batch.exceptions)
                    if batch.bytes >= LARGE_BYTES:
                        await writing
                    del batch
                if writing is not None:
                    await writing
            finally:
                if writing is not None and not writing.done():
                    # A batch handed to the writer is committed, whatever happens here: do not lose sight of it.
                    await asyncio.wait({writing})

    def synced(self) -> Synced:
        """What was done, once all is written."""
        return Synced(
            changed=self.progress.changed,
            position=self._after,
            protection=self._protection(),
            warnings=(*self._warnings, *_told(self._exceptions)),
        )

    def commit(self, connection: apsw.Connection) -> None:
        """Write what was held back, and the position. Part of the group's one transaction."""
        store.check_revision(connection, self.stored)
        if self._position.into_shadow:
            self._warnings += self._replica.swap(connection)
        else:
            self.progress.changed += self._replica.merge(connection)
        if self._after != self._stored:
            store.save_position(connection, self.stored, self._after)

    async def stored_position(self) -> Position | None:
        """How far the replica has come; None before its first sync."""
        return await self.database.read(lambda connection: store.load_position(connection, self.stored))

    async def describe(self, position: Position | None) -> TableSchema:
        """What of the table is copied. Raises TableMissing, or SchemaMismatch for options that do not fit it."""
        shape = position.shape if position is not None and position.identity == self.identity else None
        try:
            described = await self.source.describe(self.table, self.stored.replication.tracking_column)
        except TableMissing as error:
            if shape is not None:
                self.progress.schema_changes = (str(error),)
                # A table that comes back under this name may be another one, with other rows.
                await self.database.write(self._forget)
            raise
        return selected(described, self._options, known=shape.columns if shape is not None else ())

    def _forget(self, connection: apsw.Connection) -> None:
        store.check_revision(connection, self.stored)
        store.delete_position(connection, self.stored)

    def replica(self, schema: TableSchema, dropped: Sequence[str] = (), former: Sequence[str] = ()) -> Target:
        """The SQLite side of this replication, for what the source looks like now."""
        name, mark = self.stored.replication.target_table, self._options.mark_column
        return Target(name, schema, shadow_id=self.stored.id, mark=mark, dropped=dropped, former=former)

    async def _prepare(self, position: Position | None) -> None:
        """Decide where to go on from, and make a table to write to."""
        schema, reload = self.schema, False
        dropped: tuple[str, ...] = ()
        if position is not None and position.identity == self.identity and position.shape is not None:
            found = drift.drift(position.shape, schema.shape)
            self.progress.schema_changes = found.texts
            reload = drift.must_reload(
                schema.table, position, schema.shape, found, self._options, name=self.stored.name
            )
            dropped = drift.dropped(position, schema, found, self._options)
        self._replica = self.replica(schema, dropped, _former(position, schema))
        fresh = position is None or position.identity != self.identity or self._whole or reload
        # What a group has read of a load that was cut short belongs to another moment than what it reads now.
        fresh |= self.together and position is not None and position.phase is Phase.LOAD
        if fresh and (schema.where is not None or self._options.key_columns is not None):
            await self.source.check(schema, key=self._options.key_columns is not None)
        start = None if fresh else position
        if start is None or not await self.database.read(partial(self._fits, position=start)):
            start = await self.database.write(partial(self._make_table, position=start))
        self._stored = self._position = start

    def _fits(self, connection: apsw.Connection, *, position: Position) -> bool:
        """Whether there is nothing to make."""
        return self._replica.fits(connection, shadow=position.into_shadow) and not self.together

    def _make_table(self, connection: apsw.Connection, *, position: Position | None) -> Position:
        replica = self._replica
        if position is not None:
            # Somebody may have dropped the table; what the position speaks of is gone then.
            written = replica.shadow if position.into_shadow else replica.name
            position = position if target.exists(connection, written) else None
        fresh = position is None
        if position is None:
            # Rows that are there already are not ours to trust: load beside them, and swap.
            occupied = target.exists_with_rows(connection, replica.name)
            if not store.owns_target(connection, replica.name):
                _check_foreign(connection, replica, occupied=occupied)
            store.own_target(connection, replica.name)
            position = Position(
                identity=self.identity,
                into_shadow=occupied or self._whole or self.together,
                shape=self.schema.shape,
                dropped=tuple(replica.dropped),
            )
        replica.match(connection, shadow=position.into_shadow, fresh=position.load_key is None)
        if self.together and not position.into_shadow:
            replica.match_stage(connection)
        if fresh:
            store.save_position(connection, self.stored, position)
        return position

    async def _ask_again(self) -> None:
        asked = floor.asked(self._position)
        self._position = floor.answered(self._position, await self.source.still_alive(asked))

    async def _write(self, batch: Batch) -> None:
        position = self._after if batch.last else _reached(self._position, batch)
        if not batch.rows and (self.together or position == self._stored):
            return
        rows = await self.transforms.apply(self.stored.name, self.schema, batch.rows)

        def write(connection: apsw.Connection) -> tuple[int, list[str]]:
            store.check_revision(connection, self.stored)
            changed = self._apply(connection, rows)
            if self.together:
                return changed, []
            swapped = self._replica.swap(connection) if batch.last and self._position.into_shadow else []
            store.save_position(connection, self.stored, position)
            return changed, swapped

        changed, warnings = await self.database.write(write)
        self._stored = position
        self.progress.changed += changed
        self._warnings += warnings

    def _apply(self, connection: apsw.Connection, rows: Sequence[Row]) -> int:
        rows, removed = self._sorted_out(rows)
        if self.together and not self._position.into_shadow:
            self._replica.hold(connection, rows, removed)
            return 0
        key = [self.schema.columns.index(column) for column in self.schema.key_columns]
        gone = self._replica.remove(connection, ([row[at] for at in key] for row in removed)) if key else 0
        return gone + self._replica.apply(connection, rows)

    def _sorted_out(self, rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
        """The rows to write, and those that are to be removed: deleted by their own column, or past the filter."""
        removed: list[Row] = []
        if self._departures:
            removed = [row[:-1] for row in rows if not int(row[-1])]
            rows = [row[:-1] for row in rows if int(row[-1])]
        if self._options.deleted_column is not None:
            at = [column.name for column in self.schema.columns].index(self._options.deleted_column)
            removed += [row for row in rows if row[at] is not None]
            rows = [row for row in rows if row[at] is None]
        return rows, removed

    async def _null_rows(self) -> list[str]:
        """Look after rows without a tracking value, as `nullTracking` says; what to tell the user of them."""
        schema, policy = self.schema, self._options.null_tracking
        if not schema.tracking.nullable or (policy == "read" and self._position.phase is Phase.LOAD):
            return []
        limit = {"read": MAX_NULL_ROWS + 1, "error": 1, "ignore": None}[policy]
        found = await self.source.count_nulls(schema, at_most=limit)
        name = schema.tracking_column
        if policy == "ignore":
            return [f"{found} rows have no {name} and are ignored, as nullTracking says"] if found else []
        if found and policy == "error":
            raise SchemaMismatch(f"nullTracking: rows of {schema.table} have no {name}; fill it, or set read or ignore")
        if found > MAX_NULL_ROWS:
            raise SchemaMismatch(
                f"nullTracking: more than {MAX_NULL_ROWS} rows of {schema.table} have no {name}, and would be read at "
                "every sync; fill it, or set nullTracking to ignore"
            )
        return []

    async def _rows_ahead(self) -> list[str]:
        if self._whole:
            return []
        schema = self.schema
        found = await self.source.count_ahead(schema, self._options, at_most=MAX_NULL_ROWS)
        if not found:
            return []
        rows = "1 row" if found == 1 else f"{found} rows" if found < MAX_NULL_ROWS else f"at least {found} rows"
        return [f"{rows} of {schema.table} lie in the future of {schema.tracking_column}, and are read at every sync"]

    def _drift_warnings(self) -> list[str]:
        changes = self.progress.schema_changes
        if not changes:
            return []
        said = [f"{self.schema.table} has changed: {'; '.join(changes)}"]
        if self._position.phase is Phase.FOLLOW and any(change.endswith("was added") for change in changes):
            said.append(
                "rows that were copied before a column was added hold NULL in it until they change; "
                "verify with repair, or set onSchemaChange to backfill"
            )
        return said

    def _protection(self) -> str | None:
        """What protects against late commits, and why; None where this sync has learnt nothing of it."""
        if self._whole:
            return "full: the table is loaded whole at each sync"
        if self._noted is None:
            return None
        kind = "transactions" if self._noted.known else "lookback"
        return f"{kind}: {self._noted.reason}" if self._noted.reason else kind

    def _plan(self) -> ReadPlan:
        schema, nulls = self.schema, self._options.null_tracking != "ignore"
        rows = batch_rows(ReadPlan.batch_rows, self._options.max_rows_per_second)
        plan = ReadPlan(schema=schema, nulls=nulls, batch_rows=rows)
        if self._position.phase is Phase.LOAD:
            key = self._position.load_key
            return replace(plan, after_key=key, in_key_order=bool(schema.key))
        return replace(plan, floor=self._position.floor, departed=self._departures)

    @property
    def _departures(self) -> bool:
        """Whether rows are read that may have left the filter since they were copied."""
        return self.schema.where is not None and self._position.phase is Phase.FOLLOW

    @property
    def _whole(self) -> bool:
        """Whether every sync loads the whole table, so that nothing is ever followed."""
        return not self.schema.key or self._options.mode == "full"

    @property
    def _options(self) -> Options:
        return self.stored.replication.options


def _reached(position: Position, batch: Batch) -> Position:
    """Where a batch in the middle of a read leads: along the key in a first load; nowhere, when following."""
    return replace(position, load_key=batch.last_key) if position.phase is Phase.LOAD else position


def _former(position: Position | None, schema: TableSchema) -> list[str]:
    """The names that columns which the source still has were last given in the replica."""
    if position is None or position.shape is None:
        return []
    there = {column.name for column in (*schema.columns, *schema.left_out)}
    return [column[2] for name, column in position.shape.columns.items() if name in there]


def _check_foreign(connection: apsw.Connection, replica: Target, *, occupied: bool) -> None:
    """A table that somebody else has made is used when it is empty and fits; its rows are not ours to replace."""
    if occupied:
        raise SchemaMismatch(
            f"table {replica.name} exists and holds rows that are no replica's; empty it, or choose another targetTable"
        )
    replica.check_fit(connection)


def _told(exceptions: Counter[Exceptions]) -> list[str]:
    return [f"column {each.column}: of the values read, {count} {each.policy}" for each, count in exceptions.items()]


def _warnings(schema: TableSchema) -> list[str]:
    unknown = [f"{column.name} ({column.source_type})" for column in schema.columns if not column.cast.known]
    warnings = [f"type not in the ledger, kept as the source's text: {', '.join(unknown)}"] if unknown else []
    if not schema.key:
        warnings.append(
            f"{schema.table} has no primary key and no unique index without NULLs: every sync loads it whole"
        )
    return warnings
