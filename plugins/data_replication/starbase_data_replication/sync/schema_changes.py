"""How a source table has changed since the last sync, and what that means for the replica.

Pure functions of fingerprints. Must not know how a column is added or how rows are read again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from starbase_data_replication.errors import SchemaMismatch
from starbase_data_replication.model import Options, Phase, Position, SchemaFingerprint, TableName, TableSchema
from starbase_host import fold_name

TYPE = re.compile(r"(?P<name>[a-z ]+?)(?:\((?P<length>[0-9]+)\))?(?P<sign> unsigned)?\Z")
# Types that store the values that they have in common alike, the narrowest first.
INTEGERS = ("tinyint", "smallint", "mediumint", "int", "integer", "bigint")
FAMILIES = (
    INTEGERS,
    ("character varying", "varchar", "text"),
    ("tinytext", "text", "mediumtext", "longtext"),
    ("varbinary",),
)


class KeyChanged(SchemaMismatch):
    """Other columns identify a row than before, so that rows of the replica cannot be matched."""

    code = "key_changed"


@dataclass(frozen=True, kw_only=True)
class SchemaChanges:
    """How a table has changed.

    Attributes:
        texts: each change in words.
        reload: whether rows that were copied before are no longer right.
        added: the source's names of new columns.
        dropped: the source's names of columns that are gone.
    """

    texts: tuple[str, ...] = ()
    reload: bool = False
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.texts)


def compare_fingerprints(before: SchemaFingerprint, now: SchemaFingerprint) -> SchemaChanges:
    """How a table has changed between two fingerprints."""
    texts: list[str] = []
    if before.kind != now.kind:
        texts.append(f"it was a {before.kind}, and is a {now.kind}")
    replaced = None not in (before.incarnation, now.incarnation) and before.incarnation != now.incarnation
    if replaced:
        texts.append("another table has taken its name")
    if tuple(before.key) != tuple(now.key):
        texts.append(f"its key was {_listed(before.key)}, and is {_listed(now.key)}")
    redefined = bool(before.definition and now.definition) and before.definition != now.definition
    if redefined:
        texts.append("the query of the view, or of a view below it, has changed")
    exchanged = [name for name, part in now.parts.items() if before.parts.get(name, part) != part]
    texts += [f"partition {name} was exchanged, emptied or rebuilt" for name in exchanged]
    added = tuple(name for name in now.columns if name not in before.columns)
    dropped = tuple(name for name in before.columns if name not in now.columns)
    texts += [f"column {name} ({now.columns[name][0]}) was added" for name in added]
    texts += [f"column {name} ({before.columns[name][0]}) was dropped" for name in dropped]
    other_form = False
    for name in now.columns.keys() & before.columns.keys():
        old_type, old_form, _, old_number = before.columns[name]
        new_type, new_form, _, new_number = now.columns[name]
        if old_number != new_number:
            texts.append(f"column {name} was replaced by another column with this name")
            other_form = True
        if old_type != new_type:
            texts.append(f"column {name} was {old_type}, and is {new_type}")
            other_form |= not _wider(old_type, new_type)
        other_form |= old_form != new_form
    if before.tracking != now.tracking:
        texts.append(f"the tracking column was {before.tracking}, and is {now.tracking}")
        other_form = True
    # SQLite takes names that differ only in case for the same.
    cased = {fold_name(name) for name in added} & {fold_name(name) for name in dropped}
    replaced |= redefined or bool(exchanged)
    reload = replaced or other_form or bool(cased) or tuple(before.key) != tuple(now.key)
    return SchemaChanges(texts=tuple(texts), reload=reload, added=added, dropped=dropped)


class Moved(NamedTuple):
    """Tables that hold the source's rows, by the dialect's names.

    Attributes:
        rewritten: those that were rewritten since the last sync.
        joined: those that are new.
    """

    rewritten: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()


def moved(before: Mapping[str, str], now: Mapping[str, str]) -> Moved:
    """Which of the tables that hold the rows were rewritten, and which are new.

    A rewritten table may hold other rows. A new one, such as an attached partition, may bring rows below the floor.
    """
    if not before:
        # The source did not show it then.
        return Moved()
    # A name ends in @ and how the table has joined, if that is known. Older versions stored names without it.
    known = {name: before[old] for name in now for old in (name.partition("@")[0], name) if old in before}
    rewritten = tuple(name for name, file in known.items() if file != now[name])
    return Moved(rewritten, tuple(name for name in now if name not in known))


def must_reload(
    table: TableName, before: Position, now: SchemaFingerprint, found: SchemaChanges, options: Options, *, name: str
) -> bool:
    """Whether the table must be loaded again because of these changes. name: the replication's.

    Raises SchemaMismatch if onSchemaChange is `error`, and KeyChanged if rows cannot be matched any more.
    """
    if not found:
        # The types are the same, but this version may store their values in another form.
        return found.reload
    changes = f"{table} has changed: {'; '.join(found.texts)}"
    fix = f"reset the replication (POST /data-replication/reset/{name}) to accept the change"
    if options.on_schema_change == "error":
        raise SchemaMismatch(f"{changes}; onSchemaChange is error: {fix}, or set onSchemaChange to apply")
    key = before.fingerprint.key if before.fingerprint is not None else ()
    if key and tuple(key) != tuple(now.key) and options.mode != "full":
        keys = "" if now.key else ", or name the columns that identify a row in keyColumns"
        raise KeyChanged(f"{changes}; {fix}{keys}")
    gone = {fold_name(name) for name in before.dropped}
    # A load under way has read its rows with the columns of before, and a column that comes back holds old values.
    again = before.phase is Phase.LOAD or any(fold_name(options.rename.get(each, each)) in gone for each in found.added)
    return found.reload or again or (bool(found.added) and options.on_schema_change == "backfill")


def gone(before: Position | None, schema: TableSchema) -> tuple[str, ...]:
    """The source's names of columns that existed when the replica was last brought up to date, and do not now."""
    if before is None or before.fingerprint is None:
        return ()
    there = {column.name for column in (*schema.columns, *schema.left_out)}
    return tuple(name for name in before.fingerprint.columns if name not in there)


