"""Rebuilding a replica beside itself: full mode, reset, another source. Readers never see it empty or half."""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.support.hosts import HostProcess, running, until
from tests.support.servers import TestDatabase, sequence

pytestmark = pytest.mark.elsewhere_in_prove

BIG = {
    "postgresql": "INSERT INTO t SELECT n, 'name ' || n, now() - interval '1 day' FROM generate_series(1, 30000) n",
    "mysql": f"INSERT INTO t SELECT seq, concat('name ', seq), now(6) - interval 1 day FROM {sequence(30000)}",
}
CREATE = {
    "postgresql": "CREATE TABLE t (id int PRIMARY KEY, name text, at timestamptz)",
    "mysql": "CREATE TABLE t (id int PRIMARY KEY, name varchar(50), at timestamp(6) NULL)",
}


def configure(host: HostProcess, database: TestDatabase, **more: Any) -> None:
    body = {"name": "t", "sourceConfig": database.source_config, "sourceTable": "t", "targetTable": "t"}
    host.configure(**{**body, "isActive": False, "trackingColumn": "at", **more})


def table(database: TestDatabase) -> None:
    database.execute(CREATE[database.dialect])
    database.execute(BIG[database.dialect])


def small(database: TestDatabase) -> None:
    """Ten rows of yesterday."""
    database.execute(CREATE[database.dialect])
    database.execute("INSERT INTO t SELECT n, 'row ' || n, now() - interval '1 day' FROM generate_series(1, 10) AS n")


@pytest.mark.parametrize("way", ["full", "reset"])
def test_readers_see_the_old_or_the_new(source_database: TestDatabase, tmp_path: Path, way: str) -> None:
    table(source_database)
    with running(tmp_path) as host:
        configure(host, source_database, mode="full" if way == "full" else "incremental")
        host.sync("t")
        source_database.execute("DELETE FROM t WHERE id > 20000")
        source_database.execute("UPDATE t SET name = 'x'")
        seen: set[tuple[int, int]] = set()
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                seen.add(tuple(host.query("SELECT count(*), count(DISTINCT name) FROM t")[0]))

        reader = threading.Thread(target=look)
        reader.start()
        try:
            if way == "full":
                host.sync("t")
            else:
                run = host.result("POST", "/data-replication/reset/t")["run"]
                assert run["kind"] == "reset"
            until(lambda: (20000, 1) in seen, what="the new rows")
        finally:
            stop.set()
            reader.join()
        assert seen <= {(30000, 30000), (20000, 1)}
        assert host.query("SELECT name FROM sqlite_schema WHERE name LIKE 'tmp_replication_shadow%'") == []


def test_indexes_triggers_and_views_survive(source_database: TestDatabase, tmp_path: Path) -> None:
    table(source_database)
    with running(tmp_path) as host:
        configure(host, source_database)
        host.sync("t")
        for sql in (
            "CREATE INDEX by_name ON t (name)",
            "CREATE TABLE touched (n INTEGER)",
            "CREATE TRIGGER touch AFTER INSERT ON t BEGIN INSERT INTO touched VALUES (1); END",
            "CREATE VIEW names AS SELECT upper(name) AS name FROM t",
            "CREATE UNIQUE INDEX one_name ON t (name)",
        ):
            host.result("POST", "/query", {"sql": sql})
        source_database.execute("UPDATE t SET name = 'twice' WHERE id <= 2")
        run = host.result("POST", "/data-replication/reset/t")["run"]
        there = {row[0] for row in host.query("SELECT name FROM sqlite_schema")}
        assert {"by_name", "touch", "names"} <= there
        assert host.query("SELECT count(*) FROM names") == [[30000]]
        # What no longer fits is named with its SQL, and does not stand in the way.
        assert "one_name" not in there
        assert any("CREATE UNIQUE INDEX one_name" in warning for warning in run["warnings"])


def test_another_source_leaves_no_old_row(source_database: TestDatabase, tmp_path: Path) -> None:
    table(source_database)
    source_database.execute(CREATE[source_database.dialect].replace("TABLE t ", "TABLE other "))
    source_database.execute("INSERT INTO other (id, name) VALUES (1, 'other')")
    with running(tmp_path) as host:
        configure(host, source_database)
        host.sync("t")
        configure(host, source_database, sourceTable="other")
        host.sync("t")
        assert host.query("SELECT id, name FROM t") == [[1, "other"]]


