"""Triggers that somebody has made on a replica: none of them drops or changes a row of the source in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

IGNORES = {
    "insert": "BEFORE INSERT ON t WHEN new.id > 1 BEGIN SELECT RAISE(IGNORE); END",
    "after": "AFTER INSERT ON t BEGIN SELECT raise /* ) */ (\n-- ignore\nignore) WHERE new.id > 1; END",
    "update": "BEFORE UPDATE ON T BEGIN SELECT CASE WHEN old.id > 1 THEN RAISE(IGNORE) END; END",
    "delete": "BEFORE DELETE ON t BEGIN SELECT RAISE(IGNORE); END",
}
WRITES = {
    "removes": "AFTER INSERT ON t BEGIN DELETE FROM t WHERE id > 1; END",
    "updates": "AFTER INSERT ON t BEGIN UPDATE t SET name = upper(name) WHERE id = new.id; END",
    "inserts": "AFTER INSERT ON t WHEN new.id < 100 BEGIN INSERT INTO t (id, name) VALUES (new.id + 100, 'x'); END",
}
HARMLESS = {
    "ours": "AFTER INSERT ON t BEGIN UPDATE t SET ours = length(name) WHERE id = new.id; END",
    "elsewhere": "AFTER INSERT ON t BEGIN INSERT INTO seen VALUES ('RAISE(IGNORE)'); DELETE FROM seen WHERE 0; END",
    "refuses": "BEFORE INSERT ON t WHEN new.id < 0 BEGIN SELECT RAISE(ABORT, 'RAISE(IGNORE)'); /* RAISE(IGNORE) */ END",
}


def started(host: HostProcess, database: TestDatabase, **more: Any) -> None:
    """A replica of one row, with a column more, and a table beside it."""
    database.execute("CREATE TABLE t (id int PRIMARY KEY, name varchar(9)); INSERT INTO t VALUES (1, 'a')")
    body = {"name": "t", "sourceConfig": database.source_config, "sourceTable": "t", "targetTable": "t"}
    host.configure(**{**body, "isActive": False, "trackingColumn": "id", "lookbackSeconds": 0, **more})
    host.sync("t")
    for sql in ("ALTER TABLE t ADD COLUMN ours", "CREATE TABLE seen (what)"):
        host.result("POST", "/query", {"sql": sql})


@pytest.mark.parametrize("trigger", IGNORES.values(), ids=IGNORES)
def test_a_trigger_that_drops_rows_is_an_error(postgres_database: TestDatabase, tmp_path: Path, trigger: str) -> None:
    with running(tmp_path) as host:
        started(host, postgres_database, deletes="reconcile")
        host.result("POST", "/query", {"sql": f"CREATE TRIGGER dropping {trigger}"})
        postgres_database.execute("INSERT INTO t VALUES (2, 'b')")
        response = host.request("POST", "/data-replication/sync/t")
        assert response.status_code == 502
        assert "trigger dropping, whose RAISE(IGNORE) drops rows" in response.json()["error"]
        assert host.request("POST", "/data-replication/reconcile/t").status_code == 502
        assert host.request("POST", "/data-replication/verify/t", {"repair": True}).status_code == 502
        host.result("POST", "/query", {"sql": "DROP TRIGGER dropping"})
        assert host.sync("t")["warnings"] == []
        assert host.query("SELECT id FROM t ORDER BY id") == [[1], [2]]


def test_a_trigger_that_changes_rows_is_named(postgres_database: TestDatabase, tmp_path: Path) -> None:
    with running(tmp_path) as host:
        started(host, postgres_database)
        for name, trigger in {**WRITES, **HARMLESS}.items():
            host.result("POST", "/query", {"sql": f"CREATE TRIGGER {name} {trigger}"})
        warnings = host.sync("t")["warnings"]
        assert [warning.split()[2] for warning in warnings] == sorted(WRITES)
        assert "then differ from the source's" in warnings[0]
        assert host.status("t")["warnings"] == warnings
        # One that another table's trigger fires writes the replica as well.
        for name in WRITES:
            host.result("POST", "/query", {"sql": f"DROP TRIGGER {name}"})
        host.result("POST", "/query", {"sql": "CREATE TRIGGER far AFTER INSERT ON seen BEGIN DELETE FROM t; END"})
        assert [warning.split()[2] for warning in host.sync("t")["warnings"]] == ["far"]
        host.result("POST", "/query", {"sql": "DROP TRIGGER far"})
        postgres_database.execute("INSERT INTO t VALUES (2, 'b')")
        assert host.sync("t")["warnings"] == []
        assert host.query("SELECT id, ours FROM t ORDER BY id") == [[1, None], [2, 1]]


def test_a_group_and_a_full_load_check_triggers_too(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """A load goes into another table, and the trigger is put on it at the end: it drops nothing of it."""
    with running(tmp_path) as host:
        started(host, postgres_database, group="g")
        host.result("POST", "/query", {"sql": f"CREATE TRIGGER dropping {IGNORES['insert']}"})
        postgres_database.execute("INSERT INTO t VALUES (2, 'b')")
        assert "RAISE(IGNORE)" in host.request("POST", "/data-replication/sync/t").json()["error"]
        host.configure(name="t", group=None, mode="full")
        assert host.sync("t")["status"] == "success"
        assert host.query("SELECT id FROM t ORDER BY id") == [[1], [2]]
