"""What the host shows of plugins' failures: each is counted and named, and no exception of a plugin harms the host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication import ReplicationEvent
from starbase_data_replication.plugin import plugin as data_replication
from starbase_host import Conflict, Host, Query, QueryRejected, Route, hookimpl
from starbase_host.failures import MAX_DETAILS, MAX_KEPT, MAX_SHOWN, FailureLog, Streak, describe
from starbase_host.plugins import Plugins
from tests.support.hosts import ADMIN, HostProcess
from tests.support.plugin_hosts import InProcess, config_of, host_with

pytestmark = pytest.mark.anyio


class Raises(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


class Exits(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class Huge(Exception):
    def __str__(self) -> str:
        return "x" * 50_000_000


class Hangs(Exception):
    """Its text takes until the test is over."""

    released = threading.Event()

    def __str__(self) -> str:
        Hangs.released.wait(20)
        return "late"


class Text(str):
    """A text that may do anything when it is used."""

    def __format__(self, how: str) -> str:
        raise ZeroDivisionError

    def __getitem__(self, at: Any) -> str:
        raise ZeroDivisionError


class Subtle(Exception):
    def __str__(self) -> str:
        return Text("subtle")


ODD: dict[str, Callable[[], Exception]] = {
    "raises": Raises,
    "exits": Exits,
    "huge": Huge,
    "hangs": Hangs,
    "a subclass of str": Subtle,
    "a huge argument": lambda: ValueError("x" * 50_000_000),
    "an argument that raises": lambda: ValueError(Raises()),
}
HOOKS = ["register_routes", "plugin_lifespan", "replication_dialects", "replication_event", "on_alarm", "before_query"]


@pytest.fixture(autouse=True)
def _released() -> Any:
    Hangs.released.clear()
    yield
    Hangs.released.set()


async def failures_of(host: InProcess, name: str) -> dict[str, dict[str, Any]]:
    plugins = (await host.request("GET", "/plugins")).json()["result"]
    (found,) = (plugin["failures"] for plugin in plugins if plugin["name"] == name)
    return {each["hook"]: each for each in found}


async def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def raising(hook: str, make: Callable[[], Exception], form: str = "plain") -> Any:
    def plain(self: Any) -> Any:
        raise make() from make()

    async def coroutine(self: Any) -> Any:
        raise make() from make()

    function = coroutine if form == "coroutine" else plain
    return type("Raising", (), {"implementation": hookimpl(specname=hook, optionalhook=True)(function)})()


@pytest.mark.parametrize("form", ["plain", "coroutine"])
@pytest.mark.parametrize("error", ODD)
@pytest.mark.parametrize("hook", HOOKS)
async def test_an_exception_with_an_odd_text(
    hook: str, error: str, form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The host starts, names the plugin, and counts the failure; data replication runs."""
    replication = data_replication({})
    plugins = {"odd": raising(hook, ODD[error], form), "data_replication": replication}
    async with host_with(tmp_path, plugins) as host:
        await host.core.alarms.set("odd", "bell", 1.0)
        replication._parts().events.send(event())
        answer = await host.query("SELECT 1")
        assert answer.status_code == (500 if hook == "before_query" else 200)
        await until(lambda: host.core.plugins.get("odd").failed)
        found = await failures_of(host, "odd")
        assert list(found) == [hook]
        assert len(found[hook]["error"]) <= MAX_SHOWN + 50
        assert type(ODD[error]()).__name__ in found[hook]["error"]
        assert await failures_of(host, "data_replication") == {}
    assert "plugin odd: " in caplog.text
    assert all(len(record.getMessage()) < MAX_DETAILS + 1000 for record in caplog.records)


def event(number: int = 1) -> ReplicationEvent:
    return ReplicationEvent(
        type="sync", run_id=str(number), occurred_at="2030-01-01T00:00:00.000Z", config_name="orders",
        status="success", records_processed=1, sync_duration_ms=1, error_message=None,
    )  # fmt: skip


class Rejects(QueryRejected):
    def __str__(self) -> str:
        return "made by its class"


