"""Rows from one snapshot of MySQL or MariaDB, in batches.

Must not know how the snapshot is opened.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from starbase_data_replication.errors import ReadAgain, SourceRejected
from starbase_data_replication.model import Batch, Column, Row, Rows, TableName, TableSchema, UnrepresentableValues
from starbase_data_replication.sources.batches import convert, fitting
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.mysql.errors import translate_errors
from starbase_data_replication.sources.mysql.packed_rows import Packing, Unpackable
from starbase_data_replication.sources.mysql.rows import RowStream
from starbase_data_replication.sources.mysql.source_code import SourceCode
from starbase_data_replication.sources.mysql.sql import load_key, select, selected
from starbase_data_replication.sources.mysql.types import lost
from starbase_data_replication.sources.protocols import ReadPlan


class Snapshot:
    """A connection in a transaction with a snapshot."""

    def __init__(self, connection: Connection, unpackable: set[TableName]) -> None:
        self._connection = connection
        self._unpackable = unpackable

    @contextlib.asynccontextmanager
    async def read(self, plan: ReadPlan) -> AsyncIterator[AsyncIterator[Batch]]:
        table = plan.schema.table
        doing = f"reading {table}"
        code = SourceCode(self._connection, plan.schema, doing)
        await code.begin()
        packing = Packing(plan.schema.columns)
        if packing.possible and plan.keys is None and not plan.left_filter and table not in self._unpackable:
            with translate_errors(doing, rows=True):
                sql = select(plan, [packing.expression], self._connection.syntax)
                stream = await RowStream.open(self._connection, sql, parser=packing.parser)
            yield self._or_apart(_batches(stream, plan, packing.columns, doing, code), table)
        else:
            with translate_errors(doing, rows=True):
                sql = select(plan, [*map(selected, plan.schema.columns)], self._connection.syntax)
                stream = await RowStream.open(self._connection, sql)
            yield _batches(stream, plan, plan.schema.columns, doing, code)

    async def _or_apart(self, batches: AsyncIterator[Batch], table: TableName) -> AsyncIterator[Batch]:
        try:
            async for batch in batches:
                yield batch
                del batch
        except Unpackable:
            self._unpackable.add(table)
            raise ReadAgain(f"{table} has a row that cannot be put together; it is read again") from None


async def _batches(
    stream: RowStream, plan: ReadPlan, columns: Sequence[Column], doing: str, code: SourceCode
) -> AsyncIterator[Batch]:
    resumable = plan.in_key_order and all(column.cast.resumable for column in plan.schema.key_columns)
    while not stream.ended:
        with translate_errors(doing, rows=True):
            records, size = await stream.take(plan.batch_rows, plan.batch_bytes)
        if stream.ended:
            await code.check()
        unrepresentable: Counter[UnrepresentableValues] = Counter()
        with translate_errors(doing, rows=True):
            rows: Sequence[Row] = convert(records, columns, unrepresentable)
        _refuse_lost(records, plan.schema)
        last_key = _position(rows[-1], plan) if rows and resumable else None
        rows = fitting(rows, size, columns, unrepresentable)
        yield Batch(rows=rows, bytes=size, last_key=last_key, last=stream.ended, unrepresentable=unrepresentable)
        # Not kept while the next ones come in.
        del records, rows


def _refuse_lost(rows: Rows, schema: TableSchema) -> None:
    """Raises SourceRejected for a value that the server cannot send: NULL or '' in its place would be wrong."""
    for index, column in enumerate(schema.columns):
        mark = lost(column.cast, column.tracking_kind)
        if mark is not None and mark in rows.column(index):
            raise SourceRejected(
                f"reading {schema.table}: a value of the column {column.name} is longer than the server's "
                "max_allowed_packet lets it convert; set max_allowed_packet higher on the server"
            )


def _position(row: Row, plan: ReadPlan) -> tuple[str, ...] | None:
    """The key of a row as text; None if it contains bytes instead of a text, so that a load cannot resume after it."""
    schema = plan.schema
    values = {column.name: value for column, value in zip(schema.columns, row, strict=True)}
    if any(isinstance(values[column.name], bytes) for column in schema.key_columns if column.cast.declared == "TEXT"):
        return None
    return load_key(plan, [values[name] for name in schema.key])
