"""Values that plugins change on their way: the `transform_batch` hook, for the columns that a replication names.

Fails closed: if a plugin raises, hangs or returns something else, the run fails, and nothing of the batch is written.
Messages never hold the plugin's own text, because it may quote a value.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from starbase_data_replication.errors import SyncError
from starbase_data_replication.model import Cast, Row, Rows, TableSchema, as_stored, float_or_text
from starbase_host import Host, has_surrogate, kind_of


class TransformFailed(SyncError):
    """A plugin that changes values has failed. Names the plugin and the class of the failure."""

    code = "transform_failed"


class _Unfit(Exception):
    """An answer that cannot be stored; its text holds no value."""


class Transforms:
    """The transforms of one replication.

    host: calls the plugins. wanted: a plugin's name to the columns that it changes; plugins run in this order.
    """

    def __init__(self, host: Host | None = None, wanted: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        self._host = host
        self._wanted = wanted

    async def apply(self, replication: str, schema: TableSchema, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows with the values that the plugins return. Raises TransformFailed."""
        if self._host is None or not self._wanted or not rows:
            return rows
        # A row may have more values than the schema has columns: they follow the columns'.
        changed = Rows.of(rows, len(rows[0]))
        places = {column.name: at for at, column in enumerate(schema.columns)}
        casts = {column.name: column.cast for column in schema.columns}
        for plugin, names in self._wanted.items():
            at = [places[name] for name in names if name in places]
            if at:
                given = {schema.columns[place].name: changed.column(place) for place in at}
                answer = await _ask(self._host, plugin, replication, given, casts)
                for place in at:
                    changed.replace_column(place, answer[schema.columns[place].name])
        return changed


async def _ask(
    host: Host, plugin: str, replication: str, columns: dict[str, list[Any]], casts: Mapping[str, Cast]
) -> dict[str, list[Any]]:
    # A plugin may change its arguments in place, so it gets copies, and the lengths are taken before.
    lengths = {name: len(values) for name, values in columns.items()}
    try:
        given = {name: [as_stored(casts[name], value) for value in values] for name, values in columns.items()}
        # Runs in the plugin's thread: a type that the plugin defines may take long to read, or never end.
        check = partial(_checked, lengths=lengths)
        stored: dict[str, list[Any]] = await host.call_plugin(
            plugin, "transform_batch", convert=check, replication=replication, columns=given
        )
        return stored
    except Exception as error:
        # Neither its text nor a chain to it: a traceback shows both, and they may hold values.
        why = str(error) if type(error) is _Unfit else kind_of(error)
    host.record_failure(plugin, "transform_batch", why)
    raise TransformFailed(f"transforms: plugin {plugin} has failed ({why}); nothing of this batch was written")


def _checked(answer: Any, lengths: Mapping[str, int]) -> dict[str, list[Any]]:
    """The values of an answer. Raises _Unfit, or an Exception that a type of the plugin raises when it is read."""
    try:
        return {name: _storable(answer[name], length) for name, length in lengths.items()}
    except Exception:
        raise
    except BaseException as error:
        # Nothing is awaited here, so the answer has raised it. The thread would only report that it has failed.
        raise _Unfit(f"its answer raised {kind_of(error)}") from None


def _storable(values: Any, rows: int) -> list[Any]:
    """The values as SQLite stores them. Raises _Unfit, or what a type of the plugin raises when it is read."""
    if isinstance(values, list | tuple):
        # A type derived from a list may yield more values than its length, without end.
        given = itertools.islice(values, rows + 1)
        stored = [float_or_text(value) if type(value) is float else value for value in given]
        if len(stored) == rows and all(map(_is_storable, stored)):
            return stored
    raise _Unfit("its answer must be, for each column, a list of as many values as it got, which SQLite can store")


def _is_storable(value: Any) -> bool:
    # Exactly these types: a type derived from them may behave in any way.
    if type(value) in (int, bool):
        return bool(-(2**63) <= value < 2**63)
    if type(value) is str:
        return not has_surrogate(value)
    return value is None or type(value) in (float, bytes)
