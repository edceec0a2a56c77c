"""How long the record of runs is kept, and removing what is past that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from starbase_data_replication.storage import event_log, logbook
from starbase_host import Database, iso

DAY_SECONDS = 86_400
# Records that one transaction removes: a few milliseconds, so that no other write waits long.
PRUNE_AT_MOST = 1000


@dataclass(frozen=True, kw_only=True)
class Retention:
    """The limits of the record of runs; whichever is reached first counts.

    days: how old a record may become, in days.
    runs: how many records each replication may have.
    """

    days: float
    runs: int

    async def prune(self, database: Database, *, now: float) -> None:
        """Remove the records, and events of durable subscribers, that are past these limits, in small transactions.

        now: seconds since 1970.
        """
        names = await database.read(logbook.logged_names)
        before = iso(now - self.days * DAY_SECONDS) or ""
        remove = partial(logbook.prune, names=names, before=before, keep=self.runs, at_most=PRUNE_AT_MOST)
        while await database.write(remove) >= PRUNE_AT_MOST:
            pass
        remove = partial(event_log.prune, before=now - self.days * DAY_SECONDS, at_most=PRUNE_AT_MOST)
        while await database.write(remove) >= PRUNE_AT_MOST:
            pass
