"""TLS as it is asked for, of real servers with certificates of the tests; what a server may not ask of us."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.certificates import Authority
from tests.support.faults import rig, through
from tests.support.hosts import HostProcess, running
from tests.support.servers import DistroPostgres, TestDatabase, ThrowawayMariaDB, ed25519_plugin, fresh_database


class TlsPostgres(DistroPostgres):
    """A PostgreSQL with a certificate; it also takes the certificate of a client named `reader` for a password."""

    def prepare(self) -> None:
        super().prepare()
        self.authority = Authority(self.directory)
        self.certify()
        rules = self.directory / "data" / "pg_hba.conf"
        rules.write_text("hostssl all reader 127.0.0.1/32 cert\n" + rules.read_text())

    def certify(self, **how: Any) -> None:
        """A new certificate; `pg_reload_conf` makes the server take it."""
        self.authority.issue("server", owner=None if self.account is None else self.account.pw_uid, **how)

    def settings(self) -> Mapping[str, str]:
        files = {"ssl_cert_file": "server.pem", "ssl_key_file": "server.key", "ssl_ca_file": "ca.pem"}
        return {**super().settings(), "ssl": "on", **{name: str(self.directory / file) for name, file in files.items()}}


class TlsMariaDB(ThrowawayMariaDB):
    """A MariaDB with a certificate, and the plugin of ed25519 passwords."""

    def prepare(self) -> None:
        super().prepare()
        self.authority = Authority(self.directory)
        self.certify()
        shutil.copy(ed25519_plugin(), self.directory)

    def certify(self, **how: Any) -> None:
        """A new certificate; FLUSH SSL makes the server take it."""
        self.authority.issue("server", owner=None if self.account is None else self.account.pw_uid, **how)

    def command(self) -> Sequence[str | Path]:
        files = {"ssl-cert": "server.pem", "ssl-key": "server.key", "ssl-ca": "ca.pem"}
        return [
            *super().command(),
            f"--plugin-dir={self.directory}",
            "--plugin-load-add=auth_ed25519",
            *(f"--{name}={self.directory / file}" for name, file in files.items()),
        ]


@pytest.fixture(scope="module", name="tls_postgres")
def _tls_postgres() -> Iterator[TlsPostgres]:
    with TlsPostgres() as server:
        yield server


@pytest.fixture(scope="module", name="tls_mariadb")
def _tls_mariadb() -> Iterator[TlsMariaDB]:
    with TlsMariaDB() as server:
        yield server


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(tmp_path_factory.mktemp("tls")) as host:
        yield host


RELOAD = {"postgresql": "SELECT pg_reload_conf()", "mysql": "FLUSH SSL"}


def synced(on: HostProcess, database: TestDatabase, /, **settings: Any) -> str | None:
    """Sync with these settings; what went wrong, or None."""
    name = f"r{os.urandom(4).hex()}"
    config = {**database.source_config, **settings}
    on.configure(name=name, sourceConfig=config, sourceTable="t", targetTable=name, isActive=False)
    answer = on.request("POST", f"/data-replication/sync/{name}")
    with contextlib.suppress(KeyError):
        return str(answer.json()["error"])
    return None


def encrypted(database: TestDatabase) -> bool:
    """Whether the host's idle connections to this PostgreSQL are encrypted; ends them."""
    found = database.fetch(
        "SELECT ssl, pg_terminate_backend(pid) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
        "WHERE application_name LIKE 'starbase-host%' AND datname = current_database()"
    )
    (kinds,) = {row[0] for row in found}
    return bool(kinds)


@pytest.mark.parametrize(
    ("mode", "is_encrypted", "without_tls"),
    [
        ("disable", False, True),
        ("allow", False, True),
        ("prefer", True, True),
        ("require", True, False),
        ("verify-ca", True, False),
        ("verify-full", True, False),
    ],
)
def test_the_six_modes_of_postgresql(
    host: HostProcess,
    tls_postgres: TlsPostgres,
    postgres_database: TestDatabase,
    mode: str,
    is_encrypted: bool,
    without_tls: bool,
) -> None:
    ca = {"sslrootcert": str(tls_postgres.authority.path)} if mode.startswith("verify") else {}
    with fresh_database("postgresql", tls_postgres) as database:
        for each in (database, postgres_database):
            each.execute("CREATE TABLE t (id int PRIMARY KEY)")
        assert synced(host, database, sslmode=mode, **ca) is None
        assert encrypted(database) == is_encrypted
        assert (synced(host, postgres_database, sslmode=mode, **ca) is None) == without_tls


