"""The floor protocol as pure functions: which candidates are closed, and when the floor may rise.

The floor is a promise: no row at or below it can still appear. A value becomes closed when every transaction
that was alive when it was noted has ended, and its lookback has passed. Even then it may become the floor only
after a read from the *old* floor whose snapshot was opened after that: between its noting and its closing,
rows may have come in below it. So a sync asks for `closed` before it opens its snapshot, and calls `rise` after
its last row; nothing here ever lifts a floor that has not been read up to.

A look at the source may fail: in passing, because a privilege was taken away, because another server answers. What
was known before such a look stays known, and what was noted during it waits for the next look that tells: whoever is
alive then, and was alive before, is in that one. So no floor passes a transaction that was ever known to be open, nor
one that began during a failure. Only a source that has shown nothing for HOLD_SECONDS is left to the lookback, as one
that never tells is from the start: a floor that could never rise again would have the whole table read at each sync.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from starbase_data_replication.model import Candidate, OpenTransactions, Options, Phase, Position

# A long transaction keeps candidates waiting; so many are kept, thinned evenly.
MAX_CANDIDATES = 32
# How long the floor waits for a source that has shown its open transactions to show them again.
HOLD_SECONDS = 6 * 3600.0

# A transaction that is open for this long is said to hold the floor.
HELD_SECONDS = 300.0

GIVEN_UP = "the source has not shown what became of them"


def add(position: Position, candidate: Candidate | None, options: Options, *, protected: bool = True) -> Position:
    """Keep a newly noted candidate. One whose value is the floor, or is waiting already, adds nothing.

    protected: whether the source's transactions say anything about this table's values.
    """
    if not protected:
        # What was noted before that was known has no better grounds.
        unprotected = tuple(replace(each, protected=False) for each in position.candidates)
        position = replace(position, candidates=unprotected)
    if candidate is None:
        return position
    candidate = replace(candidate, protected=protected)
    if protected:
        position = _heard(position, candidate.open_transactions, now=candidate.noted_at)
    waiting = position.candidates
    if candidate.value == position.floor or any(candidate.value == other.value for other in waiting):
        return position
    apart = options.lookback(known=candidate.open_transactions.known) / 16
    if len(waiting) >= 2 and waiting[-1].noted_at - waiting[-2].noted_at < apart and _covers(candidate, waiting[-1]):
        # The new one says the same a moment later; without this a tight loop of syncs would keep them all.
        waiting = waiting[:-1]
    waiting = _thinned((*waiting, candidate))
    # One too many is the new one: to note a value later costs a second reading, and loses nothing.
    return replace(position, candidates=waiting[:MAX_CANDIDATES])


def reached(position: Position) -> str | None:
    """The highest value that was noted while following, as far as the position tells."""
    if position.phase is not Phase.FOLLOW:
        return None
    return position.candidates[-1].value if position.candidates else position.floor


def lowered(position: Position, value: str | None) -> Position:
    """The highest value that the source has lies below the floor, and nothing unread at or below it: it is the floor.

    A lower floor reads more, and loses nothing. What waited lies above it, and may be assigned again.
    """
    return replace(position, floor=value, candidates=())


def asked(position: Position) -> list[OpenTransactions]:
    """The sets of transactions to ask the source about: those that were known and have not ended, oldest first."""
    return [each.open_transactions for each in position.candidates if _is_open(each)]


def answered(position: Position, open_transactions: Sequence[OpenTransactions], *, now: float) -> Position:
    """Take over what the source answered to `asked`. What it does not know any more stays as it was known."""
    answers = iter(open_transactions)
    candidates = tuple(
        _answered(each, next(answers), now=now) if _is_open(each) else each for each in position.candidates
    )
    return replace(position, candidates=candidates)


def worth_waiting(position: Position) -> bool:
    """Whether a transaction of the newest candidate is alive that no older one is waiting for already.

    One that was there at an earlier sync is a long one: waiting for it again would only delay every sync.
    """
    if not position.candidates:
        return False
    *older, newest = (candidate.open_transactions for candidate in position.candidates)
    seen = frozenset[str]().union(*(open_transactions.tokens for open_transactions in older))
    return newest.known and bool(newest.tokens - seen)


def worth_noting_again(position: Position) -> bool:
    """Whether a first load had better look again before it begins: it would end without a floor."""
    loading = position.phase is Phase.LOAD and position.load_key is None
    return loading and any(_waits_for_a_look(position, each) for each in position.candidates)


def give_up(position: Position, options: Options, *, now: float) -> Position:
    """Leave a source that has not answered for HOLD_SECONDS to the lookback alone, until it answers again."""
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
    """Since when the floor waits for a source that does not tell any more; None where it does not."""
    since = [each.unknown_since for each in position.candidates if each.unknown_since is not None]
    if position.unknown_since is not None and any(_waits_for_a_look(position, each) for each in position.candidates):
        since.append(position.unknown_since)
    return min(since, default=None)


def closed(position: Position) -> tuple[Candidate, ...]:
    """The candidates that no transaction can come in below any more, as far as the source tells; oldest first.

    None that is younger than one that is not closed: it may have been noted while the source did not tell, or while
    another server answered. Ask right before the snapshot is opened. Where the source never tells who is alive, the
    lookback alone closes, in `rise`.
    """
    for at, each in enumerate(position.candidates):
        if _is_open(each) or _waits_for_a_look(position, each):
            return position.candidates[:at]
    return position.candidates


def held_by(position: Position, options: Options, *, now: float) -> Candidate | None:
    """The oldest candidate, where it has waited for transactions that are open for longer than is usual."""
    oldest = next((each for each in position.candidates if _is_open(each)), None)
    if oldest is None or now - oldest.noted_at <= max(HELD_SECONDS, options.lookback(known=True)):
        return None
    return oldest


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
    aged = [each for each in closed if now - each.noted_at >= options.lookback(known=each.known)]
    if aged:
        later = tuple(each for each in position.candidates if each.noted_at > aged[-1].noted_at)
        return replace(position, floor=aged[-1].value, candidates=later)
    if closed and position.floor is None:
        return replace(position, floor=closed[-1].lookback_value)
    return position


def finished_load(position: Position) -> Position:
    """The first load has walked the whole table: from now on syncs follow."""
    return replace(position, phase=Phase.FOLLOW, load_key=None, loading_since=None, into_shadow=False, former=None)


def _heard(position: Position, look: OpenTransactions, *, now: float) -> Position:
    """What a look that follows the noting of a value says of what was noted before."""
    if look.known:
        # Whoever was alive at a look that failed, and has not ended, is in this one.
        candidates = tuple(
            replace(each, open_transactions=look) if each.protected and not each.open_transactions.known else each
            for each in position.candidates
        )
        return replace(position, candidates=candidates, shows_transactions=True, unknown_since=None)
    shows_transactions = position.shows_transactions
    if shows_transactions is None:
        # Of a position that was stored before this was, its candidates know.
        shows_transactions = look.passing or any(each.open_transactions.known for each in position.candidates)
    return replace(
        position,
        shows_transactions=shows_transactions,
        unknown_since=_since(position.unknown_since, now) if shows_transactions else None,
    )


def _answered(candidate: Candidate, answer: OpenTransactions, *, now: float) -> Candidate:
    """What is known of a candidate's transactions after the source was asked about them."""
    if answer.known:
        return replace(candidate, open_transactions=answer, unknown_since=None)
    return replace(candidate, unknown_since=_since(candidate.unknown_since, now))


def _since(since: float | None, now: float) -> float:
    """Since when something lasts, by a clock that may have been set back."""
    return now if since is None else min(since, now)


def _is_open(candidate: Candidate) -> bool:
    """Whether a transaction of it is known that has not ended, as far as the source has shown."""
    return candidate.open_transactions.known and not candidate.open_transactions.ended


def _waits_for_a_look(position: Position, candidate: Candidate) -> bool:
    """Whether it was noted while the source did not tell, and the source is one that does."""
    return candidate.protected and not candidate.open_transactions.known and position.shows_transactions is True


def _covers(later: Candidate, earlier: Candidate) -> bool:
    """Whether the later one knows all that the earlier one knows of who is alive."""
    if not earlier.open_transactions.known:
        return True
    return later.open_transactions.known and later.open_transactions.epoch == earlier.open_transactions.epoch


def _thinned(waiting: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """At most MAX_CANDIDATES, where that many are enough to know what they all know."""
    if len(waiting) <= MAX_CANDIDATES:
        return waiting
    kept = [waiting[0]]
    for at, each in enumerate(waiting[1:], start=1):
        if at % 2 == 0 or each is waiting[-1] or not _covers(waiting[at + 1], each):
            kept.append(each)
    return tuple(kept)
