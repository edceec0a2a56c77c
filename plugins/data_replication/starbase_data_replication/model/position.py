"""How far a replica has come, and what a source notes of its table and of its open transactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from starbase_data_replication.model.tables import SchemaFingerprint


@dataclass(frozen=True, kw_only=True)
class OpenTransactions:
    """The transactions of a source that were alive at a moment, as the source's own tokens.

    known is False where the source does not tell (a missing privilege, a standby); `reason` says which, or
    how it is known. tokens are opaque outside the dialect's room, except that those of one
    session may end in a # and the same text. epoch names the server's life: after a restart no transaction of
    an earlier one is alive, unless the dialect knows of a kind that survives.
    passing: not known this time, of a source that does tell.
    """

    known: bool
    tokens: frozenset[str] = frozenset()
    reason: str = ""
    epoch: str = ""
    passing: bool = False

    @property
    def ended(self) -> bool:
        """True when it is certain that no transaction of this set can still commit."""
        return self.known and not self.tokens

    @property
    def sessions(self) -> int:
        """How many sessions the tokens are of, as far as they tell."""
        return len({token.rpartition("#")[2] for token in self.tokens})


@dataclass(frozen=True, kw_only=True)
class OpenTransaction:
    """What a source shows of a transaction that is open: its session, the state of that, and since when it lasts.

    None: not shown. Never a query's text, which may hold values.
    """

    session: str
    state: str | None = None
    since: float | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A watermark noted at `noted_at`, waiting to become the floor, and who could still commit below it.

    value: the highest tracking value then, in the source's text form.
    lookback_value: for a column that holds a time, `value` less the lookback: every row that an unfaithful
        clock may stamp late lies above it, so it need not wait for the lookback to pass. Else None.
    protected: whether the source's transactions say anything about the table's values.
    unknown_since: since when the source has not shown what became of `open_transactions`, which then stays as it was.
    """

    value: str
    noted_at: float
    open_transactions: OpenTransactions
    lookback_value: str | None = None
    protected: bool = True
    unknown_since: float | None = None

    @property
    def known(self) -> bool:
        """Whether the source has told who could still commit below it."""
        return self.protected and self.open_transactions.known


@dataclass(frozen=True, kw_only=True)
class HighWatermark:
    """What a source has noted of a table before it is read.

    candidate: None when the table holds no value that may become a floor.
    ahead: how many rows have a tracking time so far in the future of the source's clock that it is taken for a
        mistake, or for a plan; 0 for a column that holds no time.
    below: the highest value as text, where it lies below the floor that was given; else None.
    shared: how many rows have the value `at` that was given, no more than MAX_SHARED + 1; 0 where that was not asked.
    clocked: the values are a clock's by their look, so that those which the clock has left do not come again.
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
    """What a replica was built from that a load is to replace, where nobody has asked for the load.

    identity, shape: as its position had them. why: what the load is for. noted: that is what an earlier look has noted,
    and nothing else tells of it. kept: how many of its rows the load has taken over so far.
    """

    identity: str
    fingerprint: SchemaFingerprint
    why: str
    noted: bool = False
    kept: int = 0


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a replica has come. Stored in the transaction of the rows that it speaks of.

    identity: what the position is about (source, table, columns): another identity means starting over.
    floor: everything above it is read at every sync; None reads all. The source's text form.
    candidates: noted, not yet closed; oldest first.
    load_key: the last key that the first load wrote, in the source's text form; None before its first batch.
    loading_since: when the first load opened its first snapshot; None before, and when following.
    into_shadow: the load goes into a shadow table that replaces the target at its end.
    shape: what the source looked like when the replica was last brought up to date with it.
    dropped: the replica's names of columns that the source no longer has; nothing is written there.
    shows_transactions: whether the source shows which are open; None before it was asked.
    unknown_since: since when a source that did does
        not; see sync/watermarks.py.
    files: what the table's rows lay in when it was last read, or when a load under way began, by table. server: who
        answered then. Both where the source tells.
    reload: why the next sync has to load the table again, whatever it finds; None where it need not.
    former: into a shadow: what the replica beside it was built from; None where the user has asked for the load.
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
