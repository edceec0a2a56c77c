"""A replica of MySQL or MariaDB as source: it works, protected by the lookback, since its writers are elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.hosts import running, until
from tests.support.servers import Server, TestDatabase, ThrowawayMariaDB, ThrowawayMySQL, fresh_database, open_session


class Numbered(ThrowawayMariaDB):
    """One of a pair."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        self.options = options

    def command(self) -> Sequence[str | Path]:
        return [*super().command(), *self.options]


FOLLOW = {
    "mysql": (
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{host}', SOURCE_PORT = {port}, SOURCE_USER = '{user}', "
        "SOURCE_PASSWORD = '{password}', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1; START REPLICA"
    ),
    "mariadb": (
        "CHANGE MASTER TO MASTER_HOST = '{host}', MASTER_PORT = {port}, MASTER_USER = '{user}', "
        "MASTER_PASSWORD = '{password}', MASTER_USE_GTID = slave_pos; START SLAVE"
    ),
}
BOTH = {"mysql": ("--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--read-only=ON"), "mariadb": ("--read-only=1",)}


@pytest.fixture(name="pair", params=["mysql", "mariadb"])
def _pair(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    servers: list[ThrowawayMySQL | Numbered] = []
    with contextlib.ExitStack() as stack:
        for number in (1, 2):
            options = ("--log-bin=changes", f"--server-id={number}", *BOTH[request.param])
            servers.append(ThrowawayMySQL(*options) if request.param == "mysql" else Numbered(*options))
            stack.enter_context(servers[-1])
        primary, replica = servers
        with open_session("mysql", primary, primary.database) as session:
            session.execute("SET GLOBAL read_only = OFF")
        password = primary.password.replace("'", "''")
        follow = FOLLOW[request.param].format(
            host=primary.host, port=primary.port, user=primary.user, password=password
        )
        with open_session("mysql", replica, replica.database) as session:
            session.execute(follow)
        yield primary, replica


@pytest.mark.prove
def test_a_replica_that_follows(pair: tuple[Server, Server], tmp_path: Path) -> None:
    """What commits late at the primary comes late to the replica, and is found within the lookback."""
    primary, replica = pair
    with fresh_database("mysql", primary) as database, running(tmp_path) as host:
        there = TestDatabase("mysql", replica, {**database.source_config, "port": replica.port})
        database.execute("CREATE TABLE t (id bigint AUTO_INCREMENT PRIMARY KEY, v varchar(20))")
        database.execute("INSERT INTO t (v) VALUES " + ", ".join(f"('{number}')" for number in range(2000)))

        def caught_up(last: str) -> bool:
            with contextlib.suppress(Exception):
                return bool(there.fetch("SELECT 1 FROM t WHERE v = %s", last))
            return False

        until(lambda: caught_up("1999"), what="the replica")
        body = {"sourceConfig": there.source_config, "sourceTable": "t", "targetTable": "t", "isActive": False}
        host.configure(name="t", trackingColumn="id", lookbackSeconds=300, **body)
        assert host.sync("t")["records_processed"] == 2000
        assert host.status("t")["protection"].startswith("lookback")
        late = database.connect()
        late.execute("BEGIN; INSERT INTO t (v) VALUES ('late')")
        database.execute("INSERT INTO t (v) VALUES ('early')")
        until(lambda: caught_up("early"), what="the replica")
        assert host.sync("t")["records_processed"] == 1
        host.sync("t")
        late.execute("COMMIT")
        until(lambda: caught_up("late"), what="the replica")
        assert host.sync("t")["records_processed"] == 1
        found = host.result("POST", "/data-replication/verify/t", {})
        assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0)
