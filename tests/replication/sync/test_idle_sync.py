"""What a sync that finds nothing asks the source: in as few messages as it needs."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest
from benchmarks.wire import counting_proxy

from starbase_data_replication.sources.postgresql.connection import MAX_KEPT, Connection
from tests.support.hosts import running
from tests.support.servers import TestDatabase

# BEGIN, the catalogue, the highest value, open transactions, ROLLBACK; BEGIN with a snapshot, the rows, ROLLBACK.
ROUND_TRIPS = 8
# Beside these the keys; two more statements about open transactions; and of a time the clock.
ROUND_TRIPS_OF_MYSQL = {"id": 11, "at": 12}


def round_trips(database: TestDatabase, directory: Path) -> dict[str, int]:
    """By the column of t that it follows, how many an idle sync takes."""
    found = {}
    with counting_proxy(database.server.host, database.server.port) as proxy, running(directory) as host:
        config = {**database.source_config, "host": "127.0.0.1", "port": proxy.port}
        for column in ("at", "id"):
            host.configure(
                name=column, sourceConfig=config, sourceTable="t", targetTable=f"t_{column}", trackingColumn=column,
                isActive=False,
            )  # fmt: skip
            for _ in range(3):
                host.sync(column)
            before = proxy.round_trips
            assert host.sync(column)["records_processed"] == 0
            found[column] = proxy.round_trips - before
    return found


def test_an_idle_sync_asks_each_thing_once(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """A time asks the catalogue one question; a number one more, where its values come from."""
    database = postgres_database
    database.execute("CREATE TABLE t (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())")
    database.execute("INSERT INTO t (at) SELECT now() - interval '1 day' FROM generate_series(1, 10)")
    assert round_trips(database, tmp_path) == {"at": ROUND_TRIPS, "id": ROUND_TRIPS + 1}


def test_an_idle_sync_of_mariadb_and_mysql_asks_each_thing_once(either_mysql: TestDatabase, tmp_path: Path) -> None:
    database = either_mysql
    database.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY AUTO_INCREMENT, at datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6))"
    )
    database.execute("INSERT INTO t (at) VALUES (now(6) - interval 1 day), (now(6) - interval 1 day)")
    assert round_trips(database, tmp_path) == ROUND_TRIPS_OF_MYSQL


@pytest.mark.anyio
async def test_a_known_statement_leaves_no_name_and_is_kept_within_bounds(postgres_database: TestDatabase) -> None:
    server = postgres_database.server
    connection = await asyncpg.connect(
        host=server.host, port=server.port, user=server.user, password=server.password,
        database=postgres_database.name, connection_class=Connection, statement_cache_size=0,
    )  # fmt: skip
    try:
        for number in range(MAX_KEPT + 5):
            for value in ("one", "two"):
                found = await connection.fetch_known(f"SELECT {number}, $1::text", value)
                assert [*map(tuple, found)] == [(number, value)]
        assert len(connection._kept) == MAX_KEPT
        # An error of a statement that is described already leaves the connection usable.
        await connection.execute("CREATE TABLE gone (id int)")
        sql = "SELECT count(*) FROM gone"
        assert await connection.fetch_known(sql)
        await connection.execute("DROP TABLE gone")
        try:
            await connection.fetch_known(sql)
        except asyncpg.UndefinedTableError:
            pass
        else:
            raise AssertionError("a table that is gone was read")
        assert [*map(tuple, await connection.fetch_known("SELECT 1, $1::text", "still"))] == [(1, "still")]
        assert await connection.fetch("SELECT name FROM pg_prepared_statements") == []
    finally:
        await connection.close()
