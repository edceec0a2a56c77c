"""The plugin's values: what a replication, a table, a position and a run are.

Frozen, keyword-only, and free of any database, clock or network, so that everything else may import them.
Words are those of docs/glossary.md. Times are seconds since 1970 (float, UTC), unless a name says otherwise.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from starbase_data_replication.casts import Cast

Row = Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class TableName:
    """A table of a source. `schema` is None where the dialect has no schema apart from the database."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a replication may set beside the fields that StarbaseDB knows.

    close_wait_seconds: how long a sync waits for the transactions that were alive when it noted the watermark.
    lookback_seconds: the floor stays below what was noted less than this long ago; None means 60 where the
        source tells which transactions are alive, 300 where it does not.
    settle_seconds: for tracking columns that hold a time, how far behind the source's clock a value must lie
        before it may become the floor.
    tracking_time_zone: the zone that zoneless tracking times are written in; None means the server's own.
    mode: "incremental", or "full": every sync loads the whole table beside the old one.
    null_tracking: what to do with rows whose tracking value is NULL: "read", "ignore" or "error".
    deletes: "ignore", "reconcile", {"mark": column of the replica} or {"sourceColumn": column of the source}.
    deletes_interval_minutes, deletes_max_share: when keys are compared, and how large a share may be removed.
    verify_interval_minutes: when the whole replica is compared; None means never.
    on_schema_change: "apply", "backfill" or "error": what to do when the source table changes its shape.
    columns, exclude_columns: which of the source's columns are copied; None and () are all of them.
    where: an expression of the source's SQL; only rows for which it is true are copied.
    rename: the source's name of a column to the replica's.
    key_columns: the columns that identify a row, for views and for tables without a key.
    transforms: a plugin's name to the columns that its `transform_batch` changes on their way.
    group: replications of one group are read from one snapshot and committed together.
    max_rows_per_second: how fast syncs may read; None means as fast as they can.
    """

    close_wait_seconds: float = 2.0
    lookback_seconds: float | None = None
    settle_seconds: float = 2.0
    tracking_time_zone: str | None = None
    mode: str = "incremental"
    null_tracking: str = "read"
    deletes: str | Mapping[str, str] = "ignore"
    deletes_interval_minutes: float = 60.0
    deletes_max_share: float = 0.3
    verify_interval_minutes: float | None = None
    on_schema_change: str = "apply"
    columns: Sequence[str] | None = None
    exclude_columns: Sequence[str] = ()
    where: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    key_columns: Sequence[str] | None = None
    transforms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    group: str | None = None
    max_rows_per_second: float | None = None

    @property
    def selection(self) -> dict[str, Any]:
        """What of the source table is copied, and as what: rows that were copied before do not fit another one."""
        names = ("columns", "exclude_columns", "where", "rename", "key_columns", "transforms")
        return {name: value for name in names if (value := getattr(self, name))}

    @property
    def mark_column(self) -> str | None:
        """The extra column of the replica that says since when a row is gone from the source."""
        return self.deletes.get("mark") if isinstance(self.deletes, Mapping) else None

    @property
    def deleted_column(self) -> str | None:
        """The column of the source that says that a row is to be taken as deleted."""
        return self.deletes.get("sourceColumn") if isinstance(self.deletes, Mapping) else None

    @property
    def reconciles(self) -> bool:
        """Whether keys are compared on a schedule."""
        return self.deletes == "reconcile" or self.mark_column is not None

    def lookback(self, *, known: bool) -> float:
        """Seconds; `known` says whether the source tells which transactions are alive."""
        if self.lookback_seconds is not None:
            return self.lookback_seconds
        return 60.0 if known else 300.0


@dataclass(frozen=True, kw_only=True)
class Replication:
    """One configured link: a source table, and the SQLite table that mirrors it.

    source_config is as the user wrote it (with `${NAME}` unresolved and secrets in place); it is never logged.
    """

    name: str
    source_config: Mapping[str, Any] = field(repr=False)
    source_table: str
    target_table: str
    sync_interval_minutes: float = 60.0
    tracking_column: str = "id"
    is_active: bool = True
    options: Options = Options()

    @property
    def dialect(self) -> str:
        return str(self.source_config["dialect"])

    @property
    def interval_seconds(self) -> float:
        return self.sync_interval_minutes * 60


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a source table.

    source_type: the source's own name of the type, for people. tracking_kind, compare_type, time_digits: for
    the dialect's own room, when this column is the tracking column or part of the key: the base type's short
    name, the type to compare with, and the fractional digits of a time (None: the type's most).
    renamed: the replica's name of the column, where it is another. transformed: a plugin changes its values on
    their way, so that they cannot be compared with the source's.
    """

    name: str
    source_type: str
    nullable: bool
    cast: Cast
    tracking_kind: str = ""
    compare_type: str = ""
    time_digits: int | None = None
    renamed: str | None = None
    transformed: bool = False

    @property
    def target(self) -> str:
        """The replica's name of the column."""
        return self.renamed or self.name

    @property
    def form(self) -> str:
        """What decides how a value is stored: of two types with the same form, the same value is stored alike."""
        lengths_only = self.cast.declared == "INTEGER" or self.tracking_kind in LENGTHS_ONLY
        return f"{self.cast.declared} {self.cast.select} {'' if lengths_only else self.source_type}"


