"""The floor protocol as pure functions: which candidates are closed, and when the floor may rise.

The floor is a promise: no row at or below it can still appear. A value becomes closed when every transaction
that was open when it was noted has ended, and its lookback has passed. Even then it may become the floor only
after a read from the *old* floor whose snapshot was opened after that: between its noting and its closing,
rows may have come in below it. So a sync asks for `closed` before it opens its snapshot, and calls `rise` after
its last row; nothing here ever lifts a floor that has not been read up to.

The source may fail to show its open transactions: for a moment, because a privilege was revoked, or because another
server answers. What was known before stays known, and what is noted meanwhile waits until the source shows them again:
a transaction that is open then, and was open before, is among them. So no floor passes a transaction that was ever
known to be open, nor one that began during the failure. A source that shows nothing for HOLD_SECONDS is left to the
lookback, like one that never shows any: if the floor could never rise again, each sync would read the whole table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from starbase_data_replication.model import Candidate, OpenTransactions, Options, Phase, Position

# A long transaction keeps candidates waiting. This many are kept, thinned evenly, so that a position stays a few
# kilobytes: it is written with each batch.
MAX_CANDIDATES = 32
# Candidates less than a sixteenth of the lookback apart replace one another. So a lookback takes half of
# MAX_CANDIDATES, however often a table is synced, and the floor lags behind by a sixteenth of it at most.
CANDIDATES_PER_LOOKBACK = 16
# How long the floor waits for a source that has shown its open transactions to show them again: longer than an outage
# that somebody repairs, and short enough that reading everything since then again at every sync comes to an end.
HOLD_SECONDS = 6 * 3600.0

# The user is warned of a floor that waits for longer than this: shorter transactions are ordinary ones.
HELD_SECONDS = 300.0

GIVEN_UP = "the source has not shown what became of them"


def add(position: Position, candidate: Candidate | None, options: Options, *, protected: bool = True) -> Position:
    """The position with a newly noted candidate. A value that is the floor, or that waits already, adds nothing.

    protected: whether the source's transactions protect this table's tracking values.
    """
    if not protected:
        # What was noted before that was known is not protected either.
        unprotected = tuple(replace(each, protected=False) for each in position.candidates)
        position = replace(position, candidates=unprotected)
    if candidate is None:
        return position
    candidate = replace(candidate, protected=protected)
    if protected:
        position = _with_inspection(position, candidate.open_transactions, now=candidate.noted_at)
    waiting = position.candidates
    if candidate.value == position.floor or any(candidate.value == other.value for other in waiting):
        return position
    apart = options.lookback(known=candidate.open_transactions.known) / CANDIDATES_PER_LOOKBACK
    if len(waiting) >= 2 and waiting[-1].noted_at - waiting[-2].noted_at < apart and _covers(candidate, waiting[-1]):
        # The new one says the same a moment later. Otherwise frequent syncs would fill the list with a few seconds.
        waiting = waiting[:-1]
    waiting = _thinned((*waiting, candidate))
    # If there is one too many, the new one goes: noting it later costs a second reading, and loses nothing.
    return replace(position, candidates=waiting[:MAX_CANDIDATES])


def reached(position: Position) -> str | None:
    """The highest value that was noted while following; None if the position has none."""
    if position.phase is not Phase.FOLLOW:
        return None
    return position.candidates[-1].value if position.candidates else position.floor


def lowered(position: Position, value: str | None) -> Position:
    """The position with a lower floor: the source's highest value lies below the old one, and all up to it was read.

    A lower floor reads more, and loses nothing. The candidates lie above it, and their values may be assigned again.
    """
    return replace(position, floor=value, candidates=())


def asked(position: Position) -> list[OpenTransactions]:
    """The sets of transactions to ask the source about: those that were known and have not ended, the oldest first."""
    return [each.open_transactions for each in position.candidates if _is_open(each)]


def answered(position: Position, open_transactions: Sequence[OpenTransactions], *, now: float) -> Position:
    """The position with what the source answered to `asked`. What the source no longer knows stays as it was."""
    answers = iter(open_transactions)
    candidates = tuple(
        _answered(each, next(answers), now=now) if _is_open(each) else each for each in position.candidates
    )
    return replace(position, candidates=candidates)


def worth_waiting(position: Position) -> bool:
    """Whether the newest candidate waits for a transaction that no older one waits for.

    A transaction that an earlier sync has seen is a long one: waiting for it again would only delay every sync.
    """
    if not position.candidates:
        return False
    *older, newest = (candidate.open_transactions for candidate in position.candidates)
    seen = frozenset[str]().union(*(open_transactions.tokens for open_transactions in older))
    return newest.known and bool(newest.tokens - seen)


def worth_noting_again(position: Position) -> bool:
    """Whether a first load should note the watermark again before it begins, because it would end without a floor."""
    loading = position.phase is Phase.LOAD and position.load_key is None
    return loading and any(_waits_for_source(position, each) for each in position.candidates)


def give_up(position: Position, options: Options, *, now: float) -> Position:
    """The position after HOLD_SECONDS without an answer: only the lookback protects until the source answers again."""
    hold = max(HOLD_SECONDS, options.lookback(known=False))

    def too_long(since: float | None) -> bool:
        return since is not None and now - since >= hold

    unknown = OpenTransactions(known=False, reason=GIVEN_UP)
    candidates = tuple(
        replace(each, open_transactions=unknown, unknown_since=None) if too_long(each.unknown_since) else each
        for each in position.candidates
    )
    if too_long(position.unknown_since):
        position = replace(position, shows_transactions=False, unknown_since=None)
    return replace(position, candidates=candidates)


def held_since(position: Position) -> float | None:
    """Since when the floor waits for a source that no longer shows its transactions; None if it does not wait."""
    since = [each.unknown_since for each in position.candidates if each.unknown_since is not None]
    if position.unknown_since is not None and any(_waits_for_source(position, each) for each in position.candidates):
        since.append(position.unknown_since)
    return min(since, default=None)


def closed(position: Position) -> tuple[Candidate, ...]:
    """The candidates that no transaction can commit below any more, as far as the source shows; the oldest first.

    A candidate that is younger than an open one is not among them: it may have been noted while the source showed
    nothing, or while another server answered. Call this right before the snapshot is opened. If the source never shows
    its transactions, the lookback alone closes a candidate, in `rise`.
    """
    for at, each in enumerate(position.candidates):
        if _is_open(each) or _waits_for_source(position, each):
            return position.candidates[:at]
    return position.candidates


def held_by(position: Position, options: Options, *, now: float) -> Candidate | None:
    """The oldest candidate, if it has waited unusually long for open transactions; else None."""
    oldest = next((each for each in position.candidates if _is_open(each)), None)
    if oldest is None or now - oldest.noted_at <= max(HELD_SECONDS, options.lookback(known=True)):
        return None
    return oldest


def begin_load(position: Position, *, now: float) -> Position:
    """The position of a load that opens its first snapshot at `now`. After interruptions it opens others.

    Only a candidate that is closed by now may become the floor at its end, because it reads its first rows now. So it
    drops the others.
    """
    return replace(position, candidates=closed(position), loading_since=now)


def rise(position: Position, closed: tuple[Candidate, ...], options: Options, *, now: float) -> Position:
    """The position with a higher floor, once everything above the old one was read from snapshots of `now` or later.

    The newest closed candidate whose lookback has passed wins. Values are not compared here: a later one is taken to
    be higher. If rows were deleted in between it is lower, which costs a second reading and loses nothing. Before there
    is a floor, a younger candidate of a time column gives its value less the lookback.
    """
    aged = [each for each in closed if now - each.noted_at >= options.lookback(known=each.known)]
    if aged:
        later = tuple(each for each in position.candidates if each.noted_at > aged[-1].noted_at)
        return replace(position, floor=aged[-1].value, candidates=later)
    if closed and position.floor is None:
        return replace(position, floor=closed[-1].lookback_value)
    return position


def finished_load(position: Position) -> Position:
    """The position of a load that has read the whole table: from now on syncs follow."""
    return replace(position, phase=Phase.FOLLOW, load_key=None, loading_since=None, into_shadow=False, former=None)


def _with_inspection(position: Position, found: OpenTransactions, *, now: float) -> Position:
    """The position with the open transactions that were read after a newer value was noted."""
    if found.known:
        # A transaction that was open when the source showed none, and has not ended, is among these.
        candidates = tuple(
            replace(each, open_transactions=found) if each.protected and not each.open_transactions.known else each
            for each in position.candidates
        )
        return replace(position, candidates=candidates, shows_transactions=True, unknown_since=None)
    shows_transactions = position.shows_transactions
    if shows_transactions is None:
        # A position of an older version does not hold it, but its candidates show it.
        shows_transactions = found.transient or any(each.open_transactions.known for each in position.candidates)
    return replace(
        position,
        shows_transactions=shows_transactions,
        unknown_since=_since(position.unknown_since, now) if shows_transactions else None,
    )


def _answered(candidate: Candidate, answer: OpenTransactions, *, now: float) -> Candidate:
    """The candidate with what the source answered about its transactions."""
    if answer.known:
        return replace(candidate, open_transactions=answer, unknown_since=None)
    return replace(candidate, unknown_since=_since(candidate.unknown_since, now))


def _since(since: float | None, now: float) -> float:
    """Since when something lasts, by a clock that may be set back."""
    return now if since is None else min(since, now)


def _is_open(candidate: Candidate) -> bool:
    """Whether one of its known transactions has not ended, as far as the source has shown."""
    return candidate.open_transactions.known and not candidate.open_transactions.ended


def _waits_for_source(position: Position, candidate: Candidate) -> bool:
    """Whether it was noted while a source that shows its transactions did not show them."""
    return candidate.protected and not candidate.open_transactions.known and position.shows_transactions is True


def _covers(later: Candidate, earlier: Candidate) -> bool:
    """Whether the later candidate knows all open transactions that the earlier one knows."""
    if not earlier.open_transactions.known:
        return True
    return later.open_transactions.known and later.open_transactions.epoch == earlier.open_transactions.epoch


def _thinned(waiting: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """Every second candidate if there are more than MAX_CANDIDATES, and those that no later one covers."""
    if len(waiting) <= MAX_CANDIDATES:
        return waiting
    kept = [waiting[0]]
    for at, each in enumerate(waiting[1:], start=1):
        if at % 2 == 0 or each is waiting[-1] or not _covers(waiting[at + 1], each):
            kept.append(each)
    return tuple(kept)
