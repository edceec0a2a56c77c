"""What a user asks for: a replication and its options. Frozen values.

Owns the one declaration of each field of `configure`: its type, default, bounds and meaning. The checks, the JSON
Schema and the command line are made from them, and a test compares docs/reference/configuration.md with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

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

# Of a column or a table, in characters: more than any dialect's servers allow.
LONGEST_NAME = 255
# Of the name of a replication or a group, in characters: as long as a label of DNS.
LONGEST_LABEL = 63
MINUTES_OF_A_YEAR = 525_600


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What the type and the default of a field do not say.

    doc: its meaning, in Markdown; whole sentences.
    kind: which values it takes; None means that its type says so.
    low: the lowest number, or the least length of a string in characters, or the fewest names of a list.
    high: the highest number, or the greatest length of a string in characters.
    choices: the words that it may be; () means any value of its kind.
    form: what a string must look like besides its length; None means any text.
    control: whether a string may contain control characters, such as a line break.
    """

    doc: str
    kind: Kind | None = None
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    form: Literal["name", "target", "zone"] | None = None
    control: bool = False


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a replication may set besides the fields that StarbaseDB knows. Each `doc` says what the field means."""

    close_wait_seconds: Annotated[
        float,
        Declaration(
            low=0,
            high=300,
            doc="How long a sync waits for the transactions that were open when it began.",
        ),
    ] = 2.0
    lookback_seconds: Annotated[
        float | None,
        Declaration(
            low=0,
            high=86_400,
            doc="How far back each sync reads again, to find values that were not assigned by the transaction that "
            "wrote them; null is 60 if the source shows its open transactions, else 300.",
        ),
    ] = None
    settle_seconds: Annotated[
        float,
        Declaration(
            low=0,
            high=3600,
            doc="If the tracking column contains a time: how far behind the source's clock a row is settled.",
        ),
    ] = 2.0
    tracking_time_zone: Annotated[
        str | None,
        Declaration(
            low=1,
            high=64,
            form="zone",
            doc="The zone of tracking times that have none: an IANA name or an offset such as `+02:00`; null is the "
            "server's own.",
        ),
    ] = None
    mode: Annotated[
        str,
        Declaration(
            choices=("incremental", "full"),
            doc="`incremental` reads what is new; `full` loads the whole table beside the old one and swaps it in.",
        ),
    ] = "incremental"
    null_tracking: Annotated[
        str,
        Declaration(
            choices=("read", "ignore", "error"),
            doc="What a sync does with rows whose tracking column is NULL. `read` reads them every time, at most "
            "10,000. `ignore` leaves them out, and a warning counts them. `error` fails the run.",
        ),
    ] = "read"
    row_security: Annotated[
        str,
        Declaration(
            choices=("refuse", "filtered"),
            doc="A source that hides rows from this user, by row level security or a view that depends on its reader: "
            "`refuse` it, or copy what is `filtered`, and keep rows that may only be hidden.",
        ),
    ] = "refuse"
    deletes: Annotated[
        str | Mapping[str, str],
        Declaration(
            kind="deletes",
            doc="Rows that are gone from the source: `ignore` keeps them; `reconcile` compares the keys on a schedule "
            'and removes them; `{"mark": "column"}` writes the time into this extra column of the replica '
            'instead; `{"sourceColumn": "deleted_at"}` removes rows in which this column is not NULL, as they are '
            "read.",
        ),
    ] = "ignore"
    deletes_interval_minutes: Annotated[
        float,
        Declaration(
            low=0.01,
            high=MINUTES_OF_A_YEAR,
            doc="With `reconcile` or `mark`: minutes from one comparison of the keys to the next.",
        ),
    ] = 60.0
    deletes_max_share: Annotated[
        float,
        Declaration(
            low=0,
            high=1,
            doc="A comparison that would remove more than this share of the replica's rows stops with an error "
            "instead.",
        ),
    ] = 0.3
    verify_interval_minutes: Annotated[
        float | None,
        Declaration(
            low=0.01,
            high=MINUTES_OF_A_YEAR,
            doc="Minutes from one verification of the whole replica to the next; null is never.",
        ),
    ] = None
    on_schema_change: Annotated[
        str,
        Declaration(
            choices=("apply", "backfill", "error"),
            doc="When the source table changes: `apply` follows it, and fills a new column from then on; `backfill` "
            "loads the table again for a new column; `error` lets the run fail.",
        ),
    ] = "apply"
    on_source_rewind: Annotated[
        str,
        Declaration(
            choices=("reload", "error"),
            doc="When the source's tracking values have gone back, after a TRUNCATE with restarted ids, a restore or "
            "a failover: `reload` loads the table again; `error` lets the run fail until you decide.",
        ),
    ] = "reload"
    columns: Annotated[
        Sequence[str] | None,
        Declaration(
            kind="names",
            low=1,
            doc="The columns to copy; null copies all, also those that are added later.",
        ),
    ] = None
    exclude_columns: Annotated[
        Sequence[str],
        Declaration(
            kind="names",
            low=0,
            doc="Columns not to copy.",
        ),
    ] = ()
    where: Annotated[
        str | None,
        Declaration(
            low=1,
            high=10_000,
            doc="A condition in the source's SQL, over its columns: only rows for which it is true are copied. A row "
            "that no longer fits it is removed.",
        ),
    ] = None
    rename: Annotated[
        Mapping[str, str],
        Declaration(
            kind="renames",
            doc="Other names in the replica: from the source's name of a column to the replica's.",
        ),
    ] = field(default_factory=dict)
    types: Annotated[
        Mapping[str, str],
        Declaration(
            kind="types",
            doc='What to keep columns as: `{"price": "text"}` keeps every digit and zero of a decimal, and compares '
            'as text does; `{"updated_at": "datetime"}` keeps a moment as SQLite\'s own date functions write it.',
        ),
    ] = field(default_factory=dict)
    collations: Annotated[
        Mapping[str, str],
        Declaration(
            kind="collations",
            doc='Texts to compare without regard to case, as the source does: `{"email": "nocase"}` declares the '
            "column `COLLATE NOCASE`, which knows ASCII. For columns of a `_ci` collation, or citext, outside of "
            "the key.",
        ),
    ] = field(default_factory=dict)
    key_columns: Annotated[
        Sequence[str] | None,
        Declaration(
            kind="names",
            low=1,
            doc="The columns that identify a row, for a view or a table without a key; null takes the source's own "
            "key.",
        ),
    ] = None
    transforms: Annotated[
        Mapping[str, Sequence[str]],
        Declaration(
            kind="transforms",
            doc="Plugins that change values on their way: the name of a plugin that implements `transform_batch`, and "
            "its columns.",
        ),
    ] = field(default_factory=dict)
    group: Annotated[
        str | None,
        Declaration(
            low=1,
            high=LONGEST_LABEL,
            form="name",
            doc="Replications of one group are read from one snapshot of their source and committed together.",
        ),
    ] = None
    max_rows_per_second: Annotated[
        float | None,
        Declaration(
            low=1,
            high=10_000_000,
            doc="How many rows per second a sync may read from the source; null is unlimited.",
        ),
    ] = None

    @property
    def selection(self) -> dict[str, Any]:
        """What is copied of the source table, and as what. After a change, rows that were copied before do not fit."""
        names = ("columns", "exclude_columns", "where", "rename", "types", "collations", "key_columns", "transforms")
        return {name: value for name in names if (value := getattr(self, name))}

    @property
    def mark_column(self) -> str | None:
        """The extra column of the replica that holds the time at which a row was found gone from the source."""
        return self.deletes.get("mark") if isinstance(self.deletes, Mapping) else None

    @property
    def deleted_column(self) -> str | None:
        """The column of the source that marks a row as deleted when it is not NULL."""
        return self.deletes.get("sourceColumn") if isinstance(self.deletes, Mapping) else None

    @property
    def reconciles(self) -> bool:
        """Whether keys are compared on a schedule."""
        return self.deletes == "reconcile" or self.mark_column is not None

    def lookback(self, *, known: bool) -> float:
        """Seconds; `known` says whether the source shows which transactions are open."""
        if self.lookback_seconds is not None:
            return self.lookback_seconds
        return 60.0 if known else 300.0


@dataclass(frozen=True, kw_only=True)
class Replication:
    """One configured link: a source table, and the SQLite table that mirrors it.

    source_config is as the user wrote it (`${NAME}` unresolved, secrets included). Never log it.
    """

    name: Annotated[
        str,
        Declaration(
            low=1,
            high=LONGEST_LABEL,
            form="name",
            doc="The replication's name: letters, digits, `_`, `.` and `-`; it begins with a letter or digit.",
        ),
    ]
    source_config: Annotated[
        Mapping[str, Any],
        Declaration(
            kind="object",
            doc="Where the source is: `dialect`, and the dialect's own keys. A string may contain `${NAME}`.",
        ),
    ] = field(repr=False)
    source_table: Annotated[
        str,
        Declaration(
            low=1,
            high=512,
            control=True,
            doc="The table to read: `table` or `schema.table`. Put a name that contains a dot in double quotes.",
        ),
    ]
    target_table: Annotated[
        str,
        Declaration(
            low=1,
            high=LONGEST_NAME,
            form="target",
            doc="The SQLite table to write; the first sync creates it. Not `tmp_…` or `sqlite_…`.",
        ),
    ]
    sync_interval_minutes: Annotated[
        float,
        Declaration(
            low=0.01,
            high=MINUTES_OF_A_YEAR,
            doc="Minutes from one sync to the next.",
        ),
    ] = 60.0
    tracking_column: Annotated[
        str | None,
        Declaration(
            low=1,
            high=LONGEST_NAME,
            control=True,
            doc="The column whose growing values show new and changed rows. null is `id`, if its values rise; "
            "otherwise the first sync names the columns that would do.",
        ),
    ] = None
    is_active: Annotated[
        bool,
        Declaration(
            doc="Whether it syncs on its schedule. You can always sync it by hand.",
        ),
    ] = True
    options: Options = Options()

    @property
    def dialect(self) -> str:
        return str(self.source_config["dialect"])

    @property
    def interval_seconds(self) -> float:
        return self.sync_interval_minutes * 60
