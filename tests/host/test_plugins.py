"""What a plugin can do, and what the host says when one is written or configured wrongly."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import pytest

from starbase_data_replication import ReplicationEvent
from starbase_data_replication.plugin import plugin as data_replication
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_host import (
    Answer,
    CommandHost,
    ConfigError,
    Conflict,
    Host,
    InvalidRequest,
    NotFound,
    Query,
    QueryRejected,
    Result,
    Route,
    hookimpl,
    hookspec,
)
from starbase_host.plugins import Plugins
from tests.support.hosts import ADMIN, CLIENT, HostProcess, running
from tests.support.plugin_hosts import config_of, host_with

pytestmark = pytest.mark.anyio

HEAD = f'[host]\nbind = "127.0.0.1:0"\nadmin_token = "{ADMIN}"\n\n'


ROUTED = """
from starbase_host import Route, hookimpl

class Plugin:
    {attribute}
    @hookimpl
    def register_routes(self, host):
        async def hello(request):
            return "hello"
        return [{route}]

def plugin(options):
    return Plugin()
"""

HOOKED = """
from starbase_host import ConfigError, hookimpl

class Plugin:
    {mark}
    def {definition}:
        pass

def plugin(options):
    for name in options:
        raise ConfigError(name, "unknown option; known: none")
    return Plugin()
"""


def routed(route: str, attribute: str = "") -> str:
    return ROUTED.format(route=route, attribute=attribute)


def hooked(definition: str, mark: str = "@hookimpl") -> str:
    return HOOKED.format(definition=definition, mark=mark)


WRONG: dict[str, tuple[str, str, list[str]]] = {
    "missing plugin": ("[plugins.nowhere]", "", ["plugins.nowhere", "data_replication", "install it"]),
    "missing module": ('[plugins.a]\nmodule = "not_there"', "", ["plugins.a", "not_there"]),
    "no factory": ('[plugins.a]\nmodule = "a"', "x = 1", ["plugins.a", "define `plugin(options)`"]),
    "factory without return": ('[plugins.a]\nmodule = "a"', "def plugin(options): pass", ["plugins.a", "return"]),
    "module that exits": ('[plugins.a]\nmodule = "a"', "raise SystemExit(0)", ["plugins.a", "SystemExit"]),
    "several lines of error": (
        '[plugins.a]\nmodule = "a"',
        'raise ValueError("one\\ntwo")',
        ["plugins.a", "ValueError: one two"],
    ),
    "unknown option": ('[plugins.a]\nmodule = "a"\ncolour = 1', hooked("x(self)", ""), ["plugins.a.colour", "known"]),
    "misspelt option of an installed plugin": (
        "[plugins.data_replication]\nmax_concurrent_sync = 1",
        "",
        ["plugins.data_replication.max_concurrent_sync", "did you mean max_concurrent_syncs?"],
    ),
    "unset variable": (
        '[plugins.a]\nmodule = "a"\ncolour = "${STARBASE_TEST_UNSET}"',
        hooked("x(self)", ""),
        ["plugins.a.colour", "STARBASE_TEST_UNSET", "set it"],
    ),
    "misspelt hook": (
        '[plugins.a]\nmodule = "a"',
        hooked("befor_query(self, query)"),
        ["plugins.a", "befor_query", "did you mean before_query?"],
    ),
    "unknown hook": (
        '[plugins.a]\nmodule = "a"',
        hooked("guestbook_signed(self)"),
        ["plugins.a", "guestbook_signed", "hookimpl(optionalhook=True)"],
    ),
    "another plugin's hook, its plugin off": (
        '[plugins.a]\nmodule = "a"',
        hooked("replication_event(self)"),
        ["plugins.a", "replication_event", "hookimpl(optionalhook=True)"],
    ),
    "hook without its mark": (
        '[plugins.a]\nmodule = "a"',
        hooked("before_query(self, query)", ""),
        ["plugins.a", "before_query", "write @hookimpl"],
    ),
    "wrong signature": (
        '[plugins.a]\nmodule = "a"',
        hooked("before_query(self, sql)"),
        ["plugins.a", "before_query", "'sql'", "use only the arguments of the hook"],
    ),
    "wrong signature of another plugin's hook": (
        '[plugins.data_replication]\n[plugins.a]\nmodule = "a"',
        hooked("replication_event(self, what)"),
        ["plugins.a", "replication_event", "'what'", "use only the arguments of the hook"],
    ),
    "pluggy's wrapper": (
        '[plugins.a]\nmodule = "a"',
        hooked("after_query(self)", "@hookimpl(wrapper=True)").replace("pass", "yield", 1),
        ["plugins.a", "after_query", "write a plain hookimpl"],
    ),
    "prefix of another plugin": (
        '[plugins.data_replication]\n[plugins.a]\nmodule = "a"',
        routed('Route("/data-replication/x", hello)', 'path_prefix = "/data-replication"'),
        ["plugins.a", "/data-replication", "another path_prefix"],
    ),
    "prefix of the host": (
        '[plugins.a]\nmodule = "a"',
        routed('Route("/query/x", hello)', 'path_prefix = "/query"'),
        ["plugins.a", "/query", "another path_prefix"],
    ),
    "prefix that catches all": (
        '[plugins.a]\nmodule = "a"',
        routed('Route("/{any}", hello)', 'path_prefix = "/{any}"'),
        ["plugins.a", "/{any}", "/my-plugin"],
    ),
    "route outside its prefix": (
        '[plugins.a]\nmodule = "a"',
        routed('Route("/other", hello)'),
        ["plugins.a", "/other", "outside its prefix /a"],
    ),
    "role that does not exist": (
        '[plugins.a]\nmodule = "a"',
        routed('Route("/a/b", hello, role="Admin")'),
        ["plugins.a", "/a/b", "admin, client or None"],
    ),
    "methods as a string": (
        '[plugins.a]\nmodule = "a"',
        routed('Route("/a/b", hello, "GET")'),
        ["plugins.a", "/a/b", '("GET",)'],
    ),
    "invalid path": ('[plugins.a]\nmodule = "a"', routed('Route("/a/{b}/{b}", hello)'), ["plugins.a", "{b}"]),
    "invalid endpoint": ('[plugins.a]\nmodule = "a"', routed('Route("/a/b", 42)'), ["plugins.a", "/a/b"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_plugin_stops_the_start_with_one_line(case: str, tmp_path: Path) -> None:
    config, module, expected = WRONG[case]
    (tmp_path / "a.py").write_text(module)
    answer = HostProcess(tmp_path, HEAD + config).command("serve")
    assert answer.returncode == 2, answer.stderr
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert answer.stderr.startswith("starbase: plugin.toml: ")
    for word in expected:
        assert word in answer.stderr


COMMANDED = """
import click
from starbase_host import hookimpl

