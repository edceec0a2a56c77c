"""What a route is, for the host and for plugins, and what can be wrong with one. Must not know plugins or requests."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from starlette.routing import compile_path

Role = Literal["admin", "client"]


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who has sent a request.

    role: the role that the request has.
    by: what says so: "token", or the name of the plugin that knows the caller, or that calls the host itself.
    name: what that plugin calls the caller; "" for a token.
    """

    role: Role
    by: str = ""
    name: str = ""


# The one path that a plugin may claim outside its prefix, and only one plugin.
ROOT = "/"
# An error names at most this many problems, and shows at most this many characters of a name.
MAX_NAMED, MAX_NAME = 20, 60


@dataclass(frozen=True)
class Route:
    """An HTTP route of a plugin.

    path: below the plugin's prefix, such as `/my-plugin/things/{name}`; or `/`, which one plugin may claim.
    endpoint: a coroutine function that takes a Starlette `Request`. What it returns becomes `{"result": …}`; `Answer`
        sets another status than 200. A StarbaseError that it raises becomes `{"error": …}` with its status.
    methods: the HTTP methods.
    role: the role that a caller needs: "admin"; "client", which includes admin; None for no token.
    query: its query parameters by name, each with a JSON Schema. Unknown or repeated parameters return 400. With None,
        the endpoint gets every parameter.

    The other fields only describe the route in /openapi.json.

    summary: one line.
    body: a JSON Schema of the request's body.
    answer: a JSON Schema of `result`.
    statuses: the statuses of a successful call.
    envelope: False for a route that returns its own Response, which `answer` then describes as a whole.
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


def route_problem(route: Route, prefix: str) -> str | None:
    """What is wrong with a route, and the fix; None when nothing is."""
    if not isinstance(route.path, str) or (route.path != ROOT and not (route.path + "/").startswith(prefix + "/")):
        return f"lies outside its prefix {prefix}; move it below the prefix, or give the plugin another path_prefix"
    try:
        compile_path(route.path)
    except (AssertionError, ValueError) as error:
        return f"is not a path: {error}"
    if not callable(route.endpoint):
        return "has an endpoint that cannot be called; give it a coroutine function"
    if route.role not in (*get_args(Role), None):
        return f"has the role {route.role!r}; it must be admin, client or None"
    if isinstance(route.methods, str) or not all(isinstance(method, str) for method in route.methods):
        return 'has methods that are not a list of names; write ("GET",)'
    return _document_problem(route)


def _document_problem(route: Route) -> str | None:
    """The same for the fields of /openapi.json: a mistake of one plugin must not break the document for all."""
    if not isinstance(route.summary, str):
        return "has a summary that is not text"
    if isinstance(route.statuses, str) or not all(status in range(200, 300) for status in route.statuses):
        return "has statuses that are not a list of numbers from 200 to 299; write (200,)"
    schemas = [*route.query.values()] if isinstance(route.query, Mapping) else [route.query]
    schemas = [schema for schema in (*schemas, route.body, route.answer) if schema is not None]
    if not all(isinstance(schema, Mapping) for schema in schemas):
        return "has a query, body or answer that is not a JSON Schema; write a dict"
    try:
        json.dumps(schemas)
    except (TypeError, ValueError) as error:
        return f"has a JSON Schema that is not JSON: {error}"
    return None


def query_problems(route: Route, names: Sequence[str]) -> dict[str, str]:
    """What is wrong with the query parameters of a call, by name.

    names: the names as the caller sent them, with repetitions.

    If an unknown parameter were ignored, a misspelt one would seem to work.
    """
    if route.query is None:
        return {}
    known = f"known: {', '.join(route.query)}" if route.query else "it takes none"
    problems: dict[str, str] = {}
    for name in list(dict.fromkeys(names))[:MAX_NAMED]:
        shown = name[:MAX_NAME] or "(no name)"
        if name in route.query:
            if names.count(name) > 1:
                problems[shown] = "occurs twice; give it once"
        elif (schema := _property(route, name)) is not None:
            form = f': {{"{name}": true}}' if schema.get("type") == "boolean" else ""
            problems[shown] = f"belongs in the body{form}"
        else:
            problems[shown] = f"is not a parameter of this route; {known}"
    return problems


def _property(route: Route, name: str) -> Mapping[str, Any] | None:
    """The schema of a field of a route's body, if the body's schema lists its fields."""
    properties = (route.body or {}).get("properties")
    schema = properties.get(name) if isinstance(properties, Mapping) else None
    return schema if isinstance(schema, Mapping) else None
