"""What keeps transactions from protecting a table of MySQL or MariaDB: its engine, a sequence, an expression.

Only InnoDB lists open transactions, so the table's rows must be InnoDB's; views.py answers for views. Must not know how
a floor rises.
"""

from __future__ import annotations

import re
from typing import Any

from pymysql.constants import ER
from pymysql.err import Error

from starbase_data_replication.model import TableName
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.mysql.sql import table_sql
from starbase_data_replication.sources.mysql.view_text import QUOTED_NAME, off_loop, plain
from starbase_data_replication.sources.mysql.views import (
    ENGINE,
    INTEGERS,
    TABLES,
    other_kind_reason,
    view_protection_facts,
    with_computed,
)
from starbase_data_replication.sources.protocols import ProtectionFacts

STEPS = (
    "the sequence {name} steps by {increment}: an object mapper may take that many ids at once and use them "
    "later: step by 1, track a time, or raise lookbackSeconds"
)
POOLED = (
    "an object mapper may take the values of {column} from {pool}, a block at a time, and use them later: take one "
    "at a time, track a time, or raise lookbackSeconds"
)

# How a trigger's text asks a sequence, and the sequence's name.
_NAME = rf"(?:{QUOTED_NAME}|[\w$]++)"
ASKED = re.compile(rf"\b(?:nextval\s*\(|next\s+value\s+for\b)\s*({_NAME}(?:\s*\.\s*{_NAME})?)", re.IGNORECASE)
UNTRACED = "where {column} gets its values cannot be traced"
# In characters. Longer texts are not searched: that takes long.
LONGEST_TRIGGERS = 1024 * 1024


async def find_protection_facts(
    connection: Connection,
    table: TableName,
    *,
    kind: str,
    engine: str | None,
    default: str | None,
    pooled: bool,
    generated: bool,
    triggers: str | None,
    tracking: Any,
) -> ProtectionFacts:
    """kind, engine: the table's, as the catalogue has them. default: of its tracking column. generated: whether that is
    made by an expression. pooled: whether nothing gives that its values, and something is called as what an object
    mapper takes them from. triggers: the texts of its triggers that may ask a sequence."""
    found = await _find_plain_facts(
        connection,
        table,
        kind=kind,
        engine=engine,
        default=default,
        pooled=pooled,
        triggers=triggers,
        tracking=tracking,
    )
    return with_computed(found, table, tracking.name, f"{table}.{tracking.name}") if generated else found


async def _find_plain_facts(
    connection: Connection,
    table: TableName,
    *,
    kind: str,
    engine: str | None,
    default: str | None,
    pooled: bool,
    triggers: str | None,
    tracking: Any,
) -> ProtectionFacts:
    if kind in TABLES:
        if engine != "InnoDB":
            return ProtectionFacts(
                unprotected=ENGINE.format(name="the table", engine=engine or "an engine that is missing")
            )
        if default is not None and "nextval(" in default:
            found = re.search(r"nextval\((`(?:[^`]|``)*`(?:\.`(?:[^`]|``)*`)?)\)", default)
            if found is None:
                return ProtectionFacts(unprotected=UNTRACED.format(column=tracking.name))
            return await _sequence_facts(connection, table, tracking.name, found[1])
        if triggers is not None and tracking.tracking_kind in INTEGERS:
            texts = triggers[: LONGEST_TRIGGERS + 1]
            if len(texts) > LONGEST_TRIGGERS or await off_loop(len(texts), _mentions, texts, tracking.name):
                return await _trigger_facts(connection, table, tracking.name, texts)
        if pooled and tracking.tracking_kind in INTEGERS:
            return ProtectionFacts(unprotected=POOLED.format(column=tracking.name, pool=f"{table.name}_seq"))
        return ProtectionFacts()
    if kind == "VIEW":
        return await view_protection_facts(connection, table, tracking)
    return ProtectionFacts(unprotected=other_kind_reason(kind, str(table)))


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text, re.IGNORECASE) is not None


async def _trigger_facts(connection: Connection, table: TableName, column: str, texts: str) -> ProtectionFacts:
    """A trigger that names the column may give it the value of any sequence that it asks."""
    if len(texts) > LONGEST_TRIGGERS:
        return ProtectionFacts(unprotected=UNTRACED.format(column=f"a trigger of {table} that sets {column}"))
    names: dict[str, None] = {}
    for asked in await off_loop(len(texts), ASKED.findall, texts):
        parts = [plain(part) for part in re.findall(_NAME, asked)]
        names[table_sql(TableName(schema=(table.schema if len(parts) == 1 else parts[0]), name=parts[-1]))] = None
    if len(names) != 1:
        return ProtectionFacts(unprotected=UNTRACED.format(column=f"a trigger of {table} that sets {column}"))
    (name,) = names
    try:
        return await _sequence_facts(connection, table, column, name)
    except Error as error:
        if error.args[0] not in (ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR, ER.NO_SUCH_TABLE):
            raise
    return ProtectionFacts(
        unprotected=f"the sequence {name} of {column} is not shown to this user: GRANT SELECT ON {name} to it"
    )


async def _sequence_facts(connection: Connection, table: TableName, column: str, name: str) -> ProtectionFacts:
    """MariaDB keeps the values that a sequence has cached for all sessions: they are given out in their order."""
    rows = await connection.fetch(f"SELECT CAST(increment AS CHAR), CAST(cycle_option AS CHAR) FROM {name}")
    ((increment, cycles),) = rows
    if int(increment) < 0:
        return ProtectionFacts(
            unfollowable=f"the sequence {name} of {table}.{column} counts down: new rows come below those read"
        )
    if int(increment) > 1:
        return ProtectionFacts(unprotected=STEPS.format(name=name, increment=increment))
    if cycles == "1":
        return ProtectionFacts(
            unprotected=f"the sequence {name} of {column} may start again below the values read: make it NOCYCLE"
        )
    return ProtectionFacts()
