"""What the dialects share of making batches: how many rows to ask for, and the casts that only Python can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starbase_data_replication.model import Column, Row
from starbase_data_replication.sources.base import ReadPlan

FIRST_ROWS = 200
# What a value costs beside its own bytes, roughly: the object's header.
OVERHEAD_BYTES = 56


class BatchSizer:
    """Decides how many rows to ask for next, so that a batch stays within the plan's rows and bytes.

    A driver's fetch counts rows only. So the first is small, and each next one is as many as would have fitted
    if all were as wide as the last ones, and at most twice as many as the last.
    """

    def __init__(self, plan: ReadPlan) -> None:
        self._plan = plan
        columns = plan.schema.columns
        self._wide = [index for index, column in enumerate(columns) if column.cast.declared in ("TEXT", "BLOB")]
        self._fixed = OVERHEAD_BYTES * (len(columns) + 1)
        self.rows = min(FIRST_ROWS, plan.batch_rows)

    def measure(self, rows: Sequence[Row]) -> int:
        """The bytes of a batch just read, about; sets `rows` for the next."""
        if not rows:
            return 0
        size = self._fixed * len(rows)
        for index in self._wide:
            size += sum(len(value) for row in rows if (value := row[index]) is not None)
        fitting = int(self._plan.batch_bytes / (size / len(rows)))
        self.rows = max(1, min(fitting, 2 * max(self.rows, 1), self._plan.batch_rows))
        return size


def convert(records: Sequence[Sequence[Any]], columns: Sequence[Column]) -> list[Row]:
    """Apply the casts' `convert`, where a column has one; rows come back as they are where none has."""
    casts = [(index, column.cast.convert) for index, column in enumerate(columns) if column.cast.convert is not None]
    if not casts:
        return records if isinstance(records, list) else list(records)
    converted: list[Row] = []
    for record in records:
        row = list(record)
        for index, function in casts:
            if row[index] is not None:
                row[index] = function(row[index])
        converted.append(tuple(row))
    return converted