def test_a_table_without_a_key_is_loaded_whole(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int, name varchar(10))")
    source_database.execute("INSERT INTO t VALUES (1, 'a'), (1, 'a'), (NULL, 'b')")
    with running(tmp_path) as host:
        configure(host, source_database, trackingColumn="id")
        assert host.sync("t")["records_processed"] == 3
        source_database.execute("DELETE FROM t WHERE name = 'b'")
        host.sync("t")
        assert host.query("SELECT id, name FROM t") == [[1, "a"], [1, "a"]]
        assert any("no primary key" in warning for warning in host.status("t")["warnings"])


def test_a_target_that_somebody_dropped_is_loaded_again(source_database: TestDatabase, tmp_path: Path) -> None:
    table(source_database)
    with running(tmp_path) as host:
        configure(host, source_database)
        host.sync("t")
        host.result("POST", "/query", {"sql": "DROP TABLE t"})
        host.sync("t")
        assert host.query("SELECT count(*) FROM t") == [[30000]]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("CREATE TABLE t (id INTEGER, name TEXT, at TEXT)", "the key (none)"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, name NUMERIC, at TEXT)", "declares name as NUMERIC"),
        ("CREATE VIEW t AS SELECT 1 AS id", "t is a view; choose another targetTable"),
        ("CREATE TABLE other (id); CREATE INDEX t ON other (id)", "t is an index; choose another targetTable"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT CHECK (name = ''), at TEXT)", "refuses a row"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, at TEXT, more TEXT NOT NULL)", "refuses a row"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE ON CONFLICT IGNORE, at TEXT)", "refuses a row"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE ON CONFLICT REPLACE, at TEXT)", "refuses a row"),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT NOT NULL ON CONFLICT REPLACE DEFAULT '', at TEXT)",
            "refuses a row",
        ),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, at TEXT)", "compares name by NOCASE"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT, name TEXT AS (at))", "computes name itself"),
        ("CREATE VIRTUAL TABLE t USING fts5 (name)", "t is a virtual table; choose another targetTable"),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, at TEXT); "
            "CREATE TRIGGER broken AFTER INSERT ON t BEGIN INSERT INTO nowhere VALUES (1); END",
            "no such table: main.nowhere); drop what has been added to it",
        ),
    ],
)
def test_a_target_that_does_not_fit_is_refused(
    source_database: TestDatabase, tmp_path: Path, sql: str, reason: str
) -> None:
    table(source_database)
    source_database.execute("UPDATE t SET name = NULL WHERE id = 1")
    source_database.execute("UPDATE t SET name = 'name 3' WHERE id = 2")
    with running(tmp_path) as host:
        for statement in re.split("; (?=CREATE)", sql):
            host.result("POST", "/query", {"sql": statement})
        configure(host, source_database)
        response = host.request("POST", "/data-replication/sync/t")
        assert response.status_code == 502
        assert reason in response.json()["error"]


def test_a_target_that_fits_is_used(source_database: TestDatabase, tmp_path: Path) -> None:
    table(source_database)
    with running(tmp_path) as host:
        host.result("POST", "/query", {"sql": "CREATE TABLE t (at TEXT, id INTEGER PRIMARY KEY, name TEXT, mine TEXT)"})
        configure(host, source_database)
        host.sync("t")
        assert host.query("SELECT count(*), count(at), count(mine) FROM t") == [[30000, 30000, 0]]


