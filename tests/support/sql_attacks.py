"""What users try, as data: the statements of tests/host/test_query_sandbox.py, on the tables made there.

`tmp_vault` is private to the host, `tmp_notes` merely hidden from clients; both hold a canary.
"""

from __future__ import annotations

# Each must be answered with 403, even if it has other errors.
CLIENT_FORBIDDEN = """
SELECT * FROM tmp_notes
SELECT * FROM TMP_NOTES
SELECT * FROM "tmp_notes"
SELECT * FROM [tmp_notes]
SELECT * FROM `tmp_notes`
SELECT * FROM 'tmp_notes'
SELECT * FROM main.tmp_notes
SELECT * FROM "MAIN"."Tmp_Notes" AS harmless
SELECT hushed FROM tmp_notes
SELECT no_such_column FROM tmp_notes
SELECT tmp_notes.no_such_column FROM tmp_notes
SELECT rowid FROM tmp_notes
SELECT count(*) FROM tmp_notes
SELECT 1 FROM tmp_notes
SELECT 1 FROM tmp_notes LIMIT 0
SELECT * FROM tmp_does_not_exist
SELECT * FROM tmp_vault
SELECT count(*) FROM tmp_vault
SELECT o.id FROM orders o, tmp_notes
SELECT o.id FROM orders o JOIN tmp_notes n ON n.id = o.id
SELECT o.id FROM orders o LEFT JOIN tmp_notes n ON n.id = o.id
SELECT o.id FROM orders o LEFT JOIN tmp_notes ON 1
SELECT o.id FROM orders o RIGHT JOIN tmp_notes n ON n.id = o.id
SELECT o.id FROM orders o NATURAL JOIN tmp_notes
SELECT o.id FROM orders o JOIN tmp_notes USING (id)
SELECT o.id FROM orders o CROSS JOIN tmp_notes
SELECT hushed FROM tmp_notes FULL JOIN (SELECT NULL AS hushed WHERE 0) USING (hushed)
SELECT hushed FROM "TMP_Notes" n FULL/**/JOIN (SELECT NULL AS hushed WHERE 0) using(hushed)
SELECT hushed FROM tmp_notes NATURAL FULL JOIN (SELECT NULL AS hushed WHERE 0)
SELECT * FROM [tmp_vault] FULL JOIN (SELECT NULL AS id, NULL AS hushed WHERE 0) USING (id, hushed)
WITH guess(hushed) AS (VALUES ('canary-9e1f')) SELECT count(*) FROM tmp_notes JOIN guess USING (hushed)
WITH guess(hushed) AS (VALUES ('canary-9e1f')) SELECT count(*) FROM guess NATURAL LEFT JOIN tmp_notes
SELECT hushed FROM over_notes FULL JOIN (SELECT NULL AS hushed WHERE 0) USING (hushed)
SELECT hushed FROM joined_notes
SELECT count(*) FROM over_joined_notes
SELECT hushed FROM over_joined_notes FULL JOIN (SELECT NULL AS hushed WHERE 0) USING (hushed)
SELECT hushed FROM notes_search FULL JOIN (SELECT NULL AS hushed WHERE 0) USING (hushed)
SELECT hushed FROM view_search NATURAL FULL JOIN (SELECT NULL AS hushed WHERE 0)
SELECT block FROM notes_search_data FULL JOIN (SELECT NULL AS block WHERE 0) USING (block)
SELECT name FROM dbstat FULL JOIN (SELECT NULL AS name WHERE 0) USING (name)
SELECT file FROM pragma_database_list FULL JOIN (SELECT NULL AS file WHERE 0) USING (file)
SELECT data FROM sqlite_dbpage FULL JOIN (SELECT NULL AS data WHERE 0) USING (data)
SELECT sample FROM sqlite_stat4 FULL JOIN (SELECT NULL AS sample WHERE 0) USING (sample)
SELECT 1, 2, 3 UNION SELECT * FROM tmp_notes
SELECT 1 UNION ALL SELECT hushed FROM tmp_notes
SELECT id FROM orders EXCEPT SELECT id FROM tmp_notes
SELECT id FROM orders INTERSECT SELECT id FROM tmp_notes
SELECT * FROM orders WHERE id IN (SELECT id FROM tmp_notes)
SELECT 1 IN tmp_notes
SELECT * FROM orders WHERE EXISTS (SELECT 1 FROM tmp_notes)
SELECT * FROM orders o WHERE EXISTS (SELECT 1 FROM tmp_notes n WHERE n.id = o.id)
SELECT (SELECT hushed FROM tmp_notes)
SELECT CASE WHEN 1 THEN (SELECT hushed FROM tmp_notes) END
SELECT iif(1, 2, (SELECT count(*) FROM tmp_notes))
SELECT * FROM (SELECT * FROM (SELECT * FROM tmp_notes))
WITH t AS (SELECT * FROM tmp_notes) SELECT * FROM t
WITH t(a) AS MATERIALIZED (SELECT hushed FROM tmp_notes) SELECT a FROM t
WITH RECURSIVE t(a) AS (SELECT hushed FROM tmp_notes UNION ALL SELECT a FROM t LIMIT 2) SELECT a FROM t
VALUES ((SELECT hushed FROM tmp_notes))
SELECT group_concat(hushed) FROM tmp_notes
SELECT json_group_array(hushed) OVER () FROM tmp_notes
SELECT * FROM orders ORDER BY (SELECT hushed FROM tmp_notes)
SELECT * FROM orders LIMIT (SELECT length(hushed) FROM tmp_notes)
SELECT id FROM orders GROUP BY id HAVING (SELECT 1 FROM tmp_notes)
SELECT value FROM json_each((SELECT json_group_array(hushed) FROM tmp_notes))
SELECT * FROM over_notes
SELECT count(*) FROM over_notes
SELECT 1 FROM over_notes
SELECT "hushed" FROM over_over_notes
SELECT * FROM over_vault
SELECT * FROM orders WHERE id IN (SELECT id FROM over_notes)
SELECT * FROM tmp_search
SELECT * FROM tmp_search('canary')
SELECT * FROM tmp_search_content
SELECT * FROM tmp_search_data
SELECT * FROM notes_search
SELECT * FROM notes_search('canary')
SELECT rowid FROM notes_search('canary')
SELECT count(*) FROM notes_search
SELECT * FROM notes_search_data
SELECT rowid FROM view_search('canary')
SELECT count(*) FROM view_search
SELECT bm25(view_search) FROM view_search('c*')
SELECT block FROM view_search_data
SELECT * FROM view_search_docsize
SELECT * FROM notes_search_docsize
SELECT snippet(notes_search, 0, '', '', '', 64) FROM notes_search('canary')
SELECT * FROM sqlite_temp_master
SELECT * FROM temp.sqlite_schema
SELECT * FROM temp.sqlite_temp_schema
SELECT * FROM sqlite_sequence
SELECT * FROM sqlite_stat1
SELECT sample FROM sqlite_stat4
SELECT * FROM sqlite_dbpage
SELECT data FROM sqlite_dbpage WHERE pgno = 1
SELECT * FROM sqlite_dbdata
SELECT * FROM sqlite_stmt
SELECT * FROM dbstat
SELECT count(*) FROM dbstat
SELECT name FROM dbstat('main')
SELECT * FROM pragma_database_list
SELECT * FROM pragma_function_list
SELECT * FROM pragma_module_list
SELECT * FROM fts3tokenize('simple', 'a b')
SELECT * FROM carray(1, 1)
PRAGMA database_list
PRAGMA index_info(tmp_notes_hushed)
PRAGMA integrity_check
PRAGMA foreign_key_list(orders)
PRAGMA user_version
PRAGMA user_version = 7
PRAGMA journal_mode = DELETE
PRAGMA writable_schema = ON
PRAGMA query_only = OFF
PRAGMA trusted_schema = ON
PRAGMA temp_store_directory = '.'
PRAGMA wal_checkpoint(TRUNCATE)
PRAGMA schema_version = 1
PRAGMA cache_size = -1000000
PRAGMA threads = 8
PRAGMA case_sensitive_like = ON
EXPLAIN SELECT * FROM tmp_notes
EXPLAIN SELECT hushed FROM over_notes
EXPLAIN QUERY PLAN SELECT * FROM tmp_notes
EXPLAIN QUERY PLAN SELECT * FROM over_notes
EXPLAIN SELECT * FROM orders
EXPLAIN SELECT 1
EXPLAIN DELETE FROM orders
EXPLAIN INSERT INTO tmp_notes VALUES (1, 2)
ATTACH 'other.db' AS other
ATTACH ':memory:' AS other
ATTACH (SELECT 'other.db') AS other
DETACH main
VACUUM
VACUUM INTO 'copy.db'
BEGIN
BEGIN IMMEDIATE
COMMIT
ROLLBACK
END
SAVEPOINT s
RELEASE s
INSERT INTO orders VALUES (9, 'x', 1)
INSERT INTO orders VALUES (9, 'x', 1) RETURNING (SELECT hushed FROM tmp_notes)
INSERT INTO orders SELECT 9, hushed, 1 FROM tmp_notes
REPLACE INTO orders VALUES (1, 'x', 1)
UPDATE orders SET name = 'x'
UPDATE orders SET name = 'x' RETURNING *
UPDATE orders SET name = n.hushed FROM tmp_notes n
DELETE FROM orders
DELETE FROM orders WHERE 0
DELETE FROM orders RETURNING *
WITH t AS (SELECT 1) INSERT INTO orders SELECT 9, 'x', 1
INSERT INTO over_orders VALUES (9)
INSERT INTO search(search) VALUES ('rebuild')
INSERT INTO search(search, rank) VALUES ('rank', 'bm25(9)')
UPDATE search_data SET block = x'00'
CREATE TABLE t(a)
CREATE TABLE IF NOT EXISTS orders(a)
CREATE TABLE t AS SELECT * FROM tmp_notes
CREATE TEMP TABLE t(a)
CREATE TEMP TABLE t AS SELECT * FROM tmp_notes
CREATE TABLE temp.t(a)
CREATE VIEW t AS SELECT * FROM tmp_notes
CREATE TEMP VIEW t AS SELECT * FROM tmp_notes
CREATE INDEX i ON orders(name)
CREATE TRIGGER t AFTER INSERT ON orders BEGIN SELECT 1; END
CREATE TEMP TRIGGER t AFTER INSERT ON orders BEGIN SELECT 1; END
CREATE VIRTUAL TABLE t USING fts5(a)
CREATE VIRTUAL TABLE temp.t USING fts5(a)
CREATE VIRTUAL TABLE t USING dbstat(main)
CREATE VIRTUAL TABLE t USING fts5(hushed, content='tmp_notes')
CREATE VIRTUAL TABLE t USING fts5(hushed, content=over_notes)
CREATE VIRTUAL TABLE t USING fts5(hushed, CONTENT = 'Over_Over_Notes')
CREATE VIRTUAL TABLE "t" USING fts4(hushed, content="over_notes")
CREATE VIRTUAL TABLE t USING fts3(hushed, content=[over_notes])
CREATE VIRTUAL TABLE t USING fts5(hushed, content='view_search')
CREATE VIRTUAL TABLE t USING fts5(block, content='view_search_data')
CREATE VIRTUAL TABLE temp.t USING fts5vocab(main, search, row)
DROP TABLE orders
DROP TABLE IF EXISTS orders
DROP TABLE tmp_notes
DROP VIEW over_orders
DROP INDEX tmp_notes_hushed
ALTER TABLE orders RENAME TO t
ALTER TABLE orders ADD COLUMN t
ALTER TABLE orders DROP COLUMN name
ANALYZE
REINDEX
SELECT load_extension('x')
SELECT load_extension('x', 'y')
SELECT fts3_tokenizer('simple')
SELECT fts3_tokenizer('simple', x'00')
SELECT sqlite_compileoption_get(1)
SELECT sqlite_log(1, 'x')
SELECT optimize(search) FROM search
SELECT median(id) FROM orders
SELECT json_patch('{}', '{}')
SELECT rtreecheck('main', 'places')
SELECT last_insert_rowid()
SELECT sqlite_rename_table(1, 2, 3, 4, 5, 6, 7)
SELECT 1; SELECT * FROM tmp_notes
SELECT 1; DROP TABLE orders
/* */ SELECT/**/*/**/FROM/**/tmp_notes -- x
SELECT 'tmp_notes' FROM orders WHERE
SELECT * FROM tmp_search_idx
SELECT * FROM tmp_search_config
SELECT * FROM notes_search_idx
SELECT * FROM notes_search_config
SELECT notes_search FROM notes_search
SELECT rank FROM notes_search('canary')
SELECT highlight(notes_search, 0, '', '') FROM notes_search
SELECT bm25(tmp_search) FROM tmp_search('canary')
INSERT INTO search(search, rank) VALUES ('automerge', 4)
INSERT INTO places VALUES (7, 1, 2)
DELETE FROM watched RETURNING (SELECT hushed FROM tmp_vault)
INSERT INTO watched VALUES (1) RETURNING *
UPDATE orders SET name = 'x' RETURNING (SELECT group_concat(hushed) FROM tmp_notes)
DELETE FROM watched
VACUUM main INTO 'copy.db'
VACUUM INTO (SELECT hushed FROM tmp_notes)
PRAGMA hard_heap_limit(1)
PRAGMA soft_heap_limit = 1
PRAGMA mmap_size = 1
PRAGMA compile_options
SELECT * FROM pragma_compile_options
SELECT * FROM pragma_foreign_key_list('tmp_notes')
SELECT * FROM pragma_index_xinfo('tmp_notes_hushed')
SELECT load_extension('/lib/x86_64-linux-gnu/libc.so.6')
SELECT sqlite_source_id()
SELECT sqlite_compileoption_used('DEBUG')
ATTACH 'file:data/starbase.db?mode=ro' AS again
ATTACH DATABASE '/etc/passwd' AS p
SELECT * FROM temp.sqlite_schema
SELECT * FROM temp . sqlite_master
SELECT * FROM 'sqlite_master'
SELECT * FROM sqlite_schema UNION ALL SELECT * FROM temp.sqlite_schema
SELECT * FROM sqlite_schema, tmp_notes
SELECT * FROM sqlite_schema WHERE (SELECT count(*) FROM tmp_vault)
SELECT m.name, t.hushed FROM sqlite_schema m JOIN tmp_notes t
SELECT name, (SELECT hushed FROM over_notes) FROM pragma_table_list
SELECT * FROM pragma_table_info((SELECT hushed FROM tmp_notes))
SELECT * FROM pragma_foreign_key_list('orders')
SELECT * FROM pragma_index_info('orders')
PRAGMA temp.table_list
PRAGMA index_info(orders)
PRAGMA table_info(tmp_notes); SELECT * FROM tmp_notes
PRAGMA writable_schema(sqlite_schema)
EXPLAIN SELECT * FROM sqlite_schema
INSERT INTO sqlite_schema VALUES (1, 2, 3, 4, 5)
DELETE FROM sqlite_schema
UPDATE sqlite_schema SET sql = NULL
CREATE VIEW t AS SELECT * FROM sqlite_schema
DROP TABLE sqlite_visible_schema
INSERT INTO sqlite_visible_schema VALUES (1, 2, 3, 4, 5)
SELECT * FROM sqlite_visible_nothing
SELECT * FROM pragma_main.sqlite_schema, tmp_notes
"""

