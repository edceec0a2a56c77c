"""The main job, from outside: HTTP and signals on a real host, with a real PostgreSQL and a real MariaDB."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import ADMIN, CONFIG, LISTENER, HostProcess, running, until
from tests.support.servers import TestDatabase, sequence

pytestmark = pytest.mark.newer_in_prove

AUDIT = """
[plugins.listener]
module = "listener"
"""

CREATE = {
    "postgresql": "CREATE TABLE orders (id bigint PRIMARY KEY, status text, amount numeric(12,2), "
    "note varchar(60), updated_at timestamptz NOT NULL)",
    "mysql": "CREATE TABLE orders (id bigint PRIMARY KEY, status varchar(20), amount decimal(12,2), "
    "note varchar(60), updated_at timestamp(6) NOT NULL)",
}
PAST = {"postgresql": "now() - interval '1 hour'", "mysql": "now(6) - interval 1 hour"}
NOW = {"postgresql": "now()", "mysql": "now(6)"}
ISO = {
    "postgresql": """to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
    "mysql": "date_format(convert_tz(updated_at, @@session.time_zone, '+00:00'), '%%Y-%%m-%%dT%%H:%%i:%%s.%%fZ')",
}


def source_rows(database: TestDatabase) -> list[list[Any]]:
    """What the replica must hold, worded by the source itself."""
    text = "amount::text" if database.dialect == "postgresql" else "cast(amount as char)"
    iso = ISO[database.dialect].replace("%%", "%")
    sql = f"SELECT id, status, {text}, note, {iso} FROM orders ORDER BY id"
    return [list(row) for row in database.fetch(sql)]


def replica_rows(host: HostProcess) -> list[list[Any]]:
    rows: list[list[Any]] = []
    while True:
        # In pieces: an answer has a limit of rows.
        last = rows[-1][0] if rows else 0
        # A decimal's text is the number's, with the decimals of its type.
        columns = "id, status, format('%.2f', amount), note, updated_at"
        more = host.query(f"SELECT {columns} FROM orders WHERE id > ? ORDER BY id LIMIT 50000", last)
        if not more:
            return rows
        rows += more


def insert(database: TestDatabase, first: int, last: int, when: str = NOW) -> None:  # type: ignore[assignment]
    stamp = when[database.dialect] if isinstance(when, dict) else when
    values = ", ".join(f"({n}, 's{n % 3}', {n}.10, 'note {n}', {stamp})" for n in range(first, last + 1))
    database.execute(f"INSERT INTO orders VALUES {values}")


def configure(host: HostProcess, database: TestDatabase, **more: Any) -> None:
    body = {
        "name": "orders",
        "sourceConfig": database.source_config,
        "sourceTable": "orders",
        "targetTable": "orders",
        "trackingColumn": "updated_at",
        "syncIntervalMinutes": 60,
        "isActive": False,
    }
    answer = host.configure(**{**body, **more})
    assert answer == {"success": True, "message": "Replication configured successfully"}


def test_the_main_job(source_database: TestDatabase, tmp_path: Path) -> None:
    """Configure, first sync, changes, second sync, equality; then stop, restart, start, and the schedule."""
    source_database.execute(CREATE[source_database.dialect])
    insert(source_database, 1, 500, PAST)  # type: ignore[arg-type]
    with running(tmp_path) as host:
        configure(host, source_database)
        first = host.sync("orders")
        assert first["status"] == "success"
        assert first["records_processed"] == 500
        assert replica_rows(host) == source_rows(source_database)

        insert(source_database, 501, 520)
        source_database.execute(
            f"UPDATE orders SET status = 'sent', updated_at = {NOW[source_database.dialect]} WHERE id <= 7"
        )
        second = host.sync("orders")
        assert second["records_processed"] == 27
        assert replica_rows(host) == source_rows(source_database)
        assert host.sync("orders")["records_processed"] == 0

        host.result("POST", "/data-replication/stop/orders")
        assert host.status("orders")["state"] == "stopped"
        assert host.stop() == 0
        host.start()
        assert host.status("orders")["is_active"] == 0
        until(lambda: host.status("orders")["row_count"] == 520, what="the replica's count")

        configure(host, source_database, syncIntervalMinutes=0.01)
        insert(source_database, 521, 530)
        host.result("POST", "/data-replication/start/orders")
        until(lambda: len(replica_rows(host)) == 530, what="the schedule's sync")
        scheduled = len(host.logs("orders"))
        until(lambda: len(host.logs("orders")) >= scheduled + 3, what="three more ticks")
        assert host.stop() == 0
        insert(source_database, 531, 540)
        host.start()
        until(lambda: len(replica_rows(host)) == 540, what="the schedule's sync after a restart")
        assert replica_rows(host) == source_rows(source_database)


