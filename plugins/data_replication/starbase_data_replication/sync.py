"""One sync, from the source's table to the replica: the algorithm, and nothing else.

The order of the steps is what keeps rows from being lost; see position.py for why.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import apsw

from starbase_data_replication import position as floor
from starbase_data_replication import store, target
from starbase_data_replication.errors import SchemaMismatch
from starbase_data_replication.model import (
    Alive,
    Batch,
    Options,
    Phase,
    Position,
    Progress,
    Row,
    TableName,
    TableSchema,
)
from starbase_data_replication.sources.base import ReadPlan, Source
from starbase_data_replication.store import Stored
from starbase_data_replication.target import Target
from starbase_host import Clock, Database

# How long to wait for the transactions that are alive before a first load, whose floor is dear.
LOAD_CLOSE_WAIT_SECONDS = 30.0
POLL_SECONDS = 0.05
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
    """One sync of one replication. `identity` is what its position must be about."""

    stored: Stored
    source: Source
    table: TableName
    identity: str
    database: Database
    clock: Clock
    progress: Progress
    _noted: Alive | None = None

    async def run(self) -> Synced:
        """Bring the replica up to date. Raises SyncError; what was committed until then stays and counts."""
        schema = await self.source.describe(self.table, self.stored.replication.tracking_column)
        self.progress.estimated_rows = schema.estimated_rows
        _check_deleted_column(schema, self._options)
        replica = Target(
            self.stored.replication.target_table, schema, shadow_id=self.stored.id, mark=self._options.mark_column
        )
        position = await self.database.write(lambda connection: self._prepare(connection, replica))
        notices = [*await self._null_rows(schema, position), *await self._rows_ahead(schema)]
        if position.load_key is None and not self._whole(schema):
            position = await self._note(schema, position)
            position = await self._wait(position)
        # Before the snapshot: only what is closed by now may lift the floor after the read.
        opened_at = self.clock.now()
        if position.phase is Phase.LOAD:
            opened_at = position.loading_since or opened_at
            position = floor.begin_load(position, now=opened_at)
        closed = floor.closed(position)
        async with self.source.read(_plan(schema, position, self._options)) as batches:
            after = floor.finished_load(floor.rise(position, closed, self._options, now=opened_at))
            warnings = await self._copy(batches, replica, position, after)
        return Synced(
            changed=self.progress.changed,
            position=after,
            protection=self._protection(schema),
            warnings=(*schema.warnings, *_warnings(schema), *notices, *warnings),
        )

    def _prepare(self, connection: apsw.Connection, replica: Target) -> Position:
        """The position to go on from, and a table to write to."""
        position = store.load_position(connection, self.stored)
        whole = self._whole(replica.schema)
        fresh = position is None or position.identity != self.identity or whole
        if position is not None and not fresh:
            # Somebody dropped the table; what the position speaks of is gone.
            written = replica.shadow if position.into_shadow else replica.name
            fresh = not target.exists(connection, written)
        if position is None or fresh:
            # Rows that are there already are not ours to trust: load beside them, and swap.
            occupied = target.exists_with_rows(connection, replica.name)
            if not store.owns_target(connection, replica.name):
                _check_foreign(connection, replica, occupied=occupied)
            store.own_target(connection, replica.name)
            position = Position(identity=self.identity, into_shadow=occupied or whole)
        replica.match(connection, shadow=position.into_shadow, fresh=position.load_key is None)
        if fresh:
            store.save_position(connection, self.stored, position)
        return position

    async def _note(self, schema: TableSchema, position: Position) -> Position:
        candidate = await self.source.note(schema, self._options, noted_at=self.clock.now())
        self._noted = candidate.alive if candidate is not None else None
        return floor.add(position, candidate, self._options)

    async def _wait(self, position: Position) -> Position:
        """Give the transactions that were alive a while to end."""
        loading = position.phase is Phase.LOAD
        seconds = LOAD_CLOSE_WAIT_SECONDS if loading else self._options.close_wait_seconds
        deadline = self.clock.monotonic() + seconds
        if any(not alive.ended for alive in floor.asked(position)):
            position = floor.answered(position, await self.source.still_alive(floor.asked(position)))
        while floor.worth_waiting(position) and self.clock.monotonic() < deadline:
            await self.clock.sleep(POLL_SECONDS)
            position = floor.answered(position, await self.source.still_alive(floor.asked(position)))
        return position

    async def _copy(
        self, batches: AsyncIterator[Batch], replica: Target, before: Position, after: Position
    ) -> list[str]:
        """Write each batch with the position it leads to, while the next one is being fetched."""
        warnings: list[str] = []
        writing: asyncio.Task[list[str]] | None = None
        try:
            async for batch in batches:
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._write(batch, replica, before, after))
                self.progress.rows += len(batch.rows)
                self.progress.bytes += batch.bytes
            if writing is not None:
                warnings = await writing
        finally:
            if writing is not None and not writing.done():
                # A batch handed to the writer is committed, whatever happens here: do not lose sight of it.
                await asyncio.wait({writing})
        return warnings

    async def _write(self, batch: Batch, replica: Target, before: Position, after: Position) -> list[str]:
        position = after if batch.last else _reached(before, batch)
        if not batch.rows and position == await self._stored_position():
            return []

        def commit(connection: apsw.Connection) -> tuple[int, list[str]]:
            store.check_revision(connection, self.stored)
            changed = self._apply(connection, replica, batch.rows) if batch.rows else 0
            swapped = replica.swap(connection) if batch.last and before.into_shadow else []
            store.save_position(connection, self.stored, position)
            return changed, swapped

        changed, warnings = await self.database.write(commit)
        self.progress.changed += changed
        return warnings

    def _apply(self, connection: apsw.Connection, replica: Target, rows: Sequence[Row]) -> int:
        column = self._options.deleted_column
        if column is None:
            return replica.apply(connection, rows)
        names = [each.name for each in replica.schema.columns]
        at, key = names.index(column), [names.index(name) for name in replica.schema.key]
        removed = (
            replica.remove(connection, ([row[i] for i in key] for row in rows if row[at] is not None)) if key else 0
        )
        return removed + replica.apply(connection, [row for row in rows if row[at] is None])

    async def _null_rows(self, schema: TableSchema, position: Position) -> list[str]:
        """Look after rows without a tracking value, as `nullTracking` says; what to tell the user of them."""
        policy = self._options.null_tracking
        if not schema.tracking.nullable or (policy == "read" and position.phase is Phase.LOAD):
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

    async def _rows_ahead(self, schema: TableSchema) -> list[str]:
        if self._whole(schema):
            return []
        found = await self.source.count_ahead(schema, self._options, at_most=MAX_NULL_ROWS)
        if not found:
            return []
        rows = "1 row" if found == 1 else f"{found} rows" if found < MAX_NULL_ROWS else f"at least {found} rows"
        return [f"{rows} of {schema.table} lie in the future of {schema.tracking_column}, and are read at every sync"]

    def _protection(self, schema: TableSchema) -> str | None:
        """What protects against late commits, and why; None where this sync has learnt nothing of it."""
        if self._whole(schema):
            return "full: the table is loaded whole at each sync"
        if self._noted is None:
            return None
        kind = "transactions" if self._noted.known else "lookback"
        return f"{kind}: {self._noted.reason}" if self._noted.reason else kind

    def _whole(self, schema: TableSchema) -> bool:
        """Whether every sync loads the whole table, so that nothing is ever followed."""
        return not schema.key or self._options.mode == "full"

    async def _stored_position(self) -> Position | None:
        return await self.database.read(lambda connection: store.load_position(connection, self.stored))

    @property
    def _options(self) -> Options:
        return self.stored.replication.options


def _reached(position: Position, batch: Batch) -> Position:
    """Where a batch in the middle of a read leads: along the key in a first load; nowhere, when following."""
    return replace(position, load_key=batch.last_key) if position.phase is Phase.LOAD else position


def _plan(schema: TableSchema, position: Position, options: Options) -> ReadPlan:
    nulls = options.null_tracking != "ignore"
    if position.phase is Phase.LOAD:
        return ReadPlan(schema=schema, after_key=position.load_key, in_key_order=bool(schema.key), nulls=nulls)
    return ReadPlan(schema=schema, floor=position.floor, nulls=nulls)


def _check_foreign(connection: apsw.Connection, replica: Target, *, occupied: bool) -> None:
    """A table that somebody else has made is used when it is empty and fits; its rows are not ours to replace."""
    if occupied:
        raise SchemaMismatch(
            f"table {replica.name} exists and holds rows that are no replica's; empty it, or choose another targetTable"
        )
    replica.check_fit(connection)


def _check_deleted_column(schema: TableSchema, options: Options) -> None:
    column = options.deleted_column
    if column is not None and column not in [each.name for each in schema.columns]:
        raise SchemaMismatch(f"deletes.sourceColumn: {schema.table} has no column {column}")


def _warnings(schema: TableSchema) -> list[str]:
    unknown = [f"{column.name} ({column.source_type})" for column in schema.columns if not column.cast.known]
    warnings = [f"type not in the ledger, kept as the source's text: {', '.join(unknown)}"] if unknown else []
    if not schema.key:
        warnings.append(
            f"{schema.table} has no primary key and no unique index without NULLs: every sync loads it whole"
        )
    return warnings
