"""What a server may ask of us until it has let us in: judged before the driver works on it.

Owns the bounds of a handshake. Must not know what comes after it. Whoever listens at the configured address chooses how
often the password is hashed, and the driver hashes on the event loop, where nothing can interrupt it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from asyncpg.protocol import Protocol

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.sources.reach import CheckedLoop
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
SASL_CONTINUE = 11


class NoHandshake(Exception):
    """What came has not the shape of a handshake of PostgreSQL's."""


def judged(data: bytes) -> tuple[int, bool]:
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
        if kind == AUTHENTICATION and int.from_bytes(data[at + 5 : at + 9], "big") == SASL_CONTINUE:
            _judge_iterations(data[at + 9 : end])
        if kind == READY:
            return len(data), True
        at = end
    return at, False


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

    def __init__(self, driver: Any, refuse: Callable[[SourceRejected | NoHandshake], None]) -> None:
        self._driver = driver
        self._refuse = refuse
        self._transport: Any = None
        self._kept = b""
        self._over = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._driver.connection_made(transport)

    def begin(self, transport: Any) -> None:
        """Stand before a driver that already knows its transport."""
        self._transport = transport
        transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        data = self._kept + data
        try:
            whole, is_over = judged(data)
        except (SourceRejected, NoHandshake) as error:
            self._over = True
            self._refuse(error)
            self._transport.abort()
            return
        self._kept = data[whole:]
        if is_over:
            self._over = True
            self._transport.set_protocol(self._driver)
        if whole:
            self._driver.data_received(data[:whole])

    def connection_lost(self, error: Exception | None) -> None:
        self._driver.connection_lost(error)

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


class _Transport:
    """A transport to which the driver may give its protocol later: after the question whether there is TLS."""

    def __init__(self, transport: Any, refuse: Callable[[SourceRejected | NoHandshake], None]) -> None:
        self.transport = transport
        self._refuse = refuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def set_protocol(self, protocol: Any) -> None:
        if isinstance(protocol, Protocol):
            Greeter(protocol, self._refuse).begin(self.transport)
        else:
            self.transport.set_protocol(protocol)


class GreetingLoop(CheckedLoop):
    """The loop for one connection of the driver's. `refused` is why its server was not let go on, if it was not."""

    refused: SourceRejected | NoHandshake | None = None

    def _refuse(self, error: SourceRejected | NoHandshake) -> None:
        self.refused = error

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
        return None if made is None else _Transport(made, self._refuse)

    def _before(self, factory: Callable[[], Any]) -> Callable[[], Any]:
        def made() -> Any:
            protocol = factory()
            return Greeter(protocol, self._refuse) if isinstance(protocol, Protocol) else protocol

        return made

    def _given(self, transport: Any, protocol: Any) -> tuple[Any, Any]:
        """As the driver expects it: with the protocol that it has made."""
        if isinstance(protocol, Greeter):
            return transport, protocol._driver
        return _Transport(transport, self._refuse), protocol
