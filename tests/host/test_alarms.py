"""Alarms: at least once, never early, tried again without end, and gone only when they have been delivered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from starbase_host import Alarm, Database, Host, hookimpl
from starbase_host.alarms import MAX_IN_FLIGHT, AlarmService, OwnerAbsent, PluginAlarms
from starbase_host.testing import START, MovableClock
from tests.support.plugin_hosts import host_with

pytestmark = pytest.mark.anyio


class Timers:
    """An alarm service on a database, whose deliveries a test decides and sees."""

    def __init__(self, path: Path, clock: MovableClock) -> None:
        self.clock = clock
        self.database = Database(path)
        self.service = AlarmService(self.database, clock, self._deliver)
        self.fired: list[Alarm] = []
        self.handle: Callable[[Alarm], Awaitable[None]] | None = None

    async def _deliver(self, alarm: Alarm) -> None:
        assert alarm.at <= self.clock.now(), "early"
        self.fired.append(alarm)
        if self.handle is not None:
            await self.handle(alarm)

    def of(self, plugin: str) -> PluginAlarms:
        return PluginAlarms(self.service, plugin)

    async def move(self, seconds: float) -> None:
        """Let time pass, and everything happen that is then due."""
        self.clock.move(seconds)
        await self.settled()

    async def settled(self, *, in_flight: int = 0) -> None:
        """Wait until the service sleeps, with so many deliveries under way."""
        await self.wait_for(
            lambda: (
                len(self.service._tasks) == in_flight
                and not self.service._changed.is_set()
                and len(self.clock._sleepers) == 1
                and self.clock._sleepers[0][0] > self.clock.now()
            )
        )

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)

    async def stored(self) -> list[tuple[Any, ...]]:
        return await self.database.read(
            lambda connection: connection.execute("SELECT plugin, name, at, attempts FROM tmp_alarms").fetchall()
        )

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.database.open()
        try:
            await self.database.migrate("host", "starbase_host.sql")
            yield
        finally:
            await asyncio.to_thread(self.database.close)

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        async with self.open(), self.service.run():
            await self.settled()
            yield


@pytest.fixture
def timers(tmp_path: Path) -> Timers:
    return Timers(tmp_path / "starbase.db", MovableClock())


def again(timers: Timers) -> Timers:
    """The service of the next process on the same database."""
    return Timers(timers.database.path, timers.clock)


def names(timers: Timers) -> list[str]:
    return [alarm.name for alarm in timers.fired]


async def test_never_early_and_once(timers: Timers) -> None:
    async with timers.run():
        await timers.of("a").set("x", START + 5, {"some": ["payload", None, 1.5]})
        await timers.move(0)
        await timers.move(4.999)
        assert timers.fired == []
        await timers.move(0.001)
        assert timers.fired == [Alarm(plugin="a", name="x", at=START + 5, payload={"some": ["payload", None, 1.5]})]
        assert await timers.stored() == []
        await timers.move(1000)
        assert len(timers.fired) == 1


async def test_a_clock_that_is_set_back_makes_none_early(timers: Timers) -> None:
    async with timers.run():
        await timers.of("a").set("x", START + 5)
        # The service sleeps towards an hour that has moved away meanwhile.
        timers.clock.move(-3600)
        await timers.move(2)
        assert timers.fired == []
        await timers.move(3603)
        assert names(timers) == ["x"]


async def test_what_was_due_while_the_host_was_off_fires_at_start(timers: Timers) -> None:
    async with timers.open():
        await timers.of("a").set("past", START + 10)
        await timers.of("a").set("future", START + 100)
    timers.clock.move(50)
    second = again(timers)
    async with second.run():
        assert names(second) == ["past"]
        assert [alarm.name for alarm in await second.of("a").list()] == ["future"]
        await second.move(50)
        assert names(second) == ["past", "future"]


async def test_a_delivery_that_raises_is_tried_again(timers: Timers, caplog: pytest.LogCaptureFixture) -> None:
    """After 2, 4, 8 … 300 seconds, without end, and each time at its time."""

    async def fail(alarm: Alarm) -> None:
        raise ValueError("not yet")

    with caplog.at_level(logging.ERROR):
        timers.handle = fail
        async with timers.run():
            await timers.of("a").set("x", START)
            await timers.settled()
            for attempt, delay in enumerate([2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300], start=1):
                assert [alarm.attempts for alarm in timers.fired] == [*range(attempt)]
                await timers.move(delay - 0.01)
                assert len(timers.fired) == attempt
                await timers.move(0.01)
            assert len(timers.fired) == 12
            # Set again, it starts from the beginning.
            await timers.of("a").set("x", timers.clock.now() + 10)
            await timers.move(10)
            assert [alarm.attempts for alarm in timers.fired[-2:]] == [11, 0]
            timers.handle = None
            await timers.move(2)
            assert await timers.stored() == []
    assert "alarm x of plugin a failed (not yet); the host tries again in 2 s" in caplog.text


async def test_its_failures_survive_a_restart(timers: Timers) -> None:
    async def fail(alarm: Alarm) -> None:
        raise ValueError("not yet")

    timers.handle = fail
    async with timers.run():
        await timers.of("a").set("x", START)
        await timers.settled()
        await timers.move(2)
        assert await timers.stored() == [("a", "x", START + 6, 2)]
    second = again(timers)
    async with second.run():
        await second.move(3.9)
        assert second.fired == []
        await second.move(0.1)
        assert [alarm.attempts for alarm in second.fired] == [2]


@pytest.mark.parametrize("fails", [False, True])
async def test_set_again_inside_its_own_delivery(timers: Timers, fails: bool) -> None:
    """It stays, as it was set: also when the delivery then fails, since the new one is not a retry."""

    async def set_again(alarm: Alarm) -> None:
        if alarm.payload < 3:
            await timers.of("a").set("x", timers.clock.now() + 60, alarm.payload + 1)
        if fails and alarm.payload < 3:
            raise ValueError("after it was set")

    timers.handle = set_again
    async with timers.run():
        await timers.of("a").set("x", START, 1)
        await timers.settled()
        assert await timers.stored() == [("a", "x", START + 60, 0)]
        await timers.move(59)
        assert [alarm.payload for alarm in timers.fired] == [1]
        await timers.move(1)
        await timers.move(60)
        assert [alarm.payload for alarm in timers.fired] == [1, 2, 3]
        assert [alarm.attempts for alarm in timers.fired] == [0, 0, 0]
        assert await timers.stored() == []


async def test_deleted_inside_its_own_delivery(timers: Timers) -> None:
    async def delete(alarm: Alarm) -> None:
        assert await timers.of("a").delete("x")
        raise ValueError("after it was deleted")

    timers.handle = delete
    async with timers.run():
        await timers.of("a").set("x", START)
        await timers.settled()
        await timers.move(1000)
        assert names(timers) == ["x"]


async def test_set_delete_and_list_are_one_plugins_own(timers: Timers) -> None:
    async with timers.run():
        await timers.of("a").set("x", START + 20, "late")
        await timers.of("a").set("y", START + 10)
        await timers.of("b").set("x", START + 30)
        await timers.of("a").set("x", START + 5, "soon")
        listed = await timers.of("a").list()
        assert [(alarm.name, alarm.at, alarm.payload) for alarm in listed] == [
            ("x", START + 5, "soon"),
            ("y", START + 10, None),
        ]
        assert await timers.of("a").delete("y")
        assert not await timers.of("a").delete("y")
        assert not await timers.of("c").delete("x")
        await timers.move(15)
        assert [(alarm.plugin, alarm.name) for alarm in timers.fired] == [("a", "x")]
        await timers.move(15)
        assert [(alarm.plugin, alarm.name) for alarm in timers.fired] == [("a", "x"), ("b", "x")]


@pytest.mark.parametrize("payload", [object(), {1, 2}, b"bytes"])
async def test_a_payload_that_json_cannot_hold(timers: Timers, payload: object) -> None:
    async with timers.run():
        with pytest.raises(TypeError):
            await timers.of("a").set("x", START, payload)
        assert await timers.stored() == []


async def test_it_is_not_delivered_again_while_a_delivery_is_under_way(timers: Timers) -> None:
    release = asyncio.Event()

    async def hang(alarm: Alarm) -> None:
        await release.wait()

    timers.handle = hang
    async with timers.run():
        await timers.of("a").set("x", START)
        await timers.settled(in_flight=1)
        # Set again meanwhile: delivered again, but afterwards.
        await timers.of("a").set("x", START + 1)
        timers.clock.move(100)
        await timers.settled(in_flight=1)
        assert len(timers.fired) == 1
        release.set()
        await timers.wait_for(lambda: len(timers.fired) == 2)
        await timers.settled()
        assert await timers.stored() == []


async def test_an_end_in_the_middle_of_a_delivery_loses_nothing(timers: Timers) -> None:
    async def hang(alarm: Alarm) -> None:
        await asyncio.Event().wait()

    timers.handle = hang
    async with timers.run():
        await timers.of("a").set("x", START)
        await timers.settled(in_flight=1)
    second = again(timers)
    async with second.run():
        assert [alarm.attempts for alarm in second.fired] == [0]


async def test_one_plugin_that_hangs_holds_up_no_other(timers: Timers) -> None:
    async def hang(alarm: Alarm) -> None:
        if alarm.plugin == "evil":
            await asyncio.Event().wait()

    async with timers.open():
        for number in range(10 * MAX_IN_FLIGHT):
            await timers.of("evil").set(f"{number:04}", START - 1000)
        await timers.of("good").set("x", START)
    second = again(timers)
    second.handle = hang
    async with second.open(), second.service.run():
        await second.settled(in_flight=MAX_IN_FLIGHT)
        assert [alarm.plugin for alarm in second.fired].count("good") == 1
        await second.of("good").set("y", START + 1)
        second.clock.move(1)
        await second.wait_for(lambda: names(second)[-1] == "y")


async def test_more_than_may_be_in_flight_are_all_delivered(timers: Timers) -> None:
    async with timers.open():
        for number in range(5 * MAX_IN_FLIGHT):
            await timers.of("a").set(f"{number:04}", START - 1000 + number)
    second = again(timers)
    async with second.run():
        assert names(second) == [f"{number:04}" for number in range(5 * MAX_IN_FLIGHT)]


async def test_the_alarms_of_a_plugin_that_is_off_wait(timers: Timers, caplog: pytest.LogCaptureFixture) -> None:
    async def absent(alarm: Alarm) -> None:
        if alarm.plugin == "off":
            raise OwnerAbsent("plugin off is not enabled")

    timers.handle = absent
    async with timers.run():
        for name in ("x", "y"):
            await timers.of("off").set(name, START)
        await timers.settled()
        await timers.of("on").set("z", START + 10)
        await timers.move(1000)
        # Asked about once, not again and again.
        assert sorted(set(names(timers))) == sorted(names(timers))
        assert names(timers)[-1] == "z"
        assert {row[0] for row in await timers.stored()} == {"off"}
    second = again(timers)
    async with second.run():
        assert sorted((alarm.name, alarm.at, alarm.attempts) for alarm in second.fired) == [
            ("x", START, 0),
            ("y", START, 0),
        ]
    assert "plugin off is not enabled; its alarms wait" in caplog.text
    assert "ERROR" not in caplog.text


async def test_a_database_that_fails_for_a_while(timers: Timers, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outcome that could not be written is delivered again; a look that failed is looked again."""
    async with timers.run():
        write = timers.database.write
        broken: list[bool] = []

        async def failing(*arguments: Any, **more: Any) -> Any:
            if broken:
                raise OSError("the disk is full")
            return await write(*arguments, **more)

        monkeypatch.setattr(timers.database, "write", failing)
        await timers.of("a").set("x", START + 1)
        broken.append(True)
        timers.clock.move(1)
        await timers.wait_for(lambda: len(timers.fired) == 1)
        await timers.wait_for(lambda: len(timers.clock._sleepers) == 2)
        broken.clear()
        timers.clock.move(1)
        await timers.wait_for(lambda: len(timers.fired) == 2)
        await timers.settled()
        assert await timers.stored() == []

        read = timers.database.read

        async def unreadable(*arguments: Any) -> Any:
            monkeypatch.setattr(timers.database, "read", read)
            raise OSError("an I/O error")

        await timers.of("a").set("y", START + 10)
        await timers.settled()
        monkeypatch.setattr(timers.database, "read", unreadable)
        timers.clock.move(10)
        await timers.settled()
        await timers.move(1)
        assert names(timers)[-1] == "y"


