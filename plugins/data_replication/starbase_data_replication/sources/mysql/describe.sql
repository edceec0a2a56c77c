-- One row for each column of a table or view, in its order, generated and invisible ones too. The two
-- parameters, given twice, are its database and its name; each table of the catalogue has its own, because only
-- so does MariaDB open this one table and not all. For the same reason the two are joined by their bytes: of a plain
-- equality MariaDB concludes that one pair of parameters is enough. Names that differ in case may answer as well,
-- where folding is not 0: see the caller, which also puts the rows into their order. MariaDB would write them to a
-- temporary table for that, which costs as much as all the rest. space: the number of the file that the rows lie in.
-- What few tables need is not asked here: see describe.py.
SELECT t.TABLE_SCHEMA AS table_schema,
       t.TABLE_NAME AS table_name,
       t.TABLE_TYPE AS table_type,
       t.TABLE_ROWS AS table_rows,
       t.ENGINE AS engine,
       CAST(t.CREATE_TIME AS CHAR) AS created,
       t.CREATE_OPTIONS AS create_options,
       c.ORDINAL_POSITION AS position,
       c.COLUMN_NAME AS name,
       c.DATA_TYPE AS base,
       c.COLUMN_TYPE AS column_type,
       c.IS_NULLABLE AS nullable,
       c.DATETIME_PRECISION AS digits,
       c.NUMERIC_PRECISION AS bits,
       c.CHARACTER_SET_NAME AS charset,
       c.COLLATION_NAME AS collation,
       c.COLUMN_KEY AS in_index,
       c.EXTRA AS extra,
       c.GENERATION_EXPRESSION AS expression,
       c.COLUMN_DEFAULT AS value_default,
       {space} AS space,
       @@GLOBAL.lower_case_table_names AS folding,
       @@GLOBAL.server_uuid AS server
FROM information_schema.TABLES t
JOIN information_schema.COLUMNS c ON CAST(c.TABLE_SCHEMA AS BINARY) = CAST(t.TABLE_SCHEMA AS BINARY)
                                 AND CAST(c.TABLE_NAME AS BINARY) = CAST(t.TABLE_NAME AS BINARY)
WHERE t.TABLE_SCHEMA = %s AND t.TABLE_NAME = %s AND c.TABLE_SCHEMA = %s AND c.TABLE_NAME = %s
