"""Checks of what a sync follows: floors, the high watermark, times, and open transactions."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

from starbase_data_replication.conformance.promises import Promise
from starbase_data_replication.conformance.sample import (
    NO_HIGHEST,
    Sample,
    as_stored,
    must,
    opened,
    place,
    read,
    rows_of,
    same,
    within,
)
from starbase_data_replication.model import Candidate, TableSchema
from starbase_data_replication.sources import AHEAD_SECONDS, ReadPlan, Source, inspecting

# How far ahead of the clock the checks of times insert rows, in seconds, and how long a row takes to settle then.
SOON = 30.0
SETTLE = 600.0
LOOKBACK = 3600.0


async def following(sample: Sample) -> None:
    """Above a high watermark are only rows without a tracking value, and then the rows added since."""
    async with opened(sample) as (source, schema):
        at = place(schema, schema.tracking_column)
        nulls = [row for row in sample.rows() if row[at] is None]
        others = [row for row in sample.rows() if row[at] is not None]
        must(await source.count_nulls(schema, at_most=None) == len(nulls), Promise.NULLS, "count_nulls is wrong")
        must(await source.count_nulls(schema, at_most=0) == 0, Promise.NULLS, "count_nulls counts beyond at_most")
        kept = rows_of(await read(source, ReadPlan(schema=schema, nulls=False)))
        same(schema, Promise.NULLS, kept, others, "a read without nulls", ordered=False)
        noted = await source.read_high_watermark(schema, sample.options, noted_at=time.time())
        must(noted.ahead == 0, Promise.AHEAD, "the rows of the sample are not, and are counted")
        must(noted.candidate is not None or not schema.key, Promise.HIGHEST, NO_HIGHEST)
        if noted.candidate is None:
            return
        plan = ReadPlan(schema=schema, floor=noted.candidate.value)
        bare = rows_of(await read(source, replace(plan, nulls=False)))
        same(schema, Promise.HIGHEST, bare, [], "a read above it, without nulls,")
        same(schema, Promise.NULLS, rows_of(await read(source, plan)), nulls, "a read above a floor", ordered=False)
        added = [sample.add()]
        second = await source.read_high_watermark(schema, sample.options, noted_at=time.time())
        added.append(sample.add())
        bare = rows_of(await read(source, replace(plan, nulls=False)))
        same(schema, Promise.FLOOR, bare, added, "a read after two inserts, without nulls,", ordered=False)
        found = rows_of(await read(source, plan))
        same(schema, Promise.NULLS, found, [*nulls, *added], "a read after two inserts", ordered=False)
        assert second.candidate is not None
        above = rows_of(await read(source, replace(plan, floor=second.candidate.value, nulls=False)))
        same(schema, Promise.FLOOR, above, added[1:], "a read from the watermark between them", ordered=False)


async def times(sample: Sample) -> None:
    """Times settle by the source's clock, have a lookback, and are counted if they lie ahead.

    Without `stamp`, it passes.
    """
    if sample.stamp is None:
        return
    async with opened(sample) as (source, schema):
        now = sample.stamp(-LOOKBACK / 2)
        early = await _candidate(source, schema, sample, settle=SETTLE)
        # Below the candidate is the row that has settled, and above its lookback is that row too.
        above = await _above(source, schema, early.value)
        must(tuple(now) not in above, Promise.SETTLED, "a time that was settled long ago is above the candidate")
        must(early.lookback_value is not None, Promise.LOOKBACK, "it has none")
        again = await _above(source, schema, early.lookback_value)
        must(tuple(now) in again, Promise.LOOKBACK, "a row within it is not above lookback_value")
        old = sample.rows()[0]
        must(tuple(old) not in again, Promise.LOOKBACK, "a row of long ago is above lookback_value")
        late = sample.stamp(0.0)
        unsettled = await _candidate(source, schema, sample, settle=SETTLE)
        above = await _above(source, schema, unsettled.value)
        must(
            tuple(late) in above, Promise.SETTLED, "a row that is younger than settleSeconds is not above the candidate"
        )
        must(tuple(now) not in above, Promise.SETTLED, "a row that is older than settleSeconds is above the candidate")
        sample.stamp(AHEAD_SECONDS + SOON * 4)
        options = replace(sample.options, settle_seconds=0.0, lookback_seconds=LOOKBACK)
        noted = await source.read_high_watermark(schema, options, noted_at=time.time())
        must(noted.ahead == 1, Promise.AHEAD, f"one row is, and {noted.ahead} are counted")


async def _candidate(source: Source, schema: TableSchema, sample: Sample, *, settle: float) -> Candidate:
    options = replace(sample.options, settle_seconds=settle, lookback_seconds=LOOKBACK)
    candidate = (await source.read_high_watermark(schema, options, noted_at=time.time())).candidate
    must(candidate is not None, Promise.SETTLED, "no time is a candidate, and some have settled")
    assert candidate is not None
    return candidate


async def _above(source: Source, schema: TableSchema, floor: str | None) -> list[tuple[object, ...]]:
    plan = ReadPlan(schema=schema, floor=floor, nulls=False)
    return as_stored(schema, rows_of(await read(source, plan)))


async def open_transactions(sample: Sample) -> None:
    """A transaction that has written counts as open until it ends, or the source says that it does not know."""
    if sample.hold is None:
        return
    async with opened(sample) as (source, schema):
        with ExitStack() as held:
            async with inspecting(source, schema.table) as inspector:
                # It begins after the transaction that asks, and must be listed all the same.
                held.enter_context(sample.hold())
                candidate = (
                    await inspector.read_high_watermark(schema, sample.options, noted_at=time.time())
                ).candidate
            must(candidate is not None, Promise.HIGHEST, NO_HIGHEST)
            assert candidate is not None
            found = candidate.open_transactions
            answers = await source.still_open([found, found])
            must(len(answers) == 2, Promise.OPEN, f"still_open answers {len(answers)} sets for two")
            noted = answers[0]
            if not found.known:
                must(bool(found.reason), Promise.OPEN, "they are not known, without a reason")
                return
            must(not found.ended, Promise.OPEN, "read_high_watermark does not list one that writes")
            must(not noted.ended, Promise.OPEN, "still_open forgets one that writes")
        async with within(
            sample, Promise.ENDED, "still_open lists one that has been rolled back, and it is still listed"
        ):
            while not noted.ended:
                (noted,) = await source.still_open([candidate.open_transactions])
        must(await source.still_open([]) == [], Promise.OPEN, "still_open answers for sets that it was not given")
