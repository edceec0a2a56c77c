"""A `where` means what it means on its user's server, in every sql_mode; and our own SQL works in each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import HostProcess, running, until
from tests.support.servers import TestDatabase

# Of each mode, a condition that is another one without it, or none.
CONDITIONS = {
    "ANSI_QUOTES": "\"name\" = 'a'",
    "PIPES_AS_CONCAT": "name || 'b' = 'ab'",
    "NO_BACKSLASH_ESCAPES": r"path = 'c:\new' OR path = '\'",
    "IGNORE_SPACE": "SUBSTR (name, 1, 1) = 'a'",
    "HIGH_NOT_PRECEDENCE": "NOT id BETWEEN -5 AND 1",
    "ANSI": "\"t\".\"name\" || 'b' = 'ab'",
}
OFTEN = ("ANSI", "NO_BACKSLASH_ESCAPES")
ODD = "Ta`ble '\"\\%s"


@contextlib.contextmanager
def server_in(database: TestDatabase, modes: str) -> Iterator[None]:
    ((before,),) = database.fetch("SELECT @@GLOBAL.sql_mode")
    database.execute("SET GLOBAL sql_mode = %s", modes)
    try:
        yield
    finally:
        database.execute("SET GLOBAL sql_mode = %s", before)


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def create(database: TestDatabase) -> None:
    session = database.connect()
    session.execute("SET sql_mode = 'NO_BACKSLASH_ESCAPES'")
    session.execute(
        f"CREATE TABLE {quoted(ODD)} (name varchar(9) NOT NULL, id int NOT NULL, path varchar(20), at datetime(3), "
        "long_text longtext CHARACTER SET utf8mb3, PRIMARY KEY (name, id))"
    )
    for name, number, path in (("a", 1, r"c:\new"), ("aa", 2, "c:\new"), ("", 3, None), (r"b\'", 4, "'")):
        session.execute(
            f"INSERT INTO {quoted(ODD).replace('%', '%%')} VALUES (%s, %s, %s, '2026-01-01 00:00:00.5', '')",
            name, number, path,
        )  # fmt: skip
    session.close()


def configure(host: HostProcess, database: TestDatabase, name: str, *, tracking: str = "id", **more: Any) -> None:
    table = '"' + ODD.replace('"', '""') + '"'
    body = {"name": name, "sourceConfig": database.source_config, "sourceTable": table, "targetTable": name}
    host.configure(**body, trackingColumn=tracking, isActive=False, lookbackSeconds=0, **more)


def verified(host: HostProcess, name: str, **body: Any) -> tuple[int, int, int]:
    found = host.result("POST", f"/data-replication/verify/{name}", body)
    return found["missing"], found["extra"], found["different"]


def risen(host: HostProcess, name: str) -> bool:
    host.sync(name)
    return host.status(name)["last_sync_value"] is not None


@pytest.mark.parametrize(
    "mode", [mode if mode in OFTEN else pytest.param(mode, marks=pytest.mark.prove) for mode in CONDITIONS]
)
def test_a_condition_is_the_users_servers(either_mysql: TestDatabase, tmp_path: Path, mode: str) -> None:
    create(either_mysql)
    with server_in(either_mysql, mode), running(tmp_path) as host:
        ids = either_mysql.fetch(f"SELECT id FROM {quoted(ODD)} AS t WHERE {CONDITIONS[mode]} ORDER BY id")
        assert ids
        configure(host, either_mysql, "r", where=CONDITIONS[mode])
        assert host.sync("r")["status"] == "success"
        assert host.query("SELECT id FROM r ORDER BY id") == [list(row) for row in ids]
        assert host.status("r")["protection"].startswith("transactions")
        assert verified(host, "r") == (0, 0, 0)


def test_our_own_statements_hold_under_every_mode(either_mysql: TestDatabase, tmp_path: Path) -> None:
    create(either_mysql)
    modes = "ANSI,NO_BACKSLASH_ESCAPES,HIGH_NOT_PRECEDENCE,NO_UNSIGNED_SUBTRACTION"
    ((maria,),) = either_mysql.fetch("SELECT version() LIKE '%MariaDB%'")
    modes += ",EMPTY_STRING_IS_NULL" if maria else ""
    with server_in(either_mysql, modes), running(tmp_path) as host:
        for name, tracking in {"r": "id", "s": "at"}.items():
            configure(host, either_mysql, name, tracking=tracking, where="id > 0", deletes="reconcile")
            until(partial(risen, host, name))
            assert host.query(f"SELECT count(*) FROM {name}") == [[4]]
            assert verified(host, name) == (0, 0, 0)
            host.result("POST", "/query", {"sql": f"UPDATE {name} SET path = 'x'"})
            assert verified(host, name, repair=True) == (0, 0, 4)
            assert verified(host, name) == (0, 0, 0)
        rows = host.query("SELECT name, id, path FROM r ORDER BY id")
        assert rows == [["a", 1, r"c:\new"], ["aa", 2, "c:\new"], ["", 3, None], [r"b\'", 4, "'"]]
        either_mysql.execute(f"DELETE FROM {quoted(ODD)} WHERE id = 3")
        host.result("POST", "/data-replication/reconcile/r", {"force": True})
        assert host.query("SELECT id FROM r ORDER BY id") == [[1], [2], [4]]
