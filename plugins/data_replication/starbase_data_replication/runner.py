"""Runs syncs: one at a time for each replication, a bound over all, each recorded, each announced.

A run is a task of its own: it does not end with the request or the alarm that began it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from dataclasses import dataclass, field
from functools import partial

import apsw

from starbase_data_replication import schedule, store, target
from starbase_data_replication.connections import Connections
from starbase_data_replication.events import Events
from starbase_data_replication.model import Progress, ReplicationEvent, RunKind, RunStatus, SyncRun
from starbase_data_replication.sources.settings import resolve, scrub, secrets
from starbase_data_replication.store import Outcome, Store, Stored
from starbase_data_replication.sync import Sync, Synced
from starbase_host import Conflict, Host, StarbaseError, iso

log = logging.getLogger("starbase.data_replication")

ALARM = "sync:"
# A table is counted again only after so many times as long as counting it took the last time.
COUNT_SHARE = 20


@dataclass(kw_only=True)
class Running:
    """A run that has not ended. `result` resolves to its record, and never raises."""

    run_id: str
    name: str
    kind: RunKind
    progress: Progress
    result: asyncio.Future[SyncRun]
    has_slot: bool = False
    task: asyncio.Task[None] | None = None
    interrupt_reason: str = "interrupted"
    failure_status: int = 502


@dataclass(kw_only=True)
class Counted:
    """When a replica was last counted, and how long that took; monotonic seconds."""

    at: float = float("-inf")
    seconds: float = 0.0


@dataclass(kw_only=True)
class Runner:
    """The runs of one host."""

    host: Host
    store: Store
    connections: Connections
    events: Events
    max_concurrent_syncs: int
    running: dict[str, Running] = field(default_factory=dict)
    _counted: dict[str, Counted] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.max_concurrent_syncs)

    async def start(self, name: str, kind: RunKind) -> Running:
        """Begin a run. Raises NotFound, or Conflict when one of that name has not ended."""
        if name in self.running:
            raise Conflict(f"{name} is syncing already (run {self.running[name].run_id})")
        now = self.host.clock.now()
        run = Running(
            run_id=uuid.uuid4().hex,
            name=name,
            kind=kind,
            progress=Progress(started_at=now),
            result=asyncio.get_running_loop().create_future(),
        )
        # Taken before anything is awaited, so that two requests cannot both pass.
        self.running[name] = run
        try:
            stored = await self.store.database.write(partial(_begin, run=run, now=now))
        except BaseException:
            del self.running[name]
            raise
        run.task = asyncio.create_task(self._run(run, stored), name=f"sync-{name}")
        return run

    async def on_due(self, name: str, due_at: float) -> None:
        """A tick: begin a scheduled run, or note that it was skipped; the next alarm is set either way."""
        stored = await self.store.database.read(lambda connection: store.find(connection, name))
        if stored is None or not stored.replication.is_active:
            return
        await self.store.database.write(lambda connection: store.set_due(connection, name, due_at))
        try:
            await self.start(name, RunKind.SCHEDULED)
        except Conflict:
            await self._skip(name)
        now = self.host.clock.now()
        at = schedule.next_due(name, stored.replication.interval_seconds, now=now, last_due=due_at)
        await self.host.alarms.set(ALARM + name, at, {"name": name})

    async def interrupt(self, name: str, reason: str) -> None:
        """End a run, if there is one, and wait until it is recorded."""
        run = self.running.get(name)
        if run is not None and run.task is not None:
            run.interrupt_reason = reason
            run.task.cancel()
            await asyncio.wait({run.result})

    async def close(self) -> None:
        """End every run; each is recorded as interrupted."""
        runs = list(self.running.values())
        for run in runs:
            if run.task is not None:
                run.interrupt_reason = "the host stopped"
                run.task.cancel()
        if runs:
            await asyncio.wait({run.result for run in runs}, timeout=2.0)

    async def recover(self) -> None:
        """Record the runs that a host that was killed left behind."""
        for stored in await self.store.all():
            left = stored.columns["running"]
            if left is not None:
                run = SyncRun(
                    run_id=left["run_id"],
                    config_name=stored.name,
                    kind=RunKind(left["kind"]),
                    status="interrupted",
                    started_at=left["started_at"],
                    finished_at=self.host.clock.now(),
                    error_message="the host ended during the run; it goes on from what was committed",
                )
                await self.store.record(run)

    async def _run(self, run: Running, stored: Stored) -> None:
        status: RunStatus = "success"
        error: str | None = None
        synced: Synced | None = None
        try:
            async with self._slots:
                run.has_slot = True
                synced = await self._sync(run, stored)
        except asyncio.CancelledError:
            status, error = "interrupted", run.interrupt_reason
        except StarbaseError as failure:
            status, error = "error", str(failure)
            run.failure_status = failure.status
        except Exception as failure:
            log.exception("sync of %s failed unexpectedly", run.name)
            status, error = "error", f"unexpected {type(failure).__name__}; the host's log has the details"
        try:
            await self._finish(run, stored, status, error, synced)
        except Exception as failure:
            log.exception("run %s of %s could not be recorded", run.run_id, run.name)
            self.running.pop(run.name, None)
            if not run.result.done():
                run.result.set_result(self._record(run, "error", f"could not be recorded: {failure}", synced))

    async def _sync(self, run: Running, stored: Stored) -> Synced:
        replication = stored.replication
        dialect = self.connections.dialect(replication.dialect)
        identity = [*dialect.identity(replication.source_config, replication.source_table)]
        return await Sync(
            stored=stored,
            source=await self.connections.source(replication.source_config),
            table=dialect.table_name(replication.source_config, replication.source_table),
            identity=json.dumps([*identity, replication.target_table, replication.tracking_column]),
            database=self.store.database,
            clock=self.host.clock,
            progress=run.progress,
        ).run()

    async def _finish(
        self, run: Running, stored: Stored, status: RunStatus, error: str | None, synced: Synced | None
    ) -> None:
        hidden = _secrets(stored)
        record = self._record(run, status, scrub(error, hidden) if error is not None else None, synced)
        outcome = Outcome()
        if synced is not None:
            outcome = Outcome(
                floor=synced.position.floor,
                protection=synced.protection,
                row_count=await self._count(stored, synced),
            )
        await self.store.record(record, outcome)
        self.running.pop(run.name, None)
        run.result.set_result(record)
        log.log(
            logging.WARNING if status == "error" else logging.INFO,
            "sync of %s: %s, %d rows in %d ms%s",
            run.name, status, record.records_processed, record.sync_duration_ms,
            f": {record.error_message}" if record.error_message else "",
        )  # fmt: skip
        if status in ("success", "error"):
            self.events.send(_event(record))

    def _record(self, run: Running, status: RunStatus, error: str | None, synced: Synced | None) -> SyncRun:
        return SyncRun(
            run_id=run.run_id,
            config_name=run.name,
            kind=run.kind,
            status=status,
            started_at=run.progress.started_at,
            finished_at=self.host.clock.now(),
            records_processed=synced.changed if synced is not None else run.progress.changed,
            rows_read=run.progress.rows,
            bytes_read=run.progress.bytes,
            error_message=error,
            warnings=synced.warnings if synced is not None else (),
        )

    async def _count(self, stored: Stored, synced: Synced) -> int | None:
        """How many rows the replica holds, where counting is cheap next to how often it is done."""
        counted = self._counted.setdefault(stored.name, Counted())
        now = self.host.clock.monotonic()
        never = stored.columns["row_count"] is None
        if not never and (synced.changed == 0 or now - counted.at < COUNT_SHARE * counted.seconds):
            return None
        name = stored.replication.target_table
        rows = await self.store.database.read(lambda connection: target.count_rows(connection, name))
        counted.at = self.host.clock.monotonic()
        counted.seconds = counted.at - now
        return rows

    async def _skip(self, name: str) -> None:
        now = self.host.clock.now()
        await self.store.record(
            SyncRun(
                run_id=uuid.uuid4().hex,
                config_name=name,
                kind=RunKind.SCHEDULED,
                status="skipped",
                started_at=now,
                finished_at=now,
                error_message="the run before it has not ended",
            )
        )


def _begin(connection: apsw.Connection, *, run: Running, now: float) -> Stored:
    stored = store.get(connection, run.name)
    store.begin_run(connection, run.name, run.run_id, run.kind, now=now)
    return stored


def _secrets(stored: Stored) -> tuple[str, ...]:
    """What may not stand in a message: the secrets as written, and as the environment gives them."""
    settings = stored.replication.source_config
    try:
        return (*secrets(settings), *secrets(resolve(settings)))
    except StarbaseError:
        return secrets(settings)


def _event(run: SyncRun) -> ReplicationEvent:
    return ReplicationEvent(
        type="sync",
        run_id=run.run_id,
        occurred_at=iso(run.finished_at) or "",
        config_name=run.config_name,
        status=run.status,
        records_processed=run.records_processed,
        sync_duration_ms=run.sync_duration_ms,
        error_message=run.error_message,
    )
