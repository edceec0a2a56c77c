"""Records every query that was answered and every replication run, and deletes old entries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starbase_host import Alarm, ConfigError, Host, Query, Result, Route, hookimpl, iso

DAY, HOUR = 86_400, 3_600
CREATE = "CREATE TABLE IF NOT EXISTS tmp_audit (at TEXT NOT NULL, what TEXT NOT NULL, detail TEXT NOT NULL)"
LATEST = "SELECT at, what, detail FROM tmp_audit ORDER BY rowid DESC LIMIT 100"


def plugin(options: Mapping[str, Any]) -> Audit:
    """Make the plugin; the entry point names this function.

    options: `keep_days`, how many days an entry is kept (default 30).
    Raises ConfigError when an option is unknown or wrong.
    """
    for name in options.keys() - {"keep_days"}:
        raise ConfigError(name, "unknown option; known: keep_days")
    keep_days = options.get("keep_days", 30)
    if isinstance(keep_days, bool) or not isinstance(keep_days, int | float) or keep_days <= 0:
        raise ConfigError("keep_days", "must be a number above 0")
    return Audit(keep_days)


class Audit:
    """The plugin. keep_days: how many days an entry is kept."""

    def __init__(self, keep_days: float) -> None:
        self.keep_seconds = keep_days * DAY

    @hookimpl
    @asynccontextmanager
    async def plugin_lifespan(self, host: Host) -> AsyncIterator[None]:
        self.host = host
        await self.write(CREATE)
        await host.alarms.set("prune", host.clock.now())
        yield

    @hookimpl
    def register_routes(self) -> list[Route]:
        return [Route("/audit/entries", self.entries)]

    @hookimpl(optionalhook=True)
    async def replication_event(self, event: Any) -> None:
        if event.type in ("sync", "reset", "verify"):
            await self.record(f"{event.type} {event.status}", f"{event.config_name}: {event.records_processed} rows")

    @hookimpl
    async def after_query(self, query: Query, result: Result) -> None:
        await self.record(f"query by {query.role}", f"{query.sql}: {len(result.rows)} rows")

    @hookimpl
    async def on_alarm(self, alarm: Alarm) -> None:
        now = self.host.clock.now()
        await self.write("DELETE FROM tmp_audit WHERE at < ?", iso(now - self.keep_seconds))
        await self.host.alarms.set(alarm.name, now + HOUR)

    async def entries(self, request: Any) -> list[dict[str, Any]]:
        rows = await self.host.database.read(lambda connection: connection.execute(LATEST).fetchall())
        return [{"at": at, "what": what, "detail": detail} for at, what, detail in rows]

    async def record(self, what: str, detail: str) -> None:
        await self.write("INSERT INTO tmp_audit VALUES (?, ?, ?)", iso(self.host.clock.now()), what, detail)

    async def write(self, sql: str, *values: str | None) -> None:
        await self.host.database.write(lambda connection: connection.execute(sql, values).fetchall())
