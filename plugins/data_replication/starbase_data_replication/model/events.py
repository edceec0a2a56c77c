"""The event that announces what happens to replications and their runs."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from starbase_data_replication.model.runs import RunKind, SyncRun
from starbase_host import iso

# Each second of a run: only callbacks that ask for it get it, and it is never stored.
PROGRESS = "run_progress"
READY = "host_ready"
EVENT_TYPES = (
    "sync", "reset", "verify", "schema_change", "degraded", "recovered",
    "run_started", PROGRESS, "run_interrupted", "run_skipped",
    "replication_configured", "replication_deleted", READY,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ReplicationEvent:
    """What the `replication_event` hook and `on_event` hand out; JSON-able by `as_dict()`.

    Attributes:
        type: one of EVENT_TYPES; later versions may add others.
        run_id: the run's id, 32 hex digits; None if the event is not about a run, as for the other fields of a run.
        occurred_at: when it happened, for a run that has ended its end; ISO 8601 UTC with milliseconds and Z.
        config_name: the replication's name; None for `host_ready`.
        status: `success`, `error`, `interrupted` or `skipped`: how the run ended; `running` until then; None without
            a run.
        records_processed: rows inserted, updated or removed in the replica, so far.
        sync_duration_ms: how long the run took, in milliseconds, so far.
        error_message: why it failed, was interrupted or was skipped; None if it was not.
        kind: why the run began: `scheduled`, `manual`, `reset`, `verify` or `reconcile`.
        started_at: when the run began, ISO 8601 UTC with milliseconds and Z.
        rows_read: rows of the source, so far.
        bytes_read: bytes of their values, so far.
        warnings: the warnings of a sync that succeeded.
        target_table: the replica's name.
        details: of a `verify`, what it found; of a `schema_change`, `{"changes": […]}` in words; of `degraded` and
            `recovered`, since when it failed and how often; of a `replication_configured`, `{"created": bool}`; else
            None.
        version: of this format; 1.
        id: the event's id, 32 hex digits.
    """

    type: str
    run_id: str | None = None
    occurred_at: str
    config_name: str | None = None
    status: str | None = None
    records_processed: int = 0
    sync_duration_ms: int = 0
    error_message: str | None = None
    kind: str | None = None
    started_at: str | None = None
    rows_read: int = 0
    bytes_read: int = 0
    warnings: tuple[str, ...] = ()
    target_table: str | None = None
    details: Mapping[str, Any] | None = None
    version: int = 1
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def of(
        cls, run: SyncRun, type: str, details: Mapping[str, Any] | None = None, *, target_table: str | None = None
    ) -> Self:
        """The event of a run that has ended."""
        return cls(
            type=type,
            run_id=run.run_id,
            occurred_at=iso(run.finished_at) or "",
            config_name=run.config_name,
            status=run.status,
            records_processed=run.records_processed,
            sync_duration_ms=run.sync_duration_ms,
            error_message=run.error_message,
            kind=run.kind.value,
            started_at=iso(run.started_at),
            rows_read=run.rows_read,
            bytes_read=run.bytes_read,
            warnings=run.warnings,
            target_table=target_table,
            details=details,
        )

    @classmethod
    def of_record(cls, run: SyncRun, found: Mapping[str, Any] | None, *, target_table: str | None) -> Self:
        """The event of the record of a run. found: what a verification found."""
        types = {RunKind.VERIFY: "verify", RunKind.RESET: "reset"}
        type = types.get(run.kind, "sync") if run.status in ("success", "error") else f"run_{run.status}"
        return cls.of(run, type, found, target_table=target_table)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """The event that `as_dict` was made from, also by an earlier release, which had fewer fields."""
        return cls(**{**values, "warnings": tuple(values.get("warnings", ()))})

    def copy(self) -> Self:
        """A copy that shares nothing that can change."""
        return replace(self, details=copy.deepcopy(self.details))

    def as_dict(self) -> dict[str, Any]:
        """The event as values of JSON, which share nothing with it."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "warnings": list(self.warnings), "details": copy.deepcopy(self.details)}
