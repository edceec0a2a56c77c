"""Checks of a comparison: both sides hash alike, and only the rows that the replica is to hold."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import apsw

from starbase_data_replication.conformance.promises import Promise
from starbase_data_replication.conformance.sample import Sample, as_stored, must, opened, place, read, rows_of
from starbase_data_replication.model import Options, Row, TableSchema
from starbase_data_replication.sources import DIGESTS, MD5, Comparable, Feature, ReadPlan
from starbase_data_replication.storage import Target
from starbase_data_replication.verify import compare
from starbase_host import Database, quote

WHAT: tuple[Literal["rows", "keys"], ...] = ("rows", "keys")


async def comparing(sample: Sample) -> None:
    """Source and replica have the same hashes, and a row that the replica lacks, or has otherwise, is found.

    A dialect without the feature `compare` passes.
    """
    if Feature.COMPARE not in sample.dialect.features:
        return
    async with opened(sample) as (source, schema):
        must(isinstance(source, Comparable), Promise.HASHES, "the source has no comparing")
        assert isinstance(source, Comparable)
        async with source.comparing(schema, schema.columns, sample.options) as remote:
            known = getattr(remote, "digest", MD5) in DIGESTS
            must(known, Promise.HASHES, f"digest must be one of {', '.join(DIGESTS)}")
        rows = rows_of(await read(source, ReadPlan(schema=schema)))
        async with _replica(schema, rows) as (database, target):
            await _equal(source, schema, database, sample.options, len(rows), Promise.HASHES)
            if schema.key:
                await _find(sample, source, schema, database, target, rows)
        await _kept_out(sample, source, schema, rows)


async def _find(
    sample: Sample, source: Comparable, schema: TableSchema, database: Database, target: Target, rows: Sequence[Row]
) -> None:
    key = ", ".join(map(quote, schema.key))
    keys = await database.read(lambda c: c.execute(f"SELECT {key} FROM replica ORDER BY {key}").fetchall())
    where = " AND ".join(f"{quote(name)} IS ?" for name in schema.key)
    await database.write(lambda c: c.execute(f"DELETE FROM replica WHERE {where}", keys[1]).fetchall())
    other = next((column.name for column in schema.columns if column.name not in schema.key), None)
    if other is not None:
        change = f"UPDATE replica SET {quote(other)} = iif({quote(other)} IS NULL, 'x', NULL) WHERE {where}"
        await database.write(lambda c: c.execute(change, keys[2]).fetchall())
    found = await compare.compare(source, schema, database, "replica", options=sample.options, what="rows")
    must(found.keys.missing == (keys[1],), Promise.DIFFERENCES, f"the row {keys[1]} is missing; {found.keys} is found")
    different = (keys[2],) if other is not None else ()
    must(found.keys.different == different, Promise.DIFFERENCES, f"the row {keys[2]} differs; {found.keys} is found")
    must(found.keys.extra == (), Promise.DIFFERENCES, f"no row is extra; {found.keys} is found")
    again = await compare.recheck(
        source, schema, database, "replica", [keys[0], keys[1]], options=sample.options, what="rows"
    )
    must(again.missing == (keys[1],), Promise.DIFFERENCES, "by its key alone, the missing row is not found")
    await database.write(lambda c: target.apply(c, rows))


async def _kept_out(sample: Sample, source: Comparable, schema: TableSchema, rows: Sequence[Row]) -> None:
    """Rows that the filter or the options keep out of the replica are not compared."""
    cases: list[tuple[str, TableSchema, Options, list[Row]]] = []
    at = place(schema, schema.tracking_column)
    bare = replace(sample.options, null_tracking="ignore")
    cases.append(("a row without a tracking value", schema, bare, [row for row in rows if row[at] is not None]))
    if sample.where is not None and sample.fits is not None and Feature.WHERE in sample.dialect.features:
        fitting = [row for row, stored in zip(rows, as_stored(schema, rows), strict=True) if sample.fits(stored)]
        cases.append(
            ("a row that does not fit the filter", replace(schema, where=sample.where), sample.options, fitting)
        )
    if sample.deleted is not None:
        gone = place(schema, sample.deleted)
        options = replace(sample.options, deletes={"sourceColumn": sample.deleted})
        cases.append(("a deleted row", schema, options, [row for row in rows if row[gone] is None]))
    for what, asked, options, kept in cases:
        async with _replica(asked, kept) as (database, _):
            await _equal(source, asked, database, options, len(kept), Promise.COMPARED, what)


async def _equal(
    source: Comparable,
    schema: TableSchema,
    database: Database,
    options: Options,
    count: int,
    promise: Promise,
    what: str = "a row",
) -> None:
    for each in WHAT:
        found = await compare.compare(source, schema, database, "replica", options=options, what=each)
        equal = found.equal and found.rows_compared == count
        must(equal, promise, f"{what} of the source is compared otherwise, by its {each}: {found}")


@asynccontextmanager
async def _replica(schema: TableSchema, rows: Sequence[Row]) -> AsyncIterator[tuple[Database, Target]]:
    """A database with a replica of these rows."""
    target = Target("replica", schema, shadow_id=1)

    def load(connection: apsw.Connection) -> None:
        target.match(connection, shadow=False, fresh=True)
        target.apply(connection, rows)

    with tempfile.TemporaryDirectory() as directory:
        database = Database(Path(directory) / "replica.db")
        database.open()
        try:
            await database.write(load)
            yield database, target
        finally:
            database.close()
