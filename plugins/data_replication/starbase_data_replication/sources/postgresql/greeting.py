"""What a server may ask of us until it has let us in: judged before the driver works on it.

Owns the bounds of a handshake. Must not know what comes after it. Anyone who listens at the configured address chooses
how often the password is hashed, and the driver hashes on the event loop, where nothing can interrupt it; and chooses
how the password is proved, where the driver answers with the password itself.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any

from asyncpg.protocol import Protocol

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.sources.network import CheckedLoop
from starbase_data_replication.sources.postgresql.answers import Answers
from starbase_host import overrides

# PostgreSQL's default is 4,096, as it is with the large providers; CockroachDB's is 10,610. So many take about 50 ms.
MAX_ITERATIONS = 100_000
ITERATIONS = re.compile(rb",i=(\d+)")

# The kinds of message that may come, and their longest length: as libpq has it, which takes no other for PostgreSQL's.
# Besides them, up to the last of a handshake: versions, settings, the key for cancelling, and that it is ready. Until
# then the driver answers each demand for a password, also one after the word that we are in.
AUTHENTICATION, READY = b"R", b"Z"
LONGEST = {AUTHENTICATION: 2_000, READY: 5, **dict.fromkeys((b"E", b"N", b"v", b"S"), 30_000), b"K": 300}
HEAD_BYTES = 5
# What is asked for: nothing more, the password itself, its MD5 with a salt, and the steps of SCRAM.
LET_IN, CLEARTEXT, MD5, SASL, SASL_CONTINUE, SASL_FINAL = 0, 3, 5, 10, 11, 12
# By the last demand, those that may follow it; None stands for the beginning. The driver answers each in any order,
# with methods of what an earlier one has set up: without that, its compiled code ends the process.
NEXT: dict[int | None, frozenset[int]] = {
    None: frozenset((LET_IN, CLEARTEXT, MD5, SASL)),
    CLEARTEXT: frozenset((LET_IN,)),
    MD5: frozenset((LET_IN,)),
    SASL: frozenset((SASL_CONTINUE,)),
    SASL_CONTINUE: frozenset((SASL_FINAL,)),
    SASL_FINAL: frozenset((LET_IN,)),
    LET_IN: frozenset(),
}
# For a status: how to be rid of the hash that anyone who has heard it may guess the password by.
HEARD_MD5 = (
    "the server asks for the password by md5, and without TLS anyone in its place, or on the way, could find it out by "
    "guessing; set sslmode to require, or password_encryption at the server to scram-sha-256 and the password again"
)


class NoHandshake(Exception):
    """What came has not the shape of a handshake of PostgreSQL's."""


class Asked:
    """What a server has asked for so far.

    secure: nobody but the server hears the answers. md5: it has asked for the password's MD5. last: the number of its
    last demand; None before the first.
    """

    def __init__(self, *, secure: bool = False) -> None:
        self.secure = secure
        self.md5 = False
        self.last: int | None = None


def judged(data: bytes, asked: Asked) -> tuple[int, bool]:
    """How many of these bytes the driver may have, whole messages alone, and whether the handshake is over with them.

    Raises SourceRejected for what no server of good will asks, and NoHandshake for bytes that are none of PostgreSQL's.
    """
    at = 0
    while len(data) - at >= HEAD_BYTES:
        kind, length = data[at : at + 1], int.from_bytes(data[at + 1 : at + HEAD_BYTES], "big")
        if not 4 <= length <= LONGEST.get(kind, 0):
            raise NoHandshake
        end = at + 1 + length
        if end > len(data):
            break
        if kind == AUTHENTICATION:
            _judge_demand(int.from_bytes(data[at + 5 : at + 9], "big"), data[at + 9 : end], asked)
        if kind == READY:
            if asked.last != LET_IN:
                raise NoHandshake
            return end, True
        at = end
    return at, False


def _judge_demand(number: int, text: bytes, asked: Asked) -> None:
    if number not in NEXT:
        raise SourceRejected(
            "the server asks for a login that is neither scram-sha-256, md5 nor password; allow scram-sha-256 for this "
            f"user in the server's pg_hba.conf (method {number})"
        )
    if number not in NEXT[asked.last]:
        raise NoHandshake
    asked.last = number
    if number == SASL_CONTINUE:
        _judge_iterations(text)
    elif number == MD5:
        asked.md5 = True
    elif number == CLEARTEXT and not asked.secure:
        raise SourceRejected(
            "the server asks for the password in clear, and without TLS anyone in its place could read it; set sslmode "
            "to require, or the server's pg_hba.conf to scram-sha-256"
        )


