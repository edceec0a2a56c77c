"""A connection to MySQL or MariaDB: how it is opened, prepared and closed.

aiomysql's connection, repaired: that one continues in clear text if the server has no TLS, sets no limit to a
handshake, allows several statements in one text, and reads a result set to its end before it closes. Must not know
what is read over it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import aiomysql
from aiomysql.connection import FieldDescriptorPacket
from pymysql.constants import CLIENT, CR, SERVER_STATUS
from pymysql.err import InternalError, OperationalError

from starbase_data_replication.sources.batches import ANSWER_BYTES, COLUMN_BYTES, MESSAGE_BYTES, VALUE_BYTES, TooMuch
from starbase_data_replication.sources.expressions import Syntax
from starbase_data_replication.sources.mysql.authentication import AuthenticatingConnection
from starbase_data_replication.sources.mysql.packets import RowParser
from starbase_data_replication.sources.mysql.session_variables import CLOCK, names, variables_sql
from starbase_data_replication.sources.network import HostPolicy
from starbase_data_replication.sources.unreachable import lookup_timed_out, place, speaks_another_protocol, unreachable
from starbase_host import overrides

# A source that hangs must not hold a run for ever; a statement that scans a table may take minutes.
STATEMENT_TIMEOUT_SECONDS = 600.0
GOODBYE_SECONDS = 2.0
# How many bytes are parsed at once. The event loop is blocked meanwhile.
RECEIVE_BYTES = 1 << 16

# The modes that decide how an expression is parsed: what quotes a name or a text, how || and NOT bind, and what '' is.
# With other modes than the server's, a `where` could silently become another condition. Our SQL works with any.
KEPT_MODES = (
    "ANSI_QUOTES", "PIPES_AS_CONCAT", "NO_BACKSLASH_ESCAPES", "IGNORE_SPACE", "HIGH_NOT_PRECEDENCE",
    "NO_UNSIGNED_SUBTRACTION", "EMPTY_STRING_IS_NULL",
)  # fmt: skip
_KEPT = ", ".join(f"IF(FIND_IN_SET('{mode}', @@SESSION.sql_mode), '{mode}', NULL)" for mode in KEPT_MODES)
# Evaluated while the session still has the modes that its server gives it.
MODES = f"CONCAT_WS(',', 'ALLOW_INVALID_DATES', {_KEPT})"

# Settings that make a value's text the same on every server, and that lift a server's limits: a limit of time or rows
# would silently lose rows of a long read. lock_wait_timeout ends a wait for a locked table, which would continue on the
# server after this host has given up. sql_mode keeps the modes for which a user's `where` was written, and drops every
# other that changes the meaning of SQL; stored invalid and zero dates must be allowed in comparisons. With mrr, rows
# that an index has found are read in the order of the disk, some ten thousand at a time. completion_type could end each
# session with its transaction.
SETTINGS = (
    f"SET NAMES utf8mb4, SESSION time_zone = '+00:00', SESSION sql_mode = {MODES}, "
    "SESSION sql_select_limit = 18446744073709551615, SESSION sql_big_selects = 1, "
    "SESSION max_sort_length = 8192, SESSION lock_wait_timeout = 300, "
    "SESSION optimizer_switch = 'mrr=on,mrr_cost_based=off', SESSION net_write_timeout = 3600, "
    "SESSION completion_type = 'NO_CHAIN', "
)
OF_MARIADB = "SESSION max_statement_time = 0, SESSION mrr_buffer_size = 4194304"
OF_MYSQL = "SESSION max_execution_time = 0"
# Settings of newer versions: the number of a table's rows must not be a day old, and a primary key that the server has
# generated, in a hidden column, identifies rows like any other.
SINCE_MYSQL = {
    (8, 0, 0): ", SESSION information_schema_stats_expiry = 0",
    (8, 0, 30): ", SESSION show_gipk_in_create_table_and_information_schema = ON",
}
# InnoDB marks these transactions as READ ONLY, so that other readers do not count them: see transactions.py.
ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"


# COM_RESET_CONNECTION: the session begins again, without a login.
RESET = 0x1F

# The most that a server may send, in bytes, before the session is prepared.
OPENING_BYTES = 1 << 20

# What the driver raises for bytes that it cannot parse.
NO_ANSWER = (AssertionError, LookupError, ValueError, struct.error)


class Cursor(aiomysql.Cursor):  # type: ignore[misc]
    @overrides("aiomysql.cursors.Cursor._do_get_result")
    async def _show_warnings(self, connection: Any) -> None:
        """Do nothing: the driver would log the server's warnings, which may quote a row's value."""


class Connection(AuthenticatingConnection):
    """One connection, prepared when `open` returns. Values are the server's text, or bytes."""

    def __init__(self, *, policy: HostPolicy, tls_required: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._policy = policy
        # The configured host: certificates are checked against it, not against its address.
        self._name = self._host
        self._looks_up = False
        # The driver's converters cost more time than the network; the casts convert what is needed.
        self.decoders: dict[int, Any] = {}
        self._tls_required = tls_required
        self.is_mariadb = False
        # When the session began, by the event loop's clock, and how often it was used: a session keeps the global
        # privileges that its account had at the beginning.
        self.began_at = 0.0
        self.uses = 0
        self.version = (0, 0, 0)
        self._answer_begins = False
        # The size of the answer so far, in bytes of memory, and how many columns it has.
        self._charged = self._columns = 0
        self._most = OPENING_BYTES
        # Whether this session may not ask if the server is a replica.
        self.may_not_see_replication = False
        # Whether this session may not see the files of tables.
        self.sees_no_files = False
        # Whether code of the source has run in this session, and what its variables were before.
        self.ran_code = False
        self.noted: dict[str, Any] | None = None
        # By database and table: when triggers were last looked up, and whether they may set the tracking column.
        self.value_triggers: dict[tuple[str, str], tuple[float | None, bool]] = {}

    async def open(self) -> None:
        """Connect and prepare the session, within `connect_timeout` in total."""
        try:
            async with asyncio.timeout(self.connect_timeout):
                self.began_at = self.loop.time()
                await self._connect_to_any()
                ((version,),) = await self.fetch("SELECT version()")
                self.is_mariadb = "mariadb" in version.lower()
                self.version = version_of(version)
                await self._prepare()
                self._most = ANSWER_BYTES
        except TimeoutError as error:
            self.close()
            raise lookup_timed_out(self._name) if self._looks_up else unreachable(error, self._place) from error
        except BaseException:
            self.close()
            raise

    @property
    def syntax(self) -> Syntax:
        """How this session parses a text; the server reports it with each answer."""
        plain = self.server_status & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES
        return Syntax.MYSQL_PLAIN_BACKSLASHES if plain else Syntax.MYSQL

    @property
    def _place(self) -> str:
        return self._unix_socket or place(self._name, self._port)

    def _of_mysql(self) -> str:
        return OF_MYSQL + "".join(settings for since, settings in SINCE_MYSQL.items() if self.version >= since)

    async def _prepare(self) -> None:
        await self.fetch(SETTINGS + (OF_MARIADB if self.is_mariadb else self._of_mysql()))
        await self.fetch(ISOLATION)

    async def session_variables(self) -> dict[str, Any]:
        """The variables that code of the source may change, by name."""
        (values,) = await self.fetch(variables_sql(mariadb=self.is_mariadb))
        return dict(zip((CLOCK, *names(mariadb=self.is_mariadb)), values, strict=True))

    async def _connect_to_any(self) -> None:
        if self._unix_socket:
            self._policy.check_socket(self._unix_socket)
            addresses = [self._name]
        else:
            self._looks_up = True
            addresses = await self._policy.addresses(self._name)
            self._looks_up = False
        for address in addresses:
            try:
                await self._connect_to(address)
                return
            except OperationalError as error:
                if error.args[0] != CR.CR_CONN_HOST_ERROR:
                    raise
                if address == addresses[-1]:
                    if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, ssl.SSLError):
                        raise unreachable(error.__cause__, self._place) from error
                    raise

    async def _connect_to(self, address: str) -> None:
        self._host = address
        try:
            await self._connect()
        except (*NO_ANSWER, InternalError) as error:
            raise speaks_another_protocol(self._place, "MySQL") from error

    async def fetch(self, sql: str, values: Sequence[str] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement and return every row. Parameters are %s; with parameters, % is written as %%."""
        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS):
            with self._parsing_errors():
                cursor = await self.cursor(Cursor)
                await cursor.execute(sql, values)
                return list(await cursor.fetchall())

    @contextlib.contextmanager
    def _parsing_errors(self) -> Iterator[None]:
        """Close the connection and raise OperationalError for bytes that are not an answer of MySQL's protocol."""
        try:
            yield
        except NO_ANSWER as error:
            self.close()
            raise OperationalError(
                CR.CR_MALFORMED_PACKET, "the server's answer does not follow MySQL's protocol"
            ) from error

    async def stream(self, sql: str, *, parser: Callable[..., RowParser] | None = None) -> RowParser:
        """Begin a SELECT; take its rows with `receive`, and call `streamed` after the last.

        parser: makes the parser of the rows, given the `sequence` to begin with; None is RowParser.
        """
        with self._parsing_errors():
            await self.query(sql, unbuffered=True)
        if parser is not None:
            return parser(sequence=self._next_seq_id)
        binary = [encoding is None for encoding, _ in self._result.converters]
        return RowParser(binary, sequence=self._next_seq_id)

    async def receive(self, wanted: int) -> bytes:
        """The next bytes: not many more than wanted, perhaps fewer. The server waits until the next call."""
        reader = self._reader
        try:
            data: bytes = b"" if reader is None else await reader.read(max(wanted, RECEIVE_BYTES))
        except OSError as error:
            self.close()
            raise OperationalError(CR.CR_SERVER_LOST, "the connection broke") from error
        if not data:
            self.close()
            raise OperationalError(CR.CR_SERVER_LOST, "the connection was closed")
        return data

    def streamed(self) -> None:
        """Free the connection for another statement, after the end of the rows."""
        self._result.unbuffered_active = False
        self._result.connection = None

    async def leave(self) -> None:
        """End the transaction so that the connection can be used again, or close it."""
        if self._result is not None and self._result.unbuffered_active:
            # To end the transaction, the driver would read the rest of the rows first.
            self.close()
        if self.closed:
            return
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await (self._begin_again() if self.ran_code else self.rollback())
        except (aiomysql.Error, OSError):
            self.close()
        except BaseException:
            self.close()
            raise

    async def _begin_again(self) -> None:
        """Begin the session again: variables, locks and roles that code of the source has set would outlive a ROLLBACK.

        Closes the connection if the session is not what it was, since the server's init_connect runs at a login only.
        """
        noted, self.noted, self.ran_code = self.noted, None, False
        with self._parsing_errors():
            await self._execute_command(RESET, b"")
            await self._read_ok_packet()
        await self._prepare()
        if noted is None or noted != await self.session_variables():
            self.close()

    @overrides(library="aiomysql")
    def close(self) -> None:
        """Close at once: an orderly close would wait for the rest of a result, and read it over TLS."""
        if self._writer is not None:
            self._writer.transport.abort()
        super().close()

    @overrides("aiomysql.connection.Connection.query", "aiomysql.connection.Connection.next_result")
    async def _read_query_result(self, unbuffered: bool = False) -> None:
        self._answer_begins = True
        self._charged = self._columns = 0
        await super()._read_query_result(unbuffered)

    @overrides("aiomysql.connection.MySQLResult.read", "aiomysql.connection.MySQLResult.init_unbuffered_query")
    async def _read_packet(self, *words: Any, **options: Any) -> Any:
        if words and words[0] is FieldDescriptorPacket:
            self._columns += 1
            self._charge(COLUMN_BYTES)
        else:
            # In an answer with columns, each packet after their descriptions is a row.
            self._charge(MESSAGE_BYTES + VALUE_BYTES * self._columns)
        packet = await super()._read_packet(*words, **options)
        begins, self._answer_begins = self._answer_begins, False
        if begins and packet.is_load_local_packet():
            # The server asks for a file of this machine. Some releases of the driver would send it.
            self.close()
            raise OperationalError(CR.CR_MALFORMED_PACKET, "the server asks for a file of the host, which is refused")
        return packet

    @overrides("aiomysql.connection.Connection._read_packet")
    async def _read_bytes(self, count: int) -> bytes:
        if self._reader is None:
            raise OperationalError(CR.CR_SERVER_LOST, "the connection was closed here")
        # Counted before they arrive: a packet may continue in the next one without a limit.
        self._charge(count)
        data: bytes = await super()._read_bytes(count)
        return data

    def _charge(self, size: int) -> None:
        """Raises OperationalError if an answer needs too much memory. The rows of a table do not count: `receive`."""
        self._charged += size
        if self._charged > self._most:
            self.close()
            raise OperationalError(CR.CR_MALFORMED_PACKET, str(TooMuch(at_most=self._most)))

    @overrides("aiomysql.connection.Connection._connect")
    async def _request_authentication(self) -> None:
        # Called when the server has sent its capabilities, and nothing was sent to it.
        self._host = self._name
        # A text must never run as several statements.
        self.client_flag &= ~CLIENT.MULTI_STATEMENTS
        if self._tls_required and not self.server_capabilities & CLIENT.SSL:
            raise OperationalError(CR.CR_SSL_CONNECTION_ERROR, "the server has no TLS, which sslMode asks for")
        if not self.server_capabilities & CLIENT.SSL:
            # If it were announced, MySQL would expect a TLS handshake next, and close the connection.
            self.client_flag &= ~CLIENT.SSL
        await super()._request_authentication()


def version_of(text: str) -> tuple[int, int, int]:
    """The first three numbers of a server's version; 0 for what it does not say."""
    numbers = [int(number) for number in re.findall(r"[0-9]+", text)[:3]]
    first, second, third = [*numbers, 0, 0, 0][:3]
    return first, second, third
