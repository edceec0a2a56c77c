"""What can go wrong between a source and the replica, on top of the host's errors.

::

    SyncError 502
      SourceUnavailable   the source cannot be reached or went away; trying again may help (transient)
      SourceRejected      the source answered with a refusal: a wrong password, a missing privilege
        TableMissing      the source has no such table
        SourceChanged     the source's table has changed since the run described it (transient)
          ReadAgain       nothing is wrong; the next attempt reads the table in another way
      ReplicaChanged      the replica's table has changed since the run looked at it (transient)
      SchemaMismatch      the source table cannot be copied into the replica, or no longer fits it
      CastFailed          a value could not be cast; names the column and the type, never the value
      OddAnswer           the source's answer is not one that a server of its kind gives (transient)
        BrokenRule        it breaks a rule that holds for every dialect
      DialectFailed       a dialect did not answer in time, broke a rule, or raised an error that a run may not raise
"""

from __future__ import annotations

import asyncio
import struct
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from starbase_host import InvalidRequest, StarbaseError, Worker, has_plain_text, kind_of

P = ParamSpec("P")
T = TypeVar("T")

# Why columns cannot be a key.
NO_KEY = "two rows of {table} have the same values in these columns, or one has none; name columns that identify a row"

# of: what has settings, a session or a transaction.
SETTINGS_CHANGED = (
    "{doing}: a function that it calls has changed {names} of the {of}, so that values may be wrong; a function must "
    "not change that: correct it, and reset the replica if it was being loaded"
)
CHANGED_ON_THE_WAY = (
    "received bytes that are not a row of this table: they were changed on their way from the source, which only TLS "
    "detects at once; verify the replica"
)

# How to find who gave an answer that no such server gives.
WHERE_TO_LOOK = "check host and port of sourceConfig, and at any proxy in between"

# Characters of an error that a run's record keeps: a few screens, whatever the server sends.
MAX_SHOWN = 2_000
# Characters of an error and its traceback in the log: about 200 lines, more than any traceback of ours has.
MAX_DETAILS = 20_000
# How long an error of another plugin's dialect may take to make its text.
TEXT_SECONDS = 2.0

# Raised when an answer has other columns, rows or types than the statement asked for.
ODD_ANSWER_CAUSES = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError, struct.error,
)  # fmt: skip


def odd_answer(error: Exception, doing: str, server: str) -> OddAnswer:
    """Make the error to raise for one of ODD_ANSWER_CAUSES.

    doing: what was being done, with the field or table; server: the name of the kind of server.
    """
    return OddAnswer(
        f"{doing}: received an answer that {server} does not give ({kind_of(error)}); {WHERE_TO_LOOK}; "
        "the host's log has the details"
    )


def format_for_log(error: BaseException) -> str:
    """Format an error with its traceback for the log, cut to MAX_DETAILS characters.

    For an odd answer, only the traceback and the class of its cause: Python's own messages quote the value that they
    complain about, which may be a row's.
    """
    if isinstance(error, OddAnswer) and error.__cause__ is not None:
        cause = error.__cause__
        text = "".join(traceback.format_tb(cause.__traceback__)) + f"{kind_of(cause)}\n{error}"
    else:
        text = "".join(traceback.format_exception(error))
    return text if len(text) <= MAX_DETAILS else f"{text[: MAX_DETAILS // 2]}\n…\n{text[-MAX_DETAILS // 2 :]}"


async def details_of(error: BaseException) -> str:
    """Do the same as `format_for_log` in a thread, with a time limit: a foreign class may do anything there."""
    worker = Worker("details")
    try:
        text: str = await worker.call(format_for_log, (error,), TEXT_SECONDS)
        return text
    except Exception:
        return f"{kind_of(error)}, whose text could not be made"
    finally:
        worker.close()


class Exited(Exception):
    """Foreign code raised SystemExit or KeyboardInterrupt; the message is the class's name."""


async def catch_exits(function: Callable[P, Awaitable[T]], *arguments: P.args, **named: P.kwargs) -> T:
    """Await a function, and raise Exited for SystemExit and KeyboardInterrupt.

    For each task that runs foreign code: asyncio lets these two out of any task, and the host would end.
    """
    try:
        return await function(*arguments, **named)
    except (SystemExit, KeyboardInterrupt) as error:
        raise Exited(kind_of(error)) from error


def retrieve_error(task: asyncio.Task[Any]) -> None:
    """Mark a task's error as retrieved, as its done callback: asyncio then does not log it if the waiter has ended."""
    if not task.cancelled():
        task.exception()


def plain_error(error: Exception, label: str) -> Exception:
    """An error of foreign code as one of ours, so that no code of its class runs when it is read or shown.

    An error that is no StarbaseError is returned as it is: only the log reads it, in a thread.

    label: what messages call the dialect.
    """
    if not isinstance(error, StarbaseError) or type(error) in (BrokenRule, DialectFailed):
        return error
    if not has_plain_text(error):
        return DialectFailed(f"unexpected {kind_of(error)} with {label}; its class makes its text")
    classes = type.__dict__["__mro__"].__get__(type(error))
    kind: type[StarbaseError] = next(each for each in classes if each in RAISED_BY_DIALECTS)
    return kind(BaseException.__str__(error))


class SyncError(StarbaseError):
    """A sync failed. The message says why, and holds neither a secret nor a row's value.

    A server may send an error of any length, so the message is cut here to 2 * MAX_SHOWN characters. The record of the
    run keeps the first half of that, after secrets were removed: a secret that this cut splits is in the other half.
    """

    code = "sync_failed"
    status = 502

    def __init__(self, message: str = "", *, status: int | None = None) -> None:
        super().__init__(message[: 2 * MAX_SHOWN], status=status)


class SourceUnavailable(SyncError):
    code = "source_unavailable"
    transient = True


class SourceRejected(SyncError):
    code = "source_rejected"


class TableMissing(SourceRejected):
    code = "table_missing"


class SourceChanged(SourceRejected):
    code = "source_changed"
    transient = True


class OddAnswer(SyncError):
    """The source sent an answer that its kind of server does not give; reading it raised one of ODD_ANSWER_CAUSES."""

    code = "odd_answer"
    transient = True


class BrokenRule(OddAnswer):
    """What a source gave breaks a rule that holds for every dialect; the runner names the plugin of a foreign one.

    doing: what was being done, with the table; rule: what was received, and what it must be.
    """

    def __init__(self, doing: str, rule: str) -> None:
        self.doing, self.rule = doing, rule
        super().__init__(f"{doing}: {rule}; {WHERE_TO_LOOK}")


class ReadAgain(SourceChanged):
    """Not shown to users: the sync that gets it tries again at once."""


class ReplicaChanged(SyncError):
    code = "replica_changed"
    transient = True


class SchemaMismatch(SyncError):
    code = "schema_mismatch"


class DialectFailed(SyncError):
    code = "dialect_failed"


class CastFailed(SyncError):
    code = "cast_failed"

    def __init__(self, table: str, column: str, type_name: str, *, hint: str = "") -> None:
        self.table, self.column, self.type_name, self.hint = table, column, type_name, hint
        super().__init__(f"{table}.{column}: a value of type {type_name} could not be cast{hint and '; '}{hint}")


# What an error of foreign code becomes: the first of these that its class is derived from.
RAISED_BY_DIALECTS: frozenset[type[StarbaseError]] = frozenset({
    SourceUnavailable, SourceRejected, TableMissing, SourceChanged, SchemaMismatch, DialectFailed, OddAnswer, SyncError,
    InvalidRequest, StarbaseError,
})  # fmt: skip
