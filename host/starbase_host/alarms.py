"""Durable one-shot timers: kept in the internal database, delivered to the plugin that set them.

At least once, never early. What was due while the host was off fires at start. A delivery that fails is tried
again after 2, 4, 8 … up to 300 seconds, without end. Setting an alarm again, also from inside its own
delivery, replaces it. The alarms of a plugin that is off wait until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import apsw

from starbase_host.clock import Clock
from starbase_host.database import Database

log = logging.getLogger("starbase.alarms")

# For each plugin, so that one whose deliveries hang holds up no other's.
MAX_IN_FLIGHT = 16
# The machine's clock may be set, or the machine suspended, while we sleep: look again after this long.
LONGEST_SLEEP_SECONDS = 1.0

_SET = """
INSERT INTO tmp_alarms (plugin, name, at, payload, attempts, generation) VALUES (?, ?, ?, ?, 0, ?)
ON CONFLICT (plugin, name) DO UPDATE SET
  at = excluded.at, payload = excluded.payload, attempts = 0, generation = excluded.generation
"""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A timer of one plugin. `at` is seconds since 1970, `payload` JSON-able, `attempts` failed deliveries so far."""

    plugin: str
    name: str
    at: float
    payload: Any = None
    attempts: int = 0
    generation: int = field(default=0, repr=False, compare=False)


Deliver = Callable[[Alarm], Awaitable[None]]


class OwnerAbsent(Exception):
    """Raised by `deliver`: the alarm's plugin is off, or takes no alarms."""


def retry_delay_seconds(attempts: int) -> float:
    """How long to wait after the n-th failed delivery: 2, 4, 8 … 300."""
    return float(min(300, 2 ** min(attempts, 9)))


