-- The facts about a table, and about what it reads, that decide whether transactions protect its tracking column.
-- $1 is the schema, $2 the table, $3 the column. A row has a kind and a name, and more for a sequence: see
-- protection_facts.py.
WITH RECURSIVE relation AS (
    SELECT c.oid, c.relkind, c.relname, c.relnamespace, c.relam, c.relhassubclass
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
), inputs (oid, relkind, relam, has_children, attribute, joined) AS (
    -- The relation and everything that its rows come from: its partitions, the tables that inherit from it, and what a
    -- view selects from, at any depth. attribute: the column there that supplies the tracking values; '' if no column
    -- does, NULL if any may. The view's tree shows which column an output column is made from: for a plain column it
    -- names the table's oid and the column's number. For anything else, each column that the view refers to may supply
    -- the values. joined: the rows of pg_inherits by which a table belongs to the relation. A table that is detached
    -- and attached again may come back with other rows, and then has another row there.
    SELECT r.oid, r.relkind, r.relam, r.relhassubclass, $3::name, '' FROM relation r
    UNION
    SELECT c.oid, c.relkind, c.relam, c.relhassubclass, below.attribute, below.joined
    FROM inputs i
    CROSS JOIN LATERAL (
        SELECT h.inhrelid AS oid, i.attribute, i.joined || '@' || h.xmin::text AS joined
        FROM pg_catalog.pg_inherits h
        -- Partitions without children are left out: a table may have thousands of them.
        WHERE h.inhparent = i.oid AND i.has_children
        UNION ALL
        SELECT d.refobjid,
               CASE WHEN i.attribute = '' THEN ''::name
                    WHEN origin.columns IS NULL OR '0.0' = ANY (origin.columns) THEN a.attname
                    WHEN d.refobjid::text || '.' || d.refobjsubid::text = ANY (origin.columns) THEN a.attname
                    ELSE ''::name END,
               i.joined
        FROM pg_catalog.pg_rewrite w
        CROSS JOIN LATERAL (
            SELECT pg_catalog.array_agg(o.pair[1] || '.' || o.pair[2]) AS columns
            FROM pg_catalog.regexp_matches(
                w.ev_action::text,
                ':resname ' || i.attribute::text || ' :ressortgroupref \d+ :resorigtbl (\d+) :resorigcol (\d+)', 'g'
            ) AS o (pair)
            WHERE i.attribute::text ~ '^[A-Za-z_]\w*$' AND pg_catalog.strpos(w.ev_action::text, '{SETOPERATIONSTMT') = 0
        ) origin
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass::oid AND d.objid = w.oid
            AND d.refclassid = 'pg_catalog.pg_class'::regclass::oid AND d.refobjid <> w.ev_class
        LEFT JOIN pg_catalog.pg_attribute a
            ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
        WHERE w.ev_class = i.oid AND w.ev_type = '1' AND i.relkind IN ('v', 'm')
    ) below
    JOIN pg_catalog.pg_class c ON c.oid = below.oid
), above (oid) AS (
    -- The tables that these are partitions of, too: a row that is written to such a table goes into a partition.
    SELECT i.oid FROM inputs i
    UNION
    SELECT h.inhparent
    FROM above a
    JOIN pg_catalog.pg_class c ON c.oid = a.oid AND c.relispartition
    JOIN pg_catalog.pg_inherits h ON h.inhrelid = a.oid
)
SELECT DISTINCT CASE i.relkind WHEN 'f' THEN 'foreign' ELSE 'materialized' END AS kind,
       i.oid::regclass::text AS name, NULL::int8 AS cache, NULL::int8 AS increment, NULL::bool AS cycles
FROM inputs i WHERE i.relkind IN ('f', 'm')
UNION ALL
SELECT DISTINCT 'method', m.amname::text, NULL::int8, NULL::int8, NULL::bool
FROM inputs i JOIN pg_catalog.pg_am m ON m.oid = i.relam
WHERE i.relkind IN ('r', 'p') AND m.amname <> 'heap'
UNION ALL
SELECT DISTINCT 'subscribed', s.srrelid::regclass::text, NULL::int8, NULL::int8, NULL::bool
FROM pg_catalog.pg_subscription_rel s
WHERE s.srrelid IN (SELECT a.oid FROM above a)
UNION ALL
-- A tool that applies another server's transactions creates a replication origin. So does the same tool in another
-- database of this server, so an origin alone does not prove that this table is affected.
SELECT 'applied', e.extname::text, NULL, NULL, NULL
FROM pg_catalog.pg_extension e
WHERE e.extname IN ('pglogical', 'bdr', 'spock')
  AND EXISTS (SELECT 1 FROM pg_catalog.pg_replication_origin o WHERE o.roname NOT LIKE 'pg\_%')
