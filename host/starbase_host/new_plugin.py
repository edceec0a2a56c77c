"""The files of a new plugin, as `starbase new-plugin NAME` writes them. Their tests pass as they are.

Must not know what plugins there are.
"""

from __future__ import annotations

import ast
import keyword
import re
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from string import Template

from starbase_host.api_version import API
from starbase_host.config import PLUGIN_NAME
from starbase_host.discovery import ENTRY_POINT_GROUP
from starbase_host.errors import ConfigError, Conflict

MODULE = '''"""Says hello, and counts how often."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starbase_host import Alarm, ConfigError, Host, Route, hookimpl, hooks

HOUR = 3_600
CREATE = "CREATE TABLE IF NOT EXISTS tmp_$name (at REAL NOT NULL)"


def plugin(options: Mapping[str, Any]) -> $title:
    """Make the plugin; the entry point names this function. Raises ConfigError for a wrong option."""
    for name in options.keys() - {"greeting"}:
        raise ConfigError(name, "unknown option; known: greeting")
    greeting = options.get("greeting", "Hello")
    if not isinstance(greeting, str):
        raise ConfigError("greeting", "must be a text")
    return $title(greeting)


class $title(hooks.PluginLifespan, hooks.RegisterRoutes, hooks.OnAlarm):
    """The plugin. greeting: the word before a name."""

    requires = {"starbase_host": "$api"}

    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    @hookimpl
    @asynccontextmanager
    async def plugin_lifespan(self, host: Host) -> AsyncIterator[None]:
        await self.write(CREATE)
        await host.alarms.set("forget", host.clock.now() + HOUR)
        yield

    @hookimpl
    def register_routes(self, host: Host) -> list[Route]:
        self.host = host
        return [Route("/$path/{name}", self.greet, role="client", summary="Say hello")]

    async def greet(self, request: Any) -> dict[str, Any]:
        await self.write("INSERT INTO tmp_$name VALUES (?)", self.host.clock.now())
        sql = "SELECT count(*) FROM tmp_$name"
        count = await self.host.database.read(lambda connection: connection.execute(sql).get)
        return {"greeting": f"{self.greeting}, {request.path_params['name']}!", "count": count}

    @hookimpl
    async def on_alarm(self, alarm: Alarm) -> None:
        """Forget what is older than an hour, every hour."""
        now = self.host.clock.now()
        await self.write("DELETE FROM tmp_$name WHERE at <= ?", now - HOUR)
        await self.host.alarms.set(alarm.name, now + HOUR)

    async def write(self, sql: str, *values: Any) -> None:
        await self.host.database.write(lambda connection: connection.execute(sql, values).fetchall())
'''
TEST = '''"""Tests of $name: run `pytest` in this directory."""

pytest_plugins = ["starbase_host.testing"]


def test_it_greets_and_counts(start_host):
    host = start_host({"$name": {"module": "$name", "greeting": "Good day"}})
    assert host.get("/$path/Ada", caller="client") == {"greeting": "Good day, Ada!", "count": 1}
    assert host.get("/$path/Bea", caller="client") == {"greeting": "Good day, Bea!", "count": 2}
    assert host.request("GET", "/$path/Ada", caller="anyone").status_code == 401


def test_it_forgets_after_an_hour(start_host):
    host = start_host({"$name": {"module": "$name"}})
    host.get("/$path/Ada")
    host.move(2 * 3_600)
    assert host.get("/$path/Bea")["count"] == 1
    assert host.failures() == []
'''
PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.24"]
build-backend = "hatchling.build"

[project]
name = "starbase-$path"
version = "0.1.0"
description = "A plugin for starbase-host."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["starbase-host"]

[project.optional-dependencies]
test = ["httpx", "pytest"]

[project.entry-points."starbase.plugins"]
$name = "$name:plugin"

[tool.hatch.build.targets.wheel]
only-include = ["$name.py"]
"""
CONFIG = """\
# To try the plugin: `starbase serve` in this directory.

[plugins.$name]
module = "$name"
"""
README = """\
# starbase-$path

A plugin for starbase-host.

    pip install -e '.[test]'
    pytest
    starbase serve
"""


# A plugin that has one of each: an option, a route, a table, an alarm and a test.
PLUGIN = {"$name.py": MODULE, "test_$name.py": TEST, "plugin.toml": CONFIG}
PACKAGE = {"pyproject.toml": PYPROJECT, "README.md": README}


def fill(name: str, templates: Mapping[str, str]) -> dict[str, str]:
    """Fill templates: $name is the plugin's name, $title that of its class, $path that of its routes, $api the version.

    Raises ConfigError if the name cannot be a plugin's, or is a word or a module of Python.
    """
    why = _refusal(name)
    if why is not None:
        raise ConfigError("NAME", why)
    title = "".join(part.capitalize() for part in name.split("_"))
    values = {"name": name, "title": title, "path": name.replace("_", "-"), "api": API}
    files = {Template(file).substitute(values): Template(text).substitute(values) for file, text in templates.items()}
    if not all(_has_own_classes(text) for file, text in files.items() if file.endswith(".py")):
        raise ConfigError("NAME", _advice(name, f"its class would be {title}, a name that is taken in the module"))
    return files


def _refusal(name: str) -> str | None:
    """Why a name cannot be a plugin's, and another name that can; None if it can."""
    if not PLUGIN_NAME.match(name) or not name.islower():
        other = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        example = f", such as {other}" if _refusal_of_word(other) is None else ""
        return f"must be a lowercase letter, then lowercase letters, digits and underscores{example}; it is {name!r}"
    why = _refusal_of_word(name)
    return why and _advice(name, why)


def _advice(name: str, why: str) -> str:
    return f"must not be {name}: {why}; take another name, such as my_{name}"


def _refusal_of_word(name: str) -> str | None:
    if not PLUGIN_NAME.match(name):
        return "it does not begin with a letter"
    if name.startswith("test"):
        return "pytest would take the module of the plugin for tests"
    if keyword.iskeyword(name):
        return "it is a word of Python's own syntax"
    if name in entry_points(group=ENTRY_POINT_GROUP).names:
        return "a plugin of that name is installed already"
    if name == "conftest" or name in sys.stdlib_module_names or name in sys.modules or _is_module(name):
        return "Python or pytest would import another module of that name in place of the plugin"
    return None


def _has_own_classes(text: str) -> bool:
    """Whether a module's classes have names that Python allows and that the module does not import."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:
        return False
    imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return not any(isinstance(node, ast.ClassDef) and node.name in imported for node in nodes)


def _is_module(name: str) -> bool:
    """Whether Python finds a module. A mere directory does not count: a module of the same name goes before it."""
    found = find_spec(name)
    return found is not None and found.origin is not None


def write_new(directory: Path, files: Mapping[str, str]) -> None:
    """Write files into a new directory. Raises Conflict if it exists, ConfigError if it cannot be made."""
    try:
        directory.mkdir(parents=True)
        for file, text in files.items():
            (directory / file).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise Conflict(f"{directory} exists already; choose another name, or remove it") from None
    except OSError as error:
        raise ConfigError(str(directory), f"cannot be written: {error.strerror}") from error
