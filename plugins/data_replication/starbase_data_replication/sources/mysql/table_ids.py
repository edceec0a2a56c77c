"""The numbers that InnoDB gives its tables: a table gets another when it is emptied, made again or replaced.

CREATE_TIME does not change with TRUNCATE on MariaDB, counts in seconds, and is unknown of a view. PROCESS is needed.
"""

from __future__ import annotations

from collections.abc import Mapping

from pymysql.constants import ER
from pymysql.err import Error

from starbase_data_replication.model import TableName
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.mysql.grounds import file_name, tables_below


async def table_ids(connection: Connection, table: TableName, *, view: bool) -> Mapping[str, str]:
    """By InnoDB's name of it, of the table and its partitions, or of those below a view; empty where they may not be
    seen."""
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
