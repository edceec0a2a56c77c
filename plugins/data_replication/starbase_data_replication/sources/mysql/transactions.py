"""The open transactions of a MySQL or MariaDB server: listing them, and finding those of an earlier list again.

InnoDB lists transactions from their first use of a table to their end. A statement that waits for a table's lock, or
computes for a while before it writes, is not in that list yet, but has read its NOW(); so sessions with a running
statement count too. Transactions that cannot write, begun READ ONLY as ours are, do not count. Tokens:

    t:thread:id:started     a session's transaction. Its id is given when it first writes; until then empty.
    s:thread:mark           a running statement. mark is MariaDB's number for it, on MySQL the second when it began;
                            with "+second", MariaDB has shown only higher numbers since that second.
    x:id                    a transaction without a session: prepared (XA), or rolled back after a crash.

A session that ran a statement may have a transaction in the next list; one that had a transaction may have prepared it
and ended.

While a stored function or a trigger runs, MariaDB shows the number of the statement inside it, and then again that of
the calling statement. So a number lower than the recorded one is the recorded statement. A higher one may be a
statement inside it, or a new one: it counts as the same until the session is idle, in a transaction, or runs a SELECT
that can only be new; but for BUSY_SECONDS at most, because some sessions are never seen idle.

There is a pause between two lists of one server. Callers that wait for the next list share it: see `_next_list`.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import NamedTuple

from pymysql.constants import ER
from pymysql.err import Error

from starbase_data_replication.model import OpenTransactions
from starbase_data_replication.sources.answers import MOST_TRANSACTIONS, TOO_MANY
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.mysql.replica_status import HIDDEN, applied_expression, why_it_may_replicate

TRANSACTIONS = files(__package__).joinpath("transactions.sql").read_text(encoding="utf-8")

# Sessions with a running statement, the threads that apply another server's transactions, and our own session: a list
# without that one is not complete.
STATEMENTS = """
SELECT CAST(ID AS CHAR), {mark}, USER = 'system user', ID = CONNECTION_ID(), {reads}, CAST(UNIX_TIMESTAMP() AS CHAR)
FROM {sessions}
WHERE ID = CONNECTION_ID() OR (USER <> 'unauthenticated user' AND COMMAND <> 'Daemon'
  AND (USER = 'system user' OR COMMAND NOT IN ('Sleep', 'Binlog Dump', 'Binlog Dump GTID')))
"""
# The first is there on every server of today, and MySQL says that it will go; the second is MySQL's successor, which
# is empty where performance_schema is off.
SESSIONS = "information_schema.PROCESSLIST"
SESSIONS_LATER = "performance_schema.processlist"
MARK_MARIADB = "CAST(QUERY_ID AS CHAR)"
# A SELECT of the session itself: a function or a trigger may have one only with an INTO. The text is cut at 64 KiB.
READS_MARIADB = r"""COALESCE(LENGTH(INFO) < 65535 AND INFO NOT LIKE '%into%'
  AND INFO REGEXP '(?is)^[[:space:](]*+(?:/[*](?![!M]).*?[*]/[[:space:](]*+)?SELECT[^a-z0-9_]', FALSE)"""
MARK_MYSQL = "CAST(UNIX_TIMESTAMP() - COALESCE(TIME, 0) AS CHAR)"

# Of each variable its name and value; with each the same: since when the server runs, as whom it takes us, and whether
# it has ever applied another's transactions. Both terms of the difference are read off the clock of one statement, so
# that it is the same each time. In lower case: names in performance_schema are those of files, and Linux tells the
# cases apart; in information_schema they are not.
SERVER = """
SELECT LOWER(v.VARIABLE_NAME), v.VARIABLE_VALUE,
       CAST(UNIX_TIMESTAMP() AS SIGNED) - CAST(s.VARIABLE_VALUE AS SIGNED), CURRENT_USER(),
       {applied}
