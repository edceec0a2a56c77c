"""The tmp_replication_* tables: configurations, secrets, positions, the record of runs.

Plain functions of an APSW connection, so that a caller may put several into one transaction; `Store` runs
them on the host's database. No SQL on a replica table, and no decision about when to sync.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import apsw

from starbase_data_replication.model import (
    Candidate,
    Former,
    OpenTransactions,
    Options,
    Phase,
    Position,
    Replication,
    RunKind,
    SchemaFingerprint,
    SyncRun,
    UnrecordedRun,
)
from starbase_data_replication.storage import logbook, sqlite_tables
from starbase_data_replication.storage.encryption import dump, load, overwriting
from starbase_host import Conflict, Database, NotFound, iso


@dataclass(frozen=True, kw_only=True)
class StoredReplication:
    """A replication as it is stored, with what is known of its runs.

    id: the number of its row; it never changes.
    revision: rises whenever the configuration is saved.
    replication: the configuration; secrets are encrypted if there is a key.
    masked_source_config: the settings of the source with `***` for each secret.
    created_at, updated_at: when the configuration was first and last saved, ISO 8601 UTC.
    floor: the watermark above which every sync reads, as the source's text; None before there is one.
    last_sync_timestamp: when the last sync succeeded, ISO 8601 UTC.
    last_success_at: the same, seconds since 1970.
    last_error: why the last run failed, as text; kept when a later run succeeds.
    last_error_at: when that was, seconds since 1970.
    consecutive_failures: syncs that have failed since the last that succeeded.
    degraded_since: when the first of them failed, seconds since 1970; None while syncs succeed.
    row_count: rows of the replica when they were last counted; None if they never were.
    uncounted: transactions that have changed the replica since then.
    protection: how the floor is protected from late commits, in words.
    warnings: what the last successful sync warned of.
    last_verify: what the last verification found, as it is shown; None before the first.
    floor_held: what the floor waits for, as it is shown; None while it rises.
    unrecorded_run: the run under way, or one that was cut short by the host's end.
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


