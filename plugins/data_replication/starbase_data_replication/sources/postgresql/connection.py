"""A connection to PostgreSQL: how it is opened, and how it leaves nothing behind on the server.

A pooler that hands out connections by transaction gives the next client what we leave: a statement's name, a setting.
asyncpg names the statements of its cursors, and resets a session, with the settings of every client that shares it,
when a connection goes back to the pool. Must not know what is read over it.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from starbase_data_replication.sources.network import HostPolicy
from starbase_data_replication.sources.postgresql.answer_limits import AnswerLimiter
from starbase_data_replication.sources.postgresql.errors import NO_TLS
from starbase_data_replication.sources.postgresql.handshake import HandshakeLoop, NotPostgresql
from starbase_data_replication.sources.unreachable import lookup_timed_out, place, speaks_another_protocol, unreachable
from starbase_host import overrides

# A source that hangs must not hold a run for ever; a statement that scans a table may take minutes.
STATEMENT_TIMEOUT_SECONDS = 600.0

# How many statements a connection keeps the description of, and the longest text of one: enough for the syncs of some
# tables that find nothing new.
MAX_KEPT = 32
MAX_KEPT_CHARACTERS = 40_000


# The types of the columns that this dialect's statements answer, by their numbers, which are the same on every server:
# bool, bytea, name, int8, int2, int4, text, oid, float8, varchar, timestamp, void. An array, or a type that is made of
# others, is never among them: the driver reserves memory for as many parts as its value says that it has, and calls
# itself for a part inside a part, without a bound.
ANSWERED = frozenset((16, 17, 19, 20, 21, 23, 25, 26, 701, 1043, 1114, 2278))


class UnaskedType(TypeError):
    """The server describes a type that no statement of ours asks for."""


class Connection(asyncpg.Connection):
    """A connection whose statements have no name, and that needs no reset: everything ends with its transaction."""

    # Whether the role may ask which server this is.
    tells_server = True
    # Whether others on the network may have read the MD5 hash of its password.
    md5_exposed = False
    # Receives what the server sends before the driver's protocol does, and limits it.
    limiter: AnswerLimiter

    def ask_for_server(self, asked: bool) -> None:
        self.tells_server = asked

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        # Descriptions of statements by their text; and the one text that may be kept now.
        self._kept: dict[str, Any] = {}
        self._keeping: str | None = None

    # Without a time limit, a server that sends a byte of its answer now and then holds a run for ever: such bytes count
    # as progress. COPY is limited by `RowStream`, row by row.
    @overrides(library="asyncpg")
    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        with _warnings_as_errors():
            return str(await super().execute(query, *args, timeout=_limited(timeout)))

    @overrides(library="asyncpg")
    async def fetch(self, query: str, *values: Any, timeout: float | None = None, **options: Any) -> Any:
        with _warnings_as_errors():
            return await super().fetch(query, *values, timeout=_limited(timeout), **options)

    @overrides(library="asyncpg")
    async def fetchval(self, query: str, *values: Any, timeout: float | None = None, **options: Any) -> Any:
        with _warnings_as_errors():
            return await super().fetchval(query, *values, timeout=_limited(timeout), **options)

    @overrides(library="asyncpg")
    async def fetchrow(self, query: str, *values: Any, timeout: float | None = None, **options: Any) -> Any:
        with _warnings_as_errors():
            return await super().fetchrow(query, *values, timeout=_limited(timeout), **options)

    @overrides(library="asyncpg")
    async def copy_from_query(self, query: str, *values: Any, **options: Any) -> str:
        with _warnings_as_errors():
            return str(await super().copy_from_query(query, *values, **options))

    async def fetch_known(self, sql: str, *values: Any) -> Sequence[asyncpg.Record]:
        """As `fetch`, for a statement whose text alone determines the types of its values and columns.

        The server describes it once. After that it is sent in one message with its values, and the server parses it
        once instead of twice. It still has no name, so nothing stays on the server. Never use it for a statement that
        returns a column of a user's table: after an ALTER TABLE, its bytes would be read as the old type.
        """
        self._keeping = sql
        try:
            records: Sequence[asyncpg.Record] = await self.fetch(sql, *values)
            return records
        finally:
            self._keeping = None

    @overrides("asyncpg.connection.Connection._do_execute", "asyncpg.connection.Connection._prepare")
    async def _get_statement(self, query: str, timeout: float | None, **options: Any) -> Any:
        kept = query == self._keeping and len(query) <= MAX_KEPT_CHARACTERS
        if kept and (known := self._kept.get(query)) is not None:
            return known
        statement = await super()._get_statement(query, timeout, **{**options, "named": False})  # type: ignore[misc]
        if any(attribute.type.oid not in ANSWERED for attribute in statement._get_attributes()):
            raise UnaskedType
        # A statement that is marked as not prepared is sent together with its values.
        if kept and not statement.prepared:
            while len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[query] = statement
        return statement

    @overrides("asyncpg.connection.Connection._get_statement")
    async def _introspect_types(self, typeoids: Any, timeout: float | None) -> Any:
        """Types that the driver does not know are not ours; it would believe whatever the server says of them."""
        raise UnaskedType

    async def prove_single(self, sql: str) -> None:
        """Let the server parse this text by the extended protocol, which raises an error unless it is one statement."""
        protocol: Any = self._protocol  # type: ignore[attr-defined]
        await protocol.prepare(
            "", sql, STATEMENT_TIMEOUT_SECONDS, record_class=asyncpg.Record, ignore_custom_codec=True
        )

    @overrides("asyncpg.connection.Connection.reset")
    def get_reset_query(self) -> str:
        return ""


class RaisedWarning(asyncpg.PostgresError):
    """An error that a function of the server raised in an SQLSTATE of warnings, without its text."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("a warning")
        # As the driver sets the fields of an error that the server sent.
        vars(self).update(sqlstate=sqlstate, severity="ERROR")


