"""The protocols of a source, which every dialect implements, also those of other plugins.

Nothing here, and nothing in a dialect, knows the target.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.model import (
    Batch,
    Column,
    HighWatermark,
    OpenTransaction,
    OpenTransactions,
    Options,
    TableName,
    TableSchema,
)

# The values of the key's columns, as the replica stores them.
Key = tuple[Any, ...]

# How many keys one statement asks for. Each is a part of it, and servers limit a statement's length and depth.
MAX_KEYS = 500

# How many of the transactions that hold a floor are shown: enough to find the cause, and one line of a status.
MAX_SHOWN = 5
# How many of the newest rows are compared to see whether a source went back.
MAX_NEWEST = 100

# A tracking time that is this far ahead of the source's clock is a mistake or a plan; at most MAX_AHEAD are counted.
AHEAD_SECONDS = 60.0
MAX_AHEAD = 10_000
# At most this many rows with the floor's value are read again at each sync, because another may come in with it.
MAX_SHARED = 10_000


# The digests that rows can be hashed with, by their names in hashlib.
MD5 = "md5"
SHA256 = "sha256"
DIGESTS = (MD5, SHA256)


class NoTrackingColumn(SourceRejected):
    """There is no column of that name. schema: the table, as if its first column were the tracking column."""

    def __init__(self, schema: TableSchema, name: str) -> None:
        self.schema, self.name = schema, name
        super().__init__(f"{schema.table} has no column {name}; trackingColumn must be one of its columns")


class ProtectionFacts(NamedTuple):
    """Reasons not to rely on a table's open transactions. The fields are those of TableSchema; see its docstring."""

    unprotected: str | None = None
    unfollowable: str | None = None
    hidden: str | None = None
    warnings: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    unassigned: bool = False
    random_default: str | None = None
    files: Mapping[str, str] = MappingProxyType({})
    parts: Mapping[str, str] = MappingProxyType({})
    definition: str = ""


@dataclass(frozen=True, kw_only=True)
class ReadPlan:
    """Which rows to read, in which order, in how large batches. Only rows for which schema.where is true are read.

    schema: the table.
    floor: only rows whose tracking value is above it; None reads all.
    from_floor: also read rows whose tracking value is the floor. Only for a source that is Sharing.
    after_key: only rows whose key is above it. At most one of floor and after_key is given.
    in_key_order: whether the rows come in the order of the key, as a first load needs them.
    nulls: whether rows without a tracking value are read too.
    keys: only the rows with these keys, given as the replica stores them, at most MAX_KEYS.
    newest_through: only the MAX_NEWEST rows of the highest tracking values that are not above this one; with keys, all
        of those rows that are not. Then neither floor nor after_key is given. Only for a source that is Rewindable.
    left_filter: whether rows above the floor for which schema.where is not true are read too. Then each row ends with
        one more value: 1 if it is true, else 0, as a number or as text.
    batch_rows: how many rows a batch may have.
    batch_bytes: the size at which a batch ends, in bytes; a larger row is a batch by itself.
    """

    schema: TableSchema
    floor: str | None = None
    from_floor: bool = False
    after_key: tuple[str, ...] | None = None
    in_key_order: bool = False
    nulls: bool = True
    keys: tuple[Key, ...] | None = None
    newest_through: str | None = None
    left_filter: bool = False
    batch_rows: int = 5000
    batch_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some rows of a table, described so that the source and the replica choose the same ones.

    after: only rows whose key is above this one: the values of the columns of `Comparing.order`, as the replica stores
        them. None is no lower bound.
    through: only rows whose key is not above this one; None is no upper bound.
    buckets: how many buckets the rows are divided into, by the hash of their key modulo this number.
    only_buckets: only rows of these buckets; None is all.
    keys: only the rows with these keys, at most MAX_KEYS; then nothing else is given.
    """

    after: Key | None = None
    through: Key | None = None
    buckets: int = 1
    only_buckets: tuple[int, ...] | None = None
    keys: tuple[Key, ...] | None = None


class Summary(NamedTuple):
    """Some rows as two numbers.

    rows: how many there are.
    checksum: the sum of their hashes. Not an XOR, in which two equal changes cancel out.
    """

    rows: int = 0
    checksum: int = 0


class Comparing(Protocol):
    """One snapshot of a table, open for a comparison. The context of `Comparable.comparing` closes it.

    It may also have `digest`, the hash function of the source: "md5", which is the default, or "sha256".

    A row's hash is the first 60 bits of the digest of its canonical text in UTF-8: of each compared column, in the
    order of the schema, what the replica is to store, written so that no two rows share a text:

        declared INTEGER        the digits and a comma
        a decimal (`cast.decimal`), declared REAL or NUMERIC: the digits with the zeros of its scale, and a comma;
            declared as nothing: the digits without zeros that mean nothing, and a comma
        declared TEXT           the length in bytes of UTF-8, a colon, the text
        declared BLOB           an x, the digits in hex, upper case, and a comma
        declared as nothing     a number's digits, or what `forms` makes of it; of a text (NaN, and integers that
                                SQLite has no room for) the length, a colon, the text; and a comma

    Where it has `encoded` (optional), texts are in that encoding, and not in UTF-8: a source that keeps texts without
    a Unicode text of their own as bytes can hash them all alike only so. It makes the bytes of a text, and raises
    UnicodeError for one that the source cannot have.

    NULL is the comma, or the colon, alone. A key's hash is the same of the key's columns, in the key's order.

    order: the first columns of the key, as far as source and replica sort them alike; may be empty.
        A bigint unsigned may only stand first: above 2^63 the replica orders it as text.
    forms: by column, how a floating number is written: no two of them alike.
    digests: columns of TEXT or BLOB that are written as the digest of their bytes, in hex, lower case, and a comma:
        values so long that the source might not build the text of a row.
    """

    order: tuple[str, ...]
    forms: Mapping[str, Callable[[float], str]]
    digests: frozenset[str]

    async def summarise(self, parts: Sequence[Part]) -> list[dict[int, Summary]]:
        """Of each part: bucket to summary. Buckets without rows may be missing. Reads along the key's index."""
        ...

    def hashes(self, part: Part) -> AsyncIterator[list[tuple[Key, int]]]:
        """The keys, as the replica is to store them, and the hashes of a part's rows, in any order, streamed.

        Nothing else may be asked before it has ended. A table without a key has () for each key.
        """
        ...


