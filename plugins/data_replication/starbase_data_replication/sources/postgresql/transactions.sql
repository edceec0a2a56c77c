-- One row: whether the server is a standby, since when it runs, whether it lists transactions, and the open ones.
--
-- lists: whether this transaction is among them. Other servers that speak PostgreSQL's protocol may have an empty
-- pg_locks.
--
-- virtual: transactions that hold a virtual transaction id now, from their first statement to their end. Every role can
-- see them, unlike pg_stat_activity.xact_start. Unlike a snapshot's xmin, they include those that have read now() and
-- not written yet. Not listed: sessions of other databases, and our own READ ONLY transactions, which hold the lock
-- that source.py takes: an advisory lock of the transaction, 'starbase' as a number. The application name would
-- not do: behind a pooler, a writer has the name of the first client. A session whose database is hidden counts.
--
-- sessions: those inside a message of their client, which may be several transactions (a script in one message, a
-- procedure that commits) whose now() is the message's: m: and when it began, in microseconds. Such a session counts
-- between two transactions too. For another role's session that is hidden: h: and the time in units of ten minutes.
--
-- prepared: read after the others, because it depends on them. A transaction that is prepared in between is in virtual;
-- in the other order it would be in neither.
WITH locks AS (
    SELECT l.locktype, l.database, l.classid, l.objid, l.objsubid, l.virtualxid, l.virtualtransaction, l.pid
    FROM pg_catalog.pg_locks l
    WHERE l.granted AND (l.locktype = 'advisory' OR (l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock'))
), here AS (
    SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
), ours AS (
    SELECT l.virtualtransaction
    FROM locks l JOIN here ON here.oid = l.database
    WHERE l.locktype = 'advisory' AND l.classid = 1937006962::oid AND l.objid = 1650553701::oid AND l.objsubid = 1
), open AS (
    SELECT l.virtualxid,
           coalesce(l.pid, a.pid) AS pid,
           CASE WHEN a.state = 'active' AND a.query_start IS NOT NULL THEN
                     'm:' || (EXTRACT(epoch FROM a.query_start)::float8 * 1000000::float8)::int8::text
                WHEN a.state IS NULL OR a.state IN ('active', 'disabled') THEN
                     'h:' || pg_catalog.floor(EXTRACT(epoch FROM pg_catalog.clock_timestamp())::float8 / 600::float8)::int8::text END AS message
    FROM (SELECT * FROM locks WHERE locks.locktype = 'virtualxid') l
    FULL JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE (l.virtualxid IS NOT NULL OR (a.state = 'active' AND a.backend_type = 'client backend'))
      AND (a.datid IS NULL OR a.datid = (SELECT here.oid FROM here))
      AND (l.virtualxid = ANY (ARRAY(SELECT ours.virtualtransaction FROM ours))) IS NOT TRUE
)
SELECT pg_catalog.pg_is_in_recovery() AS standby,
       pg_catalog.pg_postmaster_start_time()::text AS epoch,
       listed.lists,
       pg_catalog.array_to_string(listed.virtual, ' ') AS virtual,
       pg_catalog.array_to_string(listed.sessions, ' ') AS sessions,
       pg_catalog.array_to_string(ARRAY(
           SELECT p.transaction::text
           FROM pg_catalog.pg_prepared_xacts p
           WHERE p.database = pg_catalog.current_database() AND listed.virtual IS NOT NULL), ' ') AS prepared,
       -- After all is read: otherwise a later list in this transaction would show the same sessions.
       pg_catalog.pg_stat_clear_snapshot() AS cleared
FROM (
    SELECT (SELECT count(*) > 0 FROM locks l
            WHERE l.locktype = 'virtualxid' AND l.pid = pg_catalog.pg_backend_pid()) AS lists,
           coalesce(pg_catalog.array_agg(l.virtualxid || '#' || l.pid::text) FILTER (WHERE l.virtualxid IS NOT NULL), '{}') AS virtual,
           coalesce(pg_catalog.array_agg(l.message || '#' || l.pid::text) FILTER (WHERE l.message IS NOT NULL), '{}') AS sessions
    FROM open l
    WHERE l.pid <> pg_catalog.pg_backend_pid()
) listed
