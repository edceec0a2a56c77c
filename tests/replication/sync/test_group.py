"""A group of tables: read from one snapshot, committed together, so that what holds between them always holds."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import HostProcess, running, until
from tests.support.servers import TestDatabase

TABLES = {
    "postgresql": [
        "CREATE TABLE orders (id int PRIMARY KEY, total int NOT NULL, at timestamptz DEFAULT clock_timestamp())",
        "CREATE TABLE lines (order_id int REFERENCES orders, n int, amount int NOT NULL, "
        "at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (order_id, n))",
        "CREATE INDEX ON orders (at)", "CREATE INDEX ON lines (at)",
    ],
    "mysql": [
        "CREATE TABLE orders (id int PRIMARY KEY, total int NOT NULL, at timestamp(6) DEFAULT now(6) ON UPDATE now(6))",
        "CREATE TABLE `lines` (order_id int REFERENCES orders (id), n int, amount int NOT NULL, "
        "at timestamp(6) DEFAULT now(6) ON UPDATE now(6), PRIMARY KEY (order_id, n))",
        "CREATE INDEX orders_at ON orders (at)", "CREATE INDEX lines_at ON `lines` (at)",
    ],
}  # fmt: skip
# Lines without their order, and orders whose total is not the sum of their lines: never any.
BROKEN = """
SELECT (SELECT count(*) FROM lines WHERE order_id NOT IN (SELECT id FROM orders)),
       (SELECT count(*) FROM orders o
        WHERE total <> coalesce((SELECT sum(amount) FROM lines WHERE order_id = o.id), 0)),
       (SELECT count(*) FROM orders)
