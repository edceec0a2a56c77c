-- What durable subscribers are still to get, and how far each has come.

CREATE TABLE tmp_replication_events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    type       TEXT NOT NULL,
    created_at REAL NOT NULL,                    -- seconds since 1970
    event      TEXT NOT NULL                     -- JSON, see model.ReplicationEvent
);

CREATE TABLE tmp_replication_subscribers (
    plugin   TEXT NOT NULL,
    name     TEXT NOT NULL,                      -- given to on_event, unique within the plugin
    types    TEXT NOT NULL,                      -- JSON list
    position INTEGER NOT NULL,                   -- the id of the last event that it has taken
    seen_at  REAL NOT NULL,                      -- when a host last had it; seconds since 1970
    PRIMARY KEY (plugin, name)
) WITHOUT ROWID;
