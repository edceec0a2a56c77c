"""The conditions of a read plan in SQL, as far as all dialects share them.

A statement contains the filter only once: a second copy could close what the first leaves open.
"""

from __future__ import annotations

from collections.abc import Callable

from starbase_data_replication.sources.expressions import Syntax, bracketed
from starbase_data_replication.sources.protocols import ReadPlan


def plan_conditions(plan: ReadPlan, *, tracking: str, above: Callable[[str], str], syntax: Syntax) -> list[str]:
    """The conditions of a plan: its filter, its floor, and rows without a tracking value. Without the filter if
    `filter_expression` has it, because then rows that do not fit it are read too.

    tracking: the column, as SQL.
    above: makes the condition that the column is above a floor.
    syntax: how the server parses the filter.
    """
    schema = plan.schema
    conditions = []
    if schema.where is not None and not plan.left_filter:
        conditions.append(bracketed(schema.where, syntax))
    if plan.floor is not None:
        condition = above(plan.floor)
        if plan.nulls and schema.tracking.nullable:
            condition = f"({condition} OR {tracking} IS NULL)"
        conditions.append(condition)
    elif not plan.nulls and schema.tracking.nullable:
        conditions.append(f"{tracking} IS NOT NULL")
    return conditions


def filter_expression(plan: ReadPlan, *, tracking: str, syntax: Syntax) -> str | None:
    """The expression that is 1 if the filter is true for a row, else 0; None if the plan does not ask for it.

    It is NULL for a row that must be left out: one without a tracking value that does not fit the filter.
    """
    if not plan.left_filter or plan.schema.where is None:
        return None
    wanted = bracketed(plan.schema.where, syntax)
    return (
        f"CASE WHEN {wanted} THEN 1{f' WHEN {tracking} IS NULL THEN NULL' if leaves_out_nulls(plan) else ''} ELSE 0 END"
    )


def leaves_out_nulls(plan: ReadPlan) -> bool:
    """Whether the expression of `filter_expression` may be NULL, so that such rows must be left out."""
    asked = plan.left_filter and plan.schema.where is not None
    return asked and plan.floor is not None and plan.nulls and plan.schema.tracking.nullable
