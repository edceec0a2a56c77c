"""Statements in MySQL's SQL, and the names, keys and positions in them. Must not know a connection.

Values are literals in forms that need no escaping: see types.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.model import Column, Options, TableName, TableSchema
from starbase_data_replication.sources.conditions import filter_expression, leaves_out_nulls, plan_conditions
from starbase_data_replication.sources.expressions import Syntax
from starbase_data_replication.sources.mysql.types import (
    BYTES_MARK,
    CLOCKS,
    COUNTING,
    EQUALITIES,
    ORDERS,
    Order,
    text_literal,
)
from starbase_data_replication.sources.protocols import MAX_AHEAD, MAX_NEWEST, MAX_SHARED, Key, ReadPlan
from starbase_data_replication.sources.rounding import below_a_shown_number, below_a_shown_time

# The first word of the last text in a load key whose key has descending columns; their numbers follow.
FALLING = "falling"


def quoted(name: str) -> str:
    """An identifier as MySQL's SQL."""
    return "`" + name.replace("`", "``") + "`"


def table_sql(table: TableName) -> str:
    return f"{quoted(table.schema)}.{quoted(table.name)}" if table.schema else quoted(table.name)


def column_sql(column: Column, template: str = "{}") -> str:
    """A template's expression over the column."""
    return template.replace("{}", f"t.{quoted(column.name)}")


def selected(column: Column) -> str:
    """The expression for what the replica stores."""
    return column_sql(column, column.cast.select)


def key_text(value: Any) -> str:
    """A key's value, as the replica stores it, as text."""
    return BYTES_MARK + value.hex() if isinstance(value, bytes) else str(value)


def order_of(table: TableName, column: Column) -> Order:
    """Raises SourceRejected for a tracking column whose values have no order."""
    if column.tracking_kind not in ORDERS:
        raise SourceRejected(
            f"{table}.{column.name} is of type {column.source_type}, which has no order; choose another trackingColumn"
        )
    return ORDERS[column.tracking_kind]


def compared(column: Column, operator: str, text: str) -> str:
    """The condition that a column's value is above, below or equal to the one with this text."""
    order = ORDERS[column.tracking_kind]
    return f"{column_sql(column, order.column)} {operator} {order.literal(text, column.compare_type)}"


def after(columns: Sequence[Column], key: Sequence[str], falling: Sequence[int] = ()) -> str:
    """The condition that a row's key comes after this one, column by column: MySQL uses no index for (a, b) > (x, y).

    falling: the numbers of the columns in descending order.
    """

    def from_column(number: int) -> str:
        column, text = columns[number], key[number]
        beyond = compared(column, "<" if number in falling else ">", text)
        if number + 1 == len(columns):
            return beyond
        return f"({beyond} OR ({compared(column, '=', text)} AND {from_column(number + 1)}))"

    return from_column(0)


def falling(plan: ReadPlan) -> list[int]:
    """The numbers of the key's columns that a read in key order reads in descending order.

    A load key keeps the order in which it was reached, also if the index changes; older releases read every table in
    ascending order.
    """
    schema = plan.schema
    if plan.after_key is None:
        return [number for number, name in enumerate(schema.key) if name in schema.falling]
    return [int(number) for mark in plan.after_key[len(schema.key) :] for number in mark.split()[1:]]


def load_key(plan: ReadPlan, key: Sequence[Any]) -> tuple[str, ...]:
    """A key as the load key behind which a read in key order can resume."""
    numbers = falling(plan)
    mark = (" ".join((FALLING, *map(str, numbers))),) if numbers else ()
    return (*map(key_text, key), *mark)


def among(schema: TableSchema, keys: Sequence[Key]) -> str:
    """The condition that a row's key is one of these."""
    columns = schema.key_columns
    written = [[_same(column, value) for column, value in zip(columns, key, strict=True)] for key in keys]
    if len(columns) == 1:
        return f"{column_sql(columns[0])} IN ({', '.join(value for (value,) in written)})"
    rows = (
        " AND ".join(f"{column_sql(column)} = {value}" for column, value in zip(columns, row, strict=True))
        for row in written
    )
    return f"({' OR '.join(f'({row})' for row in rows)})"


