"""The hooks that this plugin offers to others. Mark implementations `hookimpl(optionalhook=True)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starbase_host import hookspec

if TYPE_CHECKING:
    from starbase_data_replication.model import ReplicationEvent
    from starbase_data_replication.sources import Dialect


@hookspec
def replication_event(event: ReplicationEvent) -> None:
    """A run has ended, and what it reports is committed. Sent at most once; the run record is the truth.

    event.type is "sync", "reset", "verify", "schema_change", "degraded" or "recovered", and later versions add types:
    look at it. Skipped and interrupted runs send none. "degraded" (the first failure) and "recovered" outlive a crash
    of the host between the record and the call.
    """
    raise NotImplementedError


@hookspec
def replication_dialects() -> Mapping[str, Dialect]:
    """Add kinds of sources: the name that `sourceConfig.dialect` gives, and an implementation of `Dialect`.

    Called once at start. A name that is taken already is left to whoever had it, with an error in the log.
    """
    raise NotImplementedError


@hookspec
def transform_batch(replication: str, columns: Mapping[str, list[Any]]) -> Mapping[str, Sequence[Any]]:
    """Change values of a batch on its way from the source into the replica.

    Called for the replications whose `transforms` name this plugin, with the columns that they name for it: the
    source's name of a column, to its values of the batch as the replica would store them (int, float, str, bytes
    or None). Answer, for each column, a list of as many values in the same order. Values depend on nothing but what
    is given: rows are read more than once.

    When it raises, takes too long or answers anything else, the run fails and nothing of the batch is written; what
    it raised is not shown, since it may hold values.
    """
    raise NotImplementedError
