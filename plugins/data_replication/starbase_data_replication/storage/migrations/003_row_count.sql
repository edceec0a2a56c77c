-- What is known of how many rows a replica holds.

-- Transactions that have changed the replica since row_count was counted.
ALTER TABLE tmp_replication_configs ADD COLUMN uncounted INTEGER NOT NULL DEFAULT 0;
UPDATE tmp_replication_configs SET uncounted = 1;
