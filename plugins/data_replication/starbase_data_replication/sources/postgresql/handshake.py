"""The limits of a handshake: what a server may send until the login is done, checked before the driver sees it.

Anyone who listens at the configured address chooses how often the password is hashed, and the driver hashes on the
event loop, where nothing can interrupt it. They also choose the authentication method, and the driver would send the
password itself. Must not know what comes after the handshake.
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
from starbase_data_replication.sources.postgresql.answer_limits import AnswerLimiter, OddSetting, check_setting
from starbase_data_replication.sources.settings import leave_out_dhe
from starbase_host import overrides

# PostgreSQL's default is 4,096, as it is with the large providers; CockroachDB's is 10,610. So many take about 50 ms.
MAX_ITERATIONS = 100_000
ITERATIONS = re.compile(rb",i=(\d+)")

# The kinds of message that may come, and the longest length of each in bytes, as libpq has them: authentication,
# errors, notices, versions, settings, the key for cancelling, and ReadyForQuery. Until that one, the driver answers
# every request for a password, also one after AuthenticationOk.
AUTHENTICATION, READY, SETTING = b"R", b"Z", b"S"
LONGEST = {AUTHENTICATION: 2_000, READY: 5, **dict.fromkeys((b"E", b"N", b"v", b"S"), 30_000), b"K": 300}
# The shortest ones: the driver reads beyond the end of a message that lacks a part, and goes on from there.
SHORTEST = {AUTHENTICATION: 8, READY: 5, **dict.fromkeys((b"E", b"N"), 5), b"K": 12}
# Their texts end with a zero byte.
ZERO_ENDED = frozenset((b"E", b"N"))
HEAD_BYTES = 5
SALT_BYTES = 4
# Authentication requests: AuthenticationOk, the password itself, its MD5 hash with a salt, and the steps of SCRAM.
OK, CLEARTEXT, MD5, SASL, SASL_CONTINUE, SASL_FINAL = 0, 3, 5, 10, 11, 12
# The requests that may follow each request; None is the beginning. The driver answers them in any order, with methods
# of what an earlier one has set up: without that, its compiled code ends the process.
NEXT: dict[int | None, frozenset[int]] = {
    None: frozenset((OK, CLEARTEXT, MD5, SASL)),
    CLEARTEXT: frozenset((OK,)),
    MD5: frozenset((OK,)),
    SASL: frozenset((SASL_CONTINUE,)),
    SASL_CONTINUE: frozenset((SASL_FINAL,)),
    SASL_FINAL: frozenset((OK,)),
    OK: frozenset(),
}
# A warning in the status.
MD5_EXPOSED = (
    "the server asks for the password by md5, and without TLS anyone in its place, or on the way, could find it out by "
    "guessing; set sslmode to require, or password_encryption at the server to scram-sha-256 and the password again"
)


class NotPostgresql(Exception):
    """The bytes are not a PostgreSQL handshake."""


class HandshakeState:
    """What a server has asked for so far.

    Attributes:
        secure: whether only the server can read the answers, over TLS or a Unix socket.
        md5: whether it asked for the password's MD5 hash.
        last: the number of its last request; None before the first.
    """

    def __init__(self, *, secure: bool = False) -> None:
        self.secure = secure
        self.md5 = False
        self.last: int | None = None


def check_handshake(data: bytes, state: HandshakeState) -> tuple[int, bool]:
    """How many of these bytes the driver may have, in whole messages, and whether they end the handshake.

    Raises SourceRejected for a request that could reveal the password or block the host, and NotPostgresql for bytes
    that are not PostgreSQL's.
    """
    at = 0
    while len(data) - at >= HEAD_BYTES:
        kind, length = data[at : at + 1], int.from_bytes(data[at + 1 : at + HEAD_BYTES], "big")
        if not SHORTEST.get(kind, 4) <= length <= LONGEST.get(kind, 0):
            raise NotPostgresql
        end = at + 1 + length
        if end > len(data):
            break
        if kind in ZERO_ENDED and data[end - 1] != 0:
            raise NotPostgresql
        if kind == AUTHENTICATION:
            _check_request(int.from_bytes(data[at + 5 : at + 9], "big"), data[at + 9 : end], state)
        if kind == SETTING:
            try:
                check_setting(data[at + HEAD_BYTES : end])
            except OddSetting as error:
                raise SourceRejected(str(error)) from error
        if kind == READY:
            if state.last != OK:
                raise NotPostgresql
            return end, True
        at = end
    return at, False


def _check_request(number: int, text: bytes, state: HandshakeState) -> None:
    if number not in NEXT:
        raise SourceRejected(
            "the server asks for a login that is neither scram-sha-256, md5 nor password; allow scram-sha-256 for this "
            f"user in the server's pg_hba.conf (method {number})"
        )
    if number not in NEXT[state.last] or not _is_whole(number, text):
        raise NotPostgresql
    state.last = number
    if number == SASL_CONTINUE:
        _check_iterations(text)
    elif number == MD5:
        state.md5 = True
    elif number == CLEARTEXT and not state.secure:
        raise SourceRejected(
            "the server asks for the password in clear, and without TLS anyone in its place could read it; set sslmode "
            "to require, or the server's pg_hba.conf to scram-sha-256"
        )


def _is_whole(number: int, text: bytes) -> bool:
    """Whether the driver finds in this request what it reads: a salt, or a list that ends with an empty name."""
    if number == MD5:
        return len(text) >= SALT_BYTES
    return number != SASL or text.endswith(b"\0\0")


def _check_iterations(text: bytes) -> None:
    for found in ITERATIONS.findall(text):
        if len(found) > 10 or int(found) > MAX_ITERATIONS:
            raise SourceRejected(
                f"the server asks for more than {MAX_ITERATIONS:,} rounds of hashing the password, which would stop "
                "the host meanwhile; check host of sourceConfig, or set the password again with a smaller "
                "scram_iterations at the server"
            )


class HandshakeGuard(asyncio.Protocol):
    """Receives what the server sends until it is ready for statements, and passes whole messages to the driver."""

    def __init__(self, driver: Any, loop: HandshakeLoop) -> None:
        self._driver = driver
        self._loop = loop
        self._transport: Any = None
        self._rest = b""
        self._over = False
        self._state = HandshakeState()

    def connection_made(self, transport: Any) -> None:
        self._set_transport(transport)
        self._driver.connection_made(transport)

    def begin(self, transport: Any) -> None:
        """Receive in the place of a driver that already has its transport."""
        self._set_transport(transport)
        transport.set_protocol(self)

    def _set_transport(self, transport: Any) -> None:
        self._transport = transport
        connection = transport.get_extra_info("socket")
        local = connection is not None and connection.family == socket.AF_UNIX
        self._state.secure = local or transport.get_extra_info("ssl_object") is not None

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        data = self._rest + data
        try:
            whole, is_over = check_handshake(data, self._state)
        except (SourceRejected, NotPostgresql) as error:
            self._over = True
            self._loop.refused = error
            self._transport.abort()
            return
        self._rest = data[whole:]
        if is_over:
            self._over = True
            self._loop.md5_exposed = self._state.md5 and not self._state.secure
            limiter = self._loop.limiter = AnswerLimiter(self._driver, self._transport)
            self._transport.set_protocol(limiter)
            self._driver.data_received(data[:whole])
            limiter.data_received(data[whole:])
        elif whole:
            self._driver.data_received(data[:whole])

    def connection_lost(self, error: Exception | None) -> None:
        self._driver.connection_lost(error)

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


class _Transport:
    """A transport whose protocol the driver sets later, after the request for TLS."""

    def __init__(self, transport: Any, loop: HandshakeLoop) -> None:
        self.transport = transport
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def set_protocol(self, protocol: Any) -> None:
        if isinstance(protocol, Protocol):
            HandshakeGuard(protocol, self._loop).begin(self.transport)
        else:
            self.transport.set_protocol(protocol)


class HandshakeLoop(CheckedLoop):
    """The event loop, as one connection of the driver uses it.

    Attributes:
        refused: why the handshake was broken off on this side; None if it was not.
        md5_exposed: whether others on the network may have read the MD5 hash of the password.
        tls_answer: the first byte of the answer to the last request for TLS; N means that the server has none.
        limiter: receives what the server sends after the handshake; None until then.
    """

    refused: SourceRejected | NotPostgresql | None = None
    md5_exposed = False
    tls_answer = b""
    limiter: AnswerLimiter | None = None

    @overrides("asyncpg.connect_utils.__connect_addr", "asyncpg.connect_utils._create_ssl_connection")
    async def create_connection(self, factory: Callable[[], Any], host: str, port: int, **options: Any) -> Any:
        return self._given(*await super().create_connection(self._before(factory), host, port, **options))

    @overrides("asyncpg.connect_utils.__connect_addr")
    async def create_unix_connection(self, factory: Callable[[], Any], path: str, **options: Any) -> Any:
        return self._given(*await super().create_unix_connection(self._before(factory), path, **options))

    @overrides("asyncpg.connect_utils._create_ssl_connection")
    async def start_tls(self, transport: Any, protocol: Any, context: Any, **options: Any) -> Any:
        # For the modes allow and prefer, the driver makes the context.
        leave_out_dhe(context)
        inner = transport.transport if isinstance(transport, _Transport) else transport
        made = await self._loop.start_tls(inner, protocol, context, **options)
        return None if made is None else _Transport(made, self)

    def _before(self, factory: Callable[[], Any]) -> Callable[[], Any]:
        def make() -> Any:
            protocol = factory()
            if isinstance(protocol, Protocol):
                return HandshakeGuard(protocol, self)
            self._keep_tls_answer(protocol)
            return protocol

        return make

    def _keep_tls_answer(self, question: Any) -> None:
        self.tls_answer = b""
        received = question.data_received

        def data_received(data: bytes) -> None:
            self.tls_answer = self.tls_answer or data[:1]
            received(data)

        question.data_received = data_received

    def _given(self, transport: Any, protocol: Any) -> tuple[Any, Any]:
        """As the driver expects it: with the protocol that it has made."""
        if isinstance(protocol, HandshakeGuard):
            return transport, protocol._driver
        return _Transport(transport, self), protocol