def maybe_revoked(found: SchemaChanges, columns: Sequence[str]) -> SchemaChanges:
    """The changes of a table that hides columns from this user: dropped columns may only be hidden."""
    beginnings = tuple(f"column {name} (" for name in columns)
    texts = (
        f"{text}, or is no longer granted to this user"
        if text.startswith(beginnings) and text.endswith("was dropped")
        else text
        for text in found.texts
    )
    return replace(found, texts=tuple(texts))


def dropped(before: Position, schema: TableSchema, found: SchemaChanges, options: Options) -> tuple[str, ...]:
    """The replica's names of all columns that the source no longer has."""
    names = (*before.dropped, *(options.rename.get(name, name) for name in found.dropped))
    there = {fold_name(column.target) for column in schema.columns}
    return tuple(dict.fromkeys(name for name in names if fold_name(name) not in there))


def _wider(before: str, now: str) -> bool:
    """Whether a type only holds more than before. If it holds less, values may have been cut."""
    old, new = (TYPE.match(each) for each in (before.lower(), now.lower()))
    if old is None or new is None:
        return False
    for family in FAMILIES:
        if old["name"] in family and new["name"] in family and old["sign"] == new["sign"]:
            longer = [math.inf if each["length"] is None else int(each["length"]) for each in (old, new)]
            # The number behind an integer's name is only its display width.
            fits = family is INTEGERS or longer[0] <= longer[1]
            return family.index(old["name"]) <= family.index(new["name"]) and fits
    return False


def _listed(names: Sequence[str]) -> str:
    return f"({', '.join(names)})" if names else "none"
