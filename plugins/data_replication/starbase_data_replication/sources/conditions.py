"""Which rows are wanted, as conditions in SQL: what of them is the same in every dialect.

The filter stands in a statement once: what a second copy of it could close, the first could leave open.
"""

from __future__ import annotations

from collections.abc import Callable

from starbase_data_replication.sources.expressions import Reading, bracketed
from starbase_data_replication.sources.protocols import ReadPlan


def chosen(plan: ReadPlan, *, tracking: str, above: Callable[[str], str], reading: Reading) -> list[str]:
    """The conditions of a plan's filter, its floor, and of rows without a tracking value. Where `departing` has the
    filter, it is not among them: rows of which it is not true come as well.

    tracking: the column. above: makes of a floor the condition that the column is above it.
    """
    schema = plan.schema
    conditions = []
    if schema.where is not None and not plan.departed:
        conditions.append(bracketed(schema.where, reading))
    if plan.floor is not None:
        condition = above(plan.floor)
        if plan.nulls and schema.tracking.nullable:
            condition = f"({condition} OR {tracking} IS NULL)"
        conditions.append(condition)
    elif not plan.nulls and schema.tracking.nullable:
        conditions.append(f"{tracking} IS NOT NULL")
    return conditions


def departing(plan: ReadPlan, *, tracking: str, reading: Reading) -> str | None:
    """The expression that tells of a row whether the filter is true of it, where the plan asks for that: 1 or 0; and
    NULL of a row that is not to come: one without a tracking value, of which the filter is not true.
    """
    if not plan.departed or plan.schema.where is None:
        return None
    wanted = bracketed(plan.schema.where, reading)
    return f"CASE WHEN {wanted} THEN 1{f' WHEN {tracking} IS NULL THEN NULL' if withholds(plan) else ''} ELSE 0 END"


def withholds(plan: ReadPlan) -> bool:
    """Whether what `departing` tells may be NULL: then the row is to be left out."""
    asked = plan.departed and plan.schema.where is not None
    return asked and plan.floor is not None and plan.nulls and plan.schema.tracking.nullable
