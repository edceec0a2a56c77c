"""What a hostile source sends costs little, forges nothing, and is an error in the dialect's own words.

Fake servers, one for each protocol, in scripts: no real one misbehaves so. One host meets them all, and a good source.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from tests.support.dialects import described
from tests.support.hosts import HostProcess, running, until
from tests.support.proxy import Proxy
from tests.support.servers import TestDatabase

MIB = 1 << 20
SPARE = 96 * MIB
FORGED = "\n2026-01-01 00:00:00,000 ERROR starbase: forged\x1b[2J\x1b]0;owned\x07\u202e"
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: |    |\Z")

# What a server does with one question; raises EOFError to hang up.
Answer = Callable[[socket.socket], None]


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port of loopback, at which each connection is served in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError, EOFError):
                serve(connection)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def forever(connection: socket.socket, data: bytes) -> None:
    while True:
        connection.sendall(data)


class Mysql:
    """A server that lets anyone in, and answers `SELECT version()` by the script."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __call__(self, connection: socket.socket) -> None:
        flags = 0x00080000 | 0x8000 | 0x0200 | 0x0008 | 0x0001
        connection.sendall(
            packet(
                0,
                b"\x0a8.0.36\0" + bytes(4) + b"abcdefgh\0" + struct.pack("<H", flags & 0xFFFF) + b"\x2d\x02\0"
                + struct.pack("<H", flags >> 16) + b"\x15" + bytes(10) + b"ijklmnopqrst\0mysql_native_password\0",
            )
        )  # fmt: skip
        self.question(connection)
        connection.sendall(packet(2, OK))
        while True:
            if b"version()" in self.question(connection):
                self.answer(connection)
            else:
                connection.sendall(packet(1, OK))

    def question(self, connection: socket.socket) -> bytes:
        return exactly(connection, int.from_bytes(exactly(connection, 4)[:3], "little"))


OK = b"\0\0\0\2\0\0\0"
EOF_PACKET = b"\xfe\0\0\2\0"


def packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number % 256]) + body


def column(number: int, *, kind: int = 253, charset: int = 45) -> bytes:
    head = b"\x03def" + b"\0" * 3 + b"\x01c\x01c"
    return packet(number, head + struct.pack("<BHIBHBH", 12, charset, 100, kind, 0, 0, 0))


def result(*rows: bytes, columns: int = 1, kind: int = 253, charset: int = 45) -> bytes:
    """A result set of these rows."""
    parts = [packet(1, bytes([columns])), *(column(2 + at, kind=kind, charset=charset) for at in range(columns))]
    parts.append(packet(2 + columns, EOF_PACKET))
    parts += [packet(3 + columns + at, row) for at, row in enumerate(rows)]
    return b"".join((*parts, packet(3 + columns + len(rows), EOF_PACKET)))


def rows_forever(connection: socket.socket) -> None:
    connection.sendall(result()[:-9])
    number = 4
    while True:
        connection.sendall(b"".join(packet(at, b"\x01x") for at in range(number, number + 256)))


def columns_forever(connection: socket.socket) -> None:
    connection.sendall(packet(1, b"\xfe" + struct.pack("<Q", 1 << 62)))
    number = 2
    while True:
        connection.sendall(b"".join(column(at) for at in range(number, number + 256)))


