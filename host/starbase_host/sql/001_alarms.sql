-- Alarms that are set and not yet fired. `generation` tells an alarm that was set again while it was being
-- handled from the one that was handled.
CREATE TABLE tmp_alarms (
    plugin      TEXT NOT NULL,
    name        TEXT NOT NULL,
    at          REAL NOT NULL,              -- due, seconds since 1970
    payload     TEXT NOT NULL,              -- JSON
    attempts    INTEGER NOT NULL DEFAULT 0, -- failed deliveries so far
    generation  INTEGER NOT NULL,
    PRIMARY KEY (plugin, name)
) WITHOUT ROWID;
CREATE INDEX tmp_alarms_at ON tmp_alarms (at);
