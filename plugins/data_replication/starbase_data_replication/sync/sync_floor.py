"""The floor of one sync: notes the high watermark, waits for open transactions, and fixes what the floor rises to.

Asks the source what the pure functions of `watermarks` need, in the order that they need. Must not know how rows are
read or written.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from starbase_data_replication.errors import BrokenRule, ReadAgain
from starbase_data_replication.model import HighWatermark, OpenTransactions, Options, Phase, Position, TableSchema
from starbase_data_replication.sources import (
    Inspector,
    Rewindable,
    Sharing,
    Source,
    checked_transactions,
    checked_watermark,
)
from starbase_data_replication.storage import Target
from starbase_data_replication.sync import tracking_values, watermarks
from starbase_data_replication.sync import warnings as sync_warnings
from starbase_data_replication.sync.held_floor import HeldFloor, inspect_held_floor
from starbase_data_replication.sync.prepare import Preparation
from starbase_data_replication.sync.source_changes import SourceCheck
from starbase_host import Clock

# How long a first load waits for open transactions. Without a floor at its end the whole table is read again, which
# takes longer than this for a table that is large.
LOAD_CLOSE_WAIT_SECONDS = 30.0
# How often the source is asked in that time: most transactions end within milliseconds, and the question is cheap.
POLL_SECONDS = 0.05


@dataclass(kw_only=True)
class SyncFloor:
    """The floor of one sync, from the position that is stored to the one that the sync ends with.

    Attributes:
        source: where the watermark is read.
        preparation: what the sync was prepared with.
        replica: the table that the sync writes.
        schema: what of the table is copied.
        clock: the host's.
        saved: the position as it was stored when the sync started.
        position: the position that the sync goes on from; each step replaces it.
        open_transactions: those that could commit below the watermark when it was last read; None if it was not.
        unknown_reason: why the source did not show its open transactions when it was last asked; "" if it did.
        held: what the floor waits for, if it has waited for long.
        shared_rows: rows that have the floor's value; 0 if the source was not asked.
    """

    source: Source
    preparation: Preparation
    replica: Target
    schema: TableSchema
    clock: Clock
    saved: Position
    position: Position
    open_transactions: OpenTransactions | None = field(default=None, init=False)
    unknown_reason: str = field(default="", init=False)
    held: HeldFloor | None = field(default=None, init=False)
    shared_rows: int = field(default=0, init=False)
    # What was read last, if there was a floor then.
    _latest: HighWatermark | None = field(default=None, init=False)

    async def note(self, inspector: Inspector) -> list[str]:
        """Read the high watermark, and then the open transactions. Returns warnings.

        Raises SchemaMismatch if the tracking column's values do not rise.
        """
        noted = await self._note(inspector)
        highest = noted.candidate.value if noted.candidate is not None else None
        named = self.preparation.stored.replication.tracking_column is not None
        return [
            *tracking_values.of_value(self.schema, highest, named=named, now=self.clock.now()),
            *sync_warnings.of_rows_ahead(self.schema, noted.ahead),
            *sync_warnings.of_shared(self.schema, noted),
        ]

    async def check_source(self) -> list[str]:
        """Check that the source still is the one that was read. Returns warnings.

        Raises ReadAgain if the table has to be loaded again.
        """
        if self._latest is None:
            return []
        check = SourceCheck(
            source=self.source, database=self.preparation.database, clock=self.clock, replica=self.replica.name,
            schema=self.schema, options=self._options, files=self.saved.files, server=self.saved.server,
        )  # fmt: skip
        verdict = await check.judge(self._latest, self.position)
        if verdict.load_again is not None:
            # Stored, because the next sync would not see it any more.
            await self.preparation.must_load_again(self.saved, verdict.load_again)
            raise ReadAgain(verdict.load_again)
        self.position = verdict.position
        return [*verdict.warnings]

    async def wait(self) -> list[str]:
        """Give open transactions a while to end. Returns warnings. Raises as `check_source`."""
        warnings: list[str] = []
        loading = self.position.phase is Phase.LOAD
        seconds = LOAD_CLOSE_WAIT_SECONDS if loading else self._options.close_wait_seconds
        deadline = self.clock.monotonic() + seconds
        while watermarks.worth_noting_again(self.position) and self.clock.monotonic() < deadline:
            await self.clock.sleep(POLL_SECONDS)
            await self._note(self.source)
            warnings += await self.check_source()
        if watermarks.asked(self.position):
            await self._ask_again()
        while watermarks.worth_waiting(self.position) and self.clock.monotonic() < deadline:
            await self.clock.sleep(POLL_SECONDS)
            await self._ask_again()
        held_by = watermarks.held_by(self.position, self._options, now=self.clock.now())
        self.held = await inspect_held_floor(self.source, held_by) if held_by is not None else None
        return warnings

    def fix(self) -> Position:
        """Fix what the floor rises to, and return the position that the sync ends with.

        Called before the snapshot is opened: only what is closed now may lift the floor after the read.
        """
        opened_at = self.clock.now()
        self.position = watermarks.give_up(self.position, self._options, now=opened_at)
        if self.position.phase is Phase.LOAD:
            opened_at = self.position.loading_since or opened_at
            self.position = watermarks.begin_load(self.position, now=opened_at)
        closed = watermarks.closed(self.position)
        risen = watermarks.rise(self.position, closed, self._options, now=opened_at)
        return replace(
            watermarks.finished_load(risen),
            fingerprint=self.schema.fingerprint,
            dropped=tuple(self.replica.dropped),
            files=dict(self.schema.files),
            server=self.schema.server or self.saved.server,
        )

    async def _note(self, inspector: Inspector) -> HighWatermark:
        reached = watermarks.reached(self.position)
        if reached is not None and isinstance(inspector, Rewindable):
            noted_at, floor = self.clock.now(), self.position.floor
            if isinstance(inspector, Sharing):
                noted = await inspector.read_high_watermark(
                    self.schema, self._options, noted_at=noted_at, reached=reached, floor=floor
                )
            else:
                noted = await inspector.read_high_watermark(
                    self.schema, self._options, noted_at=noted_at, reached=reached
                )
            noted = checked_watermark(noted, self.schema)
            self.shared_rows = noted.shared
            if noted.candidate is None:
                # Nothing is left of what was read, so new rows may have any value.
                self.position = watermarks.lowered(self.position, None)
        else:
            noted = await inspector.read_high_watermark(self.schema, self._options, noted_at=self.clock.now())
            noted = checked_watermark(noted, self.schema)
        self.open_transactions = noted.candidate.open_transactions if noted.candidate is not None else None
        known = self.open_transactions is None or self.open_transactions.known
        self.unknown_reason = "" if known or self.open_transactions is None else self.open_transactions.reason
        self._latest = noted if reached is not None else None
        if noted.below is None:
            protected = self.schema.unprotected is None
            self.position = watermarks.add(self.position, noted.candidate, self._options, protected=protected)
        return noted

    async def _ask_again(self) -> None:
        asked = watermarks.asked(self.position)
        answers = [checked_transactions(each) for each in await self.source.still_open(asked)]
        if len(answers) != len(asked):
            raise BrokenRule("asking for open transactions", f"received {len(answers)} sets of {len(asked)}")
        self.unknown_reason = next((each.reason for each in answers if not each.known), self.unknown_reason)
        self.position = watermarks.answered(self.position, answers, now=self.clock.now())

    @property
    def _options(self) -> Options:
        return self.preparation.stored.replication.options