# Types whose values are stored as they are, however long the column lets them be.
LENGTHS_ONLY = frozenset({"text", "varchar", "tinytext", "mediumtext", "longtext", "bytea", "varbinary"})


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a replica was built from, to be compared with what its source looks like later.

    columns: the source's name of a column to its type, its `form`, and the replica's name of it. kind: "table",
    "view" and so on. incarnation: see TableSchema.
    """

    columns: Mapping[str, Sequence[str]]
    key: Sequence[str]
    kind: str = "table"
    incarnation: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableSchema:
    """What a source table looks like now, and what of it is copied.

    key holds the names of the primary key's columns, or of a unique index without NULLs; empty when
    there is neither, and then every sync reloads the table whole.
    estimated_rows is the source's own guess, or None. unprotected says why the source's transactions do not
    protect the tracking column (values that are assigned ahead of them), or is None.
    kind: "table", "view", "partitioned table" and so on. incarnation: changes when another table takes this one's
    name and place; None where the source does not tell.
    left_out: columns that are known but not copied. where: rows for which this expression of the source's SQL is
    not true are not copied; None copies all.
    """

    table: TableName
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    tracking_column: str
    estimated_rows: int | None = None
    unprotected: str | None = None
    warnings: tuple[str, ...] = ()
    kind: str = "table"
    incarnation: str | None = None
    left_out: tuple[Column, ...] = ()
    where: str | None = None

    def column(self, name: str) -> Column:
        return next(column for column in (*self.columns, *self.left_out) if column.name == name)

    @property
    def tracking(self) -> Column:
        return self.column(self.tracking_column)

    @property
    def key_columns(self) -> tuple[Column, ...]:
        return tuple(self.column(name) for name in self.key)

    @property
    def target_key(self) -> tuple[str, ...]:
        """The replica's names of the key's columns."""
        return tuple(column.target for column in self.key_columns)

    @property
    def shape(self) -> Shape:
        columns = {column.name: (column.source_type, column.form, column.target) for column in self.columns}
        return Shape(columns=columns, key=self.key, kind=self.kind, incarnation=self.incarnation)


@dataclass(frozen=True, kw_only=True)
class Alive:
    """The transactions of a source that were alive at a moment, as the source's own tokens.

    known is False where the source does not tell (a missing privilege, a standby); `reason` says which, or
    how it is known. tokens are opaque outside the dialect's room. epoch names the server's life: after a
    restart no transaction of an earlier one is alive, unless the dialect knows of a kind that survives.
    """

    known: bool
    tokens: frozenset[str] = frozenset()
    reason: str = ""
    epoch: str = ""

    @property
    def ended(self) -> bool:
        """True when it is certain that no transaction of this set can still commit."""
        return self.known and not self.tokens


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A watermark noted at `noted_at`, waiting to become the floor, and who could still commit below it.

    value: the highest tracking value then, in the source's text form.
    lookback_value: for a column that holds a time, `value` less the lookback: every row that an unfaithful
        clock may stamp late lies above it, so it need not wait for the lookback to pass. Else None.
    """

    value: str
    noted_at: float
    alive: Alive
    lookback_value: str | None = None