class _warnings_as_errors:
    """Raises RaisedWarning for an error in an SQLSTATE of warnings.

    The driver makes an object of it that cannot pass through a context manager of contextlib's.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, asyncpg.PostgresWarning):
            raise RaisedWarning(error.sqlstate) from None


def _limited(timeout: float | None) -> float:
    return STATEMENT_TIMEOUT_SECONDS if timeout is None else timeout


async def connect(*words: Any, policy: HostPolicy, loop: Any = None, **options: Any) -> Connection:
    """As asyncpg.connect, but only to an address where a source may be.

    Raises OSError if there is no connection, asyncpg.PostgresError if the server refuses it, and SourceRejected for a
    handshake that no PostgreSQL server needs.
    """
    handshake: Any = HandshakeLoop(asyncio.get_running_loop(), policy)
    try:
        connection: Connection = await asyncpg.connect(*words, loop=handshake, **options)
        connection.md5_exposed, connection.limiter = handshake.md5_exposed, handshake.limiter
        return connection
    except ssl.SSLError:
        raise
    except OSError as error:
        if (refused := _refused(handshake, options)) is not None:
            raise refused from error
        if handshake.tls_answer == b"N" and NO_TLS in str(error) and isinstance(error.__cause__, asyncpg.PostgresError):
            # With `allow`, the error of the attempt without TLS is the reason, not that the server has no TLS.
            raise error.__cause__ from None
        if isinstance(error, TimeoutError) and handshake.looks_up:
            raise lookup_timed_out(handshake.looks_up) from error
        raise _unreachable(error, options, handshake.tls_answer) from error
    except asyncpg.PostgresError as error:
        if (refused := _refused(handshake, options)) is None:
            raise
        raise refused from error


def _refused(handshake: HandshakeLoop, options: Mapping[str, Any]) -> Exception | None:
    """Why the handshake was broken off on this side, if it was."""
    if isinstance(handshake.refused, NotPostgresql):
        return speaks_another_protocol(_where(options), "PostgreSQL")
    return handshake.refused


def _where(options: Mapping[str, Any]) -> str:
    hosts, ports = (value if isinstance(value, list) else [value] for value in (options["host"], options["port"]))
    both = zip(hosts, ports, strict=True)
    return ", ".join(host if host.startswith("/") else place(host, port) for host, port in both)


def _unreachable(error: OSError, options: Mapping[str, Any], tls_answer: bytes) -> OSError:
    """Why there is no connection, for these arguments of the driver. TimeoutError is an OSError too.

    tls_answer: the first byte of the server's answer to the request for TLS.
    """
    where = _where(options)
    if NO_TLS in str(error):
        # N is PostgreSQL's answer if it has no TLS. No PostgreSQL server sends anything else here.
        return error if tls_answer == b"N" else speaks_another_protocol(where, "PostgreSQL")
    if "connection_lost" in str(error):
        error = ConnectionResetError(errno.ECONNRESET, "")
    return unreachable(error, where)
