"""Data replication: keeps tables of other databases mirrored in the host's SQLite database."""

from starbase_data_replication.model import ReplicationEvent

__all__ = ["ReplicationEvent"]
