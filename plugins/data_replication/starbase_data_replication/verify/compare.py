"""Comparing a replica with its source: what is missing, what is too much, what differs.

Owns the descent: sums of parts first, then of smaller parts where they differ, then rows one by one. What is
compared is what both sides say of the same part; neither side's SQL is known here, and nothing is changed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from starbase_data_replication.errors import SchemaMismatch, catch_exits, retrieve_error
from starbase_data_replication.model import Column, Options, TableSchema
from starbase_data_replication.sources import MAX_KEYS, Comparable, Comparing, Key, Part, Summary
from starbase_data_replication.verify.replica_checksums import LEAF_ROWS, Replica
from starbase_host import Database

What = Literal["keys", "rows"]

# Parts that are asked for in one statement.
PARTS_AT_ONCE = 16
# Rows of the replica whose keys and hashes are held at once, of a table that only hashes take apart.
HELD_ROWS = 100_000
# Differences handed out at once, and keys kept of each kind.
REPORTED_KEYS = MAX_KEYS
KEPT_KEYS = 10_000


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Keys of rows that differ, as the replica stores them: not in the replica, not in the source, not the same."""

    missing: tuple[Key, ...] = ()
    extra: tuple[Key, ...] = ()
    different: tuple[Key, ...] = ()

    def __len__(self) -> int:
        return len(self.missing) + len(self.extra) + len(self.different)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison has found. The counts are exact; `keys` holds the first KEPT_KEYS of each kind.

    rows_compared: the source's rows. replica_rows: the replica's. ranges: parts whose sums were compared.
    Of a table without a key there are counts only: a row that differs is one missing and one extra.
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

    @property
    def complete(self) -> bool:
        """Whether `keys` holds every key."""
        return len(self.keys) == self.differences


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How far a comparison is: rows of the source, and parts."""

    rows: int
    ranges: int


Found = Callable[[Differences], Awaitable[None]]
Tell = Callable[[Compared], None]


async def compare(
    source: Comparable,
    schema: TableSchema,
    database: Database,
    table_name: str,
    *,
    options: Options,
    what: What,
    progress: Tell | None = None,
    found: Found | None = None,
) -> Comparison:
    """Compare a replica table with its source. The source is read from one snapshot.

    found: is given all differences, at most REPORTED_KEYS at once, as they are found. It is awaited with the
        snapshot open, so it must not use the source: one task has one connection.
    """
    columns = _columns(schema, what)
    async with source.comparing(schema, columns, options) as remote:
        replica = Replica(database, table_name, schema, columns, remote, mark=options.mark_column)
        return await _Pass(remote=remote, replica=replica, keyed=bool(schema.key), tell=progress, found=found).run()


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
    """Compare just these keys again, from a new snapshot: what still differs."""
    columns = _columns(schema, what)
    async with source.comparing(schema, columns, options) as remote:
        replica = Replica(database, table_name, schema, columns, remote, mark=options.mark_column)
        again = _Pass(remote=remote, replica=replica, keyed=True, kept=len(keys))
        for at in range(0, len(keys), MAX_KEYS):
            await again.compare_rows(Part(keys=tuple(keys[at : at + MAX_KEYS])))
    return again.result.keys


def _columns(schema: TableSchema, what: What) -> Sequence[Column]:
    """What is compared. What a plugin has changed on its way is not the source's any more."""
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
class _Pass:
    """One comparison under way."""

    remote: Comparing
    replica: Replica
    keyed: bool
    tell: Tell | None = None
    found: Found | None = None
    kept: int = KEPT_KEYS
    result: Comparison = field(
        default=Comparison(
            rows_compared=0, replica_rows=0, ranges=0, missing=0, extra=0, different=0, keys=Differences()
        )
    )
    # Whether every small part of the last one that was looked into would have differed: sums save nothing then.
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
        """Compare the sums of these parts, then look into those that differ. whole: their rows count as compared."""
        theirs, ours = await self._summaries(parts)
        result = replace(self.result, ranges=self.result.ranges + sum(part.buckets for part in parts))
        if whole:
            result = replace(
                result,
                rows_compared=result.rows_compared + sum(each.rows for part in theirs for each in part.values()),
                replica_rows=result.replica_rows + sum(each.rows for part in ours for each in part.values()),
            )
        self.result = result
        if self.tell is not None:
            self.tell(Compared(rows=result.rows_compared, ranges=result.ranges))
        for part, their, our in zip(parts, theirs, ours, strict=True):
            if their != our:
                await self._look_into(part, their, our)

    async def _summaries(self, parts: Sequence[Part]) -> tuple[list[dict[int, Summary]], list[dict[int, Summary]]]:
        """Both sides' sums; the source works on its while the replica's are taken."""
        asking = asyncio.create_task(catch_exits(self.remote.summarise, parts))
        asking.add_done_callback(retrieve_error)
        try:
            ours = [await self.replica.summarise(part) for part in parts]
            theirs = await asking
        except BaseException:
            # The snapshot must not be closed under a statement that runs.
            asking.cancel()
            await asyncio.wait({asking})
            raise
        return _filled(theirs), _filled(ours)

    async def _look_into(self, part: Part, theirs: dict[int, Summary], ours: dict[int, Summary]) -> None:
        if part.buckets > 1:
            for chosen in _together(part.buckets, theirs, ours):
                await self.compare_rows(replace(part, chosen=chosen))
            return
        rows = min(sum(each.rows for each in side.values()) for side in (theirs, ours))
        before = self.result.differences
        smaller = await self.replica.split(part) if rows > LEAF_ROWS and not self._dense else [part]
        if len(smaller) == 1:
            await self.compare_rows(part)
        else:
            for at in range(0, len(smaller), PARTS_AT_ONCE):
                await self._compare(smaller[at : at + PARTS_AT_ONCE])
        if rows > LEAF_ROWS:
            self._dense = (self.result.differences - before) * LEAF_ROWS > rows

    async def compare_rows(self, part: Part) -> None:
        """Compare a part row by row. The replica's are held; the source's are streamed."""
        if not self.keyed:
            await self._compare_keyless(part)
            return
        held: dict[Key, int] = {}
        await self.replica.walk(part, lambda key, _, hashed: held.update({key: hashed}))
        asked = None if part.keys is None else frozenset(part.keys)
        # A row that several of the keys are equal to, by the source's collation, may come once for each.
        once: set[Key] = set()
        async for rows in self.remote.hashes(part):
            missing, different = [], []
            for key, hashed in rows:
                if None in key:
                    raise SchemaMismatch(
                        "keyColumns: a row has no value in the columns that are to identify it; fill it"
                    )
                if asked is not None:
                    if key in once:
                        continue
                    once.add(key)
                ours = held.pop(key, None)
                if ours == hashed:
                    continue
                if ours is not None:
                    different.append(key)
                elif asked is None or key in asked:
                    # What the source takes for equal to a key that was asked for is another row of the replica.
                    missing.append(key)
            await self._note(Differences(missing=tuple(missing), different=tuple(different)))
        await self._note(Differences(extra=tuple(held)))

    async def _compare_keyless(self, part: Part) -> None:
        held: Counter[int] = Counter()
        await self.replica.walk(part, lambda key, _, hashed: held.update((hashed,)))
        missing = 0
        async for rows in self.remote.hashes(part):
            for _, hashed in rows:
                if held[hashed] > 0:
                    held[hashed] -= 1
                else:
                    missing += 1
        result = self.result
        self.result = replace(result, missing=result.missing + missing, extra=result.extra + held.total())

    async def _note(self, differences: Differences) -> None:
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
        if self.found is not None:
            for chunk in _chunks(differences):
                await self.found(chunk)


def _filled(parts: Sequence[dict[int, Summary]]) -> list[dict[int, Summary]]:
    """Without the buckets that are empty, which one side may name and the other not."""
    return [{bucket: each for bucket, each in part.items() if each.rows} for part in parts]


def _together(buckets: int, theirs: dict[int, Summary], ours: dict[int, Summary]) -> Iterator[tuple[int, ...]]:
    """The buckets that differ, as many at once as may be held: each time, the source reads all its keys."""
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