UNION ALL
SELECT 'distributed', e.extname::text, NULL, NULL, NULL
FROM pg_catalog.pg_extension e
WHERE e.extname = 'citus'
UNION ALL
-- A view without a known table of this database below it: it reads functions, VALUES or the catalogue.
SELECT DISTINCT 'bottomless', i.oid::regclass::text, NULL::int8, NULL::int8, NULL::bool
FROM inputs i
WHERE i.relkind = 'v' AND NOT EXISTS (
    SELECT 1 FROM pg_catalog.pg_rewrite w
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass::oid AND d.objid = w.oid
        AND d.refclassid = 'pg_catalog.pg_class'::regclass::oid AND d.refobjid <> w.ev_class
    WHERE w.ev_class = i.oid AND w.ev_type = '1')
UNION ALL
-- A view that puts several tables together.
SELECT 'joined', v.oid::regclass::text, NULL, NULL, NULL
FROM (SELECT DISTINCT i.oid FROM inputs i WHERE i.relkind = 'v') v
JOIN pg_catalog.pg_rewrite w ON w.ev_class = v.oid AND w.ev_type = '1'
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass::oid AND d.objid = w.oid
    AND d.refclassid = 'pg_catalog.pg_class'::regclass::oid AND d.refobjid <> w.ev_class
GROUP BY v.oid HAVING pg_catalog.count(DISTINCT d.refobjid) > 1
UNION ALL
-- How a view combines the rows that it reads, by its tree: a row may appear in it because another row changed.
SELECT DISTINCT picked.kind, i.oid::regclass::text, NULL::int8, NULL::int8, NULL::bool
FROM (SELECT DISTINCT i.oid FROM inputs i WHERE i.relkind = 'v') i
JOIN pg_catalog.pg_rewrite w ON w.ev_class = i.oid AND w.ev_type = '1'
CROSS JOIN LATERAL (SELECT w.ev_action::text AS tree) AS view
CROSS JOIN LATERAL (
    VALUES ('aggregated', view.tree ~ ':hasAggs true'),
           ('windowed', view.tree ~ ':hasWindowFuncs true'),
           ('grouped', view.tree ~ ':(groupClause|groupingSets) [^<]'),
           ('distinct', view.tree ~ ':distinctClause [^<]'),
           ('limited', view.tree ~ ':limit(Offset|Count) [^<]'),
           ('compared', view.tree ~ '{SETOPERATIONSTMT :op ([23]|1 :all false)'),
           -- Before 16 the view itself is there twice as well.
           ('repeated', (SELECT count(*) > pg_catalog.count(DISTINCT m.part[1])
                         FROM pg_catalog.regexp_matches(view.tree, ':rtekind 0 :relid (\d+)', 'g') AS m (part)
                         WHERE m.part[1] <> i.oid::text))
) AS picked (kind, found)
WHERE picked.found
UNION ALL
-- A column that an expression makes: one of a view, of whose origin its tree knows no table, and a generated one. The
-- branches of a UNION have names of their own.
SELECT DISTINCT 'computed', i.oid::regclass::text || '.' || pg_catalog.quote_ident(a.attname), NULL::int8, NULL::int8,
       NULL::bool
FROM inputs i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.oid AND a.attname = i.attribute AND a.attnum > 0
LEFT JOIN pg_catalog.pg_rewrite w ON w.ev_class = i.oid AND w.ev_type = '1' AND i.relkind IN ('v', 'm')
WHERE pg_catalog.to_jsonb(a) ->> 'attgenerated'::text IN ('s', 'v') OR w.oid IS NOT NULL AND EXISTS (
    SELECT 1 FROM pg_catalog.regexp_matches(
        w.ev_action::text,
        ':resno ' || a.attnum::text || ' :resname ' || CASE
            WHEN i.attribute::text ~ '^[A-Za-z_]\w*$' AND pg_catalog.strpos(w.ev_action::text, '{SETOPERATIONSTMT') = 0
            THEN i.attribute::text ELSE '(?:\\.|[^\s\\])+' END || ' :ressortgroupref \d+ :resorigtbl (\d+)', 'g'
    ) AS m (part)
    WHERE m.part[1] = '0')
