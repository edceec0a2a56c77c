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
"""

from __future__ import annotations

from starbase_host import StarbaseError


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


class CastFailed(SyncError):
    code = "cast_failed"

    def __init__(self, table: str, column: str, type_name: str) -> None:
        self.table, self.column, self.type_name = table, column, type_name
        super().__init__(f"{table}.{column}: a value of type {type_name} could not be cast")
