-- The parts of each unique index of a table. A part without a column's name is an expression; prefix is set where only
-- the beginning of a value is indexed; direction is D where the highest value comes first. The parameters are database and
-- table, as the catalogue writes them. The caller puts the rows into their order, by what sorts as the server sorts names:
-- a statement that is added by UNION ALL then needs no temporary table.
SELECT s.INDEX_NAME AS index_name,
       HEX(WEIGHT_STRING(s.INDEX_NAME)) AS sorting,
       s.SEQ_IN_INDEX AS position,
       s.COLUMN_NAME AS name,
       s.SUB_PART AS prefix,
       s.NULLABLE AS nullable,
       s.COLLATION AS direction
FROM information_schema.STATISTICS s
WHERE s.TABLE_SCHEMA = %s AND s.TABLE_NAME = %s AND s.NON_UNIQUE = 0
