"""One sync, from the source's table to the replica: the algorithm, and nothing else.

The order of the steps is what keeps rows from being lost; see watermarks.py for why. A group of tables takes the
same steps side by side, and commits once: see group.py.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import apsw

from starbase_data_replication.errors import ReadAgain, catch_exits, retrieve_error
from starbase_data_replication.model import (
    Batch,
    Options,
    Phase,
    Position,
    Progress,
    Row,
    TableName,
    TableSchema,
    UnrepresentableValues,
)
from starbase_data_replication.sources import (
    MAX_SHARED,
    Feature,
    Inspector,
    Reader,
    ReadPlan,
    RegisteredDialect,
    Source,
    checked_batches,
    inspecting,
)
from starbase_data_replication.storage import StoredReplication, Target, store, user_objects
from starbase_data_replication.sync import resume, rewind, tracking_values
from starbase_data_replication.sync import warnings as sync_warnings
from starbase_data_replication.sync.attempts import attempt_again
from starbase_data_replication.sync.kept_rows import KeptRows
from starbase_data_replication.sync.mixed_uuids import MixedUuids
from starbase_data_replication.sync.prepare import Preparation
from starbase_data_replication.sync.rate_limit import batch_rows, limit_rate
from starbase_data_replication.sync.selection import check_unique
from starbase_data_replication.sync.start import Follow, LoadIntoShadow, ReplaceWhole, ResumeLoad, Start
from starbase_data_replication.sync.sync_floor import SyncFloor
from starbase_data_replication.sync.transforms import Transforms
from starbase_host import Clock, Database

# A larger batch is written before the next one is fetched, so that only one such batch is in memory. An ordinary batch
# of some thousand rows is below this, and is written while the next one comes.
LARGE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class SyncResult:
    """What a sync did.

    Attributes:
        changed: rows inserted, updated or removed in the replica.
        position: how far the replica has come.
        protection: what protects rows that are committed late, in words; None if this sync did not learn it.
        warnings: what to tell the user.
        held: what the floor waits for, as it is shown; None if it has not waited for long.
    """

    changed: int
    position: Position
    protection: str | None
    warnings: tuple[str, ...]
    held: Mapping[str, Any] | None = None


@dataclass(kw_only=True)
class Sync:
    """One sync of one replication.

    Attributes:
        stored: the replication as its run began with it.
        source: where its table is.
        dialect: what is known of the source's dialect.
        table: the source's table.
        identity: what the position must be about.
        database: the internal database.
        clock: the host's.
        progress: the run's; the sync writes it.
        transforms: the plugins that change values.
        together: whether it is one of a group: what is read is then staged, and written by `commit` with the group's.
        force: whether rows are removed that may only be hidden from the source's user.
        added_seconds: how long a batch may take if users have added triggers and the like.
        preparation: how the sync is prepared.
        schema: what of the table is copied, once it is prepared.
    """

    stored: StoredReplication
    source: Source
    dialect: RegisteredDialect
    table: TableName
    identity: str
    database: Database
    clock: Clock
    progress: Progress
    transforms: Transforms = field(default_factory=Transforms)
    together: bool = False
    force: bool = False
    added_seconds: float = user_objects.SECONDS
    preparation: Preparation = field(init=False)
    schema: TableSchema = field(init=False)
    _start: Start = field(init=False)
    _replica: Target = field(init=False)
    _floor: SyncFloor = field(init=False)
    _saved_position: Position = field(init=False)
    # What the sync ends with.
    _end_position: Position = field(init=False)
    # Whether an attempt of this run has found a replica that was followed, and loads it whole from now on.
    _was_followed: bool = field(default=False, init=False)
    # Looks for random uuids in what is read, if the tracking column may hold some.
    _mixed_uuids: MixedUuids | None = field(default=None, init=False)
    _warnings: list[str] = field(default_factory=list, init=False)
    _unrepresentable: Counter[UnrepresentableValues] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self.preparation = Preparation(
            stored=self.stored,
            table=self.table,
            identity=self.identity,
            database=self.database,
            progress=self.progress,
            together=self.together,
            added_seconds=self.added_seconds,
        )

    async def run(self) -> SyncResult:
        """Bring the replica up to date. Raises SyncError; what was committed until then stays and counts."""
        return await attempt_again(self._run)

    async def _run(self) -> SyncResult:
        result = await self._run_once()
        if not isinstance(self._start, ResumeLoad):
            return result
        # What the load had read before it was interrupted may have changed since: a success must not leave it stale.
        followed = await self._run_once()
        return replace(followed, warnings=tuple(dict.fromkeys((*result.warnings, *followed.warnings))))

    async def _run_once(self) -> SyncResult:
        await self.prepare()
        await self.wait()
        self.fix_floor()
        await self.copy(self.source)
        return self.result()

    async def prepare(self) -> None:
        """Describe the table, make the replica fit it, and note the high watermark. Raises ReadAgain."""
        saved = await self.preparation.stored_position()
        async with inspecting(self.source, self.table) as inspector:
            moved_reason = await self._prepare_with(inspector, saved)
        self._warnings += await self._floor.check_source()
        if isinstance(self._start, ResumeLoad):
            await self._check_rows_read(moved_reason)

    async def wait(self) -> None:
        """Give the transactions that could commit below the watermark a while to end."""
        if self._start.reads_watermark:
            self._warnings += await self._floor.wait()

    def fix_floor(self) -> None:
        """Fix what the floor rises to. Before the snapshot: only what is closed now may lift it after the read."""
        self._end_position = self._floor.fix()

    async def copy(self, reader: Reader) -> None:
        """Write each batch with the position it leads to, while the next one is being fetched."""
        writing: asyncio.Task[None] | None = None
        plan = self._plan()
        async with reader.read(plan) as batches:
            try:
                checked = checked_batches(batches, plan)
                async for batch in limit_rate(checked, self._options.max_rows_per_second, self.clock):
                    if self._mixed_uuids is not None and (
                        what := self._mixed_uuids.find(batch.rows, now=self.clock.now())
                    ):
                        raise tracking_values.mixed(self.schema, what)
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(catch_exits(self._write, batch))
                    writing.add_done_callback(retrieve_error)
                    self.progress.rows += len(batch.rows)
                    self.progress.bytes += batch.bytes
                    self._unrepresentable.update(batch.unrepresentable)
                    if batch.bytes >= LARGE_BYTES:
                        await writing
                    del batch
                if writing is not None:
                    await writing
            finally:
                if writing is not None:
                    # The writer commits a batch that it was given, unless the run was recorded before: wait for it.
                    await asyncio.wait({writing})
        if self._swaps_after_read:
            await self._swap_in()

    async def _swap_in(self) -> None:
        """All is in the shadow: decide about the rows that it lacks, and put it in the replica's place."""
        kept_rows = KeptRows(
            preparation=self.preparation,
            replica=self._replica,
            schema=self.schema,
            source=self.source,
            clock=self.clock,
            position=self._saved_position,
            force=self.force,
        )
        self._warnings += await kept_rows.keep()

        def swap(connection: apsw.Connection) -> list[str]:
            self.preparation.check(connection, self._replica)
            swapped = self.preparation.swap(connection, self._replica)
            store.save_position(connection, self.stored, self._end_position)
            return swapped

        if not self.together:
            self._warnings += await self.database.write(swap)

    def result(self) -> SyncResult:
        """What the sync did, once everything is written."""
        read_again = max(0, self.progress.rows - self.progress.changed)
        held = self._floor.held
        return SyncResult(
            changed=self.progress.changed,
            held=held.as_dict(rows=read_again) if held is not None else None,
            position=self._end_position,
            protection=sync_warnings.protection(
                self._floor.open_transactions, schema=self.schema, whole=isinstance(self._start, ReplaceWhole)
            ),
            warnings=(
                *self._warnings,
                *sync_warnings.of_unknown_transactions(self._end_position, self._floor.unknown_reason),
                *(held.warnings(rows=read_again) if held is not None else ()),
                *sync_warnings.of_unrepresentable(self._unrepresentable),
            ),
        )

    def commit(self, connection: apsw.Connection) -> int:
        """Write what was staged, and the position. Part of the group's one transaction.

        Return how many rows of the replica it changed; they count once the transaction is committed.
        """
        self.preparation.check(connection, self._replica)
        changed = 0
        if self._start.position.into_shadow:
            self._warnings += self.preparation.swap(connection, self._replica)
        elif changed := self._replica.merge_stage(connection):
            store.mark_uncounted(connection, self.stored)
        if self._end_position != self._saved_position:
            store.save_position(connection, self.stored, self._end_position)
        return changed

    async def _prepare_with(self, inspector: Inspector, saved: Position | None) -> str | None:
        """The part of `prepare` that needs the inspector.

        Returns why an interrupted load may not go on, if the table's rows have moved; else None.
        """
        self.schema = schema = await self.preparation.describe(inspector, saved)
        self.progress.estimated_rows = schema.estimated_rows
        self._replica, self._start = await self.preparation.prepare(inspector, schema, saved)
        self._saved_position = position = self._start.position
        if saved is not None and saved.identity == self.identity and position.shows_transactions is None:
            # A load that starts over reads from the same source.
            position = replace(position, shows_transactions=saved.shows_transactions)
        if isinstance(self._start, LoadIntoShadow | ReplaceWhole):
            # What an earlier attempt has written into a shadow is gone.
            self.progress.changed = 0
        moved_reason: str | None = None
        if not isinstance(self._start, Follow | ReplaceWhole) and not self.together:
            files = await resume.files_of(inspector, schema)
            if isinstance(self._start, ResumeLoad):
                moved_reason = resume.moved_reason(position, schema, files)
            else:
                position = replace(position, files=files, server=schema.server)
        self._floor = SyncFloor(
            source=self.source, preparation=self.preparation, replica=self._replica, schema=schema, clock=self.clock,
            saved=self._saved_position, position=position,
        )  # fmt: skip
        self._unrepresentable.clear()
        self._warnings = [*schema.warnings, *sync_warnings.of_table(schema), *self._replica.warnings]
        self._warnings += sync_warnings.of_dialect(self.dialect, schema, whole=self.preparation.whole(schema))
        self._warnings += sync_warnings.of_schema_changes(schema, self.progress.schema_changes, position.phase)
        self._warnings += sync_warnings.of_reload(self._start)
        self._warnings += await sync_warnings.null_rows(
            inspector, schema, self._options, followed=self._start.reads_watermark
        )
        self._mixed_uuids = None
        if isinstance(self._start, ReplaceWhole):
            self._was_followed |= bool(schema.key) and saved is not None and saved.floor is not None
            return moved_reason
        if self._start.reads_watermark:
            self._warnings += await self._floor.note(inspector)
        position = self._floor.position
        highest = position.candidates[-1].value if position.candidates else position.floor
        self._mixed_uuids = MixedUuids.of(schema, highest)
        return moved_reason

    async def _check_rows_read(self, moved_reason: str | None) -> None:
        """Go on with a load only if the rows that it has read are still there. Raises ReadAgain if they are not."""
        rows = rewind.Rows(
            reader=self.source, database=self.database, table=self._replica.table, schema=self.schema,
            options=self._options,
        )  # fmt: skip
        reason = moved_reason or await resume.RowsRead(rows=rows).why()
        if reason is not None:
            await self.preparation.must_load_again(self._saved_position, reason)
            raise ReadAgain(reason)

    async def _write(self, batch: Batch) -> None:
        ends = batch.last and not self._swaps_after_read
        position = self._end_position if ends else _position_behind(batch, self._floor.position)
        if not batch.rows and (self.together or self._swaps_after_read or position == self._saved_position):
            return
        check_unique(batch.rows, self.schema, self._options)
        rows = await self.transforms.apply(self.stored.name, self.schema, batch.rows)

        def write(connection: apsw.Connection) -> tuple[int, list[str]]:
            self.preparation.check(connection, self._replica)
            changed = self._apply_rows(connection, rows)
            if self.together:
                return changed, []
            swapped: list[str] = []
            if ends and self._start.position.into_shadow:
                swapped = self.preparation.swap(connection, self._replica)
            elif changed:
                store.mark_uncounted(connection, self.stored)
            store.save_position(connection, self.stored, position)
            return changed, swapped

        changed, warnings = await self.database.write(write)
        if not self.together:
            self._saved_position = position
        self.progress.changed += changed
        self._warnings += warnings

    def _apply_rows(self, connection: apsw.Connection, rows: Sequence[Row]) -> int:
        rows, removed = self._split_removed(rows)
        if self.together and not self._start.position.into_shadow:
            self._replica.put_on_stage(connection, rows, removed)
            return 0
        places = {column.name: at for at, column in enumerate(self.schema.columns)}
        key = [places[name] for name in self.schema.key]
        gone = self._replica.remove(connection, ([row[at] for at in key] for row in removed)) if key else 0
        return gone + self._replica.apply(connection, rows)

    def _split_removed(self, rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
        """The rows to write, and those that are to be removed: deleted by their own column, or past the filter."""
        removed: list[Row] = []
        if self._reads_left_filter:
            removed = [row[:-1] for row in rows if not int(row[-1])]
            rows = [row[:-1] for row in rows if int(row[-1])]
        if self._options.deleted_column is not None:
            at = [column.name for column in self.schema.columns].index(self._options.deleted_column)
            removed += [row for row in rows if row[at] is not None]
            rows = [row for row in rows if row[at] is None]
        return rows, removed

    def _plan(self) -> ReadPlan:
        schema, nulls = self.schema, self._options.null_tracking != "ignore"
        rows = batch_rows(ReadPlan.batch_rows, self._options.max_rows_per_second)
        plan = ReadPlan(schema=schema, nulls=nulls, batch_rows=rows)
        position = self._floor.position
        if not isinstance(self._start, Follow):
            resumes = bool(schema.key) and Feature.RESUME in self.dialect.features
            return replace(plan, after_key=position.load_key, in_key_order=resumes)
        floor_is_shared = 1 < self._floor.shared_rows <= MAX_SHARED
        return replace(plan, floor=position.floor, from_floor=floor_is_shared, left_filter=self._reads_left_filter)

    @property
    def _reads_left_filter(self) -> bool:
        """Whether rows are read, too, that may have left the filter since they were copied."""
        return self.schema.where is not None and isinstance(self._start, Follow)

    @property
    def _swaps_after_read(self) -> bool:
        """Whether the shadow is swapped in once all is read, and not with the last batch: the replica that it replaces
        may hold rows that the load does not find, and that are kept."""
        if isinstance(self._start, ReplaceWhole):
            return self._was_followed or self.schema.hidden is not None
        return self._start.position.into_shadow

    @property
    def _options(self) -> Options:
        return self.stored.replication.options


def _position_behind(batch: Batch, position: Position) -> Position:
    """The position behind a batch in the middle of a read: a load has come along the key, following has not moved."""
    return replace(position, load_key=batch.last_key) if position.phase is Phase.LOAD else position
