-- One row: whether the server is a standby, since when it runs, whether it lists transactions at all, and those that are
-- alive.
--
-- lists: whether this very transaction is among them. A server that speaks PostgreSQL's protocol and is another may have
-- an empty pg_locks.
--
-- virtual: those that hold a virtual transaction id now, from their first statement to their end: visible to
-- every role, unlike pg_stat_activity.xact_start, and unlike a snapshot's xmin it counts those that have read
-- now() and written nothing yet. Left out: sessions of other databases, and our own READ ONLY transactions, which bear
-- the mark that source.py gives them: an advisory lock of the transaction, 'starbase' as a number. A session's name does
-- not do: behind a pooler, a writer has the name of whoever connected first. Where a session's database is hidden, it
-- counts.
--
-- prepared: looked up after the others, since it depends on them. One that is prepared in between is seen as
-- virtual; the other way round it would be in neither.
WITH locks AS (
    SELECT l.locktype, l.database, l.classid, l.objid, l.objsubid, l.virtualxid, l.virtualtransaction, l.pid
    FROM pg_catalog.pg_locks l
    WHERE l.granted AND (l.locktype = 'advisory' OR (l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock'))
), here AS (
    SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
), ours AS (
    SELECT l.virtualtransaction
    FROM locks l JOIN here ON here.oid = l.database
    WHERE l.locktype = 'advisory' AND l.classid = 1937006962 AND l.objid = 1650553701 AND l.objsubid = 1
)
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
                 AND (a.datid IS NULL OR a.datid = (SELECT here.oid FROM here))
                 AND NOT EXISTS (SELECT 1 FROM ours WHERE ours.virtualtransaction = l.virtualxid)
           ), '{}') AS virtual
    FROM locks l
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'virtualxid'
) alive