UNION ALL
SELECT DISTINCT 'function', p.oid::regproc::text, NULL::int8, NULL::int8, NULL::bool
FROM inputs i
JOIN pg_catalog.pg_rewrite w ON w.ev_class = i.oid AND w.ev_type = '1'
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass::oid AND d.objid = w.oid
    AND d.refclassid = 'pg_catalog.pg_proc'::regclass::oid
JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
WHERE i.relkind IN ('v', 'm') AND (p.proretset OR p.provolatile <> 'i')
UNION ALL
-- What the column's default is, or its domain's.
SELECT DISTINCT 'given', COALESCE(pg_catalog.pg_get_expr(ad.adbin, ad.adrelid), t.typdefault), NULL::int8, NULL::int8,
       NULL::bool
FROM inputs i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.oid AND a.attname = i.attribute
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
WHERE ad.oid IS NOT NULL OR t.typdefault IS NOT NULL
UNION ALL
-- A function in the column's default, and a trigger whose function asks a sequence that it does not name.
SELECT DISTINCT 'default', p.oid::regproc::text, NULL::int8, NULL::int8, NULL::bool
FROM inputs i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.oid AND a.attname = i.attribute
JOIN pg_catalog.pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass::oid AND d.objid = ad.oid
    AND d.refclassid = 'pg_catalog.pg_proc'::regclass::oid
JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid AND p.provolatile <> 'i'
UNION ALL
SELECT DISTINCT 'default', 'nextval by a text', NULL::int8, NULL::int8, NULL::bool
FROM inputs i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.oid AND (i.attribute IS NULL OR a.attname = i.attribute)
JOIN pg_catalog.pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
    AND pg_catalog.pg_get_expr(ad.adbin, ad.adrelid) ~ 'nextval\((?!''([^'']|'''')*''::regclass\))'
UNION ALL
-- A trigger whose function calls others, or cannot be read, may take a value from a sequence there.
SELECT DISTINCT 'trigger', p.oid::regproc::text, NULL::int8, NULL::int8, NULL::bool
FROM inputs i
JOIN pg_catalog.pg_trigger t ON t.tgrelid = i.oid AND NOT t.tgisinternal AND t.tgtype::int4 & 3 = 3 AND t.tgtype::int4 & 20 <> 0
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_language u ON u.oid = p.prolang
WHERE i.attribute IS DISTINCT FROM ''
  AND (u.lanname NOT IN ('plpgsql', 'internal')
    OR p.prosrc ~* '\mexecute\M'
    OR EXISTS (
        SELECT 1 FROM pg_catalog.pg_proc h
        JOIN pg_catalog.pg_namespace n ON n.oid = h.pronamespace
            AND n.nspname NOT IN ('pg_catalog', 'information_schema')
        WHERE h.provolatile <> 'i' AND h.prorettype <> 'pg_catalog.trigger'::regtype::oid
          AND pg_catalog.strpos(pg_catalog.lower(pg_catalog.regexp_replace(p.prosrc, '"?\s*\(', '(', 'g')),
                                pg_catalog.lower(h.proname::text) || '(') > 0)
    OR (SELECT count(*) FROM pg_catalog.regexp_matches(p.prosrc, 'nextval', 'gi'))
     > (SELECT pg_catalog.count(pg_catalog.to_regclass(m.part[1])) FROM pg_catalog.regexp_matches(
           p.prosrc, 'nextval\s*\(\s*''([a-z_]\w*(?:\.[a-z_]\w*)?)''', 'gi') AS m (part)))
UNION ALL
-- A view that asks the time, by a function or by a word of SQL.
SELECT DISTINCT 'clock', i.oid::regclass::text, NULL::int8, NULL::int8, NULL::bool
FROM inputs i
JOIN pg_catalog.pg_rewrite w ON w.ev_class = i.oid AND w.ev_type = '1'
WHERE i.relkind = 'v' AND w.ev_action::text ~ '\{SQLVALUEFUNCTION|:funcid (1299|2647|2648|2649|274|1598) '
UNION ALL
-- The sequence of an identity or serial column, and one that is not the column's own: called by its default, by its
-- domain's, by that of a column which it is generated from, or by a trigger.
SELECT DISTINCT 'sequence', s.seqrelid::regclass::text, s.seqcache, s.seqincrement, s.seqcycle
FROM inputs i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND (i.attribute IS NULL OR a.attname = i.attribute OR a.attnum IN (
        SELECT d.refobjsubid
        FROM pg_catalog.pg_attribute made
        JOIN pg_catalog.pg_attrdef ad ON ad.adrelid = made.attrelid AND ad.adnum = made.attnum
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass::oid AND d.objid = ad.oid
            AND d.refclassid = 'pg_catalog.pg_class'::regclass::oid AND d.refobjid = made.attrelid
        WHERE made.attrelid = i.oid AND made.attname = i.attribute))
