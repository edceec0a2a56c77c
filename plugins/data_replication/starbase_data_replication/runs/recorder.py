"""Recording a run that has ended: its record, its effect on the status, and its events.

Must not begin or end a run.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import apsw

from starbase_data_replication.connections import Connections
from starbase_data_replication.errors import MAX_SHOWN, DialectFailed, OddAnswer, retrieve_error
from starbase_data_replication.model import ReplicationEvent, RunKind, RunStatus, SyncRun
from starbase_data_replication.runs.active_run import OF_ANOTHER, ActiveRun
from starbase_data_replication.runs.events import Events
from starbase_data_replication.runs.row_counts import RowCounts
from starbase_data_replication.sources import LARGEST
from starbase_data_replication.storage import Outcome, Store, StoredReplication, Superseded, event_log, outbox, store
from starbase_data_replication.sync import SyncResult
from starbase_data_replication.verify import VerificationResult
from starbase_host import Host, StarbaseError, iso, kind_of, printable

log = logging.getLogger("starbase.data_replication")

# Characters of an error that are searched for secrets: the error of another plugin's dialect may have any length, and
# the search takes time for each secret.
MAX_SCRUBBED = 100_000


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a run has ended.

    status: `success`, `error` or `interrupted`.
    error: the message for the record; None for a success.
    result: what a successful sync did; None for a check.
    failure: the error to log with its traceback, if the record's message does not give the cause; else None.
    """

    status: RunStatus
    error: str | None = None
    result: SyncResult | None = None
    failure: BaseException | None = None


@dataclass(kw_only=True)
class Recorder:
    """Records the runs of one host, and sends their events.

    host: gives the clock.
    store: keeps the records.
    connections: removes secrets from errors.
    events: sends the events.
    counts: counts the replicas that a run has changed.
    """

    host: Host
    store: Store
    connections: Connections
    events: Events
    counts: RowCounts

    async def record(self, run: ActiveRun, stored: StoredReplication, ending: Ending) -> SyncRun:
        """Record a run, and send its events. Raises StarbaseError or apsw.Error if the database takes no writes."""
        error = ending.error
        if error is not None:
            # Scrubbed before it is cut: a secret that is cut in two is not recognized any more.
            error = self.connections.scrubbed(error[:MAX_SCRUBBED], stored.replication.source_config)
            error = printable(error, at_most=MAX_SHOWN)
        result = ending.result
        if self.connections.whose(run.dialect) is not None:
            run.progress.schema_changes = tuple(map(run.hide, run.progress.schema_changes))
            result = _hidden(result, run.hide) if result is not None else None
        record = self.make_record(run, ending.status, error, result)
        outcome = Outcome()
        if result is not None:
            outcome = Outcome(floor=result.position.floor, protection=result.protection, held=result.held)
        if run.verification is not None and run.kind is RunKind.VERIFY:
            outcome = Outcome(verified=_last_verify(run, run.verification, record))
        events = _events(run, stored, record)
        uncounted, unsent = await self.store.database.write(
            partial(_record, stored=stored, record=record, outcome=outcome, events=events)
        )
        if uncounted:
            self.counts.schedule(stored)
        log.log(
            logging.WARNING if record.status == "error" else logging.INFO,
            "%s run of %s: %s, %d %s in %d ms%s",
            run.kind.value, run.name, record.status, record.records_processed,
            "row" if record.records_processed == 1 else "rows", record.sync_duration_ms,
            f": {record.error_message}" if record.error_message else "",
        )  # fmt: skip
        for event in events:
            self.events.send(event)
        if unsent:
            self.events.post()
        return record

    def make_record(self, run: ActiveRun, status: RunStatus, error: str | None, result: SyncResult | None) -> SyncRun:
        """Make the record of a run that ends now."""
        return SyncRun(
            run_id=run.run_id,
            config_name=run.name,
            kind=run.kind,
            status=status,
            started_at=run.progress.started_at,
            finished_at=self.host.clock.now(),
            records_processed=_countable(
                run.verification.changed if run.verification is not None else run.progress.changed
            ),
            rows_read=_countable(run.progress.rows),
            bytes_read=_countable(run.progress.bytes),
            error_message=error,
            warnings=_printable(result.warnings) if result is not None else (),
        )


