"""What a run is: its kind, its progress, its record, and the event that announces it. Times are seconds since 1970."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self

from starbase_host import iso


class RunKind(StrEnum):
    """Why a run began."""

    SCHEDULED = "scheduled"
    MANUAL = "manual"
    RESET = "reset"
    VERIFY = "verify"
    RECONCILE = "reconcile"

    @property
    def syncs(self) -> bool:
        """Whether a run of this kind is a sync, and not a check."""
        return self not in (RunKind.VERIFY, RunKind.RECONCILE)


RunStatus = Literal["success", "error", "interrupted", "skipped"]


@dataclass(frozen=True, kw_only=True)
class UnrecordedRun:
    """A run that has begun and is not recorded yet, as it is stored beside its replication.

    Attributes:
        run_id: 32 hex digits.
        kind: why it began.
        started_at: seconds since 1970.
    """

    run_id: str
    kind: RunKind
    started_at: float


@dataclass(frozen=True, kw_only=True)
class SyncRun:
    """One run, as it is recorded when it has ended.

    Attributes:
        run_id: 32 hex digits.
        config_name: the replication's name.
        kind: why it began.
        status: how it ended.
        started_at: seconds since 1970.
        finished_at: seconds since 1970.
        records_processed: rows inserted, updated or removed in the replica; rows that were read and had not changed
            do not count.
        rows_read: rows of the source.
        bytes_read: bytes of their values.
        error_message: why it failed; None if it did not.
        warnings: what to tell the user.
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
    """How far a run is. The only value here that changes: the run writes it, and the status reads it.

    Attributes:
        started_at: seconds since 1970.
        rows: rows read from the source.
        changed: rows written, or removed.
        bytes: bytes of the values that were read.
        estimated_rows: rows of the table by the source's own guess; None if it has none.
        schema_changes: how the source table has changed since the last sync, in words.
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

    Attributes:
        type: `sync`, `verify`, `reset`, `schema_change`, `degraded` or `recovered`; later versions may add others.
        run_id: the run's id, 32 hex digits.
        occurred_at: when the run ended, ISO 8601 UTC with milliseconds and Z.
        config_name: the replication's name.
        status: `success` or `error`: whether the run could be done.
        records_processed: rows inserted, updated or removed in the replica.
        sync_duration_ms: how long the run took, in milliseconds.
        error_message: why it failed; None if it did not.
        details: of a `verify`, what it found; of a `schema_change`, `{"changes": […]}` in words; of `degraded` and
            `recovered`, since when it failed and how often; else None.
        version: of this format; 1.
        id: the event's id, 32 hex digits.
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

    @classmethod
    def of(cls, run: SyncRun, type: str, details: Mapping[str, Any] | None = None) -> Self:
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
            details=details,
        )

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}