class RejectsNothing(QueryRejected):
    def __str__(self) -> str:
        raise ZeroDivisionError


class Rejecting:
    @hookimpl
    def before_query(self, query: Query) -> None:
        raise (Rejects if "text" in query.sql else RejectsNothing)()


async def test_a_rejection_whose_class_makes_its_text(tmp_path: Path) -> None:
    async with host_with(tmp_path, {"gate": Rejecting()}) as host:
        answer = await host.query("SELECT 'text'")
        assert (answer.status_code, answer.json()) == (403, {"error": "made by its class"})
        answer = await host.query("SELECT 1")
        assert answer.status_code == 500
        assert answer.json() == {"error": "plugin gate: before_query failed (RejectsNothing)"}


class Taken(Conflict):
    def __str__(self) -> str:
        return "made by its class"


class NotTaken(Conflict):
    def __str__(self) -> str:
        raise ZeroDivisionError


class Routed:
    @hookimpl
    def register_routes(self, host: Host) -> list[Route]:
        async def fail(request: Any) -> Any:
            raise {"odd": Raises, "taken": Taken, "not": NotTaken, "plain": KeyError}[request.path_params["how"]]()

        return [Route("/routed/{how}", fail, role=None)]


async def test_errors_of_a_route(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with host_with(tmp_path, {"routed": Routed()}) as host:
        answer = await host.request("GET", "/routed/taken", token=None)
        assert (answer.status_code, answer.json()) == (409, {"error": "made by its class"})
        for how in ("odd", "not", "plain"):
            answer = await host.request("GET", f"/routed/{how}", token=None)
            assert (answer.status_code, answer.json()) == (
                500,
                {"error": "internal error; the host's log has the details"},
            )
        found = await failures_of(host, "routed")
        assert [(hook, each["count"]) for hook, each in found.items()] == [("route /routed/{how}", 3)]
        assert found["route /routed/{how}"]["error"] == "KeyError"
        assert re.fullmatch(r"\d{4}-.*Z", found["route /routed/{how}"]["last_at"])
    assert "GET /routed/odd failed: plugin routed: Raises, whose text could not be made" in caplog.text
    assert "test_failures.py" in caplog.text


ODD_MODULES = {
    "the factory": "def plugin(options):\n    raise Odd",
    "importing": "raise Odd",
    "its names": "def plugin(options):\n    return P()\nclass P:\n    def __dir__(self):\n        raise Odd",
    "a field of a ConfigError": "from starbase_host import ConfigError\n"
    "def plugin(options):\n    raise ConfigError(Odd(), 'is wrong')",
    "its prefix": "def plugin(options):\n    return P()\nclass P:\n    path_prefix = Odd()",
}


@pytest.mark.parametrize("where", ODD_MODULES)
def test_an_odd_exception_while_a_plugin_is_loaded(where: str, tmp_path: Path) -> None:
    """The start stops with one line that names the plugin."""
    odd = "class Odd(Exception):\n    def __str__(self):\n        raise ZeroDivisionError\n    __repr__ = __str__\n"
    (tmp_path / "odd.py").write_text(odd + ODD_MODULES[where])
    head = f'[host]\nbind = "127.0.0.1:0"\nadmin_token = "{ADMIN}"\n\n'
    answer = HostProcess(tmp_path, head + '[plugins.odd]\nmodule = "odd"\n').command("serve")
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.startswith("starbase: plugin.toml: plugins.odd")
    assert answer.stderr.count("\n") == 1


class Ringing:
    @hookimpl
    def on_alarm(self) -> None:
        raise KeyError("no such row")


async def test_an_alarm_that_fails_is_logged_with_its_type_and_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with host_with(tmp_path, {"ringing": Ringing()}) as host:
        await host.core.alarms.set("ringing", "bell", 1.0)
        await until(lambda: "tries again" in caplog.text)
        assert (await failures_of(host, "ringing"))["on_alarm"]["count"] == 1
    assert "plugin ringing: on_alarm: KeyError: 'no such row'" in caplog.text
    assert "test_failures.py" in caplog.text
    assert "alarm bell of plugin ringing failed (KeyError: 'no such row'); the host tries again in 2 s" in caplog.text


class Listening:
    """Fails until the test stops it, as a hook and as a callback."""

    def __init__(self) -> None:
        self.fails = True
        self.heard = 0

    def listen(self, event: ReplicationEvent) -> None:
        self.heard += 1
        if self.fails and event.type != "host_ready":
            raise ValueError("a bug")

    @hookimpl(optionalhook=True)
    def replication_event(self, event: ReplicationEvent) -> None:
        self.listen(event)

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host: Host) -> AsyncIterator[None]:
        host.plugin("data_replication").on_event(self.listen)
        yield


