"""What a server asks while it lets us in cannot stop the host: fake servers, and real ones with many rounds."""

from __future__ import annotations

import base64
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.model import TableName
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.sources.postgresql.handshake import (
    LONGEST,
    MAX_ITERATIONS,
    HandshakeState,
    NotPostgresql,
    check_handshake,
)
from tests.support.dialects import described
from tests.support.hosts import running, until
from tests.support.servers import PgBouncer, TestDatabase

SASL = struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def challenge(nonce: bytes, iterations: str) -> bytes:
    salt = base64.b64encode(b"salt" * 4)
    return message(b"R", struct.pack("!I", 11) + b"r=" + nonce + b"more,s=" + salt + b",i=" + iterations.encode())


@contextmanager
def impostor(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listens on loopback, refuses TLS, and then sends what the test wants to each client."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    first = connection.recv(1000)
                    if first[4:8] == struct.pack("!I", 80877103):
                        connection.sendall(b"N")
                        connection.recv(1000)
                    talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def asking(iterations: str, *, by_bytes: bool = False) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.sendall(message(b"R", SASL))
        nonce = connection.recv(1000).partition(b",r=")[2]
        said = challenge(nonce, iterations)
        for piece in [said[at : at + 1] for at in range(len(said))] if by_bytes else [said]:
            connection.sendall(piece)
        connection.recv(1000)

    return talk


def settings(port: int, mode: str) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, "user": "u", "password": "p", "database": "d", "sslmode": mode}


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
@pytest.mark.parametrize("iterations", ["999999999", "100001", "9" * 1000])
def test_a_server_cannot_have_the_password_hashed_for_hours(mode: str, iterations: str) -> None:
    with impostor(asking(iterations, by_bytes=mode == "disable")) as port:
        started = time.thread_time()
        said = described(PostgresqlDialect(), settings(port, mode))
        assert time.thread_time() - started < 2
    assert "100,000 rounds of hashing the password" in said
    assert "scram_iterations" in said


@pytest.mark.parametrize(
    "said",
    [
        message(b"R", struct.pack("!I", 11) + b"r=" * 10_000),
        message(b"E", b"S" * 40_000),
        b"R\xff\xff\xff\xff",
        message(b"D", b"\0" * 100),
    ],
)
def test_messages_of_a_handshake_are_short(said: bytes) -> None:
    with impostor(lambda connection: connection.sendall(said)) as port:
        assert "check host and port of sourceConfig" in described(PostgresqlDialect(), settings(port, "disable"))


def test_a_demand_after_the_word_that_we_are_in_is_judged_too() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(message(b"R", bytes(4)))
        asking("999999999")(connection)

    with impostor(talk) as port:
        assert "check host and port of sourceConfig" in described(PostgresqlDialect(), settings(port, "disable"))


def demand(number: int, text: bytes = b"") -> bytes:
    return message(b"R", struct.pack("!I", number) + text)


LET_IN, CLEARTEXT, MD5, ASK, PROVED = (
    demand(0), demand(3), demand(5, b"salt"), message(b"R", SASL), demand(12, b"v=cHJvb2Y="),
)  # fmt: skip
CHALLENGE, END = challenge(b"nonce", "4096"), message(b"Z", b"I")
IN_ORDER = [
    (LET_IN, END), (CLEARTEXT, LET_IN, END), (MD5, LET_IN, END), (ASK, CHALLENGE, PROVED, LET_IN, END),
]  # fmt: skip


@pytest.mark.parametrize("said", IN_ORDER)
def test_the_orders_in_which_a_server_may_ask(said: tuple[bytes, ...]) -> None:
    data = b"".join(said)
    assert check_handshake(data, HandshakeState(secure=True)) == (len(data), True)


@given(st.lists(st.sampled_from([LET_IN, CLEARTEXT, MD5, ASK, CHALLENGE, PROVED, END]), min_size=1, max_size=6))
def test_no_other_order_is_passed_on(said: list[bytes]) -> None:
    said = said[: said.index(END) + 1] if END in said else said
    if any(list(order[: len(said)]) == said for order in IN_ORDER):
        check_handshake(b"".join(said), HandshakeState(secure=True))
        return
    with pytest.raises(NotPostgresql):
        check_handshake(b"".join(said), HandshakeState(secure=True))


