"""A plugin that raises, hangs or gives invalid answers does not harm the others; a query that it guards is refused."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication import hookspecs as replication_hooks
from starbase_host import Alarm, Database, Host, Query, Result, hookimpl, hookspec, hookspecs
from starbase_host.alarms import AlarmService
from starbase_host.clock import Clock
from tests.support import evil_plugin
from tests.support.evil_plugin import evil
from tests.support.hosts import CONFIG, HostProcess, running, until
from tests.support.plugin_hosts import host_with
from tests.support.servers import TestDatabase

QUERY_HOOKS = ("before_query", "after_query")
# It refuses every query, as it should; its own tests are in test_authorize_read.py.
OTHER_HOOKS = [
    *(name for name in hookspecs.names() if name not in (*QUERY_HOOKS, "authorize_read")),
    *(name for name, item in vars(replication_hooks).items() if hasattr(item, "starbase_spec")),
]
MODES = [
    "raise plain", "raise coroutine", "exit plain", "exit coroutine", "interrupt plain", "cancel plain",
    "cancel coroutine", "stop plain", "hang plain", "hang coroutine", "nonsense plain", "nonsense coroutine",
]  # fmt: skip

# On a real host, those that leave the hook in different ways.
ON_A_REAL_HOST = [
    "raise plain", "exit plain", "exit coroutine", "cancel coroutine", "hang plain", "hang coroutine", "nonsense plain",
]  # fmt: skip

# Another plugin, which does what it should, and writes down that it could.
WITNESS = """
import contextlib, pathlib
from starbase_host import Route, hookimpl

def plugin(options):
    return Witness()

class Witness:
    def note(self, what):
        with open(pathlib.Path(__file__).with_name("seen"), "a") as file:
            file.write(what + "\\n")

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host):
        self.host = host
        await host.alarms.set("tick", host.clock.now())
        yield
        self.note("left")

    @hookimpl
    def register_routes(self, host):
        async def hello(request):
            return "hello"
        return [Route("/witness", hello, role=None)]

    @hookimpl
    async def on_alarm(self, alarm):
        self.note("alarm")
        await self.host.alarms.set("tick", self.host.clock.now() + 0.1)

    @hookimpl(optionalhook=True)
    def replication_event(self, event):
        self.note(f"event {event.status}")

    @hookimpl
    def before_query(self, query):
        self.note("query")
