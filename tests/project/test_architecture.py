"""Who may import whom: read from the source, so that a wrong import fails here before it becomes a habit."""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path

import pytest

import starbase_host
from tests.support.packages import EXAMPLES, HOST, PLUGIN, ROOT, imports_of, python_files, rooms

BESIDE = ROOT / "benchmarks" / "programs"

# The host's rooms. A module imports only from floors below its own.
FLOORS = [
    [
        "errors",
        "clock",
        "catalogue",
        "full_text",
        "temporary",
        "memory",
        "sandbox_rules",
        "read_gate",
        "weight",
        "printable",
    ],
    [
        "config",
        "writer",
        "modes",
        "lock",
        "isolation",
        "login_throttle",
        "library_overrides",
        "wire",
        "replaced_functions",
    ],
    ["database", "protocol"],
    ["alarms", "sandbox", "admin_token"],
    ["hookspecs", "statement", "routes"],
    ["discovery", "plugin_answers"],
    ["plugins"],
    ["query"],
    ["http", "openapi"],
    ["app"],
    ["server", "client"],
    ["cli"],
]


def inner_imports(package: Path) -> dict[str, set[str]]:
    """Of each module of a package, what it imports of the package at run time."""
    modules = rooms(package)
    found: dict[str, set[str]] = {}
    for room, path in modules.items():
        found[room] = set()
        for each in imports_of(path, at_run_time=True):
            if each.top != package.name:
                continue
            below = each.module.partition(".")[2]
            deeper = f"{below}.{each.name}".lstrip(".")
            found[room].add(deeper if deeper in modules else below)
    return found


def within(room: str, *places: str) -> bool:
    """Whether a module is one of these, or lies in one of these packages."""
    return any(room == place or room.startswith(place + ".") for place in places)


@pytest.mark.parametrize(
    "path",
    python_files(HOST, PLUGIN, EXAMPLES, ROOT / "tests", ROOT / "benchmarks"),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_module(path: Path) -> None:
    """Says what it is, and imports in a way that can be searched for; one SQLite library serves all.

    But for the programs that benchmarks run beside the product, in processes of their own, for comparison.
    """
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path} has no docstring"
    for each in imports_of(path):
        assert each.level == 0, f"{path}: import {each.name} by its whole name"
        assert each.name != "*", f"{path}: name what is imported from {each.module}"
        if BESIDE not in path.parents:
            assert each.top not in ("sqlite3", "_sqlite3", "pysqlite3"), f"{path}: APSW is the one SQLite library"


def test_no_test_imports_another() -> None:
    """What tests share lies beside them: a test module can be moved, or run, without another one."""
    for path in python_files(ROOT / "tests", ROOT / "benchmarks", ROOT / "scripts"):
        for each in imports_of(path):
            names = f"{each.module}.{each.name}".split(".")
            assert names[0] != "tests" or not any(name.startswith("test_") for name in names), f"{path}: {each}"


def test_the_host_knows_no_plugin() -> None:
    for path in python_files(HOST):
        assert {each.top for each in imports_of(path)} & {"starbase_data_replication", "plugins"} == set(), path
        assert "data_replication" not in path.read_text(encoding="utf-8"), path


def test_a_plugin_imports_only_what_the_host_exports() -> None:
    exported = set(starbase_host.__all__)
    for path in python_files(PLUGIN, EXAMPLES):
        for each in imports_of(path):
            if each.top == "starbase_host":
                assert each.module == "starbase_host", f"{path}: from starbase_host import {each.name}"
                assert each.name in exported, f"{path}: starbase_host exports no {each.name}"


def test_an_example_imports_only_the_host() -> None:
    for path in python_files(EXAMPLES):
        foreign = {each.top for each in imports_of(path)} - set(sys.stdlib_module_names)
        assert foreign == {"starbase_host"}, path


def test_what_the_host_exports_exists_once() -> None:
    assert sorted(starbase_host.__all__, key=str.lower) == sorted(set(starbase_host.__all__), key=str.lower)
    for name in starbase_host.__all__:
        assert hasattr(starbase_host, name)


