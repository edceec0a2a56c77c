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
      DialectFailed       a dialect has not answered in time, or raised what no run may raise
"""

from __future__ import annotations

import asyncio
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


class Exited(Exception):
    """SystemExit or KeyboardInterrupt of somebody else's code; says which."""


async def tamed(function: Callable[P, Awaitable[T]], *words: P.args, **named: P.kwargs) -> T:
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
    """A sync failed. The message says why, without a secret and without a row's value."""

    code = "sync_failed"
    status = 502


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
