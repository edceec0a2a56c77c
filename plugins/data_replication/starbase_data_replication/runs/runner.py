"""Runs syncs and checks: one at a time for each replication, a bound over all; each is seen through to its record.

A run is a task of its own: it does not end with the request or the alarm that began it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import apsw

from starbase_data_replication.connections import Connections
from starbase_data_replication.errors import DialectFailed, Exited, OddAnswer, catch_exits, format_for_log, kind_of
from starbase_data_replication.model import Progress, RunKind, RunStatus, SyncRun
from starbase_data_replication.runs.active_run import GOES_ON, OF_ANOTHER, ActiveRun, stop
from starbase_data_replication.runs.recorder import Recorder, outcome
from starbase_data_replication.runs.slots import Slots
from starbase_data_replication.sources.network import HEARD
from starbase_data_replication.storage import Store, StoredReplication, store, user_objects
from starbase_data_replication.sync import Sync, SyncResult, Transforms, identity_of, sync_together
from starbase_data_replication.verify import Check, allow
from starbase_host import Clock, Conflict, Host, StarbaseError, Unavailable

log = logging.getLogger("starbase.data_replication")

# How long an interrupted run may take to let go of its source.
LET_GO_SECONDS = 3.0
# A run whose record the database does not take is tried again after this long.
RECORD_AGAIN_SECONDS = 1.0


class Changed(Conflict):
    """A run has not begun, because somebody has changed, stopped or reset what it would have been of."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}, or its group, was changed while its run began; try again")