def high_watermark_sql(
    schema: TableSchema,
    *,
    unsettled_from: str | None,
    ahead_from: str | None,
    reached: str | None,
    floor: str | None,
) -> str:
    """The statement that reads the high watermark.

    Its columns: how many rows are above `ahead_from`; how many have the floor's value; the highest tracking value below
    `unsettled_from`, as text; whether that is below `reached`; for a number, the source's clock (see `settled`).
    Without `ahead_from` or `floor` the count is 0, without `unsettled_from` there is no bound, and without `reached` no
    value is below it.
    """
    column = schema.tracking
    order = order_of(schema.table, column)
    table = f"{table_sql(schema.table)} AS t"
    ahead_sql, below = "0", ""
    if unsettled_from is not None:
        below = f" AND {compared(column, '<', unsettled_from)}"
    if ahead_from is not None:
        rows = f"SELECT 1 FROM {table} WHERE {compared(column, '>', ahead_from)} LIMIT {MAX_AHEAD}"
        ahead_sql = f"(SELECT COUNT(*) FROM ({rows}) AS ahead)"
    back = "0" if reached is None else compared(column, "<", reached)
    highest = (
        f"SELECT {column_sql(column, order.value)} AS value, {back} AS back FROM {table} "
        f"WHERE {column_sql(column)} IS NOT NULL{below} ORDER BY {column_sql(column, order.column)} DESC LIMIT 1"
    )
    # A number that no two rows share is not a time.
    counting = column.tracking_kind in COUNTING and schema.comes_again
    clock = "UNIX_TIMESTAMP(NOW(6))" if counting else "NULL"
    shared = "0"
    if floor is not None and schema.comes_again and column.tracking_kind not in CLOCKS:
        rows = f"SELECT 1 FROM {table} WHERE {compared(column, '=', floor)} LIMIT {MAX_SHARED + 1}"
        shared = f"(SELECT COUNT(*) FROM ({rows}) AS shared)"
    answered = f"{ahead_sql}, {shared}, highest.value, highest.back, {clock}"
    return f"SELECT {answered} FROM (SELECT 1) AS one LEFT JOIN ({highest}) AS highest ON 1"


def settled(column: Column, options: Options, value: str, *, unsettled_from: str | None, now: str | None) -> str:
    """The value that may become the floor: the highest one, or the one just below if more rows may get the highest."""
    if now is not None:
        return below_a_shown_number(value, now, settle_seconds=options.settle_seconds)
    if unsettled_from is None or column.tracking_kind == "year":
        return value
    return below_a_shown_time(value, unsettled_from, digits=column.time_digits, dates=column.tracking_kind == "date")


def select(plan: ReadPlan, expressions: Sequence[str], syntax: Syntax = Syntax.MYSQL) -> str:
    """The SELECT of a plan. Columns are qualified and have no alias, so that ORDER BY means the column."""
    schema, tracking = plan.schema, column_sql(plan.schema.tracking)
    above = partial(compared, schema.tracking, ">=" if plan.from_floor else ">")
    conditions = plan_conditions(plan, tracking=tracking, above=above, syntax=syntax)
    if plan.after_key is not None:
        conditions.append(after(schema.key_columns, plan.after_key, falling(plan)))
    if plan.keys is not None:
        conditions.append(among(schema, plan.keys) if plan.keys else "FALSE")
    left_filter = filter_expression(plan, tracking=tracking, syntax=syntax)
    in_filter = quoted(_free_name(schema))
    if left_filter is not None:
        expressions = [*expressions, f"{left_filter} AS {in_filter}"]
    sql = f"SELECT {', '.join(expressions)} FROM {table_sql(schema.table)} AS t"
    if plan.newest_through is not None:
        conditions.append(compared(schema.tracking, "<=", plan.newest_through))
    if conditions:
        sql += f" WHERE {' AND '.join(conditions)}"
    if left_filter is not None and leaves_out_nulls(plan):
        # It tests the computed value, so that the filter is not evaluated twice.
        sql += f" HAVING {in_filter} IS NOT NULL"
    if plan.newest_through is not None and plan.keys is None:
        order = order_of(schema.table, schema.tracking)
        sql += f" ORDER BY {column_sql(schema.tracking, order.column)} DESC LIMIT {MAX_NEWEST}"
    if plan.in_key_order:
        down = falling(plan)
        parts = (
            f"{column_sql(column)}{' DESC' if number in down else ''}"
            for number, column in enumerate(schema.key_columns)
        )
        sql += f" ORDER BY {', '.join(parts)}"
    return sql


def _free_name(schema: TableSchema) -> str:
    """A name that is not the name of a column."""
    names = {column.name.lower() for column in (*schema.columns, *schema.left_out)}
    return next(name for number in count() if (name := f"in_filter_{number}") not in names)


def _same(column: Column, value: Any) -> str:
    if isinstance(value, bytes) and column.cast.declared == "TEXT":
        return text_literal(value, column.compare_type)
    return EQUALITIES[column.tracking_kind].literal(key_text(value), column.compare_type)
