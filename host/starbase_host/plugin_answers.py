"""What a plugin's hook has answered, as plain copies: an answer's own types may do anything when they are looked at.

Looked at in the plugin's thread, and within its time. Must not know how a hook is called.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from starbase_host.routes import Role, Route


class Nonsense(Exception):
    """An answer that no query runs with, or that cannot be sent."""


# What a type derived from one of these does when it is used is its plugin's business, and no answer holds one.
_PLAIN: dict[type, Callable[[Any], Any]] = {
    int: int.__int__, float: float.__float__, str: str.__str__, bytes: bytes.__bytes__,
}  # fmt: skip
_VALUES = {*_PLAIN, bool, type(None)}


def plain(hook: str, current: Any, answer: Any) -> Any:
    """`current` with what of it a plugin's hook has changed; None has changed nothing.

    Raises Nonsense, or what a type of the plugin's raises.
    """
    if answer is None:
        return current
    if not isinstance(answer, type(current)):
        raise Nonsense(f"a {type(answer).__name__}")
    return _COPIES[hook](current, answer)


def _plain_query(current: Any, answer: Any) -> Any:
    params = answer.params
    if isinstance(params, Mapping):
        params = {_plain_value(name): _plain_param(params[name]) for name in _copied(params)}
    elif params is not None:
        params = [_plain_param(value) for value in _listed(params)]
    sql, role = _plain_value(answer.sql), _plain_value(answer.role)
    if type(sql) is not str or role not in get_args(Role):
        raise Nonsense("a query whose sql is no text, or whose role is none")
    return dataclasses.replace(current, sql=sql, params=params, role=role, raw=bool(answer.raw))


def _plain_result(current: Any, answer: Any) -> Any:
    columns = tuple(map(_plain_value, _listed(answer.columns)))
    rows = [_plain_row(row, len(columns)) for row in _listed(answer.rows)]
    counts = {name: _plain_value(getattr(answer, name)) for name in ("rows_read", "rows_written")}
    if not all(type(name) is str for name in columns) or not all(type(count) is int for count in counts.values()):
        raise Nonsense("a result whose columns are no names, or whose counts are no numbers")
    return dataclasses.replace(current, columns=columns, rows=rows, **counts)


def _plain_row(row: Any, width: int) -> Any:
    if type(row) is not tuple:
        row = tuple(_listed(row))
    if len(row) != width:
        raise Nonsense("a row that has not a value for each column")
    return row if _VALUES.issuperset(map(type, row)) else tuple(map(_plain_value, row))


def _plain_param(value: Any) -> Any:
    """What is wrong with a parameter is told when it is bound; this is for what would do something then."""
    if isinstance(value, Mapping):
        return {_plain_value(name): _plain_value(value[name]) for name in _copied(value)}
    return value


def _plain_value(value: Any) -> Any:
    if type(value) in _VALUES:
        return value
    for kind, plain in _PLAIN.items():
        if isinstance(value, kind):
            return plain(value)
    raise Nonsense(f"a {type(value).__name__} in the place of a value")


def _listed(values: Any) -> list[Any]:
    if not isinstance(values, list | tuple):
        raise Nonsense(f"a {type(values).__name__} in the place of a list")
    return _copied(values)


def _copied(values: Any) -> list[Any]:
    """What it holds. A type of a plugin's may give more than its length, and never end."""
    length = len(values)
    copy = list(itertools.islice(values, length + 1))
    if len(copy) != length:
        raise Nonsense("a list that holds not as much as it says")
    return copy


_COPIES = {"before_query": _plain_query, "after_query": _plain_result}


def routes_of(answer: Any) -> list[Route]:
    """The routes of an answer. Raises TypeError."""
    if isinstance(answer, Sequence):
        routes = list(itertools.islice(answer, len(answer)))
        if all(isinstance(route, Route) for route in routes):
            return routes
    raise TypeError("did not answer a list of starbase_host.Route")
