"""Why the catalogue does not show a table, or some of its columns, by the error of a statement that reads it.

A dropped table, one that this user may not read, and a broken view look alike in the catalogue. Only if the table was
dropped is the replica's position useless.
"""

from __future__ import annotations

from pymysql.constants import ER
from pymysql.err import Error

from starbase_data_replication.errors import SourceChanged, SourceRejected, SyncError, TableMissing
from starbase_data_replication.model import TableName
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.mysql.sql import table_sql
from starbase_data_replication.sources.mysql.views import missing_below

BROKEN = 1356
DENIED = frozenset(
    {ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR, ER.ACCESS_DENIED_ERROR}
)
# The last three: a name that no table can have.
MISSING = frozenset({ER.NO_SUCH_TABLE, ER.BAD_DB_ERROR, ER.WRONG_TABLE_NAME, ER.WRONG_DB_NAME, ER.TOO_LONG_IDENT})


async def missing_table_error(connection: Connection, table: TableName) -> SyncError:
    """The error for a table that the catalogue does not show. Raises any other error of the server."""
    # It may be a view, whose functions the server may call while it plans the statement.
    connection.ran_code = True
    try:
        await connection.fetch(f"SELECT 1 FROM {table_sql(table)} LIMIT 0")
    except Error as error:
        number = error.args[0] if error.args else None
        if number in DENIED:
            return SourceRejected(
                f"the source has no table or view {table} that this user may read; "
                f"GRANT SELECT ON {table_sql(table)} to this user"
            )
        if number == BROKEN:
            gone = await missing_below(connection, table)
            what = (
                f"{', '.join(gone)} below it does not exist, or is not shown to this user"
                if gone
                else str(error.args[1])
            )
            return SourceRejected(
                f"the view {table} is broken: {what}; its replica is kept as it is until it is repaired"
            )
        if number not in MISSING:
            raise
        return TableMissing(f"the source has no table or view {table} that this user can see")
    if (table.schema or "").lower() == "information_schema":
        # Its tables answer to any spelling, and are listed in one.
        return SourceRejected(
            f"{table} is a table of the server's own catalogue: name it as SHOW TABLES lists it there"
        )
    return SourceChanged(f"{table} did not exist when it was looked up, and exists now")


async def hides_columns(connection: Connection, table: TableName) -> bool:
    """Whether the table has columns that this user may not read: the catalogue leaves those out."""
    try:
        await connection.fetch(f"SELECT * FROM {table_sql(table)} LIMIT 0")
    except Error as error:
        if error.args and error.args[0] in DENIED:
            return True
        raise
    return False
