-- One row for each column of a table, in its order. $1 is the schema, $2 the table, $3 its tracking column.
-- base_* follow a domain down to the type that it stands on, and element_* an array's elements down to theirs; a kind
-- is pg_type.typtype, or a for an array. key_position counts from 1 within the key that
-- identifies a row: the primary key, else the smallest unique index that is immediate, whole (no WHERE),
-- on plain columns and without NULLs. may_hide: whether hidden.sql is to be asked what hides rows. may_have_children: by
-- inheritance, whose rows the key does not cover. indexed: an index begins with the column; assigned: a sequence counts it
-- up. suspect, in the tracking column's row: whether there is anything that may keep the source's transactions from
-- protecting it. Of a plain table this is all that is asked; grounds.sql finds what it is.
WITH RECURSIVE relation AS (
    SELECT c.oid, c.relkind, c.relpersistence, c.reltuples, c.relname, c.relnamespace, c.relam,
           c.relispartition, c.relhassubclass, c.relhastriggers
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
), unchecked AS (
    -- From 18 on a column may be NOT NULL for new rows only: a constraint that is NOT VALID.
    SELECT o.conkey[1] AS attnum
    FROM relation r
    JOIN pg_catalog.pg_constraint o ON o.conrelid = r.oid AND o.contype = 'n' AND NOT o.convalidated
), identifying AS (
    SELECT i.indexrelid, i.indkey
    FROM relation r
    JOIN pg_catalog.pg_index i ON i.indrelid = r.oid
    WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
      AND NOT EXISTS (
        SELECT 1 FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = r.oid AND (NOT a.attnotnull OR a.attnum IN (SELECT u.attnum FROM unchecked u))
          AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
    ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
    LIMIT 1
), key_column AS (
    SELECT k.attnum, k.position
    FROM identifying
    JOIN pg_catalog.pg_index i ON i.indexrelid = identifying.indexrelid,
    LATERAL unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (attnum, position)
), base (attnum, oid, typmod, typtype, typbasetype, typtypmod) AS (
    SELECT a.attnum, t.oid, a.atttypmod, t.typtype, t.typbasetype, t.typtypmod
    FROM relation r
    JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    UNION ALL
    SELECT b.attnum, t.oid, b.typtypmod, t.typtype, t.typbasetype, t.typtypmod
    FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.typbasetype
    WHERE b.typtype = 'd'
), element (attnum, oid, typtype, typbasetype) AS (
    SELECT b.attnum, e.oid, e.typtype, e.typbasetype
    FROM base b
    JOIN pg_catalog.pg_type e ON e.typarray = b.oid
    UNION ALL
    SELECT l.attnum, t.oid, t.typtype, t.typbasetype
    FROM element l JOIN pg_catalog.pg_type t ON t.oid = l.typbasetype
    WHERE l.typtype = 'd'
)
SELECT r.oid::text AS relation,
       r.relkind IN ('v', 'm') OR pg_catalog.row_security_active(r.oid) AS may_hide,
       r.relkind::text AS relkind,
       r.relpersistence::text AS relpersistence,
       r.reltuples::float8 AS reltuples,
       pg_catalog.pg_relation_filenode(r.oid)::text AS file,
       a.attname::text AS name,
       a.attnum::int4 AS number,
       (SELECT o.collname::text FROM pg_catalog.pg_collation o WHERE o.oid = a.attcollation) AS collation,
       a.attnotnull AND a.attnum NOT IN (SELECT u.attnum FROM unchecked u) AS not_null,
       EXISTS (SELECT 1 FROM pg_catalog.pg_index i
               WHERE i.indrelid = r.oid AND i.indkey[0] = a.attnum AND i.indisvalid AND i.indpred IS NULL) AS indexed,
       a.attidentity <> '' OR EXISTS (
           SELECT 1 FROM pg_catalog.pg_attrdef d
           WHERE d.adrelid = r.oid AND d.adnum = a.attnum
             AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%') AS assigned,
       CASE WHEN a.attname = $3 THEN (
           SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d
           WHERE d.adrelid = r.oid AND d.adnum = a.attnum) END AS value_default,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS source_type,
       t.typname::text AS base_name,
       CASE WHEN e.oid IS NOT NULL THEN 'a' ELSE t.typtype::text END AS base_kind,
       tn.nspname::text AS base_schema,
       -- With -1 as its modifier, a type's name does not mean a length of one, as plain "character" and "bit" do.
       pg_catalog.format_type(t.oid, -1) AS base_type,
       CASE WHEN t.oid IN ('timestamp'::regtype, 'timestamptz'::regtype) AND b.typmod >= 0
            THEN b.typmod ELSE NULL END AS time_digits,
       -- Precision and scale; a scale is of eleven bits, and signed.
       CASE WHEN t.oid = 'numeric'::regtype AND b.typmod >= 4 THEN (b.typmod - 4) >> 16 END AS numeric_precision,
       CASE WHEN t.oid = 'numeric'::regtype AND b.typmod >= 4
            THEN (((b.typmod - 4) & 2047) # 1024) - 1024 END AS numeric_scale,
       et.typname::text AS element_name,
       en.nspname::text AS element_schema,
       CASE WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_type i WHERE i.typarray = et.oid)
            THEN 'a' ELSE et.typtype::text END AS element_kind,
       k.position::int4 AS key_position,
       r.relkind = 'r' AND r.relhassubclass AS may_have_children,
       pg_catalog.has_column_privilege(r.oid, a.attnum, 'SELECT') AS readable,
       a.attname = $3 AND (
           -- Not by EXISTS, which costs the planner twice as much.
           r.relkind <> 'r' OR r.relhassubclass OR r.relispartition
           -- 2 is heap's, 0 what servers before 12 have.
           OR r.relam NOT IN (0, 2)
           OR (SELECT true FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = r.oid LIMIT 1)
           OR (SELECT true FROM pg_catalog.pg_extension x
                   WHERE x.extname IN ('citus', 'pglogical', 'bdr', 'spock') LIMIT 1)
           -- A domain may have a default.
           OR a.atttypid <> b.oid
           -- The sequence of an identity column; and whatever a default, or a generated column, stands on beside a sequence
           -- that gives one value at a time.
           OR (a.attidentity <> '' AND (
                   SELECT true FROM pg_catalog.pg_depend d
                   JOIN pg_catalog.pg_sequence s ON s.seqrelid = d.objid
                   WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = r.oid
                     AND d.refobjsubid = a.attnum
                     AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i')
                     AND (s.seqcache > 1 OR s.seqincrement <> 1 OR s.seqcycle) LIMIT 1))
           OR (a.atthasdef AND (
                   SELECT true FROM pg_catalog.pg_attrdef ad
                   JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = ad.oid
                   LEFT JOIN pg_catalog.pg_sequence s
                       ON s.seqrelid = d.refobjid AND d.refclassid = 'pg_catalog.pg_class'::regclass
                   WHERE ad.adrelid = r.oid AND ad.adnum = a.attnum
                     AND (d.refobjid <> r.oid OR d.refobjsubid <> a.attnum)
                     AND (s.seqrelid IS NULL OR s.seqcache > 1 OR s.seqincrement <> 1 OR s.seqcycle) LIMIT 1))
           -- A trigger that may take values before a row is inserted or updated.
           OR (r.relhastriggers AND (
                   SELECT true FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid
                   WHERE g.tgrelid = r.oid AND NOT g.tgisinternal AND g.tgtype & 3 = 3 AND g.tgtype & 20 <> 0
                     AND t.oid NOT IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype, 'uuid'::regtype)
                   LIMIT 1))
           -- A default that finds its sequence by a text, of which the catalogue knows nothing.
           OR (a.atthasdef AND (
                   SELECT true FROM pg_catalog.pg_attrdef ad
                   WHERE ad.adrelid = r.oid AND ad.adnum = a.attnum
                     AND pg_catalog.pg_get_expr(ad.adbin, ad.adrelid) ~ 'nextval\((?!''([^'']|'''')*''::regclass\))' LIMIT 1))
           -- One that an object mapper may take blocks of ids from: it is called after the table, or after the mapper.
           OR (NOT a.atthasdef AND a.attidentity = '' AND (
                   SELECT true FROM pg_catalog.pg_class c
                   JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid AND s.seqincrement <> 1
                   WHERE c.relnamespace = r.relnamespace AND c.relkind = 'S' AND c.relname IN (
                       (r.relname || '_seq')::name, (r.relname || '_' || a.attname || '_seq')::name,
                       'hibernate_sequence') LIMIT 1))
       ) AS suspect,
       -- What server.sql asks stands here, where this role may ask it.
       NULL::text AS server
FROM relation r
JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN base b ON b.attnum = a.attnum AND b.typtype <> 'd'
JOIN pg_catalog.pg_type t ON t.oid = b.oid
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
LEFT JOIN element e ON e.attnum = a.attnum AND e.typtype <> 'd'
LEFT JOIN pg_catalog.pg_type et ON et.oid = e.oid
LEFT JOIN pg_catalog.pg_namespace en ON en.oid = et.typnamespace
LEFT JOIN key_column k ON k.attnum = a.attnum
ORDER BY a.attnum
