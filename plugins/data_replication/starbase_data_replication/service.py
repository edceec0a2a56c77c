"""What a user can do with replications: configure, start, stop, delete, sync, reset, verify, reconcile, list.

Owns the order in which the parts below do it. The one way in: HTTP calls this and reaches no deeper, and the command
line speaks HTTP. Must not know requests, or how an answer is worded.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any

import apsw

from starbase_data_replication.config import Configuring
from starbase_data_replication.connections import Connections
from starbase_data_replication.model import Options, ReplicationEvent, RunKind, SyncRun
from starbase_data_replication.runs import CHANGED, RESET, STOPPED, ActiveRun, Runner, Scheduler
from starbase_data_replication.sources import Dialects
from starbase_data_replication.storage import Store, StoredReplication, event_log, logbook, sqlite_tables, store
from starbase_host import Conflict, Host, NotFound, StarbaseError, Unavailable, iso, quote

__all__ = ["ActiveRun", "Service"]

# A reset ends the run that is under way, but a sync of another in the group may take the name before it begins. Each
# attempt loses only to a sync that came due at that very moment.
RESET_ATTEMPTS = 5


class RunFailed(StarbaseError):
    """A run that a caller asked for has failed; its status is that of the cause."""

    code = "sync_failed"


class Service:
    """The replications of one host."""

    def __init__(
        self,
        host: Host,
        store: Store,
        runner: Runner,
        scheduler: Scheduler,
        connections: Connections,
        dialects: Dialects,
    ) -> None:
        self._store = store
        self._runner = runner
        self._host = host
        self._scheduler = scheduler
        self._connections = connections
        self._dialects = dialects
        self._configuring = Configuring(host=host, secrets=connections, dialects=dialects)

    async def configure(self, body: Any) -> StoredReplication:
        """Create or change a replication, and make it due at once.

        body: what a caller has sent; any JSON value. Raises InvalidRequest or Conflict.
        """
        now = self._host.clock.now()
        announced: list[ReplicationEvent] = []

        def on_save(connection: apsw.Connection, stored: StoredReplication) -> None:
            self._scheduler.replace(connection, stored)
            # Called again if another request has changed something meanwhile.
            announced[:] = [self._announce(connection, "replication_configured", stored)]

        # Saving raises the revision, so a run under way cannot commit any more, and is ended.
        with self._connections.scrubbing_errors(body.get("sourceConfig") if isinstance(body, dict) else None):
            stored, existed = await self._configuring.save(body, now=now, on_save=on_save)
        await self._runner.interrupt(stored.name, CHANGED)
        if existed:
            await self._close_unused()
        # Only now: its sync would find the run with the former configuration in its way.
        self._scheduler.wake()
        self._runner.recorder.events.send(announced[0])
        return stored

    async def start(self, name: str) -> None:
        """Put a replication on its schedule, and make it due at once. Raises NotFound."""

        def start(connection: apsw.Connection) -> None:
            store.set_active(connection, name, True)
            self._scheduler.replace(connection, store.get(connection, name))

        await self._host.database.write(start)
        self._scheduler.wake()

    async def stop(self, name: str) -> None:
        """Take a replication off its schedule, and end a run that is under way. Raises NotFound."""

        def stop(connection: apsw.Connection) -> None:
            store.set_active(connection, name, False)
            self._scheduler.forget(connection, name)

        await self._host.database.write(stop)
        await self._runner.interrupt(name, STOPPED)

    async def sync(self, name: str) -> ActiveRun:
        """Begin a sync by hand.

        Raises NotFound, Conflict if a run of it, or of its group, has not ended, and Unavailable if the database takes
        no writes; so do the three below.
        """
        return await self._runner.start(name, RunKind.MANUAL)

    async def verify(self, name: str, *, repair: bool = False) -> ActiveRun:
        """Begin a comparison of every row with the source. Raises InvalidRequest if it may not be repaired.

        repair: write what is missing or different in the replica, and remove what is extra.
        """
        return await self._runner.start(name, RunKind.VERIFY, repair=repair)

    async def reconcile(self, name: str, *, force: bool = False) -> ActiveRun:
        """Begin to remove, or mark, the rows that are gone from the source. Raises InvalidRequest if it keeps them.

        force: also if they are a larger share of the replica than a reconciliation may remove.
        """
        return await self._runner.start(name, RunKind.RECONCILE, force=force)

    async def reset(self, name: str, *, force: bool = False) -> ActiveRun:
        """Begin to reload the table beside the replica, to swap it in. A run under way is ended.

        force: also remove rows that the source may only hide from its user.
        """
        stored = await self._store.get(name)
        for _ in range(RESET_ATTEMPTS - 1):
            # Another of its group may be due at this moment, and be synced with it.
            with contextlib.suppress(Conflict):
                return await self._start_over(stored, force)
        return await self._start_over(stored, force)

    async def _start_over(self, stored: StoredReplication, force: bool) -> ActiveRun:
        await self._runner.interrupt(stored.name, RESET)
        try:
            await self._host.database.write(lambda connection: store.delete_position(connection, stored))
        except Unavailable as error:
            raise self._runner.fail_to_begin(stored.name, RunKind.RESET, error) from error
        return await self._runner.start(stored.name, RunKind.RESET, force=force)

    async def delete(self, name: str) -> None:
        """Forget a replication. The replica table and the log stay. Raises NotFound."""

        def remove(connection: apsw.Connection) -> ReplicationEvent:
            stored = store.delete(connection, name)
            self._scheduler.forget(connection, name)
            for name_of in (sqlite_tables.shadow_name, sqlite_tables.stage_name, sqlite_tables.differences_name):
                table = name_of(stored.id)
                connection.execute(f"DROP TABLE IF EXISTS {quote(table)}")
            return self._announce(connection, "replication_deleted", stored)

        # First the row, then the run: a run that began in between then finds that it may not write any more.
        event = await self._host.database.write(remove)
        await self._runner.interrupt(name, "the replication was deleted")
        await self._close_unused()
        self._runner.recorder.events.send(event)

    async def dialects(self) -> list[dict[str, Any]]:
        """Every dialect, ordered by name: its plugin (None for data replication's own), features and schema."""
        return [
            {
                "name": name,
                "plugin": self._dialects.plugin_of(name),
                "features": sorted(self._dialects.known(name).features),
                "schema": await self._dialects.schema(name),
            }
            for name in sorted(self._dialects)
        ]

    async def status(self, name: str | None = None) -> list[dict[str, Any]]:
        """Every replication with its state, ordered by name: objects of the fields that status shows.

        name: only this one. Raises NotFound.
        """
        due = await self._scheduler.next_syncs()
        found = await self._store.all() if name is None else [await self._store.get(name)]
        return [self._status(each, due.get(each.name)) for each in found]

    async def runs(self, *, name: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        """The runs recorded after the one with this id, oldest first, as objects of the log's columns."""
        return await self._store.database.read(partial(logbook.runs, name=name, after=after, limit=limit))

    async def record_of(self, run: SyncRun) -> dict[str, Any]:
        """A recorded run as an object of the log's columns. Raises NotFound if it was pruned meanwhile."""
        return await self._store.database.read(partial(logbook.run, run_id=run.run_id))

    async def logs(self, *, limit: int, name: str | None = None) -> list[dict[str, Any]]:
        """The latest runs, newest first, as objects of the log's columns. Raises NotFound.

        limit: at most so many. name: only those of this replication, which may have been deleted.
        """
        found = await self._store.logs(limit=limit, name=name)
        if name is not None and not found:
            # A name that never existed is a mistake; a replication that has not run yet is not.
            await self._store.get(name)
        return found

    async def wait(self, run: ActiveRun) -> SyncRun:
        """Wait until a run has ended; returns its record. Raises Unavailable if the host stops first."""
        stopping = asyncio.create_task(self._host.stopping.wait())
        ends: set[asyncio.Future[Any]] = {run.result, stopping}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if run.result.done():
            return run.result.result()
        raise Unavailable(f"the host is stopping; {run.noun.lower()} of {run.name} is interrupted; {run.what_follows}")

    async def finish(self, run: ActiveRun) -> SyncRun:
        """Wait until a run has succeeded; returns its record.

        Raises RunFailed if it has failed, and Unavailable if it was interrupted or the host stops.
        """
        record = await self.wait(run)
        if record.status == "error":
            raise RunFailed(f"{run.noun} of {run.name} failed: {record.error_message}", status=run.failure_status)
        if record.status != "success":
            why = f"{record.error_message}; {await self.what_follows(run)}"
            raise Unavailable(f"{run.noun} of {run.name} was interrupted: {why}")
        return record

    async def what_follows(self, run: ActiveRun) -> str:
        """What becomes of the work of a run that was interrupted, as a clause for a message."""
        try:
            await self._store.get(run.name)
        except NotFound:
            return "it does not go on"
        return run.what_follows

    def _announce(self, connection: apsw.Connection, type: str, stored: StoredReplication) -> ReplicationEvent:
        """Make the event of a change of a replication, in its transaction; it is to be sent after the commit."""
        now = self._host.clock.now()
        event = ReplicationEvent(
            type=type,
            occurred_at=iso(now) or "",
            config_name=stored.name,
            target_table=stored.replication.target_table,
            details={"created": stored.revision == 1} if type == "replication_configured" else None,
        )
        event_log.store(connection, event, now=now)
        return event

    async def _close_unused(self) -> None:
        used = []
        for stored in await self._store.all():
            used.append(stored.replication.source_config)
        await self._connections.keep_only(used)

    def _status(self, stored: StoredReplication, next_sync_at: float | None) -> dict[str, Any]:
        running, replication = self._runner.running.get(stored.name), stored.replication
        return {
            "id": stored.id,
            "name": stored.name,
            "target_table": replication.target_table,
            "source_table": replication.source_table,
            "sync_interval_minutes": replication.sync_interval_minutes,
            "tracking_column": replication.tracking_column,
            # StarbaseDB's name of the watermark.
            "last_sync_value": stored.floor,
            "last_sync_timestamp": stored.last_sync_timestamp,
            "is_active": int(replication.is_active),
            "created_at": stored.created_at,
            "updated_at": stored.updated_at,
            "last_success_at": iso(stored.last_success_at),
            "last_error": (running.record_error if running is not None else None) or stored.last_error,
            "last_error_at": iso(stored.last_error_at),
            "consecutive_failures": stored.consecutive_failures,
            "row_count": stored.row_count,
            "protection": stored.protection,
            "warnings": stored.warnings,
            "last_verify": stored.last_verify,
            "degraded_since": iso(stored.degraded_since),
            "floor_held": stored.floor_held,
            "source_config": dict(stored.masked_source_config),
            **_options(replication.options),
            "is_running": running is not None,
            "state": self._state(stored),
            "next_sync_at": iso(next_sync_at),
            "watermark": stored.floor,
            "progress": None
            if running is None
            else {
                "rows": running.progress.rows,
                "bytes": running.progress.bytes,
                "started_at": iso(running.progress.started_at),
                "estimated_rows": running.progress.estimated_rows,
                "run_id": running.run_id,
            },
        }

    def _state(self, stored: StoredReplication) -> str:
        running = self._runner.running.get(stored.name)
        if running is not None and running.record_error is not None:
            return "degraded"
        if running is not None:
            return "running" if running.slot is not None else "waiting"
        if not stored.replication.is_active:
            return "stopped"
        return "degraded" if stored.consecutive_failures else "idle"


def _options(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}
