"""Statements in PostgreSQL's SQL, and the names, keys and positions in them. Must not know a connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starbase_data_replication.model import Column, Options, TableName, TableSchema, text_or_bytes
from starbase_data_replication.sources.conditions import filter_expression, leaves_out_nulls, plan_conditions
from starbase_data_replication.sources.expressions import Syntax
from starbase_data_replication.sources.postgresql.types import (
    CLOCKS,
    COUNTING,
    LOCAL_CLOCK,
    OWN_TEXT,
    PASSING,
    UNBOUNDED,
    clock_unit,
)
from starbase_data_replication.sources.protocols import AHEAD_SECONDS, MAX_AHEAD, MAX_NEWEST, MAX_SHARED, Key, ReadPlan
from starbase_data_replication.sources.rounding import below_a_shown_number, below_a_shown_time

SERVER_ZONE = "SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'TimeZone'"

AS_BYTES = "pg_catalog.convert_to({}, 'SQL_ASCII')"
# A key's text after a t, or after an x the bytes of a value that has no Unicode text.
_KEY = AS_BYTES.format("pg_catalog.substr({0}, 2)")
_BYTES = "pg_catalog.decode(pg_catalog.substr({0}, 2), 'hex')"
KEY_BYTES = f"CASE pg_catalog.left({{0}}, 1) WHEN 'x' THEN {_BYTES} ELSE {_KEY} END"

# Turns a value into SQL: a literal, or a parameter to which the value is bound.
Bind = Callable[[str | Sequence[str]], str]


def quoted(name: str) -> str:
    """An identifier as PostgreSQL's SQL."""
    return '"' + name.replace('"', '""') + '"'


def table_sql(table: TableName) -> str:
    return f"{quoted(table.schema or 'public')}.{quoted(table.name)}"


def selected(column: Column) -> str:
    """The expression for what the replica stores."""
    return column.cast.select.replace("{}", f"t.{quoted(column.name)}")


def sent(expression: str, column: Column) -> str:
    """The same as it is sent: text that may be invalid is sent as its bytes, which the server does not check."""
    return AS_BYTES.format(expression) if column.cast.unrepresentable is bytes else expression


def copied(column: Column) -> str:
    """The expression whose values COPY writes as the replica stores them.

    If `::text` is the type's output, COPY makes it anyway; doing it twice costs the server a twentieth of its time.
    """
    if column.cast.convert is text_or_bytes:
        return sent(selected(column), column)
    # In an encoding with gaps, COPY sends the bytes as they are: see rows.py.
    return f"t.{quoted(column.name)}" if column.tracking_kind in OWN_TEXT else selected(column)


def interval(seconds: float) -> str:
    return f"pg_catalog.make_interval(secs => {seconds:.6f})"


def operator(sign: str, *columns: Column) -> str:
    """An operator between these columns and values of their types.

    Without a schema, PostgreSQL prefers an operator of any schema of the search path that fits the types exactly, and
    `varchar`, for example, has none in pg_catalog. Types of extensions have their operators beside them.
    """
    return f"OPERATOR(pg_catalog.{sign})" if all(column.tracking_kind for column in columns) else sign


def key_text(value: Any) -> str:
    """A key's value, as the replica stores it, as the text that PostgreSQL reads."""
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)


def literal(value: str | Sequence[str]) -> str:
    """A text, or a list of texts, as PostgreSQL's SQL, where backslashes have no meaning (see SETTINGS)."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"ARRAY[{', '.join(map(literal, value))}]"


def among(schema: TableSchema, keys: Sequence[Key], bind: Bind) -> str:
    """The condition that a row's key is one of these."""
    left, right, names, lists, compared = [], [], [], [], []
    for position, column in enumerate(schema.key_columns):
        names.append(f"k{position}")
        values = [key[position] for key in keys]
        if column.cast.declared == "TEXT" and any(isinstance(value, bytes) for value in values):
            marked = [f"x{value.hex()}" if isinstance(value, bytes) else f"t{value}" for value in values]
            lists.append(f"{bind(marked)}::text[]")
            left.append(AS_BYTES.format(selected(column)))
            right.append(KEY_BYTES.format(f"k{position}"))
            continue
        lists.append(f"{bind([*map(key_text, values)])}::text[]")
        # If the replica's text cannot be read back as the value, the text is compared, without an index.
        readable = column.cast.resumable
        left.append(f"t.{quoted(column.name)}" if readable else selected(column))
        right.append(f"k{position}::{column.compare_type}" if readable else f"k{position}")
        compared += [column] if readable else []
    # unnest of several lists has no schema: it is short for this.
    unnested = ", ".join(f"pg_catalog.unnest({each})" for each in lists)
    listed = f"ROWS FROM ({unnested}) AS k ({', '.join(names)})"
    return f"({', '.join(left)}) {operator('=', *compared)} ANY (SELECT {', '.join(right)} FROM {listed})"


