"""Begins runs, one at a time for each replication, and sees that each is recorded once it has ended.

A run is a separate task: it does not end with the request or the alarm that began it. Must not know when a run is due,
nor how its work is done.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import apsw

from starbase_data_replication.connections import Connections
from starbase_data_replication.errors import OddAnswer, details_of
from starbase_data_replication.model import PROGRESS, Progress, ReplicationEvent, RunKind, SyncRun
from starbase_data_replication.runs import progress
from starbase_data_replication.runs.active_run import GOES_ON, OF_ANOTHER, ActiveRun
from starbase_data_replication.runs.recorder import Ending, Recorder, ending_of
from starbase_data_replication.runs.slots import Slots
from starbase_data_replication.runs.work import Work
from starbase_data_replication.sources import RegisteredDialect
from starbase_data_replication.storage import Store, StoredReplication, event_log, outbox, store, user_objects
from starbase_data_replication.verify import allow
from starbase_host import Conflict, Host, Unavailable

log = logging.getLogger("starbase.data_replication")

# How long an interrupted run may take to release its source: a cancelled query ends well within it, and the host must
# end within five seconds of a signal.
LET_GO_SECONDS = 3.0
# How long to wait before the database is asked again to take a record: a lock or a full disk lasts for seconds.
RECORD_AGAIN_SECONDS = 1.0
# How long the host's end waits for records; what is not recorded by then, the next start records.
CLOSE_SECONDS = 2.0


class Changed(Conflict):
    """A run has not begun, because its replication was changed, stopped, deleted or reset meanwhile."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}, or its group, was changed while its run began; try again")