class AlarmService:
    """All plugins' alarms. `deliver` raises when the delivery failed, OwnerAbsent when there is nobody to take it."""

    def __init__(self, database: Database, clock: Clock, deliver: Deliver) -> None:
        self._database = database
        self._clock = clock
        self._deliver = deliver
        self._changed = asyncio.Event()
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._absent: set[str] = set()
        self._generation = 0

    async def set(self, plugin: str, name: str, at: float, payload: Any = None) -> None:
        """Set or replace an alarm. Raises TypeError when the payload is not JSON-able."""
        text = json.dumps(payload)
        await self._database.write(lambda c: self._write(c, plugin, name, at, text))
        self._changed.set()

    async def delete(self, plugin: str, name: str) -> bool:
        """Forget an alarm; False when there was none. A delivery already under way is not called back."""

        def remove(connection: apsw.Connection) -> bool:
            connection.execute("DELETE FROM tmp_alarms WHERE plugin = ? AND name = ?", (plugin, name))
            return connection.changes() > 0

        return await self._database.write(remove)

    def replace(self, connection: apsw.Connection, plugin: str, alarms: Mapping[str, float | None]) -> None:
        """Set or replace these alarms inside the caller's transaction, and forget those whose time is None."""
        for name, at in alarms.items():
            if at is None:
                connection.execute("DELETE FROM tmp_alarms WHERE plugin = ? AND name = ?", (plugin, name))
            else:
                self._write(connection, plugin, name, at, "null")

    def look(self) -> None:
        """Look for alarms that are due now, rather than within LONGEST_SLEEP_SECONDS."""
        self._changed.set()

    async def of_plugin(self, plugin: str) -> list[Alarm]:
        """A plugin's alarms, the next one first."""

        def select(connection: apsw.Connection) -> list[Alarm]:
            rows = connection.execute(f"{_SELECT} WHERE plugin = ? ORDER BY at, name", (plugin,))
            return [_alarm(row) for row in rows]

        return await self._database.read(select)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver alarms inside this context."""
        task = asyncio.create_task(self._loop(), name="alarms")
        try:
            yield
        finally:
            pending = [task, *self._tasks.values()]
            for each in pending:
                each.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def _write(self, connection: apsw.Connection, plugin: str, name: str, at: float, payload: str) -> None:
        if self._generation == 0:
            found = connection.execute("SELECT coalesce(max(generation), 0) FROM tmp_alarms").get
            self._generation = int(found)
        self._generation += 1
        connection.execute(_SET, (plugin, name, at, payload, self._generation))

    async def _loop(self) -> None:
        while True:
            self._changed.clear()
            try:
                due, next_at = await self._database.read(self._look)
            except Exception:
                log.exception("the alarms could not be read; trying again")
                due, next_at = [], None
            for alarm in due:
                key = (alarm.plugin, alarm.name)
                self._tasks[key] = task = asyncio.create_task(self._fire(alarm))
                task.add_done_callback(partial(self._finished, key))
            await self._wait(next_at)

    def _look(self, connection: apsw.Connection) -> tuple[list[Alarm], float | None]:
        """Alarms to fire now, and when the next one that is not in flight is due."""
        now = self._clock.now()
        # Copied before the rows are read: what ends in between was settled before it left.
        busy = set(self._tasks)
        in_flight = Counter(plugin for plugin, _ in busy)
        due: list[Alarm] = []
        with contextlib.closing(connection.execute(f"{_SELECT} ORDER BY at")) as rows:
            for plugin, name, at, *rest in rows:
                if plugin in self._absent or (plugin, name) in busy:
                    continue
                if at > now:
                    return due, at
                # Over the limit, the next delivery that ends wakes the loop.
                if in_flight[plugin] < MAX_IN_FLIGHT:
                    in_flight[plugin] += 1
                    due.append(_alarm((plugin, name, at, *rest)))
        return due, None

    async def _wait(self, next_at: float | None) -> None:
        seconds = LONGEST_SLEEP_SECONDS
        if next_at is not None:
            seconds = min(seconds, max(0.0, next_at - self._clock.now()))
        sleep = asyncio.create_task(self._clock.sleep(seconds))
        change = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({sleep, change}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            change.cancel()

    async def _fire(self, alarm: Alarm) -> None:
        try:
            await self._deliver(alarm)
        except OwnerAbsent as error:
            self._absent.add(alarm.plugin)
            log.warning("%s; its alarms wait", error)
        except Exception as error:
            delay = retry_delay_seconds(alarm.attempts + 1)
            log.error("alarm %s of plugin %s failed (%s); again in %g s", alarm.name, alarm.plugin, error, delay)
            at = self._clock.now() + delay
            await self._settle(
                "UPDATE tmp_alarms SET at = ?, attempts = attempts + 1 "
                "WHERE plugin = ? AND name = ? AND generation = ?",
                (at, alarm.plugin, alarm.name, alarm.generation),
            )
        else:
            await self._settle(
                "DELETE FROM tmp_alarms WHERE plugin = ? AND name = ? AND generation = ?",
                (alarm.plugin, alarm.name, alarm.generation),
            )

    async def _settle(self, sql: str, values: tuple[Any, ...]) -> None:
        def write(connection: apsw.Connection) -> None:
            connection.execute(sql, values)

        try:
            await self._database.write(write)
        except Exception:
            # Not settled means delivered again: at least once still holds, after a pause so that a full disk
            # does not become a tight loop.
            log.exception("an alarm's outcome could not be recorded; it will fire again")
            await self._clock.sleep(LONGEST_SLEEP_SECONDS)

    def _finished(self, key: tuple[str, str], _: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
        self._changed.set()


_SELECT = "SELECT plugin, name, at, payload, attempts, generation FROM tmp_alarms"


def _alarm(row: tuple[Any, ...]) -> Alarm:
    plugin, name, at, payload, attempts, generation = row
    return Alarm(plugin=plugin, name=name, at=at, payload=json.loads(payload), attempts=attempts, generation=generation)


class PluginAlarms:
    """One plugin's view of the alarms: `host.alarms`."""

    def __init__(self, service: AlarmService, plugin: str) -> None:
        self._service = service
        self._plugin = plugin

    async def set(self, name: str, at: float, payload: Any = None) -> None:
        """Set or replace: `at` in seconds since 1970, `payload` JSON-able."""
        await self._service.set(self._plugin, name, at, payload)

    def replace(self, connection: apsw.Connection, alarms: Mapping[str, float | None]) -> None:
        """Set or replace alarms inside a transaction of yours, by their names; forget those whose time is None.

        For the function that you give to `host.database.write`: alarms and rows then change together, or not at all.
        Call `look` once it has returned; without that, an alarm that is due already fires up to a second late.
        """
        self._service.replace(connection, self._plugin, alarms)

    def look(self) -> None:
        """Look for alarms that are due now."""
        self._service.look()

    async def delete(self, name: str) -> bool:
        """Forget; False when there was none."""
        return await self._service.delete(self._plugin, name)

    async def list(self) -> Sequence[Alarm]:
        """This plugin's alarms, the next one first."""
        return await self._service.of_plugin(self._plugin)
