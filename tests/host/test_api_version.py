"""What a plugin requires is checked at the start; deprecations name who uses what; hooks have types for mypy."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from starbase_data_replication import hooks as replication_hooks
from starbase_data_replication import hookspecs as replication_hookspecs
from starbase_host import API, ApiDeprecation, deprecated, hooks, hookspecs
from starbase_host.api_version import requirement_problem
from tests.support.hosts import ADMIN, HostProcess, running
from tests.support.packages import ROOT

HEAD = f'[host]\nbind = "127.0.0.1:0"\nadmin_token = "{ADMIN}"\n\n'
PLUGIN = "class P:\n    requires = {}\n\ndef plugin(options):\n    return P()\n"


@pytest.mark.parametrize(
    ("requires", "words"),
    [
        ({"starbase_host": "1.99"}, ["needs API 1.99 of starbase_host, which has", "a newer version of starbase_host"]),
        ({"starbase_host": "2.0"}, ["needs API 2.0", "install a newer version of starbase_host"]),
        ({"starbase_host": "0.9"}, ["needs API 0.9", "install a newer version of this plugin"]),
        ({"data_replication": "1.0"}, ["needs the plugin data_replication", "add [plugins.data_replication]"]),
        ({"starbase_host": 1}, ["`requires` that must be a dict of texts"]),
        ("1.0", ["`requires` that must be a dict of texts"]),
    ],
    ids=str,
)
def test_what_is_required_and_not_there_stops_the_start(requires: object, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(PLUGIN.replace("requires = {}", f"requires = {requires!r}"))
    answer = HostProcess(tmp_path, HEAD + '[plugins.a]\nmodule = "a"\n').command("plugins")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
    assert answer.stderr.startswith("starbase: plugin.toml: plugins.a ")
    for word in words:
        assert word in answer.stderr


def test_a_name_that_the_host_does_not_have_yet(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from starbase_host import flying_carpet\n" + PLUGIN)
    answer = HostProcess(tmp_path, HEAD + '[plugins.a]\nmodule = "a"\n').command("plugins")
    assert answer.returncode == 2
    assert f"this host has API {API}; install a newer starbase-host" in answer.stderr


def test_what_is_required_and_there() -> None:
    offered = {"starbase_host": "2.10", "guestbook": "1.0", "moods": None, "odd": "one"}
    assert requirement_problem({}, offered) is None
    assert requirement_problem({"starbase_host": "2.9", "guestbook": "1.0"}, offered) is None
    assert "which has none" in str(requirement_problem({"moods": "1.0"}, offered))
    assert "tell the author of odd" in str(requirement_problem({"odd": "1.0"}, offered))


OLD = """
from starbase_host import Route, deprecated, hookimpl

def plugin(options):
    return Old()

def old():
    deprecated("old()", instead="new()", removed_in="2.0")

class Old:
    requires = {"starbase_host": "1.0"}

    @hookimpl
    def register_routes(self):
        return [Route("/old", self.use, role=None)]

    async def use(self, request):
        old()
"""


def test_a_deprecation_is_logged_once_with_the_plugin_and_the_line(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(OLD)
    with running(tmp_path, HEAD + '[plugins.old]\nmodule = "old"\n') as host:
        for _ in range(3):
            assert host.request("GET", "/old", token=None).status_code == 200
        shown = "old.py:18: ApiDeprecation: plugin old uses old(), which API 2.0 removes; use new()"
        assert host.log.count(shown) == 1


def test_a_deprecation_is_a_warning_for_tests() -> None:
    def old() -> None:
        deprecated("old()", instead="new()", removed_in="2.0")

    with pytest.warns(ApiDeprecation, match=r"^old\(\), which API 2\.0 removes; use new\(\)$") as found:
        old()
    assert found[0].filename == __file__


@pytest.mark.parametrize(
    ("types", "specs"), [(hooks, hookspecs), (replication_hooks, replication_hookspecs)], ids=["host", "replication"]
)
def test_each_hook_has_a_type_with_its_arguments(types: ModuleType, specs: ModuleType) -> None:
    found = {name: item for name, item in vars(specs).items() if hasattr(item, "starbase_spec")}
    assert {"".join(map(str.capitalize, name.split("_"))) for name in found} == set(types.__all__)
    for name, spec in found.items():
        method = getattr(getattr(types, "".join(map(str.capitalize, name.split("_")))), name)
        assert [*inspect.signature(method).parameters] == ["self", *inspect.signature(spec).parameters]


RIGHT = """
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starbase_data_replication import Dialect, ReplicationEvent, hooks as replication
from starbase_host import Alarm, Host, Query, Result, Route, hookimpl, hooks


class Right(
    hooks.RegisterRoutes, hooks.PluginLifespan, hooks.BeforeQuery, hooks.AfterQuery, hooks.OnAlarm,
    replication.ReplicationEvent, replication.ReplicationDialects, replication.TransformBatch,
):
    @hookimpl
    def register_routes(self, host: Host) -> list[Route]:
        return []

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host: Host) -> AsyncIterator[None]:
        yield

    @hookimpl
    async def before_query(self, query: Query) -> Query | None:
        return query

    @hookimpl
    def after_query(self, query: Query, result: Result) -> None:
        return None

    @hookimpl
    async def on_alarm(self, alarm: Alarm) -> None:
        return None

    @hookimpl(optionalhook=True)
    async def replication_event(self, event: ReplicationEvent) -> None:
        return None

    @hookimpl(optionalhook=True)
    def replication_dialects(self) -> Mapping[str, Dialect]:
        return {}

    @hookimpl(optionalhook=True)
    def transform_batch(self, replication: str, columns: Mapping[str, list[Any]]) -> Mapping[str, Sequence[Any]]:
        return columns


def plugin(options: Mapping[str, Any]) -> Right:
    return Right()
"""
WRONG = """
from typing import Any

from starbase_data_replication import hooks as replication
from starbase_host import Alarm, Host, Query, Result, hookimpl, hooks


class Wrong(hooks.RegisterRoutes, hooks.BeforeQuery, hooks.OnAlarm, replication.ReplicationEvent):
    @hookimpl
    def register_routes(self, host: Host) -> dict[str, Any]:
        return {}

    @hookimpl
    def before_query(self, query: Result) -> None:
        return None

    @hookimpl
    async def on_alarm(self) -> None:
        return None

    @hookimpl(optionalhook=True)
    def replication_event(self, event: Query) -> None:
        return None
"""


def test_mypy_finds_a_wrong_signature(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    config, cache = tmp_path / "mypy.ini", str(ROOT / ".mypy_cache" / "hooks")
    config.write_text(
        f"[mypy]\nstrict = true\nmypy_path = {ROOT}/host:{ROOT}/plugins/data_replication\nfollow_imports = silent\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", cache),
            *("--no-error-summary", "right.py", "wrong.py"),
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert not [line for line in lines if line.startswith("right.py")], done.stdout
    wrong = {line.split(":")[1] for line in lines if line.startswith("wrong.py") and "error" in line}
    assert wrong == {"10", "14", "18", "22"}, done.stdout + done.stderr
