"""The alarms of replications: their names, when each is due, and what happens when one fires.

Owns every alarm of the plugin; nothing else sets or forgets one. Alarms change in the transaction that changes the
replication, so that neither is ever stored without the other. Must not know how a run works, nor who asked for one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import apsw

from starbase_data_replication.model import ReplicationEvent, RunKind, SyncRun
from starbase_data_replication.runs import schedule
from starbase_data_replication.runs.active_run import CHANGED
from starbase_data_replication.runs.retention import Retention
from starbase_data_replication.runs.runner import Changed, Runner
from starbase_data_replication.storage import StoredReplication, event_log, logbook, store
from starbase_host import Alarm, Conflict, NotFound, Unavailable

# An alarm of a replication is named by one of these and the replication's name. They are stored: a name that changes
# would leave the alarms of earlier releases behind.
SYNC = "sync:"
CHECKS = {"deletes:": RunKind.RECONCILE, "verify:": RunKind.VERIFY}
# Removes old records of runs.
PRUNE = "prune"
PRUNE_INTERVAL_SECONDS = 3600.0
# Sends the events that a host which has ended could not send. An alarm, because those fire when every plugin listens.
POST = "post"
# A check that finds its replication busy is tried again after this long, or after its interval if that is shorter.
BUSY_SECONDS = 30.0
# A sync whose group, or whose run with the former configuration, is about to be free is tried again after this long.
SOON_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """The alarms of one host.

    runner: begins the runs that are due.
    retention: how long records of runs are kept.
    """

    runner: Runner
    retention: Retention

    def replace(self, connection: apsw.Connection, stored: StoredReplication) -> None:
        """Replace the alarms of a replication, in the transaction that saves it; call `wake` after the commit.

        An active one has its sync due at once, and its checks after their intervals. One that is stopped has none.
        """
        now = self.runner.host.clock.now()
        alarms: dict[str, float | None] = {SYNC + stored.name: now if stored.replication.is_active else None}
        for prefix in CHECKS:
            seconds = check_interval_seconds(prefix, stored) if stored.replication.is_active else None
            alarms[prefix + stored.name] = now + seconds if seconds is not None else None
        self._set_alarms(connection, alarms)

    def forget(self, connection: apsw.Connection, name: str) -> None:
        """Forget the alarms of a replication, in the transaction that stops or deletes it."""
        self._set_alarms(connection, {prefix + name: None for prefix in (SYNC, *CHECKS)})

    def _set_alarms(self, connection: apsw.Connection, alarms: Mapping[str, float | None]) -> None:
        """Set alarms by their names, and delete those whose time is None."""
        for name, at in alarms.items():
            if at is None:
                self.runner.host.alarms.delete_in(connection, name)
            else:
                self.runner.host.alarms.set_in(connection, name, at)

    def wake(self) -> None:
        """Deliver what is due already at once. To be called after the commit of what `replace` has changed."""
        self.runner.host.alarms.wake()

    async def next_syncs(self) -> Mapping[str, float]:
        """When each replication is synced next, by its name: seconds since 1970."""
        alarms = await self.runner.host.alarms.list()
        return {alarm.name.removeprefix(SYNC): alarm.at for alarm in alarms if alarm.name.startswith(SYNC)}

    async def start(self, *, due: Collection[str] = ()) -> None:
        """Set every alarm that a starting host needs. due: names of replications that run at once."""
        at_once = await self.runner.recover() | set(due)
        at_once |= await self.runner.host.database.read(logbook.interrupted_names)
        alarms = {**await self._lost_alarms(at_once), POST: self.runner.host.clock.now()}
        await self._write(partial(self._set_alarms, alarms=alarms))

    async def restore_alarms(self) -> None:
        """Set alarms that are missing, or further away than their interval because the clock was set back."""
        if alarms := await self._lost_alarms():
            await self._write(partial(self._set_alarms, alarms=alarms))

    async def _lost_alarms(self, at_once: Collection[str] = ()) -> dict[str, float]:
        """The alarms to set, by name. at_once: replications that are due now, whatever their alarm says."""
        # In this order: an alarm that is set in between is that of a newer configuration, and near enough for this one.
        replications = [each for each in await self.runner.store.all() if each.replication.is_active]
        now = self.runner.host.clock.now()
        alarms = {alarm.name: alarm.at for alarm in await self.runner.host.alarms.list()}
        lost: dict[str, float] = {}
        for stored in replications:
            name, interval = stored.name, stored.replication.interval_seconds
            at = alarms.get(SYNC + name)
            due = now if at is None or name in at_once else schedule.still_due(name, interval, now=now, due=at)
            if due != at:
                lost[SYNC + name] = due
            for prefix in CHECKS:
                seconds = check_interval_seconds(prefix, stored)
                if seconds is not None and alarms.get(prefix + name, float("inf")) > now + seconds:
                    lost[prefix + name] = now + seconds
        if alarms.get(PRUNE, float("inf")) > now + PRUNE_INTERVAL_SECONDS:
            lost[PRUNE] = now + PRUNE_INTERVAL_SECONDS
        return lost

    async def deliver(self, alarm: Alarm) -> None:
        """Do what an alarm is for, and set it again. If this raises, the host delivers the alarm again soon."""
        prefix, colon, name = alarm.name.partition(":")
        if alarm.name == PRUNE:
            await self._prune()
        elif alarm.name == POST:
            await self._post()
        elif prefix + colon == SYNC:
            await self._sync(name, alarm.at)
        elif prefix + colon in CHECKS:
            await self._check(prefix + colon, name)

    async def _sync(self, name: str, due_at: float) -> None:
        """Begin a scheduled run, or record that it was skipped, and set the next alarm."""
        stored = await self._active(name)
        if stored is None:
            return
        try:
            await self.runner.store.database.write(lambda connection: store.set_due(connection, name, due_at))
        except Unavailable as error:
            # The host delivers the alarm again soon.
            raise self.runner.fail_to_begin(name, RunKind.SCHEDULED, error) from error
        now = self.runner.host.clock.now()
        at = schedule.next_due(_clock_of(stored), stored.replication.interval_seconds, now=now, last_due=due_at)
        others: tuple[str, ...] = ()
        try:
            run = await self.runner.start(name, RunKind.SCHEDULED)
            others = run.members[1:]
        except (NotFound, Changed):
            # Deleted, stopped or changed meanwhile: the next tick sees what is left to do.
            at = min(at, now + SOON_SECONDS)
        except Conflict:
            if self._ends_soon(stored):
                at = min(at, now + SOON_SECONDS)
            elif stored.replication.options.group is None:
                await self._skip(stored)
        await self._write(partial(self._set_next_syncs, stored=stored, at=at, others=others, now=now))

    def _ends_soon(self, stored: StoredReplication) -> bool:
        """Whether the run in the way ends soon without the work of this tick, so that the tick is tried again."""
        running = self.runner.running.get(stored.name)
        if running is None:
            # Others of its group are being synced without it.
            return stored.replication.options.group is not None
        # The run with the former configuration is being ended.
        return running.interrupt_reason == CHANGED

    def _set_next_syncs(
        self, connection: apsw.Connection, *, stored: StoredReplication, at: float, others: Collection[str], now: float
    ) -> None:
        """Set the next alarm of one that was due, and put off the others of its group that are synced with it."""
        alarms: dict[str, float | None] = {}
        if _is_current(connection, stored):
            alarms[SYNC + stored.name] = at
        for name in others:
            other = store.find(connection, name)
            if other is not None:
                interval = other.replication.interval_seconds
                alarms[SYNC + name] = schedule.next_due(_clock_of(other), interval, now=now, last_due=now)
        self._set_alarms(connection, alarms)

    async def _check(self, prefix: str, name: str) -> None:
        """Begin a verification or a reconciliation, and set the next alarm: soon, if the replication is busy."""
        stored = await self._active(name)
        seconds = check_interval_seconds(prefix, stored) if stored is not None else None
        if stored is None or seconds is None:
            return
        try:
            await self.runner.start(name, CHECKS[prefix])
        except NotFound:
            # Deleted meanwhile.
            return
        except Conflict:
            seconds = min(seconds, BUSY_SECONDS)
        at = self.runner.host.clock.now() + seconds

        def set_next(connection: apsw.Connection) -> None:
            if _is_current(connection, stored):
                self._set_alarms(connection, {prefix + name: at})

        await self._write(set_next)

    async def _prune(self) -> None:
        # First, so that no subscriber of this host is forgotten.
        await self.runner.recorder.events.touch()
        await self.retention.prune(self.runner.store.database, now=self.runner.host.clock.now())
        await self.runner.host.alarms.set(PRUNE, self.runner.host.clock.now() + PRUNE_INTERVAL_SECONDS)

    async def _post(self) -> None:
        self.runner.recorder.events.announce_ready()
        await self.runner.recorder.counts.catch_up()
        # Not awaited: a subscriber may take longer than the delivery of an alarm, which would come, and send, again.
        self.runner.recorder.events.post()

    async def _skip(self, stored: StoredReplication) -> None:
        now = self.runner.host.clock.now()
        run = SyncRun(
            run_id=uuid.uuid4().hex,
            config_name=stored.name,
            kind=RunKind.SCHEDULED,
            status="skipped",
            started_at=now,
            finished_at=now,
            error_message="the run before it has not ended",
        )
        event = ReplicationEvent.of_record(run, None, target_table=stored.replication.target_table)

        def record(connection: apsw.Connection) -> None:
            store.record(connection, run)
            event_log.store(connection, event, now=now)

        await self.runner.store.database.write(record)
        self.runner.recorder.events.send(event)

    async def _active(self, name: str) -> StoredReplication | None:
        stored = await self.runner.store.database.read(partial(store.find, name=name))
        return stored if stored is not None and stored.replication.is_active else None

    async def _write(self, function: Callable[[apsw.Connection], None]) -> None:
        await self.runner.store.database.write(function)
        self.wake()


def _is_current(connection: apsw.Connection, stored: StoredReplication) -> bool:
    """Whether a replication is still as it was; if not, whatever has changed it has replaced its alarms."""
    found = store.find(connection, stored.name)
    return found is not None and found.revision == stored.revision and found.replication.is_active


def _clock_of(stored: StoredReplication) -> str:
    """Whose ticks it has: all of a group have the same, so that they are due at one time."""
    return stored.replication.options.group or stored.name


def check_interval_seconds(prefix: str, stored: StoredReplication) -> float | None:
    """How often a replication is reconciled or verified by itself; None for never. prefix: one of CHECKS."""
    options = stored.replication.options
    if CHECKS[prefix] is RunKind.RECONCILE:
        return options.deletes_interval_minutes * 60 if options.reconciles else None
    return options.verify_interval_minutes * 60 if options.verify_interval_minutes is not None else None
