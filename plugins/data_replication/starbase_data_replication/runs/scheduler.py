"""What is due, and when next: an alarm rings, a run begins or is noted as skipped, and the next alarm is set.

Owns the alarms of replications. Must not know what a run does.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass

from starbase_data_replication.model import RunKind, SyncRun
from starbase_data_replication.runs import schedule
from starbase_data_replication.runs.runner import Changed, Runner
from starbase_data_replication.storage import StoredReplication, store
from starbase_host import Conflict, NotFound, Unavailable

# An alarm's name is one of these and the replication's name.
ALARMS = {"sync:": RunKind.SCHEDULED, "deletes:": RunKind.RECONCILE, "verify:": RunKind.VERIFY}
# A check that finds its replication busy is tried again after this long, or after its interval if that is shorter.
BUSY_SECONDS = 30.0
# One of a group that finds others of it busy is tried again after this long.
GROUP_BUSY_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Ticks:
    """The schedules of one host."""

    runner: Runner

    async def on_check_due(self, prefix: str, name: str) -> None:
        """A verification or a reconciliation is due: begin it, or try again soon; the next alarm is set either way."""
        stored = await self.runner.store.database.read(lambda connection: store.find(connection, name))
        if stored is None or not stored.replication.is_active:
            return
        seconds = check_interval_seconds(prefix, stored)
        if seconds is None:
            return
        try:
            await self.runner.start(name, ALARMS[prefix])
        except NotFound:
            # Deleted meanwhile.
            return
        except Conflict:
            seconds = min(seconds, BUSY_SECONDS)
        await self.runner.host.alarms.set(prefix + name, self.runner.host.clock.now() + seconds)

    async def on_due(self, name: str, due_at: float) -> None:
        """A tick: begin a scheduled run, or note that it was skipped; the next alarm is set either way."""
        stored = await self.runner.store.database.read(lambda connection: store.find(connection, name))
        if stored is None or not stored.replication.is_active:
            return
        try:
            await self.runner.store.database.write(lambda connection: store.set_due(connection, name, due_at))
        except Unavailable as error:
            # The alarm is tried again soon.
            raise self.runner.not_begun(name, RunKind.SCHEDULED, error) from error
        now = self.runner.host.clock.now()
        at = schedule.next_due(_clock_of(stored), stored.replication.interval_seconds, now=now, last_due=due_at)
        try:
            run = await self.runner.start(name, RunKind.SCHEDULED)
        except (NotFound, Changed):
            # Deleted, stopped or changed meanwhile: the next tick sees what is left to do.
            at = min(at, now + GROUP_BUSY_SECONDS)
        except Conflict:
            if stored.replication.options.group is None:
                await self._skip(name)
            elif name not in self.runner.running:
                # Others of its group are being synced without it.
                at = min(at, now + GROUP_BUSY_SECONDS)
        else:
            for member in run.members[1:]:
                await self._put_off(member, now)
        await self.runner.host.alarms.set("sync:" + name, at)

    async def mend_schedules(self, left_behind: Collection[str] = ()) -> None:
        """Give every active replication an alarm that is no further away than its interval.

        left_behind: those that go on at once. A clock that was set back leaves alarms that are too far away.
        """
        now = self.runner.host.clock.now()
        alarms = {alarm.name: alarm.at for alarm in await self.runner.host.alarms.list()}
        for stored in await self.runner.store.all():
            if not stored.replication.is_active:
                continue
            # A run that the host's end has cut short goes on at once.
            name, interval = stored.name, stored.replication.interval_seconds
            at = alarms.get("sync:" + name)
            # One whose run was interrupted goes on at once, and so does one whose alarm a crash has swallowed.
            due = now if at is None or name in left_behind else schedule.still_due(name, interval, now=now, due=at)
            if due != at:
                await self.runner.host.alarms.set("sync:" + name, due)
            for prefix in ("deletes:", "verify:"):
                seconds = check_interval_seconds(prefix, stored)
                if seconds is not None and alarms.get(prefix + name, float("inf")) > now + seconds:
                    await self.runner.host.alarms.set(prefix + name, now + seconds)

    async def schedule(self, stored: StoredReplication, now: float) -> None:
        """A sync is due at once; the checks after their intervals."""
        await self.runner.host.alarms.set("sync:" + stored.name, now)
        for prefix in ("deletes:", "verify:"):
            seconds = check_interval_seconds(prefix, stored)
            if seconds is not None:
                await self.runner.host.alarms.set(prefix + stored.name, now + seconds)

    async def forget_alarms(self, name: str) -> None:
        """Nothing of this name is due any more."""
        for prefix in ALARMS:
            await self.runner.host.alarms.delete(prefix + name)

    async def _put_off(self, member: str, now: float) -> None:
        """One that is being synced because another of its group was due is itself due after its own interval."""
        stored = await self.runner.store.database.read(lambda connection: store.find(connection, member))
        if stored is None:
            return
        at = schedule.next_due(_clock_of(stored), stored.replication.interval_seconds, now=now, last_due=now)
        await self.runner.host.alarms.set("sync:" + member, at)

    async def _skip(self, name: str) -> None:
        now = self.runner.host.clock.now()
        await self.runner.store.record(
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


def _clock_of(stored: StoredReplication) -> str:
    """Whose ticks it has: all of a group have the same, so that they are due at one time."""
    return stored.replication.options.group or stored.name


def check_interval_seconds(prefix: str, stored: StoredReplication) -> float | None:
    """How often a replication is verified or reconciled by itself; None is never."""
    options = stored.replication.options
    if prefix == "deletes:":
        return options.deletes_interval_minutes * 60 if options.reconciles else None
    return options.verify_interval_minutes * 60 if options.verify_interval_minutes is not None else None
