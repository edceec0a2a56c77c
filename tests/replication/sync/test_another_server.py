"""Another server behind one address, as after a failover to one that lacks the last rows and was written since."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import HostProcess, running, until
from tests.support.proxy import Proxy
from tests.support.servers import (
    Dialect,
    DistroPostgres,
    Server,
    TestDatabase,
    ThrowawayMariaDB,
    ThrowawayMySQL,
    open_session,
    sequence,
)

READER = "starbase_failover_reader"
PASSWORD = "Secr3t!"
NAME = "failed_over"
CREATE = {
    "postgresql": "CREATE TABLE t (id bigserial PRIMARY KEY, v text); "
    "INSERT INTO t (v) SELECT 'row ' || n FROM generate_series(1, 900) AS n",
    "mysql": "CREATE TABLE t (id bigint AUTO_INCREMENT PRIMARY KEY, v text); "
    f"INSERT INTO t (v) SELECT CONCAT('row ', seq) FROM {sequence(900)}; ALTER TABLE t AUTO_INCREMENT = 901",
}


@contextlib.contextmanager
def _started(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.close()


def _execute(dialect: Dialect, server: Server, sql: str, database: str = NAME) -> None:
    with contextlib.closing(open_session(dialect, server, database)) as session:
        session.execute(sql)


def _configure(host: HostProcess, source: dict[str, Any]) -> None:
    body = {"name": "t", "sourceConfig": source, "sourceTable": "t", "targetTable": "t", "isActive": False}
    host.configure(**body, settleSeconds=0, lookbackSeconds=0, closeWaitSeconds=0)


@pytest.mark.parametrize(
    ("dialect", "make"),
    [
        ("postgresql", DistroPostgres),
        ("mysql", ThrowawayMariaDB),
        pytest.param("mysql", ThrowawayMySQL, marks=pytest.mark.prove),
    ],
    ids=["postgresql", "mariadb", "mysql"],
)
def test_a_failover_that_lost_the_last_rows(dialect: Dialect, make: Callable[[], Server], tmp_path: Path) -> None:
    with _started(make()) as first, _started(make()) as second:
        for server in (first, second):
            _execute(dialect, server, f"CREATE DATABASE {NAME}", server.database)
            _execute(dialect, server, CREATE[dialect])
        with Proxy(first.host, first.port) as proxy, running(tmp_path) as host:
            source = {"dialect": dialect, "host": proxy.host, "port": proxy.port, "database": NAME}
            _configure(host, {**source, "user": first.user, "password": first.password})
            _execute(dialect, first, "INSERT INTO t (v) SELECT 'tail' FROM t WHERE id <= 100")
            host.sync("t")
            until(lambda: host.sync("t")["rows_read"] == 0, what="a floor")
            _execute(dialect, second, "INSERT INTO t (v) SELECT 'new' FROM t WHERE id <= 150")
            proxy.target = (second.host, second.port)
            proxy.cut()
            run = host.sync("t")
            assert any("went back" in each and "loaded again" in each for each in run["warnings"]), run
            assert host.query("SELECT v, count(*) FROM t WHERE id > 900 GROUP BY v") == [["new", 150]]
            assert (host.sync("t")["rows_read"], host.sync("t")["warnings"]) == (0, [])
            # A restart makes no other server of it: this row would count as another one's.
            _execute(dialect, second, "UPDATE t SET v = 'changed' WHERE id = 1")
            second.stop()
            second.start()
            proxy.cut()
            run = host.sync("t")
            assert (run["rows_read"], run["warnings"]) == (0, [])


def test_a_role_that_may_not_ask_which_server_it_is(postgres_database: TestDatabase, tmp_path: Path) -> None:
    postgres_database.execute(CREATE["postgresql"])
    postgres_database.execute(
        f"CREATE ROLE {READER} LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT ON t TO {READER};"
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"
    )
    try:
        with running(tmp_path) as host:
            _configure(host, {**postgres_database.source_config, "user": READER, "password": PASSWORD})
            host.sync("t")
            until(lambda: host.sync("t")["rows_read"] == 0, what="a floor")
            postgres_database.execute("INSERT INTO t (v) VALUES ('new')")
            run = host.sync("t")
            assert (run["rows_read"], run["warnings"]) == (1, [])
            assert "transactions" in host.status("t")["protection"]
    finally:
        postgres_database.execute(
            "GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC;"
            f"DROP OWNED BY {READER} CASCADE; DROP ROLE {READER}"
        )