FROM {schema}.global_variables v JOIN {schema}.global_status s ON s.VARIABLE_NAME = 'Uptime'
WHERE v.VARIABLE_NAME IN ('hostname', 'port', 'server_uuid', 'read_only', 'innodb_read_only', 'wsrep_on')
"""

# InnoDB renews its list only if it was not read for 0.1 s; we wait longer.
PAUSE_SECONDS = 0.15
TRIES = 10
# Ids from here on are made of an address, of transactions that have written nothing yet.
FIRST_UNREAL_ID = 1 << 48

# For so long, statements of one session that cannot be distinguished count as one: as long as the default lookback.
BUSY_SECONDS = 300

# A table or a column that this user may not read.
DENIED = frozenset({ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR})

KNOWN = "innodb_trx and processlist"
NO_PRIVILEGE = (
    "this user may not see other transactions: GRANT PROCESS ON *.* to it, or make a role that has it a default role"
)
NOT_ALLOWED = "this user may not read the list of other transactions"
READ_ONLY = "the source is read-only: its writers are on another server"
APPLIES = "the source applies the transactions of another server, and only that server knows them"
NOT_LISTED = "the server does not list its sessions: set performance_schema to ON"
CLUSTER = "the source is one of a cluster, and knows only its own transactions"
NOT_RENEWED = "the server's list of transactions was always out of date, because other clients keep reading it"
# What another session of the same account may see, since it has the privileges of today.
HIDDEN_FROM_SESSION = (NO_PRIVILEGE, *HIDDEN)
# The reasons of a listing that did not read InnoDB's list.
NOT_READ = (NO_PRIVILEGE, APPLIES, NOT_LISTED)
OTHER_SERVER = "another server answers than when the watermark was read"


class Transaction(NamedTuple):
    """id: empty while it has written nothing."""

    thread: str
    id: str
    started: str

    @property
    def token(self) -> str:
        return f"t:{self.thread}:{self.id}:{self.started}"


@dataclass(frozen=True, kw_only=True)
class TransactionList:
    """What a server listed at one time.

    Attributes:
        unknown: why there is no list; empty if there is one.
        transient: whether the next try may give one.
        server: which server it was.
        started: when that server began to run, in seconds by its clock.
        at: the server's clock, in seconds.
        statements: marks of running statements, by thread.
        reading: threads whose statement is a SELECT of the session itself; MariaDB only.
        transactions: those of sessions.
        without_session: tokens of those without one.
    """

    unknown: str = ""
    transient: bool = False
    server: str = ""
    started: str = ""
    at: int = 0
    statements: dict[str, str] = field(default_factory=dict)
    reading: frozenset[str] = frozenset()
    transactions: tuple[Transaction, ...] = ()
    without_session: frozenset[str] = frozenset()

    @property
    def open_transactions(self) -> OpenTransactions:
        if self.unknown:
            return OpenTransactions(known=False, reason=self.unknown, transient=self.transient)
        tokens = {transaction.token for transaction in self.transactions} | self.without_session
        tokens |= {f"s:{thread}:{mark}" for thread, mark in self.statements.items()}
        return OpenTransactions(
            known=True, tokens=frozenset(tokens), reason=KNOWN, epoch=f"{self.server} {self.started}"
        )


def still_open(noted: OpenTransactions, now: TransactionList) -> OpenTransactions:
    """The transactions of an earlier set that are open now. One that may be the same counts as the same."""
    if not noted.known:
        return noted
    server, _, started = noted.epoch.rpartition(" ")
    if now.unknown or server != now.server:
        return replace(noted, known=False, reason=now.unknown or OTHER_SERVER, transient=now.transient)
    if started != now.started:
        # The numbers of threads and statements begin again; only prepared transactions survive a restart.
        now = replace(now, started=started, statements={}, transactions=())
    without_session = {token for token in noted.tokens if token.startswith("x:")}
    still = without_session & now.without_session
    found = _Found(now)
    ended = False
    for token in noted.tokens - without_session:
        seen = _seen_again(token, now, found)
        still |= seen
        ended |= not seen
    if ended:
        # One that has ended may have been prepared: then it is one of the new ones without a session.
        still |= now.without_session - without_session
    return replace(noted, tokens=frozenset(still))


class _Found:
    """The transactions of a list, by their thread and start, and by their thread."""

    def __init__(self, now: TransactionList) -> None:
        self.by_start: dict[tuple[str, str], dict[str, Transaction]] = {}
        self.by_thread: dict[str, set[str]] = {}
        for each in now.transactions:
            self.by_start.setdefault((each.thread, each.started), {})[each.id] = each
            self.by_thread.setdefault(each.thread, set()).add(each.token)

    def later(self, earlier: Transaction) -> set[str]:
        """The tokens of those that may be the same, seen earlier: it keeps the id that it was given."""
        same_start = self.by_start.get((earlier.thread, earlier.started), {})
        if earlier.id:
            same_start = {earlier.id: same_start[earlier.id]} if earlier.id in same_start else {}
        return {each.token for each in same_start.values()}


def _seen_again(token: str, now: TransactionList, found: _Found) -> set[str]:
    """The tokens now of what had this token; empty if it has ended."""
    kind, thread, rest = token.split(":", 2)
    if kind == "t":
        number, _, started = rest.partition(":")
        return found.later(Transaction(thread, number, started))
    mark = _mark_now(thread, rest, now)
    if mark is not None:
        return {f"s:{thread}:{mark}"}
    return found.by_thread.get(thread, set())


def _mark_now(thread: str, noted: str, now: TransactionList) -> str | None:
    """The statement's mark now; None if it has ended, or is a transaction."""
    mark = now.statements.get(thread)
    if mark is None or noted.startswith("@") != mark.startswith("@"):
        return None
    if noted.startswith("@"):
        # A second of tolerance on either side: both clocks that it is made of are cut to seconds.
        return noted if abs(int(noted[1:]) - int(mark[1:])) <= 1 else None
    number, _, since = noted.partition("+")
    if int(mark) <= int(number):
        return number
    first = min(int(since or now.at), now.at)
    if thread in now.reading or now.at - first > BUSY_SECONDS:
        return None
    return f"{number}+{first}"


