"""What is due: an alarm has rung, so a run begins, or is noted as skipped, and the next alarm is set."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from starbase_data_replication.model.runs import RunKind, SyncRun
from starbase_data_replication.runs import schedule
from starbase_data_replication.runs.runner import Changed, Runner
from starbase_data_replication.storage import store
from starbase_data_replication.storage.store import StoredReplication
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
