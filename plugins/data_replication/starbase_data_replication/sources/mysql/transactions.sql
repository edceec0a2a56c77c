-- The transactions that InnoDB has open, from its copy of their list, which it renews only when no session has
-- read it for 0.1 s. {nonce} makes the text of this statement unlike any other: where our own transaction's row shows
-- it, the copy was made for us. Columns that differ in width between servers come as text.
SELECT CAST(t.trx_mysql_thread_id AS CHAR),
       CAST(t.trx_started AS CHAR),
       CAST(t.trx_id AS CHAR),
       t.trx_is_read_only = 1 AND t.trx_autocommit_non_locking = 0,
       t.trx_is_read_only = 1,
       t.trx_mysql_thread_id = CONNECTION_ID() AND COALESCE(t.trx_query LIKE '%{nonce}%', FALSE)
FROM information_schema.INNODB_TRX t
