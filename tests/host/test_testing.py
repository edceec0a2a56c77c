"""The host that the tests of plugins get: it has time that is moved, and a failure of a hook fails the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication import ReplicationEvent
from starbase_host import Alarm, ConfigError, Host, NotFound, Route, hookimpl
from starbase_host.testing import START, HostOfTest, run_host

pytest_plugins = ["starbase_host.testing"]
Start = Callable[..., HostOfTest]


class Ticking:
    """Sets its alarm again each hour; hears of replications."""

    def __init__(self) -> None:
        self.rang: list[float] = []
        self.heard: list[str | None] = []

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host: Host) -> AsyncIterator[None]:
        self.host = host
        await host.alarms.set("tick", host.clock.now() + 3600)
        yield

    @hookimpl
    async def on_alarm(self, alarm: Alarm) -> None:
        self.rang.append(self.host.clock.now())
        await self.host.alarms.set("tick", self.host.clock.now() + 3600)

    @hookimpl(optionalhook=True)
    async def replication_event(self, event: ReplicationEvent) -> str | None:
        if event.type != "sync":
            return None
        if event.status == "error":
            raise ValueError("a bug")
        self.heard.append(event.config_name)
        return "heard"

    @hookimpl
    def register_routes(self) -> list[Route]:
        return [Route("/ticking", self.count, role="client")]

    async def count(self, request: Any) -> int:
        return len(self.rang)


def event(status: Any) -> ReplicationEvent:
    return ReplicationEvent(
        type="sync", run_id="1", occurred_at="2030-01-01T00:00:00.000Z", config_name="orders", status=status,
        records_processed=1, sync_duration_ms=1, error_message=None,
    )  # fmt: skip


def test_time_is_moved_and_alarms_are_delivered(start_host: Start) -> None:
    ticking = Ticking()
    host = start_host({"ticking": ticking})
    assert host.now == START
    host.move(3599)
    assert ticking.rang == []
    host.move(1)
    assert ticking.rang == [START + 3600]
    host.move(7200)
    assert host.get("/ticking", caller="client") == 2
    assert host.plugin("ticking") is ticking
    with pytest.raises(NotFound):
        host.plugin("other")


def test_a_hook_is_fired_and_its_failure_fails_the_test(start_host: Start) -> None:
    ticking = Ticking()
    host = start_host({"ticking": ticking, "data_replication": {}})
    assert host.fire("replication_event", event=event("success")) == {"ticking": "heard"}
    assert ticking.heard == ["orders"]
    with pytest.raises(AssertionError, match="plugin ticking: ValueError: a bug"):
        host.fire("replication_event", event=event("error"))
    assert [each["count"] for each in host.failures()] == [1]
    with pytest.raises(AssertionError, match="plugin ticking: ValueError: a bug"):
        host.fire("replication_event", event=event("error"))
    with pytest.raises(AssertionError, match="no plugin implements transform_batch"):
        host.fire("transform_batch")


def test_a_host_leaves_no_task(tmp_path: Path) -> None:
    class Looking:
        @hookimpl
        @contextlib.asynccontextmanager
        async def plugin_lifespan(self, host: Host) -> AsyncIterator[None]:
            self.loop = asyncio.get_running_loop()
            yield

    plugin = Looking()
    with run_host(tmp_path, {"looking": plugin}) as host:
        assert host.query("SELECT 1") == [[1]]
    left = [task for task in asyncio.all_tasks(plugin.loop) if not task.done()]
    assert left == []


def test_an_error_of_a_route_fails_the_test(start_host: Start) -> None:
    host = start_host({"ticking": Ticking()}, max_query_rows=2)
    with pytest.raises(AssertionError, match="GET /nowhere: the route /nowhere does not exist"):
        host.get("/nowhere")
    with pytest.raises(AssertionError, match="POST /query/raw: "):
        host.query("SELECT 1 UNION SELECT 2 UNION SELECT 3")
    assert host.query("SELECT ?", "x", caller="client") == [["x"]]
    assert host.request("GET", "/ticking", caller="anyone").status_code == 401


def test_a_host_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"plugins\.nowhere"), run_host(tmp_path, {"nowhere": {}}):
        pass