class Reader(Protocol):
    """Reads rows."""

    def read(self, plan: ReadPlan) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Open one snapshot on entering, and stream the rows from it. The end of the context closes it.

        With the feature `snapshot`, it must be open once the context is entered: it has nothing that is committed
        later. The stream ends with a batch whose `last` is true; it may be empty.
        """
        ...


class Inspector(Protocol):
    """Answers questions about a table before it is read. Every method raises kinds of SyncError, never a driver's."""

    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        """Look the table up. Raises TableMissing, or SourceRejected if the tracking column is missing.

        If the error is a NoTrackingColumn, a table for which no trackingColumn was named can be loaded whole, and the
        error names the columns that would do.
        """
        ...

    async def check_filter_and_key(self, schema: TableSchema, *, key: bool) -> None:
        """Let the source check what only it can: that schema.where is one expression; with `key`, also that no two rows
        share a key, and that no key contains NULL.

        The expression is a caller's text. Whatever it contains, it must never run as a second statement.
        `sources.expressions` ensures that for servers that parse SQL as PostgreSQL or MySQL does.

        Raises SourceRejected that names the field, `where` or `keyColumns`.
        """
        ...

    async def count_nulls(self, schema: TableSchema, *, at_most: int | None) -> int:
        """Count the rows without a tracking value, at most up to `at_most`."""
        ...

    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        """Read the highest tracking value and then, in a later statement, the open transactions.

        It is the highest of all rows, whatever schema.where is. Above the highest of those that fit, each sync with
        left_filter would read the other rows again.

        A value can count as closed only because of this order: the other way round, a transaction that starts between
        the two would be missed. An unprotected table needs both too: its lookback is that of a source that does not
        show transactions. Counts at most MAX_AHEAD rows that are more than AHEAD_SECONDS ahead.

        noted_at: now, in seconds since 1970.
        """
        ...


class Source(Inspector, Reader, Protocol):
    """One configured source, with its pool of connections. Every method raises kinds of SyncError, never a driver's."""

    async def still_open(self, noted: Sequence[OpenTransactions]) -> list[OpenTransactions]:
        """For each set, the transactions that are still open, found by one question to the server.

        One that may have changed its form (a prepared transaction) counts as open. If the source does not show them
        this time, or another server answers, the result is not `known`, and what was known of the set stays.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


@runtime_checkable
class Inspectable(Protocol):
    """A source that answers the questions of a sync in one transaction. Optional; otherwise each has its own."""

    def inspect(self, table: TableName) -> AbstractAsyncContextManager[Inspector]:
        """Open a transaction on entering, to ask about this table in.

        It must see the transactions that are open when `read_high_watermark` is called, not those of its own start.
        """
        ...


def inspecting(source: Source, table: TableName) -> AbstractAsyncContextManager[Inspector]:
    """Open an inspector of a table: in one transaction if the source can, and then do not use the source meanwhile."""
    return source.inspect(table) if isinstance(source, Inspectable) else nullcontext(source)


@runtime_checkable
class Snapshots(Protocol):
    """A source with snapshots. Needed for the feature `snapshot`; without it, tables cannot form a group."""

    def snapshot(self) -> AbstractAsyncContextManager[Reader]:
        """Read several times from one snapshot, one after the other. The first read opens it."""
        ...


@runtime_checkable
class ShowsTransactions(Protocol):
    """A source that can show which transactions hold a floor. Optional; otherwise the status only says that some do."""

    async def transaction_details(self, open_transactions: OpenTransactions) -> list[OpenTransaction]:
        """Describe those of the set that are still open, the longest first, at most MAX_SHOWN."""
        ...


@runtime_checkable
class Rewindable(Protocol):
    """A source that notices when its tracking values have gone back. Optional; otherwise a floor above them is lowered,
    and rows that came in below it are not found."""

    async def read_high_watermark(
        self, schema: TableSchema, options: Options, *, noted_at: float, reached: str | None = None
    ) -> HighWatermark:
        """As Inspector's; and whether the highest value is below `reached`, in the column's own order.

        reached: the highest value that was read before.
        """
        ...

    async def counter_passed(self, schema: TableSchema, floor: str) -> bool | None:
        """Whether the counter that assigns the tracking values is at the floor or above, so that it has not restarted.
        None if there is no counter, or if it cannot be seen."""
        ...


@runtime_checkable
class Sharing(Protocol):
    """A source that counts the rows that share a tracking value. Optional; otherwise a row that comes in later with the
    floor's own value is not read."""

    counts_shared: bool

    async def read_high_watermark(
        self,
        schema: TableSchema,
        options: Options,
        *,
        noted_at: float,
        reached: str | None = None,
        floor: str | None = None,
    ) -> HighWatermark:
        """As Rewindable's; and how many rows have the floor's value, if values of the column may come again
        (`schema.comes_again`) and are not times."""
        ...