async def open_transactions(connection: Connection, server: tuple[object, ...], *, apart: str = "") -> TransactionList:
    """List the open transactions, from inside a READ ONLY transaction. `server`: where the connection leads.

    The list was made after this call began, perhaps over another caller's connection. apart: the list is shared only
    among calls with the same value: a session keeps the privileges with which it began, so it may see more than other
    sessions of its account.
    """
    try:
        return await _list_transactions(connection, server, apart)
    except Error as error:
        if error.args[0] not in DENIED:
            raise
        return TransactionList(unknown=f"{NOT_ALLOWED}: the server says: {error.args[1]}")


async def _list_transactions(connection: Connection, server: tuple[object, ...], apart: str) -> TransactionList:
    schema = "information_schema" if connection.is_mariadb else "performance_schema"
    rows = await connection.fetch(SERVER.format(schema=schema, applied=applied_expression(connection)))
    variables: dict[str, str] = {variable: value for variable, value, *_ in rows}
    if variables.get("wsrep_on") == "ON":
        return TransactionList(unknown=CLUSTER)
    if {variables.get("read_only"), variables.get("innodb_read_only")} != {"OFF"}:
        return TransactionList(unknown=READ_ONLY)
    *_, started, account, applied = rows[0]
    name = ":".join(variables[each] for each in ("hostname", "port", "server_uuid") if each in variables)
    pause = _pauses.setdefault(asyncio.get_running_loop(), {}).setdefault(server, _Pause())
    for _ in range(TRIES):
        # These decide what can be seen: one address may lead to several servers, and the privileges are those of the
        # account, which the server picks by user and address.
        seen = await _next_list(connection, pause, (name, started, account, apart))
        if not seen.unknown:
            seen = replace(seen, unknown=await why_it_may_replicate(connection, applied))
        if not seen.transient:
            return replace(seen, server=name, started=started)
    return TransactionList(unknown=NOT_RENEWED, transient=True)


