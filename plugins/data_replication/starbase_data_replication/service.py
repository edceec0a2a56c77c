"""What a user can do with replications: configure, start, stop, delete, look. HTTP and hooks are thin above it."""

from __future__ import annotations

import contextlib
from typing import Any

import apsw

from starbase_data_replication.config import Configuring
from starbase_data_replication.connections import Connections
from starbase_data_replication.model import Options, RunKind
from starbase_data_replication.runs import CHANGED, RESET, STOPPED, ActiveRun, Runner, Scheduler
from starbase_data_replication.sources import Dialects
from starbase_data_replication.storage import Store, StoredReplication, sqlite_tables, store
from starbase_host import Conflict, Host, Unavailable, iso, quote

RESET_ATTEMPTS = 5


class Service:
    """Replications of one host."""

    def __init__(
        self,
        host: Host,
        store: Store,
        runner: Runner,
        scheduler: Scheduler,
        connections: Connections,
        dialects: Dialects,
    ) -> None:
        self.store = store
        self.runner = runner
        self._host = host
        self._scheduler = scheduler
        self._connections = connections
        self._configuring = Configuring(host=host, secrets=connections, dialects=dialects)

    async def configure(self, body: Any) -> StoredReplication:
        """Create or change a replication, and make it due at once. Raises InvalidRequest or Conflict."""
        now = self._host.clock.now()
        # The revision has risen when this returns: a run under way cannot commit any more, and is ended.
        with self._connections.scrubbing_errors(body.get("sourceConfig") if isinstance(body, dict) else None):
            stored, existed = await self._configuring.save(body, now=now, on_save=self._scheduler.replace)
        await self.runner.interrupt(stored.name, CHANGED)
        if existed:
            await self._close_unused()
        # Only now: its sync would find the run with the former configuration in its way.
        self._scheduler.wake()
        return stored

    async def start(self, name: str) -> None:
        """Let it run on its schedule, and make it due at once. Raises NotFound."""

        def start(connection: apsw.Connection) -> None:
            store.set_active(connection, name, True)
            self._scheduler.replace(connection, store.get(connection, name))

        await self._host.database.write(start)
        self._scheduler.wake()

    async def stop(self, name: str) -> None:
        """Take it off its schedule, and end a run that is under way. Raises NotFound."""

        def stop(connection: apsw.Connection) -> None:
            store.set_active(connection, name, False)
            self._scheduler.forget(connection, name)

        await self._host.database.write(stop)
        await self.runner.interrupt(name, STOPPED)

    async def reset(self, name: str, *, force: bool = False) -> ActiveRun:
        """Start over: a run that loads the table beside the replica, and swaps it in. Raises NotFound.

        force: let rows go that the source may only hide from its user.
        """
        stored = await self.store.get(name)
        for _ in range(RESET_ATTEMPTS - 1):
            # Another of its group may be due just now, and take it along.
            with contextlib.suppress(Conflict):
                return await self._start_over(stored, force)
        return await self._start_over(stored, force)

    async def _start_over(self, stored: StoredReplication, force: bool) -> ActiveRun:
        await self.runner.interrupt(stored.name, RESET)
        try:
            await self._host.database.write(lambda connection: store.delete_position(connection, stored))
        except Unavailable as error:
            raise self.runner.not_begun(stored.name, RunKind.RESET, error) from error
        return await self.runner.start(stored.name, RunKind.RESET, force=force)

    async def delete(self, name: str) -> None:
        """Forget it. The replica table and the log stay. Raises NotFound."""

        def remove(connection: apsw.Connection) -> None:
            stored = store.delete(connection, name)
            self._scheduler.forget(connection, name)
            for name_of in (sqlite_tables.shadow_name, sqlite_tables.stage_name, sqlite_tables.differences_name):
                table = name_of(stored.id)
                connection.execute(f"DROP TABLE IF EXISTS {quote(table)}")

        # First the row, then the run: one that began in between finds that it may not write any more.
        await self._host.database.write(remove)
        await self.runner.interrupt(name, "the replication was deleted")
        await self._close_unused()

    async def status(self) -> list[dict[str, Any]]:
        """Every replication with its state, by name."""
        due = await self._scheduler.next_syncs()
        return [self._status(each, due.get(each.name)) for each in await self.store.all()]

    async def _close_unused(self) -> None:
        used = []
        for stored in await self.store.all():
            used.append(stored.replication.source_config)
        await self._connections.keep_only(used)

    def _status(self, stored: StoredReplication, next_sync_at: float | None) -> dict[str, Any]:
        running, replication = self.runner.running.get(stored.name), stored.replication
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
            "last_error": (running.unrecorded if running is not None else None) or stored.last_error,
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
        running = self.runner.running.get(stored.name)
        if running is not None and running.unrecorded is not None:
            return "degraded"
        if running is not None:
            return "running" if running.slot is not None else "waiting"
        if not stored.replication.is_active:
            return "stopped"
        return "degraded" if stored.consecutive_failures else "idle"


def _options(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}
