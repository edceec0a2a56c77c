"""A table's description: from the rows of MySQL's catalogue to a TableSchema."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

from pymysql.constants import ER
from pymysql.err import Error

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.model import Column, TableName, TableSchema
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.mysql.missing_tables import missing_table_error
from starbase_data_replication.sources.mysql.protection_facts import find_protection_facts
from starbase_data_replication.sources.mysql.table_ids import partitions
from starbase_data_replication.sources.mysql.types import RISES, SENT_WHOLE, cast_for
from starbase_data_replication.sources.mysql.views import INTEGERS, TABLES, is_generated
from starbase_data_replication.sources.origins import random_function
from starbase_data_replication.sources.protocols import NoTrackingColumn

DESCRIBE = files(__package__).joinpath("describe.sql").read_text(encoding="utf-8")
# What TRUNCATE changes. MySQL's data dictionary finds it by its name; MariaDB would read the whole of InnoDB's. It
# takes PROCESS, and the table must have a file to itself, which is the default.
SPACE = """(SELECT b.SPACE FROM information_schema.INNODB_TABLESPACES_BRIEF b
        WHERE b.NAME = IF(@@GLOBAL.lower_case_table_names = 0, CONCAT(%s, '/', %s), LOWER(CONCAT(%s, '/', %s)))
        LIMIT 1)"""
DESCRIBE_OF_MYSQL = DESCRIBE.replace("{space}", SPACE)
DESCRIBE_WITHOUT_SPACE = DESCRIBE.replace("{space}", "NULL")
# MariaDB gives its servers no uuid that each of its versions shows.
DESCRIBE_OF_MARIADB = DESCRIBE_WITHOUT_SPACE.replace(
    "@@GLOBAL.server_uuid", "CONCAT_WS(':', @@GLOBAL.hostname, @@GLOBAL.port, @@GLOBAL.server_id)"
)
# A user without the TRIGGER privilege sees no trigger here either.
VALUE_TRIGGERS = """SELECT COUNT(*) FROM information_schema.TRIGGERS g
    WHERE g.EVENT_OBJECT_SCHEMA = %s AND g.EVENT_OBJECT_TABLE = %s AND g.ACTION_TIMING = 'BEFORE'"""
# How long that answer is kept: it only decides a word of the status, so a statement at each sync would be wasted.
VALUE_TRIGGERS_SECONDS = 600.0
KEYS = files(__package__).joinpath("keys.sql").read_text(encoding="utf-8")
# With them, as indexes without a name, the texts of triggers that may take a value from a sequence, which MySQL does
# not have. Who lacks the TRIGGER privilege is shown none. Only a number may come from a sequence.
KEYS_AND_TRIGGERS = f"""{KEYS}UNION ALL
SELECT NULL, '', 0, g.ACTION_STATEMENT, NULL, '', NULL FROM information_schema.TRIGGERS g
WHERE g.EVENT_OBJECT_SCHEMA = %s AND g.EVENT_OBJECT_TABLE = %s AND g.ACTION_TIMING = 'BEFORE'
  AND (g.ACTION_STATEMENT LIKE '%%nextval%%' OR g.ACTION_STATEMENT LIKE '%%next%%value%%')
