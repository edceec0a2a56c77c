"""Texts that a source compares without regard to case are compared so in the replica, where that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

COLLATED = "COLLATE utf8mb4_general_ci"


def configure(host: HostProcess, database: TestDatabase, **more: Any) -> None:
    body = {"name": "t", "sourceConfig": database.source_config, "sourceTable": "t", "targetTable": "t"}
    host.configure(**{**body, "trackingColumn": "id", "isActive": False, "lookbackSeconds": 0, **more})


def refused(host: HostProcess) -> str:
    answer = host.request("POST", "/data-replication/sync/t")
    assert answer.status_code == 502
    return str(answer.json()["error"])


def test_a_column_is_compared_without_regard_to_case(source_database: TestDatabase, tmp_path: Path) -> None:
    database = source_database
    mysql = database.dialect == "mysql"
    if not mysql:
        database.execute("CREATE EXTENSION IF NOT EXISTS citext")
    text = f"varchar(40) {COLLATED}" if mysql else "citext"
    plain = "varchar(40) COLLATE utf8mb4_bin" if mysql else "text"
    database.execute(f"CREATE TABLE t (id int, code {text}, email {text}, name {plain}, PRIMARY KEY (id, code))")
    database.execute("INSERT INTO t VALUES (1, 'x', 'Ann@example.com', 'Ann'), (2, 'y', 'bob@example.com', 'bob')")
    with running(tmp_path) as host:
        configure(host, database)
        assert host.sync("t")["status"] == "success"
        sql = "SELECT id FROM t WHERE email = 'ANN@EXAMPLE.COM'"
        assert host.query(sql) == []
        configure(host, database, collations={"email": "nocase"})
        assert host.sync("t")["status"] == "success"
        assert host.query(sql) == [[1]] == [list(row) for row in database.fetch(sql)]
        assert host.query("SELECT id FROM t WHERE name = 'ANN'") == []
        assert host.sync("t")["records_processed"] == 0
        # A change of case alone is a change, by a sync as by a repair.
        configure(host, database, mode="full")
        configure(host, database, mode="incremental")
        database.execute("UPDATE t SET email = 'ann@Example.com' WHERE id = 1")
        found = host.result("POST", "/data-replication/verify/t", {"repair": True})
        assert found["different"] == 1
        assert host.query("SELECT email FROM t WHERE id = 1") == [["ann@Example.com"]]
        database.execute("INSERT INTO t VALUES (3, 'z', 'C@x', 'c')")
        host.query("UPDATE t SET email = 'BOB@example.com' WHERE id = 2")
        assert host.sync("t")["status"] == "success"
        found = host.result("POST", "/data-replication/verify/t", {})
        assert (found["missing"], found["extra"], found["different"]) == (0, 0, 1), found
        configure(host, database, collations={"name": "nocase"})
        assert "collations: the source does not compare name of " in refused(host)
        configure(host, database, collations={"code": "nocase"})
        assert "is part of the key" in refused(host)
        configure(host, database, collations={"nothing": "nocase"})
        assert "has no column nothing" in refused(host)
        answer = host.request("POST", "/data-replication/configure", {"name": "t", "collations": {"email": "rtrim"}})
        assert answer.status_code == 400
