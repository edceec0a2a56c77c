"""Which rows a connection is asked for: a read plan with values in place of texts."""

from __future__ import annotations

from dataclasses import dataclass

from starbase_data_replication.dialect_kit.positions import Value, key_values, position_value
from starbase_data_replication.model import TableSchema
from starbase_data_replication.sources import ReadPlan


@dataclass(frozen=True, kw_only=True)
class RowPlan:
    """Which rows to read. All conditions must hold.

    Attributes:
        schema: the table. A row has the values of `schema.columns`, in that order. Only rows for which `schema.where`
            is true are read.
        floor: only rows whose tracking value is above this one; None reads all.
        nulls: whether rows without a tracking value are read too, also with a floor.
        after_key: only rows whose key is above this one, column by column; None reads all.
        keys: only the rows with these keys, at most 500; None reads all. Only for a dialect with the feature `keys`.
        in_key_order: whether the rows must come in the order of the key.
        left_filter: whether rows for which `schema.where` is not true are read too, unless they have no tracking value.
            Then each row ends with one more value: 1 if it is true, else 0. Only with the feature `left_filter`.
    """

    schema: TableSchema
    floor: Value | None = None
    nulls: bool = True
    after_key: tuple[Value, ...] | None = None
    keys: tuple[tuple[Value, ...], ...] | None = None
    in_key_order: bool = False
    left_filter: bool = False


def row_plan(plan: ReadPlan) -> RowPlan:
    """The plan of a sync as the kit's."""
    return RowPlan(
        schema=plan.schema,
        floor=None if plan.floor is None else position_value(plan.floor),
        nulls=plan.nulls,
        after_key=None if plan.after_key is None else key_values(plan.after_key),
        keys=plan.keys,
        in_key_order=plan.in_key_order,
        left_filter=plan.left_filter and plan.schema.where is not None,
    )
