"""How a run has ended, as its record, its effect on the status, and its events. Nothing here begins or ends a run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import apsw

from starbase_data_replication.connections import Connections
from starbase_data_replication.errors import MAX_SHOWN, DialectFailed, OddAnswer, kind_of, retrieve_error
from starbase_data_replication.model import ReplicationEvent, RunKind, RunStatus, SyncRun
from starbase_data_replication.runs.active_run import OF_ANOTHER, ActiveRun
from starbase_data_replication.runs.events import Events
from starbase_data_replication.runs.row_counts import Counts
from starbase_data_replication.storage import Outcome, Store, StoredReplication, Superseded, outbox, store
from starbase_data_replication.sync import SyncResult
from starbase_data_replication.verify import VerificationResult
from starbase_host import Host, StarbaseError, iso, printable

log = logging.getLogger("starbase.data_replication")

# So much of an error is looked through for secrets: one of another dialect may be of any length.
ROOM = 100_000


@dataclass(kw_only=True)
class Recorder:
    """Records the runs of one host, and tells of them."""

    host: Host
    store: Store
    connections: Connections
    events: Events
    counts: Counts

    async def finish(
        self, run: ActiveRun, stored: StoredReplication, status: RunStatus, error: str | None, synced: SyncResult | None
    ) -> SyncRun:
        """Record a run, and tell of it. Raises what the database raises when it does not take the record."""
        if error is not None:
            # In this order: a secret is known by its own characters, and one that is cut is not known.
            error = self.connections.scrubbed(error[:ROOM], stored.replication.source_config)
            error = printable(error, at_most=MAX_SHOWN)
        record = self.record(run, status, error, synced)
        outcome = Outcome()
        if synced is not None:
            outcome = Outcome(floor=synced.position.floor, protection=synced.protection, held=synced.held)
        if run.checked is not None and run.kind is RunKind.VERIFY:
            outcome = Outcome(verified=self._verified(run, record))
        uncounted, untold = await self.store.database.write(
            partial(_record_run, stored=stored, record=record, outcome=outcome)
        )
        if uncounted:
            self.counts.due(stored)
        log.log(
            logging.WARNING if status == "error" else logging.INFO,
            "%s run of %s: %s, %d rows in %d ms%s",
            run.kind.value, run.name, status, record.records_processed, record.sync_duration_ms,
            f": {record.error_message}" if record.error_message else "",
        )  # fmt: skip
        if status in ("success", "error"):
            self.events.send(_event(record, run.checked))
        # A run that fails because of it is tried again and again, and finds the same each time: said once.
        if run.progress.schema_changes and (status == "success" or not stored.consecutive_failures):
            changes = {"changes": list(run.progress.schema_changes)}
            self.events.send(ReplicationEvent.of(record, "schema_change", changes))
        if untold:
            self.events.post()
        return record

    def record(self, run: ActiveRun, status: RunStatus, error: str | None, synced: SyncResult | None) -> SyncRun:
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
            warnings=_shown(synced.warnings) if synced is not None else (),
        )

    def _verified(self, run: ActiveRun, record: SyncRun) -> dict[str, object]:
        assert run.checked is not None
        return {
            **run.checked.as_dict(),
            "at": iso(record.finished_at),
            "duration_ms": record.sync_duration_ms,
            "repaired": run.repair,
        }


def _record_run(
    connection: apsw.Connection, *, stored: StoredReplication, record: SyncRun, outcome: Outcome
) -> tuple[bool, bool]:
    """Whether the replica is to be counted, and whether events are to be sent that are written down."""
    store.record(connection, record, outcome)
    outbox.after(connection, record)
    return store.uncounted(connection, stored) > 0, bool(outbox.unsent(connection))


def outcome(
    run: ActiveRun, work: asyncio.Task[dict[str, SyncResult]]
) -> tuple[RunStatus, str | None, SyncResult | None, BaseException | None]:
    """How a run has ended: status, what to say, what it did, and what nobody had foreseen."""
    if not work.done():
        work.add_done_callback(retrieve_error)
    elif not work.cancelled() and work.exception() is None:
        return "success", None, work.result().get(run.name), None
    if run.given_up is not None:
        return "error", run.given_up, None, None
    if not work.done() or work.cancelled():
        reason = run.interrupt_reason or OF_ANOTHER
        return "interrupted", reason, None, None
    failure = work.exception()
    if isinstance(failure, Superseded):
        return "interrupted", str(failure), None, None
    if isinstance(failure, StarbaseError):
        run.failure_status = failure.status
        return "error", str(failure), None, failure if isinstance(failure, DialectFailed | OddAnswer) else None
    assert failure is not None
    return "error", f"unexpected {kind_of(failure)}; the host's log has the details", None, failure


def _shown(warnings: Sequence[str]) -> tuple[str, ...]:
    """They name columns and tables as the source does."""
    return tuple(printable(each, at_most=MAX_SHOWN) for each in warnings)


def _event(run: SyncRun, checked: VerificationResult | None) -> ReplicationEvent:
    types = {RunKind.VERIFY: "verify", RunKind.RESET: "reset"}
    found = checked.as_dict() if checked is not None and run.kind is RunKind.VERIFY else None
    return ReplicationEvent.of(run, types.get(run.kind, "sync"), found)
