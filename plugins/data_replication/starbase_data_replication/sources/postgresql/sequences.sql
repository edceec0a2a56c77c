-- Whether the values of a table's tracking column may come from a sequence that does not rise with transactions, or from
-- an unknown place, which protection_facts.sql then finds; and whether a trigger may set them. $1 is the table's oid, $2
-- the column's number.
SELECT
    -- The sequence of an identity column; and anything that a default or a generated column uses, except a sequence that
    -- gives one value at a time.
    coalesce((a.attidentity <> '' AND (
        SELECT true FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_sequence s ON s.seqrelid = d.objid
        WHERE d.refclassid = 'pg_catalog.pg_class'::regclass::oid AND d.refobjid = a.attrelid
          AND d.refobjsubid = a.attnum
          AND d.classid = 'pg_catalog.pg_class'::regclass::oid AND d.deptype IN ('a', 'i')
          AND (s.seqcache > 1 OR s.seqincrement <> 1 OR s.seqcycle) LIMIT 1))
    OR (a.atthasdef AND (
        SELECT true FROM pg_catalog.pg_attrdef ad
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass::oid AND d.objid = ad.oid
        LEFT JOIN pg_catalog.pg_sequence s
            ON s.seqrelid = d.refobjid AND d.refclassid = 'pg_catalog.pg_class'::regclass::oid
        WHERE ad.adrelid = a.attrelid AND ad.adnum = a.attnum
          AND (d.refobjid <> a.attrelid OR d.refobjsubid <> a.attnum)
          AND (s.seqrelid IS NULL OR s.seqcache > 1 OR s.seqincrement <> 1 OR s.seqcycle) LIMIT 1))
    -- A sequence from which an object mapper may take blocks of ids: named after the table, or after the mapper.
    OR (NOT a.atthasdef AND a.attidentity = '' AND (
        SELECT true FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid AND s.seqincrement <> 1
        WHERE c.relnamespace = r.relnamespace AND c.relkind = 'S' AND c.relname IN (
            (r.relname::text || '_seq')::name, (r.relname::text || '_' || a.attname::text || '_seq')::name, 'hibernate_sequence')
        LIMIT 1)), false) AS suspicious,
    -- A trigger that runs before a row is inserted or updated, and may set the column.
    coalesce(r.relhastriggers AND (
        SELECT true FROM pg_catalog.pg_trigger g
        WHERE g.tgrelid = r.oid AND NOT g.tgisinternal AND g.tgtype::int4 & 3 = 3 AND g.tgtype::int4 & 20 <> 0 LIMIT 1), false)
        AS triggered
FROM pg_catalog.pg_class r
JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid
WHERE r.oid = $1::text::oid AND a.attnum = $2::int4
