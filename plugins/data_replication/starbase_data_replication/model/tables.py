"""What a table of a source is: its name, its columns, and the shape that a replica was built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from starbase_data_replication.model.casts import Cast


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
class SchemaFingerprint:
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
    def fingerprint(self) -> SchemaFingerprint:
        columns = {each.name: (each.source_type, each.form, each.target, each.number) for each in self.columns}
        tracking = f"{self.tracking.source_type} {self.tracking.collation}".rstrip()
        return SchemaFingerprint(
            columns=columns, key=self.key, tracking=tracking, kind=self.kind, incarnation=self.incarnation,
            parts=self.parts, definition=self.definition,
        )  # fmt: skip
