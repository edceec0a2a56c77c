"""Decimals in a replica mean the same as at their source: as values, as keys, in a load that goes on, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

WIDE = "12345678901234567.891"


def create(database: TestDatabase) -> None:
    database.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, total numeric(12,2) NOT NULL, points numeric(18,0) NOT NULL, "
        "rate numeric(30,10), quotient numeric(38,9) NOT NULL)"
    )
    values = ", ".join(
        f"({n}, {n * 37 % 1000}.{n % 10}0, {(-1) ** n * n * 10**15}, {n}.10, {n}.{n:09d})" for n in range(1, 201)
    )
    database.execute(f"INSERT INTO orders VALUES {values}, (999, -0.01, 0, NULL, {WIDE})")


def configure(host: HostProcess, database: TestDatabase, table: str = "orders", **more: Any) -> None:
    body = {"name": table, "sourceConfig": database.source_config, "sourceTable": table, "targetTable": table}
    host.configure(**{**body, "trackingColumn": "id", "isActive": False, **more})


def sync(host: HostProcess, name: str = "orders") -> dict[str, Any]:
    run = host.sync(name)
    assert run["status"] == "success", run
    return run


def equal(host: HostProcess, name: str = "orders", body: dict[str, Any] | None = None) -> bool:
    found = host.result("POST", f"/data-replication/verify/{name}", body or {})
    return (found["missing"], found["extra"], found["different"]) == (0, 0, 0)


def refused(host: HostProcess) -> str:
    answer = host.request("POST", "/data-replication/sync/orders")
    assert answer.status_code == 502
    return str(answer.json()["error"])


# In the source's SQL and in SQLite's alike.
QUESTIONS = (
    "SELECT count(*) FROM orders WHERE total > 100",
    "SELECT count(*) FROM orders WHERE total BETWEEN 99.9 AND 500.5",
    "SELECT count(*) FROM orders WHERE total = 370.0",
    "SELECT id FROM orders ORDER BY total DESC, id LIMIT 20",
    "SELECT id FROM orders ORDER BY points, id LIMIT 20",
    "SELECT max(points) FROM orders",
    "SELECT id FROM orders WHERE rate IS NOT NULL ORDER BY rate DESC LIMIT 20",
    "SELECT count(*) FROM orders WHERE rate < 10",
)


def test_queries_over_decimals_mean_the_same(source_database: TestDatabase, tmp_path: Path) -> None:
    create(source_database)
    with running(tmp_path) as host:
        configure(host, source_database, lookbackSeconds=0)
        run = sync(host)
        (warning,) = run["warnings"]
        assert warning.startswith("column quotient: of the values read, 1 are exact as no number")
        for sql in QUESTIONS:
            ours, theirs = (
                [[float(value) for value in row] for row in rows]
                for rows in (host.query(sql), source_database.fetch(sql))
            )
            assert ours == theirs, sql
        assert host.query("SELECT max(total), min(total), typeof(total), total / 2 FROM orders WHERE id = 3") == [
            [111.3, 111.3, "real", 55.65]
        ]
        kinds = "SELECT DISTINCT typeof(total), typeof(points), typeof(rate), typeof(quotient) FROM orders WHERE id = ?"
        assert host.query(kinds, 5) == [["real", "integer", "real", "real"]]
        assert host.query(kinds, 999) == [["real", "integer", "null", "text"]]
        assert host.query("SELECT quotient FROM orders WHERE id = 999") == [[f"{WIDE}000000"]]
        assert equal(host)
        # An unchanged row is not written again; a changed one is found, and repaired.
        assert sync(host)["records_processed"] == 0
        source_database.execute("UPDATE orders SET total = total + 0.01, rate = rate + 0.0000000001 WHERE id < 4")
        host.query("UPDATE orders SET total = 5.55, quotient = '7' WHERE id = 50")
        host.query("UPDATE orders SET quotient = 1.5 WHERE id = 999")
        assert not equal(host, body={"repair": True})
        assert equal(host)
        assert host.query("SELECT format('%.2f', total), quotient FROM orders WHERE id IN (50, 999)") == [
            ["850.00", 50.00000005],
            ["-0.01", f"{WIDE}000000"],
        ]


def test_text_keeps_every_digit_and_zero(source_database: TestDatabase, tmp_path: Path) -> None:
    create(source_database)
    with running(tmp_path) as host:
        configure(host, source_database, types={"quotient": "text", "total": "text"})
        assert sync(host)["warnings"] == []
        texts = "SELECT total, quotient, typeof(rate) FROM orders WHERE id = 10"
        assert host.query(texts) == [["370.00", "10.000000010", "real"]]
        assert equal(host)
        # What an earlier version has stored as text is loaded again once it is to be numbers, by itself.
        configure(host, source_database, types={})
        sync(host)
        assert host.query(texts) == [[370.0, 10.00000001, "real"]]
        assert equal(host)
        configure(host, source_database, types={"id": "text"})
        assert "only a decimal can be kept as text" in refused(host)
        configure(host, source_database, types={"price": "text"})
        assert "has no column price" in refused(host)
        answer = host.request("POST", "/data-replication/configure", {"name": "orders", "types": {"total": "real"}})
        assert answer.status_code == 400
        assert "types" in answer.json()["error"]


KEYS = {"narrow": "numeric(12,2)", "whole": "numeric(18,0)", "wide": "numeric(30,10)", "wide whole": "numeric(38,0)"}


@pytest.mark.parametrize("kind", KEYS)
def test_a_decimal_key(source_database: TestDatabase, tmp_path: Path, kind: str) -> None:
    """Rows are found by it: written again, compared, repaired and removed."""
    database = source_database
    database.execute(f"CREATE TABLE keyed (k {KEYS[kind]} PRIMARY KEY, id int NOT NULL, v int)")
    keys = [str(n) for n in range(-20, 60)]
    if kind == "narrow":
        keys += ["0.10", "-0.01", "9999999999.99"]
    if kind.startswith("wide"):
        keys += ["12345678901234567890", "98765432109876543211", "100000000000000000000"[:20]]
    values = ", ".join(f"({key}, {at}, 0)" for at, key in enumerate(keys))
    database.execute(f"INSERT INTO keyed VALUES {values}")
    with running(tmp_path) as host:
        configure(host, database, "keyed", deletes="reconcile", lookbackSeconds=0)
        sync(host, "keyed")
        sync(host, "keyed")
        assert host.query("SELECT count(*) FROM keyed") == [[len(keys)]]
        assert equal(host, "keyed")
        database.execute("UPDATE keyed SET v = 1")
        found = host.result("POST", "/data-replication/verify/keyed", {"repair": True})
        assert found["different"] == len(keys), found
        assert equal(host, "keyed")
        # Not the highest, whose loss would be a reason to load again.
        database.execute("DELETE FROM keyed WHERE id BETWEEN 30 AND 34")
        host.query("DELETE FROM keyed WHERE id = 5")
        found = host.result("POST", "/data-replication/verify/keyed", {"repair": True})
        assert (found["missing"], found["extra"]) == (1, 5), found
        assert host.query("SELECT count(*) FROM keyed") == [[len(keys) - 5]]
        database.execute("DELETE FROM keyed WHERE id = 7")
        assert host.result("POST", "/data-replication/reconcile/keyed", {})["changed"] == 1
        assert equal(host, "keyed")


def test_what_was_text_is_loaded_again_as_numbers_and_rows_are_kept(
    source_database: TestDatabase, tmp_path: Path
) -> None:
    """As a replica of an earlier version is, whose decimals are all text: also where one is the key."""
    database = source_database
    wide = "numeric" if database.dialect == "postgresql" else "decimal(30,10)"
    database.execute(f"CREATE TABLE keyed (k {wide} PRIMARY KEY, id int NOT NULL, v {wide})")
    database.execute("INSERT INTO keyed VALUES (1.10, 1, 5.50), (20, 2, 7), (12345678901234567890.5, 3, NULL)")
    database.execute(f"CREATE TABLE plain (id int PRIMARY KEY, v {wide}, p numeric(12,2))")
    values = "(1, 5.50, 2.50), (2, 12345678901234567.25, 3), (3, 99, 4)"
    database.execute(f"INSERT INTO plain VALUES {values}, (4, 100, 5)")
    with running(tmp_path) as host:
        configure(host, database, "keyed", types={"k": "text", "v": "text"})
        configure(host, database, "plain", types={"v": "text", "p": "text"})
        for name in ("keyed", "plain"):
            sync(host, name)
        database.execute("DELETE FROM plain WHERE id < 4")
        for name in ("keyed", "plain"):
            configure(host, database, name, types={})
            sync(host, name)
        assert host.query("SELECT k, typeof(k), v FROM keyed ORDER BY id")[:2] == [
            [1.1, "real", 5.5], [20.0, "real", 7.0],
        ]  # fmt: skip
        assert host.query("SELECT typeof(k) FROM keyed WHERE id = 3") == [["text"]]
        assert equal(host, "keyed")
        kept = host.query("SELECT id, v, p FROM plain ORDER BY id")
        assert [kept[0], kept[2], kept[3]] == [[1, 5.5, 2.5], [3, 99.0, 4.0], [4, 100.0, 5.0]]
        assert str(kept[1][1]).startswith("12345678901234567.25")
