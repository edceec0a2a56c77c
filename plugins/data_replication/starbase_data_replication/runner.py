"""Runs syncs: one at a time for each replication, a bound over all, each recorded, each announced.

A run is a task of its own: it does not end with the request or the alarm that began it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import apsw

from starbase_data_replication import health, schedule, store, target
from starbase_data_replication.check import Check, Checked
from starbase_data_replication.connections import Connections
from starbase_data_replication.events import Events
from starbase_data_replication.group import sync_together
from starbase_data_replication.model import Progress, ReplicationEvent, RunKind, RunStatus, SyncRun
from starbase_data_replication.slots import Slot, Slots
from starbase_data_replication.sources.base import Source
from starbase_data_replication.sources.line import HEARD
from starbase_data_replication.store import Outcome, Store, Stored, Superseded
from starbase_data_replication.sync import Sync, Synced
from starbase_data_replication.transforms import Transforms
from starbase_host import Clock, Conflict, Host, StarbaseError, iso

log = logging.getLogger("starbase.data_replication")

# An alarm's name is one of these and the replication's name.
ALARMS = {"sync:": RunKind.SCHEDULED, "deletes:": RunKind.RECONCILE, "verify:": RunKind.VERIFY}
# A check that finds its replication busy is tried again after this long, or after its interval if that is shorter.
BUSY_SECONDS = 30.0
# One of a group that finds others of it busy is tried again after this long.
GROUP_BUSY_SECONDS = 1.0
# How long an interrupted run may take to let go of its source.
LET_GO_SECONDS = 3.0
# A run whose record the database does not take is tried again after this long.
RECORD_AGAIN_SECONDS = 1.0
# A table is counted again only after so many times as long as counting it took the last time.
COUNT_SHARE = 20


@dataclass(kw_only=True)
class Running:
    """A run that has not ended. `result` resolves to its record, and never raises.

    members: all that are synced by the same work, of which this is one; a group, or this alone.
    slot: what it works in; None while it waits. source, heard_at, asked_at, counted: for the watchdog: when the
    source was last heard of and last asked whether it is there (monotonic), and how far the run was then.
    given_up: why the watchdog has ended it. unrecorded: why its record could not be written yet.
    thorough: a verification repairs what it finds, a reconciliation removes however much it is. checked: what
    such a run has found, once it has.
    """

    run_id: str
    name: str
    kind: RunKind
    progress: Progress
    result: asyncio.Future[SyncRun]
    members: tuple[str, ...]
    slot: Slot | None = None
    source: Source | None = None
    heard_at: float = 0.0
    asked_at: float = 0.0
    counted: tuple[int, int, int] = (0, 0, 0)
    given_up: str | None = None
    unrecorded: str | None = None
    work: asyncio.Task[dict[str, Synced]] | None = None
    interrupt_reason: str | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    failure_status: int = 502
    thorough: bool = False
    checked: Checked | None = None


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
    slots: Slots
    running: dict[str, Running] = field(default_factory=dict)
    _counted: dict[str, Counted] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, name: str, kind: RunKind, *, thorough: bool = False) -> Running:
        """Begin a run. Raises NotFound, or Conflict when one of that name, or of its group, has not ended."""
        members = await self.store.database.read(partial(_members, name=name, kind=kind))
        for member in members:
            if member in self.running:
                raise Conflict(f"{member} is syncing already (run {self.running[member].run_id})")
        now = self.host.clock.now()
        runs = [self._running(member, kind if member == name else _kind_beside(kind), members) for member in members]
        runs[0].thorough = thorough
        # Taken before anything is awaited again, so that two requests cannot both pass.
        self.running |= {run.name: run for run in runs}
        try:
            stored = await self.store.database.write(partial(_begin, runs=runs, now=now))
        except BaseException:
            for run in runs:
                del self.running[run.name]
            raise
        work = asyncio.create_task(self._work(runs, stored), name=f"work-{name}")
        for run, each in zip(runs, stored, strict=True):
            run.work = work
            task = asyncio.create_task(self._run(run, each), name=f"run-{run.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if run.interrupt_reason is not None:
                work.cancel()
        return runs[0]

    def _running(self, name: str, kind: RunKind, members: tuple[str, ...]) -> Running:
        return Running(
            run_id=uuid.uuid4().hex,
            name=name,
            kind=kind,
            members=members,
            progress=Progress(started_at=self.host.clock.now()),
            result=asyncio.get_running_loop().create_future(),
        )

    async def on_check_due(self, prefix: str, name: str) -> None:
        """A verification or a reconciliation is due: begin it, or try again soon; the next alarm is set either way."""
        stored = await self.store.database.read(lambda connection: store.find(connection, name))
        if stored is None or not stored.replication.is_active:
            return
        seconds = check_interval_seconds(prefix, stored)
        if seconds is None:
            return
        try:
            await self.start(name, ALARMS[prefix])
        except Conflict:
            seconds = min(seconds, BUSY_SECONDS)
        await self.host.alarms.set(prefix + name, self.host.clock.now() + seconds)

    async def on_due(self, name: str, due_at: float) -> None:
        """A tick: begin a scheduled run, or note that it was skipped; the next alarm is set either way."""
        stored = await self.store.database.read(lambda connection: store.find(connection, name))
        if stored is None or not stored.replication.is_active:
            return
        await self.store.database.write(lambda connection: store.set_due(connection, name, due_at))
        now = self.host.clock.now()
        at = schedule.next_due(_clock_of(stored), stored.replication.interval_seconds, now=now, last_due=due_at)
        try:
            run = await self.start(name, RunKind.SCHEDULED)
        except Conflict:
            if stored.replication.options.group is None:
                await self._skip(name)
            elif name not in self.running:
                # Others of its group are being synced without it.
                at = min(at, now + GROUP_BUSY_SECONDS)
        else:
            for member in run.members[1:]:
                await self._put_off(member, now)
        await self.host.alarms.set("sync:" + name, at)

    async def _put_off(self, member: str, now: float) -> None:
        """One that is being synced because another of its group was due is itself due after its own interval."""
        stored = await self.store.get(member)
        at = schedule.next_due(_clock_of(stored), stored.replication.interval_seconds, now=now, last_due=now)
        await self.host.alarms.set("sync:" + member, at)

    async def interrupt(self, name: str, reason: str) -> None:
        """End a run, if there is one, and wait until it is recorded."""
        run = self.running.get(name)
        if run is not None:
            _stop(run, reason)
            await asyncio.wait({run.result}, timeout=2 * LET_GO_SECONDS)

    def give_up(self, run: Running, why: str) -> None:
        """End a run that makes no progress; it is recorded as failed, with this message."""
        for member in run.members:
            other = self.running.get(member)
            if other is not None and other.work is run.work:
                other.given_up = why
                _stop(other, why)

    async def close(self) -> None:
        """End every run; each is recorded as interrupted."""
        runs = list(self.running.values())
        for run in runs:
            _stop(run, "the host stopped")
        if runs:
            await asyncio.wait({run.result for run in runs}, timeout=2.0)

    async def recover(self) -> set[str]:
        """Record the runs that a host that was killed, or stopped, left behind; whose they were."""
        names = set()
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
                names.add(stored.name)
        return names

    async def _run(self, run: Running, stored: Stored) -> None:
        """See a run through to its record. Never cancelled itself: an interruption ends the work, not the record."""
        work = run.work
        assert work is not None
        stopping = asyncio.create_task(run.stopping.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not work.done():
            # A source that has stopped answering may hold the work for longer than anybody should wait.
            await asyncio.wait({work}, timeout=LET_GO_SECONDS)
        status, error, synced, failure = _outcome(run, work)
        if failure is not None:
            text = "".join(traceback.format_exception(failure))
            text = self.connections.scrubbed(text, stored.replication.source_config)
            log.error("run of %s failed unexpectedly\n%s", run.name, text)
        try:
            while not await self._finished(run, stored, status, error, synced):
                await self.host.clock.sleep(RECORD_AGAIN_SECONDS)
        finally:
            self.running.pop(run.name, None)

    async def _finished(
        self, run: Running, stored: Stored, status: RunStatus, error: str | None, synced: Synced | None
    ) -> bool:
        """Record a run; False when the database does not take it now (it is full, or locked), so that no run is lost.

        Whoever waits for the run hears of that at once.
        """
        try:
            await self._finish(run, stored, status, error, synced)
        except Exception as failure:
            run.unrecorded = f"the last run could not be recorded, and is tried again: {failure}"
            if self.host.stopping.is_set() or not run.result.done():
                log.error("run %s of %s (%s): %s", run.run_id, run.name, error or status, run.unrecorded)
            if not run.result.done():
                run.result.set_result(self._record(run, "error", f"{run.unrecorded}; {error or status}", synced))
            return self.host.stopping.is_set()
        return True

    async def _work(self, runs: Sequence[Running], stored: Sequence[Stored]) -> dict[str, Synced]:
        """Do what the first of the runs is for; what was synced, by name."""
        run = runs[0]
        async with self.slots.taken(self.connections.key(stored[0].replication.source_config)) as slot:
            heard = partial(_heard, runs, self.host.clock)
            heard()
            HEARD.set(heard)
            for each in runs:
                each.asked_at, each.slot = each.heard_at, slot
            syncs = [await self._make_sync(*each) for each in zip(runs, stored, strict=True)]
            if run.kind is RunKind.VERIFY:
                run.checked = await Check(sync=syncs[0]).verify(repair=run.thorough)
            elif run.kind is RunKind.RECONCILE:
                run.checked = await Check(sync=syncs[0]).reconcile(force=run.thorough)
            elif not syncs[0].together:
                return {run.name: await syncs[0].run()}
            else:
                await sync_together(syncs)
                return {each.name: sync.synced() for each, sync in zip(runs, syncs, strict=True)}
            return {}

    async def _make_sync(self, run: Running, stored: Stored) -> Sync:
        replication = stored.replication
        dialect = self.connections.dialect(replication.dialect)
        settings = self.connections.opened(replication.source_config)
        selection = [replication.options.selection] if replication.options.selection else []
        run.source = await self.connections.source(settings)
        identity = [*dialect.identity(settings, replication.source_table)]
        return Sync(
            stored=stored,
            source=run.source,
            table=dialect.table_name(settings, replication.source_table),
            identity=json.dumps([*identity, replication.target_table, replication.tracking_column, *selection]),
            database=self.store.database,
            clock=self.host.clock,
            progress=run.progress,
            transforms=Transforms(self.host.call_plugin, replication.options.transforms),
            together=replication.options.group is not None,
        )

    async def _finish(
        self, run: Running, stored: Stored, status: RunStatus, error: str | None, synced: Synced | None
    ) -> None:
        if error is not None:
            error = self.connections.scrubbed(error, stored.replication.source_config)
        record = self._record(run, status, error, synced)
        outcome = Outcome()
        if synced is not None:
            outcome = Outcome(
                floor=synced.position.floor,
                protection=synced.protection,
                row_count=await self._count(stored, synced),
            )
        if run.checked is not None and run.kind is RunKind.VERIFY:
            outcome = Outcome(verified=self._verified(run, record))
        await self.store.database.write(partial(_record_run, record=record, outcome=outcome))
        self.running.pop(run.name, None)
        if not run.result.done():
            run.result.set_result(record)
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
            self.events.send(_schema_change_event(record, run.progress.schema_changes))
        self.events.post()

    def _record(self, run: Running, status: RunStatus, error: str | None, synced: Synced | None) -> SyncRun:
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


def _members(connection: apsw.Connection, *, name: str, kind: RunKind) -> tuple[str, ...]:
    """Whom a run of this kind is about: itself, then for a sync those of its group that are active."""
    group = store.get(connection, name).replication.options.group
    if group is None or not kind.syncs:
        return (name,)
    active = (each.replication for each in store.all_of(connection) if each.replication.is_active)
    return (
        name,
        *(each.name for each in active if each.options.group == group and each.name != name),
    )


def _begin(connection: apsw.Connection, *, runs: Sequence[Running], now: float) -> list[Stored]:
    stored = [store.get(connection, run.name) for run in runs]
    for run in runs:
        store.begin_run(connection, run.name, run.run_id, run.kind, now=now)
    return stored


def _clock_of(stored: Stored) -> str:
    """Whose ticks it has: all of a group have the same, so that they are due at one time."""
    return stored.replication.options.group or stored.name


def _kind_beside(kind: RunKind) -> RunKind:
    """What a run is called that another of its group has brought about."""
    return RunKind.MANUAL if kind is RunKind.RESET else kind


def _record_run(connection: apsw.Connection, *, record: SyncRun, outcome: Outcome) -> None:
    store.record(connection, record, outcome)
    health.after(connection, record)


def _heard(runs: Sequence[Running], clock: Clock) -> None:
    now = clock.monotonic()
    for run in runs:
        run.heard_at = now


def _stop(run: Running, reason: str) -> None:
    """Interrupt a run, once: a second cancellation would strike it while it cleans up."""
    if run.interrupt_reason is None:
        run.interrupt_reason = reason
        run.stopping.set()
        if run.work is not None and not run.work.cancelling():
            run.work.cancel()


def _outcome(
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


def check_interval_seconds(prefix: str, stored: Stored) -> float | None:
    """How often a replication is verified or reconciled by itself; None is never."""
    options = stored.replication.options
    if prefix == "deletes:":
        return options.deletes_interval_minutes * 60 if options.reconciles else None
    return options.verify_interval_minutes * 60 if options.verify_interval_minutes is not None else None


def _event(run: SyncRun, checked: Checked | None) -> ReplicationEvent:
    types = {RunKind.VERIFY: "verify", RunKind.RESET: "reset"}
    return ReplicationEvent(
        type=types.get(run.kind, "sync"),
        details=checked.as_dict() if checked is not None and run.kind is RunKind.VERIFY else None,
        run_id=run.run_id,
        occurred_at=iso(run.finished_at) or "",
        config_name=run.config_name,
        status=run.status,
        records_processed=run.records_processed,
        sync_duration_ms=run.sync_duration_ms,
        error_message=run.error_message,
    )


def _schema_change_event(run: SyncRun, changes: Sequence[str]) -> ReplicationEvent:
    return replace(_event(run, None), type="schema_change", details={"changes": list(changes)}, id=uuid.uuid4().hex)
