"""A sourceConfig by its JSON Schema: what is wrong with one, its defaults, and what may be shown of it.

Owns the few keywords that such a schema may have. Must not know a dialect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starbase_data_replication.sources.settings.env_references import has_reference, is_reference
from starbase_data_replication.sources.settings.names import text_problem
from starbase_data_replication.sources.settings.scrubbing import MASK
from starbase_host import did_you_mean

NAMES = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
KINDS: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}


def settings_schema_of(properties: Mapping[str, Mapping[str, Any]], *, scheme: str) -> dict[str, Any]:
    """The schema of a dialect that also takes a connection string. scheme: what one may begin with."""
    text = {
        "type": "string",
        "writeOnly": True,
        "description": f"{scheme}://USER:PASSWORD@HOST:PORT/DATABASE, in place of all other keys but defaultSchema.",
    }
    return {
        "type": "object",
        "properties": {**properties, "connectionString": text},
        "additionalProperties": False,
        "anyOf": [{"required": ["host", "user"]}, {"required": ["connectionString"]}],
    }


def problems_of(schema: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with a sourceConfig: field to message, with the fix. A value with a `${NAME}` passes for now."""
    properties, problems = schema.get("properties", {}), {}
    for name, value in settings.items():
        if name == "dialect" or value is None:
            continue
        if name not in properties:
            shown = str(name)[:60].encode("utf-8", "backslashreplace").decode()
            problems[f"sourceConfig.{shown}"] = f"is not a key of this dialect; {did_you_mean(shown, properties)}"
        elif not has_reference(value) and (why := _problem(properties[name], value)) is not None:
            problems[f"sourceConfig.{name}"] = why
    for name in schema.get("required", ()):
        if settings.get(name) is None:
            what = properties[name].get("description") or properties[name].get("title") or ""
            problems[f"sourceConfig.{name}"] = f"is required{f': {what}' if what else ''}"
    return problems


def with_defaults(schema: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the defaults of those that are left out."""
    defaults = {name: each["default"] for name, each in schema.get("properties", {}).items() if "default" in each}
    return {**defaults, **{name: value for name, value in settings.items() if value is not None}}


def masked_by(schema: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with each secret, by `writeOnly`, as `***`. A `${NAME}` alone is not a secret."""
    secret = {name for name, each in schema.get("properties", {}).items() if each.get("writeOnly")}
    return {
        name: MASK if name in secret and value not in (None, "") and not is_reference(value) else value
        for name, value in settings.items()
    }


def _problem(rule: Mapping[str, Any], value: Any) -> str | None:
    kind = rule.get("type", "string")
    if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return f"must be {NAMES[kind]}"
    if isinstance(value, str) and (why := text_problem(value)) is not None:
        return why
    if "enum" in rule and value not in rule["enum"]:
        return f"must be one of {', '.join(map(str, rule['enum']))}"
    size, what = (len(value), " characters long") if isinstance(value, str) else (value, "")
    low, high = (rule.get(name) for name in (("minLength", "maxLength") if what else ("minimum", "maximum")))
    if kind != "boolean" and ((low is not None and size < low) or (high is not None and size > high)):
        both = (
            f"from {low} to {high}"
            if None not in (low, high)
            else f"at least {low}"
            if high is None
            else f"at most {high}"
        )
        return f"must be {both}{what}"
    return None
