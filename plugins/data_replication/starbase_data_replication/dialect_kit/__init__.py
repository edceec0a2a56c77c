"""What a dialect is built from, if its source offers little more than rows: public, for dialects of other plugins.

An author writes one connection, which describes a table, reads the rows of a plan, and finds the highest tracking
value. The rest of the contract follows: batches, positions, settled times, and comparison by reading. Must not know a
driver.
"""

from starbase_data_replication.dialect_kit.connections import IN_ORDER, NOT_SHOWN, AsyncConnection, BlockingConnection
from starbase_data_replication.dialect_kit.dialect import BaseDialect
from starbase_data_replication.dialect_kit.new_dialect import NEW_DIALECT
from starbase_data_replication.dialect_kit.positions import Value, position_text, position_value
from starbase_data_replication.dialect_kit.row_plan import RowPlan
from starbase_data_replication.dialect_kit.sql_text import SqlText

__all__ = [
    "IN_ORDER",
    "NEW_DIALECT",
    "NOT_SHOWN",
    "AsyncConnection",
    "BaseDialect",
    "BlockingConnection",
    "RowPlan",
    "SqlText",
    "Value",
    "position_text",
    "position_value",
]
