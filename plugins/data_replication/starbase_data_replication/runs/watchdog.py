"""Finds runs without progress, and replications that have lost their alarm, so that no schedule stops unnoticed.

Owns how long a source may be silent. When it is, the watchdog asks on a new connection whether the source answers: the
run of a busy server goes on, and that of one that does not answer is ended.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from starbase_data_replication.errors import SyncError, details_of
from starbase_data_replication.runs.active_run import ActiveRun
from starbase_data_replication.runs.runner import Runner
from starbase_data_replication.runs.scheduler import Scheduler
from starbase_data_replication.sources import Pingable
from starbase_host import Clock, has_plain_text, kind_of

log = logging.getLogger("starbase.data_replication")

# How often every run is looked at: a fraction of QUIET_SECONDS, and cheap.
LOOK_SECONDS = 0.5
# A run whose source is silent for so long gives its slot to another run. Longer than most statements take.
QUIET_SECONDS = 2.0
# How long the source may take to answer a new connection, on top of the connection's own limit.
ANSWER_SECONDS = 20.0
# A run without any progress for two hours is ended, even if its source answers: nothing that a run does takes so long.
STALLED_SECONDS = 7200.0
# How often the alarms are checked; they are also checked whenever the machine's clock was set.
SCHEDULES_SECONDS = 60.0
# A larger difference than this between the two clocks means that one was set; smaller ones are NTP's corrections.
STEP_SECONDS = 1.0
# If more time than this has passed between two looks, the host itself was suspended, and the source was not silent.
SUSPENDED_SECONDS = 5.0


@dataclass(kw_only=True)
class Watchdog:
    """Watches the runs of one host.

    runner: has the runs, and ends them.
    scheduler: restores lost alarms.
    clock: the source of time.
    silence_seconds: how long a source may send nothing before the watchdog asks whether it answers.
    """

    runner: Runner
    scheduler: Scheduler
    clock: Clock
    silence_seconds: float
    _pinging: set[asyncio.Task[None]] = field(default_factory=set)
    _looked_at: float = 0.0
    _schedules_at: float = 0.0
    _drift: float = 0.0

    async def watch(self) -> None:
        """Look every LOOK_SECONDS, until cancelled."""
        self._looked_at = self._schedules_at = self.clock.monotonic()
        self._drift = self.clock.now() - self._looked_at
        try:
            while True:
                await self.clock.sleep(LOOK_SECONDS)
                try:
                    await self._look()
                except Exception:
                    log.exception("the watchdog failed; it tries again in %g s", LOOK_SECONDS)
        finally:
            for task in self._pinging:
                task.cancel()

    async def _look(self) -> None:
        now = self.clock.monotonic()
        suspended = now - self._looked_at > SUSPENDED_SECONDS
        self._looked_at = now
        for run in list(self.runner.running.values()):
            if suspended:
                run.active_at = now
            self._look_at(run, now)
        drift = self.clock.now() - now
        if abs(drift - self._drift) > STEP_SECONDS:
            log.warning("the clock was set by %+.0f s; the alarms are checked", drift - self._drift)
        elif now - self._schedules_at < SCHEDULES_SECONDS:
            return
        await self.scheduler.restore_alarms()
        # Stored only after that, so that one that failed is tried again.
        self._drift, self._schedules_at = drift, now

    def _look_at(self, run: ActiveRun, now: float) -> None:
        if run.slot is None:
            return
        # The dialect of another plugin may not report bytes as they come; its batches then show the progress.
        progress = (run.progress.rows, run.progress.changed, run.progress.bytes)
        if progress != run.seen_progress:
            run.seen_progress, run.active_at = progress, now
        silent = now - run.active_at
        self.runner.slots.set_quiet(run.slot, silent > QUIET_SECONDS)
        if silent >= STALLED_SECONDS:
            self.runner.give_up(run, f"no progress for {silent:.0f} s; the run was ended, what was committed stays")
        elif silent >= self.silence_seconds and now - run.pinged_at >= self.silence_seconds:
            run.pinged_at = now
            task = asyncio.create_task(self._ping(run), name=f"ping-{run.name}")
            self._pinging.add(task)
            task.add_done_callback(self._pinging.discard)

    async def _ping(self, run: ActiveRun) -> None:
        """Ask whether the source answers; if it does not, and nothing has come meanwhile, end the run."""
        began = self.clock.monotonic()
        try:
            if not isinstance(run.source, Pingable):
                return
            await self.runner.connections.ping(run.source, run.dialect, ANSWER_SECONDS)
        except (SyncError, TimeoutError) as error:
            silent = self.clock.monotonic() - run.active_at
            text = str(error) if has_plain_text(error) else kind_of(error)
            if run.active_at <= began:
                self.runner.give_up(
                    run,
                    f"nothing came from the source for {silent:.0f} s, and it does not answer a new connection "
                    f"({text or 'no answer in time'}); the run was ended, what was committed stays, and the next "
                    "sync tries again",
                )
            return
        except Exception as error:
            # The ping itself failed, which says nothing about the source. STALLED_SECONDS still ends the run.
            self.runner.connections.record_failure(run.dialect, f"ping: {kind_of(error)}")
            details = run.hide(await details_of(error))
            log.error("run of %s: could not ask whether its source answers\n%s", run.name, details)
            return
        log.info("run of %s: the source is silent, but answers; it goes on", run.name)