@pytest.mark.parametrize("policy", ["read", "ignore", "error"])
def test_rows_without_a_tracking_value(source_database: TestDatabase, tmp_path: Path, policy: str) -> None:
    source_database.execute(CREATE[source_database.dialect])
    source_database.execute("INSERT INTO t VALUES (1, 'a', NULL)")
    with running(tmp_path) as host:
        configure(host, source_database, nullTracking=policy)
        if policy == "error":
            response = host.request("POST", "/data-replication/sync/t")
            assert response.status_code == 502
            assert "nullTracking" in response.json()["error"]
            return
        host.sync("t")
        source_database.execute("INSERT INTO t VALUES (2, 'b', NULL)")
        source_database.execute("UPDATE t SET name = 'changed' WHERE id = 1")
        run = host.sync("t")
        rows = host.query("SELECT id, name FROM t ORDER BY id")
        assert rows == ([[1, "changed"], [2, "b"]] if policy == "read" else [])
        assert any("2 rows have no at" in warning for warning in run["warnings"]) is (policy == "ignore")


def test_too_many_rows_without_a_tracking_value(source_database: TestDatabase, tmp_path: Path) -> None:
    table(source_database)
    source_database.execute("UPDATE t SET at = NULL WHERE id <= 10001")
    with running(tmp_path) as host:
        configure(host, source_database)
        # Before the first load, and not after it: every later sync would fail.
        response = host.request("POST", "/data-replication/sync/t")
        assert response.status_code == 502
        assert "nullTracking: more than 10000 rows" in response.json()["error"]
        assert host.query("SELECT count(*) FROM t") == [[0]]
        # Where nothing is followed they do no harm.
        configure(host, source_database, mode="full")
        host.sync("t")
        assert host.sync("t")["rows_read"] == 30_000
        configure(host, source_database, mode="incremental", nullTracking="ignore")
        host.result("POST", "/data-replication/reset/t")
        assert host.query("SELECT count(*) FROM t") == [[19_999]]


