"""JSON Schemas of what the routes take, for /openapi.json; the body of `configure` is made from FIELDS.

They only describe: `config.parse` checks a body and says what is wrong with it.
"""

from __future__ import annotations

from typing import Any

from starbase_data_replication.config.fields import (
    COLLATIONS,
    DELETES_KEYS,
    DELETES_WORDS,
    FIELDS,
    NAME_PATTERN,
    TYPES,
    Field,
)
from starbase_data_replication.model import LONGEST_NAME

COLUMN = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}
SOURCE_CONFIG = {"type": "object", "properties": {"dialect": {"type": "string"}}, "required": ["dialect"]}
DELETES = {
    "oneOf": [
        {"type": "string", "enum": list(DELETES_WORDS)},
        *(
            {"type": "object", "properties": {key: COLUMN}, "required": [key], "additionalProperties": False}
            for key in DELETES_KEYS
        ),
    ]
}
WAIT = {"wait": {"type": "boolean", "default": True, "description": "false answers 202 at once."}}


def configure_body() -> dict[str, Any]:
    """The body of `configure`. Only the name is required, because a change of a replication may leave out the rest."""
    return {
        "type": "object",
        "properties": {field.json: _of(field) for field in FIELDS},
        "required": ["name"],
        "additionalProperties": False,
    }


def flags_body(**docs: str) -> dict[str, Any]:
    """An optional body of flags, each with its doc; without flags, the body must be empty."""
    flags = {name: {"type": "boolean", "default": False, "description": doc} for name, doc in docs.items()}
    return {"type": "object", "properties": flags, "additionalProperties": False, "default": {}}


def _of(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {"string": _text, "number": _number}.get(field.kind, _other)(field)
    if field.nullable:
        schema["type"] = [schema["type"], "null"]
    if field.default is not None or field.nullable:
        schema["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
    return {**schema, "description": field.doc + (" Required for a new replication." if field.required else "")}


def _text(field: Field) -> dict[str, Any]:
    pattern = {"pattern": f"^{NAME_PATTERN}$"} if field.form == "name" else {}
    return {"type": "string", "minLength": field.low, "maxLength": field.high, **pattern}


def _number(field: Field) -> dict[str, Any]:
    return {"type": "number", "minimum": field.low, "maximum": field.high}


def _other(field: Field) -> dict[str, Any]:
    names = {"type": "array", "items": COLUMN, "minItems": int(field.low or 0), "uniqueItems": True}
    known: dict[str, dict[str, Any]] = {
        "names": names,
        "renames": {"type": "object", "additionalProperties": COLUMN},
        "types": {"type": "object", "additionalProperties": {"type": "string", "enum": list(TYPES)}},
        "collations": {"type": "object", "additionalProperties": {"type": "string", "enum": list(COLLATIONS)}},
        "transforms": {"type": "object", "additionalProperties": {**names, "minItems": 1}},
        "boolean": {"type": "boolean"},
        "choice": {"type": "string", "enum": list(field.choices)},
        "deletes": DELETES,
        "object": SOURCE_CONFIG,
    }
    return dict(known[field.kind])
