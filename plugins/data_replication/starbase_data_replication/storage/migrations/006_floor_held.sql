-- What the floor waits for, when it has waited for long.

ALTER TABLE tmp_replication_configs ADD COLUMN floor_held TEXT;      -- JSON; NULL while it rises
