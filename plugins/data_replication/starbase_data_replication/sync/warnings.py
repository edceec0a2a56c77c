"""The warnings of a sync, and what protects it, in words. Asks the source if it must."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from starbase_data_replication.errors import SchemaMismatch
from starbase_data_replication.model import (
    HighWatermark,
    OpenTransactions,
    Options,
    Phase,
    Position,
    TableSchema,
    UnrepresentableValues,
    rows_in_words,
)
from starbase_data_replication.sources import MAX_AHEAD, MAX_SHARED, Feature, Inspector, RegisteredDialect
from starbase_data_replication.sync import tracking_values, watermarks
from starbase_data_replication.sync.start import Start
from starbase_host import iso

# More rows without a tracking value are refused: every sync reads all of them again.
MAX_NULL_ROWS = 10_000


async def null_rows(inspector: Inspector, schema: TableSchema, options: Options, *, followed: bool) -> list[str]:
    """The warnings of rows without a tracking value. Raises SchemaMismatch if `nullTracking` refuses them.

    followed: whether later syncs read them again. A first load could read any number of them, but every sync after it
    would fail, so they are counted before it.
    """
    policy = options.null_tracking
    if not schema.tracking.nullable or (policy == "read" and not followed):
        return []
    limit = {"read": MAX_NULL_ROWS + 1, "error": 1, "ignore": None}[policy]
    found = await inspector.count_nulls(schema, at_most=limit)
    name = schema.tracking_column
    if policy == "ignore":
        have, are = ("has", "is") if found == 1 else ("have", "are")
        rows = rows_in_words(found)
        return [f"{rows} {have} no {name} and {are} ignored, as nullTracking says"] if found else []
    if found and policy == "error":
        raise SchemaMismatch(
            f"nullTracking: rows of {schema.table} have no {name}; fill it, or set nullTracking to read or ignore"
        )
    if found > MAX_NULL_ROWS:
        raise SchemaMismatch(
            f"nullTracking: more than {MAX_NULL_ROWS} rows of {schema.table} have no {name}, and would be read at "
            "every sync; fill it, or set nullTracking to ignore"
        )
    return []


def of_rows_ahead(schema: TableSchema, found: int) -> list[str]:
    """The warning of rows in the future."""
    if not found:
        return []
    rows = rows_in_words(found) if found < MAX_AHEAD else f"at least {found} rows"
    have, are = ("has", "is") if found == 1 else ("have", "are")
    return [f"{rows} of {schema.table} {have} a {schema.tracking_column} in the future, and {are} read at every sync"]


def of_shared(schema: TableSchema, noted: HighWatermark) -> list[str]:
    """The warning of a floor that more rows share than are read again."""
    if noted.shared <= MAX_SHARED or noted.clocked:
        return []
    name = schema.tracking_column
    return [
        f"trackingColumn: more than {MAX_SHARED} rows of {schema.table} have the same {name}, the highest that was "
        f"read: a row that is added later with this value is not read; {tracking_values.fix(schema)}"
    ]


def of_schema_changes(schema: TableSchema, changes: Sequence[str], phase: Phase) -> list[str]:
    """The warnings of a table that has changed."""
    if not changes:
        return []
    warnings = [f"{schema.table} has changed: {'; '.join(changes)}"]
    if phase is Phase.FOLLOW and any(change.endswith("was added") for change in changes):
        warnings.append(
            "rows that were copied before a column was added hold NULL in it until they change; "
            "verify with repair, or set onSchemaChange to backfill"
        )
    return warnings


def of_unknown_transactions(position: Position, reason: str) -> list[str]:
    """The warning of a floor that waits for a source to show its open transactions again."""
    since = watermarks.held_since(position)
    if since is None:
        return []
    return [
        f"since {iso(since)} the source has not shown which transactions are open"
        f"{f' ({reason})' if reason else ''}: until it does, for at most {watermarks.HOLD_SECONDS / 3600:g} "
        "hours, what has changed since then is read again at every sync; after that, the lookback alone protects"
    ]


def of_joined(schema: TableSchema) -> list[str]:
    """The warning of a table that is new below a view."""
    return [
        f"a table below the view {schema.table} is new: its rows at or below the floor are not read; verify with "
        "repair, or reset"
    ]


def of_reload(start: Start) -> list[str]:
    """The warning of a load with a stored reason. A load because of a changed schema has a warning already."""
    former = start.position.former
    return [f"the table was loaded again: {start.reason}"] if former is not None and former.noted else []


def protection(noted: OpenTransactions | None, *, schema: TableSchema, whole: bool) -> str | None:
    """What protects rows that are committed late, and why; None if this sync did not learn it."""
    unprotected = schema.unprotected
    if whole:
        return "full: the table is loaded whole at each sync"
    if noted is None:
        return None
    if noted.known and unprotected is None:
        protected_by = f"transactions: {noted.reason}" if noted.reason else "transactions"
        return f"{protected_by}; {_unassigned(schema)}" if schema.unassigned else protected_by
    reasons = [reason for reason in (unprotected, "" if noted.known else noted.reason) if reason]
    return f"lookback: {'; '.join(reasons)}" if reasons else "lookback"


def _unassigned(schema: TableSchema) -> str:
    """What the protection depends on if nothing at the source assigns the tracking column's values."""
    name = schema.tracking_column
    return (
        f"nothing at the source gives {name} its values (no default, identity, AUTO_INCREMENT or trigger), so this "
        "is true only if applications take them inside the transaction that writes the row; if they do not, give "
        f"{name} a default or a trigger, or set lookbackSeconds to the longest time from taking a value to its commit"
    )


def of_unrepresentable(found: Counter[UnrepresentableValues]) -> list[str]:
    """The warnings of values that their column's form cannot hold."""
    return [f"column {each.column}: of the values read, {count} {each.policy}" for each, count in found.items()]


def of_dialect(dialect: RegisteredDialect, schema: TableSchema, *, whole: bool) -> list[str]:
    """The warning of a dialect that reads without snapshots."""
    if Feature.SNAPSHOT in dialect.features:
        return []
    later = (
        "the next sync loads it again; sync while nothing writes to it, if its rows must be of one moment"
        if whole
        else f"a later sync reads a row again only if its {schema.tracking_column} has risen; track a column that "
        "rises with every change, and reset now and then"
    )
    return [
        f"{dialect.label} reads without a snapshot (it lacks the feature snapshot): what changes in {schema.table} "
        f"during a sync may be copied in part, or missed; {later}"
    ]


def of_table(schema: TableSchema) -> list[str]:
    """The warnings of the table itself."""
    unknown = [f"{column.name} ({column.source_type})" for column in schema.columns if not column.cast.known]
    warnings = [f"type not in the ledger, kept as the source's text: {', '.join(unknown)}"] if unknown else []
    if not schema.key and schema.parent_key:
        names = json.dumps(schema.parent_key)
        warnings.append(
            f"{schema.table} has children by inheritance, whose rows its key does not cover: every sync loads it "
            f"whole; if it identifies a row among all of them, set keyColumns to {names}"
        )
    elif not schema.key:
        warnings.append(
            f"{schema.table} has no primary key and no unique index without NULLs: every sync loads it whole"
        )
    return warnings