@pytest.mark.parametrize("said", [CHALLENGE, PROVED, ASK + ASK, ASK + PROVED, ASK + CHALLENGE * 600, END])
def test_demands_out_of_order_do_not_reach_the_driver(said: bytes) -> None:
    """The driver would call methods of what does not exist, which ends the process, or hash for minutes."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(said)
        connection.recv(1000)

    with impostor(talk) as port:
        config = settings(port, "disable")
        command = (
            "from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect\n"
            "from tests.support.dialects import described\n"
            f"print(described(PostgresqlDialect(), {config!r}))"
        )
        done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "check host and port of sourceConfig" in done.stdout


@pytest.mark.parametrize("body", [b"", b"a\0", b"client_encoding\0bz2_codec\0", b"client_encoding\0\0"])
def test_a_setting_of_a_handshake_that_is_refused(body: bytes) -> None:
    with pytest.raises(SourceRejected, match="UTF-8"):
        check_handshake(LET_IN + message(b"S", body), HandshakeState())


@pytest.mark.parametrize("name", [b"UTF8", b"utf-8", b"UTF_8", b"UNICODE", b"'utf-8'"])
def test_the_names_of_utf8(name: bytes) -> None:
    data = LET_IN + message(b"S", b"client_encoding\0" + name + b"\0") + END
    assert check_handshake(data, HandshakeState()) == (len(data), True)


@pytest.mark.parametrize("number", [2, 6, 7, 8, 9, 13, 2**32 - 1])
def test_a_login_that_is_not_supported_is_named(number: int) -> None:
    with impostor(lambda connection: connection.sendall(demand(number))) as port:
        assert "neither scram-sha-256, md5 nor password" in described(PostgresqlDialect(), settings(port, "disable"))


def test_a_host_answers_while_a_source_asks_for_too_much(tmp_path: Path) -> None:
    with running(tmp_path) as host, impostor(asking("999999999")) as port:
        source = {"dialect": "postgresql", **settings(port, "prefer")}
        host.configure(name="evil", sourceConfig=source, sourceTable="t", targetTable="t", syncIntervalMinutes=0.01)
        until(lambda: "rounds of hashing" in str(host.status("evil")["last_error"]), what="the error")
        for _ in range(20):
            assert httpx.get(f"{host.url}/health", timeout=1).status_code == 200
        assert host.stop(seconds=6) == 0


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_a_server_without_tls_that_asks_for_the_password_does_not_get_it(mode: str) -> None:
    heard: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        connection.sendall(message(b"R", struct.pack("!I", 3)))
        with suppress(OSError):
            while data := connection.recv(1000):
                heard.append(data)

    with impostor(talk) as port:
        said = described(PostgresqlDialect(), {**settings(port, mode), "password": "the secret of the tests"})
    assert "asks for the password in clear" in said
    assert "sslmode" in said
    assert b"the secret of the tests" not in b"".join(heard)


@pytest.mark.anyio
async def test_a_password_that_was_asked_for_by_md5_is_warned_of(postgres_database: TestDatabase) -> None:
    """A pooler asks so, and not its server."""
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    config = {**postgres_database.source_config, "defaultSchema": "public"}

    async def warnings(**changed: Any) -> tuple[str, ...]:
        source = PostgresqlDialect().open({**config, **changed}, max_connections=1)
        try:
            return (await source.describe(TableName(schema="public", name="t"), "id")).warnings
        finally:
            await source.close()

    with PgBouncer(postgres_database.server, auth="md5") as pooler:
        (said,) = await warnings(host=pooler.host, port=pooler.port)
    assert "by md5" in said
    assert "sslmode" in said
    assert await warnings() == ()


def test_as_many_rounds_as_are_allowed(postgres_database: TestDatabase) -> None:
    config = {**postgres_database.source_config, "defaultSchema": "public"}
    newer = int(postgres_database.fetch("SHOW server_version_num")[0][0]) >= 160000
    role = f"slowly_{config['database']}"
    postgres_database.execute(
        f"{f'SET scram_iterations = {MAX_ITERATIONS};' if newer else ''} CREATE TABLE t (id int PRIMARY KEY); "
        f"CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT SELECT ON t TO {role}"
    )
    try:
        assert described(PostgresqlDialect(), {**config, "user": role, "password": "p"}) == "connected"
    finally:
        postgres_database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@given(st.lists(st.tuples(st.sampled_from(sorted(LONGEST)), st.binary(max_size=50))), st.integers(0, 400))
def test_what_is_passed_on_are_whole_messages(parts: list[tuple[bytes, bytes]], cut: int) -> None:
    whole = [message(kind, body) for kind, body in parts]
    data = b"".join(whole)[:cut]
    try:
        count, is_over = check_handshake(data, HandshakeState())
    except (SourceRejected, NotPostgresql):
        return
    ends = [sum(map(len, whole[:number])) for number in range(len(whole) + 1)]
    assert count in ends or (is_over and count == len(data))
