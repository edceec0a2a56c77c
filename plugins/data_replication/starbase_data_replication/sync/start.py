"""How a sync starts: one of five decisions, each a value. `prepare` decides; here is what each decision means.

Pure values. Must not know a database or a source.
"""

from __future__ import annotations

from dataclasses import dataclass

from starbase_data_replication.model import Phase, Position


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a sync starts.

    Attributes:
        position: what the sync goes on from, as it is stored.
    """

    position: Position

    @property
    def reads_watermark(self) -> bool:
        """Whether the high watermark is read before the rows: not for a load that has one, nor where none is used."""
        return not isinstance(self, ResumeLoad | ReplaceWhole)

    @property
    def reason(self) -> str | None:
        """Why the table is loaded again though the user has not asked for it; None if it is not."""
        former = self.position.former
        return former.why if former is not None else None


class Follow(Start):
    """Read the rows above the floor, and write them into the replica."""


class ResumeLoad(Start):
    """Go on with an interrupted load, behind the last key that it has written."""


class LoadInPlace(Start):
    """Load the table into the target, which is new or empty."""


class LoadIntoShadow(Start):
    """Load the table into a shadow, and swap it in at the end, because the target holds a replica already."""


class ReplaceWhole(Start):
    """Load the table into a shadow, and swap it in at the end, as every sync of this replication does."""


def start_from(position: Position) -> Start:
    """How a sync starts that goes on from a stored position, which the replica fits."""
    if position.phase is Phase.FOLLOW:
        return Follow(position=position)
    if position.load_key is not None:
        return ResumeLoad(position=position)
    # An attempt before this one has stored where it begins, and has written nothing.
    return LoadIntoShadow(position=position) if position.into_shadow else LoadInPlace(position=position)
