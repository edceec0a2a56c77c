"""Checks one value of a field of `configure`, and gives its final form; `fields` declares what each allows.

Must not know how fields depend on one another, nor any dialect.
"""

from __future__ import annotations

import math
import re
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from starbase_data_replication.config.fields import COLLATIONS, DELETES_KEYS, DELETES_WORDS, NAME_PATTERN, TYPES, Field
from starbase_data_replication.model import LONGEST_LABEL, LONGEST_NAME, Kind
from starbase_data_replication.sources.settings import is_pem, text_problem
from starbase_host import fold_name

NAME = re.compile(NAME_PATTERN + r"\Z")
OFFSET = re.compile(r"[+-](?:0[0-9]|1[0-3]):[0-5][0-9]\Z|[+-]14:00\Z")
ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9][A-Za-z0-9_+-]*)*\Z")
RESERVED = ("tmp_", "sqlite_")
# Of a nested sourceConfig, whose readers recurse.
MAX_DEPTH = 8
# The most that SQLite allows in a table.
MAX_COLUMNS = 2000
# More than any sourceConfig has; what follows from each value is computed on the event loop.
MAX_VALUES = 200
MAX_CHARACTERS = 65_536
# Certificates of all the world's authorities together.
MAX_PEM_CHARACTERS = 1024 * 1024
MAX_PLUGINS = 100


def value_of(field: Field, value: Any) -> tuple[Any, str | None]:
    """A field's value in its final form, and what is wrong with it; None if nothing is."""
    if value is None and field.nullable:
        return None, None
    if value is None:
        return None, f"must be {_article(field.kind)}, not null"
    if field.kind == "number":
        return _number(field, value)
    if field.kind == "choice":
        return value, None if isinstance(
            value, str
        ) and value in field.choices else f"must be one of {', '.join(field.choices)}"
    if field.kind in STRUCTURED:
        why = STRUCTURED[field.kind](field, value)
        return value if why is not None else _frozen(value), why
    types: Any = {"string": str, "object": Mapping, "boolean": bool}[field.kind]
    if not isinstance(value, types):
        return value, f"must be {_article(field.kind)}"
    if field.kind == "object":
        return dict(value), _unstorable(value)
    return value, _text(field, value) if field.kind == "string" else None


def _frozen(value: Any) -> Any:
    """The same value with tuples in place of lists, as in the defaults."""
    if isinstance(value, Mapping):
        return {key: _frozen(part) for key, part in value.items()}
    return tuple(value) if isinstance(value, list | tuple) else value


def _names(field: Field, value: Any) -> str | None:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return f"must be {_article(field.kind)}{' or null' * field.nullable}"
    if len(value) < (field.low or 0):
        return "must name at least one column, or be null"
    if len(value) > MAX_COLUMNS:
        return f"must not name more than {MAX_COLUMNS} columns"
    if len(set(value)) < len(value):
        return "names a column twice"
    return next((why for name in value if (why := _column(name)) is not None), None)


def _renames(field: Field, value: Any) -> str | None:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value.values()):
        return 'must be an object of columns and their names in the replica: {"Id": "id_2"}'
    for names in (value.keys(), value.values()):
        if why := _names(replace(field, low=0), list(dict.fromkeys(names))):
            return why
    if len({fold_name(name) for name in value.values()}) < len(value):
        return "gives two columns the same name, as SQLite compares names"
    return None


def _types(field: Field, value: Any) -> str | None:
    if not isinstance(value, Mapping) or not all(isinstance(kind, str) and kind in TYPES for kind in value.values()):
        return f'must be an object of columns and what they are kept as, {" or ".join(TYPES)}: {{"price": "text"}}'
    return _names(field, [*value.keys()])


def _collations(field: Field, value: Any) -> str | None:
    if not isinstance(value, Mapping) or not all(kind in COLLATIONS for kind in value.values()):
        return 'must be an object of columns and how they are compared: {"email": "nocase"}'
    return _names(field, [*value.keys()])


def _transforms(field: Field, value: Any) -> str | None:
    if not isinstance(value, Mapping) or not all(isinstance(names, list | tuple) and names for names in value.values()):
        return 'must be an object of plugins and the columns that they get: {"mask_emails": ["email"]}'
    if len(value) > MAX_PLUGINS:
        return f"must not name more than {MAX_PLUGINS} plugins"
    return next((why for names in value.values() if (why := _names(field, names)) is not None), None)


def _column(name: str) -> str | None:
    if not 0 < len(name) <= LONGEST_NAME:
        return f"names a column of no characters, or of more than {LONGEST_NAME}"
    why = text_problem(name, control=True)
    return None if why is None else f"names a column that {why}"


