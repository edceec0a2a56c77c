"""Whether a load that was interrupted may go on: only over the very table that it has read from until then.

A load under way has no floor, and so no sign of what came below it. It stores what the table's rows lay in when it
began; where any of that is another when it goes on, or the rows that it has read are others, it has to begin again.
Owns both questions. Must not know how a load begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starbase_data_replication.model import Position, TableSchema
from starbase_data_replication.sources import Inspector, Locatable, ReadPlan
from starbase_data_replication.sync import schema_changes
from starbase_data_replication.sync.rewind import Rows, outer_keys

MOVED = (
    "{table} was emptied, rewritten or replaced, or got a partition, or another server answers, since a load of it was "
    "interrupted"
)
OTHERS = "the rows of {table} that an interrupted load had read are others now"


async def lies_in(inspector: Inspector, schema: TableSchema) -> dict[str, str]:
    """What the table's rows lie in: what each sync sees, and what the source is asked for a load alone."""
    more = await inspector.located(schema) if isinstance(inspector, Locatable) else {}
    return {**schema.files, **more}


def moved(begun: Position, schema: TableSchema, files: Mapping[str, str]) -> str | None:
    """Why a load may not go on, in words, by what the rows lay in when it began; None where nothing speaks against."""
    found = schema_changes.moved(begun.files, files)
    unknown = bool(files) and not begun.files
    parts = begun.fingerprint.parts if begun.fingerprint is not None else {}
    elsewhere = "" not in (begun.server, schema.server) and begun.server != schema.server
    joined = bool(parts) and any(name not in parts for name in schema.parts)
    if found.rewritten or found.joined or unknown or joined or elsewhere:
        return MOVED.format(table=schema.table)
    return None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The first and the last rows that a load has read, beside those that the source has under their keys."""

    rows: Rows

    async def why(self) -> str | None:
        """Why a load may not go on, in words: none of them is as it was, or most of those that still have their
        tracking value are not."""
        schema = self.rows.schema
        if any(column.transformed for column in schema.key_columns):
            # The source cannot be asked by the keys that the replica has.
            return None
        keys = await self.rows.database.read(lambda connection: outer_keys(connection, self.rows.table, schema))
        if not keys:
            return None
        compared = [column for column in schema.columns if not column.transformed]
        unlike = await self.rows.compared(ReadPlan(schema=schema, keys=tuple(keys)), compared)
        if unlike.alike and unlike.stale <= unlike.alike:
            return None
        return OTHERS.format(table=schema.table)
