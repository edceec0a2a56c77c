-- The plugin's tables. The first columns of configs and logs are StarbaseDB's; times there are ISO 8601 UTC.

CREATE TABLE tmp_replication_configs (
    id                    INTEGER PRIMARY KEY AUTOINCREMENT,
    name                  TEXT NOT NULL UNIQUE,
    source_config         TEXT NOT NULL,               -- JSON; secrets are ***
    target_table          TEXT NOT NULL,
    source_table          TEXT NOT NULL,
    sync_interval_minutes REAL NOT NULL,
    tracking_column       TEXT NOT NULL,
    last_sync_value       TEXT,                        -- the floor, as the source's text
    last_sync_timestamp   TEXT,                        -- when the last sync succeeded
    is_active             INTEGER NOT NULL,
    created_at            TEXT NOT NULL,
    updated_at            TEXT NOT NULL,
    options               TEXT NOT NULL,               -- JSON
    revision              INTEGER NOT NULL DEFAULT 1,  -- a run of an earlier revision may not write any more
    last_success_at       REAL,                        -- seconds since 1970, like the rest below
    last_error            TEXT,
    last_error_at         REAL,
    consecutive_failures  INTEGER NOT NULL DEFAULT 0,
    last_due_at           REAL,
    row_count             INTEGER,
    protection            TEXT,
    warnings              TEXT NOT NULL DEFAULT '[]',  -- JSON, of the last run
    last_verify           TEXT,                        -- JSON, what the last verification found
    running               TEXT                         -- JSON {run_id, kind, started_at} of a run not yet recorded
);

-- The source_config as it was written, with its secrets. No query may read this table, whatever its role.
CREATE TABLE tmp_replication_secrets (
    config_id     INTEGER PRIMARY KEY,
    source_config TEXT NOT NULL
);

-- Written in the transaction of the rows that it speaks of.
CREATE TABLE tmp_replication_positions (
    config_id INTEGER PRIMARY KEY,
    position  TEXT NOT NULL                            -- JSON, see model.Position
);

-- The replica tables that this plugin has made or filled. A table of that name that is not here is somebody else's:
-- with rows in it, it is never touched.
CREATE TABLE tmp_replication_targets (
    name TEXT PRIMARY KEY COLLATE NOCASE
) WITHOUT ROWID;

CREATE TABLE tmp_replication_logs (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    config_name       TEXT NOT NULL,
    status            TEXT NOT NULL,                   -- success, error, interrupted, skipped
    records_processed INTEGER NOT NULL DEFAULT 0,
    error_message     TEXT,
    sync_duration_ms  INTEGER NOT NULL DEFAULT 0,
    created_at        TEXT NOT NULL,
    run_id            TEXT NOT NULL,
    kind              TEXT NOT NULL,                   -- scheduled, manual, reset, verify, reconcile
    started_at        TEXT NOT NULL,
    finished_at       TEXT NOT NULL,
    rows_read         INTEGER NOT NULL DEFAULT 0,
    bytes_read        INTEGER NOT NULL DEFAULT 0,
    warnings          TEXT NOT NULL DEFAULT '[]'       -- JSON
);
CREATE INDEX tmp_replication_logs_by_name ON tmp_replication_logs (config_name, id);
CREATE INDEX tmp_replication_logs_by_time ON tmp_replication_logs (created_at);