async def test_alarms_change_with_the_transaction_that_replaces_them(timers: Timers) -> None:
    """Some are set and some forgotten, or, when the transaction is rolled back, none."""
    alarms = timers.of("a")

    def replace(connection: apsw.Connection, *, fails: bool) -> None:
        assert alarms.delete_in(connection, "old")
        alarms.set_in(connection, "moved", START + 20)
        alarms.set_in(connection, "new", START, {"for": "what is written"})
        if fails:
            raise ValueError("rolled back")

    async with timers.run():
        for name in ("old", "moved"):
            await alarms.set(name, START + 5, "payload")
        before = sorted(await timers.stored())
        with pytest.raises(ValueError, match="rolled back"):
            await timers.database.write(partial(replace, fails=True))
        assert sorted(await timers.stored()) == before
        await timers.database.write(partial(replace, fails=False))
        assert sorted(await timers.stored()) == [("a", "moved", START + 20, 0), ("a", "new", START, 0)]
        alarms.wake()
        await timers.settled()
        assert names(timers) == ["new"]
        assert not await timers.database.write(lambda connection: alarms.delete_in(connection, "new")), "it has fired"
        await timers.move(20)
        assert timers.fired[-1] == Alarm(plugin="a", name="moved", at=START + 20)


# --- Through the host. ------------------------------------------------------------------------------------------------


