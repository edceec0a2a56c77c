"""Verify, repair and reconcile over HTTP: what polling cannot see is found and repaired."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import CONFIG, LISTENER, HostProcess, running, until
from tests.support.servers import TestDatabase, sequence

CREATE = {
    "postgresql": "CREATE TABLE t (id int PRIMARY KEY, name text, at timestamptz NOT NULL)",
    "mysql": "CREATE TABLE t (id int PRIMARY KEY, name varchar(50), at timestamp(6) NOT NULL)",
}
FILL = {
    "postgresql": "INSERT INTO t SELECT n, 'name ' || n, now() - interval '1 day' FROM generate_series(1, {n}) n",
    "mysql": f"INSERT INTO t SELECT seq, concat('name ', seq), now(6) - interval 1 day FROM {sequence('{n}')}",
}


def prepare(host: HostProcess, database: TestDatabase, rows: int, **more: Any) -> None:
    database.execute(CREATE[database.dialect])
    database.execute(FILL[database.dialect].format(n=rows))
    body = {"name": "t", "sourceConfig": database.source_config, "sourceTable": "t", "targetTable": "t"}
    host.configure(**{**body, "isActive": False, "trackingColumn": "at", "lookbackSeconds": 0, **more})
    host.sync("t")


def rows_of(host: HostProcess) -> list[list[Any]]:
    return host.query("SELECT id, name FROM t ORDER BY id")


def source_rows(database: TestDatabase) -> list[list[Any]]:
    return [list(row) for row in database.fetch("SELECT id, name FROM t ORDER BY id")]


def verify(host: HostProcess, **body: Any) -> dict[str, Any]:
    found: dict[str, Any] = host.result("POST", "/data-replication/verify/t", body)
    return found


def test_equal_is_equal(source_database: TestDatabase, tmp_path: Path) -> None:
    with running(tmp_path) as host:
        prepare(host, source_database, 20_000)
        found = verify(host)
        assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0)
        assert found["rows_compared"] == 20_000
        assert found["ranges"] >= 1
        assert found["duration_ms"] >= 0


def test_what_polling_cannot_see_is_found_and_repaired(source_database: TestDatabase, tmp_path: Path) -> None:
    """An update that leaves the tracking column alone, a changed key, a delete, and damage to the replica."""
    with running(tmp_path) as host:
        prepare(host, source_database, 20_000)
        source_database.execute("UPDATE t SET name = 'unseen' WHERE id = 777")
        source_database.execute("UPDATE t SET id = -5 WHERE id = 5")
        source_database.execute("DELETE FROM t WHERE id = 19999")
        host.result("POST", "/query", {"sql": "UPDATE t SET name = 'damaged' WHERE id = 12345"})
        host.result("POST", "/query", {"sql": "DELETE FROM t WHERE id BETWEEN 100 AND 109"})
        host.sync("t")
        found = verify(host)
        assert (found["missing"], found["extra"], found["different"]) == (11, 2, 2)
        assert sorted(found["keys"]["missing"]) == [[-5], *([n] for n in range(100, 110))]
        assert sorted(found["keys"]["extra"]) == [[5], [19999]]
        assert sorted(found["keys"]["different"]) == [[777], [12345]]
        assert host.status("t")["last_verify"]["missing"] == 11
        repaired = verify(host, repair=True)
        assert repaired["changed"] == 15
        assert rows_of(host) == source_rows(source_database)
        again = verify(host)
        assert (again["missing"], again["extra"], again["different"]) == (0, 0, 0)


def test_rows_that_change_during_the_comparison_are_not_differences(
    source_database: TestDatabase, tmp_path: Path
) -> None:
    now = {"postgresql": "now()", "mysql": "now(6)"}[source_database.dialect]
    with running(tmp_path) as host:
        prepare(host, source_database, 2000, settleSeconds=0)
        stop = threading.Event()

        def write() -> None:
            with source_database.connect() as session:
                number = 10_000
                while not stop.is_set():
                    number += 1
                    session.execute(f"INSERT INTO t VALUES ({number}, 'new', {now})")
                    session.execute(f"UPDATE t SET name = 'n {number}', at = {now} WHERE id = {number % 2000 + 1}")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(5):
                found = verify(host)
                assert (found["extra"], found["different"]) == (0, 0)
        finally:
            stop.set()
            writer.join()
        found = verify(host)
        assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0)


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize("deletes", ["reconcile", {"mark": "gone_at"}])
def test_rows_that_are_gone(source_database: TestDatabase, tmp_path: Path, deletes: Any) -> None:
    with running(tmp_path) as host:
        prepare(host, source_database, 5000, deletes=deletes)
        source_database.execute("DELETE FROM t WHERE id <= 100")
        found = host.result("POST", "/data-replication/reconcile/t")
        assert found["changed"] == 100
        assert found["rows_compared"] == 4900
        if deletes == "reconcile":
            assert rows_of(host) == source_rows(source_database)
        else:
            assert host.query("SELECT count(*), count(gone_at) FROM t") == [[5000, 100]]
            there = host.query("SELECT id, name FROM t WHERE gone_at IS NULL ORDER BY id")
            assert there == source_rows(source_database)
            # A row that comes back is there again.
            now = {"postgresql": "now()", "mysql": "now(6)"}[source_database.dialect]
            source_database.execute(f"INSERT INTO t VALUES (7, 'back', {now})")
            host.sync("t")
            assert host.query("SELECT name, gone_at FROM t WHERE id = 7") == [["back", None]]
        assert host.result("POST", "/data-replication/reconcile/t")["changed"] == 0


@pytest.mark.elsewhere_in_prove
def test_a_key_that_changes_in_case_alone(source_database: TestDatabase, tmp_path: Path) -> None:
    collation = "utf8mb4_general_ci"
    if source_database.dialect == "postgresql":
        collation = "ci"
        source_database.execute(
            "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
    source_database.execute(
        f"CREATE TABLE t (id varchar(20) COLLATE {collation} PRIMARY KEY, at int);"
        "INSERT INTO t VALUES ('a b', 1), ('c', 2)"
    )
    with running(tmp_path) as host:
        body = {"name": "t", "sourceConfig": source_database.source_config, "sourceTable": "t", "targetTable": "t"}
        host.configure(
            **body, trackingColumn="at", isActive=False, deletes="reconcile", deletesMaxShare=1, lookbackSeconds=0
        )
        for _ in range(2):
            host.sync("t")
        source_database.execute("UPDATE t SET id = 'A B' WHERE at = 1")
        found = verify(host)
        assert (found["missing"], found["extra"], found["different"]) == (1, 1, 0)
        found = host.result("POST", "/data-replication/reconcile/t")
        assert found["changed"] == 1
        assert "1 keys" in str(found["warnings"])
        assert "verify with repair" in str(found["warnings"])
        verify(host, repair=True)
        assert host.query("SELECT id FROM t ORDER BY at") == [["A B"], ["c"]]


@pytest.mark.elsewhere_in_prove
def test_an_empty_source_does_not_empty_the_replica(source_database: TestDatabase, tmp_path: Path) -> None:
    with running(tmp_path) as host:
        prepare(host, source_database, 1000, deletes="reconcile")
        source_database.execute("DELETE FROM t")
        response = host.request("POST", "/data-replication/reconcile/t")
        assert response.status_code == 502
        assert "1000 of 1000 rows" in response.json()["error"]
        assert len(rows_of(host)) == 1000
        assert host.result("POST", "/data-replication/reconcile/t", {"force": True})["changed"] == 1000
        assert rows_of(host) == []


@pytest.mark.elsewhere_in_prove
def test_both_run_on_their_schedules(source_database: TestDatabase, tmp_path: Path) -> None:
    """Reconciling and verifying by themselves; a difference is an event of type `verify`."""
    (tmp_path / "listener.py").write_text(LISTENER)
    events = tmp_path / "events.jsonl"
    with running(tmp_path, CONFIG + '\n[plugins.listener]\nmodule = "listener"\n') as host:
        prepare(host, source_database, 100, deletes="reconcile")
        source_database.execute("DELETE FROM t WHERE id <= 10")
        source_database.execute("UPDATE t SET name = 'unseen' WHERE id = 50")
        host.configure(
            name="t", deletesIntervalMinutes=0.01, verifyIntervalMinutes=0.01, isActive=True, syncIntervalMinutes=60
        )
        until(lambda: host.query("SELECT count(*) FROM t") == [[90]], what="the reconciliation")
        until(lambda: (host.status("t")["last_verify"] or {}).get("different") == 1, what="the verification")
        until(lambda: '"type": "verify"' in events.read_text(), what="the event")


@pytest.mark.elsewhere_in_prove
def test_a_repair_leaves_out_what_the_configuration_leaves_out(source_database: TestDatabase, tmp_path: Path) -> None:
    with running(tmp_path) as host:
        create = CREATE[source_database.dialect].replace("name", "gone varchar(9), name")
        source_database.execute(create.replace(" NOT NULL", " NULL"))
        now = {"postgresql": "now()", "mysql": "now(6)"}[source_database.dialect]
        values = f"(1, 'x', 'a', {now}), (2, NULL, 'b', NULL), (3, NULL, 'c', {now})"
        source_database.execute(f"INSERT INTO t (id, gone, name, at) VALUES {values}")
        body = {"name": "t", "sourceConfig": source_database.source_config, "sourceTable": "t", "targetTable": "t"}
        host.configure(
            **body, isActive=False, trackingColumn="at", nullTracking="ignore", deletes={"sourceColumn": "gone"}
        )
        host.sync("t")
        found = verify(host, repair=True)
        assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0)
        assert rows_of(host) == [[3, "c"]]


def test_a_flag_that_belongs_into_the_body(postgres_database: TestDatabase, tmp_path: Path) -> None:
    with running(tmp_path) as host:
        prepare(host, postgres_database, 1)
        for action, flag in (("verify", "repair"), ("reconcile", "force")):
            answer = host.request("POST", f"/data-replication/{action}/t", **{flag: "true"})
            assert answer.status_code == 400
            assert answer.json()["error"] == f'{flag} belongs in the body: {{"{flag}": true}}'


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"repair": 1}', b'{"repairs": true}'])
def test_a_wrong_body_is_a_400(postgres_database: TestDatabase, tmp_path: Path, body: bytes) -> None:
    with running(tmp_path) as host:
        prepare(host, postgres_database, 1)
        assert host.request("POST", "/data-replication/verify/t", body).status_code == 400
