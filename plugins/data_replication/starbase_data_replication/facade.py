"""What other plugins call: `host.plugin(DataReplication)` returns it, typed. The plugin implements it.

Must not import what implements it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypedDict

from starbase_data_replication.model import ReplicationEvent

Callback = Callable[[ReplicationEvent], Awaitable[None] | None]


class RunProgress(TypedDict):
    """How far a run is; `started_at` is ISO 8601 UTC."""

    rows: int
    bytes: int
    started_at: str
    estimated_rows: int | None
    run_id: str


class ReplicationStatus(TypedDict):
    """A replication with its state: what `GET /data-replication/status` shows of it, field by field."""

    id: int
    name: str
    source_config: dict[str, Any]
    source_table: str
    target_table: str
    sync_interval_minutes: float
    tracking_column: str | None
    is_active: int
    created_at: str
    updated_at: str
    close_wait_seconds: float
    lookback_seconds: float | None
    settle_seconds: float
    tracking_time_zone: str | None
    mode: str
    null_tracking: str
    row_security: str
    deletes: str | Mapping[str, str]
    deletes_interval_minutes: float
    deletes_max_share: float
    verify_interval_minutes: float | None
    on_schema_change: str
    on_source_rewind: str
    columns: Sequence[str] | None
    exclude_columns: Sequence[str]
    where: str | None
    rename: Mapping[str, str]
    types: Mapping[str, str]
    collations: Mapping[str, str]
    key_columns: Sequence[str] | None
    transforms: Mapping[str, Sequence[str]]
    group: str | None
    max_rows_per_second: float | None
    state: Literal["idle", "running", "waiting", "degraded", "stopped"]
    degraded_since: str | None
    is_running: bool
    progress: RunProgress | None
    last_sync_value: str | None
    watermark: str | None
    last_sync_timestamp: str | None
    last_success_at: str | None
    last_error: str | None
    last_error_at: str | None
    consecutive_failures: int
    last_verify: Mapping[str, Any] | None
    floor_held: Mapping[str, Any] | None
    next_sync_at: str | None
    row_count: int | None
    protection: str | None
    warnings: Sequence[str]


class RunRecord(TypedDict):
    """A run that has ended: what `GET /data-replication/logs` shows of it, field by field."""

    id: int
    config_name: str
    status: Literal["success", "error", "interrupted", "skipped"]
    records_processed: int
    error_message: str | None
    sync_duration_ms: int
    created_at: str
    run_id: str
    kind: str
    started_at: str
    finished_at: str
    rows_read: int
    bytes_read: int
    warnings: list[str]


class DataReplication:
    """The data-replication plugin as other plugins see it. Its methods work from `plugin_lifespan` on."""

    def on_event(
        self, callback: Callback, types: Collection[str] = ("sync",), *, durable: str | None = None
    ) -> Callable[[], None]:
        """Call `callback(event)`, a plain or a coroutine function, for each event of these types.

        types: of EVENT_TYPES.
        durable: a name, unique within the calling plugin: each event comes at least once and in order, also those of
            while the host or the plugin was off. Not for `run_progress` and `host_ready`.
        Returns a function that ends the subscription; a durable subscriber keeps its position. Raises Unavailable
        before the host has started, ValueError for an unknown type, Conflict for a name that is in use.
        """
        raise NotImplementedError

    async def status(self, name: str | None = None) -> list[ReplicationStatus]:
        """Return the replications with their state, by name; with a name, that one alone. Raises NotFound."""
        raise NotImplementedError

    async def runs(self, *, name: str | None = None, after: int = 0, limit: int = 100) -> list[RunRecord]:
        """Return the records of runs that have ended, the oldest first.

        name: only those of this replication, which may have been deleted.
        after: only those whose `id` is above this one; ids rise with the time.
        limit: at most so many, from 1 to 1000. Raises ValueError for another number.
        """
        raise NotImplementedError

    async def sync(self, name: str) -> RunRecord:
        """Sync a replication now, and return the record of the run when it has ended successfully.

        Raises NotFound; Conflict if it is syncing already; Unavailable if the run was interrupted; StarbaseError with
        the status of the cause if it has failed.
        """
        raise NotImplementedError

    async def configure(self, body: Mapping[str, Any]) -> ReplicationStatus:
        """Create or change a replication, and return its status.

        body: as that of `POST /data-replication/configure`. Raises InvalidRequest, which names each wrong field, and
        Conflict.
        """
        raise NotImplementedError
