"""The plugin's values: tables, batches, positions, casts, options and runs.

Frozen, keyword-only, and free of any database, clock or network, so that everything else may import them.
Words are those of docs/internals/glossary.md. Times are seconds since 1970 (float, UTC), unless a name says otherwise.
"""

from starbase_data_replication.model.batch import Batch, Row, Rows, UnrepresentableValues
from starbase_data_replication.model.position import (
    Candidate,
    Former,
    HighWatermark,
    OpenTransaction,
    OpenTransactions,
    Phase,
    Position,
)
from starbase_data_replication.model.tables import Column, SchemaFingerprint, TableName, TableSchema

__all__ = [
    "Batch",
    "Candidate",
    "Column",
    "Former",
    "HighWatermark",
    "OpenTransaction",
    "OpenTransactions",
    "Phase",
    "Position",
    "Row",
    "Rows",
    "SchemaFingerprint",
    "TableName",
    "TableSchema",
    "UnrepresentableValues",
]