def _deletes(field: Field, value: Any) -> str | None:
    if isinstance(value, str) and value in DELETES_WORDS:
        return None
    if isinstance(value, Mapping) and len(value) == 1:
        key, column = next(iter(value.items()))
        if key in DELETES_KEYS and isinstance(column, str) and 0 < len(column) <= LONGEST_NAME:
            return _column(column)
    return f"must be {' or '.join(DELETES_WORDS)}, or an object with one of {', '.join(DELETES_KEYS)} and a column"


def _article(kind: Kind) -> str:
    return {
        "object": "an object", "renames": "an object", "types": "an object", "collations": "an object",
        "transforms": "an object", "names": "a list of columns",
        "deletes": "a word or an object", "choice": "a word",
    }.get(kind, f"a {kind}")  # fmt: skip


def _number(field: Field, value: Any) -> tuple[float, str | None]:
    assert field.low is not None
    assert field.high is not None
    # A comparison with NaN is False; an integer too large for a double still compares.
    if isinstance(value, bool) or not isinstance(value, int | float) or not field.low <= value <= field.high:
        return 0.0, f"must be a number from {field.low:g} to {field.high:.10g}{' or null' * field.nullable}"
    return float(value), None


def _text(field: Field, value: str) -> str | None:
    assert field.low is not None
    assert field.high is not None
    if not value.strip():
        return "must not be empty"
    if len(value) > field.high:
        return f"must not be longer than {field.high:g} characters"
    if (why := text_problem(value, control=field.control)) is not None:
        return why
    return None if field.form is None else FORMS[field.form](value)


def _check_name(value: str) -> str | None:
    if NAME.match(value):
        return None
    return f"must be 1 to {LONGEST_LABEL} letters A to Z, digits, _ . and -, with a letter or digit first"


def _check_target(value: str) -> str | None:
    if value != value.strip():
        return "has a space at the beginning or end; remove it"
    if fold_name(value).startswith(RESERVED):
        return f"must not begin with {' or '.join(RESERVED)}, which are reserved; choose another name"
    return None


def _check_zone(value: str) -> str | None:
    try:
        # The pattern first: to zoneinfo a zone's name is a path.
        if OFFSET.match(value) or (ZONE.match(value) and zoneinfo.ZoneInfo(value)):
            return None
    except (KeyError, ValueError, OSError):
        pass
    return "is not a known time zone; write an IANA name such as Europe/Berlin, or +02:00, or null"


def _unstorable(value: Mapping[str, Any]) -> str | None:
    """Why an object cannot be stored as JSON in the database; None if it can."""
    waiting: list[tuple[Any, tuple[str, ...]]] = [(value, ())]
    count = 0
    while waiting:
        item, path = waiting.pop()
        count += len(item) if isinstance(item, Mapping | list | tuple) else 0
        if count > MAX_VALUES:
            return f"holds more than {MAX_VALUES} values"
        if isinstance(item, str) and len(item) > MAX_CHARACTERS and not is_pem(item[:MAX_CHARACTERS]):
            return f"its {'.'.join(path)} is longer than {MAX_CHARACTERS} characters"
        if isinstance(item, str) and len(item) > MAX_PEM_CHARACTERS:
            return f"its {'.'.join(path)} is longer than {MAX_PEM_CHARACTERS} characters"
        if len(path) > MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} deep"
        if isinstance(item, str) and (why := text_problem(item, control=True)) is not None:
            return f"its {'.'.join(path)} {why}"
        if isinstance(item, float) and not math.isfinite(item):
            return f"its {'.'.join(path)} must not be NaN or Infinity"
        if isinstance(item, Mapping):
            if any(len(str(key)) > LONGEST_NAME for key in item):
                return f"one of its keys is longer than {LONGEST_NAME} characters"
            if why := next((why for key in item if (why := text_problem(str(key), control=True)) is not None), None):
                return f"one of its keys {why}"
            waiting += [(part, (*path, str(key))) for key, part in item.items()]
        elif isinstance(item, list | tuple):
            waiting += [(part, (*path, str(index))) for index, part in enumerate(item)]
    return None


STRUCTURED: Mapping[Kind, Callable[[Field, Any], str | None]] = {
    "deletes": _deletes,
    "names": _names,
    "renames": _renames,
    "types": _types,
    "collations": _collations,
    "transforms": _transforms,
}

FORMS: Mapping[str, Callable[[str], str | None]] = {"name": _check_name, "target": _check_target, "zone": _check_zone}
