"""A run that has not ended: what the runner, the watchdog and the status look at, and how it is interrupted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starbase_data_replication.model import Progress, RunKind, SyncRun
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
    CHANGED: "the next sync follows the new one",
    STOPPED: "started again, or synced by hand, it goes on from what was committed",
    RESET: "that load takes its place",
}
GOES_ON = "the next sync goes on from what was committed"
ASK_AGAIN = "ask for it again"
# What messages call a run of each kind; any other is a sync.
NOUNS = {RunKind.RESET: "Reset", RunKind.VERIFY: "Verification", RunKind.RECONCILE: "Reconciliation"}


@dataclass(kw_only=True)
class ActiveRun:
    """A run that has not ended. `result` resolves to its record, and never raises.

    members: all that are synced by the same work, of which this is one; a group, or this alone.
    slot: what it works in; None while it waits. source, heard_at, asked_at, counted: for the watchdog: when the
    source was last heard of and last asked whether it is there (monotonic), and how far the run was then.
    given_up: why the watchdog has ended it. unrecorded: why its record could not be written yet.
    begun: False for one that waits for nothing but its record, because the database would not take that it began.
    repair: a verification writes what it finds missing or different, and removes what it finds extra.
    force: a reconciliation or a reset removes rows beyond the limits that protect them. checked: what a verification
    or a reconciliation has found, once it has.
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
    begun: bool = True
    work: asyncio.Task[dict[str, SyncResult]] | None = None
    interrupt_reason: str | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    failure_status: int = 502
    repair: bool = False
    force: bool = False
    checked: VerificationResult | None = None

    @property
    def noun(self) -> str:
        """What messages call it."""
        return NOUNS.get(self.kind, "Sync")

    @property
    def what_follows(self) -> str:
        """What becomes of its work once it is interrupted."""
        return AFTERWARDS.get(self.interrupt_reason or "", GOES_ON) if self.kind.syncs else ASK_AGAIN


def stop(run: ActiveRun, reason: str) -> None:
    """Interrupt a run, once: a second cancellation would strike it while it cleans up."""
    if run.interrupt_reason is None:
        run.interrupt_reason = reason
        run.stopping.set()
        if run.work is not None and not run.work.cancelling():
            run.work.cancel()
