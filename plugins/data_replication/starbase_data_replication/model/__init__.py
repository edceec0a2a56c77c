"""The plugin's values: tables, batches, positions, casts, options and runs.

Frozen, keyword-only, and free of any database, clock or network, so that everything else may import them. Imports
nothing of the plugin. Words are those of docs/internals/glossary.md. Times are seconds since 1970 (float, UTC), unless
a name says otherwise.
"""

from starbase_data_replication.model.batch import Batch, Row, Rows, UnrepresentableValues, rows_in_words
from starbase_data_replication.model.casts import (
    NO_AFFINITY,
    Cast,
    as_stored,
    as_text,
    decimal_cast,
    decimal_or_text,
    float_or_text,
    plain,
    text_or_bytes,
    unsigned,
    whole_or_text,
)
from starbase_data_replication.model.environment import SECRET_KEY
from starbase_data_replication.model.events import EVENT_TYPES, PROGRESS, READY, ReplicationEvent
from starbase_data_replication.model.options import LONGEST_LABEL, LONGEST_NAME, Declaration, Kind, Options, Replication
from starbase_data_replication.model.position import (
    Candidate,
    Former,
    HighWatermark,
    OpenTransaction,
    OpenTransactions,
    Phase,
    Position,
)
from starbase_data_replication.model.runs import (
    Progress,
    RunKind,
    RunStatus,
    SyncRun,
    UnrecordedRun,
)
from starbase_data_replication.model.tables import Column, SchemaFingerprint, TableName, TableSchema

__all__ = [
    "EVENT_TYPES",
    "LONGEST_LABEL",
    "LONGEST_NAME",
    "NO_AFFINITY",
    "PROGRESS",
    "READY",
    "SECRET_KEY",
    "Batch",
    "Candidate",
    "Cast",
    "Column",
    "Declaration",
    "Former",
    "HighWatermark",
    "Kind",
    "OpenTransaction",
    "OpenTransactions",
    "Options",
    "Phase",
    "Position",
    "Progress",
    "Replication",
    "ReplicationEvent",
    "Row",
    "Rows",
    "RunKind",
    "RunStatus",
    "SchemaFingerprint",
    "SyncRun",
    "TableName",
    "TableSchema",
    "UnrecordedRun",
    "UnrepresentableValues",
    "as_stored",
    "as_text",
    "decimal_cast",
    "decimal_or_text",
    "float_or_text",
    "plain",
    "rows_in_words",
    "text_or_bytes",
    "unsigned",
    "whole_or_text",
]