def packets_forever(connection: socket.socket) -> None:
    number = 1
    while True:
        connection.sendall(b"\xff\xff\xff" + bytes([number % 256]))
        for _ in range(0xFFFFFF // 65535):
            connection.sendall(bytes(65535))
        number += 1


def mysql_error(text: bytes, state: bytes = b"#HY000") -> bytes:
    return packet(1, b"\xff" + struct.pack("<H", 1105) + state + text)


def says(data: bytes) -> Answer:
    return lambda connection: connection.sendall(data)


MYSQL: dict[str, tuple[Answer, str]] = {
    "endless rows": (rows_forever, "an answer of more than 1 MiB"),
    "2^62 columns": (columns_forever, "an answer of more than 1 MiB"),
    "continued packets": (packets_forever, "an answer of more than 1 MiB"),
    "an error of 10 MB": (says(mysql_error(FORGED.encode() + b"x" * 10_000_000)), "of more than 1 MiB"),
    "an error that forges": (says(mysql_error(FORGED.encode())), "forged"),
    "an error that is not UTF-8": (says(mysql_error(b"\xff\xfe caf\xe9")), "caf"),
    "an error without a text": (says(packet(1, b"\xff\x01")), "does not follow MySQL's protocol"),
    "a state that is not UTF-8": (
        says(mysql_error(b"", b"#\xff\xfe\xff\xfe\xff")),
        "does not follow MySQL's protocol",
    ),
    "version() NULL": (says(result(b"\xfb")), "an answer that MySQL does not give"),
    "version() a BLOB": (says(result(b"\x016", charset=63, kind=252)), "an answer that MySQL does not give"),
    "version() no row": (says(result()), "an answer that MySQL does not give"),
    "two versions": (says(result(b"\x018", b"\x019")), "an answer that MySQL does not give"),
    "two columns": (says(result(b"\x018\x019", columns=2)), "an answer that MySQL does not give"),
    "no result at all": (says(packet(1, OK)), "an answer that MySQL does not give"),
    "text that is not UTF-8": (says(result(b"\x02\xff\xfe")), "MySQL"),
    # Everything after it has no rows.
    "no table": (says(result(b"\x068.0.36")), "did not exist when it was looked up"),
}


class Postgres:
    """A server that lets anyone in, and answers every simple statement but the ROLLBACK by the script; or describes
    every other one by it. rows: sent when such a statement is run. stays: does not hang up when the client says
    goodbye."""

    def __init__(self, answer: Answer, *, described: bool = False, rows: bytes = b"", stays: bool = False) -> None:
        self.answer = answer
        self.described = described
        self.rows = rows
        self.stays = stays

    def __call__(self, connection: socket.socket) -> None:
        (length,) = struct.unpack("!I", exactly(connection, 4))
        exactly(connection, length - 4)
        names = {"server_version": "16.1", "client_encoding": "UTF8", "server_encoding": "UTF8"}
        settings = [message(b"S", f"{name}\0{value}\0".encode()) for name, value in names.items()]
        connection.sendall(b"".join((message(b"R", bytes(4)), *settings, message(b"K", bytes(8)), READY)))
        while True:
            kind = exactly(connection, 1)
            body = exactly(connection, struct.unpack("!I", exactly(connection, 4))[0] - 4)
            if kind == b"Q" and not self.described and b"ROLLBACK" not in body:
                self.answer(connection)
            elif kind == b"Q":
                connection.sendall(message(b"C", b"SET\0") + READY)
            elif kind == b"D":
                self.answer(connection)
            elif kind == b"S":
                connection.sendall(self.rows + READY)
            elif kind == b"X" and not self.stays:
                return


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


READY = message(b"Z", b"I")


def field(name: bytes, oid: int) -> bytes:
    return name + b"\0" + struct.pack("!IhIhih", 0, 0, oid, -1, -1, 0)


def prepared(*fields: tuple[bytes, int]) -> bytes:
    """That a statement of three texts has these columns."""
    columns = b"".join(field(*each) for each in fields)
    return (
        message(b"1", b"") + message(b"t", struct.pack("!hIII", 3, 25, 25, 25))
        + message(b"T", struct.pack("!h", len(fields)) + columns)
    )  # fmt: skip


def postgres_error(text: bytes) -> bytes:
    return message(b"E", b"SERROR\0VERROR\0C42501\0M" + text + b"\0\0") + READY


def long_message(connection: socket.socket) -> None:
    connection.sendall(b"D" + struct.pack("!I", 0x7FFFFFFF))
    forever(connection, bytes(65536))


def settings_forever(connection: socket.socket) -> None:
    number = 0
    while True:
        number += 1
        connection.sendall(message(b"S", f"setting{number}\0{'x' * 1000}\0".encode()))


# The driver's compiled reader would loop for ever, or end the process.
BAD_MESSAGES = {
    **{
        f"{kind.decode()} of {length} bytes": kind + struct.pack("!I", length & 0xFFFFFFFF)
        for kind, length in ((b"1", 0), (b"1", 3), (b"E", 0), (b"T", -1), (b"d", -1), (b"d", 3), (b"d", 0))
    },
    "the kind 0": b"\0\0\0\0\4",
    # Without its end, the driver goes on within the next message, and finds one of no length.
    "an open error": message(b"E", b"SERROR") + message(b"N", b"S\x001\0\0\0\0\0"),
}

POSTGRES: dict[str, tuple[Postgres, str]] = {
    **{
        f"a message: {what}": (Postgres(says(bad + bytes(40))), "bytes that are not PostgreSQL's protocol")
        for what, bad in BAD_MESSAGES.items()
    },
    **{
        f"a value of {length} bytes": (
            Postgres(
                says(prepared((b"relation", 25))),
                described=True,
                rows=message(b"2", b"") + message(b"D", b"\0\1" + struct.pack("!i", length) + b"abc"),
            ),
            said,
        )
        for length, said in (
            (-2, "changed on their way"), (-(1 << 31), "changed on their way"),
            (4, "an answer that PostgreSQL does not give"), ((1 << 31) - 1, "an answer that PostgreSQL does not give"),
        )
    },
    "a row of other columns": (
        Postgres(
            says(prepared((b"relation", 25))),
            described=True,
            rows=message(b"2", b"") + message(b"D", b"\xff\xff\0\0\0\1x"),
        ),
        "the number of columns in the result row (-1) is different",
    ),
    "endless rows": (
        Postgres(lambda to: forever(to, message(b"D", b"\0\1\0\0\0\1x") * 500)), "an answer of more than 32 MiB",
    ),
    "a message of 2 GB": (Postgres(long_message), "an answer of more than 32 MiB"),
    "endless notices": (
        Postgres(lambda to: forever(to, message(b"N", b"SNOTICE\0C00000\0Mx\0\0") * 500)),
        "an answer of more than 32 MiB",
    ),
    "endless settings": (Postgres(settings_forever), "settings of more than 32 MiB"),
    "an error of 10 MB": (Postgres(says(postgres_error(FORGED.encode() + b"x" * 10_000_000))), "forged"),
    "an error that forges": (Postgres(says(postgres_error(FORGED.encode()))), "forged"),
    "an error that is not UTF-8": (Postgres(says(postgres_error(b"\xff\xfe"))), "changed on their way from the source"),
    "65,535 columns": (
        Postgres(says(prepared(*[(b"c" * 60, 25)] * 32_767)), described=True), "an answer of more than 32 MiB",
    ),
    **{
        f"the type {oid}": (
            Postgres(says(prepared((b"relation", oid))), described=True), "an answer that PostgreSQL does not give",
        )
        # An unknown one; record, path, polygon, pg_snapshot, json, text[] and int4[].
        for oid in (99_999, 2249, 602, 604, 5038, 114, 1009, 1007)
    },
    **{
        f"the setting {body!r}": (
            Postgres(says(message(b"S", body) + message(b"C", b"SET\0") + READY)), "the server sends a setting",
        )
        for body in (b"", b"a", b"a\0", b"a\0b", b"client_encoding\0bz2_codec\0", b"client_encoding\0LATIN1\0")
    },
    "no columns": (Postgres(says(prepared()), described=True), "no table or view"),
}  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(tmp_path_factory.mktemp("host")) as host:
        yield host


def peak(host: HostProcess) -> int:
    """The most memory that the host ever had."""
    text = Path(f"/proc/{host.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0]) * 1024


def forget_peak(host: HostProcess) -> int:
    """Begin to measure; what it has now."""
    Path(f"/proc/{host.pid}/clear_refs").write_text("5")
    return peak(host)


def refusal(host: HostProcess, source: dict[str, Any]) -> str:
    """What a sync of such a source is answered with, once everything that must hold for it was checked."""
    before = forget_peak(host)
    host.configure(name="evil", sourceConfig=source, sourceTable="t", targetTable="evil", isActive=False)
    answer = host.request("POST", "/data-replication/sync/evil")
    grown = peak(host) - before
    said = str(answer.json()["error"])
    assert answer.status_code == 502, said
    recorded = [said, host.logs("evil", 1)[0]["error_message"], host.status("evil")["last_error"]]
    assert all(len(each) < 2_200 for each in recorded)
    for text in (*recorded, host.log):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert "unexpected" not in text
    assert all("\n" not in each for each in recorded)
    assert [line for line in host.log.splitlines() if not LINE.match(line)] == []
    assert len(host.log) < MIB
    assert grown < SPARE
    return said


@pytest.mark.parametrize("what", MYSQL)
def test_what_a_hostile_mysql_sends(host: HostProcess, what: str) -> None:
    answer, expected = MYSQL[what]
    with listening(Mysql(answer)) as port:
        source = {"dialect": "mysql", "host": "127.0.0.1", "port": port, "user": "u", "database": "d"}
        said = refusal(host, {**source, "sslMode": "DISABLED"})
    assert expected in said


@pytest.mark.parametrize("what", POSTGRES)
def test_what_a_hostile_postgresql_sends(host: HostProcess, what: str) -> None:
    server, expected = POSTGRES[what]
    with listening(server) as port:
        source = {"dialect": "postgresql", "host": "127.0.0.1", "port": port, "user": "u", "sslmode": "disable"}
        said = refusal(host, source)
    assert expected in said


@pytest.mark.parametrize("what", BAD_MESSAGES)
def test_a_message_among_the_rows_of_a_copy(host: HostProcess, postgres_database: TestDatabase, what: str) -> None:
    """Between a real server and the host, after the first of its rows."""
    postgres_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, 'the value' FROM generate_series(1, 9) n"
    )
    server, inserted = postgres_database.server, []

    def insert(_: int, data: bytes) -> bytes:
        row = message(b"d", b"1\tthe value\n")
        before, found, after = data.partition(row)
        if found:
            inserted.append(what)
        return before + found + BAD_MESSAGES[what] + bytes(40) + after if found else data

    with Proxy(str(server.host), int(server.port)) as proxy:
        proxy.begin(corrupt=insert)
        source = {**postgres_database.source_config, "host": proxy.host, "port": proxy.port, "sslmode": "disable"}
        said = refusal(host, source)
    assert inserted
    assert "bytes that are not PostgreSQL's protocol" in said


def test_the_command_line_shows_no_escape(host: HostProcess) -> None:
    with listening(Mysql(says(mysql_error(FORGED.encode())))) as port:
        source = {"dialect": "mysql", "host": "127.0.0.1", "port": port, "user": "u", "database": "d"}
        refusal(host, source)
        for words in (["list"], ["logs"], ["sync", "evil"], ["list", "--json"], ["logs", "--json"]):
            done = host.command("replication", *words)
            shown = done.stdout + done.stderr
            assert "forged" in shown
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown)
            assert "--json" in words or not re.search("^2026-01-01", shown, re.MULTILINE)


