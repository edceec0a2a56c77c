"""One sync: what is copied, from where to where, and when the floor may rise.

Owns the order of the steps, which is what keeps rows from being lost. Knows a source by its protocols alone, and the
replica by what `storage` offers. Must not know when a sync is due, nor who asked for it.
"""

from starbase_data_replication.sync.group import sync_together
from starbase_data_replication.sync.identity import identity_of
from starbase_data_replication.sync.sync import Sync, SyncResult
from starbase_data_replication.sync.transforms import Transforms

__all__ = ["Sync", "SyncResult", "Transforms", "identity_of", "sync_together"]
