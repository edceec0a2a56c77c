"""Details of open transactions: their threads and states, but never the text of a query."""

from __future__ import annotations

from starbase_data_replication.model import OpenTransaction, OpenTransactions
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.protocols import MAX_SHOWN

OPEN_TRANSACTIONS = """
SELECT CAST(t.trx_mysql_thread_id AS CHAR), t.trx_state, t.trx_query IS NULL
FROM information_schema.INNODB_TRX t WHERE t.trx_mysql_thread_id IN ({threads})
ORDER BY t.trx_started, t.trx_id LIMIT {limit}
"""


async def transaction_details(connection: Connection, open_transactions: OpenTransactions) -> list[OpenTransaction]:
    """Those of the set that are still open, the longest first."""
    threads = {int(token.split(":")[1]) for token in open_transactions.tokens if token[:2] in ("t:", "s:")}
    shown = []
    if threads:
        sql = OPEN_TRANSACTIONS.format(threads=", ".join(map(str, sorted(threads))), limit=MAX_SHOWN)
        shown = [
            OpenTransaction(session=f"thread {thread}", state=_state(str(state), idle=idle == "1"))
            for thread, state, idle in await connection.fetch(sql)
        ]
    without = sorted(token[2:] for token in open_transactions.tokens if token.startswith("x:"))
    shown += [OpenTransaction(session=f"transaction {number}", state="prepared, or rolling back") for number in without]
    return shown[:MAX_SHOWN]


def _state(state: str, *, idle: bool) -> str:
    return "idle in transaction" if idle and state == "RUNNING" else state.lower()
