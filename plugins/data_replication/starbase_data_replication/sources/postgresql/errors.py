"""Error translation: every error of PostgreSQL or its driver becomes a SyncError here, and nowhere else."""

from __future__ import annotations

import contextlib
import re
import ssl
import struct
from collections.abc import Iterator, Mapping

import asyncpg
from asyncpg.pgproto import pgproto

from starbase_data_replication.errors import (
    CHANGED_ON_THE_WAY,
    ODD_ANSWER_CAUSES,
    SourceChanged,
    SourceRejected,
    SourceUnavailable,
    SyncError,
    odd_answer,
)
from starbase_data_replication.sources.batches import Damaged, TooMuch
from starbase_data_replication.sources.postgresql.answer_limits import OddMessage, OddSetting
from starbase_data_replication.sources.postgresql.sql import REWRITTEN
from starbase_data_replication.sources.unreachable import Unreachable

# SQLSTATE classes and codes after which a retry may succeed: connection, resources, operator intervention, and a
# snapshot lost to a conflict on a standby or a serialisation failure.
TRANSIENT_CLASSES = ("08", "53", "57", "58")
TRANSIENT_CODES = ("40001", "40P01", "55P03", "25006", "72000")

# A column or a table that existed when it was looked up does not exist any more.
CHANGED_CODES = ("42703", "42P01")

INVALID_TEXT = "22P02"
UNTRANSLATABLE = "22P05"

# What the driver raises when a connection breaks, is refused, or does not answer.
BROKEN = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError, TimeoutError)

# What is raised for bytes that are not a server's answer.
# The driver has an error of this name that is not Python's.
# It makes a text of a negative length of a value that is not there, which is Python's SystemError.
DAMAGED = (UnicodeDecodeError, BufferError, pgproto.BufferError, struct.error, SystemError, Damaged)

# Part of the driver's text if the server has no TLS, or is not PostgreSQL.
NO_TLS = "rejected SSL upgrade"

# What it raises in the same way, though no connection is broken: part of its text, and our message.
OURS = {
    NO_TLS: (
        "sourceConfig.sslmode: the server has no TLS; turn it on there, or set sslmode to prefer; if it has, "
        "check host and port of sourceConfig"
    ),
    "the server expects": "contains a parameter such as $1, which has no value; write the value itself",
}


# Error texts that may be shown while the server works on rows, by their SQLSTATE or its class: these quote only names
# of the catalogue, or of files. Any other text may quote a row's value, in any SQLSTATE ('…'::regclass, RAISE), also
# one of these texts in an SQLSTATE in which the server does not use it. Longer texts are never shown.
LONGEST_KNOWN = 1000
KNOWN: Mapping[str, re.Pattern[str]] = {
    state: re.compile("|".join(texts))
    for state, texts in {
        "08": (r'could not connect to server ".+"',),
        # From a pooler.
        "08P01": (r"[a-z]+(_[a-z]+)*_timeout", r"server (conn crashed\?|closed the connection unexpectedly)"),
        "0A000": (r"cached plan must not change result type",),
        "25": (
            r"cannot execute [A-Za-z_ ()]+ in a read-only transaction",
            r"current transaction is aborted, commands ignored until end of transaction block",
            r"terminating connection due to [a-z -]+",
        ),
        "40": (
            r"could not serialize access due to [a-z/ ]+",
            r"deadlock detected",
            r"(canceling statement|terminating connection) due to conflict with recovery",
        ),
        "42501": (
            r"permission denied for [a-z ]+ .+",
            r'query would be affected by row-level security policy for table ".+"',
        ),
        "42804": (r"argument of [A-Z]+ must be type boolean, not type [a-z0-9 ]+",),
        "53": (
            r"out of (shared )?memory",
            r"temporary file size exceeds temp_file_limit \([0-9]+kB\)",
            r"could not [a-z ]+ .+: (No space left on device|Disk quota exceeded)",
        ),
        "54001": (r"stack depth limit exceeded",),
        "55000": (r'materialized view ".+" has not been populated',),
        "55P03": (r"canceling statement due to lock timeout",),
        "57": (
            r"canceling statement due to [a-z ]+",
            r"terminating connection (due to|because of) [a-z -]+",
            r"the database system is [a-z ]+",
        ),
        "58": (r'could not read block [0-9]+ in file "base/[0-9/._]+": [A-Za-z0-9 ]+',),
        "72000": (r"snapshot too old",),
        "XX001": (
            r'could not read block [0-9]+ in file "base/[0-9/._]+": [A-Za-z0-9 ]+',
            r"invalid page in block [0-9]+ of relation base/[0-9/._]+",
            r"(missing|unexpected) chunk number [0-9]+ .*for toast value [0-9]+ in pg_toast_[0-9]+",
        ),
    }.items()
}
# The function of the server in which a RAISE of PL/pgSQL makes its error, with any text and any SQLSTATE.
RAISE = "exec_stmt_raise"


