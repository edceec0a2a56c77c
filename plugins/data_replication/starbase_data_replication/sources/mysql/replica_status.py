"""Replica status: whether a server is configured as a replica that is stopped now.

The sessions show a replica that runs. A stopped one looks like a primary until it is started, and then rows come in
below every floor. Every user can see whether a server has applied another's transactions; only users with a privilege
can see whether it is configured to. Must not know what follows from it.
"""

from __future__ import annotations

from pymysql.constants import ER
from pymysql.err import Error

from starbase_data_replication.sources.mysql.connection import Connection

# Whether a server has applied another's transactions, as an expression that every user may read: it has GTIDs that are
# not its own, by replication, in a restored copy, or from before its promotion. Without GTIDs, MySQL does not show it.
NEVER, ONCE, UNKNOWN = "never", "once", "unknown"
APPLIED_MARIADB = f"IF(@@GLOBAL.gtid_slave_pos = '', '{NEVER}', '{ONCE}')"
APPLIED_MYSQL = (
    "CASE WHEN GTID_SUBTRACT(@@GLOBAL.gtid_executed, CONCAT(@@GLOBAL.server_uuid, ':1-9223372036854775806')) <> '' "
    f"THEN '{ONCE}' WHEN @@GLOBAL.gtid_mode = 'ON' THEN '{NEVER}' ELSE '{UNKNOWN}' END"
)
SHOW_OF_MARIADB = "SHOW ALL SLAVES STATUS"
SHOW_OF_MYSQL = "SHOW REPLICA STATUS"
SHOW_OF_OLD_MYSQL = "SHOW SLAVE STATUS"
REPLICA_SINCE = (8, 0, 22)
# From this version on, MariaDB's privilege has the name REPLICA MONITOR.
MONITOR_SINCE = (10, 5, 9)

SET_UP = "the source is set up to apply the transactions of another server, whether it does so now or not"
_HIDDEN = (
    "the source has applied transactions of another server, and this user may not see whether it will apply more: "
    "GRANT {} ON *.* to it"
)
HIDDEN_OF_MARIADB = _HIDDEN.format("REPLICA MONITOR")
HIDDEN_OF_MYSQL = _HIDDEN.format("REPLICATION CLIENT")
HIDDEN = (HIDDEN_OF_MARIADB, HIDDEN_OF_MYSQL)


def applied_expression(connection: Connection) -> str:
    return APPLIED_MARIADB if connection.is_mariadb else APPLIED_MYSQL


async def why_it_may_replicate(connection: Connection, applied: str) -> str:
    """Why the server may apply another's transactions later; empty if it will not.

    applied: the value of `applied_expression`.

    A MySQL server without GTIDs counts as a primary if this user may not see its status.
    """
    if applied == NEVER or (applied == UNKNOWN and connection.may_not_see_replication):
        return ""
    show = SHOW_OF_MYSQL if connection.version >= REPLICA_SINCE else SHOW_OF_OLD_MYSQL
    try:
        found = await connection.fetch(SHOW_OF_MARIADB if connection.is_mariadb else show)
    except Error as error:
        if error.args[0] != ER.SPECIFIC_ACCESS_DENIED_ERROR:
            raise
        # A session keeps the privileges that it began with.
        connection.may_not_see_replication = True
        monitored = connection.is_mariadb and connection.version >= MONITOR_SINCE
        hidden = HIDDEN_OF_MARIADB if monitored else HIDDEN_OF_MYSQL
        return hidden if applied == ONCE else ""
    return SET_UP if found else ""