class Plugin:
    @hookimpl
    def register_commands(self, host):
        return [click.Command("hello", callback=lambda: host.emit({"hello": 1}, "hello"))]

def plugin(options):
    return Plugin()
"""


def test_two_plugins_with_one_command(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(COMMANDED)
    host = HostProcess(tmp_path, HEAD + '[plugins.a]\nmodule = "a"\n')
    assert host.command("hello").stdout == "hello\n"
    assert json.loads(host.command("hello", "--json").stdout) == {"hello": 1}
    answer = HostProcess(tmp_path, HEAD + '[plugins.a]\nmodule = "a"\n[plugins.b]\nmodule = "a"\n').command("hello")
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    for word in ("plugin.toml", "plugins.b", "hello", "rename it"):
        assert word in answer.stderr


MISSPELT = """
from starbase_host import hookimpl

class Plugin:
    @hookimpl(optionalhook=True)
    def replication_evnt(self, event):
        pass

    @hookimpl(optionalhook=True)
    def guestbook_signed(self, name):
        pass

def plugin(options):
    return Plugin()
"""


def test_a_misspelt_optional_hook(tmp_path: Path) -> None:
    """It is never called, which the host says at the start; one whose plugin is off is not misspelt."""
    (tmp_path / "a.py").write_text(MISSPELT)
    config = HEAD + '[plugins.data_replication]\n[plugins.a]\nmodule = "a"\n'
    warning = (
        "plugin a: nobody offers the hook replication_evnt, so it is never called; did you mean replication_event?"
    )
    with running(tmp_path, config) as host:
        listed = next(each for each in host.result("GET", "/plugins") if each["name"] == "a")
        assert (listed["hooks"], listed["unknown_hooks"]) == ([], ["guestbook_signed", "replication_evnt"])
        assert host.log.count("nobody offers") == 1
        assert warning in host.log
        shown = host.command("plugins")
        assert "    replication_evnt: nobody offers this hook" in shown.stdout
    shown = host.command("plugins")
    assert "    replication_evnt: nobody offers this hook" in shown.stdout
    assert warning in shown.stderr


def test_the_command_shows_what_has_failed_in_the_running_host(tmp_path: Path) -> None:
    failing = routed('Route("/a/fails", hello, role=None)').replace('return "hello"', "raise KeyError(1)")
    (tmp_path / "a.py").write_text(failing)
    with running(tmp_path, HEAD + '[plugins.a]\nmodule = "a"\n') as host:
        for _ in range(2):
            assert host.request("GET", "/a/fails", token=None).status_code == 500
        shown = host.command("plugins")
        assert "a  (a)  register_routes\n    route /a/fails: failed 2 times, last at 20" in shown.stdout
        assert json.loads(host.command("plugins", "--json").stdout)[0]["failures"][0]["error"] == "KeyError: 1"


NEEDY = """
from starbase_host import ConfigError

