"""The hooks of data replication as types: a plugin's class that derives from them is checked by a type checker.

Each protocol has the name of its hook, and is only for a method with all arguments of the hook.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from starbase_data_replication.model import ReplicationEvent as Event
    from starbase_data_replication.sources import Dialect

Columns = Mapping[str, Sequence[Any]]


class ReplicationEvent(Protocol):
    def replication_event(self, event: Event) -> Awaitable[None] | None: ...


class ReplicationDialects(Protocol):
    def replication_dialects(self) -> Mapping[str, Dialect] | Awaitable[Mapping[str, Dialect]]: ...


class TransformBatch(Protocol):
    def transform_batch(self, replication: str, columns: Mapping[str, list[Any]]) -> Columns | Awaitable[Columns]: ...


__all__ = ["ReplicationDialects", "ReplicationEvent", "TransformBatch"]
