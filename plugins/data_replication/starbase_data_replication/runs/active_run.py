"""A run that has not ended: what the runner, the watchdog and the status read of it, and how it is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from starbase_data_replication.model import Progress, ReplicationEvent, RunKind, SyncRun
from starbase_data_replication.runs.slots import Slot
from starbase_data_replication.sources import Source
from starbase_data_replication.sync import SyncResult
from starbase_data_replication.verify import VerificationResult

# Why a run is interrupted, where it does not simply go on; and what becomes of it then.
CHANGED = "the configuration changed"
STOPPED = "the replication was stopped"
RESET = "the replication was reset"
OF_ANOTHER = "the run of another of its group was interrupted"
AFTERWARDS = {
    CHANGED: "the next sync uses the new one",
    STOPPED: "started again, or synced by hand, it goes on from what was committed",
    RESET: "the reload takes its place",
}
GOES_ON = "the next sync goes on from what was committed"
ASK_AGAIN = "ask for it again"
# What messages call a run of each kind; any other is a sync.
NOUNS = {RunKind.RESET: "Reset", RunKind.VERIFY: "Verification", RunKind.RECONCILE: "Reconciliation"}


@dataclass(kw_only=True)
class ActiveRun:
    """A run that has not ended.

    run_id: unique among all runs.
    name: the replication's.
    kind: what it does.
    progress: what it has read and changed so far; the sync counts it.
    result: resolves to the run's record, or is cancelled if the run never began; it never raises.
    members: names of the replications that the same work syncs, this one among them: a group, or this one alone.
    slot: what it works in; None while it waits for one.
    source: what it reads from, once that is open.
    dialect: the name of the source's dialect.
    hide: scrubs the source's secrets from a text.
    active_at: when the source last sent something, or the run last made progress; monotonic seconds.
    pinged_at: when the watchdog last asked whether the source answers; monotonic seconds.
    seen_progress: rows read, rows changed and bytes read when the watchdog last looked.
    give_up_reason: why the watchdog has ended it; None if it has not.
    record_error: why its record could not be written yet; None if nothing failed.
    has_begun: False if the database could not record its beginning; then it waits only until its failure is recorded.
    work: the task that does it; several runs of one group share it.
    interrupt_reason: why it was interrupted; None if it was not.
    stopping: set when it is interrupted.
    failure_status: the HTTP status of the error that it failed with.
    repair: a verification writes what it finds missing or different, and removes what it finds extra.
    force: a reconciliation or a reset removes rows beyond the limits that protect them.
    started_event: what is sent once its beginning is committed.
    verification: what a verification or a reconciliation has found, once it has.
    """

    run_id: str
    name: str
    kind: RunKind
    progress: Progress
    result: asyncio.Future[SyncRun]
    members: tuple[str, ...]
    slot: Slot | None = None
    source: Source | None = None
    dialect: str = ""
    hide: Callable[[str], str] = str
    active_at: float = 0.0
    pinged_at: float = 0.0
    seen_progress: tuple[int, int, int] = (0, 0, 0)
    give_up_reason: str | None = None
    record_error: str | None = None
    has_begun: bool = True
    work: asyncio.Task[dict[str, SyncResult]] | None = None
    interrupt_reason: str | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    failure_status: int = 502
    repair: bool = False
    force: bool = False
    verification: VerificationResult | None = None
    started_event: ReplicationEvent | None = None

    @property
    def noun(self) -> str:
        """What messages call it."""
        return NOUNS.get(self.kind, "Sync")

    @property
    def what_follows(self) -> str:
        """What becomes of its work once it is interrupted."""
        return AFTERWARDS.get(self.interrupt_reason or "", GOES_ON) if self.kind.syncs else ASK_AGAIN

    def interrupt(self, reason: str) -> None:
        """Cancel its work, once: a second cancellation would hit it while it cleans up."""
        if self.interrupt_reason is None:
            self.interrupt_reason = reason
            self.stopping.set()
            if self.work is not None and not self.work.cancelling():
                self.work.cancel()
