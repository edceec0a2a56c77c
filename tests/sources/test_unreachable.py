"""A source that cannot be connected to, or whose bytes were changed on their way, is said in words with the way out."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymysql.err import Error

from starbase_data_replication.errors import SourceUnavailable
from starbase_data_replication.model import Column, TableName, TableSchema
from starbase_data_replication.model.casts import Cast
from starbase_data_replication.sources.batches import Damaged, convert
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.mysql.packed_rows import PackedParser, Unpackable
from starbase_data_replication.sources.mysql.packets import RowParser
from starbase_data_replication.sources.mysql.types import CASTS as MYSQL_CASTS
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.sources.postgresql.rows import CopyText
from starbase_data_replication.sources.postgresql.types import CASTS as POSTGRESQL_CASTS
from starbase_data_replication.sources.protocols import Dialect
from starbase_data_replication.sources.unreachable import not_known, place, unreachable
from starbase_data_replication.storage.target import Target
from tests.support.dialects import described
from tests.support.mysql_packets import END, FIRST, packed, payload, stream
from tests.support.servers import TestDatabase

LOOK_AT = "check host and port of sourceConfig"
DIALECTS: dict[str, Dialect] = {"PostgreSQL": PostgresqlDialect(), "MySQL": MysqlDialect()}


def said(dialect: Dialect, host: str, port: int | None, **more: Any) -> str:
    name = {} if port is None else {"port": port}
    text = described(dialect, {"host": host, **name, "user": "u", "password": "s3cret-of-u", "database": "d", **more})
    assert "s3cret" not in text
    assert "[Errno" not in text
    return text.removeprefix("looking up t: ")


@contextmanager
def answering(greeting: bytes, answer: bytes) -> Iterator[int]:
    """Something listens that speaks another protocol: what it says first, and what it says to the first bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.sendall(greeting)
                        connection.recv(1000)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize("name", DIALECTS)
def test_nobody_is_there(name: str, tmp_path: Path) -> None:
    dialect = DIALECTS[name]
    refused = f"nothing listens at 127.0.0.1:1 (connection refused); start the server, or {LOOK_AT}"
    assert said(dialect, "127.0.0.1", 1) == refused
    unknown = "the name no-such-host.invalid is not known; check host of sourceConfig, or at this machine's DNS"
    assert said(dialect, "no-such-host.invalid", 1) == unknown
    assert said(dialect, str(tmp_path / "gone"), None).startswith(f"there is no socket {tmp_path / 'gone'}")


@pytest.mark.parametrize("mode", ["prefer", "allow", "disable", "require", "verify-ca", "verify-full"])
def test_a_port_at_which_no_postgresql_listens(mode: str, mariadb_database: TestDatabase) -> None:
    with answering(b"", b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        text = said(DIALECTS["PostgreSQL"], "127.0.0.1", port, sslmode=mode)
        assert "sslmode" not in text
        assert text == f"what listens at 127.0.0.1:{port} does not speak PostgreSQL's protocol; {LOOK_AT}"
    if mode != "disable":
        server = mariadb_database.server
        text = said(DIALECTS["PostgreSQL"], str(server.host), server.port, sslmode=mode)
        assert text == f"what listens at {server.host}:{server.port} does not speak PostgreSQL's protocol; {LOOK_AT}"


def test_a_postgresql_without_tls_is_not_something_else(postgres_database: TestDatabase) -> None:
    """It says that it has none; and with `allow`, which asks with TLS after a refusal, why it refused."""
    server = postgres_database.server
    for mode in ("require", "verify-full"):
        text = said(DIALECTS["PostgreSQL"], server.host, server.port, sslmode=mode)
        assert "the server has no TLS" in text
    for mode in ("allow", "prefer", "disable"):
        text = said(DIALECTS["PostgreSQL"], server.host, server.port, sslmode=mode)
        assert "password authentication failed" in text, mode


@pytest.mark.parametrize("mode", ["DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"])
def test_a_port_at_which_no_mysql_listens(mode: str, postgres_database: TestDatabase) -> None:
    for greeting, answer in ((b"SSH-2.0-OpenSSH_9.2\r\n", b""), (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"")):
        with answering(greeting, answer) as port:
            text = said(DIALECTS["MySQL"], "127.0.0.1", port, sslMode=mode)
            assert text == f"what listens at 127.0.0.1:{port} does not speak MySQL's protocol; {LOOK_AT}"
    # One that waits for its client to speak first: it says nothing.
    server = postgres_database.server
    url = f"mysql://u:s3cret-of-u@{server.host}:{server.port}/d?ssl-mode={mode}&connect_timeout=1"
    text = described(DIALECTS["MySQL"], {"connectionString": url})
    assert (
        text == f"looking up t: {server.host}:{server.port} does not answer; check for a firewall between, or {LOOK_AT}"
    )


@pytest.mark.parametrize("name", DIALECTS)
def test_a_port_that_accepts_and_says_nothing(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"{name.lower()}://u:s3cret-of-u@127.0.0.1:{port}/d?connect_timeout=1"
        text = described(DIALECTS[name], {"connectionString": url})
    assert text == f"looking up t: 127.0.0.1:{port} does not answer; check for a firewall between, or {LOOK_AT}"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EHOSTUNREACH, ""), f"there is no route to h:1; check the network between, or {LOOK_AT}"),
        (ConnectionResetError(errno.ECONNRESET, ""), "h:1 closed the connection before it answered"),
        (TimeoutError(), "h:1 does not answer"),
        (OSError("odd"), "h:1 cannot be reached: odd"),
        (EOFError(), "h:1 cannot be reached: EOFError"),
    ],
)  # fmt: skip
def test_words(error: Exception, text: str) -> None:
    assert str(unreachable(error, "h:1")).startswith(text)
    assert str(unreachable(unreachable(error, "h:1"), "other")).startswith(text)


