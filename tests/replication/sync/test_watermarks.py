"""The floor, as pure functions: with or without a list of open transactions, no row is passed, and none waits for ever.

A model of a source: transactions take a value when they begin or later, and commit when they like. A sync does what
sync.py does, in its order, and its looks fail in every way in which a look can fail.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from starbase_data_replication.model import Candidate, OpenTransactions, Position
from starbase_data_replication.model.options import Options
from starbase_data_replication.sync import watermarks as floor

# How a look ends: it tells; it fails in passing; the source does not tell for now; another server answers.
TELLS, PASSING, UNTOLD, ELSEWHERE = "tells", "passing", "untold", "elsewhere"
FAILURES = {
    PASSING: OpenTransactions(known=False, reason="not fresh", transient=True),
    UNTOLD: OpenTransactions(known=False, reason="no privilege"),
    ELSEWHERE: OpenTransactions(known=False, reason="another server"),
}


@dataclass(kw_only=True)
class Transaction:
    number: int
    value: int | None = None


@dataclass(kw_only=True)
class Source:
    """Values rise with each that is taken, as a sequence's do."""

    options: Options
    now: float = 1000.0
    counter: int = 0
    begun: int = 0
    open: list[Transaction] = field(default_factory=list)
    committed: set[int] = field(default_factory=set)
    replica: set[int] = field(default_factory=set)
    position: Position = field(default_factory=lambda: Position(identity=""))
    # Every transaction that a list has shown.
    told_of: set[int] = field(default_factory=set)

    def do(self, action: tuple[str, int]) -> None:
        what, which = action
        if what == "begin":
            self.begun += 1
            self.open.append(Transaction(number=self.begun))
        elif what == "wait":
            self.now += which
        elif self.open:
            transaction = self.open[which % len(self.open)]
            if transaction.value is None:
                self.counter += 1
                transaction.value = self.counter
            if what == "commit":
                self.open.remove(transaction)
                self.committed.add(transaction.value)

    def look(self, how: str) -> OpenTransactions:
        if how != TELLS:
            return FAILURES[how]
        self.told_of |= {each.number for each in self.open}
        return OpenTransactions(known=True, tokens=frozenset(str(each.number) for each in self.open), epoch="server")

    def ask(self, asked: list[OpenTransactions], how: str) -> list[OpenTransactions]:
        now = self.look(how)
        return [replace(each, tokens=each.tokens & now.tokens) if now.known else now for each in asked]

    def sync(self, looks: tuple[str, str], between: list[tuple[str, int]]) -> None:
        """One sync, with things that happen between its steps."""
        happen = iter([*between, *[("wait", 0)] * 4])
        value = max(self.committed, default=None)
        self.do(next(happen))
        if value is not None:
            candidate = Candidate(value=str(value), noted_at=self.now, open_transactions=self.look(looks[0]))
            self.position = floor.add(self.position, candidate, self.options)
        self.do(next(happen))
        if floor.asked(self.position):
            answers = self.ask(floor.asked(self.position), looks[1])
            self.position = floor.answered(self.position, answers, now=self.now)
        self.position = floor.give_up(self.position, self.options, now=self.now)
        opened_at = self.now
        if self.position.phase.value == "load":
            self.position = floor.begin_load(self.position, now=opened_at)
        closed = floor.closed(self.position)
        self.do(next(happen))
        above = int(self.position.floor or 0)
        self.replica |= {each for each in self.committed if each > above}
        self.do(next(happen))
        self.position = floor.finished_load(floor.rise(self.position, closed, self.options, now=opened_at))

    def passed(self) -> list[Transaction]:
        """Open transactions whose row the floor has passed."""
        at = int(self.position.floor or 0)
        return [each for each in self.open if each.value is not None and each.value <= at]

    def end(self) -> None:
        """All transactions commit, and syncs list them again."""
        while self.open:
            self.do(("commit", 0))
        self.sync((TELLS, TELLS), [])


actions = st.one_of(
    st.tuples(st.just("begin"), st.just(0)),
    st.tuples(st.sampled_from(("value", "commit")), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.sampled_from((1, 10, 70, 400))),
)
looks = st.sampled_from((TELLS, PASSING, UNTOLD, ELSEWHERE))
syncs = st.tuples(st.just("sync"), st.tuples(looks, looks), st.lists(actions, max_size=4))
histories = st.lists(st.one_of(actions, syncs), max_size=40)
lookbacks = st.sampled_from((0.0, 5.0, None))


def live(source: Source, history: list[tuple[object, ...]], first: str) -> None:
    """A first row, a first sync whose look ends so, and then the history."""
    source.do(("begin", 0))
    source.do(("commit", 0))
    source.do(("begin", 0))
    source.do(("value", 0))
    source.sync((first, first), [])
    for each in history:
        if each[0] == "sync":
            source.sync(*each[1:])  # type: ignore[arg-type]
            assume(source.now - 1000 < floor.HOLD_SECONDS)
        else:
            source.do(each)  # type: ignore[arg-type]


