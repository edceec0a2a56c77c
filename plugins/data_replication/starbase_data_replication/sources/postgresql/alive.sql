-- The transactions that hold a virtual transaction id now, from their first statement to their end: visible to
-- every role, unlike pg_stat_activity.xact_start, and unlike a snapshot's xmin it counts those that have read
-- now() and written nothing yet. Left out: sessions of other databases, and our own readers ($1), which never
-- write. Where a session's database or name is hidden, it counts.
SELECT l.virtualxid AS token
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted
  AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  AND (a.datid IS NULL
       OR a.datid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
  AND a.application_name IS DISTINCT FROM $1
