"""The floor protocol as pure functions: which candidates are closed, and when the floor may rise.

The floor is a promise: no row at or below it can still appear. A value becomes closed when every transaction
that was alive when it was noted has ended, and its lookback has passed. Even then it may become the floor only
after a read from the *old* floor whose snapshot was opened after that: between its noting and its closing,
rows may have come in below it. So a sync asks for `closed` before it opens its snapshot, and calls `rise` after
its last row; nothing here ever lifts a floor that has not been read up to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from starbase_data_replication.model import Alive, Candidate, Phase, Position
from starbase_data_replication.options import Options

# A long transaction keeps candidates waiting; so many are kept, thinned evenly.
MAX_CANDIDATES = 32


def add(position: Position, candidate: Candidate | None, options: Options) -> Position:
    """Keep a newly noted candidate. One whose value is the floor, or is waiting already, adds nothing."""
    if candidate is None or candidate.value == position.floor:
        return position
    waiting = position.candidates
    if any(candidate.value == other.value for other in waiting):
        return position
    apart = options.lookback(known=candidate.alive.known) / 16
    if len(waiting) >= 2 and waiting[-1].noted_at - waiting[-2].noted_at < apart:
        # The new one says the same a moment later; without this a tight loop of syncs would keep them all.
        waiting = waiting[:-1]
    waiting = (*waiting, candidate)
    return replace(position, candidates=waiting if len(waiting) <= MAX_CANDIDATES else waiting[::2])


def asked(position: Position) -> list[Alive]:
    """The sets of transactions to ask the source about: one for each candidate, in their order."""
    return [candidate.alive for candidate in position.candidates]


def answered(position: Position, alive: Sequence[Alive]) -> Position:
    """Take over what the source answered to `asked`."""
    candidates = zip(position.candidates, alive, strict=True)
    return replace(position, candidates=tuple(replace(each, alive=now) for each, now in candidates))


def worth_waiting(position: Position) -> bool:
    """Whether a transaction of the newest candidate is alive that no older one is waiting for already.

    One that was there at an earlier sync is a long one: waiting for it again would only delay every sync.
    """
    if not position.candidates:
        return False
    *older, newest = (candidate.alive for candidate in position.candidates)
    seen = frozenset[str]().union(*(alive.tokens for alive in older))
    return newest.known and bool(newest.tokens - seen)


def closed(position: Position) -> tuple[Candidate, ...]:
    """The candidates that no transaction can come in below any more, as far as the source tells; oldest first.

    Ask right before the snapshot is opened. Where the source does not tell who is alive, the lookback alone
    closes, in `rise`.
    """
    return tuple(each for each in position.candidates if each.alive.ended or not each.alive.known)


def begin_load(position: Position, *, now: float) -> Position:
    """The first load opens its first snapshot at `now`; it may go on from others, after interruptions.

    Only what is closed by now may become the floor at its end, because the rows that it reads first it reads
    now. A candidate that closes later is of no use to it, so it is dropped.
    """
    return replace(position, candidates=closed(position), loading_since=now)


def rise(position: Position, closed: tuple[Candidate, ...], options: Options, *, now: float) -> Position:
    """Lift the floor, after everything above the old one was read from snapshots opened at `now` or later.

    The newest closed candidate whose lookback has passed wins. Values are not compared here: one noted later is
    taken to be higher, and where rows were deleted in between it is lower, which costs a second reading and
    loses nothing. Before there is any floor, a younger candidate of a time column gives its value less the lookback.
    """
    aged = [each for each in closed if now - each.noted_at >= options.lookback(known=each.alive.known)]
    if aged:
        later = tuple(each for each in position.candidates if each.noted_at > aged[-1].noted_at)
        return replace(position, floor=aged[-1].value, candidates=later)
    if closed and position.floor is None:
        return replace(position, floor=closed[-1].lookback_value)
    return position


def finished_load(position: Position) -> Position:
    """The first load has walked the whole table: from now on syncs follow."""
    return replace(position, phase=Phase.FOLLOW, load_key=None, loading_since=None, into_shadow=False)
