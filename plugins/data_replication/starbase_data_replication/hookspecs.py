"""The hooks that this plugin offers to other plugins. Mark implementations `hookimpl(optionalhook=True)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starbase_host import hookspec

if TYPE_CHECKING:
    from starbase_data_replication.model import ReplicationEvent
    from starbase_data_replication.sources import Dialect


@hookspec
def replication_event(event: ReplicationEvent) -> None:
    """Something has happened to a replication, and is committed. Sent at most once; the run record is the truth.

    event.type is one of EVENT_TYPES, except "run_progress". Later versions add types, so check it. The event is a copy
    for this plugin. "degraded" (the first failure), "recovered" and the "run_interrupted" of a run that the end of the
    host has cut off are still sent if the host crashes between the record and the call.
    """
    raise NotImplementedError


@hookspec
def replication_dialects() -> Mapping[str, Dialect]:
    """Add kinds of sources: the name that `sourceConfig.dialect` gives, and an implementation of `Dialect`.

    Called once at start. If two plugins offer one name, the first keeps it, and an error is logged.
    """
    raise NotImplementedError


@hookspec
def transform_batch(replication: str, columns: Mapping[str, list[Any]]) -> Mapping[str, Sequence[Any]]:
    """Change values of a batch on its way from the source into the replica.

    Called for the replications whose `transforms` name this plugin. `columns` maps the source's name of each column
    that they name for it to the column's values in the batch, as the replica would store them: int, float, str, bytes
    or None. Return, for each column, as many values in the same order. A value must depend on the given values alone,
    because rows are read more than once.

    If it raises, takes too long or returns anything else, the run fails and nothing of the batch is written. The error
    that it raised is not shown, because it may contain values.
    """
    raise NotImplementedError
