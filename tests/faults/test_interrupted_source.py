"""A load that was killed, and whose source became another one before it went on: what it had read is not trusted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from tests.support.hosts import HostProcess, running, until
from tests.support.servers import TestDatabase

ROWS = 1200
TABLE = "(id int PRIMARY KEY, u int, x varchar(10))"
# What became of the table, and where: its rows are other ones, with the same keys and tracking values.
EMPTIED = ("TRUNCATE TABLE t", "fill t")
SWAPPED = (f"CREATE TABLE n {TABLE}", "fill n", "ALTER TABLE t RENAME TO o", "ALTER TABLE n RENAME TO t")
MADE_AGAIN = ("DROP TABLE t", f"CREATE TABLE t {TABLE}", "fill t")


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Iterator[HostProcess]:
    with running(tmp_path) as host:
        yield host


def fill(database: TestDatabase, word: str, table: str = "t") -> None:
    rows = ", ".join(f"({number}, {number}, '{word}')" for number in range(1, ROWS + 1))
    database.execute(f"INSERT INTO {table} VALUES {rows}")


def configure(host: HostProcess, database: TestDatabase, **more: Any) -> None:
    body = {"name": "t", "sourceConfig": database.source_config, "sourceTable": "t", "targetTable": "t"}
    host.configure(**{**body, "trackingColumn": "u", "isActive": False, "lookbackSeconds": 0, **more})


def killed_during_a_load(host: HostProcess, what: str = "sync") -> None:
    """Begin a load, and kill the host with SIGKILL while it lasts."""
    host.configure(name="t", maxRowsPerSecond=400)

    def load() -> None:
        with contextlib.suppress(httpx.HTTPError):
            host.request("POST", f"/data-replication/{what}/t")

    def some() -> bool:
        tables = [name for (name,) in host.query("SELECT name FROM sqlite_master WHERE type = 'table'")]
        shadows = [name for name in tables if name.startswith("tmp_replication_shadow_")]
        table = shadows[0] if shadows else "t"
        return table in tables and (what == "sync" or bool(shadows)) and bool(host.query(f"SELECT 1 FROM {table}"))

    loading = Thread(target=load)
    loading.start()
    until(some, what="the first rows")
    host.kill()
    loading.join()
    host.start()
    host.configure(name="t", maxRowsPerSecond=None)


def become(database: TestDatabase, statements: tuple[str, ...]) -> None:
    for sql in statements:
        if sql.startswith("fill "):
            fill(database, "new", sql.removeprefix("fill "))
        else:
            database.execute(sql)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        pytest.param("sync", EMPTIED, id="emptied"),
        pytest.param("sync", SWAPPED, id="swapped", marks=pytest.mark.prove),
        pytest.param("sync", MADE_AGAIN, id="made again", marks=pytest.mark.prove),
        pytest.param("reset", EMPTIED, id="emptied during a reset", marks=pytest.mark.prove),
    ],
)
def test_a_table_that_is_another_one(
    host: HostProcess, source_database: TestDatabase, what: str, change: tuple[str, ...]
) -> None:
    source_database.execute(f"CREATE TABLE t {TABLE}")
    fill(source_database, "old")
    configure(host, source_database)
    if what == "reset":
        host.sync("t")
    killed_during_a_load(host, what)
    become(source_database, change)
    run = host.sync("t")
    assert run["status"] == "success"
    assert host.query("SELECT x, count(*) FROM t GROUP BY x") == [["new", ROWS]]


def test_a_partition_that_joined_meanwhile(host: HostProcess, postgres_database: TestDatabase) -> None:
    """Its rows lie below the key that the load had come to, and below the floor that it will have."""
    postgres_database.execute(
        f"CREATE TABLE t {TABLE} PARTITION BY RANGE (id); "
        "CREATE TABLE p1 PARTITION OF t FOR VALUES FROM (1) TO (9999); "
        "CREATE TABLE p0 (LIKE t INCLUDING ALL); INSERT INTO p0 VALUES (-1, 5, 'p'), (-2, 6, 'p')"
    )
    fill(postgres_database, "old")
    configure(host, postgres_database)
    killed_during_a_load(host)
    postgres_database.execute("ALTER TABLE t ATTACH PARTITION p0 FOR VALUES FROM (-99) TO (1)")
    run = host.sync("t")
    assert any("loaded again" in warning for warning in run["warnings"])
    assert host.query("SELECT count(*), min(id) FROM t") == [[ROWS + 2, -2]]


def test_what_only_the_tables_below_a_view_tell(host: HostProcess, either_mysql: TestDatabase) -> None:
    """All that was read is as it was at the source, but for one row in the middle."""
    either_mysql.execute(f"CREATE TABLE b {TABLE}")
    fill(either_mysql, "old", "b")
    either_mysql.execute("CREATE VIEW t AS SELECT id, u, x FROM b WHERE id > 0")
    configure(host, either_mysql, keyColumns=["id"])
    killed_during_a_load(host)
    either_mysql.execute("TRUNCATE TABLE b")
    fill(either_mysql, "old", "b")
    either_mysql.execute("UPDATE b SET x = 'new' WHERE id = 100")
    host.sync("t")
    assert host.query("SELECT id FROM t WHERE x = 'new'") == [[100]]


@pytest.mark.parametrize("asks", [pytest.param("reload", marks=pytest.mark.prove), "error"])
def test_without_the_privilege_to_see_it_a_sample_tells(
    host: HostProcess, either_mysql: TestDatabase, asks: str
) -> None:
    """What is asked of a source that went back is not asked of a load, which has promised nothing yet."""
    reader = f"reader_{either_mysql.name[-8:]}"
    either_mysql.execute(f"CREATE TABLE t {TABLE}")
    fill(either_mysql, "old")
    either_mysql.execute(f"CREATE USER {reader}@'%' IDENTIFIED BY 'a password'")
    either_mysql.execute(f"GRANT SELECT ON `{either_mysql.name}`.* TO {reader}@'%'")
    try:
        source = {**either_mysql.source_config, "user": reader, "password": "a password"}
        configure(host, either_mysql, sourceConfig=source, onSourceRewind=asks)
        killed_during_a_load(host)
        become(either_mysql, EMPTIED)
        run = host.sync("t")
        assert any("loaded again" in warning for warning in run["warnings"])
        assert host.query("SELECT x, count(*) FROM t GROUP BY x") == [["new", ROWS]]
    finally:
        either_mysql.execute(f"DROP USER {reader}@'%'")


@pytest.mark.elsewhere_in_prove
def test_a_load_over_rows_that_were_changed_goes_on(host: HostProcess, source_database: TestDatabase) -> None:
    source_database.execute(f"CREATE TABLE t {TABLE}")
    fill(source_database, "old")
    configure(host, source_database)
    killed_during_a_load(host)
    source_database.execute(f"UPDATE t SET u = u + {ROWS}, x = 'new' WHERE id < 40")
    source_database.execute("DELETE FROM t WHERE id = 41")
    run = host.sync("t")
    assert run["rows_read"] < ROWS
    assert run["warnings"] == []
    assert host.query("SELECT count(*) FROM t WHERE x = 'new'") == [[39]]
