"""Details of open transactions that a role may see: their sessions and states, but never the text of a query."""

from __future__ import annotations

import datetime
from importlib.resources import files
from typing import Any

from starbase_data_replication.model import OpenTransaction, OpenTransactions
from starbase_data_replication.sources.protocols import MAX_SHOWN

OPEN_TRANSACTIONS = files(__package__).joinpath("transaction_details.sql").read_text(encoding="utf-8")
HIDDEN = "hidden from this role; GRANT pg_monitor TO it shows more"


async def transaction_details(connection: Any, open_transactions: OpenTransactions) -> list[OpenTransaction]:
    """Those of the set that are still open, the longest first."""
    virtual = [token[2:].partition("#")[0] for token in open_transactions.tokens if token.startswith("v:")]
    pids = [token.partition("#")[2] for token in open_transactions.tokens if token.startswith(("m:", "h:"))]
    prepared = [token[2:] for token in open_transactions.tokens if token.startswith("p:")]
    rows = await connection.fetch(OPEN_TRANSACTIONS, virtual, prepared, MAX_SHOWN, pids)
    return [
        OpenTransaction(
            session=row["session"],
            state=HIDDEN if row["hidden"] else row["state"],
            since=None if row["since"] is None else row["since"].replace(tzinfo=datetime.UTC).timestamp(),
        )
        for row in rows
    ]
