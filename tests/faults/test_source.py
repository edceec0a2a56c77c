"""The source itself fails: stopped, frozen, full, with another password, or with an administrator who kills."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import asyncpg
import psutil
import pymysql
import pytest

from starbase_data_replication.errors import SourceUnavailable
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.sources.protocols import Dialect, Pingable
from tests.support.faults import Rig, rig, through
from tests.support.hosts import until
from tests.support.servers import Server, TestDatabase, free_port, fresh_database
from tests.support.sessions import MySQLSession, PostgresSession, Session

SERVERS = {"postgresql": "postgres_server", "mariadb": "mariadb_server", "mysql": "mysql_server"}
KINDS = ["postgresql", *(pytest.param(kind, marks=pytest.mark.prove) for kind in ("mariadb", "mysql"))]
PASSWORD = "the reader/own@"
READER = {
    "postgresql": "CREATE ROLE {user} LOGIN PASSWORD '{password}'; GRANT pg_read_all_data TO {user}",
    "mysql": "CREATE USER {user}@'%' IDENTIFIED BY '{password}'; GRANT SELECT ON {database}.* TO {user}@'%'",
}
SET_PASSWORD = {
    "postgresql": "ALTER ROLE {user} PASSWORD '{password}'",
    "mysql": "ALTER USER {user}@'%' IDENTIFIED BY '{password}'",
}
SET_LIMIT = {
    "postgresql": "ALTER ROLE {user} CONNECTION LIMIT {limit}",
    "mysql": "ALTER USER {user}@'%' WITH MAX_USER_CONNECTIONS {limit}",
}
LOCK = {"postgresql": "BEGIN; LOCK TABLE {table}", "mysql": "LOCK TABLES {table} WRITE"}
# The sessions of a user; and what ends one, or only its statement.
SESSIONS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE usename = '{user}'",
    "mysql": "SELECT id FROM information_schema.processlist WHERE user = '{user}'",
}
END = {"postgresql": "SELECT pg_terminate_backend({session})", "mysql": "KILL CONNECTION {session}"}
CANCEL = {"postgresql": "SELECT pg_cancel_backend({session})", "mysql": "KILL QUERY {session}"}


@pytest.fixture(scope="module", params=KINDS, name="ill")
def _ill(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A rig whose healthy replication reads from the other kind of server."""
    other = "mariadb" if request.param == "postgresql" else "postgresql"
    server, well = (request.getfixturevalue(SERVERS[kind]) for kind in (request.param, other))
    with (
        fresh_database("postgresql" if request.param == "postgresql" else "mysql", server) as database,
        fresh_database("postgresql" if other == "postgresql" else "mysql", well) as steady,
        rig(tmp_path_factory.mktemp("ill"), database, steady=steady) as made,
    ):
        yield made


@contextlib.contextmanager
def reader(database: TestDatabase) -> Iterator[str]:
    """A separate user, whose sessions are the host's."""
    user = f"reader_{database.name[-6:]}"
    database.execute(READER[database.dialect].format(user=user, password=PASSWORD, database=database.name))
    try:
        yield user
    finally:
        end_sessions(database, user)
        drop = f"DROP ROLE {user}" if database.dialect == "postgresql" else f"DROP USER {user}@'%'"
        if database.dialect == "postgresql":
            database.execute(f"REVOKE pg_read_all_data FROM {user}")
        database.execute(drop)


def end_sessions(database: TestDatabase, user: str, how: dict[str, str] = END) -> None:
    with database.connect() as session:
        for (found,) in session.fetch(SESSIONS[database.dialect].format(user=user)):
            # One that has just ended by itself is as good.
            with contextlib.suppress(pymysql.err.OperationalError):
                session.fetch(how[database.dialect].format(session=found))


def as_reader(rig: Rig, user: str) -> dict[str, Any]:
    settings = {**rig.database.source_config, "user": user, "password": PASSWORD}
    return through(TestDatabase(rig.database.dialect, rig.database.server, settings), rig.proxy)


def test_a_source_that_is_stopped(ill: Rig) -> None:
    with ill.suffering(ill.database.server.start, says="", write=False):
        ill.database.server.stop()


def test_a_source_that_is_restarted_between_two_syncs_costs_none(ill: Rig) -> None:
    """The connections of before are dead; the next sync makes new ones, and no error is reported."""
    name = ill.table()
    ill.replicate(name, isActive=False)
    ill.host.sync(name)
    ill.database.server.stop()
    ill.database.server.start()
    ill.write(name)
    assert ill.host.sync(name)["status"] == "success"
    assert ill.equal(name)
    assert ill.events(name) == []


