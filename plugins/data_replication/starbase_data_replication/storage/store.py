"""The tmp_replication_* tables: configurations, secrets, positions, the record of runs.

Functions of an APSW connection, so that a caller can put several into one transaction; `Store` runs them on the host's
database. Must not touch a replica table, nor decide when to sync.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import apsw

from starbase_data_replication.model import (
    Position,
    Replication,
    RunKind,
    SyncRun,
)
from starbase_data_replication.storage import logbook, sqlite_tables
from starbase_data_replication.storage.encryption import dump, overwriting
from starbase_data_replication.storage.position_json import dump_position, parse_position
from starbase_data_replication.storage.stored_replication import COLUMNS, StoredReplication, parse_replication
from starbase_host import Conflict, Database, NotFound, iso


class Superseded(Conflict):
    """A run found that the configuration it began with is no longer the current one."""

    code = "superseded"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run changes in its replication's row. None keeps what is stored, except for `held`.

    Attributes:
        floor: the new floor, as the source's text.
        protection: what protects rows that are committed late, in words.
        verified: what a verification found, as it is shown.
        held: what the floor waits for, as it is shown; None clears it.
    """

    floor: str | None = None
    protection: str | None = None
    verified: Mapping[str, Any] | None = None
    held: Mapping[str, Any] | None = None


_SELECT = f"""
SELECT {", ".join(COLUMNS)}
FROM tmp_replication_configs c JOIN tmp_replication_secrets s ON s.config_id = c.id
"""


def find(connection: apsw.Connection, name: str) -> StoredReplication | None:
    """A replication by its exact name; None if there is none."""
    row = connection.execute(f"{_SELECT} WHERE c.name = ?", (name,)).fetchone()
    return parse_replication(row) if row is not None else None


def get(connection: apsw.Connection, name: str) -> StoredReplication:
    """A replication by its exact name. Raises NotFound."""
    found = find(connection, name)
    if found is None:
        raise NotFound(f"no replication is named {name}")
    return found


def all_of(connection: apsw.Connection) -> list[StoredReplication]:
    """Every replication, by name."""
    return [parse_replication(row) for row in connection.execute(f"{_SELECT} ORDER BY c.name")]


def of_group(connection: apsw.Connection, group: str) -> list[StoredReplication]:
    """The replications of a group, by name."""
    rows = connection.execute(f"{_SELECT} WHERE json_extract(c.options, '$.group') = ? ORDER BY c.name", (group,))
    return [parse_replication(row) for row in rows]


def targets(connection: apsw.Connection) -> list[tuple[str, str]]:
    """Name and target table of every replication, without parsing each configuration."""
    rows = connection.execute("SELECT name, target_table FROM tmp_replication_configs")
    return [(str(name), str(target)) for name, target in rows]


def save(
    connection: apsw.Connection, replication: Replication, masked: Mapping[str, Any], *, now: float
) -> StoredReplication:
    """Insert or change a configuration. Its revision rises, so that a run under way cannot write any more."""
    values = (
        json.dumps(dict(masked)),
        replication.target_table,
        replication.source_table,
        replication.sync_interval_minutes,
        # Not NULL, by the table's definition.
        replication.tracking_column or "",
        int(replication.is_active),
        json.dumps(asdict(replication.options)),
        iso(now),
    )
    # A new target is loaded from its start. So is the old one, should it come back: its rows may be others by then.
    connection.execute(
        "DELETE FROM tmp_replication_positions WHERE config_id = "
        "(SELECT id FROM tmp_replication_configs WHERE name = ? AND target_table <> ?)",
        (replication.name, replication.target_table),
    )
    connection.execute(
        "INSERT INTO tmp_replication_configs (source_config, target_table, source_table, sync_interval_minutes, "
        "tracking_column, is_active, options, updated_at, created_at, name) VALUES (?,?,?,?,?,?,?,?,?,?) "
        "ON CONFLICT (name) DO UPDATE SET source_config = excluded.source_config, "
        "row_count = iif(target_table = excluded.target_table, row_count, NULL), "
        "target_table = excluded.target_table, source_table = excluded.source_table, "
        "sync_interval_minutes = excluded.sync_interval_minutes, tracking_column = excluded.tracking_column, "
        "is_active = excluded.is_active, options = excluded.options, updated_at = excluded.updated_at, "
        "revision = revision + 1",
        (*values, iso(now), replication.name),
    )
    with overwriting(connection):
        connection.execute(
            "INSERT INTO tmp_replication_secrets SELECT id, ? FROM tmp_replication_configs WHERE name = ? "
            "ON CONFLICT (config_id) DO UPDATE SET source_config = excluded.source_config",
            (dump(replication.source_config), replication.name),
        )
    return get(connection, replication.name)


