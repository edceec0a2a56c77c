"""One sync, from the source's table to the replica: the algorithm, and nothing else.

The order of the steps is what keeps rows from being lost; see watermarks.py for why. A group of tables takes the
same steps side by side, and commits once: see group.py.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import apsw

from starbase_data_replication.errors import ReadAgain, ReplicaChanged, SourceChanged, catch_exits, retrieve_error
from starbase_data_replication.model import (
    Batch,
    Candidate,
    HighWatermark,
    OpenTransactions,
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
    Inspector,
    Reader,
    ReadPlan,
    Rewindable,
    Sharing,
    Source,
    inspecting,
)
from starbase_data_replication.storage import StoredReplication, Target, store, user_objects
from starbase_data_replication.sync import resume, rewind, tracking_values
from starbase_data_replication.sync import warnings as notices
from starbase_data_replication.sync import watermarks as floor
from starbase_data_replication.sync.held_floor import Holding, look_at
from starbase_data_replication.sync.kept_rows import Keeping
from starbase_data_replication.sync.mixed_uuids import Mixed
from starbase_data_replication.sync.prepare import Preparation
from starbase_data_replication.sync.rate_limit import batch_rows, throttled
from starbase_data_replication.sync.selection import check_unique
from starbase_data_replication.sync.source_changes import LookingBack
from starbase_data_replication.sync.transforms import Transforms
from starbase_host import Clock, Database

# How long to wait for the transactions that are alive before a first load, whose floor is dear.
LOAD_CLOSE_WAIT_SECONDS = 30.0
POLL_SECONDS = 0.05
# A batch of a row so large is written before the next one is fetched: both at once would take twice the memory.
LARGE_BYTES = 8 * 1024 * 1024

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SyncResult:
    """What a sync did: rows written, where the position stands, what protects it, what to tell the user.

    held: what the floor has waited for, where it has for long.
    """

    changed: int
    position: Position
    protection: str | None
    warnings: tuple[str, ...]
    held: Mapping[str, Any] | None = None


@dataclass(kw_only=True)
class Sync:
    """One sync of one replication. `identity` is what its position must be about.

    force: rows are let go that may only be hidden from this user.
    together: what is read is held back, and written by `commit` with what others of a group have read.
    """

    stored: StoredReplication
    source: Source
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
    _replica: Target = field(init=False)
    # As it is stored; and as this run goes on with it.
    _stored: Position = field(init=False)
    _position: Position = field(init=False)
    _closed: tuple[Candidate, ...] = field(default=(), init=False)
    _after: Position = field(init=False)
    _noted: OpenTransactions | None = field(default=None, init=False)
    # Why the source did not tell who is alive, when it was last asked and did not.
    _untold: str = field(default="", init=False)
    # What the floor has waited for, where it has for long.
    _holding: Holding | None = field(default=None, init=False)
    # Why a load that was interrupted may not go on, by what its rows lie in.
    _moved: str | None = field(default=None, init=False)
    # Whether the replica was followed until now, and is loaded whole from now on.
    _followed: bool = field(default=False, init=False)
    # What was noted last, where there was a floor.
    _latest: HighWatermark | None = field(default=None, init=False)
    # Looks for random values in what is read, where those of the tracking column may be mixed.
    _mixed: Mixed | None = field(default=None, init=False)
    # How many rows had the floor's value when it was asked last.
    _shared: int = field(default=0, init=False)
    _warnings: list[str] = field(default_factory=list, init=False)
    _exceptions: Counter[UnrepresentableValues] = field(default_factory=Counter, init=False)

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
        return await tried_again(self._run)

    async def _run(self) -> SyncResult:
        await self.begin()
        resumed = self._position.phase is Phase.LOAD and self._position.load_key is not None
        done = await self._finish()
        if not resumed:
            return done
        # What the load had read before it was interrupted may have changed since: a success must not leave it stale.
        await self.begin()
        followed = await self._finish()
        return replace(followed, warnings=tuple(dict.fromkeys((*done.warnings, *followed.warnings))))

    async def _finish(self) -> SyncResult:
        await self.wait()
        self.open()
        await self.copy(self.source)
        return self.synced()

    async def begin(self) -> None:
        """Look at the table, make the replica fit it, and note who could still commit below the watermark."""
        position = await self.preparation.stored_position()
        async with inspecting(self.source, self.table) as inspector:
            await self._begin(inspector, position)
        await self._look_back()
        await self._look_at_what_was_read()

    async def _begin(self, inspector: Inspector, position: Position | None) -> None:
        self.schema = schema = await self.preparation.describe(inspector, position)
        self.progress.estimated_rows = schema.estimated_rows
        self._replica, self._stored = await self.preparation.prepare(inspector, schema, position)
        self._position = self._stored
        if position is not None and position.identity == self.identity and self._position.shows_transactions is None:
            # A load that starts over reads from the same source.
            self._position = replace(self._position, shows_transactions=position.shows_transactions)
        if self._position.into_shadow and self._position.load_key is None:
            # Whatever an attempt before this one has written into a shadow is gone.
            self.progress.changed = 0
        if self._position.phase is Phase.LOAD and not self._whole and not self.together:
            await self._locate(inspector)
        self._exceptions.clear()
        self._warnings = [*schema.warnings, *notices.of_table(schema), *self._replica.warnings]
        self._warnings += notices.of_drift(schema, self.progress.schema_changes, self._position.phase)
        self._warnings += notices.of_reload(self._position)
        followed = not self._whole and self._position.load_key is None
        self._warnings += await notices.null_rows(inspector, schema, self._options, followed=followed)
        self._mixed = None
        if self._whole:
            self._followed |= bool(schema.key) and position is not None and position.floor is not None
            return
        if self._position.load_key is None:
            noted = await self._note(inspector)
            self._warnings += [*self._doubts(noted), *notices.of_rows_ahead(schema, noted.ahead)]
            self._warnings += notices.of_shared(schema, noted)
        noted_last = self._position.candidates[-1].value if self._position.candidates else self._position.floor
        self._mixed = Mixed.of(schema, noted_last)

    async def _note(self, inspector: Inspector) -> HighWatermark:
        """Note the watermark, and who could still commit below it."""
        above = floor.reached(self._position)
        if above is not None and isinstance(inspector, Rewindable):
            noted_at, at = self.clock.now(), self._position.floor
            if isinstance(inspector, Sharing):
                noted = await inspector.read_high_watermark(
                    self.schema, self._options, noted_at=noted_at, floor=above, at=at
                )
            else:
                noted = await inspector.read_high_watermark(self.schema, self._options, noted_at=noted_at, floor=above)
            self._shared = noted.shared
            if noted.candidate is None:
                # Nothing is left of what was read: whatever comes in may begin anywhere.
                self._position = floor.lowered(self._position, None)
        else:
            noted = await inspector.read_high_watermark(self.schema, self._options, noted_at=self.clock.now())
        self._noted = noted.candidate.open_transactions if noted.candidate is not None else None
        self._untold = "" if self._noted is None or self._noted.known else self._noted.reason
        self._latest = noted if above is not None else None
        if noted.below is None:
            protected = self.schema.unprotected is None
            self._position = floor.add(self._position, noted.candidate, self._options, protected=protected)
        return noted

    def _doubts(self, noted: HighWatermark) -> list[str]:
        """What to tell the user of the tracking column's values. Raises SchemaMismatch for those that do not rise."""
        highest = noted.candidate.value if noted.candidate is not None else None
        named = self.stored.replication.tracking_column is not None
        return tracking_values.of_value(self.schema, highest, named=named, now=self.clock.now())

    async def _look_back(self) -> None:
        """Go on only from what still is the source that was read. Raises ReadAgain where the table is to be loaded."""
        if self._latest is None:
            return
        looking_back = LookingBack(
            source=self.source, database=self.database, clock=self.clock, replica=self._replica.name,
            schema=self.schema, options=self._options, files=self._stored.files, server=self._stored.server,
        )  # fmt: skip
        found = await looking_back.judge(self._latest, self._position)
        if found.load_again is not None:
            # Stored, since nothing will tell of it any more.
            await self.preparation.must_load_again(self._stored, found.load_again)
            raise ReadAgain(found.load_again)
        self._position = found.position
        self._warnings += found.warnings

    async def _locate(self, inspector: Inspector) -> None:
        """Keep what the rows lie in with a load that begins; and compare it where one goes on."""
        files = await resume.lies_in(inspector, self.schema)
        self._moved = None
        if resume.resumes(self._position):
            self._moved = resume.moved(self._position, self.schema, files)
        else:
            self._position = replace(self._position, files=files, server=self.schema.server)

    async def _look_at_what_was_read(self) -> None:
        """Go on with a load only over the rows that it has read. Raises ReadAgain where it has to begin again."""
        if self._whole or not resume.resumes(self._position):
            return
        rows = rewind.Rows(
            reader=self.source, database=self.database, table=self._replica.table, schema=self.schema,
            options=self._options,
        )  # fmt: skip
        why = self._moved or await resume.Sample(rows=rows).why()
        if why is not None:
            await self.preparation.must_load_again(self._stored, why)
            raise ReadAgain(why)

    async def wait(self) -> None:
        """Give the transactions that were alive a while to end."""
        if self._position.load_key is not None or self._whole:
            return
        loading = self._position.phase is Phase.LOAD
        seconds = LOAD_CLOSE_WAIT_SECONDS if loading else self._options.close_wait_seconds
        deadline = self.clock.monotonic() + seconds
        while floor.worth_noting_again(self._position) and self.clock.monotonic() < deadline:
            await self.clock.sleep(POLL_SECONDS)
            await self._note(self.source)
            await self._look_back()
        if floor.asked(self._position):
            await self._ask_again()
        while floor.worth_waiting(self._position) and self.clock.monotonic() < deadline:
            await self.clock.sleep(POLL_SECONDS)
            await self._ask_again()
        held_by = floor.held_by(self._position, self._options, now=self.clock.now())
        self._holding = await look_at(self.source, held_by) if held_by is not None else None

    def open(self) -> None:
        """Fix what the floor may rise to. Before the snapshot: only what is closed now may lift it after the read."""
        opened_at = self.clock.now()
        self._position = floor.give_up(self._position, self._options, now=opened_at)
        if self._position.phase is Phase.LOAD:
            opened_at = self._position.loading_since or opened_at
            self._position = floor.begin_load(self._position, now=opened_at)
        self._closed = floor.closed(self._position)
        risen = floor.rise(self._position, self._closed, self._options, now=opened_at)
        self._after = replace(
            floor.finished_load(risen),
            fingerprint=self.schema.fingerprint,
            dropped=tuple(self._replica.dropped),
            files=dict(self.schema.files),
            server=self.schema.server or self._stored.server,
        )

    async def copy(self, reader: Reader) -> None:
        """Write each batch with the position it leads to, while the next one is being fetched."""
        writing: asyncio.Task[None] | None = None
        async with reader.read(self._plan()) as batches:
            try:
                async for batch in throttled(batches, self._options.max_rows_per_second, self.clock):
                    if self._mixed is not None and (what := self._mixed.found(batch.rows, now=self.clock.now())):
                        raise tracking_values.mixed(self.schema, what)
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(catch_exits(self._write, batch))
                    writing.add_done_callback(retrieve_error)
                    self.progress.rows += len(batch.rows)
                    self.progress.bytes += batch.bytes
                    self._exceptions.update(batch.exceptions)
                    if batch.bytes >= LARGE_BYTES:
                        await writing
                    del batch
                if writing is not None:
                    await writing
            finally:
                if writing is not None:
                    # A batch handed to the writer is committed, unless the run was recorded before: do not lose
                    # sight of it.
                    await asyncio.wait({writing})
        if self._keeps:
            await self._replace()

    async def _replace(self) -> None:
        """All is in the shadow: see to the rows that it lacks, and put it in the replica's place."""
        keeping = Keeping(
            preparation=self.preparation,
            replica=self._replica,
            schema=self.schema,
            source=self.source,
            clock=self.clock,
            position=self._stored,
            force=self.force,
        )
        self._warnings += await keeping.keep()

        def swap(connection: apsw.Connection) -> list[str]:
            self.preparation.check(connection, self._replica)
            swapped = self.preparation.swap(connection, self._replica)
            store.save_position(connection, self.stored, self._after)
            return swapped

        if not self.together:
            self._warnings += await self.database.write(swap)

    def synced(self) -> SyncResult:
        """What was done, once all is written."""
        again = max(0, self.progress.rows - self.progress.changed)
        held = self._holding.as_dict(rows=again) if self._holding is not None else None
        return SyncResult(
            changed=self.progress.changed,
            held=held,
            position=self._after,
            protection=notices.protection(self._noted, schema=self.schema, whole=self._whole),
            warnings=(
                *self._warnings,
                *notices.of_untold(self._after, self._untold),
                *(self._holding.warnings(rows=again) if self._holding is not None else ()),
                *notices.of_exceptions(self._exceptions),
            ),
        )

    def commit(self, connection: apsw.Connection) -> None:
        """Write what was held back, and the position. Part of the group's one transaction."""
        self.preparation.check(connection, self._replica)
        if self._position.into_shadow:
            self._warnings += self.preparation.swap(connection, self._replica)
        elif merged := self._replica.merge(connection):
            self.progress.changed += merged
            store.changed(connection, self.stored)
        if self._after != self._stored:
            store.save_position(connection, self.stored, self._after)

    async def _ask_again(self) -> None:
        asked = floor.asked(self._position)
        open_transactions = await self.source.still_open(asked)
        self._untold = next((each.reason for each in open_transactions if not each.known), self._untold)
        self._position = floor.answered(self._position, open_transactions, now=self.clock.now())

    async def _write(self, batch: Batch) -> None:
        position = self._after if batch.last and not self._keeps else _reached(self._position, batch)
        if not batch.rows and (self.together or self._keeps or position == self._stored):
            return
        check_unique(batch.rows, self.schema, self._options)
        rows = await self.transforms.apply(self.stored.name, self.schema, batch.rows)

        def write(connection: apsw.Connection) -> tuple[int, list[str]]:
            self.preparation.check(connection, self._replica)
            changed = self._apply(connection, rows)
            if self.together:
                return changed, []
            swapped: list[str] = []
            if batch.last and self._position.into_shadow and not self._keeps:
                swapped = self.preparation.swap(connection, self._replica)
            elif changed:
                store.changed(connection, self.stored)
            store.save_position(connection, self.stored, position)
            return changed, swapped

        changed, warnings = await self.database.write(write)
        if not self.together:
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

    def _plan(self) -> ReadPlan:
        schema, nulls = self.schema, self._options.null_tracking != "ignore"
        rows = batch_rows(ReadPlan.batch_rows, self._options.max_rows_per_second)
        plan = ReadPlan(schema=schema, nulls=nulls, batch_rows=rows)
        if self._position.phase is Phase.LOAD:
            key = self._position.load_key
            return replace(plan, after_key=key, in_key_order=bool(schema.key))
        again = 1 < self._shared <= MAX_SHARED
        return replace(plan, floor=self._position.floor, from_floor=again, departed=self._departures)

    @property
    def _departures(self) -> bool:
        """Whether rows are read that may have left the filter since they were copied."""
        return self.schema.where is not None and self._position.phase is Phase.FOLLOW

    @property
    def _keeps(self) -> bool:
        """Whether a replica is to be replaced that may hold rows which the load does not find."""
        return self._position.into_shadow and (not self._whole or self._followed or self.schema.hidden is not None)

    @property
    def _whole(self) -> bool:
        return self.preparation.whole(self.schema)

    @property
    def _options(self) -> Options:
        return self.stored.replication.options


async def tried_again(attempt: Callable[[], Awaitable[T]]) -> T:
    """What an attempt answers, or the next one where the table changed between two steps. Raises what it raises."""
    changed = False
    while True:
        try:
            return await attempt()
        except ReadAgain:
            # It has an end: each table is read in another way once.
            continue
        except (SourceChanged, ReplicaChanged):
            if changed:
                # Twice is for the schedule.
                raise
            changed = True


def _reached(position: Position, batch: Batch) -> Position:
    """Where a batch in the middle of a read leads: along the key in a first load; nowhere, when following."""
    return replace(position, load_key=batch.last_key) if position.phase is Phase.LOAD else position