async def test_failures_in_a_row_do_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of the hook and of a callback: the first, the 10th and the 100th, and the end."""
    caplog.set_level(logging.WARNING)
    listening, replication = Listening(), data_replication({})
    plugins = {"listening": listening, "data_replication": replication}
    async with host_with(tmp_path, plugins, hook_timeout_seconds=2.0) as host:
        events = replication._parts().events
        for number in range(150):
            events.send(event(number))
            await events.drain(5)
        found = await failures_of(host, "listening")
        assert {hook: each["count"] for hook, each in found.items()} == {"replication_event": 150, "on_event": 150}
        for what in ("replication_event", "on_event"):
            lines = [
                each.getMessage().partition("\n")[0]
                for each in caplog.records
                if f"plugin listening: {what}" in each.getMessage()
            ]
            assert lines == [
                f"plugin listening: {what}: ValueError: a bug",
                f"plugin listening: {what} (10 failures in a row): ValueError: a bug",
                f"plugin listening: {what} (100 failures in a row): ValueError: a bug",
            ]
        listening.fails = False
        end = "plugin listening: {} works again, after 150 failures"
        deadline = time.monotonic() + 20
        while not all(end.format(what) in caplog.text for what in ("replication_event", "on_event")):
            assert time.monotonic() < deadline
            events.send(event())
            await asyncio.sleep(0.05)
        assert caplog.text.count("works again") == 2


def test_a_streak() -> None:
    streak = Streak(10.0)
    assert streak.succeed(0.0) == 0
    logged = [number for number in range(1, 2001) if streak.fail(float(number), "a" if number < 500 else "b")]
    assert logged == [1, 10, 100, 500, 1000]
    # A success soon after a failure is not the end: a slow listener is in time now and then.
    assert streak.succeed(2005.0) == 0
    assert streak.succeed(2010.0) == 2000
    assert streak.succeed(2011.0) == 0
    assert streak.fail(3000.0, "a")


def test_what_is_kept_of_failures_is_bounded() -> None:
    failures = FailureLog()
    for number in range(1000):
        failures.add(f"route /x/{number}", "x" * 100_000, 1.0)
    failures.add("route /x/999", "the last", 2.0)
    shown = failures.shown()
    assert len(shown) == MAX_KEPT
    assert shown[0] == {
        "hook": "route /x/999", "error": "the last", "count": 2, "last_at": "1970-01-01T00:00:02.000Z",
    }  # fmt: skip
    assert max(len(each["error"]) for each in shown) < MAX_SHOWN + 50


def test_the_causes_of_an_error_are_described() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer,\nin two lines") from error
    except ValueError as error:
        failure = describe(error)
    assert str(failure) == "ValueError: outer, in two lines"
    assert failure.details.index("KeyError: 'inner'") < failure.details.index("… which led to:")
    assert failure.details.count("test_failures.py") == 2
    group = describe(ExceptionGroup("two", [ValueError("one"), KeyError("other")]))
    assert "ValueError: one" in group.details
    assert "KeyError: 'other'" in group.details


class Specs:
    @property
    def x(self) -> None:
        raise Raises


class Offering:
    @hookimpl
    def register_hookspecs(self) -> Any:
        return Specs()


def test_odd_hookspecs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plugins = Plugins(config_of(tmp_path, {"offering": Offering()}))
    plugins.load()
    assert "plugin offering: register_hookspecs: TypeError" in caplog.text