# Part of the error with which a statement ends if a table is in another file than when it was looked up.
REWRITTEN = "a table has been rewritten"


def oid_of(table: str) -> int:
    """The oid of a table in `schema.files`, where the rows of pg_inherits follow it: see protection_facts.sql."""
    return int(table.partition("@")[0])


def same_files(schema: TableSchema) -> list[str]:
    """The condition that the table is in the same files as when it was looked up; if not, the statement fails.

    A table that is rewritten (TRUNCATE, ALTER TABLE of a type, a new materialized view) looks empty to a snapshot that
    was opened before: https://www.postgresql.org/docs/current/mvcc-caveats.html. The condition is evaluated once for a
    statement, after the table is locked, and pg_relation_filenode ignores the snapshot.
    """
    if not schema.files:
        return []
    files = ", ".join(f"({oid_of(table)}::oid, {literal(file)})" for table, file in schema.files.items())
    # It needs a value from the execution, so that the planner cannot raise the error first.
    error = f"({literal(REWRITTEN)} || ': ' || count(*)::text)::bool"
    return [
        f"(SELECT CASE WHEN count(*) = 0 THEN true ELSE {error} END FROM (VALUES {files}) AS f (relation, file) "
        "WHERE pg_catalog.pg_relation_filenode(f.relation)::text IS DISTINCT FROM f.file)"
    ]


def high_watermark_sql(
    schema: TableSchema, options: Options, *, reached: str | None, floor: str | None
) -> tuple[str, list[str]]:
    """The statement that reads the high watermark, and the values of its parameters.

    Its columns: how many rows are ahead of the clock; how many have the floor's value; the source's clock (see
    `settled`); the highest tracking value; whether it is below `reached`; for a time, that value minus the lookback, if
    open transactions are known and if they are not. A time must be below the source's clock: PostgreSQL reads the clock
    for now() a moment before the transaction is visible, and another row may still get the current value.
    """
    column = schema.tracking
    name, below_sign = f"t.{quoted(column.name)}", operator("<", column)
    settled_only, lookback, ahead, edge = "", "NULL::text, NULL::text", "0", "NULL::text"
    table = f"{table_sql(schema.table)} AS t"
    values: list[str] = []
    if column.tracking_kind in CLOCKS:
        clock, values = _clock(column, options, settle_seconds=options.settle_seconds)
        settled_only, edge = f" AND {name} {below_sign} {clock}", f"({clock})::text"
        later, _ = _clock(column, options, settle_seconds=-AHEAD_SECONDS)
        over = f"{name} {operator('>', column)} {later}"
        ahead = f"(SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {over} LIMIT {MAX_AHEAD}) AS ahead)"
        lookback = ", ".join(
            f"({name} - {interval(options.lookback(known=known))})::{column.compare_type}::text"
            for known in (True, False)
        )
    elif column.tracking_kind in UNBOUNDED:
        # NaN is above all numbers: as a floor it would hide every later row. It is read at each sync instead.
        settled_only = f" AND {name} {below_sign} 'Infinity'::{column.tracking_kind}"
    if _may_count_a_clock(schema):
        edge = "extract(epoch FROM pg_catalog.statement_timestamp())::text"
    below = "false" if reached is None else f"{name} {below_sign} {literal(reached)}::text::{column.compare_type}"
    highest = (
        f"SELECT {name}::{column.compare_type}::text, {below}, {lookback} FROM {table} "
        f"WHERE {name} IS NOT NULL{settled_only} ORDER BY {name} DESC LIMIT 1"
    )
    shared = "0"
    if floor is not None and schema.comes_again and column.tracking_kind not in (*CLOCKS, *PASSING):
        same = f"{name} {operator('=', column)} {literal(floor)}::text::{column.compare_type}"
        shared = f"(SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {same} LIMIT {MAX_SHARED + 1}) AS shared)"
    sql = (
        f"SELECT {ahead}, {shared}, {edge}, highest.* FROM (VALUES (1)) AS one LEFT JOIN ({highest}) AS highest ON true"
    )
    return sql, values