def delete(connection: apsw.Connection, name: str) -> StoredReplication:
    """Forget a configuration, its secrets and its position. The replica table and the log stay."""
    stored = get(connection, name)
    with overwriting(connection):
        for table in ("tmp_replication_secrets", "tmp_replication_positions"):
            connection.execute(f"DELETE FROM {table} WHERE config_id = ?", (stored.id,))
    connection.execute("DELETE FROM tmp_replication_configs WHERE id = ?", (stored.id,))
    return stored


def set_active(connection: apsw.Connection, name: str, active: bool) -> None:
    get(connection, name)
    connection.execute("UPDATE tmp_replication_configs SET is_active = ? WHERE name = ?", (int(active), name))


def set_due(connection: apsw.Connection, name: str, due_at: float) -> None:
    """Store when the run that begins now was due."""
    connection.execute("UPDATE tmp_replication_configs SET last_due_at = ? WHERE name = ?", (due_at, name))


def load_position(connection: apsw.Connection, stored: StoredReplication) -> Position | None:
    found = connection.execute("SELECT position FROM tmp_replication_positions WHERE config_id = ?", (stored.id,)).get
    return parse_position(found) if found is not None else None


def save_position(connection: apsw.Connection, stored: StoredReplication, position: Position) -> None:
    """Store how far the replica has come. Call it in the transaction of the rows, after check_current."""
    connection.execute(
        "INSERT INTO tmp_replication_positions VALUES (?, ?) "
        "ON CONFLICT (config_id) DO UPDATE SET position = excluded.position",
        (stored.id, dump_position(position)),
    )


def delete_position(connection: apsw.Connection, stored: StoredReplication) -> None:
    """Forget how far the replica has come, so that the next run starts over."""
    connection.execute("DELETE FROM tmp_replication_positions WHERE config_id = ?", (stored.id,))


def owns_target(connection: apsw.Connection, name: str) -> bool:
    """Whether the table of that name is the one that this plugin owns, and not another one in its place."""
    found = connection.execute("SELECT tag FROM tmp_replication_targets WHERE name = ?", (name,)).fetchone()
    if found is None:
        return False
    # A table that was made before tables had tags is known by its name.
    return (
        sqlite_tables.exists(connection, name)
        if found[0] is None
        else found[0] == sqlite_tables.tag_of(connection, name)
    )


def own_target(connection: apsw.Connection, name: str) -> None:
    """Own the table that has this name now."""
    connection.execute(
        "INSERT INTO tmp_replication_targets VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET tag = excluded.tag",
        (name, sqlite_tables.tag_of(connection, name)),
    )


def check_current(connection: apsw.Connection, stored: StoredReplication) -> None:
    """Raise Superseded unless the run is not recorded yet, and the configuration is the one that it began with.

    A source or a plugin may answer a run long after it was interrupted and another one has begun.
    """
    found = connection.execute(
        "SELECT revision, running FROM tmp_replication_configs WHERE id = ?", (stored.id,)
    ).fetchone()
    if found is None or found[0] != stored.revision:
        raise Superseded(f"the configuration of {stored.name} changed during the run")
    if _run_id(found[1]) != (stored.unrecorded_run.run_id if stored.unrecorded_run is not None else None):
        raise Superseded(f"the run of {stored.name} has ended")


def begin_run(connection: apsw.Connection, name: str, run_id: str, kind: RunKind, *, now: float) -> None:
    """Store that a run is under way, so that a host that is killed finds it when it starts again."""
    running = json.dumps({"run_id": run_id, "kind": kind, "started_at": now})
    connection.execute("UPDATE tmp_replication_configs SET running = ? WHERE name = ?", (running, name))


