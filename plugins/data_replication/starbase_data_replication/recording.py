"""How a run has ended, as its record, its effect on the status, and its events. Nothing here begins or ends a run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from functools import partial

import apsw

from starbase_data_replication import health, store, tables
from starbase_data_replication.check import Checked
from starbase_data_replication.connections import Connections
from starbase_data_replication.events import Events
from starbase_data_replication.running import Running
from starbase_data_replication.runs import ReplicationEvent, RunKind, RunStatus, SyncRun
from starbase_data_replication.store import Outcome, Store, Stored, Superseded
from starbase_data_replication.sync import Synced
from starbase_host import Host, StarbaseError, iso

log = logging.getLogger("starbase.data_replication")

# A table is counted again only after so many times as long as counting it took the last time.
COUNT_SHARE = 20
CLOSE_SECONDS = 1.0


@dataclass(kw_only=True)
class Counted:
    """When a replica was last counted, and how long that took (monotonic seconds); and what counts it now."""

    at: float = float("-inf")
    seconds: float = 0.0
    counting: asyncio.Task[None] | None = None


@dataclass(kw_only=True)
class Recorder:
    """Records the runs of one host, and tells of them."""

    host: Host
    store: Store
    connections: Connections
    events: Events
    _counted: dict[str, Counted] = field(default_factory=dict)

    async def finish(
        self, run: Running, stored: Stored, status: RunStatus, error: str | None, synced: Synced | None
    ) -> SyncRun:
        """Record a run, and tell of it. Raises what the database raises when it does not take the record."""
        if error is not None:
            error = self.connections.scrubbed(error, stored.replication.source_config)
        record = self.record(run, status, error, synced)
        outcome = Outcome()
        if synced is not None:
            outcome = Outcome(floor=synced.position.floor, protection=synced.protection)
        if run.checked is not None and run.kind is RunKind.VERIFY:
            outcome = Outcome(verified=self._verified(run, record))
        await self.store.database.write(partial(_record_run, record=record, outcome=outcome))
        if synced is not None:
            self._have_counted(stored, synced)
        log.log(
            logging.WARNING if status == "error" else logging.INFO,
            "%s run of %s: %s, %d rows in %d ms%s",
            run.kind.value, run.name, status, record.records_processed, record.sync_duration_ms,
            f": {record.error_message}" if record.error_message else "",
        )  # fmt: skip
        if status in ("success", "error"):
            self.events.send(_event(record, run.checked))
        # A run that fails because of it is tried again and again, and finds the same each time: said once.
        if run.progress.schema_changes and (status == "success" or not stored.columns["consecutive_failures"]):
            changes = {"changes": list(run.progress.schema_changes)}
            self.events.send(ReplicationEvent.of(record, "schema_change", changes))
        self.events.post()
        return record

    def record(self, run: Running, status: RunStatus, error: str | None, synced: Synced | None) -> SyncRun:
        return SyncRun(
            run_id=run.run_id,
            config_name=run.name,
            kind=run.kind,
            status=status,
            started_at=run.progress.started_at,
            finished_at=self.host.clock.now(),
            records_processed=run.checked.changed if run.checked is not None else run.progress.changed,
            rows_read=run.progress.rows,
            bytes_read=run.progress.bytes,
            error_message=error,
            warnings=synced.warnings if synced is not None else (),
        )

    def _verified(self, run: Running, record: SyncRun) -> dict[str, object]:
        assert run.checked is not None
        return {
            **run.checked.as_dict(),
            "at": iso(record.finished_at),
            "duration_ms": record.sync_duration_ms,
            "repaired": run.thorough,
        }

    async def close(self) -> None:
        """Let the counts that are under way end: a command's host lives no longer than its one sync."""
        counting = {each.counting for each in self._counted.values() if each.counting is not None}
        if counting:
            _, late = await asyncio.wait(counting, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()

    def _have_counted(self, stored: Stored, synced: Synced) -> None:
        """Have the replica's rows counted, where that is cheap next to how often it is done. No run waits for it."""
        counted = self._counted.setdefault(stored.name, Counted())
        never = stored.columns["row_count"] is None
        soon = self.host.clock.monotonic() - counted.at < COUNT_SHARE * counted.seconds
        under_way = counted.counting is not None and not counted.counting.done()
        if under_way or (not never and (synced.changed == 0 or soon)):
            return
        counted.counting = asyncio.create_task(self._count(stored, counted))

    async def _count(self, stored: Stored, counted: Counted) -> None:
        # A host that ends, or a table that is gone, is no failure: what is counted is counted again.
        with contextlib.suppress(StarbaseError, apsw.Error):
            began = self.host.clock.monotonic()
            name = stored.replication.target_table
            rows = await self.store.database.read(lambda connection: tables.count_rows(connection, name))
            counted.at = self.host.clock.monotonic()
            counted.seconds = counted.at - began
            await self.store.database.write(partial(store.save_row_count, stored=stored, rows=rows))


def _record_run(connection: apsw.Connection, *, record: SyncRun, outcome: Outcome) -> None:
    store.record(connection, record, outcome)
    health.after(connection, record)


def outcome(
    run: Running, work: asyncio.Task[dict[str, Synced]]
) -> tuple[RunStatus, str | None, Synced | None, BaseException | None]:
    """How a run has ended: status, what to say, what it did, and what nobody had foreseen."""
    if not work.done():
        work.add_done_callback(lambda late: late.cancelled() or late.exception())
    elif not work.cancelled() and work.exception() is None:
        return "success", None, work.result().get(run.name), None
    if run.given_up is not None:
        return "error", run.given_up, None, None
    if not work.done() or work.cancelled():
        reason = run.interrupt_reason or "the run of another of its group was interrupted"
        return "interrupted", reason, None, None
    failure = work.exception()
    if isinstance(failure, Superseded):
        return "interrupted", str(failure), None, None
    if isinstance(failure, StarbaseError):
        run.failure_status = failure.status
        return "error", str(failure), None, None
    return "error", f"unexpected {type(failure).__name__}; the host's log has the details", None, failure


def _event(run: SyncRun, checked: Checked | None) -> ReplicationEvent:
    types = {RunKind.VERIFY: "verify", RunKind.RESET: "reset"}
    found = checked.as_dict() if checked is not None and run.kind is RunKind.VERIFY else None
    return ReplicationEvent.of(run, types.get(run.kind, "sync"), found)
