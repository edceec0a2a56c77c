"""Compare a replica with its source: which rows are missing, extra or different.

Owns the descent: sums of parts first, then of smaller parts where they differ, then single rows. Knows neither
side's SQL, and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from starbase_data_replication.errors import BrokenRule, SchemaMismatch, catch_exits, retrieve_error
from starbase_data_replication.model import Column, Options, TableSchema
from starbase_data_replication.sources import MAX_KEYS, Comparable, Comparing, Key, Part, Summary, checked_summaries
from starbase_data_replication.verify.replica_checksums import LEAF_ROWS, Replica
from starbase_host import Database

What = Literal["keys", "rows"]

# Parts in one statement: enough that a round trip costs little beside the reading of 16 * PART_ROWS rows, and few
# enough that progress is reported often.
PARTS_AT_ONCE = 16
# Rows of the replica whose keys and hashes are in memory at once, if only hashes take the table apart: some 20 MB of
# short keys.
HELD_ROWS = 100_000
# Differences given to `on_differences` at once: one statement asks for as many keys again. And keys kept of each kind:
# more are of no use to a reader, and memory must not grow with the differences.
REPORTED_KEYS = MAX_KEYS
KEPT_KEYS = 10_000


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Keys of rows that differ, as the replica stores them.

    Attributes:
        missing: not in the replica.
        extra: not in the source.
        different: in both, and not the same.
    """

    missing: tuple[Key, ...] = ()
    extra: tuple[Key, ...] = ()
    different: tuple[Key, ...] = ()

    def __len__(self) -> int:
        return len(self.missing) + len(self.extra) + len(self.different)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison has found. The counts are exact.

    A table without a key has counts only: a row that differs is one missing and one extra.

    Attributes:
        rows_compared: rows of the source.
        replica_rows: rows of the replica.
        ranges: parts whose sums were compared.
        missing: rows that are not in the replica.
        extra: rows that are not in the source.
        different: rows that are in both and not the same.
        keys: their keys, the first KEPT_KEYS of each kind.
    """

    rows_compared: int
    replica_rows: int
    ranges: int
    missing: int
    extra: int
    different: int
    keys: Differences

    @property
    def differences(self) -> int:
        return self.missing + self.extra + self.different

    @property
    def equal(self) -> bool:
        return not self.differences


@dataclass(frozen=True, kw_only=True)
class CompareProgress:
    """How far a comparison has come.

    Attributes:
        rows: rows of the source that were compared.
        ranges: parts whose sums were compared.
    """

    rows: int
    ranges: int


OnDifferences = Callable[[Differences], Awaitable[None]]
OnProgress = Callable[[CompareProgress], None]


async def compare(
    source: Comparable,
    schema: TableSchema,
    database: Database,
    table_name: str,
    *,
    options: Options,
    what: What,
    on_progress: OnProgress | None = None,
    on_differences: OnDifferences | None = None,
) -> Comparison:
    """Compare a replica table with its source. The source is read from one snapshot.

    on_progress: called after each comparison of sums.
    on_differences: awaited with all differences as they are found, at most REPORTED_KEYS at once. The snapshot is open
        then, so it must not use the source: one task has one connection.

    Raises SchemaMismatch if nothing of a row can be compared, or a key has no value.
    """
    columns = _columns(schema, what)
    async with source.comparing(schema, columns, options) as remote:
        replica = Replica(database, table_name, schema, columns, remote, mark=options.mark_column)
        descent = _Descent(
            remote=remote,
            replica=replica,
            doing=f"comparing {schema.table}",
            keyed=bool(schema.key),
            on_progress=on_progress,
            on_differences=on_differences,
        )
        return await descent.run()


async def recheck(
    source: Comparable,
    schema: TableSchema,
    database: Database,
    table_name: str,
    keys: Sequence[Key],
    *,
    options: Options,
    what: What,
) -> Differences:
    """Compare only the rows with these keys, from a new snapshot. Returns those that still differ."""
    columns = _columns(schema, what)
    async with source.comparing(schema, columns, options) as remote:
        replica = Replica(database, table_name, schema, columns, remote, mark=options.mark_column)
        descent = _Descent(
            remote=remote, replica=replica, doing=f"comparing {schema.table}", keyed=True, kept=len(keys)
        )
        for at in range(0, len(keys), MAX_KEYS):
            asked = tuple(keys[at : at + MAX_KEYS])
            await descent.compare_rows(Part(keys=asked), len(asked))
    return descent.result.keys


def _columns(schema: TableSchema, what: What) -> Sequence[Column]:
    """The columns to compare: without those that a plugin changes, because their values are no longer the source's."""
    if what == "keys" and schema.key:
        return schema.key_columns
    columns = [column for column in schema.columns if not column.transformed]
    if not columns:
        raise SchemaMismatch(
            f"transforms: {schema.table} has no key, and every column is transformed, so that nothing of a row can be "
            "compared; leave one column as it is, or name keyColumns"
        )
    return columns


