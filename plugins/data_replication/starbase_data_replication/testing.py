"""For tests of plugins: a plugin with the dialect `memory`, whose every table is a list of rows in this process.

Enable it with `module = "starbase_data_replication.testing"`. A test that changes the rows changes the source.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starbase_data_replication.model import (
    Batch,
    Cast,
    Column,
    HighWatermark,
    OpenTransactions,
    Options,
    Row,
    TableName,
    TableSchema,
)
from starbase_data_replication.sources import Dialect, ReadPlan
from starbase_host import hookimpl

ROWS: tuple[Row, ...] = ((1, "Ada"), (2, "Bea"), (3, "Cleo"))
_COLUMNS = (
    Column(name="id", source_type="integer", nullable=False, cast=Cast(declared="INTEGER")),
    Column(name="name", source_type="text", nullable=False, cast=Cast(declared="TEXT")),
)


def plugin(options: Mapping[str, Any]) -> Memory:
    """Make the plugin; it takes no options."""
    return Memory()


class Memory:
    """The plugin. rows: those of each table, with the columns id and name; change them as you like."""

    def __init__(self) -> None:
        self.rows: list[Row] = list(ROWS)

    @hookimpl(optionalhook=True)
    def replication_dialects(self) -> dict[str, Dialect]:
        return {"memory": _MemoryDialect(self.rows)}


class _MemoryDialect:
    features: frozenset[str] = frozenset()

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def check(self, settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        unknown = settings.keys() - {"dialect"}
        return {f"sourceConfig.{name}": "is not a field; known: dialect" for name in unknown}

    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        return ("memory", source_table)

    def secret_parts(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return settings

    def hosts(self, settings: Mapping[str, Any]) -> Sequence[str]:
        return ()

    def table_name(self, settings: Mapping[str, Any], source_table: str) -> TableName:
        return TableName(schema=None, name=source_table)

    def open(self, settings: Mapping[str, Any], *, max_connections: int) -> _MemorySource:
        return _MemorySource(self._rows)


class _MemorySource:
    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    async def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        return TableSchema(table=table, columns=_COLUMNS, key=("id",), tracking_column=tracking_column)

    async def check_filter_and_key(self, schema: TableSchema, *, key: bool) -> None:
        return None

    async def count_nulls(self, schema: TableSchema, *, at_most: int | None) -> int:
        return 0

    async def read_high_watermark(self, schema: TableSchema, options: Options, *, noted_at: float) -> HighWatermark:
        return HighWatermark()

    async def still_open(self, noted: Sequence[OpenTransactions]) -> list[OpenTransactions]:
        return []

    @asynccontextmanager
    async def read(self, plan: ReadPlan) -> AsyncIterator[AsyncIterator[Batch]]:
        at = [["id", "name"].index(column.name) for column in plan.schema.columns]

        async def batches() -> AsyncIterator[Batch]:
            rows = [tuple(row[place] for place in at) for row in self._rows]
            yield Batch(rows=rows, bytes=len(rows), last=True)

        yield batches()

    async def close(self) -> None:
        return None