@dataclass(kw_only=True)
class Runner:
    """The runs of one host.

    host: gives the clock, the hooks and the end of the host.
    store: keeps replications and records.
    connections: opens sources.
    recorder: records runs that have ended.
    slots: limits how many runs work at once.
    added_seconds: how long what users have added to a replica, such as triggers, may take; seconds for a transaction.
    running: the runs that have not ended, by the name of their replication.
    """

    host: Host
    store: Store
    connections: Connections
    recorder: Recorder
    slots: Slots
    added_seconds: float = user_objects.SECONDS
    running: dict[str, ActiveRun] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, name: str, kind: RunKind, *, repair: bool = False, force: bool = False) -> ActiveRun:
        """Begin a run, with those of its group if it is a sync.

        repair, force: see ActiveRun. Raises NotFound; Conflict if a run of that name, or of its group, has not ended;
        Changed, a Conflict too, if the replication changes meanwhile; InvalidRequest if its configuration does not
        allow such a run; Unavailable if the database takes no writes: that is recorded once it does.
        """
        begun = None
        while begun is None:
            # Repeated only while other requests change the members of its group.
            begun = await self._try_to_begin(name, kind, repair=repair, force=force)
        runs, stored = begun
        work = asyncio.create_task(self._make_work(runs, stored).run(), name=f"work-{name}")
        for run, each in zip(runs, stored, strict=True):
            run.work = work
            if run.started_event is not None:
                self.recorder.events.send(run.started_event)
            task = asyncio.create_task(self._run(run, each), name=f"run-{run.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if run.interrupt_reason is not None:
                work.cancel()
        return runs[0]

    async def _try_to_begin(
        self, name: str, kind: RunKind, *, repair: bool, force: bool
    ) -> tuple[list[ActiveRun], list[StoredReplication]] | None:
        """Begin runs; returns them with their replications, or None if the members of the group have just changed."""
        members = await self.store.database.read(partial(_members, name=name, kind=kind))
        for member in members:
            self._check_free(member)
        now = self.host.clock.now()
        runs = [self._make_run(member, kind if member == name else _kind_beside(kind), members) for member in members]
        runs[0].repair, runs[0].force = repair, force
        # The names are taken before the next await, so that two requests cannot both pass the check.
        self.running |= {run.name: run for run in runs}
        stored, recorded = None, False
        try:
            stored = await self.store.database.write(partial(_begin, runs=runs, now=now, known=self.connections.known))
        except Unavailable as error:
            recorded = not self.host.stopping.is_set()
            if not recorded:
                raise
            raise self._fail_to_begin(runs, error) from error
        finally:
            if stored is None and not recorded:
                for run in runs:
                    del self.running[run.name]
                    # A caller that interrupts it waits for its record, which will not come.
                    run.result.cancel()
        if stored is not None:
            return runs, stored
        if runs[0].interrupt_reason is not None:
            # If it began again, it would undo the interruption.
            raise Changed(name)
        return None

    def _check_free(self, name: str) -> None:
        run = self.running.get(name)
        if run is not None and not run.has_begun:
            raise Unavailable(run.record_error or "")
        if run is not None:
            raise Conflict(f"the {run.noun.lower()} of {name} has not ended (run {run.run_id}); wait until it has")

    def fail_to_begin(self, name: str, kind: RunKind, error: Unavailable) -> Unavailable:
        """Record as failed, in the background, a run that could not begin because the database takes no writes.

        Returns the error to raise.
        """
        if name in self.running or self.host.stopping.is_set():
            return error
        run = self._make_run(name, kind, (name,))
        self.running[name] = run
        return self._fail_to_begin([run], error)

    def _fail_to_begin(self, runs: Sequence[ActiveRun], error: Unavailable) -> Unavailable:
        """The same, for runs that have taken their names; they keep them until the failure is recorded."""
        why = f"could not begin: {error}"
        for run in runs:
            run.has_begun, run.record_error = False, f"the {run.kind.value} run of {run.name} {why}"
            task = asyncio.create_task(self._record_failure_to_begin(run, why), name=f"run-{run.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return Unavailable(f"{runs[0].record_error}; that is recorded once the database can be written")

    async def _record_failure_to_begin(self, run: ActiveRun, why: str) -> None:
        try:
            stored = await self.store.get(run.name)
            while not await self._try_to_record(run, stored, Ending(status="error", error=f"the run {why}")):
                await self.host.clock.sleep(RECORD_AGAIN_SECONDS)
        finally:
            self.running.pop(run.name, None)
            run.result.cancel()

    def _make_run(self, name: str, kind: RunKind, members: tuple[str, ...]) -> ActiveRun:
        return ActiveRun(
            run_id=uuid.uuid4().hex,
            name=name,
            kind=kind,
            members=members,
            progress=Progress(started_at=self.host.clock.now()),
            result=asyncio.get_running_loop().create_future(),
        )

    def _make_work(self, runs: Sequence[ActiveRun], stored: Sequence[StoredReplication]) -> Work:
        return Work(
            runs=runs,
            stored=stored,
            host=self.host,
            database=self.store.database,
            connections=self.connections,
            slots=self.slots,
            added_seconds=self.added_seconds,
        )

    async def interrupt(self, name: str, reason: str) -> None:
        """Interrupt a run, if there is one, with those that share its work, and wait until they are recorded."""
        run = self.running.get(name)
        if run is None:
            return
        sharing = self._sharing_work_with(run)
        for each in sharing:
            each.interrupt(reason if each is run else OF_ANOTHER)
        await asyncio.wait({each.result for each in sharing}, timeout=2 * LET_GO_SECONDS)

    def give_up(self, run: ActiveRun, why: str) -> None:
        """End a run that makes no progress; it is recorded as failed, with this message."""
        for each in self._sharing_work_with(run):
            each.give_up_reason = why
            each.interrupt(why)

    def _sharing_work_with(self, run: ActiveRun) -> list[ActiveRun]:
        """The runs that share the work of this one and have not ended; this one is among them."""
        others = (self.running.get(member) for member in run.members)
        return [each for each in others if each is not None and each.work is run.work]

    async def close(self) -> None:
        """Interrupt every run, and wait until each is recorded, at most CLOSE_SECONDS."""
        runs = list(self.running.values())
        for run in runs:
            run.interrupt("the host stopped")
        if runs:
            await asyncio.wait({run.result for run in runs}, timeout=CLOSE_SECONDS)
        await self.recorder.counts.close()

    async def recover(self) -> set[str]:
        """Record the runs that an earlier host has left unrecorded; returns the names of their replications."""
        names = set()
        for stored in await self.store.all():
            left = stored.unrecorded_run
            if left is not None:
                run = SyncRun(
                    run_id=left.run_id,
                    config_name=stored.name,
                    kind=left.kind,
                    status="interrupted",
                    started_at=left.started_at,
                    finished_at=self.host.clock.now(),
                    error_message="the host ended during the run" + (f"; {GOES_ON}" if left.kind.syncs else ""),
                )
                event = ReplicationEvent.of_record(run, None, target_table=stored.replication.target_table)
                await self.store.database.write(partial(_record_left, run=run, event=event))
                names.add(stored.name)
        return names

    async def _run(self, run: ActiveRun, stored: StoredReplication) -> None:
        """Wait for a run's work, and record the run. Never cancelled: an interruption ends the work alone."""
        work = run.work
        assert work is not None
        stopping: asyncio.Task[Any] = asyncio.create_task(run.stopping.wait())
        beside = [stopping]
        events, clock = self.recorder.events, self.host.clock
        if events.wants(PROGRESS):
            beside.append(asyncio.create_task(progress.report_progress(run, stored, events, clock)))
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for each in beside:
            each.cancel()
        if not work.done():
            # A source that does not answer any more may hold up the work for much longer.
            await asyncio.wait({work}, timeout=LET_GO_SECONDS)
        ending = ending_of(run, work)
        if ending.failure is not None:
            details = await details_of(ending.failure)
            text = self.connections.scrubbed(details, stored.replication.source_config)
            how = "received an odd answer" if isinstance(ending.failure, OddAnswer) else "failed unexpectedly"
            log.error("run of %s %s\n%s", run.name, how, text)
        try:
            while not await self._try_to_record(run, stored, ending):
                await self.host.clock.sleep(RECORD_AGAIN_SECONDS)
        finally:
            self.running.pop(run.name, None)

    async def _try_to_record(self, run: ActiveRun, stored: StoredReplication, ending: Ending) -> bool:
        """Record a run; False if the database takes no writes now, being full or locked, and it must be tried again.

        Callers that wait for the run get an error at once. When the host stops, it is left to the next start.
        """
        try:
            record = await self.recorder.record(run, stored, ending)
        except Exception as failure:
            # Tried again whatever it is, and until the host stops: without its record, the run would count as under way
            # in the database, and its event would never go out.
            if run.has_begun:
                run.record_error = f"the last run could not be recorded, and is tried again: {failure}"
            how = run.hide(ending.error or ending.status)
            if self.host.stopping.is_set() or not run.result.done():
                log.error("run %s of %s (%s): %s", run.run_id, run.name, how, run.record_error)
            if not run.result.done():
                error = f"{run.record_error}; {how}"
                run.result.set_result(self.recorder.make_record(run, "error", error, None))
            return self.host.stopping.is_set()
        # Before the result is set: a caller that waited for this run may begin the next one at once.
        self.running.pop(run.name, None)
        if not run.result.done():
            run.result.set_result(record)
        return True


def _record_left(connection: apsw.Connection, *, run: SyncRun, event: ReplicationEvent) -> None:
    """Record a run that an earlier host has left. Its event waits in the outbox until every plugin listens."""
    store.record(connection, run)
    outbox.add(connection, event)
    event_log.store(connection, event, now=run.finished_at)


def _members(connection: apsw.Connection, *, name: str, kind: RunKind) -> tuple[str, ...]:
    """The names that a run of this kind is about: itself, and for a sync the active others of its group."""
    group = store.get(connection, name).replication.options.group
    if group is None or not kind.syncs:
        return (name,)
    members = store.of_group(connection, group)
    return (name, *(each.name for each in members if each.replication.is_active and each.name != name))


def _begin(
    connection: apsw.Connection,
    *,
    runs: Sequence[ActiveRun],
    now: float,
    known: Callable[[str], RegisteredDialect],
) -> list[StoredReplication] | None:
    """Store that runs begin; returns their replications as they are now, or None if the group has other members now.

    A change that was committed before this found no run to end, so a run must not begin with what it replaced.
    """
    first = runs[0]
    if _members(connection, name=first.name, kind=first.kind) != first.members:
        return None
    if first.kind is RunKind.SCHEDULED and not store.get(connection, first.name).replication.is_active:
        raise Changed(first.name)
    for run in runs:
        store.begin_run(connection, run.name, run.run_id, run.kind, now=now)
    # Read after `begin_run`, so that each names its run.
    stored = [store.get(connection, run.name) for run in runs]
    for run, each in zip(runs, stored, strict=True):
        run.started_event = progress.event_of(run, each, "run_started", now=now)
        event_log.store(connection, run.started_event, now=now)
    # Checked in the transaction that begins the run: a later change of the configuration ends it.
    replication = stored[0].replication
    allow(replication.options, first.kind, repair=first.repair, dialect=known(replication.dialect))
    return stored


def _kind_beside(kind: RunKind) -> RunKind:
    """The kind of a run that begins because another of its group is due."""
    return RunKind.MANUAL if kind is RunKind.RESET else kind
