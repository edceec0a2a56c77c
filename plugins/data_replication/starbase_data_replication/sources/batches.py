"""What the dialects share of making batches: what a value costs, and the casts that only Python can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starbase_data_replication.model import Column, Row

# What a value costs beside its own bytes, roughly: the object's header.
OVERHEAD_BYTES = 56


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
