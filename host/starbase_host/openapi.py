"""The OpenAPI 3.1 document of a host, made only from its routes and those of its plugins.

Must not know plugins, configuration or values, so that it cannot contain a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.routing import compile_path

from starbase_host.routes import Route

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PARAMETER_TYPES = {"int": {"type": "integer", "minimum": 0}, "float": {"type": "number", "minimum": 0}}
ROLES = {
    None: "Needs no token.",
    "client": "Needs the client token or the admin token.",
    "admin": "Needs the admin token.",
}
ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "What is wrong, and how to fix it."}},
    "required": ["error"],
    "additionalProperties": False,
}
REFUSALS = {
    401: "The token is missing or wrong",
    403: "The token's role may not do this",
    404: "The name does not exist",
}


def document(routes: Iterable[tuple[str, Route]], version: str) -> dict[str, Any]:
    """Make the document.

    routes: (owner, route), where the owner is "host" or the name of a plugin.
    version: the version of the host.
    """
    paths: dict[str, dict[str, Any]] = {}
    owners: dict[str, None] = {}
    for owner, route in routes:
        owners[owner] = None
        template, parameters = _path(route.path)
        for method in route.methods:
            operation = _operation(owner, route, parameters)
            operation["operationId"] = f"{method.lower()}:{template}"
            paths.setdefault(template, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "starbase-host", "version": version},
        "jsonSchemaDialect": DIALECT,
        "tags": [{"name": owner} for owner in owners],
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _path(path: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the path of a route as OpenAPI writes it, and its parameters."""
    _, template, convertors = compile_path(path)
    found = []
    for name, convertor in convertors.items():
        kind = type(convertor).__name__.removesuffix("Convertor").lower()
        schema = PARAMETER_TYPES.get({"integer": "int"}.get(kind, kind), {"type": "string", "minLength": 1})
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    return template, found


def _operation(owner: str, route: Route, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    queries = [{"name": name, "in": "query", "schema": dict(schema)} for name, schema in (route.query or {}).items()]
    operation: dict[str, Any] = {
        "tags": [owner],
        "description": ROLES[route.role],
        "x-role": route.role,
        "security": [] if route.role is None else [{"token": []}],
        "parameters": [*parameters, *queries],
        "responses": _responses(route, parameters),
    }
    if route.summary:
        operation["summary"] = route.summary
    if route.body is not None:
        operation["requestBody"] = {"content": _json(route.body), "required": "default" not in route.body}
    return operation


def _responses(route: Route, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = dict(route.answer or {})
    if route.envelope:
        properties = {"result": answer}
        answer = {"type": "object", "properties": properties, "required": ["result"], "additionalProperties": False}
    found = {str(status): {"description": "Done", "content": _json(answer)} for status in route.statuses}
    refusals = [401, *([403] if route.role == "admin" else [])] if route.role is not None else []
    for status in refusals + ([404] if parameters else []):
        found[str(status)] = {"description": REFUSALS[status], "content": _json({"$ref": "#/components/schemas/Error"})}
    error = {
        "description": "The request failed; the error says why",
        "content": _json({"$ref": "#/components/schemas/Error"}),
    }
    return {**found, "default": error}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": dict(schema)}}