@runtime_checkable
class HidingColumns(Protocol):
    """A source whose catalogue hides columns that its user may not read. Optional; otherwise it shows all."""

    async def hides_columns(self, schema: TableSchema) -> bool:
        """Whether the table has columns that the catalogue hides. Called before a load, and when a column is gone."""
        ...


@runtime_checkable
class Locatable(Protocol):
    """A source that can tell more of what a table's rows lie in than `schema.files` has, by one more statement.
    Optional: without it, a load that was interrupted goes by those, and by a sample of what it had read."""

    async def located(self, schema: TableSchema) -> Mapping[str, str]:
        """By each table or part that the rows lie in, what changes when it is emptied, made again or replaced. By other
        names than in `schema.files`. Asked when a load begins, and when it goes on."""
        ...


@runtime_checkable
class Joinable(Protocol):
    """A source where other tables, with their rows, may become parts of a table. Optional; otherwise only verify finds
    such rows."""

    async def holds_below(self, schema: TableSchema, tables: Sequence[str], floor: str) -> bool | None:
        """Whether any of these tables, by their names in `schema.files`, has a row at or below the floor; None if
        that cannot be found out."""
        ...


@runtime_checkable
class Comparable(Protocol):
    """A source whose rows can be compared with a replica's. Needed for the feature `compare`; otherwise verify and
    reconcile are refused."""

    def comparing(
        self, schema: TableSchema, columns: Sequence[Column], options: Options
    ) -> AbstractAsyncContextManager[Comparing]:
        """Open one snapshot of the table, on entering, to compare these of its columns.

        Of the rows that the options keep out of the replica (deleted by their own column, ignored for want of a
        tracking value), nothing is seen.
        """
        ...


@runtime_checkable
class Pingable(Protocol):
    """A source that can be asked whether it is there. Optional: without it, silence is borne for two hours."""

    async def ping(self) -> None:
        """Ask on a connection of its own, beside the pool's. Any answer will do, a refusal too.

        Raises a kind of SyncError if it does not answer; the caller limits the time.
        """
        ...


@runtime_checkable
class Dialect(Protocol):
    """A kind of source. Registered by name in `replication_dialects`.

    It may also have `recipient(settings) -> tuple[str, ...]`: to whom its secrets are sent (hosts, ports, user), as
    written. A secret that comes back as `***` is kept only for the same recipient; without it, for the same `identity`.

    It may also have `schema() -> Mapping[str, Any]`: the JSON Schema of a sourceConfig without its `dialect`, in which
    `writeOnly` marks a secret. `GET /data-replication/dialects` shows it, for forms.
    """

    @property
    def features(self) -> Collection[str]:
        """Which of `Feature` it has; a class attribute `features = frozenset({"where", "keys"})` will do.

        What it does not declare is refused where a user asks for it. Read once, at the start of the host.
        """
        ...

    def check(self, settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        """Check a sourceConfig without connecting: field (`sourceConfig.port`) to what is wrong, with the fix.

        Begin a message with a predicate (`must be …`): it makes a sentence with its field.
        """
        ...

    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        """What identifies a table: host, port, database, schema, table; neither the user nor a secret."""
        ...

    def secret_parts(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same settings with every secret, also those inside a connection string, as `***`."""
        ...

    def hosts(self, settings: Mapping[str, Any]) -> Sequence[str]:
        """Where a source of these settings is: each host that it connects to, without a port, and the absolute path of
        each socket and file that it opens. Every `${NAME}` is resolved.

        The host asks before each run, and opens nothing outside `allowed_source_hosts`. If that is set, an empty answer
        is refused.
        """
        ...

    def table_name(self, settings: Mapping[str, Any], source_table: str) -> TableName:
        """Parse `table` or `schema.table`, and fill in the default schema."""
        ...

    def open(self, settings: Mapping[str, Any], *, max_connections: int) -> Source:
        """Make a source, without connecting. Every `${NAME}` in `settings` is resolved. Called off the event loop."""
        ...
