"""What a run is: its kind, its progress, and its record. Times are seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


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
