-- Since when a replication fails, and the events that are still to be sent about that.

ALTER TABLE tmp_replication_configs ADD COLUMN degraded_since REAL;  -- NULL while its syncs succeed

CREATE TABLE tmp_replication_outbox (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    event TEXT NOT NULL                                              -- JSON, see model.ReplicationEvent
);
