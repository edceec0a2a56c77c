"""The fields of a replication: what is known of each. The checks, the documentation and the command line are made from
this; `checks` has the checks of values. Must not know how fields depend on one another, nor anything of a dialect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal[
    "string",
    "object",
    "number",
    "boolean",
    "choice",
    "deletes",
    "names",
    "renames",
    "types",
    "collations",
    "transforms",
]


@dataclass(frozen=True, kw_only=True)
class Field:
    """What is known of one field.

    attribute: its name in Replication, or in Options. low, high: the bounds of a number, or of a string's
    length, or of the names in a list. nullable: null is a value with a meaning of its own.
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


# What a column may be kept as, instead of what becomes of its type.
TYPES = ("text", "datetime")
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
        doc="The replication's name: letters, digits, `_`, `.` and `-`; it begins with a letter or digit.",
    ),
    Field(
        json="sourceConfig",
        attribute="source_config",
        kind="object",
        required=True,
        doc="Where the source is: `dialect`, and the dialect's own keys. A string may contain `${NAME}`.",
    ),
    Field(
        json="sourceTable",
        attribute="source_table",
        kind="string",
        required=True,
        low=1,
        high=512,
        doc="The table to read: `table` or `schema.table`. Put a name that contains a dot in double quotes.",
    ),
    Field(
        json="targetTable",
        attribute="target_table",
        kind="string",
        required=True,
        low=1,
        high=255,
        doc="The SQLite table to write; the first sync creates it. Not `tmp_…` or `sqlite_…`.",
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
        nullable=True,
        low=1,
        high=255,
        doc="The column whose growing values show new and changed rows. null is `id`, if its values rise; "
        "otherwise the first sync names the columns that would do.",
    ),
    Field(
        json="isActive",
        attribute="is_active",
        kind="boolean",
        default=True,
        doc="Whether it syncs on its schedule. You can always sync it by hand.",
    ),
    Field(
        json="closeWaitSeconds",
        attribute="close_wait_seconds",
        kind="number",
        default=2.0,
        low=0,
        high=300,
        doc="How long a sync waits for the transactions that were open when it began.",
    ),
    Field(
        json="lookbackSeconds",
        attribute="lookback_seconds",
        kind="number",
        nullable=True,
        low=0,
        high=86_400,
        doc="How far back each sync reads again, to find values that were not assigned by the transaction "
        "that wrote them; null is 60 if the source shows its open transactions, else 300.",
    ),
    Field(
        json="settleSeconds",
        attribute="settle_seconds",
        kind="number",
        default=2.0,
        low=0,
        high=3600,
        doc="If the tracking column contains a time: how far behind the source's clock a row is settled.",
    ),
    Field(
        json="trackingTimeZone",
        attribute="tracking_time_zone",
        kind="string",
        nullable=True,
        low=1,
        high=64,
        doc="The zone of tracking times that have none: an IANA name or an offset such as `+02:00`; null is "
        "the server's own.",
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
        json="rowSecurity",
        attribute="row_security",
        kind="choice",
        default="refuse",
        choices=("refuse", "filtered"),
        doc="A source that hides rows from this user, by row level security or a view that depends on its "
        "reader: `refuse` it, or copy what is `filtered`, and keep rows that may only be hidden.",
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
    Field(
        json="onSchemaChange",
        attribute="on_schema_change",
        kind="choice",
        default="apply",
        choices=("apply", "backfill", "error"),
        doc="When the source table changes: `apply` follows it, and fills a new column from then on; "
        "`backfill` loads the table again for a new column; `error` lets the run fail.",
    ),
    Field(
        json="onSourceRewind",
        attribute="on_source_rewind",
        kind="choice",
        default="reload",
        choices=("reload", "error"),
        doc="When the source's tracking values have gone back, after a TRUNCATE with restarted ids, a restore "
        "or a failover: `reload` loads the table again; `error` lets the run fail until you decide.",
    ),
    Field(
        json="columns",
        attribute="columns",
        kind="names",
        nullable=True,
        low=1,
        doc="The columns to copy; null copies all, also those that are added later.",
    ),
    Field(
        json="excludeColumns",
        attribute="exclude_columns",
        kind="names",
        default=(),
        low=0,
        doc="Columns not to copy.",
    ),
    Field(
        json="where",
        attribute="where",
        kind="string",
        nullable=True,
        low=1,
        high=10_000,
        doc="A condition in the source's SQL, over its columns: only rows for which it is true are copied. A "
        "row that no longer fits it is removed.",
    ),
    Field(
        json="rename",
        attribute="rename",
        kind="renames",
        default={},
        doc="Other names in the replica: from the source's name of a column to the replica's.",
    ),
    Field(
        json="types",
        attribute="types",
        kind="types",
        default={},
        doc='What to keep columns as: `{"price": "text"}` keeps every digit and zero of a decimal, and compares as '
        'text does; `{"updated_at": "datetime"}` keeps a moment as SQLite\'s own date functions write it.',
    ),
    Field(
        json="collations",
        attribute="collations",
        kind="collations",
        default={},
        doc='Texts to compare without regard to case, as the source does: `{"email": "nocase"}` declares the column '
        "`COLLATE NOCASE`, which knows ASCII. For columns of a `_ci` collation, or citext, outside of the key.",
    ),
    Field(
        json="keyColumns",
        attribute="key_columns",
        kind="names",
        nullable=True,
        low=1,
        doc="The columns that identify a row, for a view or a table without a key; null takes the source's own key.",
    ),
    Field(
        json="transforms",
        attribute="transforms",
        kind="transforms",
        default={},
        doc="Plugins that change values on their way: the name of a plugin that implements `transform_batch`, "
        "and its columns.",
    ),
    Field(
        json="group",
        attribute="group",
        kind="string",
        nullable=True,
        low=1,
        high=63,
        doc="Replications of one group are read from one snapshot of their source and committed together.",
    ),
    Field(
        json="maxRowsPerSecond",
        attribute="max_rows_per_second",
        kind="number",
        nullable=True,
        low=1,
        high=10_000_000,
        doc="How many rows per second a sync may read from the source; null is unlimited.",
    ),
)
