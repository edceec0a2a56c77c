"""The record of runs: reading it, and removing old entries. Functions of an APSW connection; `store` adds entries."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import apsw

from starbase_host import NotFound

LOG_COLUMNS = (
    "id", "config_name", "status", "records_processed", "error_message", "sync_duration_ms", "created_at",
    "run_id", "kind", "started_at", "finished_at", "rows_read", "bytes_read", "warnings",
)  # fmt: skip


def logs(connection: apsw.Connection, *, limit: int, name: str | None) -> list[dict[str, Any]]:
    """The latest runs, newest first, as objects of LOG_COLUMNS. name: only those of this replication."""
    where, values = ("WHERE config_name = ?", (name,)) if name is not None else ("", ())
    sql = f"SELECT {', '.join(LOG_COLUMNS)} FROM tmp_replication_logs {where} ORDER BY id DESC LIMIT ?"
    return _entries(connection, sql, (*values, limit))


def runs(connection: apsw.Connection, *, name: str | None, after: int, limit: int) -> list[dict[str, Any]]:
    """The runs recorded after the one with this id, oldest first, as objects of LOG_COLUMNS. name: as in `logs`."""
    where, values = ("AND config_name = ?", (name,)) if name is not None else ("", ())
    sql = f"SELECT {', '.join(LOG_COLUMNS)} FROM tmp_replication_logs WHERE id > ? {where} ORDER BY id LIMIT ?"
    return _entries(connection, sql, (after, *values, limit))


def run(connection: apsw.Connection, *, run_id: str) -> dict[str, Any]:
    """A run as an object of LOG_COLUMNS. Raises NotFound."""
    sql = f"SELECT {', '.join(LOG_COLUMNS)} FROM tmp_replication_logs WHERE run_id = ? ORDER BY id DESC LIMIT 1"
    found = _entries(connection, sql, (run_id,))
    if not found:
        raise NotFound(f"the record of run {run_id} does not exist any more, or could not be written yet")
    return found[0]


def _entries(connection: apsw.Connection, sql: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
    found = [dict(zip(LOG_COLUMNS, row, strict=True)) for row in connection.execute(sql, values)]
    for entry in found:
        entry["warnings"] = json.loads(entry["warnings"])
    return found


def interrupted_names(connection: apsw.Connection) -> set[str]:
    """The names of replications whose last run was interrupted."""
    sql = (
        "SELECT name FROM tmp_replication_configs c WHERE 'interrupted' = (SELECT status FROM tmp_replication_logs "
        "WHERE config_name = c.name ORDER BY id DESC LIMIT 1)"
    )
    return {str(name) for (name,) in connection.execute(sql)}


def logged_names(connection: apsw.Connection) -> list[str]:
    """Every name that has a record. One step in the index for each name, because the log may be long."""
    sql = (
        "WITH RECURSIVE names (name) AS (SELECT min(config_name) FROM tmp_replication_logs UNION ALL "
        "SELECT (SELECT min(config_name) FROM tmp_replication_logs WHERE config_name > name) FROM names "
        "WHERE name IS NOT NULL) SELECT name FROM names WHERE name IS NOT NULL"
    )
    return [str(name) for (name,) in connection.execute(sql)]


def prune(connection: apsw.Connection, names: Iterable[str], *, before: str, keep: int, at_most: int) -> int:
    """Remove old records; returns how many were removed.

    before: records that were created before this time go, ISO 8601. keep: how many of each name stay.
    at_most: how many one call removes, so that its transaction stays short.
    """
    connection.execute(
        "DELETE FROM tmp_replication_logs WHERE id IN "
        "(SELECT id FROM tmp_replication_logs WHERE created_at < ? ORDER BY created_at LIMIT ?)",
        (before, at_most),
    )
    removed = connection.changes()
    for name in names:
        if removed >= at_most:
            break
        connection.execute(
            "DELETE FROM tmp_replication_logs WHERE id IN (SELECT id FROM tmp_replication_logs WHERE config_name = ?1 "
            "AND id < (SELECT id FROM tmp_replication_logs WHERE config_name = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2) "
            "LIMIT ?3)",
            (name, keep - 1, at_most - removed),
        )
        removed += connection.changes()
    return removed