@dataclass(kw_only=True)
class _Descent:
    """One comparison under way: from sums of parts down to rows.

    Attributes:
        remote: the source's snapshot.
        replica: the replica's side.
        doing: what this is, for errors.
        keyed: whether rows have a key.
        on_progress, on_differences: see `compare`.
        kept: keys to keep of each kind.
        result: what was found until now.
    """

    remote: Comparing
    replica: Replica
    doing: str
    keyed: bool
    on_progress: OnProgress | None = None
    on_differences: OnDifferences | None = None
    kept: int = KEPT_KEYS
    result: Comparison = field(
        default=Comparison(
            rows_compared=0, replica_rows=0, ranges=0, missing=0, extra=0, different=0, keys=Differences()
        )
    )
    # Whether the last part held so many differences that each of its small parts has one: sums save nothing then.
    _dense: bool = field(default=False, init=False)

    async def run(self) -> Comparison:
        parts: list[Part] = []
        async for part in self.replica.parts():
            parts.append(part)
            if len(parts) == PARTS_AT_ONCE:
                await self._compare(parts, whole=True)
                parts = []
        if parts:
            await self._compare(parts, whole=True)
        return self.result

    async def _compare(self, parts: Sequence[Part], *, whole: bool = False) -> None:
        """Compare the sums of these parts, then the parts of those that differ. whole: their rows count as compared."""
        theirs, ours = await self._summaries(parts)
        result = replace(self.result, ranges=self.result.ranges + sum(part.buckets for part in parts))
        if whole:
            result = replace(
                result,
                rows_compared=result.rows_compared + sum(each.rows for part in theirs for each in part.values()),
                replica_rows=result.replica_rows + sum(each.rows for part in ours for each in part.values()),
            )
        self.result = result
        if self.on_progress is not None:
            self.on_progress(CompareProgress(rows=result.rows_compared, ranges=result.ranges))
        for part, their, our in zip(parts, theirs, ours, strict=True):
            if their != our:
                await self._descend(part, their, our)

    async def _summaries(self, parts: Sequence[Part]) -> tuple[list[dict[int, Summary]], list[dict[int, Summary]]]:
        """Both sides' sums. The source computes its sums while the replica's are computed."""
        asking = asyncio.create_task(catch_exits(self.remote.summarise, parts))
        asking.add_done_callback(retrieve_error)
        try:
            ours = [await self.replica.summarise(part) for part in parts]
            theirs = checked_summaries(await asking, parts, self.doing)
        except BaseException:
            # The snapshot must not be closed under a statement that runs.
            asking.cancel()
            await asyncio.wait({asking})
            raise
        return _filled(theirs), _filled(ours)

    async def _descend(self, part: Part, theirs: dict[int, Summary], ours: dict[int, Summary]) -> None:
        if part.buckets > 1:
            for chosen in _bucket_groups(part.buckets, theirs, ours):
                asked = sum(theirs[bucket].rows for bucket in chosen if bucket in theirs)
                await self.compare_rows(replace(part, only_buckets=chosen), asked)
            return
        rows = min(sum(each.rows for each in side.values()) for side in (theirs, ours))
        before = self.result.differences
        smaller = await self.replica.split(part) if rows > LEAF_ROWS and not self._dense else [part]
        if len(smaller) == 1:
            await self.compare_rows(part, sum(each.rows for each in theirs.values()))
        else:
            for at in range(0, len(smaller), PARTS_AT_ONCE):
                await self._compare(smaller[at : at + PARTS_AT_ONCE])
        if rows > LEAF_ROWS:
            self._dense = (self.result.differences - before) * LEAF_ROWS > rows

    async def _hashes(self, part: Part, asked: int) -> AsyncIterator[list[tuple[Key, int]]]:
        """The source's hashes of a part. Raises BrokenRule for many more rows than it counted."""
        # An engine without snapshots shows rows that have come in since.
        room = 2 * asked + HELD_ROWS
        async for rows in self.remote.hashes(part):
            room -= len(rows)
            if room < 0:
                raise BrokenRule(self.doing, "received more rows than were counted")
            yield rows

    async def compare_rows(self, part: Part, asked: int) -> None:
        """Compare a part row by row. The replica's hashes are held in memory; the source's are streamed."""
        if not self.keyed:
            await self._compare_keyless(part, asked)
            return
        held: dict[Key, int] = {}
        await self.replica.walk(part, lambda key, _, hashed: held.update({key: hashed}))
        wanted = None if part.keys is None else frozenset(part.keys)
        # By the source's collation several of the keys may equal one row, which then comes once for each.
        seen: set[Key] = set()
        async for rows in self._hashes(part, asked):
            missing, different = [], []
            for key, hashed in rows:
                if None in key:
                    raise SchemaMismatch("keyColumns: a row has NULL in a column that must identify it; fill it")
                if wanted is not None:
                    if key in seen:
                        continue
                    seen.add(key)
                ours = held.pop(key, None)
                if ours == hashed:
                    continue
                if ours is not None:
                    different.append(key)
                elif wanted is None or key in wanted:
                    # A key that only the source's collation takes for a wanted one is another row of the replica.
                    missing.append(key)
            await self._add(Differences(missing=tuple(missing), different=tuple(different)))
        await self._add(Differences(extra=tuple(held)))

    async def _compare_keyless(self, part: Part, asked: int) -> None:
        held: Counter[int] = Counter()
        await self.replica.walk(part, lambda key, _, hashed: held.update((hashed,)))
        missing = 0
        async for rows in self._hashes(part, asked):
            for _, hashed in rows:
                if held[hashed] > 0:
                    held[hashed] -= 1
                else:
                    missing += 1
        result = self.result
        self.result = replace(result, missing=result.missing + missing, extra=result.extra + held.total())

    async def _add(self, differences: Differences) -> None:
        if not differences:
            return
        result = self.result
        self.result = replace(
            result,
            missing=result.missing + len(differences.missing),
            extra=result.extra + len(differences.extra),
            different=result.different + len(differences.different),
            keys=Differences(
                missing=(result.keys.missing + differences.missing)[: self.kept],
                extra=(result.keys.extra + differences.extra)[: self.kept],
                different=(result.keys.different + differences.different)[: self.kept],
            ),
        )
        if self.on_differences is not None:
            for chunk in _chunks(differences):
                await self.on_differences(chunk)


def _filled(parts: Sequence[Mapping[int, Summary]]) -> list[dict[int, Summary]]:
    """The summaries without empty buckets: one side may list them and the other not."""
    return [{bucket: each for bucket, each in part.items() if each.rows} for part in parts]


def _bucket_groups(buckets: int, theirs: dict[int, Summary], ours: dict[int, Summary]) -> Iterator[tuple[int, ...]]:
    """The buckets that differ, in groups of at most HELD_ROWS rows: the source reads all its keys for each group."""
    chosen: list[int] = []
    rows = 0
    for bucket in range(buckets):
        if theirs.get(bucket) != ours.get(bucket):
            more = ours[bucket].rows if bucket in ours else 0
            if chosen and rows + more > HELD_ROWS:
                yield tuple(chosen)
                chosen, rows = [], 0
            chosen.append(bucket)
            rows += more
    if chosen:
        yield tuple(chosen)


def _chunks(differences: Differences) -> Iterator[Differences]:
    for kind in ("missing", "extra", "different"):
        keys = getattr(differences, kind)
        for at in range(0, len(keys), REPORTED_KEYS):
            yield Differences(**{kind: keys[at : at + REPORTED_KEYS]})