class Ringing:
    """Sets an alarm, and hears only of that alarm; its first delivery fails."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.heard: list[Alarm] = []

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host: Host) -> AsyncIterator[None]:
        await host.alarms.set("bell", self.at, "payload")
        yield

    @hookimpl
    def on_alarm(self, alarm: Alarm) -> None:
        self.heard.append(alarm)
        if alarm.attempts == 0:
            raise ValueError("not at the first ring")


class Deaf:
    """Sets an alarm, and does not implement on_alarm."""

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host: Host) -> AsyncIterator[None]:
        await host.alarms.set("bell", host.clock.now())
        yield


async def test_an_alarm_is_its_owners(tmp_path: Path) -> None:
    clock = MovableClock()
    first, second = Ringing(START), Ringing(START + 10)

    async def until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            clock.move(0.05)
            await asyncio.sleep(0.001)

    plugins = {"first": first, "second": second, "deaf": Deaf()}
    async with host_with(tmp_path, plugins, clock=clock) as host:
        await until(lambda: len(first.heard) == 2)
        assert second.heard == []
        assert clock.now() >= START + 2
        await until(lambda: len(second.heard) == 2)
        assert clock.now() >= START + 12
        assert [alarm.name for alarm in await host.core.alarms.of_plugin("deaf")] == ["bell"]
    assert {(alarm.plugin, alarm.name, alarm.payload) for alarm in first.heard} == {("first", "bell", "payload")}
    assert {alarm.plugin for alarm in second.heard} == {"second"}
