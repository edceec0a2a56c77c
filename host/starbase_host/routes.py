"""What a route is, the host's and the plugins' alike, and what may be wrong with one. Knows no plugin, no request."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from starlette.routing import compile_path

Role = Literal["admin", "client"]


@dataclass(frozen=True)
class Route:
    """An HTTP route of a plugin.

    path: under the plugin's prefix, such as `/my-plugin/things/{name}`.
    endpoint: a coroutine function of a Starlette `Request`; what it answers becomes `{"result": …}`, and a
        StarbaseError that it raises `{"error": …}` with its status. `Answer` sets another status.
    role: who may call it: "admin"; "client", which the admin may too; None, which needs no token.

    The rest is told by /openapi.json and changes nothing. summary: one line. query: query parameters by name, body,
    and answer (what becomes `result`), each as a JSON Schema. statuses: what it answers when all went well.
    envelope: False for a route that answers a Response of its own, which `answer` then describes whole.
    """

    path: str
    endpoint: Callable[..., Awaitable[Any]]
    methods: Sequence[str] = ("GET",)
    role: Role | None = "admin"
    summary: str = ""
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    body: Mapping[str, Any] | None = field(default=None, hash=False)
    answer: Mapping[str, Any] | None = field(default=None, hash=False)
    statuses: Sequence[int] = (200,)
    envelope: bool = True


def wrong_with(route: Route, prefix: str) -> str | None:
    """What is wrong with a route and its mend, or None."""
    if not isinstance(route.path, str) or not (route.path + "/").startswith(prefix + "/"):
        return f"lies outside its prefix {prefix}; move it there, or give the plugin another path_prefix"
    try:
        compile_path(route.path)
    except (AssertionError, ValueError) as error:
        return f"is not a path: {error}"
    if not callable(route.endpoint):
        return "has an endpoint that cannot be called; give it a coroutine function"
    if route.role not in (*get_args(Role), None):
        return f"has the role {route.role!r}; it must be admin, client or None"
    if isinstance(route.methods, str) or not all(isinstance(method, str) for method in route.methods):
        return 'has methods that are no list of names; write ("GET",)'
    return _wrong_in_document(route)


def _wrong_in_document(route: Route) -> str | None:
    """The same of what only /openapi.json tells: one plugin's mistake must not take it from the others."""
    if not isinstance(route.summary, str):
        return "has a summary that is no text"
    if isinstance(route.statuses, str) or not all(status in range(200, 300) for status in route.statuses):
        return "has statuses that are no list of numbers from 200 to 299; write (200,)"
    schemas = [*route.query.values()] if isinstance(route.query, Mapping) else [route.query]
    schemas += [schema for schema in (route.body, route.answer) if schema is not None]
    if not all(isinstance(schema, Mapping) for schema in schemas):
        return "has a query, body or answer that is no JSON Schema; write a dict"
    try:
        json.dumps(schemas)
    except (TypeError, ValueError) as error:
        return f"has a JSON Schema that is not JSON: {error}"
    return None
