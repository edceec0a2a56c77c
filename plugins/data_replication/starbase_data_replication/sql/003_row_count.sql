-- What is known of how many rows a replica holds.

-- Runs that have changed the replica since row_count was counted.
ALTER TABLE tmp_replication_configs ADD COLUMN uncounted INTEGER NOT NULL DEFAULT 1;