def _judge_iterations(text: bytes) -> None:
    for found in ITERATIONS.findall(text):
        if len(found) > 10 or int(found) > MAX_ITERATIONS:
            raise SourceRejected(
                f"the server asks for more than {MAX_ITERATIONS:,} rounds of hashing the password, which would stop "
                "the host meanwhile; look at host of sourceConfig, or set the password again with a smaller "
                "scram_iterations at the server"
            )


class Greeter(asyncio.Protocol):
    """Stands before the driver's protocol until the server is ready for statements, and gives it whole messages."""

    def __init__(self, driver: Any, told: GreetingLoop) -> None:
        self._driver = driver
        self._told = told
        self._transport: Any = None
        self._kept = b""
        self._over = False
        self._asked = Asked()

    def connection_made(self, transport: Any) -> None:
        self._know(transport)
        self._driver.connection_made(transport)

    def begin(self, transport: Any) -> None:
        """Stand before a driver that already knows its transport."""
        self._know(transport)
        transport.set_protocol(self)

    def _know(self, transport: Any) -> None:
        self._transport = transport
        connection = transport.get_extra_info("socket")
        local = connection is not None and connection.family == socket.AF_UNIX
        self._asked.secure = local or transport.get_extra_info("ssl_object") is not None

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        data = self._kept + data
        try:
            whole, is_over = judged(data, self._asked)
        except (SourceRejected, NoHandshake) as error:
            self._over = True
            self._told.refused = error
            self._transport.abort()
            return
        self._kept = data[whole:]
        if is_over:
            self._over = True
            self._told.heard_md5 = self._asked.md5 and not self._asked.secure
            answers = self._told.answers = Answers(self._driver, self._transport)
            self._transport.set_protocol(answers)
            self._driver.data_received(data[:whole])
            answers.data_received(data[whole:])
        elif whole:
            self._driver.data_received(data[:whole])

    def connection_lost(self, error: Exception | None) -> None:
        self._driver.connection_lost(error)

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


class _Transport:
    """A transport to which the driver may give its protocol later: after the question whether there is TLS."""

    def __init__(self, transport: Any, told: GreetingLoop) -> None:
        self.transport = transport
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def set_protocol(self, protocol: Any) -> None:
        if isinstance(protocol, Protocol):
            Greeter(protocol, self._told).begin(self.transport)
        else:
            self.transport.set_protocol(protocol)


class GreetingLoop(CheckedLoop):
    """The loop for one connection of the driver's.

    refused: why its server was not let go on, if it was not. heard_md5: others may have heard the password's MD5.
    on_tls: the first byte of what was answered to the last question whether there is TLS; N is PostgreSQL's no.
    answers: what stands before the driver since then.
    """

    refused: SourceRejected | NoHandshake | None = None
    heard_md5 = False
    on_tls = b""
    answers: Answers | None = None

    @overrides("asyncpg.connect_utils.__connect_addr", "asyncpg.connect_utils._create_ssl_connection")
    async def create_connection(self, factory: Callable[[], Any], host: str, port: int, **options: Any) -> Any:
        return self._given(*await super().create_connection(self._before(factory), host, port, **options))

    @overrides("asyncpg.connect_utils.__connect_addr")
    async def create_unix_connection(self, factory: Callable[[], Any], path: str, **options: Any) -> Any:
        return self._given(*await super().create_unix_connection(self._before(factory), path, **options))

    @overrides("asyncpg.connect_utils._create_ssl_connection")
    async def start_tls(self, transport: Any, *words: Any, **options: Any) -> Any:
        inner = transport.transport if isinstance(transport, _Transport) else transport
        made = await self._loop.start_tls(inner, *words, **options)
        return None if made is None else _Transport(made, self)

    def _before(self, factory: Callable[[], Any]) -> Callable[[], Any]:
        def made() -> Any:
            protocol = factory()
            if isinstance(protocol, Protocol):
                return Greeter(protocol, self)
            self._overhear(protocol)
            return protocol

        return made

    def _overhear(self, question: Any) -> None:
        self.on_tls = b""
        received = question.data_received

        def data_received(data: bytes) -> None:
            self.on_tls = self.on_tls or data[:1]
            received(data)

        question.data_received = data_received

    def _given(self, transport: Any, protocol: Any) -> tuple[Any, Any]:
        """As the driver expects it: with the protocol that it has made."""
        if isinstance(protocol, Greeter):
            return transport, protocol._driver
        return _Transport(transport, self), protocol
