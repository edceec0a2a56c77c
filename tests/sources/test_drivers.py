"""What the drivers are given, and what they make of it, against servers that are only a socket."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import aiomysql
import asyncpg
import pytest

from starbase_data_replication.sources.mysql import settings as mysql
from starbase_data_replication.sources.postgresql import settings as postgresql
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_host import ConfigError
from tests.support.dialects import described
from tests.support.servers import TestDatabase
from tests.support.source_configs import MYSQL, POSTGRESQL, url


def test_postgresql_pool_arguments() -> None:
    arguments = postgresql.pool_arguments(postgresql.read({**POSTGRESQL, "port": 6000}))
    assert (arguments["host"], arguments["port"], arguments["ssl"]) == ("db.example.com", 6000, "prefer")
    assert arguments["server_settings"] == {"application_name": "starbase-host (reads only)"}
    assert (arguments["timeout"], arguments["statement_cache_size"]) == (10, 0)
    several = postgresql.pool_arguments(postgresql.read(url("postgresql://u@h1,h2:1/d?sslmode=disable")))
    assert (several["host"], several["port"]) == (["h1", "h2"], [5432, 1])
    assert (several["password"], several["ssl"], several["target_session_attrs"]) == ("", False, "any")


@pytest.mark.parametrize(
    ("mode", "verify", "hostname"),
    [("require", False, False), ("verify-ca", True, False), ("verify-full", True, True)],
)
def test_postgresql_tls_contexts(mode: str, verify: bool, hostname: bool) -> None:
    context = postgresql.pool_arguments(postgresql.read({**POSTGRESQL, "sslmode": mode}))["ssl"]
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode is ssl.CERT_REQUIRED, context.check_hostname) == (verify, hostname)


def test_postgresql_root_certificate_of_the_system_means_the_name_is_checked() -> None:
    settings = {**POSTGRESQL, "sslmode": "require", "sslrootcert": "system"}
    context = postgresql.pool_arguments(postgresql.read(settings))["ssl"]
    assert context.check_hostname


@pytest.mark.parametrize(
    ("mode", "verify", "hostname"),
    [
        ("PREFERRED", False, False),
        ("REQUIRED", False, False),
        ("VERIFY_CA", True, False),
        ("VERIFY_IDENTITY", True, True),
    ],
)
def test_mysql_tls_contexts(mode: str, verify: bool, hostname: bool) -> None:
    context = mysql.pool_arguments(mysql.read({**MYSQL, "sslMode": mode}))["ssl"]
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode is ssl.CERT_REQUIRED, context.check_hostname) == (verify, hostname)


def test_mysql_pool_arguments() -> None:
    arguments = mysql.pool_arguments(mysql.read({**MYSQL, "password": "pä€", "ssl": False}))
    assert (arguments["ssl"], arguments["unix_socket"], arguments["local_infile"]) == (None, None, False)
    assert (arguments["charset"], arguments["autocommit"], arguments["connect_timeout"]) == (
        "utf8mb4",
        True,
        10,
    )
    assert arguments["password"].encode("latin-1") == "pä€".encode()
    socket = mysql.pool_arguments(mysql.read({**MYSQL, "host": "/run/mysqld.sock"}))
    assert (socket["unix_socket"], socket["ssl"], socket["host"]) == ("/run/mysqld.sock", None, "localhost")


@pytest.mark.parametrize(
    ("room", "settings", "field"),
    [
        (postgresql, {**POSTGRESQL, "sslmode": "verify-ca", "sslrootcert": "BAD"}, "sslrootcert"),
        (postgresql, {**POSTGRESQL, "sslmode": "require", "sslcert": "BAD"}, "sslcert"),
        (mysql, {**MYSQL, "sslCa": "BAD"}, "sslCa"),
        (mysql, {**MYSQL, "sslCert": "BAD"}, "sslCert"),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_a_certificate_that_cannot_be_used(
    room: ModuleType, settings: dict[str, str], field: str, exists: bool, tmp_path: Path
) -> None:
    path = tmp_path / "file.pem"
    if exists:
        path.write_text("no certificate")
    settings = {key: value.replace("BAD", str(path)) for key, value in settings.items()}
    with pytest.raises(ConfigError) as caught:
        room.pool_arguments(room.read(settings))
    assert caught.value.fields[f"sourceConfig.{field}"].startswith(f"{path} cannot be used: ")


def test_a_text_in_the_place_of_a_files_name_is_not_shown() -> None:
    for text in ("x" * 5000, "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----"):
        files = {"sslcert": "/nowhere.pem", "sslkey": text}
        with pytest.raises(ConfigError) as caught:
            postgresql.pool_arguments(postgresql.read({**POSTGRESQL, "sslmode": "require", **files}))
        said = f"/nowhere.pem and a text of {len(text)} characters cannot be used: each must be a regular file"
        assert caught.value.fields["sourceConfig.sslcert"].startswith(said)


def test_a_postgresql_server_without_tls(postgres_database: TestDatabase) -> None:
    for mode in ("require", "verify-ca", "verify-full"):
        said = described(PostgresqlDialect(), {**postgres_database.source_config, "sslmode": mode})
        fix = "sourceConfig.sslmode: the server has no TLS; turn it on there, or set sslmode to prefer; if it has, "
        fix += "check host and port of sourceConfig"
        assert said == f"looking up t: {fix}"


SSL_REQUEST = struct.pack("!II", 8, 80877103)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[int]:
    """A server on a free port that talks with each client; every connection has ended when it has."""
    tasks: list[asyncio.Task[Any] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        try:
            await talk(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]
        await asyncio.gather(*(task for task in tasks if task is not None))


async def without_tls(mode: str) -> list[bytes]:
    """What asyncpg sends to a server that has no TLS, packet by packet."""
    received: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(4):
            received.append(head + await reader.readexactly(struct.unpack("!I", head)[0] - 4))
            if received[-1] == SSL_REQUEST:
                writer.write(b"N")
            else:
                refusal = b"SFATAL\0VFATAL\0C28P01\0Mno\0\0"
                writer.write(b"E" + struct.pack("!I", 4 + len(refusal)) + refusal)

    async with server(talk) as port:
        settings = {**POSTGRESQL, "host": "127.0.0.1", "port": port, "sslmode": mode}
        arguments = postgresql.pool_arguments(postgresql.read(settings))
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await asyncpg.create_pool(min_size=1, max_size=1, **arguments)
    return received


@pytest.mark.anyio
@pytest.mark.parametrize("mode", postgresql.STRICT)
async def test_a_server_without_tls_learns_nothing_when_tls_is_required(mode: str) -> None:
    assert await without_tls(mode) == [SSL_REQUEST]


@pytest.mark.anyio
async def test_prefer_asks_for_tls_and_goes_on_without() -> None:
    asked, startup = await without_tls("prefer")
    assert asked == SSL_REQUEST
    assert b"starbase-host" in startup


@pytest.mark.anyio
async def test_disable_does_not_ask_for_tls() -> None:
    assert b"starbase-host" in (await without_tls("disable"))[0]


def test_nothing_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pgpass").write_text("*:*:*:*:fromfile")
    (tmp_path / "pgpass").chmod(0o600)
    environ = {
        "PGUSER": "envuser",
        "PGPASSWORD": "envpassword",
        "PGDATABASE": "envdatabase",
        "PGPASSFILE": str(tmp_path / "pgpass"),
        "PGSSLMODE": "require",
        "PGSSLNEGOTIATION": "direct",
        "PGTARGETSESSIONATTRS": "nonsense",
        "PGGSSLIB": "nonsense",
        "PGSERVICE": "nonsense",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    settings = {"host": "h", "user": "u", "sslmode": "disable"}
    arguments = postgresql.pool_arguments(postgresql.read(settings))
    assert all(arguments[name] is not None for name in arguments)
    connect_utils = pytest.importorskip("asyncpg.connect_utils")
    names = ("dsn", "passfile", "service", "servicefile")
    passed = {key: value for key, value in arguments.items() if key not in ("timeout", "statement_cache_size")}
    addresses, parameters = connect_utils._parse_connect_dsn_and_args(**dict.fromkeys(names), **passed)
    assert addresses == [("h", 5432)]
    assert (parameters.user, parameters.password, parameters.database) == ("u", "", "u")
    assert (parameters.ssl, parameters.target_session_attrs.value) == (False, "any")


@pytest.mark.anyio
async def test_aiomysql_goes_on_in_clear_text_where_tls_was_asked_for() -> None:
    """Why `tls_required` is there. Should this fail one day, the driver has learnt to refuse by itself."""

    received: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        capabilities = struct.pack("<HBHH", 0xF7FF, 33, 2, 8)
        greeting = b"\x0a8.0.1\0" + bytes(4) + b"a" * 8 + b"\0" + capabilities + b"\x15" + bytes(10) + b"b" * 12
        greeting += b"\0mysql_native_password\0"
        writer.write(struct.pack("<I", len(greeting)) + greeting)
        length = int.from_bytes((await reader.readexactly(4))[:3], "little")
        received.append(await reader.readexactly(length))

    async with server(talk) as port:
        settings = mysql.read({**MYSQL, "host": "127.0.0.1", "port": port, "sslMode": "VERIFY_IDENTITY"})
        assert settings.tls_required
        with pytest.raises(aiomysql.OperationalError):
            await aiomysql.create_pool(**mysql.pool_arguments(settings))
    assert b"app\0" in received[0]