"""


def run(main: Callable[[], Coroutine[Any, Any, None]], released: threading.Event) -> None:
    """Run `main`, and let go of what hangs before the loop ends, which would wait for it."""

    async def then_release() -> None:
        try:
            await main()
        finally:
            released.set()

    asyncio.run(then_release())


def set_alarm(path: Path, plugin: str) -> None:
    """An alarm that is long overdue, in the database of a host that does not run."""

    async def main() -> None:
        database = Database(path)
        database.open()
        try:
            await database.migrate("host", "starbase_host.sql")

            async def deliver(alarm: Alarm) -> None: ...

            await AlarmService(database, Clock(), deliver).set(plugin, "overdue", 1.0)
        finally:
            await asyncio.to_thread(database.close)

    asyncio.run(main())


@pytest.mark.parametrize("mode", ON_A_REAL_HOST)
def test_a_faulty_plugin_does_not_harm_the_others(mode: str, embedded_database: TestDatabase, tmp_path: Path) -> None:
    """One such plugin for each hook, beside two that work, on a real replication."""
    shutil.copy(evil_plugin.__file__, tmp_path)
    (tmp_path / "witness.py").write_text(WITNESS)
    config = CONFIG.replace("[host]\n", "[host]\nhook_timeout_seconds = 1.0\n")
    for hook in OTHER_HOOKS:
        config += f'\n[plugins.evil_{hook}]\nmodule = "evil_plugin"\nhook = "{hook}"\nmode = "{mode}"\n'
    config += '\n[plugins.witness]\nmodule = "witness"\n'
    set_alarm(tmp_path / "data" / "starbase.db", "evil_on_alarm")
    called, seen = tmp_path / "called", tmp_path / "seen"
    embedded_database.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")
    embedded_database.execute("INSERT INTO orders VALUES (1, 'one'), (2, 'two')")

    with running(tmp_path, config) as host:
        assert host.result("GET", "/health") == {"status": "ready"}
        assert host.result("GET", "/witness") == "hello"
        host.configure(
            name="orders", sourceConfig=embedded_database.source_config, sourceTable="orders", targetTable="orders",
            syncIntervalMinutes=0.01,
        )  # fmt: skip
        host.configure(
            name="masked", sourceConfig=embedded_database.source_config, sourceTable="orders", targetTable="masked",
            transforms={"evil_transform_batch": ["note"]},
        )  # fmt: skip
        until(lambda: "event success" in seen.read_text(), what="the first sync, and its event")
        embedded_database.execute("INSERT INTO orders VALUES (3, 'three')")
        until(lambda: len(host.query("SELECT * FROM orders")) == 3, what="the schedule's next sync")
        # Two ticks more, after everything else has had its chance to harm.
        ticks = seen.read_text().count("alarm")
        until(lambda: seen.read_text().count("alarm") >= ticks + 2, what="the alarms of another plugin")

        listed = host.command("replication", "list")
        assert listed.returncode == 0
        assert "orders" in listed.stdout
        assert "Traceback" not in listed.stderr

        # A token that the host does not know makes it ask the plugins; one that fails refuses it.
        assert host.request("GET", "/status", token="unknown").status_code in (401, 500)
        until(lambda: set(called.read_text().split()) == set(OTHER_HOOKS), what="a call of each hook")
        failed = {plugin["name"]: plugin["failed"] for plugin in host.result("GET", "/plugins")}
        assert failed.pop("data_replication") is None
        assert failed.pop("witness") is None
        for hook in ("register_routes", "plugin_lifespan", "register_hookspecs"):
            assert failed[f"evil_{hook}"].startswith(f"{hook}: ")
        assert host.stop(seconds=10) == 0
    # An event that was under way may still arrive after it.
    assert "left" in seen.read_text().split("\n")
    for name, hook in (("evil_register_routes", "register_routes"), ("evil_plugin_lifespan", "plugin_lifespan")):
        assert f"plugin {name}: {hook}: " in host.log


@pytest.mark.parametrize("mode", [*MODES, "stubborn coroutine"])
@pytest.mark.parametrize("hook", QUERY_HOOKS)
def test_a_query_hook_fails_closed(hook: str, mode: str, tmp_path: Path) -> None:
    async def main() -> None:
        called = []
        plugins = {"evil": evil(hook, mode, lambda: called.append(hook), released)}
        async with host_with(tmp_path, plugins, hook_timeout_seconds=0.2) as host:
            response = await host.query("CREATE TABLE t (x)")
            assert response.status_code == 500
            assert response.json()["error"].startswith(f"plugin evil: {hook} ")
            assert called == [hook]
            assert ("TimeoutError" in response.json()["error"]) == mode.startswith(("hang", "stubborn"))
            made = await host.core.database.read(
                lambda c: c.execute("SELECT count(*) FROM sqlite_schema WHERE name = 't'").get
            )
            assert made == (hook == "after_query")
            assert (await host.request("GET", "/health", token=None)).status_code == 200

    released = threading.Event()
    run(main, released)


class Pingable:
    """Answers in the right form, with invalid content."""

    def __init__(self, hook: str, change: dict[str, Any], form: str = "plain") -> None:
        def plain(query: Query) -> Query:
            return dataclasses.replace(query, **change)

        async def coroutine(query: Query) -> Query:
            return plain(query)

        def plain_after(result: Result) -> Result:
            return dataclasses.replace(result, **change)

        async def coroutine_after(result: Result) -> Result:
            return plain_after(result)

        functions: dict[str, dict[str, Any]] = {
            "before_query": {"plain": plain, "coroutine": coroutine},
            "after_query": {"plain": plain_after, "coroutine": coroutine_after},
        }
        setattr(self, hook, hookimpl(functions[hook][form]))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("hook", "change"),
    [
        ("before_query", {"sql": 42}),
        ("before_query", {"role": "Client"}),
        ("before_query", {"params": "text"}),
        ("after_query", {"columns": None}),
        ("after_query", {"rows": 42}),
        ("after_query", {"rows": [42]}),
        ("after_query", {"rows": [(1, 2)]}),
        ("after_query", {"rows": [(object(),)]}),
    ],
)
async def test_invalid_content_in_a_valid_form_fails_closed(hook: str, change: dict[str, Any], tmp_path: Path) -> None:
    async with host_with(tmp_path, {"evil": Pingable(hook, change)}) as host:
        response = await host.query("SELECT 1")
        assert (response.status_code, response.json()) == (
            500,
            {"error": f"plugin evil: {hook} returned an invalid answer"},
        )


def slow(released: threading.Event) -> dict[str, dict[str, Any]]:
    """What answers may hold that takes its time when it is looked at: until it is released, or for five seconds."""

    def wait() -> None:
        released.wait(5)

    class Rows(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            wait()
            return list.__iter__(self)

    class Length(list[Any]):
        def __len__(self) -> int:
            wait()
            return list.__len__(self)

    class Params(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            wait()
            return dict.__getitem__(self, name)

        def items(self) -> Any:
            wait()
            return dict.items(self)

    return {
        "rows": {"rows": Rows([(1,)])},
        "length": {"rows": Length([(1,)])},
        "row": {"rows": [Rows([1])]},
        "columns": {"columns": Rows(["x"])},
        "params": {"params": Params(x=1)},
        "blob": {"params": [Params({"$base64": ""})]},
        "list": {"params": Rows([1])},
    }


@pytest.mark.parametrize("form", ["plain", "coroutine"])
@pytest.mark.parametrize("part", slow(threading.Event()))
def test_an_answer_that_is_slow_to_check_does_not_delay_other_requests(part: str, form: str, tmp_path: Path) -> None:
    released = threading.Event()
    change = slow(released)[part]
    hook = "before_query" if "params" in change else "after_query"

    async def main() -> None:
        async with host_with(tmp_path, {"evil": Pingable(hook, change, form)}, hook_timeout_seconds=0.2) as host:
            response = await host.query("SELECT 1")
            assert not released.is_set()
            error = f"plugin evil: {hook} failed (TimeoutError)"
            assert (response.status_code, response.json()) == (500, {"error": error})

    run(main, released)


class Endless(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        return itertools.repeat((1,))


class Number(float):
    """No number that JSON has, nor one that the host would have known as such."""


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["plain", "coroutine"])
async def test_an_answer_is_a_plain_copy(form: str, tmp_path: Path) -> None:
    change: dict[str, Any] = {"rows": Endless([(1,)])}
    async with host_with(tmp_path, {"evil": Pingable("after_query", change, form)}) as host:
        response = await host.query("SELECT 1")
        assert response.json() == {"error": "plugin evil: after_query returned an invalid answer"}
    change = {"rows": [[Number("nan")]]}
    async with host_with(tmp_path, {"evil": Pingable("after_query", change, form)}) as host:
        assert (await host.query("SELECT 1")).json()["result"]["rows"] == [[None]]


def test_more_calls_than_a_worker_may_queue(tmp_path: Path) -> None:
    """A plugin that hangs refuses at once when its queue is full, and its other hooks go on."""

    async def main() -> None:
        plugins = {"evil": evil("before_query", "hang plain", lambda: None, released)}
        async with host_with(tmp_path, plugins, hook_timeout_seconds=0.5) as host:
            answers = await asyncio.gather(*(host.query("SELECT 1") for _ in range(150)))
            assert {answer.status_code for answer in answers} == {500}
            assert (await host.request("GET", "/health", token=None)).status_code == 200
            released.set()

            async def works_again() -> bool:
                return "TimeoutError" not in (await host.query("SELECT 1")).json()["error"]

            deadline = time.monotonic() + 10
            while not await works_again():
                assert time.monotonic() < deadline

    released = threading.Event()
    run(main, released)


# --- Lifespans. -------------------------------------------------------------------------------------------------------


class Living:
    """A lifespan that misbehaves when it is entered or left."""

    def __init__(self, enter: str, leave: str, released: threading.Event) -> None:
        self.enter = enter
        self.leave = leave
        self.released = released

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self) -> AsyncIterator[None]:
        await self.do(self.enter)
        yield
        await self.do(self.leave)

    async def do(self, what: str) -> None:
        if what:
            await evil("x", f"{what} coroutine", lambda: None, self.released).implementation()


class Good:
    def __init__(self) -> None:
        self.steps: list[str] = []

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self) -> AsyncIterator[None]:
        self.steps.append("entered")
        yield
        self.steps.append("left")


@pytest.mark.parametrize("deed", ["raise", "exit", "cancel", "hang", "stubborn"])
@pytest.mark.parametrize("end", ["enter", "leave"])
def test_a_lifespan_that_misbehaves(
    deed: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("starbase_host.plugins.LEAVE_TIMEOUT_SECONDS", 0.5)
    before, after = Good(), Good()
    released = threading.Event()

    async def main() -> None:
        bad = Living(deed if end == "enter" else "", deed if end == "leave" else "", released)
        worse = Living("", "hang", released)
        plugins = {"before": before, "bad": bad, "worse": worse, "after": after}
        async with host_with(tmp_path, plugins, hook_timeout_seconds=0.1) as host:
            assert before.steps == after.steps == ["entered"]
            found = {plugin.name: plugin.failed for plugin in host.core.plugins.loaded}
            assert (found["bad"] is None) == (end == "leave")
            started = time.monotonic()
        assert time.monotonic() - started < 5

    run(main, released)
    assert before.steps == after.steps == ["entered", "left"]
    assert "plugin bad: plugin_lifespan: " in caplog.text
    assert "plugin worse: plugin_lifespan: TimeoutError: did not leave in time" in caplog.text


# --- Hooks of plugins, and what plugins leave behind. -----------------------------------------------------------------


class Asking:
    """Offers a hook and calls it in its own lifespan, where a subscriber's hang would eat its time."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    @hookimpl
    def register_hookspecs(self) -> type:
        return AskingHooks

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host: Host) -> AsyncIterator[None]:
        self.answers = await host.call("how_are_you")
        yield


