"""A table's description: from the rows of PostgreSQL's catalogue to a TableSchema."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from starbase_data_replication.errors import SourceRejected, TableMissing
from starbase_data_replication.model import Column, TableName, TableSchema
from starbase_data_replication.sources.origins import random_function
from starbase_data_replication.sources.postgresql.connection import STATEMENT_TIMEOUT_SECONDS
from starbase_data_replication.sources.postgresql.encodings import encoding_of
from starbase_data_replication.sources.postgresql.privileges import named
from starbase_data_replication.sources.postgresql.protection_facts import (
    PROTECTION_FACTS,
    find_protection_facts,
    numbered,
)
from starbase_data_replication.sources.postgresql.types import (
    CATALOG,
    OBJECTS,
    RISES,
    cast_for,
    in_bytes,
    in_encoding,
)
from starbase_data_replication.sources.protocols import NoTrackingColumn, ProtectionFacts

DESCRIBE = files(__package__).joinpath("describe.sql").read_text(encoding="utf-8")

# The same, with the identity of the server. Some servers do not let a role ask for it, and a statement that calls a
# forbidden function fails as a whole.
DESCRIBE_WITH_SERVER = DESCRIBE.replace(
    "NULL::text AS server", f"{files(__package__).joinpath('server.sql').read_text(encoding='utf-8')} AS server"
)

SEQUENCES = files(__package__).joinpath("sequences.sql").read_text(encoding="utf-8")
HIDDEN = files(__package__).joinpath("hidden.sql").read_text(encoding="utf-8")

# Whether a table, by its oid, has children by inheritance, and whether TimescaleDB's catalogue can be read.
CHILDREN = """
    SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_inherits h WHERE h.inhparent = $1::text::oid),
           EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = '_timescaledb_catalog' AND c.relname = 'hypertable'
                     AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                     AND pg_catalog.has_table_privilege(c.oid, 'SELECT'))
"""
HYPERTABLE = """
    SELECT EXISTS (SELECT 1 FROM _timescaledb_catalog.hypertable h WHERE h.schema_name = $1 AND h.table_name = $2)
"""

# What a role must be allowed to read in the catalogue.
ASKED = named(DESCRIBE, SEQUENCES, PROTECTION_FACTS, HIDDEN, CHILDREN)

# By pg_class.relkind.
KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}


async def describe(connection: Any, table: TableName, tracking_column: str) -> TableSchema:
    """Raises TableMissing, NoTrackingColumn, or SourceRejected for a table that cannot be read."""
    values = (table.schema, table.name, tracking_column)
    sql = DESCRIBE_WITH_SERVER if connection.tells_server else DESCRIBE
    rows = await connection.fetch_known(sql, *values)
    encoding = connection.get_settings().server_encoding
    if not rows:
        raise TableMissing(f"the source has no table or view {table} that this user can see")
    if rows[0]["relpersistence"] == "t":
        raise SourceRejected(f"{table} is a temporary table: only the session that made it can read it")
    columns = tuple(_column(row, encoding) for row in rows)
    names = [column.name for column in columns]
    tracked = tracking_column if tracking_column in names else names[0]
    key = sorted((row["key_position"], row["name"]) for row in rows if row["key_position"] is not None)
    of_parent = rows[0]["may_have_children"] and await _inherited(connection, table, rows[0]["relation"])
    estimate = rows[0]["reltuples"]
    file = rows[0]["file"]
    facts = ProtectionFacts(files={} if file is None else {rows[0]["relation"]: file})
    tracking, row = next(pair for pair in zip(columns, rows, strict=True) if pair[0].name == tracked)
    suspicious = triggered = False
    if row["may_be_sequence"] and not row["may_be_unprotected"]:
        ((suspicious, triggered),) = await connection.fetch_known(SEQUENCES, row["relation"], row["number"])
    unassigned = row["value_default"] is None and not row["assigned"] and not triggered
    if row["may_be_unprotected"] or suspicious or (triggered and numbered(tracking.tracking_kind)):
        facts = await find_protection_facts(connection, table, tracked, tracking.tracking_kind)
        unassigned = facts.unassigned
    found = None
    if rows[0]["may_hide"]:
        (found,) = await connection.fetch_known(HIDDEN, rows[0]["relation"])
    schema = TableSchema(
        table=table,
        columns=columns,
        key=() if of_parent else tuple(name for _, name in key),
        parent_key=tuple(name for _, name in key) if of_parent else (),
        tracking_column=tracked,
        estimated_rows=int(estimate) if estimate >= 0 else None,
        unprotected=facts.unprotected,
        unfollowable=facts.unfollowable,
        warnings=facts.warnings,
        caveats=facts.caveats,
        unassigned=unassigned,
        random_default=facts.random_default
        or next(
            (
                each
                for row, column in zip(rows, columns, strict=True)
                if (each := random_function(row["value_default"], column.rises))
            ),
            None,
        ),
        hidden=_hidden(found) if found is not None else None,
        policed=found is not None and found["policed"],
        kind=KINDS[rows[0]["relkind"]],
        incarnation=rows[0]["relation"],
        files=dict(facts.files),
        definition=facts.definition,
        server=rows[0]["server"] or "",
    )
    if tracked != tracking_column:
        raise NoTrackingColumn(schema, tracking_column)
    return schema


async def _inherited(connection: Any, table: TableName, oid: str) -> bool:
    """Whether the key does not cover rows that are read with the table: those of its children by inheritance. The key
    of a hypertable covers its chunks."""
    ((children, hypertables),) = await connection.fetch_known(CHILDREN, oid)
    if children and hypertables:
        chunks = await connection.fetchval(HYPERTABLE, table.schema, table.name, timeout=STATEMENT_TIMEOUT_SECONDS)
        return not chunks
    return bool(children)


def _hidden(row: Any) -> str | None:
    """What hides rows from this role, and the fix."""
    if row["hidden"] is not None:
        return (
            f"row level security of {row['hidden']} applies to {row['reader']}, and may hide rows: give the role "
            "BYPASSRLS, or a policy FOR SELECT that is true for every row"
        )
    if row["asking"] is not None:
        return f"the view {row['asking']} asks who reads it, and may hide rows from {row['reader']}: read its tables"
    return None


def _column(row: Any, encoding: str) -> Column:
    """encoding: PostgreSQL's name of the database's encoding."""
    element = None
    if row["element_kind"] is not None:
        element = (row["element_schema"], row["element_name"], row["element_kind"])
    # The server of a foreign table may ignore what the table declares.
    declared = row["numeric_precision"] is not None and row["relkind"] != "f"
    digits = (row["numeric_precision"], row["numeric_scale"]) if declared else None
    cast = cast_for(
        schema=row["base_schema"], name=row["base_name"], kind=row["base_kind"], element=element, digits=digits
    )
    gaps = encoding_of(encoding)
    if encoding == "SQL_ASCII":
        cast = in_bytes(cast)
    elif gaps is not None:
        cast = in_encoding(cast, gaps.decoded)
    kind = row["base_name"] if row["base_schema"] == CATALOG else ""
    return Column(
        name=row["name"],
        source_type=row["source_type"],
        nullable=not row["not_null"],
        cast=cast,
        # Only for types of pg_catalog: a user's type may have the same name.
        tracking_kind=kind,
        compare_type="oid" if kind in OBJECTS else row["base_type"],
        time_digits=row["time_digits"],
        collation=row["collation"] or "",
        number=str(row["number"]),
        rises=RISES.get(kind, "text" if row["base_name"] == "citext" else "none"),
        indexed=row["indexed"],
        assigned=row["assigned"],
        readable=row["readable"],
    )
