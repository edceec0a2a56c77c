"""A replication in a database of the test's own, for tests that sync without a host."""

from __future__ import annotations

import uuid

import apsw

from starbase_data_replication.model.options import Replication
from starbase_data_replication.model.runs import RunKind
from starbase_data_replication.storage import StoredReplication, store


def under_way(connection: apsw.Connection, replication: Replication) -> StoredReplication:
    """A new replication as a run of it finds it."""
    store.save(connection, replication, {}, now=0.0)
    store.begin_run(connection, replication.name, uuid.uuid4().hex, RunKind.MANUAL, now=0.0)
    return store.get(connection, replication.name)
