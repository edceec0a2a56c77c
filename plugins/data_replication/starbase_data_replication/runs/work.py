"""The work of a run, or of the runs of a group: waits for a slot, opens the source, and syncs or verifies.

Guards the host against what another plugin's dialect raises. Must not know how a run is begun or recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from starbase_data_replication.config import check_needs
from starbase_data_replication.connections import Connections
from starbase_data_replication.errors import BrokenRule, DialectFailed, Exited, OddAnswer, catch_exits
from starbase_data_replication.model import RunKind
from starbase_data_replication.runs.active_run import ActiveRun
from starbase_data_replication.runs.slots import Slots
from starbase_data_replication.sources.network import ON_ACTIVITY
from starbase_data_replication.storage import StoredReplication
from starbase_data_replication.sync import Sync, SyncResult, Transforms, identity_of, sync_together
from starbase_data_replication.verify import Check
from starbase_host import Database, Host, StarbaseError, kind_of


@dataclass(kw_only=True)
class Work:
    """What some runs that began together do.

    runs: those runs; the first says what is to be done.
    stored: their replications, as they were when the runs began.
    host: gives the clock, the hooks and the end of the host.
    database: the internal database.
    connections: opens the source.
    slots: limits how many runs work at once.
    added_seconds: how long what users have added to a replica, such as triggers, may take; seconds for a transaction.
    """

    runs: Sequence[ActiveRun]
    stored: Sequence[StoredReplication]
    host: Host
    database: Database
    connections: Connections
    slots: Slots
    added_seconds: float

    async def run(self) -> dict[str, SyncResult]:
        """Do the work; returns the results of syncs by name. Raises DialectFailed for what a foreign dialect must not
        raise.

        Its SystemExit would end the host, and its CancelledError would look like an interruption.
        """
        try:
            return await catch_exits(self._run)
        except (Exited, asyncio.CancelledError) as error:
            interrupted = any(run.interrupt_reason is not None for run in self.runs) or self.host.stopping.is_set()
            if interrupted and isinstance(error, asyncio.CancelledError):
                raise
            raised = str(error) if isinstance(error, Exited) else "CancelledError, though the run was not interrupted"
            why = f"the dialect {self._dialect} raised {raised}; the host's log has the details"
            raise self._count_failed(why) from error
        except StarbaseError as error:
            whose = self.connections.whose(self._dialect)
            if whose is not None and isinstance(error, BrokenRule):
                why = f"{whose} broke a rule, {error.doing}: {error.rule}; update the plugin, or tell its author"
                raise self._count_failed(why) from error
            if isinstance(error, OddAnswer):
                self.connections.record_failure(self._dialect, self.runs[0].hide(str(error)))
            raise
        except Exception as error:
            whose = self.connections.whose(self._dialect)
            if whose is None:
                raise
            # What a dialect returns is used in many places: most likely it broke the protocol.
            why = f"unexpected {kind_of(error)} with {whose}; the host's log has the details"
            raise self._count_failed(why) from error

    def _count_failed(self, why: str) -> DialectFailed:
        self.connections.record_failure(self._dialect, self.runs[0].hide(why))
        return DialectFailed(why)

    async def _run(self) -> dict[str, SyncResult]:
        run = self.runs[0]
        source_config = self.stored[0].replication.source_config
        async with self.slots.hold(self.connections.key(source_config), self.connections.server(source_config)) as slot:
            self._mark_active()
            ON_ACTIVITY.set(self._mark_active)
            for each in self.runs:
                each.pinged_at, each.slot = each.active_at, slot
            syncs = [await self._make_sync(*each) for each in zip(self.runs, self.stored, strict=True)]
            if run.kind is RunKind.VERIFY:
                run.verification = await Check(sync=syncs[0]).verify(repair=run.repair)
            elif run.kind is RunKind.RECONCILE:
                run.verification = await Check(sync=syncs[0]).reconcile(force=run.force)
            elif not syncs[0].together:
                return {run.name: await syncs[0].run()}
            else:
                await sync_together(syncs)
                return {each.name: sync.result() for each, sync in zip(self.runs, syncs, strict=True)}
            return {}

    async def _make_sync(self, run: ActiveRun, stored: StoredReplication) -> Sync:
        replication = stored.replication
        # With its secrets, which the stored one has encrypted.
        settings = self.connections.decrypt(replication.source_config)
        await self.connections.learn_secrets(settings)
        run.hide = partial(self.connections.scrubbed, settings=settings)
        dialect = self.connections.known(replication.dialect)
        # Checked when it was configured; its plugin may have changed since.
        check_needs(replication.options, dialect)
        run.dialect = replication.dialect
        run.source = await self.connections.source(settings)
        table, identity_parts = await self.connections.table(settings, replication.source_table)
        return Sync(
            stored=stored,
            source=run.source,
            dialect=dialect,
            table=table,
            identity=identity_of(identity_parts, replication),
            database=self.database,
            clock=self.host.clock,
            progress=run.progress,
            force=run.kind is RunKind.RESET and run.force,
            transforms=Transforms(self.host, replication.options.transforms),
            together=replication.options.group is not None,
            added_seconds=self.added_seconds,
        )

    def _mark_active(self) -> None:
        now = self.host.clock.monotonic()
        for run in self.runs:
            run.active_at = now

    @property
    def _dialect(self) -> str:
        return self.stored[0].replication.dialect
