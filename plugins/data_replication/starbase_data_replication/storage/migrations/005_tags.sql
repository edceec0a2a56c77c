-- A replica has its tag in an index of its own, no longer in its definition, which can be copied.

UPDATE tmp_replication_targets SET tag = NULL;                       -- they get one at their next sync