def is_known(text: str, code: str) -> bool:
    """Whether this text, in this SQLSTATE, quotes no row."""
    patterns = (KNOWN.get(code), KNOWN.get(code[:2]))
    return len(text) <= LONGEST_KNOWN and any(each is not None and each.fullmatch(text) for each in patterns)


@contextlib.contextmanager
def translate_errors(doing: str, *, rows: bool = False) -> Iterator[None]:
    """Translate what the driver raises within this context.

    doing: begins each message, as in "reading orders".
    rows: whether the server works on rows, so that its error texts may quote their values.
    """
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.PostgresWarning) as error:
        raise translate(error, doing, rows=rows) from error
    except (TooMuch, OddSetting, OddMessage) as error:
        raise _refused(error, doing) from error
    except asyncpg.ClientConfigurationError as error:
        raise SourceRejected(f"{doing}: {error}") from error
    except ssl.SSLCertVerificationError as error:
        raise SourceRejected(f"{doing}: the server's certificate was refused: {error.verify_message}") from error
    except DAMAGED as error:
        raise SourceUnavailable(f"{doing}: {CHANGED_ON_THE_WAY} ({type(error).__name__})") from error
    except BROKEN as error:
        if (why := next((why for text, why in OURS.items() if text in str(error)), None)) is not None:
            raise SourceRejected(f"{doing}: {why}") from error
        raise SourceUnavailable(f"{doing}: {_reason(error)}") from error
    except ODD_ANSWER_CAUSES as error:
        raise odd_answer(error, doing, "PostgreSQL") from error


def translate(error: asyncpg.PostgresError | asyncpg.PostgresWarning, doing: str, *, rows: bool = False) -> SyncError:
    """Translate a server's error. Its text is left out if it may quote a row's value: SQLSTATE classes 22 and 23, and
    with `rows` each text that is not in KNOWN.
    """
    if isinstance(error.__cause__, TooMuch | OddSetting | OddMessage):
        return _refused(error.__cause__, doing)
    code = getattr(error, "sqlstate", None) or ""
    if code == INVALID_TEXT and error.args and REWRITTEN in error.args[0]:
        return SourceChanged(
            f"{doing}: {REWRITTEN} since it was looked up, and its rows would not all be seen; run it again"
        )
    if code == UNTRANSLATABLE:
        return SourceRejected(f"{doing}: a text has no equivalent in Unicode (SQLSTATE {code}); correct or exclude it")
    text = str(error.args[0]) if error.args else ""
    # What the server sends has a severity; the driver's own errors, about a connection, have none.
    is_servers = getattr(error, "severity", None) is not None
    raised = getattr(error, "server_source_function", None) == RAISE
    more = ""
    if code[:2] in ("22", "23"):
        text = type(error).__name__
    elif rows and is_servers and (raised or not is_known(text, code)):
        text, more = type(error).__name__, "; its text may hold a row's value: see the server's log"
    if code[:2] == "08":
        return SourceUnavailable(f"{doing}: the connection failed: {text} (SQLSTATE {code}){more}")
    message = f"{doing}: PostgreSQL says: {text} (SQLSTATE {code}){more}"
    if code in CHANGED_CODES or (code == "42501" and "row-level security" in text):
        return SourceChanged(message)
    if code[:2] in TRANSIENT_CLASSES or code in TRANSIENT_CODES:
        return SourceUnavailable(message)
    return SourceRejected(message)


def _refused(error: TooMuch | OddSetting | OddMessage, doing: str) -> SyncError:
    """The error for what was not passed on to the driver."""
    # Bytes may have been changed on their way, so another attempt may succeed.
    kind = SourceUnavailable if isinstance(error, OddMessage) else SourceRejected
    return kind(f"{doing}: {error}")


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "the source did not answer in time"
    if isinstance(error, Unreachable):
        return str(error)
    return f"the connection failed: {str(error) or type(error).__name__}"
