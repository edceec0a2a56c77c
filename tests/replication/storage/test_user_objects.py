"""What an admin adds to a replica, and runs in the writes of syncs: it ends in time, and others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import CONFIG, HostProcess, running, until
from tests.support.servers import TestDatabase

SECONDS = 0.3
SHORT = f"{CONFIG}max_trigger_seconds = {SECONDS}\n"
ENDLESS = "SELECT count(*) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n)"
# Some tenths of a second for each row.
SLOW = "length(replace(hex(zeroblob(10000000)), '00', name || '000'))"
NOTHING_ELSE = "the trigger slow; drop it, or make it do less; max_trigger_seconds is the limit"
TRIGGERS = {
    "insert": f"AFTER INSERT ON t BEGIN {ENDLESS}; END",
    "before": f"BEFORE INSERT ON T BEGIN {ENDLESS}; END",
    "when": f"AFTER INSERT ON t WHEN ({ENDLESS}) BEGIN SELECT 1; END",
    "writes": f"AFTER INSERT ON t BEGIN INSERT INTO seen SELECT 1 FROM ({ENDLESS.replace('count(*)', '*')}); END",
    "far": "AFTER INSERT ON t BEGIN INSERT INTO seen VALUES (1); END",
}


def started(host: HostProcess, database: TestDatabase, name: str = "t", **more: Any) -> None:
    """A replica of one row."""
    database.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, name varchar(9)); INSERT INTO {name} VALUES (1, 'a')")
    body = {"name": name, "sourceConfig": database.source_config, "sourceTable": name, "targetTable": name}
    host.configure(**{**body, "isActive": False, "trackingColumn": "id", "lookbackSeconds": 0, **more})
    host.sync(name)


def written(host: HostProcess, *statements: str) -> None:
    for sql in statements:
        host.result("POST", "/query", {"sql": sql})


def failure(host: HostProcess, path: str = "sync/t", body: Any = None) -> str:
    response = host.request("POST", f"/data-replication/{path}", body)
    assert response.status_code == 502, response.text
    return str(response.json()["error"])


@pytest.mark.elsewhere_in_prove
def test_a_trigger_without_end(source_database: TestDatabase, tmp_path: Path) -> None:
    with running(tmp_path, SHORT) as host:
        started(host, source_database)
        written(host, "CREATE TABLE seen (what)", f"CREATE TRIGGER slow AFTER INSERT ON seen BEGIN {ENDLESS}; END")
        source_database.execute("INSERT INTO t VALUES (2, 'b')")
        for trigger in TRIGGERS.values():
            written(host, f"CREATE TRIGGER slower {trigger}")
            error = failure(host)
            assert "table t was being written for over 0.3 seconds because of what was added to it: " in error
            assert "the trigger slower; drop it, or make it do less" in error
            written(host, "DROP TRIGGER slower")
        assert host.query("SELECT * FROM seen") == []
        assert host.query("SELECT id FROM t") == [[1]]
        assert host.sync("t")["status"] == "success"
        assert host.query("SELECT id, name FROM t ORDER BY id") == [[1, "a"], [2, "b"]]


def test_every_write_of_a_run_is_bounded(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """A reconciliation, a repair, a mark, and the merge of a group."""
    with running(tmp_path, SHORT) as host:
        started(host, postgres_database, deletes="reconcile", deletesMaxShare=1)
        started(host, postgres_database, "marked", deletes={"mark": "gone_at"}, deletesMaxShare=1)
        started(host, postgres_database, "grouped", group="g")
        for name, event in (("t", "DELETE"), ("marked", "UPDATE"), ("grouped", "INSERT")):
            written(host, f"CREATE TRIGGER slow_{name} AFTER {event} ON {name} BEGIN {ENDLESS}; END")
        postgres_database.execute("DELETE FROM t; DELETE FROM marked; INSERT INTO grouped VALUES (2, 'b')")
        assert "the trigger slow_t;" in failure(host, "reconcile/t")
        assert "the trigger slow_t;" in failure(host, "verify/t", {"repair": True})
        assert "the trigger slow_marked;" in failure(host, "reconcile/marked")
        assert "the trigger slow_grouped;" in failure(host, "sync/grouped")
        assert host.query("SELECT (SELECT count(*) FROM t), (SELECT count(gone_at) FROM marked)") == [[1, 0]]


@pytest.mark.parametrize("what", ["an index", "a partial index", "a computed column", "a CHECK"])
def test_what_computes_for_too_long(postgres_database: TestDatabase, tmp_path: Path, what: str) -> None:
    with running(tmp_path, SHORT) as host:
        started(host, postgres_database)
        if what == "an index":
            written(host, f"CREATE INDEX slow ON t ({SLOW})")
        elif what == "a partial index":
            written(host, f"CREATE INDEX slow ON t (id) WHERE {SLOW} > 0")
        else:
            host.result("DELETE", "/data-replication/configure/t")
            columns = "id INTEGER PRIMARY KEY, name TEXT"
            code = f"more AS ({SLOW}) STORED" if "computed" in what else f"CHECK ({SLOW} > 0)"
            written(host, "DROP TABLE t", f"CREATE TABLE t ({columns}, {code})")
            body = {"sourceConfig": postgres_database.source_config, "sourceTable": "t", "targetTable": "t"}
            host.configure(name="t", isActive=False, **body)
        postgres_database.execute("INSERT INTO t SELECT i, 'x' FROM generate_series(2, 60) i")
        error = failure(host)
        assert ("the index slow;" if "index" in what else "a CHECK or computed column of the table;") in error


def test_a_swap_ends(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """A full-text table over a view that never ends; a view that is only there; what is built again as ever."""
    with running(tmp_path, SHORT) as host:
        started(host, postgres_database, mode="full")
        written(
            host,
            f"CREATE VIEW endless AS SELECT id, ({ENDLESS}) AS c FROM t",
            f"CREATE VIEW filled AS WITH f AS MATERIALIZED ({ENDLESS.replace('count(*)', 'i')}) "
            "SELECT x.i FROM f x, f y, t WHERE x.i = y.i",
            "CREATE INDEX plain ON t (name)",
            f"CREATE TRIGGER kept AFTER INSERT ON t BEGIN {ENDLESS}; END",
        )
        assert host.sync("t")["warnings"] == []
        written(host, "CREATE VIRTUAL TABLE found USING fts5 (c, content='endless', content_rowid='id')")
        error = failure(host)
        assert "the full-text table found took over " in error
        assert "drop it, or make it do less" in error
        written(host, "DROP TABLE found")
        assert host.sync("t")["status"] == "success"
        kept = host.query("SELECT name FROM sqlite_schema WHERE name IN ('plain', 'kept') ORDER BY 1")
        assert kept == [["kept"], ["plain"]]
        # Nothing cascades: SQLite is not asked to look after references.
        assert host.query("PRAGMA foreign_keys") == [[0]]


def test_others_and_the_schedule_go_on(postgres_database: TestDatabase, tmp_path: Path) -> None:
    with running(tmp_path, SHORT) as host:
        started(host, postgres_database)
        started(host, postgres_database, "other")
        written(host, f"CREATE TRIGGER slow {TRIGGERS['insert']}")
        postgres_database.execute("INSERT INTO t VALUES (2, 'b'); INSERT INTO other VALUES (2, 'b')")
        host.configure(name="t", isActive=True, syncIntervalMinutes=0.01)

        def failed() -> list[dict[str, Any]]:
            return [run for run in host.logs("t") if run["status"] == "error" and NOTHING_ELSE in run["error_message"]]

        until(lambda: len(failed()) >= 2, what="two runs of the schedule")
        assert host.sync("other")["status"] == "success"
        written(host, "CREATE TABLE made (a)")
        written(host, "DROP TRIGGER slow")
        until(lambda: host.query("SELECT count(*) FROM t") == [[2]], what="the run after the trigger is gone")


def test_a_replica_with_nothing_added_may_take_its_time(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """The bound is far below what the load takes, and the index over all rows."""
    with running(tmp_path, f"{CONFIG}max_trigger_seconds = 0.01\n") as host:
        started(host, postgres_database, mode="full")
        written(host, "CREATE INDEX plain ON t (name, id)")
        postgres_database.execute("INSERT INTO t SELECT i, md5(i::text)::varchar(9) FROM generate_series(2, 100000) i")
        run = host.sync("t")
        assert (run["status"], run["warnings"], run["sync_duration_ms"] > 100) == ("success", [], True)
