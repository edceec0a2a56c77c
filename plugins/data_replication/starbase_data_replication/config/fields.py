"""The fields of `configure`, each made from its declaration in `model`: checks, schema and pages read them.

Must not know how fields depend on one another, nor any dialect; `checks` has the checks of values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from starbase_data_replication.model import LONGEST_LABEL, Declaration, Kind, Options, Replication

# Of a replication or a group: safe in a URL, a file's name and a log line.
NAME_PATTERN = f"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{LONGEST_LABEL - 1}}}"
# What a column may be kept as, instead of what becomes of its type.
TYPES = ("text", "datetime")
# How a replica may compare a text, other than byte by byte.
COLLATIONS = ("nocase",)
# What `deletes` may be: one of these words, or an object with exactly one of the keys and a column's name.
DELETES_WORDS = ("ignore", "reconcile")
DELETES_KEYS = ("mark", "sourceColumn")
# Of a field that does not declare its kind, by its type.
KINDS: dict[Any, Kind] = {str: "string", float: "number", bool: "boolean"}


@dataclass(frozen=True, kw_only=True)
class Field(Declaration):
    """A declaration with what the type and the default of its attribute add.

    json: its name in JSON.
    attribute: its name in Replication, or in Options.
    default: its value in a new replication that leaves it out; None also if it is required.
    required: whether a new replication must have it.
    nullable: whether null is a value with a meaning of its own.
    """

    json: str
    attribute: str
    kind: Kind
    default: Any
    required: bool
    nullable: bool


def _fields_of(owner: type[Replication] | type[Options]) -> Iterator[Field]:
    hints = get_type_hints(owner, include_extras=True)
    for attribute in dataclasses.fields(owner):
        declarations = [part for part in get_args(hints[attribute.name]) if isinstance(part, Declaration)]
        # `options` has none: what it holds are fields themselves.
        for declaration in declarations:
            yield _field(attribute, get_args(hints[attribute.name])[0], declaration)


def _field(attribute: dataclasses.Field[Any], hint: Any, declaration: Declaration) -> Field:
    kinds = [KINDS[part] for part in (hint, *get_args(hint)) if part in KINDS]
    default = attribute.default_factory() if attribute.default_factory is not MISSING else attribute.default
    declared = {one.name: getattr(declaration, one.name) for one in dataclasses.fields(declaration)}
    return Field(
        **{**declared, "kind": declaration.kind or ("choice" if declaration.choices else kinds[0])},
        json=_in_json(attribute.name),
        attribute=attribute.name,
        default=None if default is MISSING else default,
        required=default is MISSING,
        nullable=NoneType in get_args(hint),
    )


def _in_json(attribute: str) -> str:
    first, *others = attribute.split("_")
    return first + "".join(word.capitalize() for word in others)


FIELDS = (*_fields_of(Replication), *_fields_of(Options))
