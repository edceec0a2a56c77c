"""The open transactions of a PostgreSQL server: listing them, and finding those of an earlier list again.

Tokens:

    v:id#pid        a virtual transaction id, which a session counts up and which begins again when the server restarts.
    p:id            a prepared transaction.
    m:began#pid     a session inside a message, and when that message began.
    h:listed#pid    a session whose messages are hidden from this role, and when it was listed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from typing import Any

import asyncpg

from starbase_data_replication.model import OpenTransactions
from starbase_data_replication.sources.postgresql import privileges
from starbase_data_replication.sources.postgresql.privileges import BeginAgain

LIST = files(__package__).joinpath("transactions.sql").read_text(encoding="utf-8")

# The first statement of our transactions, which hold this lock until they end. They are READ ONLY, so other readers
# that see the lock need not wait for them. The number is "starbase" in ASCII.
READER_LOCK = "SELECT pg_catalog.pg_try_advisory_xact_lock_shared(8319381555564868453)"

# What transactions.sql reads, and the functions that its views call as the role that asks.
RELATIONS = ("pg_locks", "pg_stat_activity", "pg_prepared_xacts", "pg_database")
FUNCTIONS = (
    "pg_is_in_recovery", "pg_postmaster_start_time", "pg_backend_pid", "pg_lock_status", "pg_stat_get_activity",
    "pg_prepared_xact", "pg_stat_clear_snapshot",
)  # fmt: skip
# Seconds in one unit of the time in `h:`, and how many units a hidden session counts as inside the same message while
# every list shows it inside a transaction. Without that limit, a busy session would hold a floor for ever.
UNIT_SECONDS = 600
HIDDEN_UNITS = 6

# Characters. MOST_TRANSACTIONS tokens are shorter together; see sources/answers.py.
LONGEST_LIST = 1_000_000

NOT_LISTED = "pg_locks of this server does not show this session's own transaction, so it may hide others too"


TOKEN = re.compile(r"v:-?\d+/\d+#\d+|p:\d+|[mh]:-?\d{1,20}#\d+", re.ASCII)


async def open_transactions(connection: Any, begin_again: BeginAgain) -> OpenTransactions:
    """The open transactions now.

    If this role may not list them, nothing is known, and the connection is in a new transaction that begin_again began.
    """
    try:
        (row,) = await connection.fetch_known(LIST)
    except asyncpg.InsufficientPrivilegeError as error:
        # The next list asks again: a GRANT takes effect at once.
        await begin_again(connection)
        grants = await privileges.missing(connection, RELATIONS, FUNCTIONS, begin_again=begin_again)
        how = f"run {grants}" if grants else f"PostgreSQL says: {error.args[0]}"
        return OpenTransactions(known=False, reason=f"this role may not see which transactions are open: {how}")
    if row["standby"]:
        return OpenTransactions(
            known=False, reason="the source is a standby, which does not show the open transactions of its primary"
        )
    if not row["lists"]:
        return OpenTransactions(known=False, reason=NOT_LISTED)
    if sum(len(row[name]) for name in ("virtual", "prepared", "sessions")) > LONGEST_LIST:
        # Not taken apart: that takes the event loop's time.
        return OpenTransactions(known=False, reason="the server lists more transactions than it can have")
    tokens = {f"v:{token}" for token in row["virtual"].split()} | {f"p:{token}" for token in row["prepared"].split()}
    tokens.update(row["sessions"].split())
    if not all(map(TOKEN.fullmatch, tokens)):
        # Once recorded, it would fail each later run.
        raise ValueError("the source gave a transaction an id that PostgreSQL never gives")
    return OpenTransactions(known=True, tokens=frozenset(tokens), reason="pg_locks", epoch=row["epoch"])


def still_open(noted: OpenTransactions, now: OpenTransactions) -> OpenTransactions:
    """The transactions of an earlier set that are open now. One that may be the same counts as the same."""
    if not now.known or not noted.known:
        return replace(noted, known=False, reason=now.reason)
    virtual = {token for token in noted.tokens if token.startswith("v:")}
    prepared = {token for token in noted.tokens if token.startswith("p:")}
    prepared_now = {token for token in now.tokens if token.startswith("p:")}
    virtual_now = {_of(token)[0] for token in now.tokens if token.startswith("v:")}
    sessions_now = {_of(token)[1]: token for token in now.tokens if token.startswith(("m:", "h:"))}
    if now.epoch != noted.epoch:
        # Virtual ids begin again when the server restarts; only prepared transactions survive that.
        virtual_now, sessions_now = set(), {}
    same = {token for token in virtual if _of(token)[0] in virtual_now}
    still = same | (prepared & prepared_now)
    still |= {
        session
        for token in noted.tokens - virtual - prepared
        if (session := _same_session(token, sessions_now.get(_of(token)[1]))) is not None
    }
    if virtual - same:
        # PREPARE TRANSACTION takes a transaction's virtual id away, and it stays open: every one prepared since may be
        # the one that is missing.
        still |= prepared_now - prepared
    return replace(noted, tokens=frozenset(still), epoch=now.epoch)


def _same_session(noted: str, now: str | None) -> str | None:
    """The token of a session's message, if it may still be the recorded one. now: the session's token in this list."""
    if now is None or now == noted:
        return now
    (was, then), (is_now, today) = ((token[0], int(_of(token)[0][2:])) for token in (noted, now))
    if is_now == "m":
        # Another message, or one that is not hidden any more: did it begin before the recorded one was listed?
        return now if was == "h" and today < (then + 1) * UNIT_SECONDS * 1_000_000 else None
    if was == "m":
        # It has become hidden.
        return now
    return noted if today - then <= HIDDEN_UNITS else None


def _of(token: str) -> tuple[str, str]:
    """A token without its session, and the session's pid; empty in positions that older releases stored."""
    what, _, pid = token.partition("#")
    return what, pid
