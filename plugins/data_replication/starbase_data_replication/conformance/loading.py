"""Checks of loads: batches, the key's order, filters, and single rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from starbase_data_replication.conformance.promises import Promise
from starbase_data_replication.conformance.sample import (
    NO_EXPRESSIONS,
    NO_HIGHEST,
    Sample,
    SampleLacks,
    broken,
    must,
    opened,
    place,
    read,
    rows_of,
    same,
    within,
)
from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.model import Batch, Row, TableSchema
from starbase_data_replication.sources import Feature, ReadPlan, Source


async def first_load(sample: Sample) -> None:
    """A first load reads all rows in the order of the key, in batches within the limits, and resumes after each key."""
    expected = list(sample.rows())
    async with opened(sample) as (source, schema):
        resumes = bool(schema.key) and Feature.RESUME in sample.dialect.features
        plan = ReadPlan(schema=schema, in_key_order=resumes, batch_rows=2)
        batches = await read(source, plan)
        _check_batches(batches, most=2)
        found = rows_of(batches)
        same(schema, Promise.VALUES, found, expected, "a first load", ordered=False)
        if not resumes:
            return
        same(schema, Promise.ORDER, found, expected, "a first load")
        _check_batches(await read(source, replace(plan, batch_rows=1000, batch_bytes=1)), most=1)
        done = 0
        for batch in batches:
            done += len(batch.rows)
            resumable = all(column.cast.resumable for column in schema.key_columns)
            must(
                batch.last_key is not None or not batch.rows or not resumable,
                Promise.RESUME,
                "a batch has no last_key, and all casts of the key are resumable",
            )
            if batch.last_key is not None:
                rest = rows_of(await read(source, replace(plan, after_key=batch.last_key)))
                same(schema, Promise.RESUME, rest, expected[done:], "a load that goes on after a last_key")


async def filters(sample: Sample) -> None:
    """A filter holds for every read, stays one expression, and rows that have left it are marked if asked for.

    A dialect without the feature `where` passes.
    """
    if Feature.WHERE not in sample.dialect.features:
        return
    if sample.where is None or sample.fits is None:
        raise SampleLacks("where, fits: give the sample a filter, and say which rows fit it")
    if not sample.not_where:
        raise SampleLacks("not_where: give the sample texts that the source must refuse, such as an unknown column")
    async with opened(sample) as (source, bare):
        schema = replace(bare, where=sample.where)
        at = place(schema, schema.tracking_column)
        fitting = [row for row in sample.rows() if sample.fits(row)]
        out = [row for row in sample.rows() if not sample.fits(row) and row[at] is not None]
        if not fitting or not out:
            raise SampleLacks("where: some rows must fit it, and some with a tracking value must not")
        await source.check_filter_and_key(schema, key=False)
        same(schema, Promise.FILTER, await _all(source, schema), fitting, "a read with a filter", ordered=False)
        nulls = sum(row[at] is None for row in fitting)
        must(await source.count_nulls(schema, at_most=None) == nulls, Promise.FILTER, "count_nulls counts beyond it")
        for text in (*NO_EXPRESSIONS, *sample.not_where):
            await _must_reject(source, replace(bare, where=text), text)
        if Feature.LEFT_FILTER in sample.dialect.features:
            await _check_left_filter(sample, source, schema)


async def _check_left_filter(sample: Sample, source: Source, schema: TableSchema) -> None:
    at, fits = place(schema, schema.tracking_column), sample.fits
    assert fits is not None
    floor = (await source.read_high_watermark(schema, sample.options, noted_at=time.time())).candidate
    must(floor is not None, Promise.HIGHEST, NO_HIGHEST)
    assert floor is not None
    added = sample.add()
    plan = ReadPlan(schema=schema, floor=floor.value, left_filter=True)
    expected = [row for row in sample.rows() if row[at] is None and fits(row)] + [added]
    found = rows_of(await read(source, plan))
    for row in found:
        must(len(row) == len(schema.columns) + 1, Promise.LEFT_FILTER, "a row has no value more")
    bare = [tuple(row[:-1]) for row in found]
    same(schema, Promise.LEFT_FILTER, bare, expected, "a read above a floor with left_filter", ordered=False)
    # Without an upper bound: all rows with a tracking value, each marked.
    found = rows_of(await read(source, replace(plan, floor=None, nulls=False)))
    marks = sorted(int(row[-1]) for row in found)
    wanted = sorted(int(fits(row)) for row in sample.rows() if row[at] is not None)
    must(marks == wanted, Promise.LEFT_FILTER, f"the marks of all rows are {marks}, not {wanted}")


async def _must_reject(source: Source, schema: TableSchema, text: str) -> None:
    try:
        await source.check_filter_and_key(schema, key=False)
    except SourceRejected as error:
        must("where" in str(error), Promise.EXPRESSION, f"the error for {text!r} does not name where")
    except Exception as error:
        broken(Promise.EXPRESSION, f"{text!r} raises {type(error).__name__}, not SourceRejected")
    else:
        broken(Promise.EXPRESSION, f"{text!r} is accepted")


async def keys(sample: Sample) -> None:
    """Rows are found by their keys, and columns that are no key are refused."""
    async with opened(sample) as (source, schema):
        if schema.key:
            await source.check_filter_and_key(schema, key=True)
        if sample.no_key:
            try:
                await source.check_filter_and_key(replace(schema, key=tuple(sample.no_key)), key=True)
            except SourceRejected as error:
                must("keyColumns" in str(error), Promise.KEY, "the error does not name keyColumns")
            else:
                broken(Promise.KEY, f"{', '.join(sample.no_key)} is taken for one")
        if not schema.key or Feature.KEYS not in sample.dialect.features:
            return
        at = [place(schema, name) for name in schema.key]
        every = list(sample.rows())
        for chosen in ([every[1]], [every[0], every[-1]], every):
            plan = ReadPlan(schema=schema, keys=tuple(tuple(row[each] for each in at) for row in chosen))
            same(schema, Promise.BY_KEY, rows_of(await read(source, plan)), chosen, "a read by keys", ordered=False)


async def snapshots(sample: Sample) -> None:
    """A read sees the rows of the moment when its context was entered; leaving it early frees the source at once.

    A dialect without the feature `snapshot` passes.
    """
    if Feature.SNAPSHOT not in sample.dialect.features:
        return
    async with opened(sample) as (source, schema):
        before = list(sample.rows())
        plan = ReadPlan(schema=schema, batch_rows=1)
        async with source.read(plan) as batches:
            sample.add()
            found = [row async for batch in batches for row in batch.rows]
        same(schema, Promise.MOMENT, found, before, "a read during an insert", ordered=False)
        before = list(sample.rows())
        found = []
        async with source.read(plan) as batches:
            async for batch in batches:
                found += batch.rows
                if len(found) == 1:
                    sample.add()
        same(schema, Promise.MOMENT, found, before, "a read whose table grows after its first row", ordered=False)
        before = list(sample.rows())
        async with source.snapshot() as snapshot:  # type: ignore[attr-defined]
            first = await _all(snapshot, schema)
            sample.add()
            second = await _all(snapshot, schema)
        same(schema, Promise.SAME_MOMENT, first, before, "the first read of a snapshot", ordered=False)
        same(schema, Promise.SAME_MOMENT, second, before, "its second, after an insert", ordered=False)
    async with (
        within(sample, Promise.FREED, "reads that were left early have not made room for another one"),
        opened(sample, max_connections=1) as (source, schema),
    ):
        for _ in range(3):
            async with source.read(plan) as batches:
                await anext(aiter(batches))
        found = await _all(source, schema)
        must(len(found) == len(sample.rows()), Promise.FREED, "a read after one that was left does not see all rows")


async def _all(reader: object, schema: TableSchema) -> list[Row]:
    return rows_of(await read(reader, ReadPlan(schema=schema)))  # type: ignore[arg-type]


def _check_batches(batches: Sequence[Batch], *, most: int) -> None:
    lasts = [batch.last for batch in batches]
    must(lasts == [False] * (len(lasts) - 1) + [True], Promise.LAST, f"`last` of the batches is {lasts}")
    for batch in batches:
        must(
            len(batch.rows) <= most,
            Promise.BATCHES,
            f"one has {len(batch.rows)} rows, and {most} were asked for at most",
        )
        must(batch.bytes > 0 or not batch.rows, Promise.BATCHES, "one with rows has no bytes")
