"""For tests of plugins: a host in the test's own process, in a temporary directory, and a clock that the test moves.

A pytest plugin: `pytest_plugins = ["starbase_host.testing"]` gives tests the fixture `start_host`. A test may also
import from it before pytest loads it: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import types
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx
import pytest

from starbase_host import config as configuration
from starbase_host.app import Core, create_app
from starbase_host.clock import Clock
from starbase_host.routes import Role

T = TypeVar("T")

TOKENS: dict[Role, str] = {"admin": "the-admin-token-of-a-test", "client": "the-client-token-of-a-test"}
# The time that the clock of a test begins with: 2030-03-17T17:46:40Z.
START = 1_900_000_000.0
Caller = Role | Literal["anyone"]


class MovableClock(Clock):
    """Time that stands still until it is moved. Use it only on the event loop."""

    def __init__(self, now: float = START) -> None:
        self._now = now
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper = (self._now + seconds, asyncio.Event())
        self._sleepers.append(sleeper)
        try:
            await sleeper[1].wait()
        finally:
            self._sleepers.remove(sleeper)

    def move(self, seconds: float) -> None:
        """Let so many seconds pass, and wake who has slept for long enough."""
        self._now += seconds
        for until, wake in self._sleepers:
            if until <= self._now:
                wake.set()


class HostOfTest:
    """A host that runs. Each method waits until it is done.

    core: the parts of the host, which may change at any time.
    """

    def __init__(self, core: Core, client: httpx.AsyncClient, clock: MovableClock, run: Callable[..., Any]) -> None:
        self.core = core
        self._client = client
        self._clock = clock
        self._run = run

    @property
    def now(self) -> float:
        """The time of the host, in seconds since 1970."""
        return self._clock.now()

    def request(self, method: str, path: str, body: Any = None, *, caller: Caller = "admin") -> httpx.Response:
        """Call a route. body: a JSON value. caller: whose token is sent; "anyone" sends none."""
        headers = {} if caller == "anyone" else {"authorization": f"Bearer {TOKENS[caller]}"}
        response: httpx.Response = self._run(self._client.request(method, path, json=body, headers=headers))
        return response

    def get(self, path: str, *, caller: Caller = "admin") -> Any:
        """The `result` of a route. Raises AssertionError with the error, if it has one."""
        return _result(self.request("GET", path, caller=caller))

    def post(self, path: str, body: Any = None, *, caller: Caller = "admin") -> Any:
        """Do the same as `get` with POST and a body."""
        return _result(self.request("POST", path, body, caller=caller))

    def query(self, sql: str, *params: Any, caller: Caller = "admin") -> list[list[Any]]:
        """The rows of a query, through all plugins."""
        rows: list[list[Any]] = self.post("/query/raw", {"sql": sql, "params": list(params)}, caller=caller)["rows"]
        return rows

    def fire(self, hook: str, **arguments: Any) -> dict[str, Any]:
        """Call a hook in every plugin that implements it; return the answers by plugin.

        Raises AssertionError if one of them has failed, or if no plugin implements the hook.
        """
        assert self.core.plugins.implementers(hook), f"no plugin implements {hook}"
        before = self.failures()
        answers = dict(self._run(self.core.plugins.call(hook, **arguments)))
        failed = [f"plugin {name}: {each['error']}" for name, each in self._failed(hook) if each not in before]
        assert not failed, "; ".join(failed)
        return answers

    def move(self, seconds: float) -> None:
        """Let time pass, and every alarm be delivered that is then due. Raises TimeoutError if that does not end."""
        self._run(self._move(seconds))

    def plugin(self, name: str) -> Any:
        """The object of a plugin. Raises NotFound if it is not enabled."""
        return self.core.plugins.get(name).instance

    def failures(self) -> list[dict[str, Any]]:
        """What has failed in any plugin, as `GET /plugins` shows it."""
        return [each for plugin in self.core.plugins.loaded for each in plugin.failures.shown()]

    def _failed(self, hook: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for plugin in self.core.plugins.loaded:
            yield from ((plugin.name, each) for each in plugin.failures.shown() if each["hook"] == hook)

    async def _move(self, seconds: float) -> None:
        self._clock.move(seconds)
        async with asyncio.timeout(30):
            await self.core.alarms.settle()


@contextlib.contextmanager
def run_host(directory: Path, plugins: Mapping[str, Any], **settings: Any) -> Iterator[HostOfTest]:
    """Run a host inside this context.

    directory: for its database; `module`s are found there too.
    plugins: for each name its table in plugin.toml, such as {"module": "guestbook"}, or the plugin's object itself.
    settings: keys of the table [host].
    Raises ConfigError when the host cannot start.
    """
    host = {"database": "starbase.db", "admin_token": TOKENS["admin"], "client_token": TOKENS["client"], **settings}
    tables = {name: plugin if isinstance(plugin, Mapping) else _table(plugin) for name, plugin in plugins.items()}
    document = {"host": host, "plugins": {name: dict(table) for name, table in tables.items()}}
    config = configuration.parse(document, path=directory / "plugin.toml", environ=os.environ)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="host-of-test", daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    stack, clock = contextlib.AsyncExitStack(), MovableClock()
    try:
        core, client = run(_start(config, clock, stack))
        yield HostOfTest(core, client, clock, run)
    finally:
        run(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(
    config: configuration.HostConfig, clock: MovableClock, stack: contextlib.AsyncExitStack
) -> tuple[Core, httpx.AsyncClient]:
    app = create_app(config, clock=clock)
    await stack.enter_async_context(app.router.lifespan_context(app))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host-of-test")
    await stack.enter_async_context(client)
    core: Core = app.state.core
    await core.alarms.settle()
    return core, client


def _table(plugin: Any) -> dict[str, Any]:
    """The table of a module whose factory returns this object."""
    module = types.ModuleType(f"plugin_of_test_{uuid.uuid4().hex}")
    module.__dict__["plugin"] = lambda options: plugin
    sys.modules[module.__name__] = module
    return {"module": module.__name__}


def _result(response: httpx.Response) -> Any:
    answer = response.json()
    assert response.is_success, f"{response.request.method} {response.request.url.path}: {answer.get('error')}"
    return answer["result"]


@pytest.fixture
def start_host(tmp_path: Path) -> Iterator[Callable[..., HostOfTest]]:
    """Starts hosts, which end with the test: `start_host({"guestbook": {"module": "guestbook"}})`; see `run_host`."""
    with contextlib.ExitStack() as stack:

        def start(plugins: Mapping[str, Any], **settings: Any) -> HostOfTest:
            directory = tmp_path / uuid.uuid4().hex
            directory.mkdir()
            return stack.enter_context(run_host(directory, plugins, **settings))

        yield start
