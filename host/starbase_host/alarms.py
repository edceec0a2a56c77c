"""Durable one-shot timers: stored in the internal database, delivered to the plugin that set them.

An alarm is delivered at least once and never early. If it was due while the host was off, it fires at start. After a
delivery fails, the host tries again after 2, 4, 8 … up to 300 seconds, without end. Setting an alarm again replaces it,
also from inside its own delivery. While a plugin is not enabled, its alarms wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import apsw

from starbase_host.clock import Clock
from starbase_host.database import Database

log = logging.getLogger("starbase.alarms")

# For each plugin, so that deliveries that hang do not delay those of other plugins.
MAX_IN_FLIGHT = 16
# The clock may be set, or the machine suspended, while the loop sleeps; so it checks at least this often.
LONGEST_SLEEP_SECONDS = 1.0

_SET = """
INSERT INTO tmp_alarms (plugin, name, at, payload, attempts, generation) VALUES (?, ?, ?, ?, 0, ?)
ON CONFLICT (plugin, name) DO UPDATE SET
  at = excluded.at, payload = excluded.payload, attempts = 0, generation = excluded.generation
"""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A timer of one plugin.

    plugin: the plugin that set it.
    name: unique among the plugin's alarms.
    at: when it is due, in seconds since 1970.
    payload: a JSON value.
    attempts: how many deliveries have failed so far.
    generation: grows each time an alarm is set, so that a delivery cannot settle a newer alarm of the same name.
    """

    plugin: str
    name: str
    at: float
    payload: Any = None
    attempts: int = 0
    generation: int = field(default=0, repr=False, compare=False)


Deliver = Callable[[Alarm], Awaitable[None]]


class OwnerAbsent(Exception):
    """Raised by `deliver`: the alarm's plugin is not enabled, or does not implement `on_alarm`."""


def retry_delay_seconds(attempts: int) -> float:
    """How many seconds to wait after the n-th failed delivery: 2, 4, 8 … 300."""
    return float(min(300, 2 ** min(attempts, 9)))