def test_rows_that_the_source_marks_as_deleted_leave(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute(CREATE[source_database.dialect].replace("name", "gone varchar(9), name"))
    past = {"postgresql": "now() - interval '1 day'", "mysql": "now(6) - interval 1 day"}[source_database.dialect]
    now = {"postgresql": "now()", "mysql": "now(6)"}[source_database.dialect]
    source_database.execute(
        f"INSERT INTO t (id, gone, at) VALUES (1, NULL, {past}), (2, NULL, {past}), (3, 'x', {past})"
    )
    with running(tmp_path) as host:
        configure(host, source_database, deletes={"sourceColumn": "gone"})
        host.sync("t")
        assert host.query("SELECT id FROM t ORDER BY id") == [[1], [2]]
        source_database.execute(f"UPDATE t SET gone = 'x', at = {now} WHERE id = 2")
        assert host.sync("t")["records_processed"] == 1
        assert host.query("SELECT id FROM t") == [[1]]


def test_a_table_of_somebody_elses_is_not_replaced(source_database: TestDatabase, tmp_path: Path) -> None:
    """With rows in it, a table that no replication has made is never touched, even where it would fit."""
    table(source_database)
    with running(tmp_path) as host:
        host.result("POST", "/query", {"sql": "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, at TEXT)"})
        host.result("POST", "/query", {"sql": "INSERT INTO t VALUES (-1, 'precious', NULL)"})
        configure(host, source_database)
        response = host.request("POST", "/data-replication/sync/t")
        assert response.status_code == 502
        assert "contains rows that do not belong to a replica" in response.json()["error"]
        assert host.query("SELECT name FROM t") == [["precious"]]
        # A replica that was left behind by a deleted replication is ours to replace.
        host.result("POST", "/query", {"sql": "DELETE FROM t"})
        host.sync("t")
        host.result("DELETE", "/data-replication/configure/t")
        configure(host, source_database)
        host.sync("t")
        assert host.query("SELECT count(*) FROM t") == [[30000]]


IN_ITS_PLACE = {
    "other columns": ["DROP TABLE t", "CREATE TABLE t (id INTEGER PRIMARY KEY, mine TEXT)"],
    "the same columns": ["DROP TABLE t", "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, name TEXT, at TEXT)"],
    "another case": ["DROP TABLE t", "CREATE TABLE T (id INTEGER PRIMARY KEY, name TEXT)"],
    "its own definition": [],
    "renamed into it": [
        "CREATE TABLE other (id INTEGER PRIMARY KEY, name TEXT)",
        "ALTER TABLE t RENAME TO kept",
        "ALTER TABLE other RENAME TO t",
    ],
}


@pytest.mark.parametrize(
    ("what", "how"),
    [
        *(("sync", how) for how in IN_ITS_PLACE),
        *((what, "the same columns") for what in ("reset", "full", "reconcile", "verify", "configured again")),
    ],
)
def test_what_somebody_puts_in_a_replicas_place_is_not_touched(
    postgres_database: TestDatabase, tmp_path: Path, what: str, how: str
) -> None:
    small(postgres_database)
    statements = IN_ITS_PLACE[how]
    with running(tmp_path) as host:
        mode = "full" if what == "full" else "incremental"
        configure(host, postgres_database, mode=mode, deletes="reconcile", deletesMaxShare=1)
        host.sync("t")
        if not statements:
            ((own,),) = host.query("SELECT sql FROM sqlite_schema WHERE name = 't'")
            statements = ["ALTER TABLE t RENAME TO kept", own, "CREATE INDEX mine ON t (id)"]
        for sql in (*statements, "INSERT INTO t (id) VALUES (5), (-1)"):
            host.result("POST", "/query", {"sql": sql})
        before = host.query("SELECT * FROM t")
        if what == "configured again":
            host.result("DELETE", "/data-replication/configure/t")
            configure(host, postgres_database)
        action = what if what in ("reset", "reconcile", "verify") else "sync"
        body = {"repair": True} if what == "verify" else {"force": True} if what == "reconcile" else None
        response = host.request("POST", f"/data-replication/{action}/t", body)
        assert response.status_code == 502
        assert "table t" in response.json()["error"]
        assert host.query("SELECT * FROM t") == before
        if how in ("renamed into it", "its own definition"):
            # The renamed replica belongs to no replication now, and not again under its earlier name.
            assert host.query("SELECT count(*) FROM kept") == [[10]]
        host.result("POST", "/query", {"sql": "DROP TABLE t"})
        host.sync("t")
        assert host.query("SELECT count(*) FROM t") == [[10]]


def test_an_older_copy_under_its_old_name_is_not_taken_for_the_replica(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    """The position speaks of the replica that has been made since: what that read is not in the copy."""
    small(postgres_database)
    with running(tmp_path) as host:
        configure(host, postgres_database, lookbackSeconds=0)
        host.sync("t")
        host.result("POST", "/query", {"sql": "ALTER TABLE t RENAME TO kept"})
        postgres_database.execute("INSERT INTO t (id, name, at) VALUES (100, 'new', now() - interval '1 hour')")
        host.sync("t")
        host.result("POST", "/query", {"sql": "DROP TABLE t"})
        host.result("POST", "/query", {"sql": "ALTER TABLE kept RENAME TO t"})
        assert host.request("POST", "/data-replication/sync/t").status_code == 502
        assert host.query("SELECT count(*) FROM t") == [[10]]


def test_a_replica_that_is_made_again_by_its_own_definition_is_filled_again(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    small(postgres_database)
    with running(tmp_path) as host:
        configure(host, postgres_database)
        host.sync("t")
        ((own,),) = host.query("SELECT sql FROM sqlite_schema WHERE name = 't'")
        for sql in ("DROP TABLE t", own):
            host.result("POST", "/query", {"sql": sql})
        assert host.sync("t")["records_processed"] == 10


@pytest.mark.parametrize("sql", ["ALTER TABLE t DROP COLUMN name", "ALTER TABLE t RENAME COLUMN name TO called"])
def test_a_column_that_somebody_took_away_comes_back_with_its_values(
    postgres_database: TestDatabase, tmp_path: Path, sql: str
) -> None:
    small(postgres_database)
    with running(tmp_path) as host:
        configure(host, postgres_database)
        host.sync("t")
        host.result("POST", "/query", {"sql": sql})
        host.sync("t")
        assert host.query("SELECT count(name) FROM t") == [[10]]


def test_a_replica_of_a_version_without_tags_gets_one(postgres_database: TestDatabase, tmp_path: Path) -> None:
    small(postgres_database)
    with running(tmp_path) as host:
        configure(host, postgres_database)
        host.sync("t")
    with contextlib.closing(apsw.Connection(str(host.database))) as connection:
        ((tag,),) = connection.execute("SELECT tag FROM tmp_replication_targets").fetchall()
        connection.execute(f"DROP INDEX {tag}")
        connection.execute("UPDATE tmp_replication_targets SET tag = NULL")
    with running(tmp_path) as host:
        assert host.sync("t")["records_processed"] == 0
        made_by = "SELECT count(*) FROM sqlite_schema WHERE tbl_name = 't' AND name GLOB 'tmp_replication_made_by_*'"
        assert host.query(made_by) == [[1]]
        for sql in ("ALTER TABLE t RENAME TO kept", "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, at TEXT)"):
            host.result("POST", "/query", {"sql": sql})
        assert host.sync("t")["records_processed"] == 10


def test_added_columns_survive_a_reset_with_any_type_name(postgres_database: TestDatabase, tmp_path: Path) -> None:
    small(postgres_database)
    with running(tmp_path) as host:
        configure(host, postgres_database)
        host.sync("t")
        for declared in ('"a,b"', '"primary key"', "VARCHAR(9)", ""):
            name = f'"own {declared.replace(chr(34), "")}"'
            host.result("POST", "/query", {"sql": f"ALTER TABLE t ADD COLUMN {name} {declared}"})
        for _ in range(2):
            host.result("POST", "/data-replication/reset/t")
            found = host.query("SELECT name, type FROM pragma_table_info('t') WHERE name LIKE 'own%' ORDER BY cid")
            assert [each for _, each in found] == ["a,b", "primary key", "VARCHAR(9)", ""]


def test_a_replica_may_be_altered_and_stays_one(postgres_database: TestDatabase, tmp_path: Path) -> None:
    small(postgres_database)
    with running(tmp_path) as host:
        configure(host, postgres_database)
        host.sync("t")
        for statements in (
            ["ALTER TABLE t ADD COLUMN note TEXT"],
            ["ALTER TABLE t RENAME COLUMN note TO remark"],
            ["CREATE INDEX by_name ON t (name)"],
            ["ALTER TABLE t RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO t"],
            ["ALTER TABLE t DROP COLUMN remark"],
        ):
            for sql in statements:
                host.result("POST", "/query", {"sql": sql})
            assert host.sync("t")["records_processed"] == 0
        assert host.result("POST", "/data-replication/reset/t")["run"]["records_processed"] == 10
        assert host.sync("t")["records_processed"] == 0


def test_a_replica_that_is_dropped_during_a_load_is_loaded_again(source_database: TestDatabase, tmp_path: Path) -> None:
    table(source_database)
    source_database.execute("DELETE FROM t WHERE id > 1000")
    with running(tmp_path) as host:
        configure(host, source_database, maxRowsPerSecond=1000)
        host.result("POST", "/data-replication/sync/t", wait="false")
        until(lambda: (host.status("t")["progress"] or {"rows": 0})["rows"] >= 100, what="the first rows")
        host.result("POST", "/query", {"sql": "DROP TABLE t"})
        run = until(lambda: host.logs("t"), what="the run's end")[0]
        assert (run["status"], run["error_message"]) == ("success", None)
        assert host.query("SELECT count(*), min(id) FROM t") == [[1000, 1]]


def test_what_somebody_puts_in_a_replicas_place_while_it_is_rebuilt_is_not_replaced(
    source_database: TestDatabase, tmp_path: Path
) -> None:
    table(source_database)
    source_database.execute("DELETE FROM t WHERE id > 1000")
    with running(tmp_path) as host:
        configure(host, source_database)
        host.sync("t")
        configure(host, source_database, maxRowsPerSecond=1000)
        host.result("POST", "/data-replication/reset/t", wait="false")
        until(lambda: (host.status("t")["progress"] or {"rows": 0})["rows"] >= 100, what="the first rows")
        for sql in ("DROP TABLE t", "CREATE TABLE t (id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (-1)"):
            host.result("POST", "/query", {"sql": sql})
        until(lambda: not host.status("t")["is_running"], what="the run's end")
        run = host.logs("t")[0]
        assert (run["kind"], run["status"]) == ("reset", "error")
        assert "contains rows that do not belong to a replica" in run["error_message"]
        assert host.query("SELECT * FROM t") == [[-1]]


def test_an_empty_table_that_is_put_in_the_place_of_one_is_loaded_from_the_start(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    """It has what its maker gave it, and so has the one after it, however far a load had come."""
    small(postgres_database)
    mine = "CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(9) DEFAULT 'x)', at TEXT -- (a comment)\n)"
    with running(tmp_path) as host:
        configure(host, postgres_database)
        for _ in range(2):
            host.result("POST", "/query", {"sql": mine})
            host.result("POST", "/query", {"sql": "CREATE UNIQUE INDEX mine ON t (id, name)"})
            assert host.sync("t")["records_processed"] == 10
            assert host.sync("t")["records_processed"] == 0
            ((sql,),) = host.query("SELECT sql FROM sqlite_schema WHERE name = 't'")
            assert "VARCHAR(9) DEFAULT 'x)'" in sql
            assert host.query("SELECT count(*) FROM sqlite_schema WHERE name = 'mine'") == [[1]]
            host.result("POST", "/query", {"sql": "DROP TABLE t"})


def test_a_parent_by_inheritance_has_no_key(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """Its key is not unique over its children's rows, which are read with its own."""
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE c () INHERITS (t)")
    postgres_database.execute("INSERT INTO t VALUES (1, 'parent'); INSERT INTO c VALUES (1, 'child')")
    with running(tmp_path) as host:
        configure(host, postgres_database, trackingColumn="id")
        host.sync("t")
        assert host.query("SELECT id, v FROM t ORDER BY v") == [[1, "child"], [1, "parent"]]


@pytest.mark.parametrize("count", [700])
def test_a_wide_table_of_floats(source_database: TestDatabase, tmp_path: Path, count: int) -> None:
    kind = "float8" if source_database.dialect == "postgresql" else "double"
    columns = ", ".join(f"c{number} {kind}" for number in range(count))
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    source_database.execute("INSERT INTO t (id, c0, c1) VALUES (1, 0.0, 1.5)")
    with running(tmp_path) as host:
        configure(host, source_database, trackingColumn="id", lookbackSeconds=3600)
        assert host.sync("t")["records_processed"] == 1
        assert host.sync("t")["records_processed"] == 0
        zero = "'-0.0'::float8" if source_database.dialect == "postgresql" else "-0e0"
        source_database.execute(f"UPDATE t SET c0 = {zero}")
        if source_database.dialect == "postgresql":
            # MariaDB's literal has no negative zero.
            assert host.sync("t")["records_processed"] == 1
            assert host.query("SELECT atan2(c0, -1) < 0 FROM t") == [[1]]


def test_a_key_of_zero_that_becomes_the_other_zero(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """SQLite takes both for one key, as the source does."""
    postgres_database.execute("CREATE TABLE t (id float8 PRIMARY KEY, at int)")
    postgres_database.execute("INSERT INTO t VALUES (0, 1), (5, 10)")
    with running(tmp_path) as host:
        configure(host, postgres_database, lookbackSeconds=0)
        host.sync("t")
        postgres_database.execute("DELETE FROM t WHERE id = 0")
        postgres_database.execute("INSERT INTO t VALUES ('-0', 11)")
        host.sync("t")
        assert host.query("SELECT abs(id), atan2(id, -1) < 0, at FROM t ORDER BY at") == [[5, 0, 10], [0, 1, 11]]
        found = host.result("POST", "/data-replication/verify/t")
        assert [found[each] for each in ("missing", "extra", "different")] == [0, 0, 0]


SEARCHED = (
    "CREATE VIEW words AS SELECT rowid AS n, name FROM T",
    "CREATE VIRTUAL TABLE found USING fts5(name, content='t')",
    'CREATE VIRTUAL TABLE older USING fts4(content="t", name)',
    "CREATE VIRTUAL TABLE by_view USING fts5(name, content = words, content_rowid = n)",
    "CREATE VIRTUAL TABLE own USING fts5(name)",
)


def test_full_text_tables_over_a_replica_are_right_after_a_swap(source_database: TestDatabase, tmp_path: Path) -> None:
    """They know its rows by their numbers, which are others in the table that takes its place."""
    source_database.execute("CREATE TABLE t (id varchar(9) PRIMARY KEY, name varchar(50), at int)")
    source_database.execute("INSERT INTO t VALUES ('a', 'apple', 1), ('b', 'pear', 2), ('c', 'plum', 3)")
    with running(tmp_path) as host:
        configure(host, source_database)
        host.sync("t")
        for sql in SEARCHED:
            host.result("POST", "/query", {"sql": sql})
        host.result("POST", "/query", {"sql": "INSERT INTO own SELECT name FROM t"})
        for table in ("found", "older", "by_view"):
            host.result("POST", "/query", {"sql": f"INSERT INTO {table}({table}) VALUES ('rebuild')"})
        source_database.execute("DELETE FROM t WHERE id = 'a'")
        source_database.execute("INSERT INTO t VALUES ('d', 'quince', 4)")
        run = host.result("POST", "/data-replication/reset/t")["run"]
        for table in ("found", "older", "by_view"):
            for word, rows in (("apple", []), ("pear", [["pear"]]), ("quince", [["quince"]])):
                assert host.query(f"SELECT name FROM {table} WHERE {table} MATCH ?", word) == rows, table
        assert host.query("SELECT count(*) FROM own WHERE own MATCH 'apple'") == [[1]]
        assert run["warnings"] == [each for each in run["warnings"] if "full-text" not in each]
        # What cannot be built again is named with its fix, and does not stand in the way.
        host.result("POST", "/query", {"sql": "CREATE VIRTUAL TABLE broken USING fts5(nothing, content='t')"})
        run = host.result("POST", "/data-replication/reset/t")["run"]
        (said,) = (each for each in run["warnings"] if "full-text" in each)
        assert "the full-text table broken could not be rebuilt" in said
        assert """INSERT INTO "broken"("broken") VALUES ('rebuild')""" in said


def test_a_full_text_index_that_does_not_match_is_not_called_damage(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    """Without triggers it does not follow the replica: the answer says so, and its fix helps."""
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, name varchar(50), at int)")
    postgres_database.execute("INSERT INTO t VALUES (1, 'apple', 1), (2, 'pear', 2)")
    with running(tmp_path) as host:
        configure(host, postgres_database, deletes="reconcile", deletesMaxShare=1)
        host.sync("t")
        host.result("POST", "/query", {"sql": "CREATE VIRTUAL TABLE found USING fts5(name, content='t')"})
        host.result("POST", "/query", {"sql": "INSERT INTO found(found) VALUES ('rebuild')"})
        postgres_database.execute("DELETE FROM t WHERE id = 1")
        host.result("POST", "/data-replication/reconcile/t")
        response = host.request("POST", "/query", {"sql": "SELECT * FROM found WHERE found MATCH 'apple'"})
        assert response.status_code == 400
        assert "rebuild the index as admin with INSERT INTO NAME(NAME) VALUES ('rebuild')" in response.json()["error"]
        host.result("POST", "/query", {"sql": "INSERT INTO found(found) VALUES ('rebuild')"})
        assert host.query("SELECT * FROM found WHERE found MATCH 'apple'") == []


def test_a_virtual_table_that_comes_to_keep_its_data_in_a_target(
    postgres_database: TestDatabase, tmp_path: Path
) -> None:
    """One made after the configuration; SQLite takes any table with such a name for its data."""
    table(postgres_database)
    with running(tmp_path) as host:
        configure(host, postgres_database, targetTable="notes_data")
        host.result("POST", "/query", {"sql": "CREATE VIRTUAL TABLE notes USING fts5 (name)"})
        host.result("POST", "/query", {"sql": "INSERT INTO notes VALUES ('one')"})
        response = host.request("POST", "/data-replication/sync/t")
        assert response.status_code == 502
        assert "notes_data is where the virtual table notes keeps its own data" in response.json()["error"]
        assert host.query("SELECT name FROM notes('one')") == [["one"]]
        host.result("POST", "/query", {"sql": "DROP TABLE notes"})
        assert host.sync("t")["status"] == "success"
