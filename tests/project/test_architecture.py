"""Who may import whom: read from the source, so that a wrong import fails here before it becomes a habit."""

from __future__ import annotations

import ast
import graphlib
import importlib
import sys
from pathlib import Path

import pytest

import starbase_host
from tests.support.packages import EXAMPLES, HOST, PLUGIN, ROOT, imports_of, layers, python_files, rooms

BESIDE = ROOT / "benchmarks" / "programs"
LAYERS = layers()


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


def packages(package: Path) -> set[str]:
    """The sub-packages of a package that have modules, dotted below it, and itself by an empty name."""
    found = rooms(package)
    return {room for room, path in found.items() if path.name == "__init__.py" and len(below(package, room)) > 0}


def below(package: Path, room: str) -> set[str]:
    """The rooms right below one of these: its modules, and sub-packages that have modules."""
    prefix = f"{room}." if room else ""
    inner = {name.removeprefix(prefix): path for name, path in rooms(package).items() if name.startswith(prefix)}
    modules = {name for name, path in inner.items() if path.name != "__init__.py"}
    return {name.partition(".")[0] for name in modules}


def test_the_architecture_orders_every_package() -> None:
    expected = {f"{package.name}.{each}".rstrip(".") for package in (HOST, PLUGIN) for each in packages(package)}
    assert set(LAYERS) == expected


@pytest.mark.parametrize("dotted", LAYERS)
def test_imports_go_upwards_in_the_architecture(dotted: str) -> None:
    """docs/internals/architecture.md lists the rooms of each package; each imports only from lines above its own."""
    (package,) = (each for each in (HOST, PLUGIN) if each.name == dotted.partition(".")[0])
    own = dotted.partition(".")[2]
    line_of = {room: number for number, line in enumerate(LAYERS[dotted]) for room in line}
    assert sorted(room for line in LAYERS[dotted] for room in line) == sorted(below(package, own))
    inner = inner_imports(package)
    prefix = f"{own}." if own else ""
    for module, names in inner.items():
        room = module.removeprefix(prefix).partition(".")[0]
        if module == own or not module.startswith(prefix) or room not in line_of:
            continue
        assert not own or own not in names, f"{module}: import from the module of {own} that defines it"
        for name in names:
            imported = name.removeprefix(prefix).partition(".")[0]
            if name.startswith(prefix) and imported != room and imported in line_of:
                assert line_of[imported] < line_of[room], f"{module} imports {name}"


def test_the_top_level_of_the_plugin_stays_small() -> None:
    lines = LAYERS[PLUGIN.name]
    assert len(lines) <= 9
    assert sum(map(len, lines)) <= 20


def test_a_package_of_the_plugin_is_used_through_what_it_exports() -> None:
    """Inside a package, its sub-packages too, modules are imported by their names; from outside, what it exports."""
    modules = rooms(PLUGIN)
    inside = packages(PLUGIN) - {""}
    exported = {each: set(importlib.import_module(f"{PLUGIN.name}.{each}").__all__) for each in inside}

    def package_of(room: str) -> str:
        return room if room in inside else room.rpartition(".")[0]

    for room, path in modules.items():
        for each in imports_of(path):
            if each.top != PLUGIN.name:
                continue
            module = each.module.partition(".")[2]
            deeper = f"{module}.{each.name}".lstrip(".")
            package = package_of(deeper if deeper in modules else module)
            if package and not within(room, package):
                assert module == package, f"{room}: import {each.name} from {PLUGIN.name}.{package}"
                assert each.name in exported[package], f"{room}: {package} does not export {each.name}"


def test_what_a_package_of_the_plugin_exports_exists() -> None:
    for each in packages(PLUGIN):
        package = importlib.import_module(f"{PLUGIN.name}.{each}".rstrip("."))
        assert len(set(package.__all__)) == len(package.__all__)
        assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_nobody_inside_imports_the_facade() -> None:
    for path in python_files(PLUGIN):
        for each in imports_of(path):
            if each.module == PLUGIN.name:
                assert each.name in rooms(PLUGIN), f"{path}: import {each.name} from where it is defined"


def test_only_what_serves_knows_http_and_sockets() -> None:
    web = {
        "starlette": {"app", "http", "openapi", "plugins", "requests", "routes"},
        "uvicorn": {"server", "protocol"},
        "httpx": {"client", "testing"},
    }
    for room, path in rooms(HOST).items():
        for library in {each.top for each in imports_of(path, at_run_time=True)} & set(web):
            assert room in web[library], f"{room} imports {library}"


def test_nobody_imports_the_plugins_wiring() -> None:
    for room, names in inner_imports(PLUGIN).items():
        assert "plugin" not in names, room
        assert not any(within(name, "demo") for name in names) or within(room, "demo", "cli"), room


def test_http_and_the_command_line_come_in_through_the_service() -> None:
    """Routes call its methods and nothing that it holds; the commands speak HTTP."""
    inner = inner_imports(PLUGIN)
    assert inner["routes"] <= {"config", "model", "service"}
    assert inner["cli"] <= {"config", "demo", "dialect_kit"}
    for node in ast.walk(ast.parse((PLUGIN / "routes.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            reached = ast.unparse(node).partition("self._service.")[2]
            assert "." not in reached, f"routes.py reaches through the service: {ast.unparse(node)}"
    for node in ast.walk(ast.parse((PLUGIN / "service.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            assert node.attr.startswith("_"), f"service.py shows {node.attr}"


def test_sources_and_target_never_meet() -> None:
    for room, names in inner_imports(PLUGIN).items():
        if within(room, "sources"):
            strangers = {name for name in names if not within(name, "sources", "model", "errors")}
            assert strangers == set(), f"{room} imports {strangers}"
        if within(room, "storage"):
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
                assert inside <= {f"sources.{dialect}"}, f"{room} imports {inside}"
                assert not inside or room == "plugin", f"{room} imports {inside}"


def test_the_values_know_nothing() -> None:
    """Casts and the model know no database, clock, network or thread; schedule and position are pure functions."""
    allowed = {
        "model.casts": set(),
        "model.tables": {"model.casts"},
        "model.batch": set(),
        "model.position": {"model.tables"},
        "model.options": set(),
        "model.runs": set(),
        "model.environment": set(),
        "runs.schedule": set(),
        "sync.watermarks": {"model"},
        "sync.selection": {"errors", "model", "sources.settings"},
        "sync.schema_changes": {"errors", "model"},
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
        # How SQLite compares names, and how a time is written, is the host's to know.
        known = pure | {"starbase_host"} if room in ("sync.schema_changes", "model.runs") else pure
        assert libraries <= known, f"{room} imports {libraries - known}"
    settings = {each.name for each in imports_of(rooms(PLUGIN)["sync.selection"]) if each.module.endswith(".settings")}
    assert settings == {"text_problem"}


def test_one_module_knows_that_databases_exists() -> None:
    users = {room for room, path in rooms(PLUGIN).items() if "databases" in {each.top for each in imports_of(path)}}
    assert users == {"sources.network.pool"}
    for path in python_files(HOST, EXAMPLES):
        assert "databases" not in {each.top for each in imports_of(path)}, path