"""


def configure(host: HostProcess, database: TestDatabase, name: str, **more: Any) -> None:
    body = {"name": name, "sourceConfig": database.source_config, "sourceTable": name, "targetTable": name}
    options = {"trackingColumn": "at", "group": "shop", "settleSeconds": 0, "isActive": True, "syncIntervalMinutes": 60}
    host.configure(**{**body, **options, **more})


def make(database: TestDatabase) -> None:
    for sql in TABLES[database.dialect]:
        database.execute(sql)


class Shop(threading.Thread):
    """Writes orders with their lines, each in one transaction, until it is stopped."""

    def __init__(self, database: TestDatabase, seed: int) -> None:
        super().__init__()
        self._session = database.connect()
        self._random = random.Random(seed)
        self._lines = "lines" if database.dialect == "postgresql" else "`lines`"
        self._touched = ", at = clock_timestamp()" if database.dialect == "postgresql" else ""
        self.first = seed * 1_000_000
        self.orders = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            self._session.execute("BEGIN")
            if self.orders and self._random.random() < 0.5:
                order = self.first + self._random.randint(1, self.orders)
                self._session.execute(
                    f"UPDATE {self._lines} SET amount = amount + 5{self._touched} WHERE order_id = {order}"
                )
                self._session.execute(
                    f"UPDATE orders SET total = (SELECT sum(amount) FROM {self._lines} WHERE order_id = {order})"
                    f"{self._touched} WHERE id = {order}"
                )
            else:
                self.orders += 1
                order = self.first + self.orders
                amounts = [self._random.randint(1, 99) for _ in range(self._random.randint(1, 4))]
                self._session.execute(f"INSERT INTO orders (id, total) VALUES ({order}, {sum(amounts)})")
                for n, amount in enumerate(amounts):
                    self._session.execute(
                        f"INSERT INTO {self._lines} (order_id, n, amount) VALUES ({order}, {n}, {amount})"
                    )
            self._session.execute("COMMIT")


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.prove) for seed in range(2, 6))])
def test_what_holds_between_the_tables_holds_at_every_read(
    source_database: TestDatabase, tmp_path: Path, seed: int
) -> None:
    make(source_database)
    shops = [Shop(source_database, 2 * seed + n) for n in range(2)]
    with running(tmp_path) as host:
        seen: list[list[Any]] = []
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                answer = host.request("POST", "/query/raw", {"sql": BROKEN})
                if answer.is_success:
                    seen.extend(answer.json()["result"]["rows"])

        for shop in shops:
            shop.start()
        until(lambda: all(shop.orders > 20 for shop in shops), what="some orders")
        configure(host, source_database, "orders")
        configure(host, source_database, "lines", syncIntervalMinutes=0.01)
        until(lambda: host.status("lines")["last_success_at"], what="the first load")
        reader = threading.Thread(target=look)
        reader.start()
        try:
            until(lambda: len({row[2] for row in seen}) > 4, seconds=60, what="syncs while orders come in")
        finally:
            for shop in shops:
                shop.stopping.set()
            for shop in shops:
                shop.join()
            stop.set()
            reader.join()
        assert [row for row in seen if row[:2] != [0, 0]] == []
        host.result("POST", "/data-replication/stop/lines")
        host.configure(name="lines", isActive=True, syncIntervalMinutes=60)
        until(lambda: host.request("POST", "/data-replication/sync/orders").status_code != 409, what="the last sync")
        for name in ("orders", "lines"):
            verified = host.result("POST", f"/data-replication/verify/{name}")
            assert [verified[kind] for kind in ("missing", "extra", "different")] == [0, 0, 0]
        assert host.query(BROKEN)[0][2] == sum(shop.orders for shop in shops)


@pytest.mark.elsewhere_in_prove
def test_one_that_fails_lets_none_be_written(source_database: TestDatabase, tmp_path: Path) -> None:
    make(source_database)
    source_database.execute("INSERT INTO orders (id, total) VALUES (1, 0)")
    with running(tmp_path) as host:
        for name in ("orders", "lines"):
            configure(host, source_database, name, isActive=False)
        # By hand, the one that is asked for, and those that are active.
        assert host.sync("orders")["rows_read"] == 1
        assert host.status("lines")["last_success_at"] is None
        configure(host, source_database, "lines", where="nonsense", isActive=True)
        until(lambda: host.status("lines")["last_error"], what="the failure")
        source_database.execute("INSERT INTO orders (id, total) VALUES (2, 0)")
        answer = host.request("POST", "/data-replication/sync/orders")
        assert answer.status_code == 502
        assert "where: " in answer.text
        assert host.query("SELECT id FROM orders") == [[1]]
        configure(host, source_database, "lines", where=None)
        until(lambda: host.request("POST", "/data-replication/sync/orders").is_success, what="a sync of both")
        assert host.query("SELECT id FROM orders") == [[1], [2]]
        assert host.query("SELECT name FROM sqlite_schema WHERE name GLOB 'tmp_replication_s[th]*'") == []


def test_rows_that_are_rolled_back_do_not_count(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """The first member is written, and then undone with the second."""
    make(postgres_database)
    with running(tmp_path) as host:
        for name in ("orders", "lines"):
            configure(host, postgres_database, name, syncIntervalMinutes=60)
            until(lambda name=name: host.status(name)["last_success_at"], what="the load")  # type: ignore[misc]
        until(lambda: not any(host.status(name)["is_running"] for name in ("orders", "lines")), what="their end")
        host.query("CREATE TRIGGER stop BEFORE INSERT ON lines BEGIN SELECT RAISE(ABORT, 'stopped'); END")
        postgres_database.execute("INSERT INTO orders (id, total) VALUES (2, 0)")
        postgres_database.execute("INSERT INTO lines (order_id, n, amount) VALUES (2, 1, 0)")
        assert not host.request("POST", "/data-replication/sync/orders").is_success
        (run, *_) = host.logs("orders")
        assert (run["status"], run["rows_read"], run["records_processed"]) == ("error", 1, 0)
        host.query("DROP TRIGGER stop")
        assert host.sync("orders")["records_processed"] == 1


@pytest.mark.elsewhere_in_prove
def test_a_group_is_loaded_and_reset_together(source_database: TestDatabase, tmp_path: Path) -> None:
    make(source_database)
    quoted = "lines" if source_database.dialect == "postgresql" else "`lines`"
    source_database.execute("INSERT INTO orders (id, total) VALUES (1, 5), (2, 0)")
    source_database.execute(f"INSERT INTO {quoted} (order_id, n, amount) VALUES (1, 1, 5)")
    with running(tmp_path) as host:
        for name in ("orders", "lines"):
            configure(host, source_database, name, mode="full")
        until(lambda: all(host.status(name)["last_success_at"] for name in ("orders", "lines")), what="both")
        # With mode full the group follows deletes, in one commit.
        source_database.execute(f"DELETE FROM {quoted}")
        source_database.execute("DELETE FROM orders WHERE id = 1")
        until(lambda: host.request("POST", "/data-replication/sync/lines").is_success, what="a sync")
        assert (host.query("SELECT id FROM orders"), host.query("SELECT * FROM lines")) == ([[2]], [])
        for name in ("orders", "lines"):
            configure(host, source_database, name, mode="incremental")
        until(lambda: host.request("POST", "/data-replication/reset/orders").is_success, what="a reset")
        assert host.query("SELECT id FROM orders") == [[2]]
        answer = host.request("POST", "/data-replication/verify/orders", {"repair": True})
        assert answer.status_code == 400
        assert "reset it" in answer.text


@pytest.mark.elsewhere_in_prove
def test_a_group_follows_and_is_verified(source_database: TestDatabase, tmp_path: Path) -> None:
    make(source_database)
    old = "INSERT INTO orders (id, total, at) VALUES (1, 0, '2024-01-01'), (2, 0, '2024-01-02'), (3, 0, '2024-01-03')"
    source_database.execute(old)
    with running(tmp_path) as host:
        for name in ("orders", "lines"):
            configure(host, source_database, name, isActive=False, lookbackSeconds=0, deletes={"mark": "gone"})
        assert host.sync("orders")["rows_read"] == 3
        # What lies above the floor is read once more, and then nothing.
        source_database.execute("INSERT INTO orders (id, total, at) VALUES (4, 0, '2024-01-04')")
        assert host.sync("orders")["rows_read"] == 1
        assert host.sync("orders")["rows_read"] == 0
        source_database.execute("DELETE FROM orders WHERE id = 3")
        host.result("POST", "/data-replication/reconcile/orders")
        host.sync("orders")
        assert [row[0] for row in host.query("SELECT id FROM orders WHERE gone IS NOT NULL")] == [3]
        host.query("UPDATE orders SET total = 99 WHERE id = 1")
        host.query("DELETE FROM orders WHERE id = 2")
        verified = host.result("POST", "/data-replication/verify/orders")
        assert [verified["keys"][kind] for kind in ("missing", "extra", "different")] == [[[2]], [], [[1]]]


def test_a_group_has_one_source_and_no_reconciliation(source_database: TestDatabase, tmp_path: Path) -> None:
    with running(tmp_path) as host:
        configure(host, source_database, "orders", isActive=False)
        body = {"name": "lines", "sourceTable": "lines", "targetTable": "lines", "group": "shop", "isActive": False}
        other = {**source_database.source_config, "host": "other.example.com"}
        answer = host.request("POST", "/data-replication/configure", {**body, "sourceConfig": other})
        assert (answer.status_code, "group" in answer.text) == (400, True)
        body |= {"sourceConfig": source_database.source_config, "deletes": "reconcile"}
        answer = host.request("POST", "/data-replication/configure", body)
        assert (answer.status_code, "deletes" in answer.text) == (400, True)
        assert host.request("POST", "/data-replication/configure", {**body, "mode": "full"}).status_code == 200
