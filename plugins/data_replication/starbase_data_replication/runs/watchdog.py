"""A schedule cannot die in silence: finds runs without progress, and replications that have lost their alarm.

Owns what counts as silence, and for how long it is borne. A source that is silent is asked, on a connection of
its own, whether it is there: a busy server answers, and is waited for; one that does not answer is given up.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from starbase_data_replication.errors import SyncError
from starbase_data_replication.runs.active_run import ActiveRun
from starbase_data_replication.runs.runner import Runner
from starbase_data_replication.runs.scheduler import Scheduler
from starbase_data_replication.sources import Pingable, bounded
from starbase_host import Clock

log = logging.getLogger("starbase.data_replication")

LOOK_SECONDS = 0.5
# A run that has heard nothing for so long leaves its slot to another.
QUIET_SECONDS = 2.0
# How long the source may take to answer a new connection, beside the connection's own limit.
ANSWER_SECONDS = 20.0
# Nothing that a run does takes so long without any sign of life.
STALLED_SECONDS = 7200.0
# Alarms are looked after so often, and whenever the machine's clock was set.
SCHEDULES_SECONDS = 60.0
STEP_SECONDS = 1.0
# After a longer sleep than this between two looks it is we who were suspended, and not the source silent.
SUSPENDED_SECONDS = 5.0


@dataclass(kw_only=True)
class Watchdog:
    """Looks after the runs of one host. silence_seconds: how long a source may send nothing before it is asked."""

    runner: Runner
    scheduler: Scheduler
    clock: Clock
    silence_seconds: float
    _asking: set[asyncio.Task[None]] = field(default_factory=set)
    _looked_at: float = 0.0
    _schedules_at: float = 0.0
    _drift: float = 0.0

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        self._looked_at = self._schedules_at = self.clock.monotonic()
        self._drift = self.clock.now() - self._looked_at
        try:
            while True:
                await self.clock.sleep(LOOK_SECONDS)
                try:
                    await self._look()
                except Exception:
                    log.exception("the watchdog could not look; it looks again")
        finally:
            for task in self._asking:
                task.cancel()

    async def _look(self) -> None:
        now = self.clock.monotonic()
        suspended = now - self._looked_at > SUSPENDED_SECONDS
        self._looked_at = now
        for run in list(self.runner.running.values()):
            if suspended:
                run.heard_at = now
            self._look_at(run, now)
        drift = self.clock.now() - now
        if abs(drift - self._drift) > STEP_SECONDS:
            log.warning("the clock was set by %+.0f s; the schedules are looked after", drift - self._drift)
        elif now - self._schedules_at < SCHEDULES_SECONDS:
            return
        await self.scheduler.repair()
        # Only now, so that a look that failed is taken again.
        self._drift, self._schedules_at = drift, now

    def _look_at(self, run: ActiveRun, now: float) -> None:
        if run.slot is None:
            return
        # A dialect of another plugin may not tell of bytes; its batches do.
        counted = (run.progress.rows, run.progress.changed, run.progress.bytes)
        if counted != run.counted:
            run.counted, run.heard_at = counted, now
        silent = now - run.heard_at
        self.runner.slots.set_quiet(run.slot, silent > QUIET_SECONDS)
        if silent >= STALLED_SECONDS:
            self.runner.give_up(run, f"no progress for {silent:.0f} s; the run was ended, what was committed stays")
        elif silent >= self.silence_seconds and now - run.asked_at >= self.silence_seconds:
            run.asked_at = now
            task = asyncio.create_task(self._ask(run), name=f"ask-{run.name}")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(self, run: ActiveRun) -> None:
        """Whether the source is there at all; if not, and nothing has come meanwhile, the run is over."""
        began = self.clock.monotonic()
        try:
            if not isinstance(run.source, Pingable):
                return
            await bounded(run.source.ping, ANSWER_SECONDS)
        except (SyncError, TimeoutError) as error:
            silent = self.clock.monotonic() - run.heard_at
            if run.heard_at <= began:
                self.runner.give_up(
                    run,
                    f"nothing came from the source for {silent:.0f} s, and it does not answer a new connection "
                    f"({str(error) or 'no answer in time'}); the run was ended, what was committed stays, and the next "
                    "tick tries again",
                )
            return
        except Exception:
            # A question that could not be put is no answer either way: the limit for anything at all still holds.
            log.exception("run of %s: the source could not be asked whether it is there", run.name)
            return
        log.info("run of %s: the source is silent, but answers; it goes on", run.name)
