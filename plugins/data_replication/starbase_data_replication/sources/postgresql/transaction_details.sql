-- What this role may see of the sessions of open transactions: $1 their virtual ids, $4 the pids of sessions inside a
-- message, $2 the ids of prepared transactions, at most $3. No query text, because it may contain values. Without
-- pg_read_all_stats, a role sees neither the state of another role's session nor when its transaction began.
SELECT 'pid ' || l.pid::text AS session,
       a.state AS state,
       a.xact_start AT TIME ZONE 'UTC' AS since,
       a.xact_start IS NULL AS hidden
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock'
  AND (l.virtualxid = ANY ($1::text[]) OR l.pid = ANY ($4::text[]::int4[]))
UNION ALL
SELECT 'prepared transaction ' || p.transaction::text, 'prepared', p.prepared AT TIME ZONE 'UTC', false
FROM pg_catalog.pg_prepared_xacts p
WHERE p.transaction::text = ANY ($2::text[])
ORDER BY 3 NULLS LAST, 1
LIMIT $3