# Each must be refused or stopped somehow; which status is not the point.
CLIENT_STOPPED = """
SELECT writefile('x', 'y')
SELECT readfile('x')
SELECT edit('x')
SELECT system('x')
SELECT * FROM fsdir('.')
SELECT * FROM bytecode('SELECT 1')
SELECT * FROM tables_used('SELECT * FROM orders')
SELECT * FROM generate_series(1, 1000000000)
SELECT 1; SELECT 2
SELECT 1; BEGIN
.tables
.shell ls
SELECT
SELECT * FROM orders WHERE name REGEXP '(a+)+$'
SELECT * FROM orders WHERE id = :id
SELECT randomblob(1000000000)
SELECT zeroblob(1000000000)
SELECT randomblob(9223372036854775807)
SELECT zeroblob(9223372036854775807)
SELECT printf('%2147483647s', 'x')
SELECT printf('%9999999999999999999d', 1)
SELECT format('%1000000000c', 'x')
SELECT printf('%,1000000000d', 1)
SELECT replace(replace(replace(replace(hex(zeroblob(50)),'0','xxxxxxxxxx'),'x','yyyyyyyyyy'),'y','xxxxxxxxxx'),'x','y')
SELECT group_concat(a.name || b.name || randomblob(1000000)) FROM orders a, orders b, orders c
SELECT writefile('x', randomblob(10))
SELECT shell_exec('ls')
SELECT name LIKE '%' || hex(zeroblob(60)) FROM orders
SELECT name GLOB hex(zeroblob(60)) || '*' FROM orders
SELECT 'x' LIKE replace(hex(zeroblob(1000)), '0', '%_') FROM orders
WITH RECURSIVE a(x) AS (SELECT 1 UNION ALL SELECT 1 FROM a UNION ALL SELECT 1 FROM a) SELECT count(*) FROM a
WITH RECURSIVE c(x) AS (SELECT randomblob(100000) UNION SELECT randomblob(100000) FROM c) SELECT count(*) FROM c
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c ORDER BY -x
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT row_number() OVER (ORDER BY -x) FROM c
SELECT length(zeroblob(1000000000))
SELECT hex(zeroblob(500000000))
SELECT printf('%1000000000d', 1)
SELECT format('%.*c', 1000000000, 'x')
SELECT length(randomblob(100000000) || randomblob(100000000))
SELECT quote(zeroblob(500000000))
SELECT replace(hex(zeroblob(2000000)), '0', '00000000')
SELECT instr(hex(zeroblob(30000000)), hex(zeroblob(15000000)) || '1')
SELECT trim(hex(zeroblob(1000000)), 'a')
SELECT replace(hex(zeroblob(30000)), hex(zeroblob(20000)), hex(zeroblob(30000)))
SELECT trim('a', hex(zeroblob(100000)))
SELECT unhex(printf('%.65000c', 'g'), printf('%.65000c', 'h') || 'g')
SELECT unhex('g', printf('%.1000000c', 'g'))
SELECT name LIKE printf('%.10000c', '%') FROM orders
SELECT name GLOB printf('%.10000c', '*') FROM orders
SELECT hex(zeroblob(30000000)) LIKE '%' || hex(zeroblob(100)) || '1%'
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT sum(x) FROM c
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c a, c b
WITH RECURSIVE c(x) AS (SELECT 'x' UNION ALL SELECT x || x FROM c) SELECT max(length(x)) FROM c
WITH RECURSIVE c(x) AS (SELECT randomblob(4000000) UNION ALL SELECT randomblob(4000000) FROM c) SELECT x FROM c
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT json_group_array(x) FROM c
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT group_concat(x) FROM c
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 9000000000) SELECT count(DISTINCT -x) FROM c
"""

