"""Checks of a sourceConfig, of a table's description, and of connections."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

from starbase_data_replication.conformance.promises import Promise
from starbase_data_replication.conformance.sample import Sample, broken, must, opened, read, within
from starbase_data_replication.errors import SourceRejected, SyncError
from starbase_data_replication.model import TableSchema
from starbase_data_replication.sources import Dialect, ReadPlan, Source, inspecting

DECLARED = ("INTEGER", "TEXT", "BLOB", "")
DECIMALS = ("REAL", "NUMERIC", "")
# How often connections are counted, and how long it is until the next time.
TURNS = 5
TURN_SECONDS = 0.02


async def settings(sample: Sample) -> None:
    """Good settings pass, wrong ones are named by field, a table has one identity, and secrets stay hidden."""
    dialect, good, table = sample.dialect, sample.settings, sample.source_table
    must(isinstance(dialect, Dialect), Promise.SETTINGS, "the dialect lacks methods of Dialect, or its features")
    must(dialect.check(good, table) == {}, Promise.SETTINGS, "check rejects the settings of the sample")
    wrong = dialect.check({**good, "no_such_setting": 1}, table)
    must(
        "sourceConfig.no_such_setting" in wrong, Promise.SETTINGS, "check does not name no_such_setting, an unknown key"
    )
    identity = dialect.identity(good, table)
    must(all(isinstance(part, str) for part in identity), Promise.IDENTITY, "identity is not a tuple of texts")
    must(identity == dialect.identity(dict(good), table), Promise.IDENTITY, "one table has two")
    must(identity != dialect.identity(good, table + "2"), Promise.IDENTITY, "two tables have the same")
    if sample.elsewhere is not None:
        must(identity != dialect.identity(sample.elsewhere, table), Promise.IDENTITY, "two sources have the same")
    hosts = list(dialect.hosts(good))
    must(hosts == list(sample.hosts), Promise.HOSTS, f"it answers {hosts!r}, and the sample has {list(sample.hosts)!r}")
    shown = json.dumps(dict(dialect.secret_parts(good)))
    for secret in sample.secrets:
        must(secret in json.dumps(dict(good)), Promise.SECRETS, "a secret of the sample is not in its settings")
        must(secret not in shown, Promise.SECRETS, "secret_parts shows one")
        must(secret not in str(identity), Promise.SECRETS, "identity holds one")
        must(secret not in str(wrong), Promise.SECRETS, "an error of check holds one")


async def description(sample: Sample) -> None:
    """describe gives the columns in their order and a key, and the right errors for what does not exist."""
    async with opened(sample) as (source, schema):
        names = [column.name for column in schema.columns]
        must(len(names) == len(sample.rows()[0]), Promise.DESCRIBED, "there are not as many columns as values in a row")
        must(
            sample.tracking_column == schema.tracking_column in names, Promise.DESCRIBED, "the tracking column is lost"
        )
        must(set(schema.key) <= set(names), Promise.DESCRIBED, "the key has columns that the table does not have")
        values = zip(*sample.rows(), strict=True)
        for column, found in zip(schema.columns, values, strict=True):
            must(
                column.cast.declared in (DECIMALS if column.cast.decimal else DECLARED),
                Promise.DESCRIBED,
                f"the cast of {column.name} must declare INTEGER, TEXT, BLOB or nothing; a decimal REAL, NUMERIC or "
                "nothing",
            )
            must(
                column.nullable or None not in found,
                Promise.DESCRIBED,
                f"{column.name} holds NULL, and is not nullable",
            )
        if sample.stamp is not None:
            must(schema.tracking.rises == "time", Promise.TIMES, f'{sample.tracking_column} does not say rises="time"')
        table = sample.table
        async with inspecting(source, table) as inspector:
            again = await inspector.describe(table, sample.tracking_column)
            must(again == schema, Promise.DESCRIBED, "within inspect, it is described in another way")
        for missing, tracking in ((replace(table, name="no_such_table"), "id"), (table, "no_such_column")):
            try:
                await source.describe(missing, tracking)
            except SourceRejected:
                continue
            except Exception as error:
                broken(Promise.MISSING, f"describe must raise SourceRejected, and raises {type(error).__name__}")
            broken(Promise.MISSING, "describe finds a table or a tracking column that does not exist")


async def errors(sample: Sample) -> None:
    """Settings that do not work raise kinds of SyncError, without a secret."""
    for what, config in sample.broken.items():
        try:
            source = sample.dialect.open(config, max_connections=1)
            try:
                await source.describe(sample.table, sample.tracking_column)
            finally:
                await source.close()
        except SyncError as error:
            for secret in (*sample.secrets, *_texts(config, sample.settings)):
                must(secret not in str(error), Promise.SECRETS, f"with a wrong {what}, the error shows one")
        except Exception as error:
            broken(Promise.TRANSLATED, f"with a wrong {what}, {type(error).__name__} is raised")
        else:
            broken(Promise.TRANSLATED, f"with a wrong {what}, describe finds the table")


async def connections(sample: Sample) -> None:
    """No more connections are open than allowed, and none after close. Without `connections`, it passes."""
    if sample.connections is None:
        return
    before, most, waiting = sample.connections(), 2, 4
    async with within(sample, Promise.BOUND, "reads that wait for one another have not ended"):
        await _bounded(sample, before, most, waiting)
    async with within(sample, Promise.CLOSED, "a connection has not ended"):
        for _ in iter(lambda: sample.connections is not None and sample.connections() > before, False):
            await asyncio.sleep(TURN_SECONDS)


async def _bounded(sample: Sample, before: int, most: int, waiting: int) -> None:
    assert sample.connections is not None
    entered, leave = asyncio.Semaphore(0), asyncio.Event()

    async def hold(source: Source, schema: TableSchema) -> None:
        async with source.read(ReadPlan(schema=schema, batch_rows=1)) as batches:
            await anext(aiter(batches))
            entered.release()
            await leave.wait()

    async with opened(sample, max_connections=most) as (source, schema):
        tasks = [asyncio.create_task(hold(source, schema)) for _ in range(waiting)]
        try:
            for _ in range(most):
                await entered.acquire()
            # Those beyond the bound have had their turn, and wait.
            for _ in range(TURNS):
                await asyncio.sleep(TURN_SECONDS)
                must(sample.connections() - before <= most, Promise.BOUND, f"{sample.connections() - before} are open")
        finally:
            leave.set()
            await asyncio.wait(tasks)
        for task in tasks:
            task.result()
        # A connection that was left early may be closed already; after this read one waits for the next.
        await read(source, ReadPlan(schema=schema))


def _texts(config: Any, good: Any) -> list[str]:
    """The texts that stand in place of the sample's secrets: a wrong password is one too."""
    return [
        value
        for name, value in config.items()
        if isinstance(value, str) and value != good.get(name) and "pass" in name.lower()
    ]
