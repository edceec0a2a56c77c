"""Which rows are wanted, as conditions in SQL: what of them is the same in every dialect."""

from __future__ import annotations

from collections.abc import Callable

from starbase_data_replication.sources.base import ReadPlan


def where_sql(expression: str) -> str:
    """A user's expression as a condition. A comment at its end must not swallow what follows."""
    return f"({expression}\n)"


def chosen(plan: ReadPlan, *, tracking: str, above: Callable[[str], str]) -> list[str]:
    """The conditions of a plan's filter, its floor, and of rows without a tracking value.

    tracking: the column. above: makes of a floor the condition that the column is above it.
    """
    schema = plan.schema
    wanted = None if schema.where is None else where_sql(schema.where)
    conditions = [wanted] if wanted is not None and not plan.departed else []
    if plan.floor is not None:
        condition = above(plan.floor)
        if plan.nulls and schema.tracking.nullable:
            without = f"{tracking} IS NULL" if wanted is None else f"({tracking} IS NULL AND {wanted})"
            condition = f"({condition} OR {without})"
        conditions.append(condition)
    elif not plan.nulls and schema.tracking.nullable:
        conditions.append(f"{tracking} IS NOT NULL")
    return conditions


def departing(plan: ReadPlan) -> list[str]:
    """The expression that tells of a row whether the filter is true of it, where the plan asks for that."""
    return [f"{where_sql(plan.schema.where)} IS TRUE"] if plan.departed and plan.schema.where is not None else []
