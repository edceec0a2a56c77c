"""PgBouncer in transaction mode in front of the source: everything works, and nothing of ours is left behind."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import httpx

from starbase_data_replication.sources.postgresql.settings import READER_NAME
from tests.support.hosts import CONFIG, running, until
from tests.support.servers import PgBouncer, Server, TestDatabase, fresh_database
from tests.support.sessions import PostgresSession

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
    """With one server's connection for all: what one transaction leaves, the next one meets."""
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


def test_a_writer_that_gets_our_application_name_from_a_pooler_counts_as_a_writer(
    tmp_path: Path, postgres_server: Server
) -> None:
    """A session keeps the name that its first client gave it; the transaction of another client is a writer's."""
    with (
        PgBouncer(postgres_server, pool_size=3) as pooler,
        fresh_database("postgresql", postgres_server) as database,
        PostgresSession(
            pooler.host, pooler.port, database.server.user, database.server.password, database.name
        ) as writer,
        running(tmp_path, CONFIG) as host,
    ):
        database.execute("CREATE TABLE t (id bigserial PRIMARY KEY); INSERT INTO t DEFAULT VALUES")
        for name, config in (("t", pooled(database, pooler)), ("direct", database.source_config)):
            host.configure(
                name=name, sourceConfig=config, sourceTable="t", targetTable=name, trackingColumn="id",
                isActive=False, lookbackSeconds=0, closeWaitSeconds=0,
            )  # fmt: skip
            host.sync(name)
        writer.execute("BEGIN; INSERT INTO t DEFAULT VALUES")
        (pid,) = writer.fetch("SELECT pg_backend_pid()")[0]
        named = database.fetch(f"SELECT application_name FROM pg_stat_activity WHERE pid = {pid}")
        assert named == [(READER_NAME,)]
        for _ in range(3):
            database.execute("INSERT INTO t DEFAULT VALUES")
            for name in ("t", "direct"):
                host.sync(name)
        writer.execute("COMMIT")
        for name in ("t", "direct"):
            host.sync(name)
            assert host.status(name)["protection"].startswith("transactions")
            assert host.query(f"SELECT count(*) FROM {name}") == [[5]]


def test_a_long_read_of_another_host_holds_no_floor(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """Its transaction bears our mark."""
    database = postgres_database
    database.execute("CREATE TABLE t (id bigserial PRIMARY KEY); INSERT INTO t DEFAULT VALUES")
    database.execute("CREATE TABLE long (id int PRIMARY KEY); INSERT INTO long SELECT generate_series(1, 100000)")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with running(tmp_path / "one", CONFIG) as host, running(tmp_path / "two", CONFIG) as other:
        body = {"trackingColumn": "id", "isActive": False, "lookbackSeconds": 0, "closeWaitSeconds": 0}
        host.configure(name="t", sourceConfig=database.source_config, sourceTable="t", targetTable="t", **body)
        other.configure(
            name="long", sourceConfig=database.source_config, sourceTable="long", targetTable="long",
            maxRowsPerSecond=1000, **body,
        )  # fmt: skip
        host.sync("t")

        def read() -> None:
            with contextlib.suppress(httpx.TransportError):
                other.request("POST", "/data-replication/sync/long")

        reading = threading.Thread(target=read)
        reading.start()
        open_for = "SELECT 1 FROM pg_locks WHERE relation = 'long'::regclass AND mode = 'AccessShareLock'"
        until(lambda: database.fetch(open_for), what="the long read")
        for _ in range(2):
            database.execute("INSERT INTO t DEFAULT VALUES")
            host.sync("t")
            host.sync("t")
            assert host.sync("t")["rows_read"] == 0
        assert database.fetch(open_for)
        other.kill()
        reading.join(20)


def test_a_role_that_may_not_mark_its_transactions_reads_all_the_same(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    database = postgres_database
    role = f"reader_{database.name[-8:]}"
    database.execute(
        "CREATE TABLE t (id bigserial PRIMARY KEY); INSERT INTO t DEFAULT VALUES;"
        "REVOKE EXECUTE ON FUNCTION pg_try_advisory_xact_lock_shared(bigint) FROM PUBLIC;"
        f"CREATE ROLE {role} LOGIN PASSWORD 'a password'; GRANT SELECT ON t TO {role}"
    )
    try:
        with running(tmp_path) as host:
            host.configure(
                name="t", sourceConfig={**database.source_config, "user": role, "password": "a password"},
                sourceTable="t", targetTable="t", trackingColumn="id", isActive=False, lookbackSeconds=0,
            )  # fmt: skip
            for _ in range(2):
                assert host.sync("t")["status"] == "success"
            assert host.status("t")["protection"].startswith("transactions")
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
