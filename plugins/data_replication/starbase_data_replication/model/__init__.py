"""The plugin's values: tables, batches, positions, casts, options and runs.

Frozen, keyword-only, and free of any database, clock or network, so that everything else may import them.
Words are those of docs/internals/glossary.md. Times are seconds since 1970 (float, UTC), unless a name says otherwise.
"""

from starbase_data_replication.model.batch import Batch, Exceptions, Row, Rows
from starbase_data_replication.model.position import Alive, Candidate, Former, Noted, OpenTransaction, Phase, Position
from starbase_data_replication.model.tables import Column, Shape, TableName, TableSchema

__all__ = [
    "Alive",
    "Batch",
    "Candidate",
    "Column",
    "Exceptions",
    "Former",
    "Noted",
    "OpenTransaction",
    "Phase",
    "Position",
    "Row",
    "Rows",
    "Shape",
    "TableName",
    "TableSchema",
]