"""
# Whether there is a table, or a sequence, that an object mapper may take blocks of ids from.
POOLS = "SELECT COUNT(*) FROM information_schema.TABLES p WHERE p.TABLE_SCHEMA = %s AND p.TABLE_NAME = %s"

# What stamps the rows of a system-versioned table: the server's own clock.
VERSIONED = ("ROW START", "ROW END")

AUTO = re.compile(r" AUTO_INCREMENT\b")
NEXT = re.compile(r" AUTO_INCREMENT=([0-9]+)")


class _ColumnRow(NamedTuple):
    table_schema: str
    table_name: str
    table_type: str
    table_rows: str | None
    engine: str | None
    created: str | None
    create_options: str | None
    position: str
    name: str
    base: str
    column_type: str
    nullable: str
    digits: str | None
    bits: str | None
    charset: str | None
    collation: str | None
    in_index: str
    extra: str
    expression: str | None
    value_default: str | None
    space: str | None
    folding: str
    server: str | None


class _KeyRow(NamedTuple):
    index_name: str | None
    sorting: str
    position: str
    name: str | None
    prefix: str | None
    nullable: str
    direction: str | None


async def describe(connection: Connection, table: TableName, tracking_column: str) -> TableSchema:
    """Raises TableMissing, NoTrackingColumn, or SourceRejected for a table that cannot be read."""
    names = (table.schema or "", table.name)
    if connection.is_mariadb:
        answer = await connection.fetch(DESCRIBE_OF_MARIADB, (*names, *names))
    else:
        answer = await _of_mysql(connection, names)
    found = [_ColumnRow(*_texts(row)) for row in answer]
    rows = [row for row in found if _same(row, names)]
    rows.sort(key=lambda row: (row.table_schema, row.table_name, int(row.position)))
    if not rows:
        raise await missing_table_error(connection, table)
    if rows[0].table_type == "TEMPORARY":
        raise SourceRejected(f"{table} is a temporary table: only the session that made it can read it")
    mysql = None if connection.is_mariadb else connection.version
    columns = tuple(_column(row, mysql) for row in rows)
    found_it = tracking_column in (column.name for column in columns)
    tracked = tracking_column if found_it else columns[0].name
    tracking, row = next(pair for pair in zip(columns, rows, strict=True) if pair[0].name == tracked)
    number = tracking.tracking_kind in INTEGERS and row.table_type in TABLES and row.engine == "InnoDB"
    keys, triggers = await _keys(connection, (rows[0].table_schema, rows[0].table_name), number=number)
    facts = await find_protection_facts(
        connection,
        TableName(schema=row.table_schema, name=row.table_name),
        kind=row.table_type,
        engine=row.engine,
        default=row.value_default,
        pooled=number and await _pooled(connection, row, names),
        generated=is_generated(row.extra) and (row.expression or "").upper() not in VERSIONED,
        triggers=triggers,
        tracking=tracking,
    )
    key, falling = _key(keys, {column.name for column in columns})
    estimate = rows[0].table_rows
    if "partitioned" in (rows[0].create_options or ""):
        parted = await partitions(connection, TableName(schema=rows[0].table_schema, name=rows[0].table_name))
        facts = facts._replace(parts=parted.parts, warnings=(*facts.warnings, *parted.warnings))
    unassigned = facts.unprotected is None and _has_no_value(row) and not await _trigger_may_set(connection, row)
    schema = TableSchema(
        table=table,
        columns=columns,
        key=key,
        falling=falling,
        tracking_column=tracked,
        estimated_rows=None if estimate is None else int(estimate),
        unprotected=facts.unprotected,
        unfollowable=facts.unfollowable,
        hidden=facts.hidden,
        warnings=facts.warnings,
        caveats=facts.caveats,
        unassigned=unassigned,
        random_default=facts.random_default or random_function(row.value_default, tracking.rises),
        kind="view" if rows[0].table_type.endswith("VIEW") else "table",
        files=_files(table, rows[0]),
        parts=dict(facts.parts),
        definition=facts.definition,
        server=rows[0].server or "",
    )
    if not found_it:
        raise NoTrackingColumn(schema, tracking_column)
    return schema


async def _keys(connection: Connection, names: tuple[str, str], *, number: bool) -> tuple[list[_KeyRow], str | None]:
    """The parts of the unique indexes, in their order; and where the tracking column is a number, the texts of the
    triggers that may take it from a sequence."""
    if number and connection.is_mariadb:
        answer = await connection.fetch(KEYS_AND_TRIGGERS, (*names, *names))
    else:
        answer = await connection.fetch(KEYS, names)
    found = [_KeyRow(*_texts(row)) for row in answer]
    keys = [row for row in found if row.index_name is not None]
    keys.sort(key=lambda row: (row.index_name != "PRIMARY", row.sorting, row.index_name, int(row.position)))
    return keys, " ; ".join(row.name for row in found if row.index_name is None and row.name) or None


async def _pooled(connection: Connection, row: _ColumnRow, names: tuple[str, str]) -> bool:
    """Whether nothing gives a number its values, and something is called as what an object mapper takes them from."""
    if row.value_default is not None or "auto_increment" in row.extra.lower():
        return False
    ((count,),) = await connection.fetch(POOLS, (names[0], f"{names[1]}_seq"))
    return int(count) > 0


async def _of_mysql(connection: Connection, names: tuple[str, str]) -> list[tuple[Any, ...]]:
    """MySQL's answer; after the first refusal, without what this session may not see or the server does not have."""
    if not connection.sees_no_files:
        try:
            return await connection.fetch(DESCRIBE_OF_MYSQL, (*names, *names, *names, *names))
        except Error as error:
            if error.args[0] not in (ER.SPECIFIC_ACCESS_DENIED_ERROR, ER.UNKNOWN_TABLE, ER.NO_SUCH_TABLE):
                raise
            connection.sees_no_files = True
    return await connection.fetch(DESCRIBE_WITHOUT_SPACE, (*names, *names))


