-- The lowest of the last values of the sequences that assign a column: its own, and those that its default calls. NULL
-- if no sequence assigns it, if one has not given a value yet, and if this role may not read one. $1 is the schema, $2
-- the table, $3 the column.
WITH assigned AS (
    SELECT a.attrelid, a.attnum
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = $3 AND NOT a.attisdropped
), last AS (
    SELECT CASE WHEN pg_catalog.has_sequence_privilege(s.seqrelid, 'SELECT, USAGE')
                THEN pg_catalog.pg_sequence_last_value(s.seqrelid) END AS value
    FROM pg_catalog.pg_sequence s
    WHERE s.seqrelid IN (
        SELECT d.objid FROM assigned a
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass::oid AND d.refobjid = a.attrelid
          AND d.refobjsubid = a.attnum AND d.classid = 'pg_catalog.pg_class'::regclass::oid AND d.deptype IN ('a', 'i')
        UNION
        SELECT d.refobjid FROM assigned a
        JOIN pg_catalog.pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass::oid AND d.objid = ad.oid
          AND d.refclassid = 'pg_catalog.pg_class'::regclass::oid)
)
SELECT CASE WHEN count(*) = pg_catalog.count(value) THEN pg_catalog.min(value) END FROM last
