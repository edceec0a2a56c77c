-- Which server this is, as an expression. A copy that was promoted to a primary, and one that was restored to an earlier
-- moment, write in another timeline; a restart changes nothing. Only a primary shows at once which timeline it writes
-- in.
(SELECT (SELECT s.system_identifier FROM pg_catalog.pg_control_system() s)::text || '/' || CASE
    WHEN pg_catalog.pg_is_in_recovery()
    THEN (SELECT pg_catalog.to_hex(c.timeline_id) FROM pg_catalog.pg_control_checkpoint() c)
    ELSE pg_catalog.lower(pg_catalog.ltrim(
        pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8), '0')) END)
