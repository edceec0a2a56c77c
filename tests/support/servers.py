"""The servers that the tests replicate from: found or installed, started, emptied and ended.

Each is private to the process that starts it, listens on loopback or a socket only, and differs from what a
careless client expects: passwords with odd characters, and time zones and date styles that are not UTC and
ISO. `python -m tests.support.servers` installs what is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
import pymysql.constants.CR
import pytest

from starbase_data_replication.demo.embedded import EmbeddedPostgres, PostgresServer
from starbase_data_replication.demo.process import PrivateServer, ServerError
from tests.support.packages import ROOT
from tests.support.sessions import MySQLSession, PostgresSession, Session

T = TypeVar("T")


class Server(Protocol):
    """What a test may know of a server, embedded or not."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def user(self) -> str: ...
    @property
    def password(self) -> str: ...
    @property
    def database(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class SocketPostgres(EmbeddedPostgres):
    """The embedded server, addressed as the others are."""

    password = ""

    @property
    def host(self) -> str:
        return self.socket_dir


class DistroPostgres(PostgresServer):
    """The distribution's PostgreSQL: trust on its socket, SCRAM on 127.0.0.1, no TLS."""

    host = "127.0.0.1"
    password = "Pg-test s3cret/@:%"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()

    def install(self) -> Path:
        return provided(_postgres, "postgresql")

    def initdb_options(self) -> Sequence[str]:
        secret = self.directory / "password"
        secret.write_text(self.password)
        if self.account is not None:
            os.chown(secret, self.account.pw_uid, self.account.pw_gid)
        return ("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}")

    def settings(self) -> Mapping[str, str]:
        return {
            **super().settings(),
            "listen_addresses": self.host,
            "max_prepared_transactions": "20",
            "max_connections": "200",
            "timezone": "Asia/Kolkata",
            "datestyle": "German, DMY",
        }


def lets_in(server: Server) -> bool:
    """Whether a MySQL or MariaDB listens, and takes its user; raises what it says to one that it does not take."""
    try:
        with open_session("mysql", server, server.database):
            return True
    except pymysql.err.OperationalError as error:
        if error.args[0] != pymysql.constants.CR.CR_CONN_HOST_ERROR:
            raise
        return False


class ThrowawayMariaDB(PrivateServer):
    """The distribution's MariaDB, with one user who may do everything."""

    host = "127.0.0.1"
    user = "starbase"
    password = "My-test s3cret/@:%?#"
    database = "mysql"
    stop_signals = ((signal.SIGTERM, 20), (signal.SIGKILL, 10))

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.daemon = Path()

    def prepare(self) -> None:
        self.daemon, installer = provided(_mariadb, "mariadb")
        account = "root" if self.account is None else self.account.pw_name
        self.run(
            installer,
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            # A MariaDB that starts removes the temporary tables of any other whose directory it shares.
            f"--tmpdir={self.directory}",
            "--skip-test-db",
            "--skip-name-resolve",
            "--auth-root-authentication-method=socket",
            f"--auth-root-socket-user={account}",
        )
        self.write_init_file()

    def write_init_file(self) -> None:
        # The server takes each line for a statement.
        (self.directory / "init.sql").write_text(
            f"CREATE OR REPLACE USER '{self.user}'@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO '{self.user}'@'%' WITH GRANT OPTION;\n"
        )
        if self.account is not None:
            os.chown(self.directory / "init.sql", self.account.pw_uid, self.account.pw_gid)

    def command(self) -> Sequence[str | Path]:
        return [
            self.daemon,
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            f"--tmpdir={self.directory}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            f"--init-file={self.directory / 'init.sql'}",
            f"--bind-address={self.host}",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--default-time-zone=+05:30",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_general_ci",
            "--max-connections=200",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=32M",
            "--innodb-doublewrite=0",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-fast-shutdown=2",
            "--key-buffer-size=1M",
            "--aria-pagecache-buffer-size=8M",
        ]

    def is_ready(self, pid: int) -> bool:
        return lets_in(self)


class NewerMariaDB(ThrowawayMariaDB):
    """MariaDB of Debian's next release, unpacked."""

    def prepare(self) -> None:
        tree = provided(_mariadb11, "mariadb11")
        self.daemon, self.tree = tree / "usr" / "sbin" / "mariadbd", tree
        shutil.copytree(tree / "data", self.directory / "data")
        self.write_init_file()
        if self.account is not None:
            for path in [self.directory / "data", *(self.directory / "data").rglob("*")]:
                os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def command(self) -> Sequence[str | Path]:
        daemon, no_defaults, *options = super().command()
        share = self.tree / "usr" / "share" / "mariadb"
        return [
            daemon,
            no_defaults,
            f"--basedir={self.tree / 'usr'}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            *options,
        ]


class ThrowawayMySQL(PrivateServer):
    """MySQL, with one user who may do everything, and any further options. tls: as by default, with certificates that
    the server has made for itself."""

    host = "127.0.0.1"
    user = "starbase"
    password = "My8-test s3cret/@:%?#"
    database = "mysql"
    stop_signals = ((signal.SIGTERM, 20), (signal.SIGKILL, 10))

    def __init__(self, *options: str, tls: bool = True) -> None:
        super().__init__()
        self.port = free_port()
        self.options = options
        self.tls = tls
        self.tree = Path()

    def prepare(self) -> None:
        self.tree = provided(_mysql, "mysql")
        data = self.directory / "data"
        # Making them takes seconds. They came without a mark of their own, which the server makes when it starts.
        shutil.copytree(self.tree / "data", data)
        for path in [] if self.tls else [data / "ca.pem", data / "server-cert.pem", data / "server-key.pem"]:
            path.unlink()
        # The server takes each line for a statement.
        (self.directory / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{self.user}'@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO '{self.user}'@'%' WITH GRANT OPTION;\n"
        )
        if self.account is not None:
            for path in [self.directory / "init.sql", data, *data.rglob("*")]:
                os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def command(self) -> Sequence[str | Path]:
        share = self.tree / "usr" / "share" / "mysql"
        return [
            self.tree / "usr" / "sbin" / "mysqld",
            "--no-defaults",
            f"--basedir={self.tree / 'usr'}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            f"--plugin-dir={self.tree / 'usr' / 'lib' / 'mysql' / 'plugin'}",
            f"--datadir={self.directory / 'data'}",
            f"--tmpdir={self.directory}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            f"--init-file={self.directory / 'init.sql'}",
            f"--bind-address={self.host}",
            f"--port={self.port}",
            "--mysqlx=OFF",
            "--secure-file-priv=NULL",
            "--skip-name-resolve",
            "--default-time-zone=+05:30",
            "--character-set-server=utf8mb4",
            "--max-connections=200",
            f"--auto-generate-certs={'ON' if self.tls else 'OFF'}",
            *MYSQL_SMALL_AND_FAST,
            *self.options,
        ]

    def is_ready(self, pid: int) -> bool:
        return lets_in(self)


# A crash of the machine ends its data anyway. The tables of performance_schema take 200 MB at their usual size.
MYSQL_SMALL_AND_FAST = (
    "--disable-log-bin",
    "--innodb-buffer-pool-size=64M",
    "--innodb-redo-log-capacity=32M",
    "--innodb-log-buffer-size=1M",
    "--innodb-doublewrite=OFF",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-fast-shutdown=2",
    "--table-open-cache=400",
    "--table-definition-cache=400",
    "--performance-schema-digests-size=100",
    "--performance-schema-error-size=1",
    "--performance-schema-max-memory-classes=0",
)


class PgBouncer(PrivateServer):
    """A pooler in front of a PostgreSQL, that gives a server's connection to a client for one transaction at a time.

    auth: how it asks for a password.
    """

    host = "127.0.0.1"
    stop_signals = ((signal.SIGINT, 5), (signal.SIGKILL, 5))

    def __init__(self, server: Server, *, pool_size: int = 1, auth: str = "scram-sha-256") -> None:
        super().__init__()
        self.server = server
        self.auth = auth
        self.pool_size = pool_size
        self.port = free_port()
        self.daemon = Path()

    def prepare(self) -> None:
        self.daemon = provided(_pgbouncer, "pgbouncer")
        quoted = self.server.password.replace('"', '""')
        (self.directory / "users").write_text(f'"{self.server.user}" "{quoted}"\n')
        (self.directory / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={self.server.host} port={self.server.port}\n[pgbouncer]\n"
            f"listen_addr = {self.host}\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = {self.auth}\nauth_file = {self.directory / 'users'}\n"
            f"pool_mode = transaction\ndefault_pool_size = {self.pool_size}\n"
        )
        if self.account is not None:
            for name in ("users", "pgbouncer.ini"):
                os.chown(self.directory / name, self.account.pw_uid, self.account.pw_gid)

    def command(self) -> Sequence[str | Path]:
        return [self.daemon, self.directory / "pgbouncer.ini"]

    def is_ready(self, pid: int) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
            return True
        return False


class ExternalServer:
    """A server that TEST_POSTGRES_URL or one of its like names: used as it is, never started nor stopped."""

    pid = None

    def __init__(self, variable: str, default_port: int) -> None:
        url = urlsplit(os.environ[variable])
        self.variable = variable
        self.host = parse_qs(url.query).get("host", [url.hostname or "127.0.0.1"])[0]
        self.port = url.port or default_port
        self.user = unquote(url.username or "")
        self.password = unquote(url.password or "")
        self.database = unquote(url.path.lstrip("/"))

    def start(self) -> None:
        """It runs already."""

    def stop(self) -> None:
        pytest.fail(f"this test has to stop its server: unset {self.variable} to run it", pytrace=False)

    def close(self) -> None:
        """It is not ours."""


def postgres_server() -> Server:
    return ExternalServer("TEST_POSTGRES_URL", 5432) if os.environ.get("TEST_POSTGRES_URL") else DistroPostgres()


def mariadb_server() -> Server:
    return ExternalServer("TEST_MYSQL_URL", 3306) if os.environ.get("TEST_MYSQL_URL") else ThrowawayMariaDB()


def newer_mariadb_server() -> Server:
    return ExternalServer("TEST_MARIADB11_URL", 3306) if os.environ.get("TEST_MARIADB11_URL") else NewerMariaDB()


def mysql_server() -> Server:
    return ExternalServer("TEST_MYSQL8_URL", 3306) if os.environ.get("TEST_MYSQL8_URL") else ThrowawayMySQL()


Dialect = Literal["postgresql", "mysql"]


@dataclass(frozen=True)
class TestDatabase:
    """A fresh database of one test. `source_config` is what the HTTP API takes as sourceConfig."""

    __test__: ClassVar[bool] = False

    dialect: Dialect
    server: Server
    source_config: dict[str, Any]
    _sessions: list[Session] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        return str(self.source_config["database"])

    @cached_property
    def is_mariadb(self) -> bool:
        return self.dialect == "mysql" and "MariaDB" in str(self.fetch("SELECT VERSION()"))

    @property
    def nopad(self) -> str:
        """The collation of MariaDB or MySQL that compares the bytes of UTF-8 and fills up with nothing."""
        return "utf8mb4_nopad_bin" if self.is_mariadb else "utf8mb4_0900_bin"

    def connect(self) -> Session:
        """A connection that lasts until it or the test ends: to hold a transaction open."""
        session = open_session(self.dialect, self.server, self.name)
        self._sessions.append(session)
        return session

    def execute(self, sql: str, *args: Any) -> None:
        """Run statements on a connection of their own; placeholders are the driver's ($1 or %s)."""
        with open_session(self.dialect, self.server, self.name) as session:
            session.execute(sql, *args)

    def fetch(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        with open_session(self.dialect, self.server, self.name) as session:
            return session.fetch(sql, *args)


def open_session(dialect: Dialect, server: Server, database: str) -> Session:
    connect = PostgresSession if dialect == "postgresql" else MySQLSession
    return connect(server.host, server.port, server.user, server.password, database)


_versions: weakref.WeakKeyDictionary[Server, str] = weakref.WeakKeyDictionary()


def version_of(dialect: Dialect, server: Server) -> str:
    """The server's name and version, asked for once."""
    if server not in _versions:
        with open_session(dialect, server, server.database) as session:
            ((version,),) = session.fetch("SELECT version()")
        words = str(version).split("-")
        name = "MariaDB" if "MariaDB" in version else "MySQL"
        number = str(version).split(" on ")[0].split(" (")[0] if dialect == "postgresql" else f"{name} {words[0]}"
        _versions[server] = number
    return _versions[server]


@contextlib.contextmanager
def fresh_database(dialect: Dialect, server: Server) -> Iterator[TestDatabase]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with open_session(dialect, server, server.database) as session:
        session.execute(f"CREATE DATABASE {name}")
    config = {
        "dialect": dialect,
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "database": name,
    }
    database = TestDatabase(dialect, server, config)
    try:
        yield database
    finally:
        # A test may have left the server stopped.
        server.start()
        for session in database._sessions:
            session.close()
        _drop(database)


def _drop(database: TestDatabase) -> None:
    if database.dialect == "postgresql":
        with database.connect() as session:
            # FORCE ends sessions, but not the transactions that are prepared in the database.
            for (gid,) in session.fetch("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
                session.execute(f"ROLLBACK PREPARED '{gid}'")
        with open_session("postgresql", database.server, database.server.database) as session:
            session.execute(f"DROP DATABASE {database.name} WITH (FORCE)")
        return
    with open_session("mysql", database.server, database.server.database) as session:
        if isinstance(database.server, PrivateServer):
            for name in _prepared(session):
                session.execute(f"XA ROLLBACK {name}")
        for (thread,) in session.fetch("SELECT id FROM information_schema.processlist WHERE db = %s", database.name):
            with contextlib.suppress(pymysql.err.OperationalError):
                session.execute(f"KILL {thread}")
        session.execute("SET lock_wait_timeout = 30")
        session.execute(f"DROP DATABASE {database.name}")


def _prepared(session: Session) -> list[str]:
    """The names of transactions that are prepared, as SQL."""
    ((version,),) = session.fetch("SELECT VERSION()")
    if "MariaDB" in version:
        return [name for *_, name in session.fetch("XA RECOVER FORMAT='SQL'")]
    names = []
    for kind, length, _, name in session.fetch("XA RECOVER CONVERT XID"):
        cut = 2 + 2 * int(length)
        names.append(f"{name[:cut]}, X'{name[cut:]}', {kind}")
    return names


def sequence(last: int | str, name: str = "s") -> str:
    """A table of the numbers from 1 to this one, as `seq`, in SQL that MariaDB and MySQL understand."""
    return f"JSON_TABLE(CONCAT('[0', REPEAT(',0', {last} - 1), ']'), '$[*]' COLUMNS (seq FOR ORDINALITY)) AS {name}"


def free_port() -> int:
    """A free port, below those the system hands out: no client gets it while its server is stopped."""
    while True:
        port = random.SystemRandom().randrange(15000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _postgres() -> Path | None:
    installed = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    versions = {float(path.parts[-3]): path for path in installed if path.parts[-3].replace(".", "").isdigit()}
    if versions:
        return versions[max(versions)].parent
    found = shutil.which("postgres")
    binaries = Path(found).resolve().parent if found else Path()
    return binaries if (binaries / "initdb").exists() and found else None


def _mariadb() -> tuple[Path, Path] | None:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/libexec:/usr/bin"
    daemon = shutil.which("mariadbd", path=path) or shutil.which("mysqld", path=path)
    installer = shutil.which("mariadb-install-db", path=path) or shutil.which("mysql_install_db", path=path)
    return (Path(daemon), Path(installer)) if daemon and installer else None


def _mariadb11() -> Path | None:
    tree = (ROOT / ".venv" / "mariadb11").resolve()
    return tree if (tree / "data").exists() else None


def _mysql() -> Path | None:
    tree = (ROOT / ".venv" / "mysql").resolve()
    return tree if (tree / "data").exists() else None


def ed25519_plugin() -> Path:
    """MariaDB's plugin for passwords of that kind, which the package of the server's programs comes without."""
    return provided(_ed25519, "ed25519")


def _ed25519() -> Path | None:
    places = [*Path("/usr").glob("lib*/m*/plugin"), ROOT / ".venv" / "mariadb"]
    return next((place / "auth_ed25519.so" for place in places if (place / "auth_ed25519.so").exists()), None)


def _pgbouncer() -> Path | None:
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    return Path(found) if found else None


def provided(find: Callable[[], T | None], what: str) -> T:
    """Find a server's programs; install them when they are missing, once however many processes ask."""
    found = find()
    if found is not None:
        return found
    with _one_at_a_time():
        found = find()
        if found is None:
            setup = subprocess.run(
                [ROOT / "scripts" / "setup", what], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            found = find()
            if found is None:
                raise ServerError(setup.stderr.strip() or f"{what} is installed, but not where it is looked for")
    return found


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    path = Path(tempfile.gettempdir(), f"starbase-tests-{os.geteuid()}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def main() -> int:
    wanted: list[tuple[str | None, Callable[[], object], str]] = [
        ("TEST_POSTGRES_URL", _postgres, "postgresql"),
        ("TEST_MYSQL_URL", _mariadb, "mariadb"),
        ("TEST_MYSQL8_URL", _mysql, "mysql"),
        *([("TEST_MARIADB11_URL", _mariadb11, "mariadb11")] if "--all" in sys.argv[1:] else []),
        (None, _ed25519, "ed25519"),
        (None, _pgbouncer, "pgbouncer"),
    ]
    try:
        for elsewhere, find, what in wanted:
            if elsewhere is None or not os.environ.get(elsewhere):
                provided(find, what)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