def settled(schema: TableSchema, options: Options, value: str, edge: str | None) -> str:
    """The value that may become the floor: the highest one, or the one just below if more rows may get the highest."""
    column = schema.tracking
    if edge is None:
        return value
    if column.tracking_kind in CLOCKS:
        return below_a_shown_time(value, edge, digits=column.time_digits, dates=column.tracking_kind == "date")
    return below_a_shown_number(value, edge, settle_seconds=options.settle_seconds)


def _may_count_a_clock(schema: TableSchema) -> bool:
    """Whether the tracking column may hold a time as a number; a number that no two rows share is not a time."""
    return schema.tracking.tracking_kind in COUNTING and schema.comes_again


def _clock(column: Column, options: Options, *, settle_seconds: float) -> tuple[str, list[str]]:
    """The source's clock, so many seconds ago, as SQL of the column's type; and the values of its parameters."""
    zone, values = f"({SERVER_ZONE})", list[str]()
    if options.tracking_time_zone is not None and column.tracking_kind != "timestamptz":
        # In an offset as text, the sign is POSIX's, the opposite of ISO 8601; as an interval it is that of ISO 8601.
        kind = "interval" if options.tracking_time_zone[0] in "+-" else "text"
        zone, values = f"$1::text::{kind}", [options.tracking_time_zone]
    # statement_timestamp() is stable, so that an index serves; clock_timestamp() is not.
    now = f"(pg_catalog.statement_timestamp() - {interval(settle_seconds)})"
    local = LOCAL_CLOCK.format(now=now, zone=zone)
    return CLOCKS[column.tracking_kind].format(now=now, local=local, unit=clock_unit(column.time_digits)), values


def select(plan: ReadPlan) -> str:
    """The SELECT of a plan. Columns are qualified and have no alias, so that ORDER BY means the column.

    COPY takes no parameters, so values are literals.
    """
    schema = plan.schema
    tracking = f"t.{quoted(schema.tracking_column)}"
    syntax = Syntax.POSTGRESQL
    left_filter = filter_expression(plan, tracking=tracking, syntax=syntax)
    in_filter = [] if left_filter is None else ["f.in_filter" if leaves_out_nulls(plan) else left_filter]
    sql = f"SELECT {', '.join((*map(copied, schema.columns), *in_filter))} FROM {table_sql(schema.table)} AS t"
    if leaves_out_nulls(plan):
        # Inside it, column names mean the same as outside, and its only name does not hide one of them.
        sql += f" CROSS JOIN LATERAL (SELECT {left_filter}) AS f (in_filter)"

    def above(floor: str) -> str:
        sign = operator(">=" if plan.from_floor else ">", schema.tracking)
        return f"{tracking} {sign} {literal(floor)}::text::{schema.tracking.compare_type}"

    conditions = [*same_files(schema), *plan_conditions(plan, tracking=tracking, above=above, syntax=syntax)]
    if leaves_out_nulls(plan):
        conditions.append("f.in_filter IS NOT NULL")
    if plan.after_key is not None:
        left = ", ".join(f"t.{quoted(name)}" for name in schema.key)
        key = zip(schema.key_columns, plan.after_key, strict=True)
        right = ", ".join(f"{literal(value)}::text::{column.compare_type}" for column, value in key)
        conditions.append(f"({left}) {operator('>', *schema.key_columns)} ({right})")
    if plan.keys is not None:
        conditions.append(among(schema, plan.keys, literal))
    if plan.newest_through is not None:
        through = f"{literal(plan.newest_through)}::text::{schema.tracking.compare_type}"
        conditions.append(f"{tracking} {operator('<=', schema.tracking)} {through}")
    if conditions:
        sql += " WHERE " + " AND ".join(conditions)
    if plan.newest_through is not None and plan.keys is None:
        sql += f" ORDER BY {tracking} DESC LIMIT {MAX_NEWEST}"
    if plan.in_key_order:
        sql += " ORDER BY " + ", ".join(f"t.{quoted(name)}" for name in schema.key)
    return sql
