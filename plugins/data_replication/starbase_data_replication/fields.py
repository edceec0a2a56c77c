"""The fields of a replication: what is known of each, and whether one value can be one.

Owns FIELDS, from which the checks here, the documentation and the command line are made. Must not know how
fields depend on one another, nor anything of a dialect.
"""

from __future__ import annotations

import math
import re
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from starbase_data_replication.sources.texts import text_problem
from starbase_host import same_name

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
OFFSET = re.compile(r"[+-](?:0[0-9]|1[0-3]):[0-5][0-9]\Z|[+-]14:00\Z")
ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9][A-Za-z0-9_+-]*)*\Z")
RESERVED = ("tmp_", "sqlite_")
MAX_DEPTH = 8

Kind = Literal["string", "object", "number", "boolean", "choice", "deletes"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """What is known of one field.

    attribute: its name in Replication, or in Options. low, high: the bounds of a number, or of a string's
    length. nullable: null is a value with a meaning of its own.
    """

    json: str
    attribute: str
    kind: Kind
    doc: str
    default: Any = None
    required: bool = False
    nullable: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


# What `deletes` may be: one of these words, or an object with exactly one of the keys and a column's name.
DELETES_WORDS = ("ignore", "reconcile")
DELETES_KEYS = ("mark", "sourceColumn")

FIELDS = (
    Field(
        json="name",
        attribute="name",
        kind="string",
        required=True,
        low=1,
        high=63,
        doc="The replication's name: letters, digits, `_`, `.` and `-`, a letter or digit first.",
    ),
    Field(
        json="sourceConfig",
        attribute="source_config",
        kind="object",
        required=True,
        doc="Where the source is: `dialect`, and the dialect's own keys. A string may hold `${NAME}`.",
    ),
    Field(
        json="sourceTable",
        attribute="source_table",
        kind="string",
        required=True,
        low=1,
        high=512,
        doc="The table to read: `table` or `schema.table`; a name with a dot in double quotes.",
    ),
    Field(
        json="targetTable",
        attribute="target_table",
        kind="string",
        required=True,
        low=1,
        high=255,
        doc="The SQLite table to keep; made by the first sync. Not `tmp_…` or `sqlite_…`.",
    ),
    Field(
        json="syncIntervalMinutes",
        attribute="sync_interval_minutes",
        kind="number",
        default=60.0,
        low=0.01,
        high=525_600,
        doc="Minutes from one sync to the next.",
    ),
    Field(
        json="trackingColumn",
        attribute="tracking_column",
        kind="string",
        default="id",
        low=1,
        high=255,
        doc="The column that tells new and changed rows: it only ever grows.",
    ),
    Field(
        json="isActive",
        attribute="is_active",
        kind="boolean",
        default=True,
        doc="Whether it syncs by itself. One that does not can still be synced by hand.",
    ),
    Field(
        json="closeWaitSeconds",
        attribute="close_wait_seconds",
        kind="number",
        default=2.0,
        low=0,
        high=300,
        doc="How long a sync waits for the transactions that were alive when it began.",
    ),
    Field(
        json="lookbackSeconds",
        attribute="lookback_seconds",
        kind="number",
        nullable=True,
        low=0,
        high=86_400,
        doc="How far back rows are read again, against values that were not assigned by the transaction that "
        "wrote them; null is 60 where the source tells which transactions are alive, else 300.",
    ),
    Field(
        json="settleSeconds",
        attribute="settle_seconds",
        kind="number",
        default=2.0,
        low=0,
        high=3600,
        doc="With a tracking column that holds a time: how far behind the source's clock a row is settled.",
    ),
    Field(
        json="trackingTimeZone",
        attribute="tracking_time_zone",
        kind="string",
        nullable=True,
        low=1,
        high=64,
        doc="The zone of tracking times that carry none: an IANA name or an offset such as `+02:00`; "
        "null is the server's own.",
    ),
    Field(
        json="mode",
        attribute="mode",
        kind="choice",
        default="incremental",
        choices=("incremental", "full"),
        doc="`incremental` reads what is new; `full` loads the whole table beside the old one and swaps it in.",
    ),
    Field(
        json="nullTracking",
        attribute="null_tracking",
        kind="choice",
        default="read",
        choices=("read", "ignore", "error"),
        doc="Rows whose tracking column is NULL: `read` them at every sync, at most 10,000; `ignore` them, "
        "counted in a warning; or let the run fail with an `error`.",
    ),
    Field(
        json="deletes",
        attribute="deletes",
        kind="deletes",
        default="ignore",
        doc="Rows that are gone from the source: `ignore` keeps them; `reconcile` compares the keys on a schedule "
        'and removes them; `{"mark": "column"}` writes the time into this extra column of the replica instead; '
        '`{"sourceColumn": "deleted_at"}` removes rows in which this column is not NULL, as they are read.',
    ),
    Field(
        json="deletesIntervalMinutes",
        attribute="deletes_interval_minutes",
        kind="number",
        default=60.0,
        low=0.01,
        high=525_600,
        doc="With `reconcile` or `mark`: minutes from one comparison of the keys to the next.",
    ),
    Field(
        json="deletesMaxShare",
        attribute="deletes_max_share",
        kind="number",
        default=0.3,
        low=0,
        high=1,
        doc="A comparison that would remove more than this share of the replica's rows stops with an error instead.",
    ),
    Field(
        json="verifyIntervalMinutes",
        attribute="verify_interval_minutes",
        kind="number",
        nullable=True,
        low=0.01,
        high=525_600,
        doc="Minutes from one verification of the whole replica to the next; null is never.",
    ),
)


def value_of(field: Field, value: Any) -> tuple[Any, str | None]:
    """A field's value in its final form, and what is wrong with it, or None."""
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
    if field.kind == "deletes":
        return value, _deletes(value)
    types: Any = {"string": str, "object": Mapping, "boolean": bool}[field.kind]
    if not isinstance(value, types):
        return value, f"must be {_article(field.kind)}"
    if field.kind == "object":
        return dict(value), _unstorable(value)
    return value, _text(field, value) if field.kind == "string" else None


def _deletes(value: Any) -> str | None:
    if isinstance(value, str) and value in DELETES_WORDS:
        return None
    if isinstance(value, Mapping) and len(value) == 1:
        key, column = next(iter(value.items()))
        if key in DELETES_KEYS and isinstance(column, str) and 0 < len(column) <= 255:
            why = text_problem(column, control=True)
            return None if why is None else f"names a column that {why}"
    return f"must be {' or '.join(DELETES_WORDS)}, or an object with one of {', '.join(DELETES_KEYS)} and a column"


def _article(kind: Kind) -> str:
    return {"object": "an object", "deletes": "a word or an object", "choice": "a word"}.get(kind, f"a {kind}")


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
    if (why := text_problem(value, control=field.json in ("sourceTable", "trackingColumn"))) is not None:
        return why
    check = CHECKS.get(field.json)
    return None if check is None else check(value)


def _check_name(value: str) -> str | None:
    if NAME.match(value):
        return None
    return "must be 1 to 63 letters A to Z, digits, _ . and -, with a letter or digit first"


def _check_target(value: str) -> str | None:
    if same_name(value).startswith(RESERVED):
        return f"must not begin with {' or '.join(RESERVED)}, which are reserved; choose another name"
    return None


def _check_zone(value: str) -> str | None:
    try:
        # The pattern first: to zoneinfo a zone's name is a path.
        if OFFSET.match(value) or (ZONE.match(value) and zoneinfo.ZoneInfo(value)):
            return None
    except (KeyError, ValueError, OSError):
        pass
    return "is no zone known here; write an IANA name such as Europe/Berlin, or +02:00, or null"


def _unstorable(value: Mapping[str, Any]) -> str | None:
    """Why an object cannot be kept as JSON in the database, or None."""
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} deep"
        if isinstance(item, str) and (why := text_problem(item, control=True)) is not None:
            return f"holds a text that {why}"
        if isinstance(item, float) and not math.isfinite(item):
            return "must not hold NaN or Infinity"
        if isinstance(item, Mapping):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple):
            waiting += [(part, depth + 1) for part in item]
    return None


CHECKS: Mapping[str, Callable[[str], str | None]] = {
    "name": _check_name,
    "targetTable": _check_target,
    "trackingTimeZone": _check_zone,
}