@pytest.mark.elsewhere_in_prove
def test_a_source_that_goes_away_and_comes_back(source_database: TestDatabase, tmp_path: Path) -> None:
    """An error is logged, an event is sent, and the schedule goes on by itself when the source is back."""
    source_database.execute(CREATE[source_database.dialect])
    insert(source_database, 1, 10)
    (tmp_path / "listener.py").write_text(LISTENER)
    events = tmp_path / "events.jsonl"
    with running(tmp_path, CONFIG + AUDIT) as host:
        configure(host, source_database, syncIntervalMinutes=0.01, isActive=True)
        until(lambda: events.exists() and '"status": "success"' in events.read_text(), what="a success event")
        source_database.server.stop()
        until(lambda: '"status": "error"' in events.read_text(), what="an error event")
        failed = host.status("orders")
        assert failed["state"] in ("degraded", "running")
        assert failed["consecutive_failures"] >= 1
        # The embedded server asks for none.
        assert (source_database.source_config["password"] or "?") not in failed["last_error"]
        response = host.request("POST", "/data-replication/sync/orders")
        assert response.status_code in (502, 409)
        source_database.server.start()
        insert(source_database, 11, 20)
        until(lambda: len(replica_rows(host)) == 20, seconds=60, what="the recovery")
        until(lambda: host.status("orders")["consecutive_failures"] == 0, what="the end of the failures")
        assert replica_rows(host) == source_rows(source_database)


@pytest.mark.elsewhere_in_prove
def test_delete_keeps_the_replica_and_forgets_the_rest(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute(CREATE[source_database.dialect])
    insert(source_database, 1, 3)
    with running(tmp_path) as host:
        configure(host, source_database)
        host.sync("orders")
        host.result("DELETE", "/data-replication/configure/orders")
        assert host.result("GET", "/data-replication/status") == {"configs": []}
        assert len(replica_rows(host)) == 3
        assert len(host.logs("orders")) == 1
        assert host.request("DELETE", "/data-replication/configure/orders").status_code == 404
        for table in ("tmp_replication_positions",):
            assert host.query(f"SELECT count(*) FROM {table}") == [[0]]


@pytest.mark.parametrize("rows", [200_000])
@pytest.mark.elsewhere_in_prove
def test_kill_in_the_middle_of_a_first_load(source_database: TestDatabase, tmp_path: Path, rows: int) -> None:
    """SIGKILL while the load runs; after the restart it goes on where it stood, and ends with equality."""
    source_database.execute(CREATE[source_database.dialect])
    # A row every four seconds, so that few of them are so young that they are read again.
    many = {
        "postgresql": f"INSERT INTO orders SELECT n, 's' || n % 5, n / 7.0, 'note ' || n, "
        f"now() - interval '10 days' + n * interval '4 seconds' FROM generate_series(1, {rows}) n",
        "mysql": f"INSERT INTO orders SELECT seq, concat('s', seq % 5), seq / 7.0, concat('note ', seq), "
        f"now(6) - interval 10 day + interval (seq * 4) second FROM {sequence(rows)}",
    }
    source_database.execute(many[source_database.dialect])
    host = HostProcess(tmp_path)
    try:
        host.start()
        configure(host, source_database)
        host.request("POST", "/data-replication/sync/orders", wait="false")

        def loaded() -> int:
            response = host.request("POST", "/query", {"sql": "SELECT count(*) AS n FROM orders"})
            return int(response.json()["result"][0]["n"]) if response.is_success else 0

        until(lambda: loaded() >= 20_000, what="a fifth of the load")
        host.kill()
        host.start()
        before = loaded()
        assert 20_000 <= before < rows
        assert host.logs("orders")[0]["status"] == "interrupted"
        run = host.sync("orders")
        assert run["status"] == "success"
        # What the load had still to read; then it follows once, and reads what may have come late.
        assert rows - before <= run["rows_read"] < rows - before + 100
        assert host.query("SELECT count(*) FROM orders") == [[rows]]
        assert replica_rows(host) == source_rows(source_database)
    finally:
        host.stop()


@pytest.mark.elsewhere_in_prove
def test_sigterm_while_a_sync_is_awaited(source_database: TestDatabase, tmp_path: Path) -> None:
    """The client gets 503, the run is recorded as interrupted, the exit status is 0, and the sync resumes."""
    import threading

    source_database.execute(CREATE[source_database.dialect])
    insert(source_database, 1, 5)
    lock = {"postgresql": "BEGIN; LOCK TABLE orders", "mysql": "LOCK TABLES orders WRITE"}
    blocker = source_database.connect()
    blocker.execute(lock[source_database.dialect])
    with running(tmp_path) as host:
        configure(host, source_database)
        answers: list[int] = []
        client = threading.Thread(
            target=lambda: answers.append(host.request("POST", "/data-replication/sync/orders").status_code)
        )
        client.start()
        until(lambda: host.status("orders")["is_running"], what="the run")
        host_log = host.log
        process = host._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0, host_log
        client.join()
        assert answers == [503]
        blocker.close()
        host.stop()
        host.start()
        assert host.logs("orders")[0]["status"] == "interrupted"
        assert host.sync("orders")["records_processed"] == 5
        assert ADMIN not in host.log
