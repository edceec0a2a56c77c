"""What the plugin asks of a source, whatever its dialect. Third parties implement these protocols.

Nothing here, and nothing in a dialect's room, knows of the target.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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

# So many keys are asked for at once. Each is a part of the statement: servers bound its length and depth.
MAX_KEYS = 500

# Of the transactions that hold a floor, so many are shown.
MAX_SHOWN = 5
# So many of the newest rows are looked at to see whether a source went back.
MAX_NEWEST = 100

# How far ahead of the source's clock a tracking time is taken for a mistake, or for a plan.
AHEAD_SECONDS = 60.0
MAX_AHEAD = 10_000
# So many rows that share the value of the floor are read again at each sync, in case another comes in with it.
MAX_SHARED = 10_000


# What a row can be hashed with, by the names that hashlib has for them.
MD5 = "md5"
SHA256 = "sha256"
DIGESTS = (MD5, SHA256)


class NoTrackingColumn(SourceRejected):
    """There is no column of that name. schema: the table, as if its first column were the tracking column."""

    def __init__(self, schema: TableSchema, name: str) -> None:
        self.schema, self.name = schema, name
        super().__init__(f"{schema.table} has no column {name}; trackingColumn must be one of its columns")


class Grounds(NamedTuple):
    """What speaks against following a table by its transactions: fields of TableSchema, whose docstring has them."""

    unprotected: str | None = None
    unfollowable: str | None = None
    hidden: str | None = None
    warnings: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    unassigned: bool = False
    drawn: str | None = None
    files: Mapping[str, str] = MappingProxyType({})
    parts: Mapping[str, str] = MappingProxyType({})
    definition: str = ""


@dataclass(frozen=True, kw_only=True)
class ReadPlan:
    """Which rows to read, in which order, in how large batches. Of them only those for which schema.where is true.

    floor: only rows whose tracking value is above it; None reads all.
    from_floor: those as well whose tracking value is the floor. Asked of a source that is Sharing.
    after_key: only rows whose key is above it. At most one of floor and after_key is given.
    in_key_order: the first load's order.
    nulls: whether rows without a tracking value are read.
    keys: only the rows with these keys, given as the replica stores them, at most MAX_KEYS.
    newest_through: only the MAX_NEWEST rows of the highest tracking values that are not above this one; with keys, all
        of those rows that are not. Then neither floor nor after_key is given. Asked of a source that is Rewindable.
    departed: rows above the floor for which schema.where is not true are read as well, and each row ends with one
        value more: 1 where it is true, else 0, as a number or as text.
    batch_rows, batch_bytes: a batch ends at whichever is reached first; a row larger than batch_bytes is
        a batch of its own.
    """

    schema: TableSchema
    floor: str | None = None
    from_floor: bool = False
    after_key: tuple[str, ...] | None = None
    in_key_order: bool = False
    nulls: bool = True
    keys: tuple[Key, ...] | None = None
    newest_through: str | None = None
    departed: bool = False
    batch_rows: int = 5000
    batch_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some rows of a table, said so that the source and the replica mean the same ones.

    after, through: those whose key is above the one and not above the other; values of the columns of
        `Comparing.order`, as the replica stores them. None is no bound.
    buckets, chosen: of those, the ones whose key's hash, modulo `buckets`, is among `chosen`; None is all.
    keys: the rows with these keys, at most MAX_KEYS; then nothing else is given.
    """

    after: Key | None = None
    through: Key | None = None
    buckets: int = 1
    chosen: tuple[int, ...] | None = None
    keys: tuple[Key, ...] | None = None


class Summary(NamedTuple):
    """How many rows, and the sum of their hashes. A sum, because two equal changes cancel out in an XOR."""

    rows: int = 0
    checksum: int = 0


class Comparing(Protocol):
    """One snapshot of a table, open for comparing. Closed with the context that `Comparable.comparing` gave.

    It may also have `digest`, "md5" or "sha256": what rows are hashed with at the source. Without it, it is "md5".

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

    order: the columns at the head of the key by which source and replica order alike; empty when there is none.
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
    """What rows are read with."""

    def read(self, plan: ReadPlan) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Open one snapshot, on entering, and stream the rows from it; closed at the end of the context.

        The snapshot must be open when the context is entered: what is committed after that is not read. The
        stream ends with a batch whose `last` is true, empty if need be.
        """
        ...


class Inspector(Protocol):
    """What is asked of a table before it is read. Every method raises a SyncError kind, never a driver's."""

    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        """Look the table up. Raises TableMissing, or SourceRejected when the tracking column is missing.

        As NoTrackingColumn, the error lets a table be loaded whole for which no trackingColumn was named, and names the
        columns that would do.
        """
        ...

    async def check(self, schema: TableSchema, *, key: bool) -> None:
        """Let the source judge what only it can: that schema.where is an expression, and nothing more than that;
        and, where `key` is given, that no two rows share a key and none has NULL in it.

        The text is a caller's. Whatever stands in it, and whatever names stand around it, no use of it may run a second
        statement: `sources.expressions` sees to that for servers that read SQL as PostgreSQL or MySQL does.

        Raises SourceRejected that names the field, `where` or `keyColumns`.
        """
        ...

    async def count_nulls(self, schema: TableSchema, *, at_most: int | None) -> int:
        """How many rows have no tracking value; stops counting at `at_most`."""
        ...

    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        """Note the highest tracking value, then, in a later statement, the transactions that are alive.

        The order is what makes a closed value closed: noted the other way round, a transaction that starts
        between the two would be missed. Of an unprotected table too: its lookback is then the one of a source that does
        not tell, beside the transactions. Of rows more than AHEAD_SECONDS ahead, no more than MAX_AHEAD are counted.
        """
        ...