def test_certificates_of_postgresql(host: HostProcess, tls_postgres: TlsPostgres) -> None:
    """The authority as a file and as text; another name; expired; a client's own certificate."""
    authority = tls_postgres.authority
    with fresh_database("postgresql", tls_postgres) as database:
        database.execute("CREATE TABLE t (id int PRIMARY KEY)")
        assert synced(host, database, sslmode="verify-full", sslrootcert=authority.text) is None
        assert "certificate" in str(synced(host, database, sslmode="verify-full"))
        text = through(database, database, sslmode="verify-full", sslrootcert=quoted(authority.text))
        assert synced_by(host, text) is None
        wrong = {"host": "localhost", "sslrootcert": authority.text}
        assert "localhost" in str(synced(host, database, sslmode="verify-full", **wrong))
        assert synced(host, database, sslmode="verify-ca", **wrong) is None
        database.execute("CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader")
        certificate, key = authority.issue("reader", common_name="reader")
        client = {"user": "reader", "password": None, "sslmode": "verify-full", "sslrootcert": authority.text}
        assert synced(host, database, **client, sslcert=str(certificate), sslkey=str(key)) is None
        assert "certificate" in str(synced(host, database, **client))
        database.execute("REVOKE pg_read_all_data FROM reader; DROP ROLE reader")


def quoted(text: str) -> str:
    return quote(text, safe="")


def synced_by(host: HostProcess, config: dict[str, Any]) -> str | None:
    return synced(host, TestDatabase("postgresql", None, config))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "mode",
    [
        *(pytest.param(mode, marks=pytest.mark.prove) for mode in ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA")),
        "VERIFY_IDENTITY",
    ],
)
def test_the_modes_of_mysql(
    host: HostProcess, tls_mariadb: TlsMariaDB, mariadb_database: TestDatabase, mode: str
) -> None:
    authority = tls_mariadb.authority
    # Pasted as it is, also with the NUL that MySQL writes at the end of those that it makes.
    ca = {"sslCa": authority.text + "\0"} if mode.startswith("VERIFY") else {}
    with fresh_database("mysql", tls_mariadb) as database:
        for each in (database, mariadb_database):
            each.execute("CREATE TABLE t (id int PRIMARY KEY)")
        user = f"tls_{database.name[-6:]}"
        database.execute(f"CREATE USER {user}@'%' IDENTIFIED BY 'p' REQUIRE SSL; GRANT SELECT ON *.* TO {user}@'%'")
        assert (synced(host, database, user=user, password="p", sslMode=mode, **ca) is None) == (mode != "DISABLED")
        without = synced(host, mariadb_database, sslMode=mode, **ca)
        assert (without is None) == (mode in ("DISABLED", "PREFERRED")), without
        if mode == "VERIFY_IDENTITY":
            assert "localhost" in str(synced(host, database, host="localhost", sslMode=mode, **ca))
            assert "certificate" in str(synced(host, database, sslMode=mode))
        if mode == "VERIFY_CA":
            assert synced(host, database, host="localhost", sslMode=mode, sslCa=str(authority.path)) is None
        database.execute(f"DROP USER {user}@'%'")


@pytest.mark.parametrize("dialect", ["postgresql", pytest.param("mysql", marks=pytest.mark.prove)])
def test_a_certificate_that_expires(request: pytest.FixtureRequest, tmp_path: Path, dialect: Any) -> None:
    fixtures = {"postgresql": ("tls_postgres", "mariadb_database"), "mysql": ("tls_mariadb", "postgres_database")}
    server, steady = (request.getfixturevalue(name) for name in fixtures[dialect])
    with fresh_database(dialect, server) as database, rig(tmp_path, database, steady=steady) as own:

        def certify(**how: Any) -> None:
            server.certify(**how)
            database.execute(RELOAD[dialect])
            with database.connect() as session:
                # Open connections keep the certificate that they began with.
                if dialect == "postgresql":
                    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                    session.fetch(sql + "AND datname = current_database()")
                else:
                    own.proxy.cut()

        mode = {"sslmode": "verify-full", "sslrootcert": quoted(server.authority.text)}
        if dialect == "mysql":
            mode = {"ssl-mode": "VERIFY_IDENTITY", "ssl-ca": quoted(server.authority.text)}
        with own.suffering(certify, says="certificate has expired", config=through(database, own.proxy, **mode)):
            certify(days=-1)


def test_a_corrupted_byte_under_tls_is_an_error(tmp_path: Path, tls_postgres: TlsPostgres) -> None:
    """Which byte it is does not matter: the record is refused, and nothing of it is stored."""
    with fresh_database("postgresql", tls_postgres) as database, rig(tmp_path, database) as own:
        config = through(database, own.proxy, sslmode="require")

        def flip(at: int, data: bytes) -> bytes:
            return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:] if at > 4000 and len(data) > 3 else data

        with own.suffering(own.proxy.heal, says="", config=config) as name:
            own.write(name, rows=3000)
            own.proxy.begin(corrupt=flip)


def test_passwords_of_mariadbs_ed25519(host: HostProcess, tls_mariadb: TlsMariaDB) -> None:
    with fresh_database("mysql", tls_mariadb) as database:
        database.execute("CREATE TABLE t (id int PRIMARY KEY)")
        user = f"ed_{database.name[-6:]}"
        database.execute(f"CREATE USER {user}@'%' IDENTIFIED VIA ed25519 USING PASSWORD('a secret')")
        database.execute(f"GRANT SELECT ON {database.name}.* TO {user}@'%'")
        assert synced(host, database, user=user, password="a secret") is None
        assert "Access denied" in str(synced(host, database, user=user, password="another"))
        database.execute(f"DROP USER {user}@'%'")
