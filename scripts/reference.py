"""Owns the table of configure's fields in docs/reference/configuration.md: made of their declarations.

Must not change anything else on the page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starbase_data_replication.config.fields import FIELDS, Field

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "configuration.md"
BEGIN = "<!-- From here to the end of the table: written by `python scripts/reference.py`. -->\n"
END = "<!-- The end of the written table. -->\n"
HEAD = """\
| Field | Type | Default | Bounds | Meaning | Example |
|---|---|---|---|---|---|
"""
# Kinds that have another name in JSON.
TYPES = {
    "choice": "string",
    "deletes": "string or object",
    "names": "list of strings",
    "renames": "object",
    "types": "object",
    "collations": "object",
    "transforms": "object",
}
# By field: its example, and what the page says after the meaning that is declared.
NOTES = {
    "name": ('`"supabase-users"`', ""),
    "sourceConfig": ("below", ""),
    "sourceTable": ('`"sales.orders"`', ""),
    "targetTable": (
        '`"orders"`',
        "Nor the target of another replication (SQLite ignores case), a table-valued function of SQLite such "
        "as `json_each`, or a table in which a full-text or R-tree table keeps its data (`notes_data` of "
        "`notes`).",
    ),
    "syncIntervalMinutes": ("`0.5`", ""),
    "trackingColumn": ('`"updated_at"`', "See below."),
    "isActive": ("`false`", ""),
    "closeWaitSeconds": ("`0`", "A first load always waits 30 seconds."),
    "lookbackSeconds": ("`0`", ""),
    "settleSeconds": ("`5`", ""),
    "trackingTimeZone": ('`"Europe/Berlin"`', ""),
    "mode": (
        '`"full"`',
        "`full` does so at every sync. A configured `trackingColumn` must exist all the same, and "
        "`nullTracking` applies.",
    ),
    "nullTracking": (
        '`"ignore"`',
        "With `read`, a sync that finds more than 10,000 fails; the first one fails before it loads anything."
        " With `mode` `full` there is no such limit.",
    ),
    "rowSecurity": (
        '`"filtered"`',
        "See [Rows that the source hides](../explanation/consistency.md#rows-that-the-source-hides).",
    ),
    "deletes": ('`{"mark": "gone_at"}`', ""),
    "deletesIntervalMinutes": ("`15`", "The first comes one interval after `configure` or `start`."),
    "deletesMaxShare": ("`0.05`", 'Marks count as removals. `{"force": true}` lifts the limit for one run.'),
    "verifyIntervalMinutes": (
        "`1440`",
        "It reports, but does not repair. The first comes one interval after `configure` or `start`.",
    ),
    "onSchemaChange": ('`"backfill"`', "See below."),
    "onSourceRewind": ('`"error"`', "See [what is noticed](../explanation/consistency.md#a-source-that-went-back)."),
    "columns": (
        '`["id", "name", "updated_at"]`',
        "The key's columns must be among them; the tracking column need not.",
    ),
    "excludeColumns": ('`["password_hash"]`', ""),
    "where": ('`"tenant_id = 7"`', "See below."),
    "rename": ('`{"id": "order_id"}`', "Other options keep using the source's names."),
    "types": (
        '`{"price": "text"}`',
        "That is `2026-11-22 16:02:16.5`, in UTC if it has a zone. By default, decimals are numbers, and "
        "moments ISO 8601. Decimals that no number of SQLite's represents exactly are always text, and a "
        "warning counts them: [types.md](types.md).",
    ),
    "collations": ('`{"email": "nocase"}`', "If the target table exists already, it must declare this too."),
    "keyColumns": (
        '`["order_id", "line"]`',
        "They must not contain NULL, and must be unique. A load checks this when it begins.",
    ),
    "transforms": ('`{"mask_emails": ["email"]}`', ""),
    "group": ('`"shop"`', "See below."),
    "maxRowsPerSecond": (
        "`5000`",
        "An average over the sync, without peaks of more than a second's rows. A verification or "
        "reconciliation is not slowed.",
    ),
}


def page(current: str) -> str:
    """The page as it has to be. current: the page as it is; all but the table stays."""
    before, _, rest = current.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + HEAD + "".join(map(_row, FIELDS)) + END + after


def _row(field: Field) -> str:
    example, more = NOTES[field.json]
    kind = TYPES.get(field.kind, field.kind)
    meaning = f"{field.doc} {more}".rstrip()
    return f"| `{field.json}` | {kind} | {_default(field)} | {_bounds(field)} | {meaning} | {example} |\n"


def _default(field: Field) -> str:
    return "required" if field.required else f"`{_written(field.default)}`"


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _bounds(field: Field) -> str:
    if field.low is None or field.high is None:
        return ""
    return f"{field.low:.13g} to {field.high:.13g}" + (" characters" if field.kind == "string" else "")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
