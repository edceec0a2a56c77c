-- One row for each column of a table, in its order. $1 is the schema, $2 the table, $3 its tracking column.
-- base_* follow a domain down to its base type, and element_* an array's elements down to theirs; a kind
-- is pg_type.typtype, or a for an array. key_position counts from 1 within the key that
-- identifies a row: the primary key, else the smallest unique index that is immediate, whole (no WHERE),
-- on plain columns and without NULLs. may_hide: whether hidden.sql is to be asked what hides rows. may_have_children: by
-- inheritance, whose rows the key does not cover. indexed: an index begins with the column; assigned: a sequence counts it
-- up. may_be_unprotected, in the tracking column's row: whether anything may keep the source's transactions from
-- protecting it; may_be_sequence: whether its values may come from a sequence, so that sequences.sql must be run too.
-- protection_facts.sql finds what it is. A statement is planned at each sync, so what few tables need is not asked
-- here.
WITH RECURSIVE relation AS (
    SELECT c.oid, c.relkind, c.relpersistence, c.reltuples, c.relname, c.relnamespace, c.relam,
           c.relispartition, c.relhassubclass, c.relhastriggers
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
), unchecked AS (
    -- From 18 on a column may be NOT NULL for new rows only: a constraint that is NOT VALID.
    SELECT ARRAY(
        SELECT o.conkey[1] FROM pg_catalog.pg_constraint o
        WHERE o.conrelid = (SELECT r.oid FROM relation r) AND o.contype = 'n' AND NOT o.convalidated) AS columns
), given AS (
    SELECT d.adnum, pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS expression
    FROM pg_catalog.pg_attrdef d WHERE d.adrelid = (SELECT r.oid FROM relation r)
), first AS (
    -- The columns that usable indexes begin with.
    SELECT ARRAY(
        SELECT i.indkey[0] FROM pg_catalog.pg_index i
        WHERE i.indrelid = (SELECT r.oid FROM relation r) AND i.indisvalid AND i.indpred IS NULL) AS columns
), identifying AS (
    SELECT i.indexrelid, i.indkey
    FROM relation r
    JOIN pg_catalog.pg_index i ON i.indrelid = r.oid
    WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
      AND NOT EXISTS (
        SELECT 1 FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = r.oid AND (NOT a.attnotnull OR a.attnum = ANY ((SELECT u.columns FROM unchecked u)::int2[]))
          AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
    ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
    LIMIT 1
), key_column AS (
    SELECT k.attnum, k.position
    FROM identifying
    JOIN pg_catalog.pg_index i ON i.indexrelid = identifying.indexrelid,
    LATERAL pg_catalog.unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (attnum, position)
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
       a.attnotnull AND a.attnum <> ALL ((SELECT u.columns FROM unchecked u)::int2[]) AS not_null,
       a.attnum = ANY ((SELECT f.columns FROM first f)::int2[]) AS indexed,
       a.attidentity <> '' OR coalesce(given.expression LIKE 'nextval(%', false) AS assigned,
       CASE WHEN a.attname = $3 THEN given.expression END AS value_default,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS source_type,
       t.typname::text AS base_name,
       CASE WHEN e.oid IS NOT NULL THEN 'a' ELSE t.typtype::text END AS base_kind,
       tn.nspname::text AS base_schema,
       -- With -1 as its modifier, a type's name does not mean a length of one, as plain "character" and "bit" do.
       pg_catalog.format_type(t.oid, -1) AS base_type,
       CASE WHEN t.oid IN ('timestamp'::regtype::oid, 'timestamptz'::regtype::oid) AND b.typmod >= 0
            THEN b.typmod ELSE NULL END AS time_digits,
       -- Precision and scale; a scale is of eleven bits, and signed.
       CASE WHEN t.oid = 'numeric'::regtype::oid AND b.typmod >= 4 THEN (b.typmod - 4) >> 16 END AS numeric_precision,
       CASE WHEN t.oid = 'numeric'::regtype::oid AND b.typmod >= 4
            THEN (((b.typmod - 4) & 2047) # 1024) - 1024 END AS numeric_scale,
       et.typname::text AS element_name,
       en.nspname::text AS element_schema,
       CASE WHEN (SELECT true FROM pg_catalog.pg_type i WHERE i.typarray = et.oid LIMIT 1)
            THEN 'a' ELSE et.typtype::text END AS element_kind,
       k.position::int4 AS key_position,
       r.relkind = 'r' AND r.relhassubclass AS may_have_children,
       pg_catalog.has_column_privilege(r.oid, a.attnum, 'SELECT') AS readable,
       a.attname = $3 AND (
           -- Not by EXISTS, here and above: it costs the planner twice as much.
           r.relkind <> 'r' OR r.relhassubclass OR r.relispartition
           -- 2 is heap's, 0 what servers before 12 have.
           OR r.relam NOT IN (0::oid, 2::oid)
           OR (SELECT true FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = r.oid LIMIT 1)
           OR (SELECT true FROM pg_catalog.pg_extension x
                   WHERE x.extname IN ('citus', 'pglogical', 'bdr', 'spock') LIMIT 1)
           -- A domain may have a default.
           OR a.atttypid <> b.oid
           -- A default that finds its sequence by a text, of which the catalogue knows nothing.
           OR coalesce(given.expression ~ 'nextval\((?!''([^'']|'''')*''::regclass\))', false)
       ) AS may_be_unprotected,
       -- A time or a uuid is not taken from a sequence, so only a default, or what generates it, may speak against one;
       -- without a default, a trigger may give it.
       a.attname = $3 AND CASE
           WHEN t.oid IN ('timestamptz'::regtype::oid, 'timestamp'::regtype::oid, 'date'::regtype::oid, 'uuid'::regtype::oid)
           THEN CASE WHEN a.atthasdef
                     THEN given.expression NOT IN ('now()', 'CURRENT_TIMESTAMP', 'transaction_timestamp()')
                     ELSE r.relhastriggers END
           ELSE true END AS may_be_sequence,
       -- describe.py puts the expression of server.sql here, if this role may run it.
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
LEFT JOIN given ON given.adnum = a.attnum
ORDER BY a.attnum
