"""The hooks that this plugin offers to others. Mark implementations `hookimpl(optionalhook=True)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starbase_host import hookspec

if TYPE_CHECKING:
    from starbase_data_replication.model import ReplicationEvent
    from starbase_data_replication.sources.base import Dialect


@hookspec
def replication_event(event: ReplicationEvent) -> None:
    """A run has ended, and what it reports is committed. Sent at most once; the run record is the truth.

    event.type is "sync", "reset" or "verify", and later versions add types: look at it. Skipped and interrupted
    runs send none.
    """
    raise NotImplementedError


@hookspec
def replication_dialects() -> Mapping[str, Dialect]:
    """Add kinds of sources: the name that `sourceConfig.dialect` gives, and an implementation of `Dialect`.

    Called once at start. A name that is taken already is left to whoever had it, with an error in the log.
    """
    raise NotImplementedError
