"""Copies the answers of plugins' hooks into plain values: the types of an answer are the plugin's, and may do anything.

The copy is made in the plugin's thread, within the time limit of its hook. Must not know how a hook is called.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, get_args

from starbase_host.read_rules import ReadDecision
from starbase_host.routes import Caller, Role, Route, route_problem


class InvalidAnswer(Exception):
    """The answer of a query hook cannot be used. The message says what it was, such as "a dict"."""


# A plugin's subclass of one of these may do anything when it is used, so a copy holds the base type instead.
_PLAIN_TYPES: dict[type, Callable[[Any], Any]] = {
    int: int.__int__, float: float.__float__, str: str.__str__, bytes: bytes.__bytes__,
}  # fmt: skip
_VALUES = {*_PLAIN_TYPES, bool, type(None)}


def copy_answer(hook: str, current: Any, answer: Any) -> Any:
    """Return a plain copy of a hook's answer; `current` when the answer is None.

    hook: "before_query" or "after_query".
    Raises InvalidAnswer, and what the types of the plugin raise.
    """
    if answer is None:
        return current
    if not isinstance(answer, type(current)):
        raise InvalidAnswer(f"a {type(answer).__name__}")
    return _COPIES[hook](current, answer)


def copy_caller(plugin: str, answer: Any) -> Caller | None:
    """Return who the answer of `authenticate` says that a caller is; None when the plugin does not know.

    Raises InvalidAnswer, and what the types of the plugin raise.
    """
    if answer is None:
        return None
    role, name = (answer.role, answer.name) if isinstance(answer, Caller) else (answer, "")
    if type(role) is not str or role not in get_args(Role) or type(name) is not str:
        raise InvalidAnswer(f"a {type(answer).__name__} in place of a role, a Caller or None")
    return Caller(role=cast(Role, role), by=plugin, name=name)


def copy_decision(answer: Any) -> ReadDecision:
    """Return what the answer of `authorize_read` decides. Raises InvalidAnswer."""
    if answer is None:
        return "allow"
    if type(answer) is not str or answer not in get_args(ReadDecision):
        raise InvalidAnswer(f'a {type(answer).__name__} in place of "allow", "null", "deny" or None')
    return cast(ReadDecision, answer)


def _copy_query(current: Any, answer: Any) -> Any:
    params = answer.params
    if isinstance(params, Mapping):
        params = {_copy_value(name): _copy_param(params[name]) for name in _copy_items(params)}
    elif params is not None:
        params = [_copy_param(value) for value in _copy_list(params)]
    sql, role = _copy_value(answer.sql), _copy_value(answer.role)
    if type(sql) is not str or role not in get_args(Role):
        raise InvalidAnswer("a query whose sql is not text, or whose role is not admin or client")
    return dataclasses.replace(current, sql=sql, params=params, role=role, raw=bool(answer.raw))


def _copy_result(current: Any, answer: Any) -> Any:
    columns = tuple(map(_copy_value, _copy_list(answer.columns)))
    rows = [_copy_row(row, len(columns)) for row in _copy_list(answer.rows)]
    counts = {name: _copy_value(getattr(answer, name)) for name in ("rows_read", "rows_written")}
    if not all(type(name) is str for name in columns) or not all(type(count) is int for count in counts.values()):
        raise InvalidAnswer("a result whose columns are not names, or whose counts are not numbers")
    origins = tuple(map(_copy_origin, _copy_list(answer.origins)))
    if len(origins) != len(columns):
        # Those of the columns before.
        origins = (None,) * len(columns)
    return dataclasses.replace(current, columns=columns, rows=rows, origins=origins, **counts)


def _copy_origin(origin: Any) -> tuple[str, str] | None:
    if origin is None:
        return None
    table, column = map(_copy_value, _copy_list(origin))
    if type(table) is not str or type(column) is not str:
        raise InvalidAnswer("a result whose origins are not pairs of names")
    return table, column


def _copy_row(row: Any, width: int) -> Any:
    if type(row) is not tuple:
        row = tuple(_copy_list(row))
    if len(row) != width:
        raise InvalidAnswer("a row that does not have one value for each column")
    return row if _VALUES.issuperset(map(type, row)) else tuple(map(_copy_value, row))


def _copy_param(value: Any) -> Any:
    """Copy what could run code of the plugin when it is bound. Binding reports values of a wrong type."""
    if isinstance(value, Mapping):
        return {_copy_value(name): _copy_value(value[name]) for name in _copy_items(value)}
    return value


def _copy_value(value: Any) -> Any:
    if type(value) in _VALUES:
        return value
    for kind, plain in _PLAIN_TYPES.items():
        if isinstance(value, kind):
            return plain(value)
    raise InvalidAnswer(f"a {type(value).__name__} in place of a value")


def _copy_list(values: Any) -> list[Any]:
    if not isinstance(values, list | tuple):
        raise InvalidAnswer(f"a {type(values).__name__} in place of a list")
    return _copy_items(values)


def _copy_items(values: Any) -> list[Any]:
    """Copy the items of a collection. A plugin's type may yield more items than its length, without end."""
    length = len(values)
    copy = list(itertools.islice(values, length + 1))
    if len(copy) != length:
        raise InvalidAnswer("a list that yields more or fewer items than its length")
    return copy


_COPIES = {"before_query": _copy_query, "after_query": _copy_result}


def routes_of(prefix: str, answer: Any) -> tuple[list[Route], str | None]:
    """Return plain copies of the routes in an answer of `register_routes`, and what is wrong with one of them, if any.

    prefix: of the plugin's paths.
    Raises TypeError when the answer is not a list of routes.
    """
    if not isinstance(answer, Sequence):
        raise TypeError("did not return a list of starbase_host.Route")
    routes = []
    for route in itertools.islice(answer, len(answer)):
        if not isinstance(route, Route):
            raise TypeError("did not return a list of starbase_host.Route")
        wrong = route_problem(route, prefix)
        if wrong is not None:
            return [], f"its route {route.path} {wrong}"
        routes.append(_copy_route(route))
    return routes, None


def _copy_route(route: Route) -> Route:
    return Route(
        path=_copy_value(route.path),
        endpoint=route.endpoint,
        methods=tuple(_copy_value(method) for method in route.methods),
        role=None if route.role is None else _copy_value(route.role),
        summary=_copy_value(route.summary),
        query=_copy_json(route.query),
        body=_copy_json(route.body),
        answer=_copy_json(route.answer),
        statuses=tuple(_copy_value(status) for status in route.statuses),
        envelope=bool(route.envelope),
    )


def _copy_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