def _files(table: TableName, row: _ColumnRow) -> dict[str, str]:
    """What changes when a table is recreated or altered (a time in seconds), and when it is emptied."""
    files = {str(table): row.created, f"file of {table}": row.space}
    return {name: value for name, value in files.items() if value is not None}


def _has_no_value(row: _ColumnRow) -> bool:
    """Whether nothing sets a value for a table's column. MariaDB writes a missing default as NULL."""
    extra = row.extra.lower()
    given = row.value_default not in (None, "NULL") or "auto_increment" in extra or "on update" in extra
    return not (given or is_generated(row.extra) or row.table_type.endswith("VIEW"))


async def _trigger_may_set(connection: Connection, row: _ColumnRow) -> bool:
    """Whether a trigger of the table may set the column. A recent answer is used again."""
    names = (row.table_schema, row.table_name)
    asked_at, found = connection.value_triggers.get(names, (None, False))
    if asked_at is None or connection.loop.time() - asked_at > VALUE_TRIGGERS_SECONDS:
        ((count,),) = await connection.fetch(VALUE_TRIGGERS, names)
        found = int(count) > 0
        connection.value_triggers[names] = (connection.loop.time(), found)
    return found


def counter_passed(made: str, column: str, floor: str) -> bool | None:
    """Whether a column's AUTO_INCREMENT is above the floor, by the answer of SHOW CREATE TABLE; None if the column has
    none, or no value was assigned yet."""
    lines = made.splitlines()
    quoted = "`" + column.replace("`", "``") + "`"
    own = any(line.strip().startswith(f"{quoted} ") and AUTO.search(line.partition(" COMMENT ")[0]) for line in lines)
    following = NEXT.search(lines[-1].partition(" COMMENT=")[0])
    return int(following[1]) > int(floor) if own and following is not None else None


def _texts(row: Sequence[Any]) -> list[Any]:
    # Some columns of MySQL 8's catalogue come in a binary character set.
    return [value.decode() if isinstance(value, bytes) else value for value in row]


def _same(row: _ColumnRow, names: tuple[str, str]) -> bool:
    """Whether the server means this table by these names: the catalogue compares them more loosely than SQL does."""
    found = (row.table_schema, row.table_name)
    return found == names or (
        row.folding != "0" and [name.lower() for name in found] == [name.lower() for name in names]
    )


def _column(row: _ColumnRow, mysql: tuple[int, int, int] | None) -> Column:
    digits = None if row.digits is None else int(row.digits)
    bits = None if row.bits is None else int(row.bits)
    base = row.base.lower()
    counted = "auto_increment" in row.extra.lower()
    return Column(
        name=row.name,
        source_type=row.column_type,
        nullable=row.nullable == "YES",
        cast=cast_for(
            base, column_type=row.column_type.lower(), digits=digits, bits=bits, charset=row.charset, mysql=mysql
        ),
        tracking_kind=base,
        compare_type="" if row.charset is None else f"{row.charset} {row.collation}",
        time_digits=digits,
        collation=row.collation or "",
        # tinyint(1) is a BOOLEAN, but not if it is AUTO_INCREMENT.
        rises="none" if row.column_type.lower() == "tinyint(1)" and not counted else RISES.get(base, "none"),
        indexed=row.in_index != "",
        assigned=counted or "on update" in row.extra.lower(),
        # utf8mb4 needs no mark, and character sets that are not sent whole have different casts.
        charset=row.charset if row.charset in SENT_WHOLE and row.charset != "utf8mb4" else "",
    )


def _key(rows: Sequence[_KeyRow], columns: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of the primary key, else of the smallest unique index on whole columns without NULLs; and those of
    them that fall while others rise."""
    usable: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    for name, parts in ((name, list(parts)) for name, parts in groupby(rows, key=lambda row: row.index_name)):
        whole = all(part.name in columns and part.prefix is None and part.nullable != "YES" for part in parts)
        key = tuple(str(part.name) for part in parts)
        falling = tuple(str(part.name) for part in parts if part.direction == "D")
        # An index can be read from either end.
        found = (key, () if falling == key else falling)
        if whole and name == "PRIMARY":
            return found
        if whole:
            usable.append(found)
    return min(usable, key=lambda each: len(each[0]), default=((), ()))
