"""The one door through which PostgreSQL's errors come in: each becomes a kind of SyncError, once."""

from __future__ import annotations

import contextlib
import ssl
import struct
from collections.abc import Iterator

import asyncpg

from starbase_data_replication.errors import (
    CHANGED_ON_THE_WAY,
    SourceChanged,
    SourceRejected,
    SourceUnavailable,
    SyncError,
)
from starbase_data_replication.sources.batches import Damaged
from starbase_data_replication.sources.postgresql.sql import REWRITTEN
from starbase_data_replication.sources.unreachable import Unreachable

# SQLSTATE classes and codes after which trying again may help: connection, resources, operator intervention,
# and a snapshot that a standby or a serialisation conflict took away.
TRANSIENT_CLASSES = ("08", "53", "57", "58")
TRANSIENT_CODES = ("40001", "40P01", "55P03", "25006", "72000")

# A column or a table that was there when it was looked up is not any more.
CHANGED_CODES = ("42703", "42P01")

INVALID_TEXT = "22P02"
UNTRANSLATABLE = "22P05"

# What the driver raises when a connection breaks, is refused, or does not answer.
BROKEN = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError, TimeoutError)

# What is raised over bytes that are no answer of a server.
DAMAGED = (UnicodeDecodeError, BufferError, struct.error, Damaged)

# What it raises in the same way, though no connection is broken: part of its text, to what is meant.
OURS = {
    "rejected SSL upgrade": (
        "sourceConfig.sslmode: the server has no TLS; turn it on there, or set sslmode to prefer; if it has, "
        "look at host and port of sourceConfig"
    ),
    "the server expects": "holds a parameter such as $1, for which nothing is given; write the value itself",
}


@contextlib.contextmanager
def door(doing: str) -> Iterator[None]:
    """Translate what the driver raises inside; `doing` says what for, as in "reading orders"."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise translate(error, doing) from error
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


def translate(error: asyncpg.PostgresError, doing: str) -> SyncError:
    """A server's error. Its text is left out where it may quote a row's value (SQLSTATE class 22 and 23)."""
    code = getattr(error, "sqlstate", None) or ""
    if code == INVALID_TEXT and error.args and REWRITTEN in error.args[0]:
        return SourceChanged(f"{doing}: {REWRITTEN} since it was looked up, and its rows would not all be seen")
    if code == UNTRANSLATABLE:
        return SourceRejected(f"{doing}: a text has no equivalent in Unicode (SQLSTATE {code}); correct or exclude it")
    text = type(error).__name__ if code[:2] in ("22", "23") else (error.args[0] if error.args else "")
    message = f"{doing}: PostgreSQL says: {text} (SQLSTATE {code})"
    if code in CHANGED_CODES or (code == "42501" and "row-level security" in text):
        return SourceChanged(message)
    if code[:2] in TRANSIENT_CLASSES or code in TRANSIENT_CODES:
        return SourceUnavailable(message)
    return SourceRejected(message)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "the source did not answer in time"
    if isinstance(error, Unreachable):
        return str(error)
    return f"the connection failed: {str(error) or type(error).__name__}"