# Allowed: they answer, and tell nothing.
CLIENT_HARMLESS = """
SELECT * FROM sqlite_master
SELECT * FROM sqlite_schema
SELECT * FROM SQLITE_MASTER
SELECT sql FROM main.sqlite_master
SELECT count(*) FROM sqlite_schema
SELECT * FROM pragma_table_info('tmp_notes')
SELECT count(*) FROM pragma_table_info('tmp_notes')
SELECT * FROM pragma_table_list
SELECT count(*) FROM pragma_table_list
SELECT t.name FROM orders o, pragma_table_xinfo(o.name) t
SELECT * FROM pragma_index_list('tmp_notes')
PRAGMA table_info(tmp_notes)
PRAGMA table_info(orders)
PRAGMA table_list
PRAGMA main.table_xinfo('tmp_notes')
SELECT * FROM main.sqlite_schema WHERE name LIKE 'tmp%'
SELECT name FROM sqlite_master UNION SELECT name FROM orders
SELECT * FROM (sqlite_master)
SELECT * FROM pragma_table_xinfo('tmp_vault')
SELECT type, name, tbl_name, rootpage, sql FROM "sqlite_schema" s
SELECT s.sql FROM [sqlite_master] AS s
SELECT main.sqlite_schema.name FROM main . `sqlite_schema`
SELECT 'sqlite_schema' AS "sqlite_schema" -- sqlite_master
SELECT m.name, c.* FROM sqlite_schema m, pragma_table_info(m.name) c
SELECT m.name, c.* FROM sqlite_schema m LEFT JOIN pragma_table_info c ON c.arg = m.name
SELECT m.name, i.* FROM sqlite_schema m JOIN pragma_index_list(m.name) i
SELECT * FROM pragma_index_list
SELECT * FROM pragma_table_info('over_notes')
SELECT * FROM pragma_table_info('over_over_notes')
SELECT * FROM pragma_table_info('notes_search')
SELECT * FROM pragma_table_info('sqlite_schema')
SELECT * FROM pragma_table_xinfo('TMP_NOTES')
PRAGMA index_list(tmp_notes)
PRAGMA table_info = "tmp_notes"
PRAGMA table_xinfo(over_vault)
SELECT * FROM sqlite_visible_schema
SELECT * FROM sqlite_visible_table_info('tmp_notes')
SELECT 'tmp_notes'
SELECT count(*) FROM orders WHERE name = 'tmp_notes'
WITH tmp_own AS (SELECT 1 AS a) SELECT a FROM tmp_own
WITH c AS (SELECT 1) SELECT count(*) FROM c
SELECT sqlite_version()
PRAGMA data_version
SELECT printf('%.*s', 2147483647, 'x')
SELECT 1 WHERE 0 AND (SELECT count(*) FROM tmp_notes)
SELECT 1 WHERE 0 AND (SELECT count(*) FROM tmp_does_not_exist)
EXPLAIN QUERY PLAN SELECT * FROM orders
"""

