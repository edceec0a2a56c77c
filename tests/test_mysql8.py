"""What is MySQL's alone, and no MariaDB's: types, settings of its sessions, and what its catalogue hides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from tests.hosts import HostProcess, running
from tests.servers import TestDatabase


def configure(host: HostProcess, database: TestDatabase, table: str = "t", **more: Any) -> None:
    host.configure(
        **{
            "name": table, "sourceConfig": database.source_config, "sourceTable": table, "targetTable": table,
            "trackingColumn": "id", "isActive": False, "lookbackSeconds": 0, **more,
        }
    )  # fmt: skip


def synced(host: HostProcess, table: str = "t") -> dict[str, Any]:
    run = host.sync(table)
    assert run["status"] == "success", run
    return run


def assert_equal(host: HostProcess, table: str = "t") -> None:
    found = host.result("POST", f"/data-replication/verify/{table}", {})
    assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0), found


def replica(host: HostProcess, sql: str) -> list[Any]:
    """From the file itself: an answer over HTTP is JSON, which has no bytes."""
    connection = apsw.Connection(str(host.database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_bytes_that_look_like_text_are_bytes(mysql_database: TestDatabase, tmp_path: Path) -> None:
    """A vector's type is one that the driver takes for text; the others, and expressions of a view, beside it."""
    mysql_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v vector(2), g geometry, b binary(4), bits bit(32), o blob, j json);"
        "INSERT INTO t VALUES"
        " (1, X'4142434445464748', ST_GeomFromText('POINT(1 2)'), 'ABCD', 0x41424344, 'AB', '\"A\"'),"
        " (2, X'00008040CDCC8C3F', NULL, X'FF', 1, X'FF', NULL), (3, NULL, NULL, NULL, NULL, NULL, NULL);"
        "CREATE VIEW seen AS SELECT id, v, b, CONCAT(o, b) AS o, CAST(j AS BINARY) AS j, WEIGHT_STRING(b) AS w,"
        " UNHEX(HEX(v)) AS u, COALESCE(v, v) AS c FROM t"
    )
    with running(tmp_path) as host:
        configure(host, mysql_database)
        configure(host, mysql_database, "seen", keyColumns=["id"])
        configure(host, mysql_database, name="packed", targetTable="packed", columns=["id", "b", "bits"])
        for table in ("t", "seen", "packed"):
            synced(host, table)
            assert_equal(host, table)
        vector = b"ABCDEFGH"
        ((_, v, g, b, bits, o, j), *rest) = replica(host, "SELECT * FROM t ORDER BY id")
        assert (v, type(g), b, bits, o, j) == (vector, bytes, b"ABCD", 0x41424344, b"AB", '"A"')
        assert [row[1] for row in rest] == [bytes.fromhex("00008040CDCC8C3F"), None]
        ((_, *seen), *_) = replica(host, "SELECT id, v, b, o, j, w, u, c FROM seen ORDER BY id")
        assert seen == [vector, b"ABCD", b"ABABCD", b'"A"', b"ABCD", vector, vector]
        assert replica(host, "SELECT b, bits FROM packed WHERE id = 1") == [(b"ABCD", 0x41424344)]