CROSS JOIN LATERAL (
    SELECT d.objid AS oid FROM pg_catalog.pg_depend d
    WHERE d.refclassid = 'pg_catalog.pg_class'::regclass::oid AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
      AND d.classid = 'pg_catalog.pg_class'::regclass::oid AND d.deptype IN ('a', 'i')
    UNION ALL
    SELECT d.refobjid FROM pg_catalog.pg_attrdef ad
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass::oid AND d.objid = ad.oid
      AND d.refclassid = 'pg_catalog.pg_class'::regclass::oid
    WHERE ad.adrelid = a.attrelid AND ad.adnum = a.attnum
    UNION ALL
    SELECT d.refobjid FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_type'::regclass::oid AND d.objid = a.atttypid
      AND d.refclassid = 'pg_catalog.pg_class'::regclass::oid
    UNION ALL
    SELECT pg_catalog.to_regclass(m.part[1])::oid
    FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    CROSS JOIN pg_catalog.regexp_matches(
        p.prosrc, 'nextval\s*\(\s*''([a-z_]\w*(?:\.[a-z_]\w*)?)''', 'gi') AS m (part)
    WHERE t.tgrelid = a.attrelid AND NOT t.tgisinternal AND t.tgtype::int4 & 3 = 3 AND t.tgtype::int4 & 20 <> 0
) fed
JOIN pg_catalog.pg_sequence s ON s.seqrelid = fed.oid
WHERE i.relkind IN ('r', 'p', 'f')
UNION ALL
-- The sequence from which an object mapper takes whole blocks of ids for a table whose column has no default: it
-- steps by the length of a block, and is called after the table, or after the mapper.
SELECT 'pool', s.seqrelid::regclass::text, s.seqcache, s.seqincrement, s.seqcycle
FROM relation r
JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attname = $3 AND NOT a.atthasdef AND a.attidentity = ''
    AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype::oid)
JOIN pg_catalog.pg_class c ON c.relnamespace = r.relnamespace AND c.relkind = 'S' AND c.relname IN (
    (r.relname::text || '_seq')::name, (r.relname::text || '_' || a.attname::text || '_seq')::name, 'hibernate_sequence')
JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid AND pg_catalog.abs(s.seqincrement) > 1
WHERE r.relkind IN ('r', 'p')
UNION ALL
-- Nothing in these tables assigns the column's values.
SELECT 'unassigned', '', NULL::int8, NULL::int8, NULL::bool
WHERE NOT EXISTS (
    SELECT 1
    FROM inputs i
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.oid AND a.attnum > 0
        AND (i.attribute IS NULL OR a.attname = i.attribute)
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE i.relkind IN ('r', 'p', 'f')
      AND (a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL OR EXISTS (
          SELECT 1 FROM pg_catalog.pg_trigger t
          WHERE t.tgrelid = i.oid AND NOT t.tgisinternal AND t.tgtype::int4 & 3 = 3 AND t.tgtype::int4 & 20 <> 0)))
UNION ALL
-- The files that hold the rows: the table's oid, how the table is joined, and the file's number.
SELECT DISTINCT 'file', i.oid::text || i.joined, pg_catalog.pg_relation_filenode(i.oid)::int8, NULL::int8, NULL::bool
FROM inputs i WHERE i.relkind IN ('r', 'm')
UNION ALL
-- One hash of the queries of all views among them.
SELECT 'query', pg_catalog.md5(pg_catalog.string_agg(q.text, ';' ORDER BY q.text)), NULL::int8, NULL::int8, NULL::bool
FROM (SELECT DISTINCT i.oid::regclass::text || ': ' || pg_catalog.pg_get_viewdef(i.oid) AS text
      FROM inputs i WHERE i.relkind = 'v') AS q
HAVING count(*) > 0
