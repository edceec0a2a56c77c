"""InnoDB's table ids: a table or partition gets another when it is emptied, recreated or replaced.

CREATE_TIME does not change with TRUNCATE on MariaDB, is in seconds, and a view has none. Table ids need PROCESS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pymysql.constants import ER
from pymysql.err import Error

from starbase_data_replication.model import TableName
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.mysql.views import tables_below
from starbase_data_replication.sources.protocols import ProtectionFacts

UNSEEN_PARTS = (
    "the partitions of {name} cannot be identified: rows that EXCHANGE PARTITION brings in at or below the floor "
    "are not read; GRANT PROCESS ON *.* to this user, or verify with repair after each exchange"
)


async def table_ids(connection: Connection, table: TableName, *, view: bool) -> Mapping[str, str]:
    """The ids of a table and its partitions, or of those below a view, by InnoDB's names; empty if this user may not
    see them."""
    place = (table.schema or "", table.name)
    places = await tables_below(connection, table) if view else [place]
    if not places:
        return {}
    catalogue = "INNODB_SYS_TABLES" if connection.is_mariadb else "INNODB_TABLES"
    names = [f"{file_name(schema)}/{file_name(name)}" for schema, name in places]
    values = [value for name in names for value in (name, str(len(name) + 3), f"{name}#P#")]
    wanted = " OR ".join("LOWER(NAME) = LOWER(%s) OR LOWER(LEFT(NAME, %s)) = LOWER(%s)" for _ in names)
    sql = f"SELECT NAME, CAST(TABLE_ID AS CHAR) FROM information_schema.{catalogue} WHERE {wanted}"
    try:
        rows = await connection.fetch(sql, values)
    except Error as error:
        if error.args[0] != ER.SPECIFIC_ACCESS_DENIED_ERROR:
            raise
        return {}
    return {f"InnoDB {name}": str(number) for name, number in rows}


async def partitions(connection: Connection, table: TableName) -> ProtectionFacts:
    """The ids of a table's partitions: each gets another when it is exchanged, emptied or rebuilt."""
    name = f"{file_name(table.schema or '')}/{file_name(table.name)}#P#"
    catalogue = "INNODB_SYS_TABLES" if connection.is_mariadb else "INNODB_TABLES"
    sql = (
        f"SELECT NAME, CAST(TABLE_ID AS CHAR) FROM information_schema.{catalogue} "
        "WHERE LOWER(LEFT(NAME, %s)) = LOWER(%s)"
    )
    try:
        rows = await connection.fetch(sql, (str(len(name)), name))
    except Error as error:
        if error.args[0] != ER.SPECIFIC_ACCESS_DENIED_ERROR:
            raise
        rows = []
    parts = {str(found)[len(name) :]: str(number) for found, number in rows}
    return ProtectionFacts(parts=parts) if parts else ProtectionFacts(warnings=(UNSEEN_PARTS.format(name=table),))


def file_name(name: str) -> str:
    """The name of a table's file. The server encodes letters beyond ASCII in another way, so these are not found."""
    return re.sub(r"[^0-9A-Za-z_]", lambda match: f"@{ord(match[0]):04x}", name)
