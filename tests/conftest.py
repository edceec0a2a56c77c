"""The fixtures that give a test a server or a database. Servers start when the first test asks for one."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator
from typing import cast

import pytest
from hypothesis import HealthCheck, settings

from starbase_data_replication.demo.process import ServerError
from tests.support.servers import (
    Server,
    SocketPostgres,
    TestDatabase,
    fresh_database,
    mariadb_server,
    mysql_server,
    newer_mariadb_server,
    postgres_server,
    version_of,
)

DATABASES = {
    "postgresql": "postgres_database", "mariadb": "mariadb_database", "mysql": "mysql_database",
    "postgresql-18": "embedded_database", "mariadb-11": "newer_mariadb_database",
}  # fmt: skip
NEWER = ("postgresql-18", "mariadb-11")
KINDS = {
    "source_database": ("postgresql", "mariadb", "mysql", *NEWER),
    "either_mysql": ("mariadb", "mysql", "mariadb-11"),
}

# The time on a busy machine says nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`elsewhere_in_prove`, for what depends little on the kind of source: it is a proof but on PostgreSQL.

    Of a test that runs on both MariaDB and MySQL, `make test` takes one, by its name, so that half of them meet each;
    the other is a proof.

    `mariadb_only` and `mysql_only` are on a test, or one of its parameters, of what the other server does not have:
    there is no such test on the other.
    """
    for server, only in (("mariadb", "mysql_only"), ("mysql", "mariadb_only")):
        items[:] = [item for item in items if not (item.get_closest_marker(only) and f"[{server}" in item.name)]
    names = {item.nodeid for item in items}
    for item in items:
        base = item.nodeid.replace("[mariadb", "[mysql")
        if "[mysql" in base and {base, base.replace("[mysql", "[mariadb")} <= names:
            here = ("[mariadb", "[mysql")[zlib.crc32(base.encode()) % 2]
            if here not in item.nodeid:
                item.add_marker(pytest.mark.prove)
        if item.get_closest_marker("elsewhere_in_prove") and ("[mariadb" in item.name or "[mysql" in item.name):
            item.add_marker(pytest.mark.prove)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Put into the record of a test which servers it has met."""
    for value in vars(item).get("funcargs", {}).values():
        if isinstance(value, TestDatabase):
            item.user_properties.append(("met", version_of(value.dialect, value.server)))
    return (yield)


def _running(server: Server) -> Iterator[Server]:
    failure = ""
    try:
        try:
            server.start()
        except ServerError as error:
            failure = str(error)
        if failure:
            pytest.fail(failure, pytrace=False)
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of a test that is a coroutine (`pytest.mark.anyio`): the product runs on no other."""
    return "asyncio"


@pytest.fixture(scope="session", name="postgres_server")
def _postgres_server() -> Iterator[Server]:
    """The distribution's PostgreSQL, over TCP with a password."""
    yield from _running(postgres_server())


@pytest.fixture(scope="session", name="mariadb_server")
def _mariadb_server() -> Iterator[Server]:
    """MariaDB, over TCP with a password."""
    yield from _running(mariadb_server())


@pytest.fixture(scope="session", name="mysql_server")
def _mysql_server() -> Iterator[Server]:
    """MySQL, over TCP with a password."""
    yield from _running(mysql_server())


@pytest.fixture(scope="session")
def embedded_postgres() -> Iterator[SocketPostgres]:
    """The PostgreSQL of the demo, on its socket."""
    yield from cast("Iterator[SocketPostgres]", _running(SocketPostgres()))


@pytest.fixture
def postgres_database(postgres_server: Server) -> Iterator[TestDatabase]:
    with fresh_database("postgresql", postgres_server) as database:
        yield database


@pytest.fixture
def mariadb_database(mariadb_server: Server) -> Iterator[TestDatabase]:
    with fresh_database("mysql", mariadb_server) as database:
        yield database


@pytest.fixture(scope="session", name="newer_mariadb_server")
def _newer_mariadb_server() -> Iterator[Server]:
    yield from _running(newer_mariadb_server())


@pytest.fixture
def newer_mariadb_database(newer_mariadb_server: Server) -> Iterator[TestDatabase]:
    with fresh_database("mysql", newer_mariadb_server) as database:
        yield database


@pytest.fixture
def mysql_database(mysql_server: Server) -> Iterator[TestDatabase]:
    with fresh_database("mysql", mysql_server) as database:
        yield database


@pytest.fixture
def embedded_database(embedded_postgres: SocketPostgres) -> Iterator[TestDatabase]:
    with fresh_database("postgresql", embedded_postgres) as database:
        yield database


@pytest.fixture
def source_database(request: pytest.FixtureRequest) -> TestDatabase:
    """A database of each kind of server in turn: the test runs once on each."""
    return cast(TestDatabase, request.getfixturevalue(DATABASES[request.param]))


@pytest.fixture
def either_mysql(request: pytest.FixtureRequest) -> TestDatabase:
    """A database of MariaDB, then one of MySQL."""
    return cast(TestDatabase, request.getfixturevalue(DATABASES[request.param]))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The kinds of server; with `newer_in_prove` newer releases join the proofs."""
    newer = metafunc.definition.get_closest_marker("newer_in_prove") is not None
    for fixture, kinds in KINDS.items():
        if fixture in metafunc.fixturenames:
            chosen = [kind for kind in kinds if newer or kind not in NEWER]
            params = [pytest.param(kind, marks=pytest.mark.prove if kind in NEWER else ()) for kind in chosen]
            metafunc.parametrize(fixture, params, indirect=True)


@pytest.fixture(params=["distribution", "wheel"])
def either_postgres(request: pytest.FixtureRequest) -> TestDatabase:
    """A database of the distribution's PostgreSQL with contrib, then one of the wheel's PostgreSQL 18."""
    name = {"distribution": "postgres_database", "wheel": "embedded_database"}[request.param]
    return cast(TestDatabase, request.getfixturevalue(name))
