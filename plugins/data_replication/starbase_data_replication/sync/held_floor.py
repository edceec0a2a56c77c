"""What a floor waits for, when it has waited for long: as it is looked up, shown in the status, and warned of."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from starbase_data_replication.errors import SyncError
from starbase_data_replication.model import Candidate, OpenTransaction
from starbase_data_replication.sources import ShowsTransactions, Source
from starbase_host import iso


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What a floor waits for: since when, how many transactions, and what the source shows of them."""

    since: float
    count: int
    shown: tuple[OpenTransaction, ...]

    def as_dict(self, *, rows: int) -> dict[str, Any]:
        """For the status. rows: how many were read again, of which none had changed."""
        shown = [{"session": each.session, "state": each.state, "since": iso(each.since)} for each in self.shown]
        return {
            "since": iso(self.since), "open_transactions": self.count, "transactions": shown, "rows_read_again": rows,
        }  # fmt: skip

    def warnings(self, *, rows: int) -> list[str]:
        named = "; ".join(
            f"{each.session}"
            f"{f', {each.state}' if each.state else ''}{f', begun {iso(each.since)}' if each.since else ''}"
            for each in self.shown
        )
        many = "a transaction that is" if self.count == 1 else f"{self.count} transactions that are"
        return [
            f"since {iso(self.since)} the floor waits for {many} open at the source{f' ({named})' if named else ''}: "
            f"what has changed since then is read again at every sync, {rows} rows this time; look why it does not end"
        ]


async def look_at(source: Source, candidate: Candidate) -> Holding:
    """Look what holds a floor. That this cannot be seen is no reason for a sync to fail."""
    shown: tuple[OpenTransaction, ...] = ()
    if isinstance(source, ShowsTransactions):
        with contextlib.suppress(SyncError):
            shown = tuple(await source.transaction_details(candidate.open_transactions))
    return Holding(since=candidate.noted_at, count=candidate.open_transactions.sessions, shown=shown)
