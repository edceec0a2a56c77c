"""How far a replica has come, and what a source shows of its watermark and its open transactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from starbase_data_replication.model.tables import SchemaFingerprint


@dataclass(frozen=True, kw_only=True)
class OpenTransactions:
    """The transactions of a source that were open at a moment.

    Attributes:
        known: whether the source shows its open transactions; False for a missing privilege, a standby and the like.
        tokens: one for each transaction, opaque outside the dialect's package, except that those of one session may
            end in a # and the same text.
        reason: why they are not known, or how they are.
        epoch: changes when the server restarts. After that no transaction of an earlier epoch is open, unless the
            dialect knows of a kind that survives.
        transient: whether they are unknown only this time, at a source that shows them otherwise.
    """

    known: bool
    tokens: frozenset[str] = frozenset()
    reason: str = ""
    epoch: str = ""
    transient: bool = False

    @property
    def ended(self) -> bool:
        """Whether it is certain that no transaction of this set can still commit."""
        return self.known and not self.tokens

    @property
    def sessions(self) -> int:
        """How many sessions the tokens belong to, as far as they show it."""
        return len({token.rpartition("#")[2] for token in self.tokens})


@dataclass(frozen=True, kw_only=True)
class OpenTransaction:
    """What a source shows of an open transaction. Never a query's text, which may hold values.

    Attributes:
        session: the source's name of the session.
        state: the session's state; None if it is not shown.
        since: when the transaction began, seconds since 1970; None if it is not shown.
    """

    session: str
    state: str | None = None
    since: float | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A watermark that waits to become the floor, and the transactions that could still commit below it.

    Attributes:
        value: the highest tracking value when it was noted, in the source's text form.
        noted_at: when that was, seconds since 1970.
        open_transactions: those that were open right after, less those that have ended since.
        lookback_value: of a column that holds a time, `value` less the lookback; else None. Every row that an
            inaccurate clock may stamp late lies above it, so it need not wait for the lookback to pass.
        protected: whether the source's transactions protect the table's tracking values at all.
        unknown_since: since when the source has not shown what became of `open_transactions`, seconds since 1970; they
            stay as they were.
    """

    value: str
    noted_at: float
    open_transactions: OpenTransactions
    lookback_value: str | None = None
    protected: bool = True
    unknown_since: float | None = None

    @property
    def known(self) -> bool:
        """Whether the source has shown which transactions could still commit below it."""
        return self.protected and self.open_transactions.known


@dataclass(frozen=True, kw_only=True)
class HighWatermark:
    """What a source shows of a table's tracking column before the table is read.

    Attributes:
        candidate: the highest value; None if the table holds none that may become a floor.
        ahead: rows whose tracking time is so far in the future of the source's clock that it is taken for a mistake or
            a plan; 0 if the column holds no time.
        below: the highest value as text, if it lies below the `reached` that was given; else None.
        shared: rows that have the value of the `floor` that was given, at most MAX_SHARED + 1; 0 if that was not asked.
        clocked: whether the values look like a clock's, so that one that is past does not come again.
    """

    candidate: Candidate | None = None
    ahead: int = 0
    below: str | None = None
    shared: int = 0
    clocked: bool = False


class Phase(StrEnum):
    """Where a replication stands."""

    LOAD = "load"  # the first load walks the table in key order
    FOLLOW = "follow"  # every sync reads what lies above the floor


@dataclass(frozen=True, kw_only=True)
class Former:
    """What a replica was built from that a load replaces, if the user has not asked for the load.

    Attributes:
        identity: as the replica's position had it.
        fingerprint: as the replica's position had it.
        why: what the load is for.
        noted: whether an earlier sync has stored that, and this one does not see it any more.
        kept: rows of the replica that the load has taken over so far.
    """

    identity: str
    fingerprint: SchemaFingerprint
    why: str
    noted: bool = False
    kept: int = 0


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a replica has come. It is stored in the transaction of the rows that it covers.

    Attributes:
        identity: what the position belongs to: source, table, target and selection. Another identity starts over.
        phase: whether a load is under way.
        floor: everything above it is read at every sync; None reads everything. In the source's text form.
        candidates: watermarks that wait to become the floor, the oldest first.
        load_key: the last key that a load has written, in the source's text form; None before its first batch.
        loading_since: when a load opened its first snapshot, seconds since 1970; None before, and when following.
        into_shadow: whether the load goes into a shadow, which replaces the target at its end.
        fingerprint: what the source table looked like when the replica was last brought up to date with it.
        dropped: the replica's names of columns that the source no longer has; they are not written.
        shows_transactions: whether the source shows its open transactions; None before it was asked.
        unknown_since: since when a source that showed them does not, seconds since 1970; see sync/watermarks.py.
        files: by table, what identifies the storage that its rows were in when it was last read, or when the load
            under way began; empty if the source does not show it.
        server: what identifies the server that answered then; "" if the source does not show it.
        reload: why the next sync must load the table again, whatever it finds; None if it need not.
        former: of a load into a shadow: what the replica beside it was built from; None if the user asked for the load.
    """

    identity: str
    phase: Phase = Phase.LOAD
    floor: str | None = None
    candidates: tuple[Candidate, ...] = ()
    load_key: tuple[str, ...] | None = None
    loading_since: float | None = None
    into_shadow: bool = False
    fingerprint: SchemaFingerprint | None = None
    dropped: tuple[str, ...] = ()
    shows_transactions: bool | None = None
    unknown_since: float | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    server: str = ""
    reload: str | None = None
    former: Former | None = None
