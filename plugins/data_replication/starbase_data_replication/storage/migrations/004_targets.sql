-- Which table of that name it is: the tag in its definition goes where the table goes, and ends with it.

ALTER TABLE tmp_replication_targets ADD COLUMN tag TEXT;             -- NULL: made before tables had one
