"""Whether an interrupted load may resume: only if the table is still the one that it has read from.

A load under way has no floor, and so no sign of rows that came in behind it. It stores which files the table was in
when it began. If those are others when it resumes, or if the rows that it has read are others, it has to start over.
Owns both checks. Must not know how a load starts.
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
OTHERS = "the rows of {table} that an interrupted load had read have changed"


async def files_of(inspector: Inspector, schema: TableSchema) -> dict[str, str]:
    """What identifies the storage of the table's rows: what each sync sees, and what only a load asks for."""
    more = await inspector.located(schema) if isinstance(inspector, Locatable) else {}
    return {**schema.files, **more}


def moved_reason(begun: Position, schema: TableSchema, files: Mapping[str, str]) -> str | None:
    """Why a load may not resume, by the files that the rows were in when it began; None if it may."""
    found = schema_changes.moved(begun.files, files)
    unknown = bool(files) and not begun.files
    parts = begun.fingerprint.parts if begun.fingerprint is not None else {}
    elsewhere = "" not in (begun.server, schema.server) and begun.server != schema.server
    joined = bool(parts) and any(name not in parts for name in schema.parts)
    if found.rewritten or found.joined or unknown or joined or elsewhere:
        return MOVED.format(table=schema.table)
    return None


@dataclass(frozen=True, kw_only=True)
class RowsRead:
    """The first and the last rows that a load has read, compared with the source's of the same keys."""

    rows: Rows

    async def why(self) -> str | None:
        """Why a load may not resume; None if it may.

        It may not if none of the rows is as it was, or if most of those that have their old tracking value are not.
        """
        schema = self.rows.schema
        if any(column.transformed for column in schema.key_columns):
            # The replica does not hold the source's keys.
            return None
        keys = await self.rows.database.read(lambda connection: outer_keys(connection, self.rows.table, schema))
        if not keys:
            return None
        compared = [column for column in schema.columns if not column.transformed]
        unlike = await self.rows.compared(ReadPlan(schema=schema, keys=tuple(keys)), compared)
        if unlike.alike and unlike.stale <= unlike.alike:
            return None
        return OTHERS.format(table=schema.table)