def plugin(options):
    raise ConfigError("path", "is required; name a file")
"""


def installed_needy(directory: Path) -> dict[str, str]:
    """A plugin that is installed and needs an option: the environment in which Python finds it."""
    found = directory / "needy-1.0.dist-info"
    found.mkdir()
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: needy\nVersion: 1.0\n")
    (found / "entry_points.txt").write_text("[starbase.plugins]\nneedy = needy:plugin\n")
    (directory / "needy.py").write_text(NEEDY)
    return {**os.environ, "PYTHONPATH": str(directory)}


def test_an_installed_plugin_that_needs_an_option(tmp_path: Path) -> None:
    """Without a plugin.toml it is left out; with one that enables it, it stops the start, but no help."""
    environ = installed_needy(tmp_path)

    def starbase(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "starbase_host.cli", *words]
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    missing = "starbase: the commands of plugin needy are missing: {}plugins.needy.path is required; name a file\n"
    shown = starbase("--help")
    assert (shown.returncode, shown.stderr) == (0, missing.format(""))
    assert "replication" in shown.stdout
    shown = starbase("plugins")
    assert (shown.returncode, shown.stdout.split()[0]) == (0, "data_replication")
    assert "plugin needy is left out: plugins.needy.path is required; name a file; to give it options" in shown.stderr
    shown = starbase("replication", "list", "--json")
    assert (shown.returncode, json.loads(shown.stdout)) == (0, []), shown.stderr
    (tmp_path / "plugin.toml").write_text("[plugins.data_replication]\n[plugins.needy]\n")
    shown = starbase("--help")
    assert (shown.returncode, shown.stderr) == (0, missing.format("plugin.toml: "))
    assert "replication" in shown.stdout
    assert starbase("replication", "--help").returncode == 0
    shown = starbase("plugins")
    assert (shown.returncode, shown.stderr) == (
        2, "starbase: plugin.toml: plugins.needy.path is required; name a file\n",
    )  # fmt: skip


def test_a_plugin_that_is_disabled_is_left_alone(tmp_path: Path) -> None:
    """Its module is not imported, its variables are not read, its options are not judged."""
    (tmp_path / "a.py").write_text("raise SystemExit(1)")
    config = '[plugins.a]\nmodule = "a"\nenabled = false\ncolour = "${STARBASE_TEST_UNSET}"\n'
    answer = HostProcess(tmp_path, HEAD + config).command("plugins", "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == []


def test_two_offers_of_one_hook(tmp_path: Path) -> None:
    class Offers:
        @hookimpl
        def register_hookspecs(self) -> type:
            return Specs

    class Specs:
        @hookspec
        def visitor_came(self, name: str) -> None: ...

    with pytest.raises(ConfigError, match=r"plugins\.b: its hookspecs cannot be used: .*visitor_came"):
        Plugins(config_of(tmp_path, {"a": Offers(), "b": Offers()})).load()


class Chained:
    """Notes its turn, and leaves its mark on query and result."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name = name
        self.seen = seen

    @hookimpl
    def before_query(self, query: Query) -> Query:
        self.seen.append(f"before {self.name}")
        return dataclasses.replace(query, sql=f"{query.sql} || '{self.name}'")

    @hookimpl
    async def after_query(self, query: Query, result: Result) -> Result:
        self.seen.append(f"after {self.name}")
        return dataclasses.replace(result, rows=[(f"{row[0]}{self.name.upper()}",) for row in result.rows])


