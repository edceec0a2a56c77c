"""Which fields of `configure` need a feature of the dialect, and the error for a dialect that does not declare it.

A pure function of the options and the features. Must not know a dialect.
"""

from __future__ import annotations

from starbase_data_replication.model import Options
from starbase_data_replication.sources import Feature, RegisteredDialect
from starbase_host import InvalidRequest


def check_needs(options: Options, dialect: RegisteredDialect) -> None:
    """Raise InvalidRequest that names each field for which the dialect lacks a feature, with the fix."""
    problems: dict[str, str] = {}
    followed = options.mode != "full"
    for field, used, feature, cannot, fix in (
        ("where", options.where is not None, Feature.WHERE, "filter rows", "leave it out"),
        (
            "where",
            options.where is not None and followed,
            Feature.LEFT_FILTER,
            "show which rows are no longer in the filter",
            "set mode to full, which loads the table whole at each sync",
        ),
        ("group", options.group is not None, Feature.SNAPSHOT, "read tables as of one moment", "leave it out"),
        (
            "deletes",
            options.reconciles,
            Feature.COMPARE,
            "compare keys",
            "set mode to full, which follows deletes, and deletes to ignore",
        ),
        (
            "verifyIntervalMinutes",
            options.verify_interval_minutes is not None,
            Feature.COMPARE,
            "compare rows",
            "leave it out",
        ),
        (
            "nullTracking",
            options.null_tracking == "ignore" and followed,
            Feature.KEYS,
            "look up whether a row that it does not read is still there",
            "set it to read or error, or set mode to full",
        ),
    ):
        if used and feature not in dialect.features and field not in problems:
            problems[field] = f"cannot be used: {dialect.label} cannot {cannot} (it lacks the feature {feature}); {fix}"
    if problems:
        raise InvalidRequest(fields=problems)
