"""PgBouncer in transaction mode in front of the source: everything works, and nothing of ours is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.hosts import CONFIG, running
from tests.servers import PgBouncer, Server, TestDatabase, fresh_database
from tests.sessions import PostgresSession

CREATE = """
CREATE TYPE mood AS ENUM ('well', 'ill');
CREATE TABLE t (id int PRIMARY KEY, note text, mood mood, tags text[],
    at timestamptz NOT NULL DEFAULT now() - interval '1 day');
INSERT INTO t SELECT n, md5(n::text), 'well', ARRAY['a', n::text] FROM generate_series(1, 12000) n;
"""
# What one client of a pooler might leave to the next; the pooler itself takes care of these two.
LEFT = "SELECT name, setting FROM pg_settings WHERE name NOT IN ('application_name', 'client_encoding') ORDER BY 1"


def pooled(database: TestDatabase, pooler: PgBouncer) -> dict[str, Any]:
    return {**database.source_config, "port": pooler.port}


def test_everything_works_through_a_transaction_pooler(tmp_path: Path, postgres_server: Server) -> None:
    """With one server's connection for all: whatever one transaction leaves, the next one meets."""
    with (
        PgBouncer(postgres_server) as pooler,
        fresh_database("postgresql", postgres_server) as database,
        PostgresSession(
            pooler.host, pooler.port, database.server.user, database.server.password, database.name
        ) as other,
        running(tmp_path, CONFIG) as host,
    ):
        database.execute(CREATE)
        before = dict(other.fetch(LEFT))
        for name in ("t", "u"):
            host.configure(
                name=name, sourceConfig=pooled(database, pooler), sourceTable="t", targetTable=name,
                trackingColumn="at", isActive=False, lookbackSeconds=0, deletes="reconcile",
            )  # fmt: skip
        host.sync("t")
        database.execute("INSERT INTO t SELECT n, 'new', 'ill', NULL, now() FROM generate_series(20001, 20010) n")
        database.execute("DELETE FROM t WHERE id = 5")
        for name in ("t", "u"):
            assert host.sync(name)["status"] == "success"
            host.result("POST", f"/data-replication/reconcile/{name}")
            found = host.result("POST", f"/data-replication/verify/{name}", {"repair": True})
            assert [found[kind] for kind in ("missing", "extra", "different")] == [0, 0, 0]
            host.query(f"UPDATE {name} SET note = 'false' WHERE id = 7")
            assert host.result("POST", f"/data-replication/verify/{name}", {"repair": True})["different"] == 1
            assert host.result("POST", f"/data-replication/reset/{name}")["run"]["status"] == "success"
            assert host.query(f"SELECT count(*) FROM {name}") == [[12009]]
        assert host.status("t")["protection"].startswith("transactions")
        # Another client of the pooler, on the same connection of the server.
        assert dict(other.fetch(LEFT)) == before
        # The other client's driver names its own.
        mine = "SELECT statement FROM pg_prepared_statements WHERE statement NOT LIKE '%name%'"
        assert other.fetch(mine) == []
        assert other.fetch("SELECT count(*) FROM pg_cursors WHERE name <> ''") == [(0,)]
        other.execute("UPDATE t SET note = 'the other may write' WHERE id = 1")