@pytest.mark.parametrize("order", ["abc", "cab"])
async def test_query_hooks_are_a_chain_in_the_order_of_plugin_toml(order: str, tmp_path: Path) -> None:
    seen: list[str] = []
    async with host_with(tmp_path, {name: Chained(name, seen) for name in order}) as host:
        response = await host.query("SELECT '>'")
        assert response.json()["result"]["rows"] == [[f">{order}{order.upper()}"]]
    assert seen == [f"{hook} {name}" for hook in ("before", "after") for name in order]


class Rejecting:
    """Rejects by name of the hook that a query holds; so a rejected result differs from a rejected query."""

    @hookimpl
    def before_query(self, query: Query) -> None:
        if "before" in query.sql:
            raise QueryRejected("not before noon")

    @hookimpl(specname="after_query")
    async def read_by_somebody(self, query: Query) -> None:
        if "after" in query.sql and query.role == "client":
            raise QueryRejected("not after noon")


async def test_a_query_that_a_plugin_rejects(tmp_path: Path) -> None:
    seen: list[str] = []
    async with host_with(tmp_path, {"gate": Rejecting(), "z": Chained("z", seen)}) as host:
        response = await host.query("SELECT 'before'")
        assert (response.status_code, response.json()) == (403, {"error": "not before noon"})
        assert seen == []
        response = await host.query("SELECT 'after'", token=CLIENT)
        assert (response.status_code, response.json()) == (403, {"error": "not after noon"})
        assert (await host.query("SELECT 'after'")).status_code == 200


async def test_the_query_hooks_see_the_statements_of_a_transaction(tmp_path: Path) -> None:
    seen: list[str] = []
    async with host_with(tmp_path, {"a": Chained("a", seen)}) as host:
        body = {"transaction": [{"sql": "SELECT '1'"}, {"sql": "SELECT '2'"}]}
        response = await host.request("POST", "/query", body)
        assert [[*row.values()] for rows in response.json()["result"] for row in rows] == [["1aA"], ["2aA"]]
        assert sorted(seen) == ["after a", "after a", "before a", "before a"]


async def test_a_rejected_statement_undoes_its_transaction(tmp_path: Path) -> None:
    async with host_with(tmp_path, {"gate": Rejecting()}) as host:
        body = {"transaction": [{"sql": "CREATE TABLE t AS SELECT 1"}, {"sql": "SELECT 'before'"}]}
        assert (await host.request("POST", "/query", body)).status_code == 403
        response = await host.query("SELECT count(*) FROM sqlite_schema WHERE name = 't'")
        assert response.json()["result"]["rows"] == [[0]]


class Routed:
    path_prefix = "/desk"

    @hookimpl
    async def register_routes(self, host: Host) -> list[Route]:
        self.log = host.log
        return [
            Route("/desk", self.role, role=None),
            Route("/desk/client", self.role, ("GET", "POST"), role="client"),
            Route("/desk/admin", self.role),
            Route("/desk/things/{name}", self.thing, role=None),
        ]

    async def role(self, request: Any) -> Any:
        return getattr(request.state, "role", None)

    async def thing(self, request: Any) -> Any:
        failures: dict[str, Callable[[], Exception]] = {
            "conflict": lambda: Conflict("it is taken"),
            "fields": lambda: InvalidRequest(fields={"name": "must be longer"}),
            "bug": lambda: KeyError("a secret"),
        }
        name = request.path_params["name"]
        if name in failures:
            raise failures[name]()
        return Answer({"name": name}, status=201)


