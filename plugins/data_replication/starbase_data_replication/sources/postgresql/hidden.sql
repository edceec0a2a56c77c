-- What hides rows of a table or view, by its oid ($1), from the role that reads: one row. policed: a policy applies.
-- hidden: the tables of which one may hide rows. asking: the views that ask who reads them. reader: the role.
WITH RECURSIVE seen (oid, relkind, role) AS (
    -- The relation and the tables that its views read, with the role whose policies apply there: the role that reads,
    -- and below a view the view's owner, unless the view has security_invoker. The policies of partitions and children
    -- do not apply when their parent is read.
    SELECT r.oid, r.relkind, u.oid
    FROM pg_catalog.pg_class r, pg_catalog.pg_roles u
    WHERE r.oid = $1::text::oid AND u.rolname = current_user
    UNION
    SELECT b.oid, b.relkind, CASE WHEN v.reloptions::text ~* 'security_invoker=(true|on|yes|1)[,}]'
                                  THEN (SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname = current_user)
                                  ELSE v.relowner END
    FROM seen s
    JOIN pg_catalog.pg_class v ON v.oid = s.oid AND v.relkind IN ('v', 'm')
    JOIN pg_catalog.pg_rewrite w ON w.ev_class = v.oid
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass::oid AND d.objid = w.oid
                               AND d.refclassid = 'pg_catalog.pg_class'::regclass::oid AND d.refobjid <> v.oid
    JOIN pg_catalog.pg_class b ON b.oid = d.refobjid AND b.relkind IN ('r', 'p', 'v', 'm', 'f')
), policy (oid, role, permissive, everything) AS (
    SELECT s.oid, s.role, p.polpermissive, coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'true') = 'true'
    FROM seen s
    JOIN pg_catalog.pg_policy p ON p.polrelid = s.oid AND p.polcmd IN ('r', '*')
    WHERE EXISTS (SELECT 1 FROM pg_catalog.unnest(p.polroles) AS to_role (oid)
                  WHERE CASE to_role.oid WHEN 0::oid THEN true ELSE pg_catalog.pg_has_role(s.role, to_role.oid, 'USAGE') END)
), policed (name, everything) AS (
    SELECT s.oid::regclass::text,
           EXISTS (SELECT 1 FROM policy p
                   WHERE p.oid = s.oid AND p.role = s.role AND p.permissive AND p.everything)
           AND NOT EXISTS (SELECT 1 FROM policy p
                           WHERE p.oid = s.oid AND p.role = s.role AND NOT p.permissive AND NOT p.everything)
    FROM seen s
    JOIN pg_catalog.pg_class c ON c.oid = s.oid AND c.relrowsecurity
    JOIN pg_catalog.pg_roles u ON u.oid = s.role AND NOT u.rolsuper AND NOT u.rolbypassrls
    WHERE c.relforcerowsecurity OR NOT pg_catalog.pg_has_role(s.role, c.relowner, 'USAGE')
)
SELECT EXISTS (SELECT 1 FROM policed) AS policed,
       (SELECT pg_catalog.string_agg(DISTINCT p.name, ', ') FROM policed p WHERE NOT p.everything) AS hidden,
       -- Quoted names and texts are left out of what is searched.
       (SELECT pg_catalog.string_agg(s.oid::regclass::text, ', ') FROM seen s
        WHERE s.relkind = 'v'
          AND pg_catalog.regexp_replace(pg_catalog.pg_get_viewdef(s.oid), '''[^'']*''|"[^"]*"', '', 'g')
              ~ '\m(CURRENT_USER|SESSION_USER|CURRENT_ROLE|USER|current_setting)\M') AS asking,
       current_user::text AS reader
