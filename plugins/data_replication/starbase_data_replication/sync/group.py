"""The replications of a group: their tables are read from one snapshot, and committed in one transaction.

What holds between the tables in the source at one moment, such as a foreign key, holds in the replicas whenever a
reader looks. The price: a first load of a group does not resume, since its rows must be of one moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import apsw

from starbase_data_replication.sources import Snapshots
from starbase_data_replication.sync.attempts import attempt_again
from starbase_data_replication.sync.sync import Sync


async def sync_together(syncs: Sequence[Sync]) -> None:
    """Bring all replicas of a group to one moment of their source. Raises SyncError, and then has changed nothing."""
    await attempt_again(partial(_sync_together, syncs))


async def _sync_together(syncs: Sequence[Sync]) -> None:
    for sync in syncs:
        await sync.prepare()
    for sync in syncs:
        await sync.wait()
    for sync in syncs:
        sync.fix_floor()
    source = syncs[0].source
    # A dialect without the feature cannot be configured in a group.
    assert isinstance(source, Snapshots)
    async with source.snapshot() as snapshot:
        for sync in syncs:
            await sync.copy(snapshot)

    def commit(connection: apsw.Connection) -> list[int]:
        return [sync.commit(connection) for sync in syncs]

    for sync, changed in zip(syncs, await syncs[0].database.write(commit), strict=True):
        sync.progress.changed += changed
