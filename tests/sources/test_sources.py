"""Sources as users have them: connection strings, TLS, schemas, odd names, shared servers; over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from tests.support.hosts import CONFIG, HostProcess, running, until
from tests.support.servers import DistroPostgres, TestDatabase, ThrowawayMySQL, fresh_database

ODD_NAMES = [
    "Mixed Case", "select", 'with "double" quotes', "with `back` ticks", "it's", "snow ☃ 雪 😀", "per%cent",
    "semi;colon--", "dash-ed", "colon:name", "dollar$1", "question?", "back\\slash",
]  # fmt: skip


def quoted(database: TestDatabase, name: str) -> str:
    mark = '"' if database.dialect == "postgresql" else "`"
    return mark + name.replace(mark, mark * 2) + mark


def configure(host: HostProcess, database: TestDatabase, **more: Any) -> None:
    body: dict[str, Any] = {"name": "t", "sourceConfig": database.source_config, "sourceTable": "t"}
    host.configure(**{**body, "targetTable": "t", "isActive": False, **more})


def connection_string(database: TestDatabase, suffix: str = "") -> dict[str, Any]:
    settings = database.source_config
    login = f"{quote(settings['user'], safe='')}:{quote(settings['password'], safe='')}"
    place = f"{settings['host']}:{settings['port']}/{settings['database']}"
    return {"dialect": database.dialect, "connectionString": f"{database.dialect}://{login}@{place}{suffix}"}


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_identifier_is_quoted(source_database: TestDatabase, tmp_path: Path, name: str) -> None:
    if source_database.dialect == "mysql":
        # MySQL's names hold the basic plane only.
        name = name.replace("😀", "é")
    table, column, key = (quoted(source_database, each) for each in (name, name, name + " key"))
    source_database.execute(f"CREATE TABLE {table} ({key} int PRIMARY KEY, {column} varchar(20))")
    source_database.execute(f"INSERT INTO {table} VALUES (1, 'one'), (2, NULL)")
    with running(tmp_path) as host:
        source_table = '"' + name.replace('"', '""') + '"'
        configure(host, source_database, sourceTable=source_table, targetTable=name, trackingColumn=name + " key")
        assert host.sync("t")["records_processed"] == 2
        source_database.execute(f"INSERT INTO {table} VALUES (3, 'three')")
        assert host.sync("t")["records_processed"] == 1
        replica = '"' + name.replace('"', '""') + '"'
        rows = host.result("POST", "/query", {"sql": f"SELECT * FROM {replica} ORDER BY 1"})
        assert rows == [{f"{name} key": n, name: text} for n, text in ((1, "one"), (2, None), (3, "three"))]


def test_schemas(postgres_database: TestDatabase, tmp_path: Path) -> None:
    for schema, name in (("public", "p"), ("sales", "s"), ("odd.schema", "o")):
        postgres_database.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        postgres_database.execute(f'CREATE TABLE "{schema}".t (id int PRIMARY KEY, name text)')
        postgres_database.execute(f"INSERT INTO \"{schema}\".t VALUES (1, '{name}')")
    with running(tmp_path) as host:
        in_sales = {**postgres_database.source_config, "defaultSchema": "sales"}
        for config, table, expected in (
            (postgres_database.source_config, "t", "p"),
            (postgres_database.source_config, "sales.t", "s"),
            (postgres_database.source_config, '"odd.schema".t', "o"),
            (in_sales, "t", "s"),
            (in_sales, "public.t", "p"),
            ({**connection_string(postgres_database), "defaultSchema": "sales"}, "t", "s"),
        ):
            configure(host, postgres_database, sourceConfig=config, sourceTable=table)
            host.sync("t")
            assert host.query("SELECT name FROM t") == [[expected]]


def test_a_connection_string(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source_database.execute("INSERT INTO t VALUES (1)")
    with running(tmp_path) as host:
        configure(host, source_database, sourceConfig=connection_string(source_database))
        host.sync("t")
        assert host.query("SELECT id FROM t") == [[1]]
        shown = host.status("t")["source_config"]
        assert ":***@" in shown["connectionString"]
        # Sent back as it was shown, the stored secret stays; and it is the same table, so nothing starts over.
        configure(host, source_database, sourceConfig=shown)
        assert host.sync("t")["kind"] == "manual"
        configure(host, source_database)
        assert host.sync("t")["rows_read"] <= 1


def test_a_password_from_the_environment(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    config = {**source_database.source_config, "password": "${SOURCE_PASSWORD}"}
    with running(tmp_path, environ={"SOURCE_PASSWORD": source_database.source_config["password"]}) as host:
        configure(host, source_database, sourceConfig=config)
        assert host.sync("t")["status"] == "success"
        assert host.status("t")["source_config"]["password"] == "${SOURCE_PASSWORD}"
        configure(host, source_database, name="u", targetTable="u", isActive=True)
    again = HostProcess(tmp_path).start()
    try:
        # What one replication lacks does not affect the others.
        configure(again, source_database, name="u", targetTable="u", isActive=True)
        until(lambda: any(run["status"] == "success" for run in again.logs("u")), what="the other's sync")
        response = again.request("POST", "/data-replication/sync/t")
        assert response.status_code in (400, 502)
        assert "SOURCE_PASSWORD" in response.json()["error"]
    finally:
        again.stop()


@pytest.fixture
def without_tls(source_database: TestDatabase) -> Iterator[TestDatabase]:
    """A database of each kind of server, without TLS; MySQL, which makes certificates by itself, has it turned off."""
    if source_database.dialect == "postgresql" or source_database.is_mariadb:
        yield source_database
        return
    with ThrowawayMySQL(tls=False) as server, fresh_database("mysql", server) as database:
        yield database


def test_tls_that_the_server_does_not_have_is_an_error(without_tls: TestDatabase, tmp_path: Path) -> None:
    """Never in clear text where TLS was asked for."""
    source_database = without_tls
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    parameter = {"postgresql": "?sslmode=require", "mysql": "?ssl-mode=REQUIRED"}[source_database.dialect]
    key, value = {"postgresql": ("sslmode", "require"), "mysql": ("sslMode", "REQUIRED")}[source_database.dialect]
    with running(tmp_path) as host:
        for config in (
            connection_string(source_database, parameter),
            {**source_database.source_config, key: value},
        ):
            configure(host, source_database, sourceConfig=config)
            response = host.request("POST", "/data-replication/sync/t")
            assert response.status_code == 502, response.text
            assert source_database.source_config["password"] not in response.text


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"password": "wrong"}, 502),
        ({"user": "nobody_of_that_name"}, 502),
        ({"database": "no_such_database"}, 502),
        ({"port": 1}, 502),
        ({"host": "no-such-host.invalid"}, 502),
    ],
)
def test_a_source_that_says_no(
    source_database: TestDatabase, tmp_path: Path, change: dict[str, Any], expected: int
) -> None:
    with running(tmp_path) as host:
        configure(host, source_database, sourceConfig={**source_database.source_config, **change})
        response = host.request("POST", "/data-replication/sync/t")
        assert response.status_code == expected
        everything = response.text + host.log + str(host.logs()) + str(host.status("t"))
        assert source_database.source_config["password"] not in everything
        assert host.status("t")["last_error"]
        assert host.status("t")["consecutive_failures"] == 1


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize(("table", "column"), [("missing", "id"), ("t", "missing")])
def test_a_table_or_column_that_is_missing(
    source_database: TestDatabase, tmp_path: Path, table: str, column: str
) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with running(tmp_path) as host:
        configure(host, source_database, sourceTable=table, trackingColumn=column)
        response = host.request("POST", "/data-replication/sync/t")
        assert response.status_code == 502
        assert "missing" in response.json()["error"]


LOCK = {"postgresql": "BEGIN; LOCK TABLE t", "mysql": "LOCK TABLES t WRITE"}


@pytest.mark.elsewhere_in_prove
def test_one_run_at_a_time(source_database: TestDatabase, tmp_path: Path) -> None:
    """By hand a second one is a 409, by schedule it is skipped and noted; another replication goes on."""
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source_database.execute("CREATE TABLE u (id int PRIMARY KEY)")
    blocker = source_database.connect()
    blocker.execute(LOCK[source_database.dialect])
    with running(tmp_path) as host:
        configure(host, source_database, isActive=True, syncIntervalMinutes=0.01)
        configure(host, source_database, name="u", sourceTable="u", targetTable="u")
        until(lambda: host.status("t")["is_running"], what="the scheduled run")
        assert host.request("POST", "/data-replication/sync/t").status_code == 409
        assert host.sync("u")["status"] == "success"
        until(lambda: any(run["status"] == "skipped" for run in host.logs("t")), what="a skipped tick")
        blocker.close()
        until(lambda: any(run["status"] == "success" for run in host.logs("t")), what="the end of the run")


@pytest.mark.elsewhere_in_prove
def test_a_bound_over_all_runs(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source_database.execute("CREATE TABLE u (id int PRIMARY KEY)")
    blocker = source_database.connect()
    blocker.execute(LOCK[source_database.dialect])
    config = CONFIG + "max_concurrent_syncs = 1\n"
    with running(tmp_path, config) as host:
        configure(host, source_database)
        configure(host, source_database, name="u", sourceTable="u", targetTable="u")
        accepted = host.request("POST", "/data-replication/sync/t", wait="false")
        assert accepted.status_code == 202
        run_id = accepted.json()["result"]["run_id"]
        until(lambda: host.status("t")["state"] == "running", what="the first run")
        host.request("POST", "/data-replication/sync/u", wait="false")
        until(lambda: host.status("u")["state"] == "waiting", what="the second run's wait")
        blocker.close()
        until(lambda: host.logs("u") and host.logs("t"), what="both runs' end")
        assert host.logs("t")[0]["run_id"] == run_id


@pytest.mark.elsewhere_in_prove
def test_the_run_does_not_end_with_the_client(source_database: TestDatabase, tmp_path: Path) -> None:
    import httpx

    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source_database.execute("INSERT INTO t VALUES (1)")
    blocker = source_database.connect()
    blocker.execute(LOCK[source_database.dialect])
    with running(tmp_path) as host:
        configure(host, source_database)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{host.url}/data-replication/sync/t", headers={"authorization": "Bearer admin-token-of-the-tests"},
                timeout=0.5,
            )  # fmt: skip
        assert host.status("t")["is_running"]
        blocker.close()
        until(lambda: host.logs("t"), what="the run's end")
        assert host.logs("t")[0]["status"] == "success"


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize("action", ["configure", "stop", "delete"])
def test_changed_while_it_syncs(source_database: TestDatabase, tmp_path: Path, action: str) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    blocker = source_database.connect()
    blocker.execute(LOCK[source_database.dialect])
    with running(tmp_path) as host:
        configure(host, source_database)
        answers: list[int] = []
        waiting = threading.Thread(
            target=lambda: answers.append(host.request("POST", "/data-replication/sync/t").status_code)
        )
        waiting.start()
        until(lambda: host.status("t")["is_running"], what="the run")
        if action == "configure":
            configure(host, source_database, syncIntervalMinutes=5)
        elif action == "stop":
            host.result("POST", "/data-replication/stop/t")
        else:
            host.result("DELETE", "/data-replication/configure/t")
        waiting.join(20)
        assert answers == [503]
        assert host.logs("t")[0]["status"] == "interrupted"
        blocker.close()
        if action != "delete":
            assert host.sync("t")["status"] == "success"


@pytest.mark.elsewhere_in_prove
def test_stopped_at_every_moment_of_a_run(source_database: TestDatabase, tmp_path: Path) -> None:
    """However early or late a stop strikes, the run is recorded once and its name is free again."""
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source_database.execute("INSERT INTO t VALUES (1)")
    with running(tmp_path) as host:
        configure(host, source_database)
        host.sync("t")
        for round in range(40):
            before = len(host.logs("t"))
            host.request("POST", "/data-replication/sync/t", wait="false")
            stops = [threading.Thread(target=host.request, args=("POST", "/data-replication/stop/t")) for _ in range(2)]
            time.sleep(round * 0.002)
            for stop in stops:
                stop.start()
            for stop in stops:
                stop.join(20)
                assert not stop.is_alive(), "a stop hangs"
            until(lambda: not host.status("t")["is_running"], what="the end of the run")
            assert len(host.logs("t")) == before + 1
        assert host.sync("t")["status"] == "success"


def test_a_server_that_freezes_in_a_read_does_not_hold_a_stop(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """SIGSTOP: its connections stay open and nothing answers. What a user asks for is done all the same."""
    with DistroPostgres() as server, fresh_database("postgresql", server) as database:
        database.execute("CREATE TABLE t (id int PRIMARY KEY, wide text)")
        database.execute("INSERT INTO t SELECT n, repeat('x', 2000) FROM generate_series(1, 100000) n")
        with running(tmp_path) as host:
            configure(host, database)
            host.request("POST", "/data-replication/sync/t", wait="false")
            until(lambda: (host.status("t")["progress"] or {}).get("rows", 0) > 0, what="the read")
            assert server.pid is not None
            processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
            for process in processes:
                process.suspend()
            try:
                began = time.monotonic()
                host.result("POST", "/data-replication/stop/t")
                assert time.monotonic() - began < 15
                assert not host.status("t")["is_running"]
                assert host.logs("t")[0]["status"] == "interrupted"
            finally:
                for process in processes:
                    process.resume()
            assert host.sync("t")["status"] == "success"
            assert host.query("SELECT count(*) FROM t") == [[100000]]


def test_values_of_environment_variables_are_not_shown(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """A driver quotes the user's name that a server refuses; where it came from a variable, that is named instead."""
    config = {**postgres_database.source_config, "user": "${SOURCE_VARIABLE}"}
    with running(tmp_path, environ={"SOURCE_VARIABLE": "a-value-of-the-environment"}) as host:
        configure(host, postgres_database, sourceConfig=config)
        response = host.request("POST", "/data-replication/sync/t")
        assert response.status_code == 502
        everything = response.text + str(host.logs()) + str(host.status("t")) + host.log
        assert "a-value-of-the-environment" not in everything
        assert "${SOURCE_VARIABLE}" in response.text


def test_a_name_that_is_not_text_is_a_400(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        assert host.request("POST", "/data-replication/configure", {"name": "\ud800"}).status_code == 400
