"""Rows from one snapshot of PostgreSQL, in batches.

Must not know how the snapshot is opened.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starbase_data_replication.model import Batch, Column, Row, TableSchema
from starbase_data_replication.sources.batches import fitting
from starbase_data_replication.sources.postgresql.errors import translate_errors
from starbase_data_replication.sources.postgresql.rows import RowStream
from starbase_data_replication.sources.postgresql.source_code import SourceCode
from starbase_data_replication.sources.postgresql.sql import key_text, select
from starbase_data_replication.sources.protocols import ReadPlan

# For a table to which a row-level security policy applies.
POLICED = "SET LOCAL row_security = on"
# The planner expects that all rows are read at once, and would sort the table or read it in parallel.
IN_KEY_ORDER = "SET LOCAL enable_sort = off; SET LOCAL max_parallel_workers_per_gather = 0"


def policy_sql(schema: TableSchema) -> list[str]:
    """The statement that lets a policy filter this table, if one applies."""
    return [POLICED] if schema.policed else []


class Snapshot:
    """A connection inside a transaction whose snapshot is taken."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @contextlib.asynccontextmanager
    async def read(self, plan: ReadPlan) -> AsyncIterator[AsyncIterator[Batch]]:
        doing = f"reading {plan.schema.table}"
        width = len(plan.schema.columns) + plan.left_filter
        code = SourceCode(self._connection, plan.schema, doing)
        await code.begin(*policy_sql(plan.schema), *([IN_KEY_ORDER] if plan.in_key_order else []))
        sql = select(plan)
        if plan.schema.where is not None:
            # COPY goes by the simple protocol, in which a text may be several statements.
            with translate_errors(doing, rows=True):
                await self._connection.prove_single(sql)
        async with RowStream.open(self._connection, sql, plan.schema.columns, width=width) as stream:
            yield _batches(stream, plan, doing, code)


async def _batches(stream: RowStream, plan: ReadPlan, doing: str, code: SourceCode) -> AsyncIterator[Batch]:
    columns = plan.schema.columns
    places = {column.name: at for at, column in enumerate(columns)}
    positions = [places[name] for name in plan.schema.key]
    resumable = plan.in_key_order and all(column.cast.resumable for column in plan.schema.key_columns)
    while not stream.ended:
        with translate_errors(doing, rows=True):
            taken, size = await stream.take(plan.batch_rows, plan.batch_bytes)
        if stream.ended:
            await code.check()
        last_key = _position(taken[-1], positions, columns) if taken and resumable else None
        unrepresentable, stream.unrepresentable = stream.unrepresentable, Counter()
        rows = fitting(taken, size, columns, unrepresentable)
        yield Batch(rows=rows, bytes=size, last_key=last_key, last=stream.ended, unrepresentable=unrepresentable)
        # Not kept while the next ones come in.
        del taken, rows


def _position(row: Row, positions: Sequence[int], columns: Sequence[Column]) -> tuple[str, ...] | None:
    """The key of a row as text; None if it contains bytes instead of a text, so that a load cannot resume after it."""
    if any(isinstance(row[each], bytes) and columns[each].cast.declared == "TEXT" for each in positions):
        return None
    return tuple(key_text(row[each]) for each in positions)
