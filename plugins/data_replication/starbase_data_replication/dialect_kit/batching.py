"""Rows of any width, one after another, as the batches of a read."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from starbase_data_replication.dialect_kit.positions import key_texts
from starbase_data_replication.errors import CastFailed, OddAnswer
from starbase_data_replication.model import Batch, Column, Row, Rows, TableSchema, UnrepresentableValues, as_stored
from starbase_data_replication.sources import ReadPlan, convert, fitting

# What SQLite stores. A bool is a whole number to it, and to Python.
STORABLE = frozenset({int, float, str, bytes, type(None)})
STORABLE_HINT = (
    "values must be int, float, str, bytes, bool or None; give the column a Cast with `select`, so that the source "
    "makes one of these, or `convert`, a function of Python"
)
LARGEST = 2**63


def size_of(row: Row) -> int:
    """The approximate bytes of a row's values; eight for a number."""
    return sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)


async def batches(chunks: AsyncIterator[Sequence[Row]], plan: ReadPlan) -> AsyncIterator[Batch]:
    """Batches within the plan's limits, the last with `last`, and with `last_key` where a load can resume.

    chunks: the rows as the source sends them, some at a time. Casts are applied here.

    Raises OddAnswer for a row of another width than the plan's, CastFailed for a value that SQLite cannot store.
    """
    schema, width = plan.schema, len(plan.schema.columns) + plan.left_filter
    held: list[Row] = []
    size = 0
    async for chunk in chunks:
        for row in chunk:
            if len(row) != width:
                raise OddAnswer(f"reading {schema.table}: received a row that does not have {width} values")
            held.append(row)
            size += size_of(row)
            if len(held) >= plan.batch_rows or size >= plan.batch_bytes:
                yield _batch(held, size, plan, width)
                held, size = [], 0
    yield _batch(held, size, plan, width, last=True)


def _batch(held: Sequence[Row], size: int, plan: ReadPlan, width: int, *, last: bool = False) -> Batch:
    schema = plan.schema
    unrepresentable: Counter[UnrepresentableValues] = Counter()
    rows = storable(Rows.of([*map(tuple, held)], width), schema, unrepresentable)
    kept = fitting(rows, size, schema.columns, unrepresentable)
    resumable = plan.in_key_order and held and all(column.cast.resumable for column in schema.key_columns)
    last_key = key_reader(schema)(kept[-1]) if resumable and schema.key else None
    return Batch(
        rows=kept,
        bytes=size,
        last_key=None if last_key is None or None in last_key else key_texts(last_key),
        last=last,
        unrepresentable=unrepresentable,
    )


def key_reader(schema: TableSchema) -> Callable[[Row], tuple[Any, ...]]:
    """Return the function from a row to its key, as the replica stores it."""
    places = {column.name: at for at, column in enumerate(schema.columns)}
    key = [(column.cast, places[column.name]) for column in schema.key_columns]
    return lambda row: tuple(as_stored(cast, row[at]) for cast, at in key)


def storable(rows: Rows, schema: TableSchema, unrepresentable: Counter[UnrepresentableValues] | None = None) -> Rows:
    """The rows with the casts' `convert` applied, and integers beyond 64 bits as their digits.

    Raises CastFailed, which names the column, for a value that a cast or SQLite refuses.
    """
    for column in schema.columns:
        if column.cast.convert is not None:
            try:
                convert(rows, schema.columns, unrepresentable)
            except Exception as error:
                raise CastFailed(str(schema.table), _refused(rows, schema.columns), "its source type") from error
            break
    kinds = set(map(type, rows.values))
    if kinds <= STORABLE and (int not in kinds or _within(rows.values)) and (float not in kinds or _real(rows.values)):
        return rows
    for at, column in enumerate(schema.columns):
        rows.replace_column(at, [_storable(value, schema, column) for value in rows.column(at)])
    return rows


def _refused(rows: Rows, columns: Sequence[Column]) -> str:
    """The name of the first column whose cast fails."""
    for at, column in enumerate(columns):
        for value in rows.column(at):
            try:
                if column.cast.convert is not None and value is not None:
                    column.cast.convert(value)
            except Exception:
                return column.name
    return columns[0].name


def _within(values: Sequence[object]) -> bool:
    return all(-LARGEST <= value < LARGEST for value in values if type(value) is int)


def _real(values: Sequence[object]) -> bool:
    return all(value == value for value in values if type(value) is float)


def _storable(value: object, schema: TableSchema, column: Column) -> object:
    if isinstance(value, bool):
        return int(value)
    if type(value) is int and not -LARGEST <= value < LARGEST:
        return str(value)
    if value != value:
        # SQLite makes NULL of a NaN.
        return "NaN"
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if type(value) not in STORABLE:
        kind = f"{column.source_type} (Python: {type(value).__name__})"
        raise CastFailed(str(schema.table), column.name, kind, hint=STORABLE_HINT)
    return value
