"""The bounds of what a source answers, whichever dialect asked it: beyond them, an answer is refused by name.

A server in the middle, or a dialect of another plugin, can answer anything. Must not know a dialect or the target.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from starbase_data_replication.errors import BrokenRule, SchemaMismatch
from starbase_data_replication.model import (
    LONGEST_NAME,
    NO_AFFINITY,
    Batch,
    Candidate,
    Column,
    HighWatermark,
    OpenTransactions,
    Row,
    Rows,
    TableSchema,
)
from starbase_data_replication.sources.protocols import MAX_NEWEST, Part, Reader, ReadPlan, Summary

# SQLite's largest integer, and more rows than any table has.
LARGEST = 2**63 - 1
# Characters of one text of a catalogue: more than a type, a reason or a digest has. Only the list of an ENUM is longer.
LONGEST_TEXT = 4096
# Characters of a tracking value: each position stores several, with each batch.
LONGEST_VALUE = 8192
# Characters of a key's text: an index that compresses takes longer ones than it stores.
LONGEST_KEY = 1 << 20
# Open transactions, and characters of each. A position stores them, and each sync asks about each.
MOST_TRANSACTIONS = 10_000
LONGEST_TOKEN = 255
MOST_WARNINGS = 100
# Files and partitions of a table: a position stores them, and each sync compares them.
MOST_FILES = 100_000
# What a cast may declare: it stands in the definition of the replica.
DECLARED = ("INTEGER", "REAL", "NUMERIC", "TEXT", "BLOB", NO_AFFINITY)

TOO_MANY = "the source has more than {most:,} open transactions"
TOO_LONG = "the source gives its open transactions names of more than {longest} characters"

T = TypeVar("T", str, str | None)


def checked_summaries(
    answer: Sequence[Mapping[int, Summary]], parts: Sequence[Part], doing: str
) -> Sequence[Mapping[int, Summary]]:
    """What `Comparing.summarise` answers. Raises BrokenRule if it is about other parts, or counts what none has."""
    if len(answer) != len(parts):
        raise BrokenRule(doing, f"received checksums of {len(answer)} parts, not of {len(parts)}")
    for part, summaries in zip(parts, answer, strict=True):
        for bucket, (rows, checksum) in summaries.items():
            if type(bucket) is not int or not 0 <= bucket < part.buckets:
                raise BrokenRule(doing, "received a checksum of rows that were not asked for")
            if type(rows) is not int or type(checksum) is not int or not 0 <= rows <= LARGEST or checksum < 0:
                raise BrokenRule(doing, "received an impossible count of rows")
    return answer


def checked_schema(schema: TableSchema) -> TableSchema:
    """What a source describes, with long texts cut. Raises SchemaMismatch for a long name, BrokenRule for two alike."""
    doing = f"describing {schema.table}"
    names: set[str] = set()
    for column in schema.columns:
        name = column.name
        if column.cast.declared not in DECLARED:
            raise BrokenRule(doing, f"a cast declares a type that is not one of {DECLARED}")
        if len(name) > LONGEST_NAME:
            raise SchemaMismatch(
                f"the name of a column of {schema.table} has {len(name):,} characters, more than {LONGEST_NAME}; "
                "rename it at the source"
            )
        if name in names:
            raise BrokenRule(doing, "received two columns with the same name")
        names.add(name)
    if len(schema.files) + len(schema.parts) > MOST_FILES:
        raise BrokenRule(doing, f"received more than {MOST_FILES:,} files and parts")
    return replace(
        schema,
        columns=tuple(_checked_column(column) for column in schema.columns),
        unprotected=_cut(schema.unprotected),
        unfollowable=_cut(schema.unfollowable),
        hidden=_cut(schema.hidden),
        random_default=_cut(schema.random_default),
        warnings=tuple(map(_cut, schema.warnings[:MOST_WARNINGS])),
        caveats=tuple(map(_cut, schema.caveats[:MOST_WARNINGS])),
        kind=_cut(schema.kind),
        incarnation=_cut(schema.incarnation),
        definition=_cut(schema.definition),
        server=_cut(schema.server),
        files={_cut(name): _cut(file) for name, file in schema.files.items()},
        parts={_cut(name): _cut(part) for name, part in schema.parts.items()},
    )


def _checked_column(column: Column) -> Column:
    texts = (column.source_type, column.compare_type, column.collation, column.charset, column.number)
    if max(map(len, texts)) <= LONGEST_TEXT:
        return column
    return replace(
        column,
        source_type=_cut(column.source_type),
        compare_type=_cut(column.compare_type),
        collation=_cut(column.collation),
        charset=_cut(column.charset),
        number=_cut(column.number),
    )


def _cut(text: T) -> T:
    """A text, cut if it is long. Two that are cut are alike only if they were: positions are compared by them."""
    if text is None or len(text) <= LONGEST_TEXT:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{text[: LONGEST_TEXT - 80]}… ({digest})"


def checked_watermark(noted: HighWatermark, schema: TableSchema) -> HighWatermark:
    """What a source shows of its tracking column. Raises SchemaMismatch for a value too long to be kept."""
    candidate = noted.candidate
    values = [noted.below, *((candidate.value, candidate.lookback_value) if candidate is not None else ())]
    longest = max(len(value) for value in (*values, "") if value is not None)
    if longest > LONGEST_VALUE:
        raise SchemaMismatch(
            f"trackingColumn: {schema.table}.{schema.tracking_column} holds a value of {longest:,} characters, more "
            f"than the {LONGEST_VALUE:,} that can be stored; track another column, or set mode to full"
        )
    if candidate is None:
        return noted
    return replace(noted, candidate=_with_few_transactions(candidate))


def _with_few_transactions(candidate: Candidate) -> Candidate:
    found = checked_transactions(candidate.open_transactions)
    return candidate if found is candidate.open_transactions else replace(candidate, open_transactions=found)


def checked_transactions(found: OpenTransactions) -> OpenTransactions:
    """The open transactions of a source; unknown, with the reason, if there are too many to keep."""
    why = ""
    if len(found.tokens) > MOST_TRANSACTIONS:
        why = TOO_MANY.format(most=MOST_TRANSACTIONS)
    elif any(len(token) > LONGEST_TOKEN for token in found.tokens) or len(found.epoch) > LONGEST_TEXT:
        why = TOO_LONG.format(longest=LONGEST_TOKEN)
    if why:
        return OpenTransactions(known=False, reason=why, transient=True)
    return found if len(found.reason) <= LONGEST_TEXT else replace(found, reason=_cut(found.reason))


async def checked_batches(batches: AsyncIterator[Batch], plan: ReadPlan) -> AsyncIterator[Batch]:
    """The batches of `Reader.read`.

    Raises BrokenRule for a row of another width than the plan's, more rows than a batch may have, a size that is no
    number of bytes, a `last_key` of another length than the key, and rows that do not end with a batch whose `last` is
    true: its rows would be missing, and the sync a success.
    """
    doing, ended = f"reading {plan.schema.table}", False
    width = len(plan.schema.columns) + plan.left_filter
    async for batch in batches:
        if type(batch.bytes) is not int or not 0 <= batch.bytes <= LARGEST:
            raise BrokenRule(doing, "received a batch whose size is not a number of bytes")
        if not _has_width(batch.rows, width):
            raise BrokenRule(doing, f"received a row that does not have {width} values")
        if len(batch.rows) > plan.batch_rows:
            raise BrokenRule(doing, f"received a batch of more than {plan.batch_rows:,} rows, which are the most")
        if batch.last_key is not None:
            _check_last_key(batch.last_key, plan.schema, doing)
        if ended:
            raise BrokenRule(doing, "received a batch after the last one")
        ended = batch.last
        yield batch
        # Not held while the next one comes.
        del batch
    if not ended:
        raise BrokenRule(doing, "the rows ended without a last batch")


def _check_last_key(last_key: Sequence[str], schema: TableSchema, doing: str) -> None:
    if len(last_key) != len(schema.key):
        raise BrokenRule(doing, f"received a last_key of {len(last_key)} values, and the key has {len(schema.key)}")
    if max(map(len, last_key), default=0) > LONGEST_KEY:
        raise BrokenRule(doing, f"received a last_key with a text of more than {LONGEST_KEY:,} characters")


def _has_width(rows: Sequence[Row], width: int) -> bool:
    """Whether each row has so many values: `Rows` would make other rows of the values of uneven ones."""
    if isinstance(rows, Rows):
        return rows.width == width and len(rows.values) % width == 0
    return all(len(row) == width for row in rows)


async def read_rows(reader: Reader, plan: ReadPlan) -> list[Row]:
    """The rows that a plan with `keys` or `newest_through` asks for, all at once. Raises BrokenRule for many more."""
    # By the source's collation, or where keyColumns no longer identify a row, a key may have more than one.
    at_most = MAX_NEWEST if plan.keys is None else 2 * len(plan.keys)
    rows: list[Row] = []
    async with reader.read(plan) as batches:
        async for batch in checked_batches(batches, plan):
            if len(rows) + len(batch.rows) > at_most:
                raise BrokenRule(f"reading {plan.schema.table}", "received more rows than were asked for")
            rows += batch.rows
    return rows
