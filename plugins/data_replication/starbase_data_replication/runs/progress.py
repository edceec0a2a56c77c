"""The events of a run that has not ended: that it has begun, and how far it is. Must not record anything."""

from __future__ import annotations

from starbase_data_replication.model import PROGRESS, ReplicationEvent
from starbase_data_replication.runs.active_run import ActiveRun
from starbase_data_replication.runs.events import Events
from starbase_data_replication.storage import StoredReplication
from starbase_host import Clock, iso

# `run_progress` comes at most this often for each run.
PROGRESS_SECONDS = 1.0


def event_of(run: ActiveRun, stored: StoredReplication, type: str, *, now: float) -> ReplicationEvent:
    """The event of a run that has not ended. now: seconds since 1970."""
    progress = run.progress
    return ReplicationEvent(
        type=type,
        run_id=run.run_id,
        occurred_at=iso(now) or "",
        config_name=run.name,
        status="running",
        records_processed=progress.changed,
        sync_duration_ms=max(0, round((now - progress.started_at) * 1000)),
        kind=run.kind.value,
        started_at=iso(progress.started_at),
        rows_read=progress.rows,
        bytes_read=progress.bytes,
        target_table=stored.replication.target_table,
    )


async def report_progress(run: ActiveRun, stored: StoredReplication, events: Events, clock: Clock) -> None:
    """Send `run_progress` while the run progresses, until this is cancelled."""
    seen = (0, 0, 0)
    while True:
        await clock.sleep(PROGRESS_SECONDS)
        progress = run.progress
        now = (progress.rows, progress.changed, progress.bytes)
        if now != seen:
            seen = now
            events.send(event_of(run, stored, PROGRESS, now=clock.now()))
