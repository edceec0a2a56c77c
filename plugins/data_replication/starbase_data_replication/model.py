"""The plugin's values: what a table, a batch of its rows and a position are.

Frozen, keyword-only, and free of any database, clock or network, so that everything else may import them.
Words are those of docs/internals/glossary.md. Times are seconds since 1970 (float, UTC), unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import Any, NamedTuple, overload

from starbase_data_replication.casts import Cast

Row = Sequence[Any]


class Rows(Sequence[Row]):
    """Rows of one width, held as their values one after the other: `values` may be changed in place.

    SQLite is given values, not rows: to make a tuple for each of a million rows and to take it apart again costs a
    fifth of a first load.
    """

    __slots__ = ("values", "width")

    def __init__(self, values: list[Any], width: int) -> None:
        self.values = values
        self.width = width

    @classmethod
    def of(cls, rows: Sequence[Row], width: int) -> Rows:
        """These rows; themselves, when they are held so already."""
        return rows if isinstance(rows, Rows) else Rows(list(chain.from_iterable(rows)), width)

    def column(self, index: int) -> list[Any]:
        return self.values[index :: self.width]

    def replace_column(self, index: int, values: Sequence[Any]) -> None:
        self.values[index :: self.width] = values

    def __len__(self) -> int:
        return len(self.values) // self.width

    def __iter__(self) -> Iterator[Row]:
        return zip(*[iter(self.values)] * self.width, strict=True)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return list(self)[index]
        at = range(len(self))[index] * self.width
        return tuple(self.values[at : at + self.width])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class TableName:
    """A table of a source. `schema` is None where the dialect has no schema apart from the database."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a source table.

    source_type: the source's own name of the type, for people. tracking_kind, compare_type, time_digits: for
    the dialect's own room, when this column is the tracking column or part of the key: the base type's short
    name, the type to compare with, and the fractional digits of a time (None: the type's most).
    collation: what its texts are ordered by. charset: which character set they are in, where the cast does not tell.
    rises: what is known of its values as a tracking column, by its type: "time"; "number"; "uuid", "text" and "bytes",
    of which the values tell; "none"; or "" where the dialect does not say. indexed: an index begins with it. assigned:
    the source counts it up, or stamps it, itself.
    number: stays with the column whatever it is called; "" where the source does not tell. renamed: the replica's name
    of the column, where it is another. readable: whether the source lets its user read it. transformed: a plugin
    changes its values on their way, so that they cannot be compared with the source's. nocase: the replica compares its
    texts without regard to case.
    """

    name: str
    source_type: str
    nullable: bool
    cast: Cast
    tracking_kind: str = ""
    compare_type: str = ""
    time_digits: int | None = None
    collation: str = ""
    charset: str = ""
    number: str = ""
    rises: str = ""
    indexed: bool = False
    assigned: bool = False
    renamed: str | None = None
    readable: bool = True
    transformed: bool = False
    nocase: bool = False

    @property
    def target(self) -> str:
        """The replica's name of the column."""
        return self.renamed or self.name

    @property
    def form(self) -> str:
        """What decides how a value is stored: of two types with the same form, the same value is stored alike."""
        lengths_only = self.cast.declared == "INTEGER" or self.tracking_kind in LENGTHS_ONLY
        form = f"{self.cast.declared} {self.cast.select} {'' if lengths_only else self.source_type}"
        return f"{form} {self.charset}" if self.charset else form


# Types whose values are stored as they are, however long the column lets them be.
LENGTHS_ONLY = frozenset({"text", "varchar", "tinytext", "mediumtext", "longtext", "bytea", "varbinary"})


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a replica was built from, to be compared with what its source looks like later.

    columns: the source's name of a column to its type, its `form`, the replica's name of it, and its number.
    tracking: what the tracking column is ordered by. kind: "table", "view" and so on. incarnation, parts,
    definition: see TableSchema.
    """

    columns: Mapping[str, Sequence[str]]
    key: Sequence[str]
    tracking: str = ""
    kind: str = "table"
    incarnation: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    definition: str = ""


@dataclass(frozen=True, kw_only=True)
class TableSchema:
    """What a source table looks like now, and what of it is copied.

    key holds the names of the primary key's columns, or of a unique index without NULLs; empty when
    there is neither, and then every sync reloads the table whole. parent_key: of a parent by inheritance, its key,
    which says nothing of its children's rows.
    estimated_rows is the source's own guess, or None. unprotected says why the source's transactions do not
    protect the tracking column (values that are assigned ahead of them), or is None. unfollowable: why rows appear
    otherwise than at the commit of the transaction that took their tracking value, or below values that were read, so
    that no lookback helps and the table must be loaded whole at each sync; or None.
    hidden: what hides rows of it from this user, with the fix (a policy, a view that asks who reads); None where every
    row is seen. policed: for the dialect's own room, that a policy applies, even one that hides nothing.
    warnings: what to tell the user at each sync; caveats: the same, where the table is followed and not loaded whole.
    unassigned: nothing at the source gives the tracking column its values, so applications do. drawn: the function by
    which its default gives random values.
    kind: "table", "view", "partitioned table" and so on. incarnation: changes when another table takes this one's
    name and place; None where the source does not tell.
    falling: the key's columns that its index has from the highest value down, while others go up: for the dialect's own
    room, which reads in the index's order.
    files: by each table that the rows lie in, what changes when it is rewritten, emptied or replaced; behind an @ its
    name may say how it has joined the others, which changes when it leaves them and comes back. parts: the same
    of partitions, where the dialect can tell that one was exchanged. definition: what changes with a view's query.
    server: what another server answers otherwise, and one that was restarted does not. All for comparing; empty where
    the source does not tell.
    left_out: columns that are known but not copied. where: rows for which this expression of the source's SQL is
    not true are not copied; None copies all.
    """

    table: TableName
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    tracking_column: str
    parent_key: tuple[str, ...] = ()
    estimated_rows: int | None = None
    unprotected: str | None = None
    unfollowable: str | None = None
    hidden: str | None = None
    policed: bool = False
    warnings: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    unassigned: bool = False
    drawn: str | None = None
    kind: str = "table"
    incarnation: str | None = None
    falling: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    definition: str = ""
    server: str = ""
    left_out: tuple[Column, ...] = ()
    where: str | None = None

    def column(self, name: str) -> Column:
        return next(column for column in (*self.columns, *self.left_out) if column.name == name)

    @property
    def tracking(self) -> Column:
        return self.column(self.tracking_column)

    @property
    def comes_again(self) -> bool:
        """Whether later rows may have a tracking value that is there: none does that identifies its row, or is counted
        up by the source."""
        return self.key != (self.tracking_column,) and not self.tracking.assigned

    @property
    def key_columns(self) -> tuple[Column, ...]:
        return tuple(self.column(name) for name in self.key)

    @property
    def target_key(self) -> tuple[str, ...]:
        """The replica's names of the key's columns."""
        return tuple(column.target for column in self.key_columns)

    @property
    def shape(self) -> Shape:
        columns = {each.name: (each.source_type, each.form, each.target, each.number) for each in self.columns}
        tracking = f"{self.tracking.source_type} {self.tracking.collation}".rstrip()
        return Shape(
            columns=columns, key=self.key, tracking=tracking, kind=self.kind, incarnation=self.incarnation,
            parts=self.parts, definition=self.definition,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Alive:
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
    untold_since: since when the source has not told what became of `alive`, which then stays as it was known.
    """

    value: str
    noted_at: float
    alive: Alive
    lookback_value: str | None = None
    protected: bool = True
    untold_since: float | None = None

    @property
    def known(self) -> bool:
        """Whether the source has told who could still commit below it."""
        return self.protected and self.alive.known


@dataclass(frozen=True, kw_only=True)
class Noted:
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
    shape: Shape
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
    told: whether the source tells who is alive; None before it was asked. untold_since: since when one that did does
        not; see position.py.
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
    shape: Shape | None = None
    dropped: tuple[str, ...] = ()
    told: bool | None = None
    untold_since: float | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    server: str = ""
    reload: str | None = None
    former: Former | None = None


class Exceptions(NamedTuple):
    """Values of a column that SQLite cannot hold as they are: what they are and what became of them."""

    column: str
    policy: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows on their way. Values are already what SQLite stores; integers may be their digits.

    rows: any sequence of rows; of many, `Rows` costs least.
    exceptions: how many of the values could not be represented.
    last_key: the key of the last row as the source's text, where the read was in key order and can be resumed.
    last: no batch follows. The last one may be empty.
    """

    rows: Sequence[Row]
    bytes: int
    last_key: tuple[str, ...] | None = None
    last: bool = False
    exceptions: Mapping[Exceptions, int] = field(default_factory=dict)