async def test_routes_and_roles(tmp_path: Path) -> None:
    async with host_with(tmp_path, {"anything": Routed()}) as host:
        may: dict[str, dict[str | None, str | None]] = {
            "/desk": {None: None, "wrong": None, CLIENT: None, ADMIN: None},
            "/desk/client": {CLIENT: "client", ADMIN: "admin"},
            "/desk/admin": {ADMIN: "admin"},
        }
        for path, allowed in may.items():
            for token in (None, "wrong", CLIENT, ADMIN):
                response = await host.request("GET", path, token=token)
                if token in allowed:
                    assert (response.status_code, response.json()) == (200, {"result": allowed[token]})
                else:
                    assert response.status_code == (403 if token == CLIENT else 401)
        assert (await host.request("POST", "/desk/client")).status_code == 200
        assert (await host.request("POST", "/desk/admin")).status_code == 405
        assert (await host.request("GET", "/anything")).status_code == 404
        plugins = (await host.request("GET", "/plugins")).json()["result"]
        assert plugins[0]["prefix"] == "/desk"
        assert {"path": "/desk/client", "methods": ["GET", "POST"]} in plugins[0]["routes"]


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("pen", 201, {"result": {"name": "pen"}}),
        ("conflict", 409, {"error": "it is taken"}),
        ("fields", 400, {"error": "name must be longer"}),
        ("bug", 500, {"error": "internal error; the host's log has the details"}),
    ],
)
async def test_what_an_endpoint_answers_and_raises(
    name: str, status: int, body: dict[str, Any], tmp_path: Path
) -> None:
    async with host_with(tmp_path, {"desk": Routed()}) as host:
        response = await host.request("GET", f"/desk/things/{name}", token=None)
        assert (response.status_code, response.json()) == (status, body)


class Threads:
    """One hook in every form that an implementation can have."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def note(self, name: str) -> None:
        self.seen[name] = threading.current_thread().name

    @hookimpl
    def before_query(self) -> None:
        self.note("plain")

    @hookimpl
    async def after_query(self) -> None:
        self.note("coroutine")

    @hookimpl
    def register_routes(self) -> Awaitable[list[Route]]:
        async def later() -> list[Route]:
            self.note("looks plain")
            return []

        return later()

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host: Host) -> AsyncIterator[None]:
        self.note("entered")
        yield
        self.note("left")


async def test_where_an_implementation_runs(tmp_path: Path) -> None:
    plugin = Threads()
    async with host_with(tmp_path, {"some": plugin}) as host:
        assert (await host.query("SELECT 1")).status_code == 200
        assert (await host.request("GET", "/plugins")).json()["result"][0]["failed"] is None
    loop = threading.main_thread().name
    assert plugin.seen == {
        "plain": "plugin-some", "coroutine": loop, "looks plain": loop, "entered": loop, "left": loop,
    }  # fmt: skip


class Ordered:
    def __init__(self, name: str, seen: list[str]) -> None:
        self.name = name
        self.seen = seen

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self) -> AsyncIterator[None]:
        self.seen.append(f"enter {self.name}")
        yield
        self.seen.append(f"leave {self.name}")


async def test_lifespans_are_entered_in_order_and_left_in_reverse(tmp_path: Path) -> None:
    seen: list[str] = []
    async with host_with(tmp_path, {name: Ordered(name, seen) for name in "bca"}):
        seen.append("run")
    assert seen == ["enter b", "enter c", "enter a", "run", "leave a", "leave c", "leave b"]


class Offering:
    """Offers a hook, and calls it."""

    @hookimpl
    async def register_hookspecs(self) -> type:
        return OfferedHooks

    @hookimpl
    def register_routes(self, host: Host) -> list[Route]:
        async def ask(request: Any) -> Any:
            return await host.call("what_do_you_say", word="hello", times=2)

        return [Route("/offering", ask, role=None)]


class OfferedHooks:
    @hookspec
    def what_do_you_say(self, word: str, times: int) -> str:
        """A hook of a plugin."""
        raise NotImplementedError


class Saying:
    @hookimpl(optionalhook=True)
    def what_do_you_say(self, word: str) -> str:
        return word.upper()


class SayingMore:
    @hookimpl(optionalhook=True)
    async def what_do_you_say(self, times: int, word: str) -> str:
        return word * times


async def test_a_hook_of_a_plugin(tmp_path: Path) -> None:
    plugins = {"first": Saying(), "offering": Offering(), "last": SayingMore()}
    async with host_with(tmp_path, plugins) as host:
        response = await host.request("GET", "/offering", token=None)
        assert response.json()["result"] == [["first", "HELLO"], ["last", "hellohello"]]


async def test_a_subscriber_starts_when_what_it_subscribes_to_is_off(tmp_path: Path) -> None:
    async with host_with(tmp_path, {"first": Saying()}) as host:
        assert (await host.request("GET", "/health", token=None)).status_code == 200


class Inspectable:
    """Keeps the host that it was given."""

    @hookimpl
    def register_routes(self, host: Host) -> list[Route]:
        self.host = host
        return []


async def test_the_object_of_another_plugin(tmp_path: Path) -> None:
    looking, saying = Inspectable(), Saying()
    async with host_with(tmp_path, {"looking": looking, "saying": saying}):
        assert looking.host.plugin("saying") is saying
        with pytest.raises(NotFound, match=r"plugin data_replication is not enabled; add \[plugins"):
            looking.host.plugin("data_replication")


def event(number: int, type: str = "sync") -> ReplicationEvent:
    return ReplicationEvent(
        type=type,
        run_id=str(number),
        occurred_at="2030-01-01T00:00:00.000Z",
        config_name="orders",
        status="success",
        records_processed=1,
        sync_duration_ms=1,
        error_message=None,
    )


class Hearing:
    """Subscribes in every way."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str | None]] = []
        self.ends: dict[str, Callable[[], None]] = {}

    def hear(self, how: str) -> Callable[[ReplicationEvent], None]:
        return lambda event: self.heard.append((how, event.run_id))

    async def listen(self, event: ReplicationEvent) -> None:
        self.heard.append(("coroutine", event.run_id))

    @hookimpl(optionalhook=True)
    def replication_event(self, event: ReplicationEvent) -> None:
        self.heard.append(("hook", event.run_id))

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host: Host) -> AsyncIterator[None]:
        def fail(event: ReplicationEvent) -> None:
            raise ValueError("a callback with a bug")

        replication = host.plugin("data_replication")
        self.ends["fails"] = replication.on_event(fail)
        self.ends["plain"] = replication.on_event(self.hear("plain"))
        self.ends["coroutine"] = replication.on_event(self.listen)
        self.ends["lambda"] = replication.on_event(lambda event: self.listen(event))
        self.ends["others"] = replication.on_event(self.hear("others"), types=["sync", "verify"])
        yield