async def _list_once(connection: Connection) -> TransactionList:
    # Statements first: one that becomes an idle transaction in between is then in both lists, not in neither.
    marks = {"mark": f"CONCAT('@', {MARK_MYSQL})", "reads": "FALSE"}
    if connection.is_mariadb:
        marks = {"mark": MARK_MARIADB, "reads": READS_MARIADB}
    try:
        listed = await connection.fetch(STATEMENTS.format(**marks, sessions=SESSIONS))
    except Error as error:
        if error.args[0] not in (ER.UNKNOWN_TABLE, ER.NO_SUCH_TABLE):
            raise
        listed = await connection.fetch(STATEMENTS.format(**marks, sessions=SESSIONS_LATER))
    running = [row for row in listed if row[3] != "1"]
    if len(running) == len(listed):
        return TransactionList(unknown=NOT_LISTED)
    if any(applies == "1" for _, _, applies, *_ in running):
        return TransactionList(unknown=APPLIES)
    try:
        rows = await connection.fetch(TRANSACTIONS.replace("{nonce}", uuid.uuid4().hex))
    except Error as error:
        if error.args[0] != ER.SPECIFIC_ACCESS_DENIED_ERROR:
            raise
        return TransactionList(unknown=NO_PRIVILEGE)
    if all(fresh != "1" for *_, fresh in rows):
        return TransactionList(unknown=NOT_RENEWED, transient=True)
    statements = {thread: mark for thread, mark, *_ in running}
    reading = frozenset(thread for thread, _, _, _, reads, _ in running if reads == "1")
    transactions: set[Transaction] = set()
    without_session: set[str] = set()
    for thread, begun, number, declared_read_only, read_only, _ in rows:
        real = number if 0 < int(number) < FIRST_UNREAL_ID else ""
        if declared_read_only == "1":
            statements.pop(thread, None)
        elif thread == "0" and real:
            without_session.add(f"x:{real}")
        elif thread != "0" and read_only != "1":
            transactions.add(Transaction(thread, real, begun))
    if len(transactions) + len(without_session) > MOST_TRANSACTIONS:
        return TransactionList(unknown=TOO_MANY.format(most=MOST_TRANSACTIONS))
    for transaction in transactions:
        # Its statement is part of the transaction.
        statements.pop(transaction.thread, None)
    return TransactionList(
        at=int(listed[0][5]),
        statements=statements,
        reading=reading,
        transactions=tuple(transactions),
        without_session=frozenset(without_session),
    )


class _Pause:
    """The pause between two lists of one server.

    Attributes:
        lock: held while a list is made.
        opens_at: when the next list may be made, by the event loop's clock.
        coming: lists that wait for their turn, by server, account and privileges.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.opens_at = 0.0
        self.coming: dict[tuple[str, ...], asyncio.Future[TransactionList | None]] = {}


# All sources of one server share its pause, because InnoDB keeps one list for all readers.
_pauses: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[object, ...], _Pause]]
_pauses = weakref.WeakKeyDictionary()


async def _next_list(connection: Connection, pause: _Pause, scope: tuple[str, ...]) -> TransactionList:
    """The next list for this server and account that begins: ours, or another caller's that waits for its turn.

    Only a list that begins after this call is right. The caller has read the high watermark before: a transaction that
    may still commit at or below it was open then, and is in every later list, or has ended and is in every later
    snapshot. An earlier list may have missed it: a transaction that began, and took its value, between that list and
    the watermark would be in neither, and the floor would pass its row. For `still_open`, an earlier list would only
    show transactions that have ended since, and the caller would ask again.
    """
    while pause.coming.get(scope) is not None:
        coming = pause.coming[scope]
        # Awaited directly, it would be cancelled with the first caller that is.
        await asyncio.wait({coming})
        seen = coming.result()
        if seen is not None:
            return seen
        # The call that was to make it was cancelled, or its connection broke: make one here.
    coming = pause.coming[scope] = asyncio.get_running_loop().create_future()
    seen = None
    try:
        async with _turn(pause):
            # It begins: calls from now on wait for another.
            del pause.coming[scope]
            try:
                seen = await _list_once(connection)
            finally:
                if seen is None or seen.unknown not in NOT_READ:
                    pause.opens_at = asyncio.get_running_loop().time() + PAUSE_SECONDS
            return seen
    finally:
        if pause.coming.get(scope) is coming:
            del pause.coming[scope]
        coming.set_result(seen)


@contextlib.asynccontextmanager
async def _turn(pause: _Pause) -> AsyncIterator[None]:
    async with pause.lock:
        await asyncio.sleep(max(0.0, pause.opens_at - asyncio.get_running_loop().time()))
        yield