class AlarmService:
    """The alarms of all plugins.

    deliver: hands an alarm to its plugin. Raises when the delivery fails; OwnerAbsent when no plugin takes the alarm.
    """

    def __init__(self, database: Database, clock: Clock, deliver: Deliver) -> None:
        self._database = database
        self._clock = clock
        self._deliver = deliver
        self._changed = asyncio.Event()
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._absent: set[str] = set()
        self._generation = 0

    async def set(self, plugin: str, name: str, at: float, payload: Any = None) -> None:
        """Set or replace an alarm. Raises TypeError when the payload cannot be written as JSON."""
        text = json.dumps(payload)
        await self._database.write(lambda c: self._write(c, plugin, name, at, text))
        self._changed.set()

    async def delete(self, plugin: str, name: str) -> bool:
        """Delete an alarm; return whether it existed. A delivery that is under way continues."""
        return await self._database.write(lambda connection: self.delete_in(connection, plugin, name))

    def set_in(self, connection: apsw.Connection, plugin: str, name: str, at: float, payload: Any = None) -> None:
        """Set or replace an alarm inside the caller's transaction. Raises TypeError as `set` does."""
        self._write(connection, plugin, name, at, json.dumps(payload))

    def delete_in(self, connection: apsw.Connection, plugin: str, name: str) -> bool:
        """Delete an alarm inside the caller's transaction; return whether it existed."""
        connection.execute("DELETE FROM tmp_alarms WHERE plugin = ? AND name = ?", (plugin, name))
        return connection.changes() > 0

    def wake(self) -> None:
        """Check now for alarms that are due, not only after LONGEST_SLEEP_SECONDS."""
        self._changed.set()

    async def settle(self) -> None:
        """Wait until every alarm that is due has been delivered, as often as it is due now. For tests."""
        self.wake()
        while await self._is_busy():
            if self._tasks:
                await asyncio.wait(list(self._tasks.values()))

    async def _is_busy(self) -> bool:
        due, _ = await self._database.read(self._select_due)
        return bool(due or self._tasks or self._changed.is_set())

    async def of_plugin(self, plugin: str) -> list[Alarm]:
        """Return the alarms of a plugin, the next one first."""

        def select(connection: apsw.Connection) -> list[Alarm]:
            rows = connection.execute(f"{_SELECT} WHERE plugin = ? ORDER BY at, name", (plugin,))
            return [_alarm(row) for row in rows]

        return await self._database.read(select)

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Deliver alarms while this context is open."""
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
                due, next_at = await self._database.read(self._select_due)
            except Exception:
                log.exception("the alarms could not be read; the host tries again")
                due, next_at = [], None
            for alarm in due:
                key = (alarm.plugin, alarm.name)
                self._tasks[key] = task = asyncio.create_task(self._fire(alarm))
                task.add_done_callback(partial(self._on_finished, key))
            await self._wait(next_at)

    def _select_due(self, connection: apsw.Connection) -> tuple[list[Alarm], float | None]:
        """Return the alarms to fire now, and when the next one that is not in flight is due."""
        now = self._clock.now()
        # Copied before the rows are read: a delivery that ends in between settles its row before it leaves `_tasks`.
        busy = set(self._tasks)
        in_flight = Counter(plugin for plugin, _ in busy)
        due: list[Alarm] = []
        with contextlib.closing(connection.execute(f"{_SELECT} ORDER BY at")) as rows:
            for plugin, name, at, *rest in rows:
                if plugin in self._absent or (plugin, name) in busy:
                    continue
                if at > now:
                    return due, at
                # If the plugin is at its limit, the end of its next delivery wakes the loop.
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
            log.error(
                "alarm %s of plugin %s failed (%s); the host tries again in %g s",
                alarm.name,
                alarm.plugin,
                error,
                delay,
            )
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
            # An alarm that is not settled is delivered again, which keeps "at least once". Without the pause, a full
            # disk would make this a tight loop.
            log.exception("the outcome of an alarm could not be recorded; the alarm will fire again")
            await self._clock.sleep(LONGEST_SLEEP_SECONDS)

    def _on_finished(self, key: tuple[str, str], _: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)
        self._changed.set()


_SELECT = "SELECT plugin, name, at, payload, attempts, generation FROM tmp_alarms"


def _alarm(row: tuple[Any, ...]) -> Alarm:
    plugin, name, at, payload, attempts, generation = row
    return Alarm(plugin=plugin, name=name, at=at, payload=json.loads(payload), attempts=attempts, generation=generation)


class PluginAlarms:
    """The alarms of one plugin: `host.alarms`."""

    def __init__(self, service: AlarmService, plugin: str) -> None:
        self._service = service
        self._plugin = plugin

    async def set(self, name: str, at: float, payload: Any = None) -> None:
        """Set or replace an alarm.

        name: unique among this plugin's alarms.
        at: when it is due, in seconds since 1970.
        payload: a JSON value, delivered with the alarm. Raises TypeError when it cannot be written as JSON.
        """
        await self._service.set(self._plugin, name, at, payload)

    def set_in(self, connection: apsw.Connection, name: str, at: float, payload: Any = None) -> None:
        """Set or replace an alarm inside your own transaction.

        connection: that of the function which you give to `host.database.write`, so that the alarm is set together with
            what it is about, or not at all.
        name, at, payload: as for `set`.

        Call `wake` after `write` has returned; otherwise an alarm that is already due fires up to a second late.
        """
        self._service.set_in(connection, self._plugin, name, at, payload)

    def delete_in(self, connection: apsw.Connection, name: str) -> bool:
        """Delete an alarm inside your own transaction; return whether it existed. connection: as for `set_in`."""
        return self._service.delete_in(connection, self._plugin, name)

    def wake(self) -> None:
        """Check now for alarms that are due; see `set_in`."""
        self._service.wake()

    async def delete(self, name: str) -> bool:
        """Delete an alarm; return whether it existed."""
        return await self._service.delete(self._plugin, name)

    async def list(self) -> Sequence[Alarm]:
        """Return this plugin's alarms, the next one first."""
        return await self._service.of_plugin(self._plugin)
