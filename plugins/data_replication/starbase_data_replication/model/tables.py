"""What a source table is: its name, its columns, and the fingerprint that a replica was built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starbase_data_replication.model.casts import Cast


@dataclass(frozen=True, kw_only=True)
class TableName:
    """A table of a source.

    Attributes:
        schema: its schema; None if the dialect has none apart from the database.
        name: its name.
    """

    schema: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a source table.

    Attributes:
        name: the source's name of it.
        source_type: the source's name of its type, for people.
        nullable: whether it may hold NULL.
        cast: how its values are stored.
        tracking_kind: for the dialect alone, of the tracking column or one of the key: the base type's short name.
        compare_type: for the dialect alone, of the same columns: the type to compare with.
        time_digits: for the dialect alone, of the same columns: the fractional digits of a time; None is the type's
            most.
        collation: what its texts are ordered by.
        charset: which character set they are in, if the cast does not say.
        number: stays the same if the column is renamed; "" if the source does not show it.
        rises: what its type says of it as a tracking column: "time" or "number"; "uuid", "text" or "bytes", whose
            values decide; "none"; or "" if the dialect does not say.
        indexed: whether an index begins with it.
        assigned: whether the source itself counts it up, or stamps it.
        renamed: the replica's name of it, if it is another one.
        readable: whether the source lets its user read it.
        transformed: whether a plugin changes its values, so that they cannot be compared with the source's.
        nocase: whether the replica compares its texts without regard to case.
        private: for the dialect alone: what it notes of the column when it describes a table, for its reads. It is not
            stored, and two columns that differ in nothing else are equal.
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
    private: Any = field(default=None, compare=False, repr=False)

    @property
    def target(self) -> str:
        """The replica's name of the column."""
        return self.renamed or self.name

    @property
    def form(self) -> str:
        """What decides how a value is stored: two types of the same form store the same value alike."""
        lengths_only = self.cast.declared == "INTEGER" or self.tracking_kind in LENGTHS_ONLY
        form = f"{self.cast.declared} {self.cast.select} {'' if lengths_only else self.source_type}"
        return f"{form} {self.charset}" if self.charset else form


# Types whose values are stored as they are, however long the column lets them be.
LENGTHS_ONLY = frozenset({"text", "varchar", "tinytext", "mediumtext", "longtext", "bytea", "varbinary"})


@dataclass(frozen=True, kw_only=True)
class SchemaFingerprint:
    """What a replica was built from, to be compared with what its source looks like later.

    Attributes:
        columns: the source's name of each column to its type, its `form`, the replica's name of it, and its number.
        key: the source's names of the key's columns.
        tracking: what the tracking column is ordered by: its type and collation.
        kind: as in TableSchema, like the rest.
        incarnation: see TableSchema.
        parts: see TableSchema.
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

    Attributes:
        table: its name.
        columns: the columns that are copied.
        key: the names of the primary key's columns, or of a unique index without NULLs; empty if there is neither, and
            then every sync loads the whole table.
        tracking_column: the name of the tracking column.
        parent_key: the key of a parent by inheritance, which does not hold for the rows of its children.
        estimated_rows: the source's own guess; None if it has none.
        unprotected: why the source's transactions do not protect the tracking column, such as values that are
            assigned ahead of them; else None.
        unfollowable: why rows appear otherwise than at the commit of the transaction that took their tracking value,
            or below values that were read; else None. No lookback helps then: each sync must load the whole table.
        hidden: what hides rows from this user, with the fix: a policy, or a view that depends on its reader; None if
            every row is seen.
        policed: for the dialect alone: whether a policy applies, even one that hides nothing.
        warnings: what to tell the user at each sync.
        caveats: the same, if the table is followed and not loaded whole.
        unassigned: whether nothing at the source assigns the tracking column's values, so that applications do.
        random_default: the function by which the column's default makes random values; else None.
        kind: "table", "view", "partitioned table" and so on.
        incarnation: changes when another table takes this one's name and place; None if the source does not show it.
        falling: for the dialect alone: the key's columns that descend in its index while others ascend.
        files: by each table that the rows are in, what changes when it is rewritten, emptied or replaced. Behind an @
            its name may say how it has joined the others, which changes when it leaves them and comes back. Empty if
            the source does not show it, like the three below.
        parts: the same of partitions, if the dialect can notice that one was exchanged.
        definition: what changes with a view's query.
        server: what differs between servers, and survives a restart.
        left_out: columns that are known and not copied.
        where: an expression of the source's SQL: only rows for which it is true are copied; None copies all.
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
    random_default: str | None = None
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
        """Whether later rows may have a tracking value that exists already.

        They cannot if the value identifies its row, or if the source counts it up.
        """
        return self.key != (self.tracking_column,) and not self.tracking.assigned

    @property
    def key_columns(self) -> tuple[Column, ...]:
        wanted = set(self.key)
        found = {each.name: each for each in (*self.left_out, *self.columns) if each.name in wanted}
        return tuple(found[name] for name in self.key)

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