def record(connection: apsw.Connection, run: SyncRun, outcome: Outcome = Outcome()) -> None:
    """Record a run that has ended, and update its replication."""
    connection.execute(
        "INSERT INTO tmp_replication_logs (config_name, status, records_processed, error_message, sync_duration_ms, "
        "created_at, run_id, kind, started_at, finished_at, rows_read, bytes_read, warnings) "
        "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            run.config_name, run.status, run.records_processed, run.error_message, run.sync_duration_ms,
            iso(run.finished_at), run.run_id, run.kind, iso(run.started_at), iso(run.finished_at), run.rows_read,
            run.bytes_read, json.dumps(run.warnings),
        ),
    )  # fmt: skip
    if run.status == "skipped":
        return
    connection.execute("UPDATE tmp_replication_configs SET running = NULL WHERE name = ?", (run.config_name,))
    if not run.kind.syncs:
        verified = json.dumps(dict(outcome.verified)) if outcome.verified is not None else None
        connection.execute(
            "UPDATE tmp_replication_configs SET last_verify = coalesce(?1, last_verify), "
            "last_error = coalesce(?2, last_error), last_error_at = iif(?2 IS NULL, last_error_at, ?3) WHERE name = ?4",
            (verified, run.error_message if run.status == "error" else None, run.finished_at, run.config_name),
        )
    elif run.status == "success":
        connection.execute(
            "UPDATE tmp_replication_configs SET last_success_at = ?1, last_sync_timestamp = ?2, "
            "consecutive_failures = 0, warnings = ?3, last_sync_value = coalesce(?4, last_sync_value), "
            "protection = coalesce(?5, protection), floor_held = ?7 WHERE name = ?6",
            (
                run.finished_at, iso(run.finished_at), json.dumps(run.warnings), outcome.floor, outcome.protection,
                run.config_name, json.dumps(outcome.held) if outcome.held is not None else None,
            ),
        )  # fmt: skip
    elif run.status == "error":
        connection.execute(
            "UPDATE tmp_replication_configs SET last_error = ?, last_error_at = ?, "
            "consecutive_failures = consecutive_failures + 1 WHERE name = ?",
            (run.error_message, run.finished_at, run.config_name),
        )


def mark_uncounted(connection: apsw.Connection, stored: StoredReplication) -> None:
    """Store that a replica may hold another number of rows. Call it in the transaction that changes the replica."""
    connection.execute("UPDATE tmp_replication_configs SET uncounted = uncounted + 1 WHERE id = ?", (stored.id,))


def uncounted(connection: apsw.Connection, stored: StoredReplication) -> int:
    """How many transactions have changed a replica since it was counted."""
    return connection.execute("SELECT uncounted FROM tmp_replication_configs WHERE id = ?", (stored.id,)).get or 0


def count_rows(connection: apsw.Connection, stored: StoredReplication) -> tuple[int | None, int]:
    """How many rows a replica holds, None if it does not exist; and how many changes the count includes.

    The changes are read first: a change in between then causes one more count, instead of being missed.
    """
    changes = uncounted(connection, stored)
    return sqlite_tables.count_rows(connection, stored.replication.target_table), changes


def save_row_count(connection: apsw.Connection, stored: StoredReplication, rows: int | None, changes: int) -> None:
    """Store a count, unless the replication has another target by now."""
    connection.execute(
        "UPDATE tmp_replication_configs SET row_count = ?, uncounted = uncounted - ? WHERE id = ? AND target_table = ?",
        (rows, changes, stored.id, stored.replication.target_table),
    )


class Store:
    """The functions above, each in its own transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def get(self, name: str) -> StoredReplication:
        return await self.database.read(lambda connection: get(connection, name))

    async def all(self) -> list[StoredReplication]:
        return await self.database.read(all_of)

    async def position(self, stored: StoredReplication) -> Position | None:
        return await self.database.read(lambda connection: load_position(connection, stored))

    async def record(self, run: SyncRun, outcome: Outcome = Outcome()) -> None:
        await self.database.write(lambda connection: record(connection, run, outcome))

    async def logs(self, *, limit: int, name: str | None) -> list[dict[str, Any]]:
        return await self.database.read(lambda connection: logbook.logs(connection, limit=limit, name=name))


def _run_id(text: str | None) -> str | None:
    """Of a stored run, only what tells it from others: it is compared for each batch."""
    return str(json.loads(text)["run_id"]) if text else None
