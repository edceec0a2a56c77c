"""Values that plugins change on their way: the `transform_batch` hook, for the columns that a replication names.

Fails closed: when a plugin raises, hangs or answers nonsense, the run fails and nothing of the batch is written. No
message holds what the plugin has said, since that may quote a value.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from starbase_data_replication.errors import SyncError, kind_of
from starbase_data_replication.model import Cast, Row, Rows, TableSchema, as_stored, float_or_text
from starbase_host import has_surrogate

Call = Callable[..., Awaitable[Any]]


class TransformFailed(SyncError):
    """A plugin that changes values has failed; names the plugin and the kind of the failure."""

    code = "transform_failed"


class _Unfit(Exception):
    """An answer that cannot be stored; its text holds no value."""


class Transforms:
    """The transforms of one replication: plugin to columns, in their order. `call` is `Host.call_plugin`."""

    def __init__(self, call: Call | None = None, wanted: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        self._call = call
        self._wanted = wanted

    async def apply(self, replication: str, schema: TableSchema, rows: Sequence[Row]) -> Sequence[Row]:
        """The same rows with what the plugins make of them. Raises TransformFailed."""
        if self._call is None or not self._wanted or not rows:
            return rows
        # Columns that only say something of the row stand behind those of the schema.
        changed = Rows.of(rows, len(rows[0]))
        places = {column.name: at for at, column in enumerate(schema.columns)}
        casts = {column.name: column.cast for column in schema.columns}
        for plugin, names in self._wanted.items():
            at = [places[name] for name in names if name in places]
            if at:
                given = {schema.columns[place].name: changed.column(place) for place in at}
                answer = await _ask(self._call, plugin, replication, given, casts)
                for place in at:
                    changed.replace_column(place, answer[schema.columns[place].name])
        return changed


async def _ask(
    call: Call, plugin: str, replication: str, columns: dict[str, list[Any]], casts: Mapping[str, Cast]
) -> dict[str, list[Any]]:
    # A plugin may change what it is given in place: lists of its own, and their lengths as they are now.
    lengths = {name: len(values) for name, values in columns.items()}
    try:
        given = {name: [as_stored(casts[name], value) for value in values] for name, values in columns.items()}
        # In the plugin's thread: a type of its own may take its time, or never end, when it is looked at.
        look = partial(_looked_at, lengths=lengths)
        stored: dict[str, list[Any]] = await call(
            plugin, "transform_batch", convert=look, replication=replication, columns=given
        )
        return stored
    except Exception as error:
        # Neither its text nor a chain to it: a traceback would show both, and they may hold values.
        why = str(error) if type(error) is _Unfit else kind_of(error)
    raise TransformFailed(f"transforms: plugin {plugin} has failed ({why}); nothing of this batch was written")


def _looked_at(answer: Any, lengths: Mapping[str, int]) -> dict[str, list[Any]]:
    """What of an answer is stored. Raises _Unfit, or an Exception that a plugin's own type raises when looked at."""
    try:
        return {name: _storable(answer[name], length) for name, length in lengths.items()}
    except Exception:
        raise
    except BaseException as error:
        # Nothing is awaited here, so that it is the answer's. The thread would say no more than that it has failed.
        raise _Unfit(f"its answer raised {kind_of(error)}") from None


def _storable(values: Any, rows: int) -> list[Any]:
    """The values as SQLite is to store them. Raises _Unfit, or what a plugin's own type raises when looked at."""
    if isinstance(values, list | tuple):
        # Of what is stored: a type derived from a list may give more values than its length, and never end.
        given = itertools.islice(values, rows + 1)
        stored = [float_or_text(value) if type(value) is float else value for value in given]
        if len(stored) == rows and all(map(_is_storable, stored)):
            return stored
    raise _Unfit("what it answered is not, for each column, a list of as many values that SQLite can store")


def _is_storable(value: Any) -> bool:
    # Exactly these types: one derived from them may be anything.
    if type(value) in (int, bool):
        return bool(-(2**63) <= value < 2**63)
    if type(value) is str:
        return not has_surrogate(value)
    return value is None or type(value) in (float, bytes)
