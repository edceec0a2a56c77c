"""A replication as it is stored: a row of the tables of configurations and secrets, as a typed value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starbase_data_replication.model import Options, Replication, RunKind, UnrecordedRun
from starbase_data_replication.storage.encryption import load

# c is tmp_replication_configs, s is tmp_replication_secrets.
COLUMNS = (
    "c.id", "c.name", "c.target_table", "c.source_table", "c.sync_interval_minutes", "c.tracking_column",
    "c.last_sync_value", "c.last_sync_timestamp", "c.is_active", "c.created_at", "c.updated_at", "c.last_success_at",
    "c.last_error", "c.last_error_at", "c.consecutive_failures", "c.row_count", "c.protection", "c.warnings",
    "c.last_verify", "c.degraded_since", "c.running", "c.uncounted", "c.floor_held", "c.options", "c.revision",
    "c.source_config", "s.source_config",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StoredReplication:
    """A replication as it is stored, with what is known of its runs.

    Attributes:
        id: the number of its row; it never changes.
        revision: rises whenever the configuration is saved.
        replication: the configuration; secrets are encrypted if there is a key.
        masked_source_config: the settings of the source with `***` for each secret.
        created_at: when the configuration was first saved, ISO 8601 UTC.
        updated_at: when it was last saved, ISO 8601 UTC.
        floor: the watermark above which every sync reads, as the source's text; None before there is one.
        last_sync_timestamp: when the last sync succeeded, ISO 8601 UTC.
        last_success_at: the same, seconds since 1970.
        last_error: why the last failed run failed; kept when a later run succeeds.
        last_error_at: when it failed, seconds since 1970.
        consecutive_failures: syncs that have failed since the last one that succeeded.
        degraded_since: when the first of them failed, seconds since 1970; None while syncs succeed.
        row_count: rows of the replica when they were last counted; None if they never were.
        uncounted: transactions that have changed the replica since then.
        protection: what protects rows that are committed late, in words.
        warnings: what the last successful sync warned of.
        last_verify: what the last verification found, as it is shown; None before the first.
        floor_held: what the floor waits for, as it is shown; None while it rises.
        unrecorded_run: the run under way, or one that the end of a host has cut short.
    """

    id: int
    revision: int
    replication: Replication
    masked_source_config: Mapping[str, Any]
    created_at: str
    updated_at: str
    floor: str | None
    last_sync_timestamp: str | None
    last_success_at: float | None
    last_error: str | None
    last_error_at: float | None
    consecutive_failures: int
    degraded_since: float | None
    row_count: int | None
    uncounted: int
    protection: str | None
    warnings: Sequence[str]
    last_verify: Mapping[str, Any] | None
    floor_held: Mapping[str, Any] | None
    unrecorded_run: UnrecordedRun | None

    @property
    def name(self) -> str:
        return self.replication.name


def parse_replication(row: tuple[Any, ...]) -> StoredReplication:
    """The replication of a row of COLUMNS."""
    column = dict(zip(COLUMNS, row, strict=True))
    masked = json.loads(column["c.source_config"])
    replication = Replication(
        name=column["c.name"],
        source_config=load(column["s.source_config"], masked),
        source_table=column["c.source_table"],
        target_table=column["c.target_table"],
        sync_interval_minutes=column["c.sync_interval_minutes"],
        # The table does not take NULL here.
        tracking_column=column["c.tracking_column"] or None,
        is_active=bool(column["c.is_active"]),
        options=Options(**json.loads(column["c.options"])),
    )
    return StoredReplication(
        id=column["c.id"],
        revision=column["c.revision"],
        replication=replication,
        masked_source_config=masked,
        created_at=column["c.created_at"],
        updated_at=column["c.updated_at"],
        floor=column["c.last_sync_value"],
        last_sync_timestamp=column["c.last_sync_timestamp"],
        last_success_at=column["c.last_success_at"],
        last_error=column["c.last_error"],
        last_error_at=column["c.last_error_at"],
        consecutive_failures=column["c.consecutive_failures"],
        degraded_since=column["c.degraded_since"],
        row_count=column["c.row_count"],
        uncounted=column["c.uncounted"],
        protection=column["c.protection"],
        warnings=json.loads(column["c.warnings"]),
        last_verify=_parse_json(column["c.last_verify"]),
        floor_held=_parse_json(column["c.floor_held"]),
        unrecorded_run=_parse_run(column["c.running"]),
    )


def _parse_json(text: str | None) -> Any:
    return json.loads(text) if text else None


def _parse_run(text: str | None) -> UnrecordedRun | None:
    if not text:
        return None
    plain = json.loads(text)
    return UnrecordedRun(run_id=plain["run_id"], kind=RunKind(plain["kind"]), started_at=plain["started_at"])