def test_words_of_names() -> None:
    assert not_known("h", socket.gaierror(socket.EAI_AGAIN, "")).startswith(
        "the name h cannot be looked up at the moment"
    )
    assert not_known("h" * 80, UnicodeError()).startswith(f"{'h' * 80} cannot be a host name")
    assert (place("::1", 5), place("h", 5)) == ("[::1]:5", "h:5")


def columns(casts: dict[str, Cast], *kinds: str) -> list[Column]:
    return [Column(name=f"c_{kind}", source_type=kind, nullable=False, cast=casts[kind]) for kind in kinds]


POSTGRESQL = columns(POSTGRESQL_CASTS, "int4", "text", "bytea", "float8", "xid8")
MYSQL = columns(MYSQL_CASTS, "int", "text", "double", "bigint unsigned")
changes = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4)


def changed(data: bytes, at: list[tuple[int, int]]) -> bytes:
    copied = bytearray(data)
    for index, byte in at:
        copied[index % len(copied)] = byte
    return bytes(copied)


@given(changes)
def test_changed_bytes_of_postgresql_are_rows_or_a_damage(at: list[tuple[int, int]]) -> None:
    sent = "1\tab\\\\c\t\\\\x00ff\t0.5\t18446744073709551615\n\\N\té\t\\N\tNaN\t7\n".encode() * 5
    text = CopyText(POSTGRESQL, width=len(POSTGRESQL))
    text.feed(changed(sent, at))
    with suppress(Damaged, UnicodeDecodeError):
        while (taken := text.rows())[0]:
            assert all(len(row) == len(POSTGRESQL) for row in convert(taken[1], POSTGRESQL))


@given(changes, st.booleans())
def test_changed_bytes_of_mysql_are_rows_or_a_damage(at: list[tuple[int, int]], together: bool) -> None:
    rows = [("1", "é", "0.5", "7"), (None, "x" * 300, None, "18446744073709551615")] * 3
    width = len(MYSQL)
    sent = stream([*map(packed if together else payload, rows), END])
    parser = PackedParser(width, sequence=FIRST) if together else RowParser([False] * width, sequence=FIRST)
    parser.feed(changed(sent, at))
    with suppress(Error, Damaged, Unpackable):
        while not parser.ended and parser.wanted <= 0:
            taken, _ = parser.parse(100, 1 << 20)
            assert all(len(row) == width for row in convert(taken, MYSQL))


def test_a_key_that_is_not_a_number_is_refused() -> None:
    """SQLite takes nothing but numbers for one, and says "datatype mismatch"."""
    schema = TableSchema(
        table=TableName(schema=None, name="t"), columns=tuple(columns(MYSQL_CASTS, "int", "text")), key=("c_int",),
        tracking_column="c_int",
    )  # fmt: skip
    target = Target("t", schema, shadow_id=1)
    connection = apsw.Connection(":memory:")
    target.match(connection, shadow=False, fresh=True)
    with pytest.raises(SourceUnavailable, match="t: received bytes that are not a row of this table"):
        target.apply(connection, [("1x", "a")])
