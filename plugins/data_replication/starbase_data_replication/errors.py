"""What can go wrong between a source and the replica, on top of the host's errors.

::

    SyncError 502
      SourceUnavailable   the source cannot be reached or went away; trying again may help (transient)
      SourceRejected      the source answered, and said no: a wrong password, no right to read
      TableMissing        one of those: the source has no such table
      SourceChanged       one of those: its table is not what it was when it was looked up (transient)
      ReadAgain           one of those: nothing is wrong, and the next attempt reads the table in another way
      ReplicaChanged      the replica's table is not what it was when the run looked at it (transient)
      SchemaMismatch      the source table cannot become, or no longer fits, the replica
      CastFailed          a value could not be cast; names the column and the type, never the value
      OddAnswer           the source has answered what no server of its kind answers (transient)
      DialectFailed       a dialect has not answered in time, or raised what no run may raise
"""

from __future__ import annotations

import asyncio
import struct
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from starbase_host import StarbaseError

P = ParamSpec("P")
T = TypeVar("T")

# What is wrong with columns that do not identify a row.
NO_KEY = "two rows of {table} have the same values in these columns, or one has none; name columns that identify a row"


CHANGED_ON_THE_WAY = (
    "what came is no row of this table: bytes were changed on their way from the source, which only TLS notices at "
    "once; verify the replica"
)


# So many characters of an error are recorded.
MAX_SHOWN = 2_000
# And of what the log has beside it.
MAX_DETAILS = 20_000

# What is raised over an answer of other columns, rows or types than were asked for.
ODD = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError, struct.error,
)  # fmt: skip


def odd(error: Exception, doing: str, server: str) -> OddAnswer:
    """What to raise for one of ODD that an answer has brought about."""
    return OddAnswer(
        f"{doing}: what came is no answer of {server} to what was asked ({kind_of(error)}); look at host and port of "
        "sourceConfig, or at what stands between; the host's log has the details"
    )


def details(error: BaseException) -> str:
    """An error for the log, of a length that a log can hold. Of what an odd answer has brought about, the place alone:
    Python's own texts quote the value that they complain of, which may be a row's."""
    if isinstance(error, OddAnswer) and error.__cause__ is not None:
        cause = error.__cause__
        text = "".join(traceback.format_tb(cause.__traceback__)) + f"{kind_of(cause)}\n{error}"
    else:
        text = "".join(traceback.format_exception(error))
    return text if len(text) <= MAX_DETAILS else f"{text[: MAX_DETAILS // 2]}\n…\n{text[-MAX_DETAILS // 2 :]}"


class Exited(Exception):
    """SystemExit or KeyboardInterrupt of somebody else's code; says which."""


async def catch_exits(function: Callable[P, Awaitable[T]], *words: P.args, **named: P.kwargs) -> T:
    """For each task that runs somebody else's code: asyncio lets these two out of any task, and the host ends."""
    try:
        return await function(*words, **named)
    except (SystemExit, KeyboardInterrupt) as error:
        raise Exited(kind_of(error)) from error


def retrieved(task: asyncio.Task[Any]) -> None:
    """For a task whose error may come when whoever would wait for it has ended: nobody need be told of it then."""
    if not task.cancelled():
        task.exception()


def kind_of(error: BaseException) -> str:
    """The name of an error's class, asked of Python itself: a class of somebody else may answer what it likes."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name


class SyncError(StarbaseError):
    """A sync failed. The message says why, without a secret and without a row's value.

    It is cut here, since a server may send an error of any length; by half of that again where it is recorded, so
    that what is cut through in the middle, a secret perhaps, is not shown.
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
    """Something else than the server answers: what came of it was an error of ours."""

    code = "odd_answer"
    transient = True


class ReadAgain(SourceChanged):
    """Not shown: whoever syncs tries again at once."""


class ReplicaChanged(SyncError):
    code = "replica_changed"
    transient = True


class SchemaMismatch(SyncError):
    code = "schema_mismatch"


class DialectFailed(SyncError):
    code = "dialect_failed"


class CastFailed(SyncError):
    code = "cast_failed"

    def __init__(self, table: str, column: str, type_name: str) -> None:
        self.table, self.column, self.type_name = table, column, type_name
        super().__init__(f"{table}.{column}: a value of type {type_name} could not be cast")