@given(histories, lookbacks, st.sampled_from((TELLS, PASSING)))
def test_a_failed_transaction_list_never_lets_the_floor_pass_a_row(
    history: list[tuple[object, ...]], lookback: float | None, first: str
) -> None:
    """Of a source that tells: transactions that began while it did not are not passed either."""

    class VerificationResult(Source):
        def sync(self, *words: object) -> None:
            super().sync(*words)  # type: ignore[arg-type]
            assert not self.passed()

    source = VerificationResult(options=Options(lookback_seconds=lookback))
    live(source, history, first)
    source.end()
    assert source.replica == source.committed


@given(histories, lookbacks)
def test_no_transaction_that_was_ever_known_is_passed(
    history: list[tuple[object, ...]], lookback: float | None
) -> None:
    """Also of a source that did not tell at first."""

    class VerificationResult(Source):
        def sync(self, *words: object) -> None:
            before = {each.number for each in self.passed()}
            super().sync(*words)  # type: ignore[arg-type]
            # One that was passed before anybody knew of it was protected by the lookback alone.
            assert not [each for each in self.passed() if each.number in self.told_of - before]

    source = VerificationResult(options=Options(lookback_seconds=lookback))
    live(source, history, UNTOLD)


@given(histories, lookbacks, st.sampled_from((TELLS, PASSING, UNTOLD)), st.sampled_from((PASSING, UNTOLD, ELSEWHERE)))
def test_no_floor_waits_for_ever(
    history: list[tuple[object, ...]], lookback: float | None, first: str, then: str
) -> None:
    """A source that tells nothing any more is left to the lookback after a time; one that tells again, at once."""
    for last in (then, TELLS):
        source = Source(options=Options(lookback_seconds=lookback))
        live(source, history, first)
        if last == TELLS:
            while source.open:
                source.do(("commit", 0))
        top = str(max(source.committed))
        source.sync((last, last), [])
        source.do(("wait", int(floor.HOLD_SECONDS) if last != TELLS else 301))
        source.sync((last, last), [])
        source.do(("wait", 301))
        source.sync((last, last), [])
        assert source.position.floor == top
        assert floor.held_since(source.position) is None


def candidate(value: int, at: float, listed: OpenTransactions) -> Candidate:
    return Candidate(value=str(value), noted_at=at, open_transactions=listed)


OPEN = OpenTransactions(known=True, tokens=frozenset({"t"}), epoch="one")


def test_a_waiting_candidate_is_decided_by_the_next_transaction_list() -> None:
    options = Options(lookback_seconds=0)
    position = floor.add(Position(identity=""), candidate(1, 0, replace(OPEN, tokens=frozenset())), options)
    position = floor.add(position, candidate(2, 1, FAILURES[PASSING]), options)
    assert [each.value for each in floor.closed(position)] == ["1"]
    assert floor.held_since(position) == 1
    position = floor.add(position, candidate(3, 2, OPEN), options)
    assert [each.open_transactions.tokens for each in position.candidates] == [set(), {"t"}, {"t"}]
    assert floor.held_since(position) is None
    position = floor.answered(position, [replace(each, tokens=frozenset()) for each in floor.asked(position)], now=3)
    assert [each.value for each in floor.closed(position)] == ["1", "2", "3"]


def test_values_that_no_transaction_protects_wait_for_the_lookback_alone() -> None:
    options = Options()
    position = floor.add(Position(identity=""), candidate(1, 0, OPEN), options)
    ended = floor.answered(position, [replace(OPEN, tokens=frozenset())], now=1)
    reason = OpenTransactions(known=False, reason="a sequence with a cache")
    position = floor.add(ended, candidate(2, 1000, reason), options, protected=False)
    assert len(floor.closed(position)) == 2
    # The longer lookback, also for what was noted before that was known.
    assert floor.rise(position, floor.closed(position), options, now=299).floor is None
    assert floor.rise(position, floor.closed(position), options, now=1299).floor == "1"
    assert floor.rise(position, floor.closed(position), options, now=1300).floor == "2"


def test_a_source_that_never_lists_transactions_has_the_lookback_from_the_start() -> None:
    options = Options()
    position = floor.add(Position(identity=""), candidate(1, 0, FAILURES[UNTOLD]), options)
    assert position.shows_transactions is False
    assert floor.held_since(position) is None
    assert floor.rise(position, floor.closed(position), options, now=300).floor == "1"


@pytest.mark.parametrize("seed", range(3))
def test_candidates_are_thinned_and_none_that_knows_more_is_lost(seed: int) -> None:
    options, position = Options(lookback_seconds=0), Position(identity="")
    for number in range(100):
        listed = FAILURES[PASSING] if number % 7 == seed else replace(OPEN, tokens=frozenset({"t", f"{number}"}))
        position = floor.add(position, candidate(number, number, listed), options)
        assert len(position.candidates) <= floor.MAX_CANDIDATES
    assert not floor.closed(position)
