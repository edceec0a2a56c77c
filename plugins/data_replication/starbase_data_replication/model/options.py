"""What a user asks for: a replication, and its options. Frozen values; `fields` says what is known of each field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


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
    row_security: "refuse" a table of which the source hides rows from this user, or take it "filtered".
    deletes: "ignore", "reconcile", {"mark": column of the replica} or {"sourceColumn": column of the source}.
    deletes_interval_minutes, deletes_max_share: when keys are compared, and how large a share may be removed.
    verify_interval_minutes: when the whole replica is compared; None means never.
    on_source_rewind: "reload" or "error": what to do when the source's tracking values have gone back.
    on_schema_change: "apply", "backfill" or "error": what to do when the source table changes its shape.
    columns, exclude_columns: which of the source's columns are copied; None and () are all of them.
    where: an expression of the source's SQL; only rows for which it is true are copied.
    rename: the source's name of a column to the replica's.
    types: the source's name of a column to "text", for decimals that are kept as their digits, or "datetime", for
        moments in SQLite's own form.
    collations: the source's name of a column to "nocase": texts that the replica compares without regard to case.
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
    row_security: str = "refuse"
    deletes: str | Mapping[str, str] = "ignore"
    deletes_interval_minutes: float = 60.0
    deletes_max_share: float = 0.3
    verify_interval_minutes: float | None = None
    on_schema_change: str = "apply"
    on_source_rewind: str = "reload"
    columns: Sequence[str] | None = None
    exclude_columns: Sequence[str] = ()
    where: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    collations: Mapping[str, str] = field(default_factory=dict)
    key_columns: Sequence[str] | None = None
    transforms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    group: str | None = None
    max_rows_per_second: float | None = None

    @property
    def selection(self) -> dict[str, Any]:
        """What of the source table is copied, and as what: rows that were copied before do not fit another one."""
        names = ("columns", "exclude_columns", "where", "rename", "types", "collations", "key_columns", "transforms")
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

    tracking_column: None for one that was not named: then it is `id`, if that rises.
    source_config is as the user wrote it (with `${NAME}` unresolved and secrets in place); it is never logged.
    """

    name: str
    source_config: Mapping[str, Any] = field(repr=False)
    source_table: str
    target_table: str
    sync_interval_minutes: float = 60.0
    tracking_column: str | None = None
    is_active: bool = True
    options: Options = Options()

    @property
    def dialect(self) -> str:
        return str(self.source_config["dialect"])

    @property
    def interval_seconds(self) -> float:
        return self.sync_interval_minutes * 60
