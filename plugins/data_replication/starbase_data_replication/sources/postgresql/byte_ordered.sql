-- Which of the columns $3 of table $1.$2 are ordered by the bytes of their text.
-- to_jsonb, because servers before 15 have no datlocprovider.
SELECT a.attname::text AS name
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation
JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = ANY ($3::text[])
  AND CASE o.collprovider
      WHEN 'd' THEN d.datcollate IN ('C', 'POSIX')
                    AND coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider'::text, 'c') = 'c'
      ELSE o.collcollate IN ('C', 'POSIX') AND o.collprovider = 'c' END
