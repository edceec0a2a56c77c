"""What the plugin keeps in the internal SQLite database: its own tables, and the replicas.

Owns every statement on them, the migrations, and how secrets are encrypted there. Must not know sources: rows, columns
and positions come in as values of the model.
"""

from starbase_data_replication.storage import event_log, logbook, outbox, sqlite_tables, store, user_objects
from starbase_data_replication.storage.encryption import EncryptedSettings, SecretKeys
from starbase_data_replication.storage.event_log import SubscriberKey
from starbase_data_replication.storage.leftovers import Leftovers, Piece, count_by_former_key
from starbase_data_replication.storage.store import Outcome, Store, Superseded
from starbase_data_replication.storage.stored_replication import StoredReplication
from starbase_data_replication.storage.target import Target

__all__ = [
    "EncryptedSettings",
    "Leftovers",
    "Outcome",
    "Piece",
    "SecretKeys",
    "Store",
    "StoredReplication",
    "SubscriberKey",
    "Superseded",
    "Target",
    "count_by_former_key",
    "event_log",
    "logbook",
    "outbox",
    "sqlite_tables",
    "store",
    "user_objects",
]