class Superseded(Conflict):
    """A run found that the configuration it began with is no longer the current one."""

    code = "superseded"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run leaves behind beside its own record. None keeps what is stored, but for `held`."""

    floor: str | None = None
    protection: str | None = None
    verified: Mapping[str, Any] | None = None
    held: Mapping[str, Any] | None = None


_COLUMNS = (
    "c.id", "c.name", "c.target_table", "c.source_table", "c.sync_interval_minutes", "c.tracking_column",
    "c.last_sync_value", "c.last_sync_timestamp", "c.is_active", "c.created_at", "c.updated_at", "c.last_success_at",
    "c.last_error", "c.last_error_at", "c.consecutive_failures", "c.row_count", "c.protection", "c.warnings",
    "c.last_verify", "c.degraded_since", "c.running", "c.uncounted", "c.floor_held", "c.options", "c.revision",
    "c.source_config", "s.source_config",
)  # fmt: skip

_SELECT = f"""
SELECT {", ".join(_COLUMNS)}
FROM tmp_replication_configs c JOIN tmp_replication_secrets s ON s.config_id = c.id
"""


def find(connection: apsw.Connection, name: str) -> StoredReplication | None:
    """A replication by its exact name."""
    row = connection.execute(f"{_SELECT} WHERE c.name = ?", (name,)).fetchone()
    return _stored(row) if row is not None else None


def get(connection: apsw.Connection, name: str) -> StoredReplication:
    """The same, or NotFound."""
    found = find(connection, name)
    if found is None:
        raise NotFound(f"no replication is named {name}")
    return found


def all_of(connection: apsw.Connection) -> list[StoredReplication]:
    """Every replication, by name."""
    return [_stored(row) for row in connection.execute(f"{_SELECT} ORDER BY c.name")]


def of_group(connection: apsw.Connection, group: str) -> list[StoredReplication]:
    """Those of a group, by name."""
    rows = connection.execute(f"{_SELECT} WHERE json_extract(c.options, '$.group') = ? ORDER BY c.name", (group,))
    return [_stored(row) for row in rows]


def targets(connection: apsw.Connection) -> list[tuple[str, str]]:
    """Name and target table of every replication, without taking a thousand configurations apart."""
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
    # Whatever the target it comes back to one day holds then, it is not what the position speaks of.
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
    """Note when the run that begins now was due."""
    connection.execute("UPDATE tmp_replication_configs SET last_due_at = ? WHERE name = ?", (due_at, name))


def load_position(connection: apsw.Connection, stored: StoredReplication) -> Position | None:
    found = connection.execute("SELECT position FROM tmp_replication_positions WHERE config_id = ?", (stored.id,)).get
    return _position(json.loads(found)) if found is not None else None


def save_position(connection: apsw.Connection, stored: StoredReplication, position: Position) -> None:
    """Belongs into the transaction of the rows, after check_current."""
    connection.execute(
        "INSERT INTO tmp_replication_positions VALUES (?, ?) "
        "ON CONFLICT (config_id) DO UPDATE SET position = excluded.position",
        (stored.id, json.dumps(_plain(position))),
    )


def delete_position(connection: apsw.Connection, stored: StoredReplication) -> None:
    """Forget how far it has come: the next run starts over."""
    connection.execute("DELETE FROM tmp_replication_positions WHERE config_id = ?", (stored.id,))


def owns_target(connection: apsw.Connection, name: str) -> bool:
    """Whether the table of that name is the one that this plugin has made its own, and not another in its place."""
    found = connection.execute("SELECT tag FROM tmp_replication_targets WHERE name = ?", (name,)).fetchone()
    if found is None:
        return False
    # One that was made before tables had a tag is known by its name.
    return (
        sqlite_tables.exists(connection, name)
        if found[0] is None
        else found[0] == sqlite_tables.tag_of(connection, name)
    )


def own_target(connection: apsw.Connection, name: str) -> None:
    """From now on, the table of that name is this one."""
    connection.execute(
        "INSERT INTO tmp_replication_targets VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET tag = excluded.tag",
        (name, sqlite_tables.tag_of(connection, name)),
    )


def check_current(connection: apsw.Connection, stored: StoredReplication) -> None:
    """A run may write only as long as it has not been recorded, and the configuration is the one it began with.

    What it has sent to a source or a plugin may be answered long after it was interrupted, and another has begun.
    """
    found = connection.execute(
        "SELECT revision, running FROM tmp_replication_configs WHERE id = ?", (stored.id,)
    ).fetchone()
    if found is None or found[0] != stored.revision:
        raise Superseded(f"the configuration of {stored.name} changed during the run")
    if _run_id(found[1]) != (stored.unrecorded_run.run_id if stored.unrecorded_run is not None else None):
        raise Superseded(f"the run of {stored.name} has ended")


def begin_run(connection: apsw.Connection, name: str, run_id: str, kind: RunKind, *, now: float) -> None:
    """Note that a run is under way, so that a host that is killed finds it when it starts again."""
    running = json.dumps({"run_id": run_id, "kind": kind, "started_at": now})
    connection.execute("UPDATE tmp_replication_configs SET running = ? WHERE name = ?", (running, name))


def record(connection: apsw.Connection, run: SyncRun, outcome: Outcome = Outcome()) -> None:
    """Record a run that has ended, and what it means for its replication."""
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


def changed(connection: apsw.Connection, stored: StoredReplication) -> None:
    """A replica may hold another number of rows than was counted. Belongs into the transaction that changes it."""
    connection.execute("UPDATE tmp_replication_configs SET uncounted = uncounted + 1 WHERE id = ?", (stored.id,))


def uncounted(connection: apsw.Connection, stored: StoredReplication) -> int:
    """How many transactions have changed a replica since it was counted."""
    return connection.execute("SELECT uncounted FROM tmp_replication_configs WHERE id = ?", (stored.id,)).get or 0


def count_rows(connection: apsw.Connection, stored: StoredReplication) -> tuple[int | None, int]:
    """How many rows a replica holds, None when there is none; and how many changes that takes into account.

    The changes first: one that is made in between is then counted once more, rather than never.
    """
    changes = uncounted(connection, stored)
    return sqlite_tables.count_rows(connection, stored.replication.target_table), changes


def save_row_count(connection: apsw.Connection, stored: StoredReplication, rows: int | None, changes: int) -> None:
    """Note what was counted, unless the replication has got another replica since."""
    connection.execute(
        "UPDATE tmp_replication_configs SET row_count = ?, uncounted = uncounted - ? WHERE id = ? AND target_table = ?",
        (rows, changes, stored.id, stored.replication.target_table),
    )


class Store:
    """The functions above, each in a transaction of its own."""

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


def _stored(row: tuple[Any, ...]) -> StoredReplication:
    column = dict(zip(_COLUMNS, row, strict=True))
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


def _run_id(text: str | None) -> str | None:
    """Of a stored run, only what tells it from others: it is compared for each batch."""
    return str(json.loads(text)["run_id"]) if text else None


def _parse_run(text: str | None) -> UnrecordedRun | None:
    if not text:
        return None
    plain = json.loads(text)
    return UnrecordedRun(run_id=plain["run_id"], kind=RunKind(plain["kind"]), started_at=plain["started_at"])


def _plain(position: Position) -> dict[str, Any]:
    plain = asdict(position)
    for candidate in plain["candidates"]:
        candidate["open_transactions"]["tokens"] = sorted(candidate["open_transactions"]["tokens"])
    return plain


def _position(plain: dict[str, Any]) -> Position:
    candidates = tuple(
        Candidate(
            **{
                **each,
                "open_transactions": OpenTransactions(
                    **{**each["open_transactions"], "tokens": frozenset(each["open_transactions"]["tokens"])}
                ),
            }
        )
        for each in plain["candidates"]
    )
    load_key = tuple(plain["load_key"]) if plain["load_key"] is not None else None
    fingerprint = _fingerprint(plain["fingerprint"]) if plain.get("fingerprint") is not None else None
    dropped = tuple(plain.get("dropped", ()))
    former = plain.get("former")
    former = Former(**{**former, "fingerprint": _fingerprint(former["fingerprint"])}) if former is not None else None
    changed = {
        "candidates": candidates,
        "load_key": load_key,
        "fingerprint": fingerprint,
        "dropped": dropped,
        "former": former,
    }
    return Position(**{**plain, **changed, "phase": Phase(plain["phase"])})


def _fingerprint(plain: dict[str, Any]) -> SchemaFingerprint:
    columns = {name: tuple(facts) for name, facts in plain["columns"].items()}
    return SchemaFingerprint(**{**plain, "columns": columns, "key": tuple(plain["key"])})