@pytest.mark.parametrize("package", [HOST, PLUGIN], ids=lambda path: path.name)
def test_imports_make_no_circle(package: Path) -> None:
    graph = {room: found - {room} for room, found in inner_imports(package).items()}
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        raise AssertionError(f"a circle: {' <- '.join(error.args[1])}") from None


def test_the_floors_of_the_host() -> None:
    floor = {room: number for number, row in enumerate(FLOORS) for room in row}
    found = {room: names for room, names in inner_imports(HOST).items() if room not in ("", "sql")}
    assert set(found) == set(floor), "give a new module its floor here; take one that is gone out"
    for room, names in found.items():
        for name in names:
            assert floor[name] < floor[room], f"{room} (floor {floor[room]}) imports {name} (floor {floor[name]})"


def test_only_what_serves_knows_http_and_sockets() -> None:
    web = {"starlette": {"app", "http", "openapi", "routes"}, "uvicorn": {"server", "protocol"}, "httpx": {"client"}}
    for room, path in rooms(HOST).items():
        for library in {each.top for each in imports_of(path, at_run_time=True)} & set(web):
            assert room in web[library], f"{room} imports {library}"


def test_nobody_imports_the_plugins_wiring() -> None:
    for room, names in inner_imports(PLUGIN).items():
        assert "plugin" not in names, room
        assert not any(within(name, "demo") for name in names) or within(room, "demo", "cli"), room


def test_sources_and_target_never_meet() -> None:
    for room, names in inner_imports(PLUGIN).items():
        if within(room, "sources"):
            strangers = {name for name in names if not within(name, "sources", "model", "errors")}
            assert strangers == set(), f"{room} imports {strangers}"
        if within(room, "storage.target", "storage.store"):
            assert not any(within(name, "sources") for name in names), room
    for room, path in rooms(PLUGIN).items():
        libraries = {each.top for each in imports_of(path)}
        if within(room, "sources"):
            assert "apsw" not in libraries, f"{room} knows SQLite"
        else:
            assert not libraries & {"asyncpg", "aiomysql", "pymysql", "databases"} or within(room, "demo"), room


def test_a_dialects_room_is_its_own() -> None:
    dialects = {path.name for path in (PLUGIN / "sources").iterdir() if (path / "dialect.py").exists()}
    assert dialects == {"postgresql", "mysql"}
    for room, names in inner_imports(PLUGIN).items():
        for dialect in dialects:
            inside = {name for name in names if within(name, f"sources.{dialect}")}
            if not within(room, f"sources.{dialect}"):
                assert inside <= {f"sources.{dialect}.dialect"}, f"{room} imports {inside}"
                assert not inside or room == "plugin", f"{room} imports {inside}"


def test_the_values_know_nothing() -> None:
    """Casts and the model know no database, clock, network or thread; schedule and position are pure functions."""
    allowed = {
        "model.casts": set(),
        "model.tables": {"model.casts"},
        "model.batch": set(),
        "model.position": {"model.tables"},
        "model.options": set(),
        "runs.schedule": {"model"},
        "sync.watermarks": {"model", "model.options"},
        "sync.selection": {"model.casts", "errors", "model", "model.options", "sources.settings.names"},
        "sync.schema_changes": {"errors", "model", "model.options"},
    }
    pure = {
        "__future__",
        "collections",
        "decimal",
        "dataclasses",
        "enum",
        "hashlib",
        "itertools",
        "math",
        "typing",
        "uuid",
        "re",
        "bisect",
    }
    inner = inner_imports(PLUGIN)
    for room, names in allowed.items():
        assert inner[room] <= names, room
        libraries = {each.top for each in imports_of(rooms(PLUGIN)[room])} - {PLUGIN.name}
        # How SQLite compares names is the host's to know.
        known = pure | {"starbase_host"} if room == "sync.schema_changes" else pure
        assert libraries <= known, f"{room} imports {libraries - known}"


def test_one_module_knows_that_databases_exists() -> None:
    users = {room for room, path in rooms(PLUGIN).items() if "databases" in {each.top for each in imports_of(path)}}
    assert users == {"sources.network.pool"}
    for path in python_files(HOST, EXAMPLES):
        assert "databases" not in {each.top for each in imports_of(path)}, path