def _hidden(result: SyncResult, hide: Callable[[str], str]) -> SyncResult:
    """A result without secrets in its texts, which another plugin's dialect may have written."""
    held = json.loads(hide(json.dumps(result.held)))
    return replace(
        result,
        warnings=tuple(map(hide, result.warnings)),
        protection=hide(result.protection) if result.protection is not None else None,
        held=held,
    )


def _countable(number: int) -> int:
    """The nearest number that the record has room for: a number of a source's never keeps a run from its record."""
    return min(max(number, 0), LARGEST)


def _last_verify(run: ActiveRun, verification: VerificationResult, record: SyncRun) -> dict[str, object]:
    """What status shows as `last_verify`."""
    return {
        **verification.as_dict(),
        "at": iso(record.finished_at),
        "duration_ms": record.sync_duration_ms,
        "repaired": run.repair,
    }


def _events(run: ActiveRun, stored: StoredReplication, record: SyncRun) -> list[ReplicationEvent]:
    """The events of a run that has ended, except those of its replication's health."""
    target = stored.replication.target_table
    verification = run.verification if run.kind is RunKind.VERIFY else None
    found = verification.as_dict() if verification is not None else None
    events = [ReplicationEvent.of_record(record, found, target_table=target)]
    # A run that fails because of a change is tried again and finds the same change: its event is sent once.
    if run.progress.schema_changes and (record.status == "success" or not stored.consecutive_failures):
        changes = {"changes": list(run.progress.schema_changes)}
        events.append(ReplicationEvent.of(record, "schema_change", changes, target_table=target))
    return events


def _record(
    connection: apsw.Connection,
    *,
    stored: StoredReplication,
    record: SyncRun,
    outcome: Outcome,
    events: Sequence[ReplicationEvent],
) -> tuple[bool, bool]:
    """Record a run; returns whether the replica must be counted, and whether the outbox has events to send."""
    store.record(connection, record, outcome)
    health = outbox.record_health(connection, record)
    for event in [*events, *([health] if health is not None else [])]:
        event_log.store(connection, event, now=record.finished_at)
    return store.uncounted(connection, stored) > 0, bool(outbox.select_unsent(connection))


def ending_of(run: ActiveRun, work: asyncio.Task[dict[str, SyncResult]]) -> Ending:
    """How a run has ended, by its work, which has ended too or is left to itself."""
    if not work.done():
        work.add_done_callback(retrieve_error)
    elif not work.cancelled() and work.exception() is None:
        return Ending(status="success", result=work.result().get(run.name))
    if run.give_up_reason is not None:
        return Ending(status="error", error=run.give_up_reason)
    if not work.done() or work.cancelled():
        return Ending(status="interrupted", error=run.interrupt_reason or OF_ANOTHER)
    failure = work.exception()
    if isinstance(failure, Superseded):
        return Ending(status="interrupted", error=str(failure))
    if isinstance(failure, StarbaseError):
        run.failure_status = failure.status
        unforeseen = failure if isinstance(failure, DialectFailed | OddAnswer) else None
        return Ending(status="error", error=str(failure), failure=unforeseen)
    assert failure is not None
    error = f"unexpected {kind_of(failure)}; the host's log has the details"
    return Ending(status="error", error=error, failure=failure)


def _printable(warnings: Sequence[str]) -> tuple[str, ...]:
    """Warnings as a terminal can show them: they name columns and tables as the source does."""
    return tuple(printable(each, at_most=MAX_SHOWN) for each in warnings)
