"""What a route is, the host's and the plugins' alike, and what may be wrong with one. Knows no plugin, no request."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from starlette.routing import compile_path

Role = Literal["admin", "client"]

# An answer names no more of what is wrong, and no more of a name.
MAX_NAMED, MAX_NAME = 20, 60


@dataclass(frozen=True)
class Route:
    """An HTTP route of a plugin.

    path: under the plugin's prefix, such as `/my-plugin/things/{name}`.
    endpoint: a coroutine function of a Starlette `Request`; what it answers becomes `{"result": …}`, and a
        StarbaseError that it raises `{"error": …}` with its status. `Answer` sets another status.
    role: who may call it: "admin"; "client", which the admin may too; None, which needs no token.

    query: its query parameters by name, each as a JSON Schema; a call with another one, or with one twice, is answered
        with 400. None, as left out: whatever a caller sends reaches the endpoint.

    The rest is told by /openapi.json and changes nothing. summary: one line. body, and answer (what becomes `result`),
    as JSON Schemas. statuses: what it answers when all went well. envelope: False for a route that answers a Response
    of its own, which `answer` then describes whole.
    """

    path: str
    endpoint: Callable[..., Awaitable[Any]]
    methods: Sequence[str] = ("GET",)
    role: Role | None = "admin"
    summary: str = ""
    query: Mapping[str, Mapping[str, Any]] | None = field(default=None, hash=False)
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
    schemas = [schema for schema in (*schemas, route.body, route.answer) if schema is not None]
    if not all(isinstance(schema, Mapping) for schema in schemas):
        return "has a query, body or answer that is no JSON Schema; write a dict"
    try:
        json.dumps(schemas)
    except (TypeError, ValueError) as error:
        return f"has a JSON Schema that is not JSON: {error}"
    return None


def wrong_in_query(route: Route, names: Sequence[str]) -> dict[str, str]:
    """What is wrong with a call's query parameters, each by its name; `names` as they were sent.

    Left out in silence, a misspelt one would look as if it had been done.
    """
    if route.query is None:
        return {}
    known = f"known: {', '.join(route.query)}" if route.query else "it takes none"
    problems: dict[str, str] = {}
    for name in list(dict.fromkeys(names))[:MAX_NAMED]:
        shown = name[:MAX_NAME] or "(no name)"
        if name in route.query:
            if names.count(name) > 1:
                problems[shown] = "is given twice; give it once"
        elif (schema := _property(route, name)) is not None:
            form = f': {{"{name}": true}}' if schema.get("type") == "boolean" else ""
            problems[shown] = f"belongs into the body{form}"
        else:
            problems[shown] = f"is not a parameter of this route; {known}"
    return problems


def _property(route: Route, name: str) -> Mapping[str, Any] | None:
    """The schema of a field of a route's body, where the body is told field by field."""
    properties = (route.body or {}).get("properties")
    schema = properties.get(name) if isinstance(properties, Mapping) else None
    return schema if isinstance(schema, Mapping) else None