@pytest.mark.prove
def test_a_source_that_is_frozen_in_a_read(ill: Rig) -> None:
    """SIGSTOP: the kernel still answers for it, so that no connection breaks; nothing comes any more."""
    name = ill.table(rows=40000)
    ill.proxy.begin(bytes_per_second=4_000_000)
    ill.replicate(name)
    until(lambda: (ill.host.status(name)["progress"] or {}).get("rows", 0) > 0, what="the read")
    with frozen(ill.database.server):
        ill.proxy.heal()
        error = str(until(lambda: ill.failure(name), what="the watchdog"))
        assert "nothing came from the source for" in error or "answer" in error
        ill.steady_goes_on()
    ill.recovers(name)


@contextlib.contextmanager
def frozen(server: Server) -> Iterator[None]:
    assert server.pid is not None
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def test_a_busy_source_is_not_silent(ill: Rig) -> None:
    """It answers nothing for several times the limit of silence, for a lock; but a new connection is answered."""
    name = ill.table()
    ill.replicate(name, isActive=False)
    with ill.database.connect() as blocker:
        blocker.execute(LOCK[ill.database.dialect].format(table=name))
        ill.host.request("POST", f"/data-replication/sync/{name}", wait="false")
        until(
            lambda: ill.host.log.count(f"run of {name}: the source is silent, but answers") >= 2, what="two questions"
        )
        assert ill.host.status(name)["is_running"]
    until(lambda: ill.runs(name, "success"), what="the end of the run")
    assert ill.equal(name)


def test_a_source_without_room_for_a_connection(ill: Rig) -> None:
    with reader(ill.database) as user, contextlib.ExitStack() as held:
        limit = SET_LIMIT[ill.database.dialect]

        def heal() -> None:
            held.close()
            ill.database.execute(limit.format(user=user, limit=100))

        says = "too many connections" if ill.database.dialect == "postgresql" else "max_user_connections"
        with ill.suffering(heal, says=says, config=as_reader(ill, user)):
            ill.database.execute(limit.format(user=user, limit=1))
            settings = {**ill.database.source_config, "user": user, "password": PASSWORD}
            own = TestDatabase(ill.database.dialect, ill.database.server, settings)

            def taken() -> bool:
                """The only connection that this user may have, taken away from the host."""
                end_sessions(ill.database, user)
                with contextlib.suppress(pymysql.err.OperationalError, asyncpg.PostgresError):
                    held.enter_context(open_as(own))
                    return True
                return False

            until(taken, what="the last connection")


def open_as(database: TestDatabase) -> Session:
    settings = database.source_config
    connect = PostgresSession if database.dialect == "postgresql" else MySQLSession
    return connect(*(settings[key] for key in ("host", "port", "user", "password", "database")))


def test_a_password_that_was_changed(ill: Rig) -> None:
    with reader(ill.database) as user:
        change = SET_PASSWORD[ill.database.dialect]
        says = "password" if ill.database.dialect == "postgresql" else "Access denied"
        with ill.suffering(
            lambda: ill.database.execute(change.format(user=user, password=PASSWORD)),
            says=says,
            config=as_reader(ill, user),
        ):
            ill.database.execute(change.format(user=user, password="another"))
            end_sessions(ill.database, user)


def test_a_statement_that_the_administrator_kills(ill: Rig) -> None:
    with reader(ill.database) as user, contextlib.ExitStack() as blocked:
        says = "cancel" if ill.database.dialect == "postgresql" else "interrupted"

        def heal() -> None:
            blocked.close()

        with ill.suffering(heal, says=says, write=False, config=as_reader(ill, user)) as name:
            blocker = blocked.enter_context(ill.database.connect())
            blocker.execute(LOCK[ill.database.dialect].format(table=name))

            def killed() -> bool:
                end_sessions(ill.database, user, CANCEL)
                return ill.failure(name) is not None

            until(killed, what="a killed statement")


@pytest.mark.anyio
async def test_a_source_is_asked_whether_it_is_there(source_database: TestDatabase) -> None:
    """What the watchdog asks: a server answers, also by a refusal; a port without a listener gives no answer."""
    dialects: dict[str, Dialect] = {"postgresql": PostgresqlDialect(), "mysql": MysqlDialect()}
    dialect = dialects[source_database.dialect]

    async def ask(**changed: Any) -> None:
        source = dialect.open({**source_database.source_config, **changed}, max_connections=1)
        try:
            asked: object = source
            assert isinstance(asked, Pingable)
            await asked.ping()
        finally:
            await source.close()

    await ask()
    await ask(password="a wrong one")
    with pytest.raises(SourceUnavailable):
        await ask(port=free_port())
