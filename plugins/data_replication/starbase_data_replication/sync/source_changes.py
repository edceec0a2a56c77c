"""Whether a source is still the one that was read, before a sync goes on from its floor.

Owns which signs are checked, and the consequence: a position to go on from, or a load. `rewind` compares the rows
themselves. Must not know how a load starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starbase_data_replication.model import HighWatermark, Options, Position, TableSchema
from starbase_data_replication.sources import Joinable, Rewindable, Source
from starbase_data_replication.sync import schema_changes, watermarks
from starbase_data_replication.sync import warnings as sync_warnings
from starbase_data_replication.sync.rewind import Rewind, joined
from starbase_host import Clock, Database


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What becomes of a position.

    Attributes:
        position: where to go on from.
        load_again: why the table must be loaded instead; None if it need not.
        warnings: what to tell the user.
    """

    position: Position
    load_again: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SourceCheck:
    """One check of a source.

    Attributes:
        source: the source.
        database: the internal database.
        clock: the host's.
        replica: the replica's table.
        schema: what of the table is copied.
        options: the replication's.
        files: what the rows were in at the last sync; see Position.
        server: the server that answered then; see Position.
    """

    source: Source
    database: Database
    clock: Clock
    replica: str
    schema: TableSchema
    options: Options
    files: Mapping[str, str]
    server: str

    async def judge(self, noted: HighWatermark, before: Position) -> Verdict:
        """What becomes of a position, by what was noted last. An ordinary sync asks the source nothing here."""
        above = watermarks.reached(before)
        if above is None or noted.candidate is None:
            return Verdict(position=before)
        moved = schema_changes.moved(self.files, self.schema.files)
        warnings: tuple[str, ...] = ()
        if moved.joined and before.floor is not None and isinstance(self.source, Joinable):
            holds = await self.source.holds_below(self.schema, moved.joined, before.floor)
            if holds:
                return Verdict(position=before, load_again=joined(self.schema))
            warnings = tuple(sync_warnings.of_joined(self.schema)) if holds is None else ()
        # A server that replaced another one may have lost the last rows, and other rows may have their values now.
        elsewhere = "" not in (self.server, self.schema.server) and self.server != self.schema.server
        suspect = bool(moved.rewritten) or elsewhere
        if not isinstance(self.source, Rewindable) or (noted.below is None and not suspect):
            return Verdict(position=before, warnings=warnings)
        low = await self._below_the_floor(self.source, noted, before, above)
        rewind = Rewind(
            reader=self.source, counter=self.source, database=self.database, replica=self.replica,
            schema=self.schema, options=self.options, noted=noted, reached=above,
            floor=before.floor, closed=low is not None and low.below is not None,
            known=before.fingerprint.columns if before.fingerprint is not None else None,
        )  # fmt: skip
        why = await rewind.refilled() if suspect else None
        if why is None and noted.below is not None:
            why = await rewind.why()
        if why is not None:
            return Verdict(position=before, load_again=why)
        warnings = (*warnings, *dict.fromkeys(rewind.warnings))
        return Verdict(position=self._position_after_deletions(noted, low, before), warnings=warnings)

    async def _below_the_floor(
        self, source: Rewindable, noted: HighWatermark, before: Position, above: str
    ) -> HighWatermark | None:
        """What was noted, compared with the floor itself and not with a candidate above it."""
        if above == before.floor:
            return noted
        if noted.below is None or before.floor is None:
            return None
        return await source.read_high_watermark(
            self.schema, self.options, noted_at=self.clock.now(), reached=before.floor
        )

    def _position_after_deletions(self, noted: HighWatermark, low: HighWatermark | None, before: Position) -> Position:
        """The position if the last rows were only deleted: their values may be assigned again."""
        if low is not None and low.below is not None and low.candidate is not None:
            return watermarks.lowered(before, low.candidate.value)
        if noted.below is None:
            return before
        # So may the candidates' values.
        protected = self.schema.unprotected is None
        return watermarks.add(
            watermarks.lowered(before, before.floor), noted.candidate, self.options, protected=protected
        )
