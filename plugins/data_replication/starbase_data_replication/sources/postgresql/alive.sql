-- One row: whether the server is a standby, since when it runs, whether it lists transactions at all, and those that are
-- alive.
--
-- lists: whether this very transaction is among them. A server that speaks PostgreSQL's protocol and is another may have
-- an empty pg_locks.
--
-- virtual: those that hold a virtual transaction id now, from their first statement to their end: visible to
-- every role, unlike pg_stat_activity.xact_start, and unlike a snapshot's xmin it counts those that have read
-- now() and written nothing yet. Left out: sessions of other databases, and our own readers ($1), which never
-- write. Where a session's database or name is hidden, it counts.
--
-- prepared: looked up after the others, since it depends on them. One that is prepared in between is seen as
-- virtual; the other way round it would be in neither.
SELECT pg_catalog.pg_is_in_recovery() AS standby,
       pg_catalog.pg_postmaster_start_time()::text AS epoch,
       alive.lists,
       alive.virtual,
       ARRAY(SELECT p.transaction::text
             FROM pg_catalog.pg_prepared_xacts p
             WHERE p.database = pg_catalog.current_database() AND alive.virtual IS NOT NULL) AS prepared
FROM (
    SELECT coalesce(bool_or(l.pid = pg_catalog.pg_backend_pid()), false) AS lists,
           coalesce(array_agg(l.virtualxid) FILTER (
               WHERE l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
                 AND (a.datid IS NULL OR a.datid = (SELECT d.oid FROM pg_catalog.pg_database d
                                                    WHERE d.datname = pg_catalog.current_database()))
                 AND a.application_name IS DISTINCT FROM $1
           ), '{}') AS virtual
    FROM pg_catalog.pg_locks l
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted
) alive
