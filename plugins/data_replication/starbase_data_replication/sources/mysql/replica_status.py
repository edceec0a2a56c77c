"""Whether a server is set up to apply another's transactions, and only does not do so now: a replica that is stopped.

Its threads show one that runs, to anybody who looks at sessions. One that is stopped looks like a primary, until it is
started, and rows come in below every floor. That it has ever applied something, it tells everybody; that it is set up
to, only who may ask. Must not know what is claimed by it.
"""

from __future__ import annotations

from pymysql.constants import ER
from pymysql.err import Error

from starbase_data_replication.sources.mysql.connection import Connection

# What a server tells everybody, as an expression. Of its own transactions' numbers those are no part that came from
# elsewhere: by replication, in a restored copy, or before it was promoted. Without such numbers MySQL tells nothing.
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
# Of MariaDB: the privilege that is asked for, with the name that it has since then.
MONITOR_SINCE = (10, 5, 9)

SET_UP = "the source is set up to apply the transactions of another server, whether it does so now or not"
_HIDDEN = (
    "the source has applied transactions of another server, and this user may not see whether it is set up to go on: "
    "GRANT {} ON *.* to it"
)
HIDDEN_OF_MARIADB = _HIDDEN.format("REPLICA MONITOR")
HIDDEN_OF_MYSQL = _HIDDEN.format("REPLICATION CLIENT")
HIDDEN = (HIDDEN_OF_MARIADB, HIDDEN_OF_MYSQL)


def applied_expression(connection: Connection) -> str:
    return APPLIED_MARIADB if connection.is_mariadb else APPLIED_MYSQL


async def why_it_may_replicate(connection: Connection, applied: str) -> str:
    """Why it may apply another's transactions later, or empty. applied: the value of `applied_expression`.

    Of a MySQL that numbers no transactions, nothing is claimed against it by who may not ask.
    """
    if applied == NEVER or (applied == UNKNOWN and connection.may_not_see_replication):
        return ""
    show = SHOW_OF_MYSQL if connection.version >= REPLICA_SINCE else SHOW_OF_OLD_MYSQL
    try:
        found = await connection.fetch(SHOW_OF_MARIADB if connection.is_mariadb else show)
    except Error as error:
        if error.args[0] != ER.SPECIFIC_ACCESS_DENIED_ERROR:
            raise
        # A session keeps the privileges with which it began.
        connection.may_not_see_replication = True
        monitored = connection.is_mariadb and connection.version >= MONITOR_SINCE
        hidden = HIDDEN_OF_MARIADB if monitored else HIDDEN_OF_MYSQL
        return hidden if applied == ONCE else ""
    return SET_UP if found else ""