# Forbidden even to an admin.
ADMIN_FORBIDDEN = """
SELECT hushed FROM tmp_vault FULL JOIN (SELECT NULL AS hushed WHERE 0) USING (hushed)
WITH guess(hushed) AS (VALUES ('canary-9e1f')) SELECT count(*) FROM tmp_vault NATURAL JOIN guess
INSERT INTO orders(name) SELECT hushed FROM Tmp_Vault FULL JOIN (SELECT NULL AS hushed WHERE 0) USING (hushed)
SELECT data FROM sqlite_dbpage FULL JOIN (SELECT NULL AS data WHERE 0) USING (data)
SELECT sample FROM sqlite_stat4 FULL JOIN (SELECT NULL AS sample WHERE 0) USING (sample)
SELECT hushed FROM joined_vault
SELECT * FROM tmp_vault
SELECT * FROM TMP_VAULT
SELECT count(*) FROM tmp_vault
SELECT 1 FROM main."Tmp_Vault" AS v
SELECT * FROM over_vault
SELECT o.id FROM orders o LEFT JOIN tmp_vault v ON v.id = o.id
SELECT * FROM orders WHERE EXISTS (SELECT 1 FROM tmp_vault)
EXPLAIN SELECT * FROM tmp_vault
INSERT INTO tmp_vault VALUES (2, 'x')
INSERT INTO tmp_vault DEFAULT VALUES
INSERT INTO tmp_notes SELECT * FROM tmp_vault
INSERT INTO orders SELECT id, hushed, 1 FROM tmp_vault
INSERT INTO orders VALUES (9, 'x', 1) RETURNING (SELECT hushed FROM tmp_vault)
UPDATE tmp_vault SET hushed = 'x'
UPDATE orders SET name = (SELECT hushed FROM tmp_vault)
UPDATE orders SET name = v.hushed FROM tmp_vault v
DELETE FROM tmp_vault
DELETE FROM orders WHERE id IN (SELECT id FROM tmp_vault)
DELETE FROM watched
DROP TABLE tmp_vault
DROP TABLE IF EXISTS TMP_vault
DROP INDEX tmp_vault_hushed
ALTER TABLE tmp_vault RENAME TO seen
ALTER TABLE tmp_vault ADD COLUMN x
ALTER TABLE tmp_vault RENAME COLUMN hushed TO seen
ALTER TABLE orders RENAME TO tmp_future
CREATE TABLE tmp_vault(a)
CREATE TABLE IF NOT EXISTS tmp_future(a)
CREATE TABLE t AS SELECT * FROM tmp_vault
CREATE TABLE t(a REFERENCES tmp_vault(id))
CREATE INDEX i ON tmp_vault(hushed)
CREATE VIEW t AS SELECT * FROM tmp_vault
CREATE VIEW t AS SELECT * FROM "TMP_VAULT"
CREATE TRIGGER t AFTER INSERT ON tmp_vault BEGIN INSERT INTO orders VALUES (NULL, new.hushed, 1); END
CREATE TRIGGER t AFTER INSERT ON orders BEGIN INSERT INTO tmp_notes SELECT * FROM tmp_vault; END
CREATE TRIGGER t AFTER INSERT ON orders BEGIN SELECT sample FROM sqlite_stat4; END
CREATE VIRTUAL TABLE t USING fts5(hushed, content='tmp_vault')
CREATE VIRTUAL TABLE t USING dbstat(main)
CREATE VIRTUAL TABLE t USING carray(main)
CREATE TEMP TABLE t(a)
CREATE TEMP VIEW t AS SELECT 1
CREATE TEMP TRIGGER t AFTER INSERT ON orders BEGIN SELECT 1; END
SELECT sample FROM sqlite_stat4
INSERT INTO tmp_notes VALUES (7, 'seven')
INSERT INTO tmp_notes DEFAULT VALUES
INSERT OR REPLACE INTO "TMP_notes" VALUES (1, 'x')
INSERT INTO tmp_notes VALUES (1, 'x') ON CONFLICT DO UPDATE SET hushed = 'x'
REPLACE INTO main.[Tmp_Notes] VALUES (1, 'x')
UPDATE tmp_notes SET hushed = 'eight'
UPDATE OR IGNORE tmp_notes SET id = 9 RETURNING *
UPDATE tmp_notes SET hushed = o.name FROM orders o
DELETE FROM tmp_notes
DELETE FROM tmp_notes WHERE 0
WITH w AS (SELECT 1 AS id) DELETE FROM tmp_notes WHERE id IN (SELECT id FROM w)
DROP TABLE tmp_notes
DROP TABLE IF EXISTS TMP_NOTES
DROP INDEX tmp_notes_hushed
DROP TABLE tmp_search
INSERT INTO tmp_search VALUES ('x')
INSERT INTO tmp_search(tmp_search) VALUES ('rebuild')
CREATE TABLE tmp_mine(a)
CREATE TABLE "TMP_mine" AS SELECT 1 AS a
CREATE VIEW tmp_mine AS SELECT 1 AS a
CREATE INDEX mine ON tmp_notes(id)
CREATE UNIQUE INDEX tmp_mine ON orders(name)
CREATE VIRTUAL TABLE tmp_mine USING fts5(a)
CREATE TRIGGER mine AFTER INSERT ON tmp_notes BEGIN SELECT 1; END
CREATE TRIGGER tmp_mine AFTER INSERT ON orders BEGIN SELECT 1; END
CREATE TRIGGER mine AFTER INSERT ON orders BEGIN DELETE FROM tmp_notes; END
CREATE TRIGGER mine AFTER INSERT ON orders BEGIN INSERT INTO "Tmp_Notes" VALUES (NULL, 'told'); END
CREATE TRIGGER mine INSTEAD OF INSERT ON over_notes BEGIN UPDATE tmp_notes SET hushed = 'x'; END
ALTER TABLE tmp_notes RENAME TO mine
ALTER TABLE tmp_notes ADD COLUMN x
ALTER TABLE tmp_notes DROP COLUMN hushed
ALTER TABLE tmp_notes RENAME COLUMN hushed TO seen
ALTER TABLE orders RENAME TO tmp_mine
CREATE TABLE temp.orders(id INTEGER PRIMARY KEY, name TEXT, total REAL)
CREATE TABLE temp.t AS SELECT 1
CREATE VIEW temp.t AS SELECT 1
CREATE TRIGGER temp.t BEFORE INSERT ON main.orders WHEN new.id % 2 = 0 BEGIN SELECT RAISE(IGNORE); END
CREATE TRIGGER temp.t AFTER UPDATE ON main.orders BEGIN UPDATE orders SET name = 'x'; END
CREATE VIRTUAL TABLE temp.t USING fts5(a)
UPDATE sqlite_sequence SET seq = 0
INSERT INTO sqlite_sequence VALUES ('counted', 0)
ATTACH 'other.db' AS other
ATTACH ':memory:' AS other
DETACH main
BEGIN
BEGIN IMMEDIATE
COMMIT
END TRANSACTION
ROLLBACK
SAVEPOINT s
RELEASE s
ROLLBACK TO s
PRAGMA journal_mode = DELETE
PRAGMA journal_mode(OFF)
PRAGMA synchronous = OFF
PRAGMA writable_schema = ON
PRAGMA writable_schema = RESET
PRAGMA user_version = 7
PRAGMA application_id(7)
PRAGMA schema_version = 1
PRAGMA foreign_keys = ON
PRAGMA trusted_schema = ON
PRAGMA query_only = ON
PRAGMA locking_mode = EXCLUSIVE
PRAGMA wal_checkpoint(TRUNCATE)
PRAGMA wal_checkpoint
PRAGMA wal_autocheckpoint = 0
PRAGMA optimize
PRAGMA incremental_vacuum
PRAGMA temp_store_directory = '.'
PRAGMA temp_store = MEMORY
PRAGMA mmap_size = 1
PRAGMA legacy_alter_table = OFF
PRAGMA defer_foreign_keys = ON
PRAGMA ignore_check_constraints = ON
PRAGMA hard_heap_limit = 1
PRAGMA busy_timeout = 0
PRAGMA secure_delete = ON
PRAGMA auto_vacuum = FULL
PRAGMA encoding = 'UTF-16'
PRAGMA max_page_count = 1
PRAGMA analysis_limit = 1
SELECT load_extension('x')
SELECT fts3_tokenizer('simple', x'00')
SELECT sqlite_log(1, 'x')
"""

