"""The tables of the host's database: their names, columns, rows and tags.

Functions of an APSW connection. They change nothing.
"""

from __future__ import annotations

import re
from itertools import count
from typing import NamedTuple

import apsw

from starbase_data_replication.errors import SchemaMismatch
from starbase_host import fold_name, large_views, quote

# An index over no rows, whose name says which run has made the table. SQLite renames and drops it with the table, its
# name is unique, and copying the table's definition does not copy it.
TAG = "tmp_replication_made_by_"


# The tables in which SQLite's virtual tables keep their data: the ends of their names, after the virtual table's.
KEPT_IN = {
    **dict.fromkeys(("fts3", "fts4"), ("content", "docsize", "segdir", "segments", "stat")),
    "fts5": ("config", "content", "data", "docsize", "idx"),
    **dict.fromkeys(("geopoly", "rtree", "rtree_i32"), ("node", "parent", "rowid")),
}

KEEPS = "is where the virtual table {0} keeps its own data; choose another targetTable, or drop {0}"


def shadow_name(config_id: int) -> str:
    """The table that a replication loads into beside its target."""
    return f"tmp_replication_shadow_{config_id}"


def stage_name(config_id: int) -> str:
    """The table that holds what a group has read for a replica, until the whole group is committed."""
    return f"tmp_replication_stage_{config_id}"


def fitting_views(connection: apsw.Connection) -> dict[str, str]:
    """Views that can be read now, with their SQL; not those that are too large to be prepared."""
    large = large_views(connection)
    rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'view'").fetchall()
    views = {str(name): str(sql) for name, sql in rows}
    for name in list(views):
        if fold_name(name) in large:
            del views[name]
            continue
        try:
            # Prepared only: SQLite fills some views before it comes to a LIMIT, and one may never end.
            connection.execute(f"EXPLAIN SELECT 1 FROM {quote(name)}")
        except apsw.Error:
            del views[name]
    return views


def differences_name(config_id: int) -> str:
    """The table that holds the differences that a verification or a reconciliation has found."""
    return f"tmp_replication_differences_{config_id}"


def is_function(connection: apsw.Connection, name: str) -> bool:
    """Whether SQLite has a table-valued function of that name, such as json_each, and no table of that name exists.

    It looks like an existing table, but cannot be written.
    """
    sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_xinfo(?1)) AND NOT EXISTS "
    found = connection.execute(f"{sql}(SELECT 1 FROM sqlite_schema WHERE lower(name) = lower(?1))", (name,))
    return bool(found.get)


def kept_for(connection: apsw.Connection, name: str) -> str | None:
    """The virtual table that keeps, or would keep, its data in a table of that name; None if there is none.

    A source's rows there would damage it: SQLite then calls the whole virtual table malformed.
    """
    base, _, end = fold_name(name).rpartition("_")
    modules = [module for module, ends in KEPT_IN.items() if end in ends]
    if not modules:
        return None
    sql = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND rootpage = 0 AND lower(name) = ?"
    for table, definition in connection.execute(sql, (base,)):
        if re.search(rf"\bUSING\W+({'|'.join(modules)})\b", definition, re.IGNORECASE):
            return str(table)
    return None


def exists(connection: apsw.Connection, name: str) -> bool:
    """Whether a table of that name exists."""
    return columns_of(connection, name) is not None


def tag_of(connection: apsw.Connection, name: str) -> str | None:
    """What distinguishes a table from a later one of its name; None if it is not a replica."""
    sql = "SELECT name FROM sqlite_schema WHERE type = 'index' AND lower(tbl_name) = lower(?) AND name GLOB ? LIMIT 1"
    found: str | None = connection.execute(sql, (name, f"{TAG}*")).get
    return found


def free_tag(connection: apsw.Connection, run_id: str) -> str:
    """A new tag for a table that this run makes or takes over; the run may have used others."""
    sql = "SELECT name FROM sqlite_schema WHERE type = 'index' AND name GLOB ?"
    taken = {name for (name,) in connection.execute(sql, (f"{TAG}{run_id}*",))}
    return next(tag for number in count(1) if (tag := f"{TAG}{run_id}_{number}") not in taken)


def exists_with_rows(connection: apsw.Connection, name: str) -> bool:
    """Whether a table of that name exists and holds a row."""
    if not exists(connection, name):
        return False
    return bool(connection.execute(f"SELECT EXISTS (SELECT 1 FROM {quote(name)})").get)


def count_rows(connection: apsw.Connection, name: str) -> int | None:
    """How many rows a table holds; None if it does not exist."""
    if not exists(connection, name):
        return None
    return int(connection.execute(f"SELECT count(*) FROM {quote(name)}").get)


class ExistingColumn(NamedTuple):
    """A column of a table that exists.

    Attributes:
        declared: its declared type.
        key_position: its place in the key, from 1 on; 0 if it is not part of the key.
        computed: whether the table computes its values.
    """

    declared: str
    key_position: int
    computed: bool


def columns_of(connection: apsw.Connection, table: str) -> dict[str, ExistingColumn] | None:
    """The columns of a table, by name; None if it does not exist. Raises SchemaMismatch if it is not a table."""
    rows = list(connection.execute("SELECT name, type, pk, hidden IN (2, 3) FROM pragma_table_xinfo(?)", (table,)))
    sql = (
        "SELECT iif(sql LIKE 'CREATE VIRTUAL %', 'virtual table', type) FROM sqlite_schema WHERE lower(name) = lower(?)"
    )
    kind = connection.execute(sql, (table,)).get
    if kind is not None and kind != "table":
        raise SchemaMismatch(f"{table} is {'an' if kind == 'index' else 'a'} {kind}; choose another targetTable")
    if (owner := kept_for(connection, table)) is not None:
        raise SchemaMismatch(f"{table} {KEEPS.format(owner)}")
    return {
        name: ExistingColumn(declared, position, bool(computed)) for name, declared, position, computed in rows
    } or None


def affinity(declared: str) -> str:
    """SQLite's rules, https://www.sqlite.org/datatype3.html section 3.1."""
    upper = declared.upper()
    for affinity, marks in (("INTEGER", ("INT",)), ("TEXT", ("CHAR", "CLOB", "TEXT")), ("BLOB", ("BLOB",))):
        if any(mark in upper for mark in marks):
            return affinity
    if not upper:
        return "BLOB"
    return "REAL" if any(mark in upper for mark in ("REAL", "FLOA", "DOUB")) else "NUMERIC"
