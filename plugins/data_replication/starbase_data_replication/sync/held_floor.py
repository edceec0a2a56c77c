"""What a floor waits for, if it has waited for long: asks the source, and words it for the status and the warnings."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from starbase_data_replication.errors import SyncError
from starbase_data_replication.model import Candidate, OpenTransaction, rows_in_words
from starbase_data_replication.sources import ShowsTransactions, Source
from starbase_host import iso


@dataclass(frozen=True, kw_only=True)
class HeldFloor:
    """What a floor waits for.

    Attributes:
        since: since when, in seconds since 1970.
        count: how many transactions.
        shown: those that the source shows, the longest first.
    """

    since: float
    count: int
    shown: tuple[OpenTransaction, ...]

    def as_dict(self, *, rows: int) -> dict[str, Any]:
        """The value for the status. rows: how many were read again and had not changed."""
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
            f"what has changed since then is read again at every sync, {rows_in_words(rows)} this time; "
            "find out why it does not end"
        ]


async def inspect_held_floor(source: Source, candidate: Candidate) -> HeldFloor:
    """Ask the source what holds a floor. If it cannot say, the sync goes on all the same."""
    shown: tuple[OpenTransaction, ...] = ()
    if isinstance(source, ShowsTransactions):
        with contextlib.suppress(SyncError):
            shown = tuple(await source.transaction_details(candidate.open_transactions))
    return HeldFloor(since=candidate.noted_at, count=candidate.open_transactions.sessions, shown=shown)