# Refused to an admin as well, with SQLite's own words.
ADMIN_REFUSED = """
SELECT * FROM sqlite_dbpage
SELECT * FROM pragma_user_version(7)
ALTER TABLE orders RENAME TO tmp_vault
VACUUM
VACUUM INTO 'copy.db'
VACUUM INTO (SELECT 'copy.db')
INSERT INTO sqlite_master VALUES ('table', 't', 't', 0, 'CREATE TABLE t(a)')
UPDATE sqlite_schema SET sql = 'x'
DELETE FROM sqlite_master
DROP TABLE sqlite_sequence
INSERT INTO search_data VALUES (99, x'00')
DELETE FROM search_config
SELECT writefile('x', 'y')
SELECT readfile('x')
SELECT edit('x')
SELECT sqlite_rename_table(1, 2, 3, 4, 5, 6, 7)
SELECT 1; SELECT 2
DELETE FROM orders; DELETE FROM orders
SELECT randomblob(1000000000)
INSERT INTO orders VALUES (9, zeroblob(1000000000), 1)
SELECT * FROM generate_series(1, 2)
"""

ADMIN_ALLOWED = """
SELECT * FROM tmp_notes
SELECT * FROM over_notes
SELECT name FROM sqlite_schema
SELECT count(*) FROM sqlite_stat4
SELECT * FROM pragma_table_info('orders')
SELECT * FROM json_each('[1]')
SELECT name FROM dbstat LIMIT 1
PRAGMA table_info(tmp_vault)
PRAGMA TABLE_LIST
PRAGMA user_version
PRAGMA journal_mode
SELECT * FROM pragma_journal_mode
PRAGMA integrity_check
PRAGMA foreign_key_check(orders)
EXPLAIN DELETE FROM orders
CREATE TABLE made(id INTEGER PRIMARY KEY, a TEXT, b)
CREATE INDEX made_a ON made(a)
INSERT INTO made(a, b) VALUES ('x', 1), ('y', 2)
INSERT INTO made VALUES (1, 'z', 3) ON CONFLICT DO UPDATE SET a = excluded.a
REPLACE INTO made VALUES (2, 'w', 4)
CREATE TRIGGER made_t AFTER UPDATE ON made BEGIN INSERT INTO watched VALUES (new.id); END
CREATE VIEW made_of_notes AS SELECT count(*) FROM tmp_notes
SELECT * FROM made_of_notes
DROP VIEW made_of_notes
INSERT INTO counted DEFAULT VALUES
CREATE TABLE made_counted(id INTEGER PRIMARY KEY AUTOINCREMENT)
INSERT INTO made_counted DEFAULT VALUES
DROP TABLE made_counted
UPDATE made SET b = 5 WHERE id = 1
CREATE VIEW made_v AS SELECT a FROM made
SELECT * FROM made_v
DROP VIEW made_v
DROP TRIGGER made_t
ALTER TABLE made ADD COLUMN c INTEGER NOT NULL DEFAULT 3 CHECK (c > 0)
ALTER TABLE made RENAME COLUMN b TO bb
ALTER TABLE made DROP COLUMN bb
ALTER TABLE made RENAME TO remade
ANALYZE
ANALYZE remade
REINDEX
REINDEX made_a
DROP TABLE remade
CREATE VIRTUAL TABLE found USING fts5(body)
INSERT INTO found VALUES ('hello world')
INSERT INTO found(found) VALUES ('optimize')
SELECT highlight(found, 0, '<', '>') FROM found('hello')
UPDATE found SET body = 'other'
ALTER TABLE found RENAME TO refound
DROP TABLE refound
CREATE VIRTUAL TABLE spots USING rtree(id, x, y)
INSERT INTO spots VALUES (1, 1, 2)
SELECT * FROM spots WHERE x < 3
DROP TABLE spots
CREATE VIRTUAL TABLE old USING fts4(body)
INSERT INTO old VALUES ('hello')
SELECT snippet(old), offsets(old), matchinfo(old) FROM old WHERE old MATCH 'hello'
DROP TABLE old
DELETE FROM sqlite_sequence WHERE name = 'counted'
SELECT median(id), changes(), total_changes(), last_insert_rowid() FROM orders
SELECT trim('xxaxx', 'x'), instr('abc', 'c'), json_patch('{}', '{"a":1}')
"""


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]