async def test_on_event_and_its_end(tmp_path: Path) -> None:
    hearing, replication = Hearing(), data_replication({})
    async with host_with(tmp_path, {"hearing": hearing, "data_replication": replication}):
        events = replication._parts().events
        events.send(event(1))
        await events.drain(5)
        hearing.ends["plain"]()
        hearing.ends["plain"]()
        hearing.ends["lambda"]()
        events.send(event(2))
        events.send(event(3, type="verify"))
        await events.drain(5)
    by_event = {number: sorted(how for how, run in hearing.heard if run == number) for number in "123"}
    assert by_event == {
        "1": ["coroutine", "coroutine", "hook", "others", "plain"],
        "2": ["coroutine", "hook", "others"],
        "3": ["hook", "others"],
    }


class Dialects(PostgresqlDialect):
    """Offers a dialect whose name is taken, and a new one; whether they are any good is not asked at start."""

    @hookimpl(optionalhook=True)
    async def replication_dialects(self) -> dict[str, object]:
        return {"postgresql": self, "mine": self}


async def test_dialects_of_a_plugin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dialects, replication = Dialects(), data_replication({})
    async with host_with(tmp_path, {"dialects": dialects, "data_replication": replication}) as host:
        body = {"name": "x", "sourceConfig": {"dialect": "other"}, "sourceTable": "x", "targetTable": "x"}
        response = await host.request("POST", "/data-replication/configure", body)
        assert response.status_code == 400
        assert "mine, mysql, postgresql" in response.json()["error"]
    assert replication._dialects["mine"] is dialects
    assert replication._dialects["postgresql"] is not dialects
    assert "plugin dialects: the dialect postgresql exists already; it is left out" in caplog.text


class Commanding:
    @hookimpl
    def register_commands(self, host: CommandHost) -> list[click.Command]:
        @click.command("shout")
        def shout() -> None:
            with host.client() as client:
                host.emit(client.request("GET", "/offering"), "done")

        return [shout]


def test_a_command_reaches_the_host_in_its_own_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(tmp_path, {"offering": Offering(), "saying": Saying(), "commanding": Commanding()})
    host = CommandHost(config, json_output=True)
    plugins = Plugins(config)
    plugins.load()
    ((name, (command,)),) = plugins.call_plain("register_commands", host=host)
    assert name == "commanding"
    command.main([], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == [["saying", "HELLO"]]