@dataclass(kw_only=True)
class Runner:
    """The runs of one host."""

    host: Host
    store: Store
    connections: Connections
    recorder: Recorder
    slots: Slots
    added_seconds: float = user_objects.SECONDS
    running: dict[str, ActiveRun] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, name: str, kind: RunKind, *, repair: bool = False, force: bool = False) -> ActiveRun:
        """Begin a run. Raises NotFound; Conflict when one of that name, or of its group, has not ended; Changed, which
        is one too; InvalidRequest for one that its configuration does not allow; Unavailable when the database takes no
        writes, which is recorded once it does."""
        begun = None
        while begun is None:
            # Again and again only while others change who is of its group meanwhile, and get through.
            begun = await self._begun(name, kind, repair=repair, force=force)
        runs, stored = begun
        work = asyncio.create_task(self._contained(runs, stored), name=f"work-{name}")
        for run, each in zip(runs, stored, strict=True):
            run.work = work
            task = asyncio.create_task(self._run(run, each), name=f"run-{run.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if run.interrupt_reason is not None:
                work.cancel()
        return runs[0]

    async def _begun(
        self, name: str, kind: RunKind, *, repair: bool, force: bool
    ) -> tuple[list[ActiveRun], list[StoredReplication]] | None:
        """The runs that have begun, with what each is of; None when they are to be others than a moment before."""
        members = await self.store.database.read(partial(_members, name=name, kind=kind))
        for member in members:
            self._check_free(member)
        now = self.host.clock.now()
        runs = [self._running(member, kind if member == name else _kind_beside(kind), members) for member in members]
        runs[0].repair, runs[0].force = repair, force
        # Taken before anything is awaited again, so that two requests cannot both pass.
        self.running |= {run.name: run for run in runs}
        stored, recorded = None, False
        try:
            stored = await self.store.database.write(partial(_begin, runs=runs, now=now))
        except Unavailable as error:
            recorded = not self.host.stopping.is_set()
            if not recorded:
                raise
            raise self._not_begun(runs, error) from error
        finally:
            if stored is None and not recorded:
                for run in runs:
                    del self.running[run.name]
                    # Whoever interrupts it waits for its record, and there will be none.
                    run.result.cancel()
        if stored is not None:
            return runs, stored
        if runs[0].interrupt_reason is not None:
            # Begun anew, it would go on after whoever has ended it.
            raise Changed(name)
        return None

    def _check_free(self, name: str) -> None:
        run = self.running.get(name)
        if run is not None and not run.begun:
            raise Unavailable(run.unrecorded or "")
        if run is not None:
            raise Conflict(f"{name} is syncing already (run {run.run_id})")

    def not_begun(self, name: str, kind: RunKind, error: Unavailable) -> Unavailable:
        """Have a run recorded as failed that could not begin, because the database takes no writes; what to raise."""
        if name in self.running or self.host.stopping.is_set():
            return error
        run = self._running(name, kind, (name,))
        self.running[name] = run
        return self._not_begun([run], error)

    def _not_begun(self, runs: Sequence[ActiveRun], error: Unavailable) -> Unavailable:
        """The same, of runs whose names are taken: they are kept until that is recorded."""
        why = f"could not begin: {error}"
        for run in runs:
            run.begun, run.unrecorded = False, f"the {run.kind.value} run of {run.name} {why}"
            task = asyncio.create_task(self._record_not_begun(run, why), name=f"run-{run.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return Unavailable(f"{runs[0].unrecorded}; that is recorded once the database can be written")

    async def _record_not_begun(self, run: ActiveRun, why: str) -> None:
        try:
            stored = await self.store.get(run.name)
            while not await self._finished(run, stored, "error", f"the run {why}", None):
                await self.host.clock.sleep(RECORD_AGAIN_SECONDS)
        finally:
            self.running.pop(run.name, None)
            run.result.cancel()

    def _running(self, name: str, kind: RunKind, members: tuple[str, ...]) -> ActiveRun:
        return ActiveRun(
            run_id=uuid.uuid4().hex,
            name=name,
            kind=kind,
            members=members,
            progress=Progress(started_at=self.host.clock.now()),
            result=asyncio.get_running_loop().create_future(),
        )

    async def interrupt(self, name: str, reason: str) -> None:
        """End a run, if there is one, with those that share its work, and wait until they are recorded."""
        run = self.running.get(name)
        if run is None:
            return
        together = self._together(run)
        for each in together:
            stop(each, reason if each is run else OF_ANOTHER)
        await asyncio.wait({each.result for each in together}, timeout=2 * LET_GO_SECONDS)

    def give_up(self, run: ActiveRun, why: str) -> None:
        """End a run that makes no progress; it is recorded as failed, with this message."""
        for each in self._together(run):
            each.given_up = why
            stop(each, why)

    def _together(self, run: ActiveRun) -> list[ActiveRun]:
        """The runs that have one work with this one, itself among them, and have not ended."""
        others = (self.running.get(member) for member in run.members)
        return [each for each in others if each is not None and each.work is run.work]

    async def close(self) -> None:
        """End every run; each is recorded as interrupted."""
        runs = list(self.running.values())
        for run in runs:
            stop(run, "the host stopped")
        if runs:
            await asyncio.wait({run.result for run in runs}, timeout=2.0)
        await self.recorder.counts.close()

    async def recover(self) -> set[str]:
        """Record the runs that a host that was killed, or stopped, left behind; whose they were."""
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
                await self.store.record(run)
                names.add(stored.name)
        return names

    async def _run(self, run: ActiveRun, stored: StoredReplication) -> None:
        """See a run through to its record. Never cancelled itself: an interruption ends the work, not the record."""
        work = run.work
        assert work is not None
        stopping = asyncio.create_task(run.stopping.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not work.done():
            # A source that has stopped answering may hold the work for longer than anybody should wait.
            await asyncio.wait({work}, timeout=LET_GO_SECONDS)
        status, error, synced, failure = outcome(run, work)
        if failure is not None:
            text = self.connections.scrubbed(format_for_log(failure), stored.replication.source_config)
            how = "met an odd answer" if isinstance(failure, OddAnswer) else "failed unexpectedly"
            log.error("run of %s %s\n%s", run.name, how, text)
        try:
            while not await self._finished(run, stored, status, error, synced):
                await self.host.clock.sleep(RECORD_AGAIN_SECONDS)
        finally:
            self.running.pop(run.name, None)

    async def _finished(
        self, run: ActiveRun, stored: StoredReplication, status: RunStatus, error: str | None, synced: SyncResult | None
    ) -> bool:
        """Record a run; False when the database does not take it now (it is full, or locked), so that no run is lost.

        Whoever waits for the run hears of that at once.
        """
        try:
            record = await self.recorder.finish(run, stored, status, error, synced)
        except Exception as failure:
            if run.begun:
                run.unrecorded = f"the last run could not be recorded, and is tried again: {failure}"
            if self.host.stopping.is_set() or not run.result.done():
                log.error("run %s of %s (%s): %s", run.run_id, run.name, error or status, run.unrecorded)
            if not run.result.done():
                run.result.set_result(
                    self.recorder.record(run, "error", f"{run.unrecorded}; {error or status}", synced)
                )
            return self.host.stopping.is_set()
        # The name is free by the time that whoever waits for the run hears of it.
        self.running.pop(run.name, None)
        if not run.result.done():
            run.result.set_result(record)
        return True

    async def _contained(self, runs: Sequence[ActiveRun], stored: Sequence[StoredReplication]) -> dict[str, SyncResult]:
        """The work; what a dialect lets out that would end the host, or pass for an interruption, is an error."""
        try:
            return await catch_exits(self._work, runs, stored)
        except (Exited, asyncio.CancelledError) as error:
            interrupted = any(run.interrupt_reason is not None for run in runs) or self.host.stopping.is_set()
            if interrupted and isinstance(error, asyncio.CancelledError):
                raise
            raised = str(error) if isinstance(error, Exited) else "CancelledError, and nobody had interrupted the run"
            dialect = stored[0].replication.dialect
            raise DialectFailed(f"the dialect {dialect} raised {raised}; the host's log has the details") from error
        except StarbaseError:
            raise
        except Exception as error:
            whose = self.connections.whose(stored[0].replication.dialect)
            if whose is None:
                raise
            # What it answers is used in many places: most likely it is not what a dialect has to answer.
            why = f"unexpected {kind_of(error)} with {whose}; the host's log has the details"
            raise DialectFailed(why) from error

    async def _work(self, runs: Sequence[ActiveRun], stored: Sequence[StoredReplication]) -> dict[str, SyncResult]:
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
                run.checked = await Check(sync=syncs[0]).verify(repair=run.repair)
            elif run.kind is RunKind.RECONCILE:
                run.checked = await Check(sync=syncs[0]).reconcile(force=run.force)
            elif not syncs[0].together:
                return {run.name: await syncs[0].run()}
            else:
                await sync_together(syncs)
                return {each.name: sync.result() for each, sync in zip(runs, syncs, strict=True)}
            return {}

    async def _make_sync(self, run: ActiveRun, stored: StoredReplication) -> Sync:
        replication = stored.replication
        settings = self.connections.decrypt(replication.source_config)
        run.source = await self.connections.source(settings)
        table, source = await self.connections.table(settings, replication.source_table)
        return Sync(
            stored=stored,
            source=run.source,
            table=table,
            identity=identity_of(source, replication),
            database=self.store.database,
            clock=self.host.clock,
            progress=run.progress,
            force=run.kind is RunKind.RESET and run.force,
            transforms=Transforms(self.host.call_plugin, replication.options.transforms),
            together=replication.options.group is not None,
            added_seconds=self.added_seconds,
        )


def _members(connection: apsw.Connection, *, name: str, kind: RunKind) -> tuple[str, ...]:
    """Whom a run of this kind is about: itself, then for a sync those of its group that are active."""
    group = store.get(connection, name).replication.options.group
    if group is None or not kind.syncs:
        return (name,)
    members = store.of_group(connection, group)
    return (name, *(each.name for each in members if each.replication.is_active and each.name != name))


def _begin(connection: apsw.Connection, *, runs: Sequence[ActiveRun], now: float) -> list[StoredReplication] | None:
    """Begin them, each as its configuration is now; None when others than these would have to run by now.

    A change that is committed before this finds no run to end, and none of what it has changed may be run as it was.
    """
    first = runs[0]
    if _members(connection, name=first.name, kind=first.kind) != first.members:
        return None
    if first.kind is RunKind.SCHEDULED and not store.get(connection, first.name).replication.is_active:
        raise Changed(first.name)
    for run in runs:
        store.begin_run(connection, run.name, run.run_id, run.kind, now=now)
    # As they are now: each knows the run that it is of.
    stored = [store.get(connection, run.name) for run in runs]
    # In the transaction that begins it: after this, a change of the configuration ends the run.
    allow(stored[0].replication.options, first.kind, repair=first.repair)
    return stored


def _kind_beside(kind: RunKind) -> RunKind:
    """What a run is called that another of its group has brought about."""
    return RunKind.MANUAL if kind is RunKind.RESET else kind


def _heard(runs: Sequence[ActiveRun], clock: Clock) -> None:
    now = clock.monotonic()
    for run in runs:
        run.heard_at = now