class Phase(StrEnum):
    """Where a replication stands."""

    LOAD = "load"  # the first load walks the table in key order
    FOLLOW = "follow"  # every sync reads what lies above the floor


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
    dropped: the replica's names of columns that the source has no longer; rows that are written hold NULL there.
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


class Exceptions(NamedTuple):
    """Values of a column that SQLite cannot hold as they are: what they are and what became of them."""

    column: str
    policy: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows on their way. Values are already what SQLite stores.

    exceptions: how many of the values could not be represented.
    last_key: the key of the last row as the source's text, where the read was in key order and can be resumed.
    last: no batch follows. The last one may be empty.
    """

    rows: list[Row]
    bytes: int
    last_key: tuple[str, ...] | None = None
    last: bool = False
    exceptions: Mapping[Exceptions, int] = field(default_factory=dict)


class RunKind(StrEnum):
    """Why a run began."""

    SCHEDULED = "scheduled"
    MANUAL = "manual"
    RESET = "reset"
    VERIFY = "verify"
    RECONCILE = "reconcile"

    @property
    def syncs(self) -> bool:
        """Whether such a run is a sync, rather than a look at what is there."""
        return self not in (RunKind.VERIFY, RunKind.RECONCILE)


RunStatus = Literal["success", "error", "interrupted", "skipped"]


@dataclass(frozen=True, kw_only=True)
class SyncRun:
    """One execution of a sync, as it is recorded when it has ended.

    records_processed counts rows inserted, changed or removed in the replica, not rows that were read again.
    """

    run_id: str
    config_name: str
    kind: RunKind
    status: RunStatus
    started_at: float
    finished_at: float
    records_processed: int = 0
    rows_read: int = 0
    bytes_read: int = 0
    error_message: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def sync_duration_ms(self) -> int:
        return max(0, round((self.finished_at - self.started_at) * 1000))


@dataclass(kw_only=True)
class Progress:
    """How far a run is. The one value here that changes: the run writes it, status reads it.

    rows and bytes were read, changed were written. schema_changes: how the source's shape has changed since the
    last sync, in words.
    """

    started_at: float
    rows: int = 0
    changed: int = 0
    bytes: int = 0
    estimated_rows: int | None = None
    schema_changes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReplicationEvent:
    """What the `replication_event` hook and `on_event` hand out; JSON-able by `as_dict()`.

    type is `sync`, `verify`, `reset`, `schema_change`, `degraded` or `recovered`; later versions add others.
    status is `success` or `error`: whether the run could be done. details: of a `verify`, what it found; of a
    `schema_change`, `{"changes": […]}` in words; of `degraded` and `recovered`, since when it failed and how
    often; else None.
    occurred_at is ISO 8601 UTC with milliseconds and Z; sync_duration_ms is in milliseconds.
    """

    type: str
    run_id: str
    occurred_at: str
    config_name: str
    status: str
    records_processed: int
    sync_duration_ms: int
    error_message: str | None
    details: Mapping[str, Any] | None = None
    version: int = 1
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


__all__ = [
    "Alive",
    "Batch",
    "Candidate",
    "Column",
    "Exceptions",
    "Options",
    "Phase",
    "Position",
    "Progress",
    "Replication",
    "ReplicationEvent",
    "Row",
    "RunKind",
    "RunStatus",
    "Shape",
    "SyncRun",
    "TableName",
    "TableSchema",
    "replace",
]