class AskingHooks:
    @hookspec
    def how_are_you(self) -> str:
        """Say how you are."""
        raise NotImplementedError


class Well:
    @hookimpl(optionalhook=True)
    def how_are_you(self) -> str:
        return "well"


@pytest.mark.parametrize("mode", MODES)
def test_subscribers_of_a_plugins_hook(mode: str, tmp_path: Path) -> None:
    asking = Asking()
    released = threading.Event()

    async def main() -> None:
        plugins = {"asking": asking, "evil": evil("how_are_you", mode, lambda: None, released), "well": Well()}
        async with host_with(tmp_path, plugins, hook_timeout_seconds=0.3) as host:
            assert host.core.plugins.get("asking").failed is None

    run(main, released)
    invalid = [("evil", 42)] if "nonsense" in mode else []
    assert asking.answers == [*invalid, ("well", "well")]


LEAVING = """
import asyncio, contextlib, hashlib, pathlib, threading, time
from starbase_host import hookimpl

def plugin(options):
    return Leaving(options["what"])

async def stubborn():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)

def busy():
    pathlib.Path(__file__).with_name("computing").touch()
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2_000_000_000)

class Leaving:
    def __init__(self, what):
        self.what = what

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host):
        pathlib.Path(__file__).with_name("entering").touch()
        if self.what == "start":
            await asyncio.sleep(3600)
        if self.what == "task":
            self.task = asyncio.create_task(stubborn())
        if self.what == "thread":
            threading.Thread(target=time.sleep, args=(3600,)).start()
        if self.what == "loop":
            asyncio.get_running_loop().call_later(0.1, busy)
        if self.what == "executor":
            self.task = asyncio.create_task(asyncio.to_thread(time.sleep, 3600))
        yield
"""


def leaving(directory: Path, what: str) -> HostProcess:
    (directory / "leaving.py").write_text(LEAVING)
    return HostProcess(directory, CONFIG + f'\n[plugins.leaving]\nmodule = "leaving"\nwhat = "{what}"\n')


@pytest.mark.parametrize("what", ["task", "thread", "executor"])
def test_what_a_plugin_leaves_behind_does_not_keep_the_host(what: str, tmp_path: Path) -> None:
    with leaving(tmp_path, what) as host:
        assert host.result("GET", "/health") == {"status": "ready"}
        assert host.stop(seconds=8) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_loop_computes_what_cannot_be_interrupted(number: int, tmp_path: Path) -> None:
    with leaving(tmp_path, "loop") as host:
        until((tmp_path / "computing").exists, what="the computation")
        assert host.stop(number, seconds=6) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_plugin_holds_up_the_start(number: int, tmp_path: Path) -> None:
    host = leaving(tmp_path, "start")
    with subprocess.Popen(
        [sys.executable, "-m", "starbase_host.cli", "serve", "--config", str(host.config_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            until((tmp_path / "entering").exists, what="the start")
            process.send_signal(number)
            assert process.wait(8) == 0
        finally:
            process.kill()