def test_another_source_goes_on_after_all_that(host: HostProcess, postgres_database: TestDatabase) -> None:
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    host.configure(
        name="good", sourceConfig=postgres_database.source_config, sourceTable="t", targetTable="good", isActive=False
    )
    assert host.sync("good")["records_processed"] == 2


def test_a_server_that_does_not_hang_up_is_left() -> None:
    with listening(Postgres(says(postgres_error(b"no")), stays=True)) as port:
        source = {"host": "127.0.0.1", "port": port, "user": "u", "sslmode": "disable"}
        began = time.monotonic()
        assert "says: no" in described(PostgresqlDialect(), source)
        assert time.monotonic() - began < 15


def test_an_answer_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte of it now and then is news, so nothing else would end the run."""
    monkeypatch.setattr("starbase_data_replication.sources.postgresql.connection.STATEMENT_TIMEOUT_SECONDS", 0.5)
    stop = threading.Event()

    def trickle(to: socket.socket) -> None:
        to.sendall(b"C\0\0\xff\xff")
        while not stop.wait(0.02):
            to.sendall(b"S")
        raise EOFError

    with listening(Postgres(trickle)) as port:
        source = {"host": "127.0.0.1", "port": port, "user": "u", "sslmode": "disable"}
        try:
            assert "did not answer in time" in described(PostgresqlDialect(), source)
        finally:
            stop.set()


def test_notices_are_silence(tmp_path: Path) -> None:
    """A server that says nothing but notices is asked, on another connection, and given up when it does not answer."""
    config = (
        '[host]\nbind = "127.0.0.1:0"\ndatabase = "data/starbase.db"\nadmin_token = "admin-token-of-the-tests"\n'
        "[plugins.data_replication]\nsilence_timeout_seconds = 1\n"
    )
    met = threading.Event()
    stop = threading.Event()

    def notices(to: socket.socket) -> None:
        met.set()
        while not stop.wait(0.1):
            to.sendall(message(b"N", b"SNOTICE\0C00000\0Mstill here\0\0"))

    serve = Postgres(notices)

    def once(connection: socket.socket) -> None:
        if met.is_set():
            connection.recv(1000)
            stop.wait(30)
        else:
            serve(connection)

    with listening(once) as port, running(tmp_path, config) as host:
        source = {
            "dialect": "postgresql",
            "connectionString": f"postgresql://u@127.0.0.1:{port}/d?sslmode=disable&connect_timeout=1",
        }
        host.configure(name="evil", sourceConfig=source, sourceTable="t", targetTable="evil", isActive=False)
        host.request("POST", "/data-replication/sync/evil", wait="false")
        until(lambda: "nothing came from the source" in str(host.status("evil")["last_error"]), what="the end")
        stop.set()
