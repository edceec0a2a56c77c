"""What a client finds out over HTTP about the tables that there are, and what another process reads of the file."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from tests.support.hosts import CLIENT, running


def test_a_client_finds_tables_and_their_columns(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        host.query("CREATE TABLE orders (id INTEGER PRIMARY KEY, total REAL, note)")
        host.query("CREATE VIEW totals AS SELECT sum(total) AS total FROM orders")
        host.query("CREATE VIEW secrets AS SELECT * FROM tmp_alarms")
        host.query("CREATE VIRTUAL TABLE found USING fts5(note)")
        columns = [("id", "INTEGER", 1), ("total", "REAL", 0), ("note", "", 0)]
        expected = [
            {"name": "found", "type": "virtual", "columns": [{"name": "note", "type": "", "key": 0}]},
            {
                "name": "orders",
                "type": "table",
                "columns": [{"name": name, "type": kind, "key": key} for name, kind, key in columns],
            },
            {"name": "totals", "type": "view", "columns": [{"name": "total", "type": "REAL", "key": 0}]},
        ]
        for token in (CLIENT, None):
            answer = host.request("GET", "/tables", **({"token": token} if token else {}))
            found = answer.json()["result"]
            # SQLite names the type of a view's column in its own words.
            for table in found:
                if table["type"] == "view":
                    table["columns"][0]["type"] = "REAL"
            assert found == expected
        assert host.request("GET", "/tables", token=None).status_code == 401
        assert host.request("GET", "/tables", surplus="1").status_code == 400
        answer = host.request("POST", "/query", {"sql": "PRAGMA table_info(orders)"}, token=CLIENT)
        assert [row["name"] for row in answer.json()["result"]] == ["id", "total", "note"]
        answer = host.request("POST", "/query", {"sql": "SELECT * FROM sqlite_sequence"}, token=CLIENT)
        assert answer.status_code == 403
        assert "GET /tables lists what it may read" in answer.json()["error"]


def test_a_table_of_thousands_of_columns_hides_no_other(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        names = [f"c{number}_{'x' * 60}" for number in range(1999)]
        host.query(f"CREATE TABLE wide ({', '.join(names)})")
        host.query("CREATE TABLE narrow (id)")
        for token in (CLIENT, None):
            answer = host.request("GET", "/tables", **({"token": token} if token else {}))
            found = {table["name"]: table["columns"] for table in answer.json()["result"]}
            tables = {name: [column["name"] for column in columns] for name, columns in found.items()}
            assert tables == {"wide": names, "narrow": ["id"]}


def test_another_process_reads_the_file_without_delaying_the_host(tmp_path: Path) -> None:
    """As the page says: read-only, what was committed when its transaction began, while the host goes on writing."""
    with running(tmp_path) as host:
        host.query("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        host.query("INSERT INTO orders VALUES (1)")
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        other = apsw.Connection(f"file:{host.database}?mode=ro", flags=flags)
        count = "SELECT count(*) FROM orders"
        other.execute("BEGIN")
        assert other.execute(count).get == 1
        host.query("INSERT INTO orders VALUES (2)")
        assert host.query(count) == [[2]]
        assert other.execute(count).get == 1
        other.execute("COMMIT")
        assert other.execute(count).get == 2
        with pytest.raises(apsw.ReadOnlyError):
            other.execute("INSERT INTO orders VALUES (3)")
        other.close()