class Source(Inspector, Reader, Protocol):
    """One configured remote, with its pool of connections. Every method raises a SyncError kind, never a driver's."""

    def snapshot(self) -> AbstractAsyncContextManager[Reader]:
        """Several reads from one snapshot, one after the other; it is open with the first of them."""
        ...

    async def still_open(self, noted: Sequence[OpenTransactions]) -> list[OpenTransactions]:
        """Of each set, which are alive now, by one look at the server.

        What may have moved into another form (a prepared one) counts as alive. Where the source does not tell this
        time, or another server answers, the answer is not `known`: then what was known of the set stays.
        """
        ...

    async def close(self) -> None:
        """End every connection."""
        ...


@runtime_checkable
class Inspectable(Protocol):
    """A source that answers what one sync asks in one transaction. Optional: without it, each question has its own."""

    def inspect(self, table: TableName) -> AbstractAsyncContextManager[Inspector]:
        """Open a transaction, on entering, to ask about this table in.

        Who is alive is seen when `note` is called, and not when the transaction was opened.
        """
        ...


def inspecting(source: Source, table: TableName) -> AbstractAsyncContextManager[Inspector]:
    """What to ask about a table: in one transaction where the source can, and then nothing else of it meanwhile."""
    return source.inspect(table) if isinstance(source, Inspectable) else nullcontext(source)


@runtime_checkable
class ShowsTransactions(Protocol):
    """A source that can show which transactions hold a floor. Optional: without it, only that some do is said."""

    async def transaction_details(self, open_transactions: OpenTransactions) -> list[OpenTransaction]:
        """What may be seen of those of the set that are open still, the longest first, at most MAX_SHOWN."""
        ...


@runtime_checkable
class Rewindable(Protocol):
    """A source that tells when its tracking values have gone back. Optional: without it, a floor that lies above them
    is lowered, and rows that have come in below that are not found."""

    async def read_high_watermark(
        self, schema: TableSchema, options: Options, *, noted_at: float, floor: str | None = None
    ) -> HighWatermark:
        """As Inspector.note; and whether the highest value lies below the floor, in the column's own order."""
        ...

    async def counter_passed(self, schema: TableSchema, floor: str) -> bool | None:
        """Whether the counter that assigns the tracking values stands at the floor or above: then it has not begun
        again. None where no counter assigns them, or where it cannot be seen."""
        ...


@runtime_checkable
class Sharing(Protocol):
    """A source that tells how many rows share a tracking value. Optional: without it, a row that comes in later with
    the floor's own value is not read."""

    notes_shared: bool

    async def read_high_watermark(
        self, schema: TableSchema, options: Options, *, noted_at: float, floor: str | None = None, at: str | None = None
    ) -> HighWatermark:
        """As Rewindable.note; and of a column whose values may come again (`schema.comes_again`), and that holds no
        time, how many rows have the value `at`."""
        ...


@runtime_checkable
class HidingColumns(Protocol):
    """A source whose catalogue leaves out columns that its user may not read. Optional: without it, it shows all."""

    async def hides_columns(self, schema: TableSchema) -> bool:
        """Whether the table has columns that are not shown. Asked before a load, and when a column is gone."""
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
    """A source whose tables may be joined by others, with the rows that they hold. Optional: without it, such rows are
    found by verify."""

    async def holds_below(self, schema: TableSchema, tables: Sequence[str], floor: str) -> bool | None:
        """Whether any of these tables, by their names in `schema.files`, holds a row at the floor or below it. None
        where it cannot be asked."""
        ...


@runtime_checkable
class Comparable(Protocol):
    """A source whose rows can be compared with a replica's. Optional: without it, nothing is verified or reconciled."""

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

        Raises a SyncError kind when there is none; whoever calls bounds the time.
        """
        ...


@runtime_checkable
class Dialect(Protocol):
    """A kind of source. Registered by name in `replication_dialects`.

    It may also have `recipient(settings) -> tuple[str, ...]`: to whom its secrets are sent (hosts, ports, user), as
    written. A secret that comes back as `***` is kept only for the same recipient; without it, for the same `identity`.
    """

    def check(self, settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        """What is wrong with a sourceConfig, without connecting: field (`sourceConfig.port`) to message and mend."""
        ...

    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        """What makes a table of this source that table: host, port, database, schema, table. No user, no secret."""
        ...

    def secret_parts(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same settings with every secret, also those inside a connection string, as `***`."""
        ...

    def table_name(self, settings: Mapping[str, Any], source_table: str) -> TableName:
        """`schema.table` taken apart, the default schema filled in."""
        ...

    def open(self, settings: Mapping[str, Any], *, max_connections: int) -> Source:
        """A source, not yet connected. `settings` have their `${NAME}`s resolved. Called off the event loop."""
        ...
