-- Which server this is, as an expression. A copy of it that has become a primary of its own, and one that was restored to
-- a moment before, write in another timeline; a restart changes nothing. Only a primary tells at once which it writes in.
(SELECT (SELECT s.system_identifier FROM pg_catalog.pg_control_system() s)::text || '/' || CASE
    WHEN pg_catalog.pg_is_in_recovery()
    THEN (SELECT pg_catalog.to_hex(c.timeline_id) FROM pg_catalog.pg_control_checkpoint() c)
    ELSE pg_catalog.lower(pg_catalog.ltrim(
        pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8), '0')) END)
