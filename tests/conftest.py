"""The fixtures that give a test a server or a database. Servers start when the first test asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import HealthCheck, settings

from starbase_data_replication.demo.process import ServerError
from tests.servers import (
    Server,
    SocketPostgres,
    TestDatabase,
    fresh_database,
    mariadb_server,
    mysql_server,
    postgres_server,
)

DATABASES = {"postgresql": "postgres_database", "mariadb": "mariadb_database", "mysql": "mysql_database"}

# Tests that do not run on MySQL yet: deselected, which pytest counts and shows. To become empty, and to go.
LATER_ON_MYSQL = {
    "test_a_collation_of_the_replica_does_not_matter",
    "test_a_large_table_without_a_key",
    "test_a_long_transaction_bounds_the_second_reading",
    "test_both_dialects_conform",
    "test_either_side_is_empty",
    "test_equal_is_equal",
    "test_every_value_is_the_same_on_both_sides",
    "test_kill_in_the_middle_of_a_first_load",
    "test_killed_at",
    "test_one_value_among_many_costs_few_sums",
    "test_tls_that_the_server_does_not_have_is_an_error",
    "test_what_changed_meanwhile_is_no_difference",
    "test_what_polling_cannot_see_is_found_and_repaired",
}

# How long a machine takes that has other work is no property of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`elsewhere_in_prove`, for what depends little on the kind of source: it is a proof but on PostgreSQL."""
    for item in items:
        if item.get_closest_marker("elsewhere_in_prove") and ("[mariadb" in item.name or "[mysql" in item.name):
            item.add_marker(pytest.mark.prove)
    later = [item for item in items if "[mysql" in item.name and item.name.partition("[")[0] in LATER_ON_MYSQL]
    config.hook.pytest_deselected(items=later)
    items[:] = [item for item in items if item not in later]


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


@pytest.fixture
def mysql_database(mysql_server: Server) -> Iterator[TestDatabase]:
    with fresh_database("mysql", mysql_server) as database:
        yield database


@pytest.fixture
def embedded_database(embedded_postgres: SocketPostgres) -> Iterator[TestDatabase]:
    with fresh_database("postgresql", embedded_postgres) as database:
        yield database


@pytest.fixture(params=["postgresql", "mariadb", "mysql"])
def source_database(request: pytest.FixtureRequest) -> TestDatabase:
    """A database of each kind in turn: the test runs once on each."""
    return cast(TestDatabase, request.getfixturevalue(DATABASES[request.param]))


@pytest.fixture(params=["mariadb", "mysql"])
def either_mysql(request: pytest.FixtureRequest) -> TestDatabase:
    """A database of MariaDB, then one of MySQL."""
    return cast(TestDatabase, request.getfixturevalue(DATABASES[request.param]))


@pytest.fixture(params=["distribution", "wheel"])
def either_postgres(request: pytest.FixtureRequest) -> TestDatabase:
    """A database of the distribution's PostgreSQL with contrib, then one of the wheel's PostgreSQL 18."""
    name = {"distribution": "postgres_database", "wheel": "embedded_database"}[request.param]
    return cast(TestDatabase, request.getfixturevalue(name))
