"""What is MySQL's alone, and no MariaDB's: types, settings of its sessions, and what its catalogue hides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from starbase_data_replication.errors import SourceUnavailable
from starbase_data_replication.sources.mysql.source import MysqlSource
from tests.support.hosts import HostProcess, running, until
from tests.support.mysql_sources import described, with_source
from tests.support.servers import TestDatabase, ThrowawayMySQL, fresh_database

# What a careless client does not expect: no TLS, sessions that end with their transaction, invisible keys.
ODD = (
    "--completion-type=RELEASE",
    "--gtid-mode=ON",
    "--enforce-gtid-consistency=ON",
    "--sql-generate-invisible-primary-key=ON",
    "--show-gipk-in-create-table-and-information-schema=OFF",
)


@pytest.fixture(scope="module")
def odd_server() -> Iterator[ThrowawayMySQL]:
    server = ThrowawayMySQL(*ODD, tls=False)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def odd_database(odd_server: ThrowawayMySQL) -> Iterator[TestDatabase]:
    with fresh_database("mysql", odd_server) as database:
        yield database


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


def test_a_server_without_tls(odd_database: TestDatabase, tmp_path: Path) -> None:
    """By default it is spoken to without; asked for, TLS is missed in words, before a password is sent."""
    odd_database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    with running(tmp_path) as host:
        configure(host, odd_database)
        synced(host)
        configure(host, odd_database, sourceConfig={**odd_database.source_config, "sslMode": "REQUIRED"})
        response = host.request("POST", "/data-replication/sync/t")
        assert response.status_code == 502
        assert "the server has no TLS, which sslMode asks for" in response.text


def test_a_key_that_the_server_hides(odd_database: TestDatabase, tmp_path: Path) -> None:
    """A table without a primary key, which such a server gives it: known by that, it is not loaded whole each time."""
    odd_database.execute("CREATE TABLE t (id int, v varchar(9)); INSERT INTO t VALUES (1, 'a'), (1, 'a'), (2, 'b')")
    with running(tmp_path) as host:
        configure(host, odd_database)
        assert synced(host)["warnings"] == []
        assert replica(host, "SELECT my_row_id, id, v FROM t") == [(1, 1, "a"), (2, 1, "a"), (3, 2, "b")]
        synced(host)
        odd_database.execute("INSERT INTO t VALUES (3, 'c')")
        assert synced(host)["records_processed"] == 1
        odd_database.execute("DELETE FROM t WHERE id = 1")
        found = host.result("POST", "/data-replication/verify/t", {"repair": True})
        assert (found["extra"], found["keys"]["extra"]) == (2, [[1], [2]])
        assert_equal(host)


def test_the_row_count_is_not_a_day_old(mysql_database: TestDatabase) -> None:
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY)")

    async def estimates(source: MysqlSource) -> int | None:
        return (await described(source, mysql_database, "t")).estimated_rows

    assert with_source(mysql_database, estimates) == 0
    # The server keeps what it is asked for.
    mysql_database.fetch("SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE()")
    rows = ", ".join(f"({number})" for number in range(5000))
    mysql_database.execute(f"INSERT INTO t VALUES {rows}")
    assert mysql_database.fetch("SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE()") == [
        (0,)
    ]
    estimate = with_source(mysql_database, estimates)
    assert (estimate or 0) > 1000


def key_of(database: TestDatabase) -> dict[str, str]:
    """What a server without TLS needs, to be given the password of a user that it has not met yet."""
    assert isinstance(database.server, ThrowawayMySQL)
    return {"serverPublicKey": str(database.server.directory / "data" / "public_key.pem")}


def test_a_server_in_offline_mode_may_come_back(odd_database: TestDatabase) -> None:
    odd_database.execute(
        f"CREATE TABLE t (id int PRIMARY KEY); CREATE USER idle@'%' IDENTIFIED BY 'p';"
        f"GRANT SELECT ON {odd_database.name}.* TO idle@'%'; SET GLOBAL offline_mode = ON"
    )

    async def work(source: MysqlSource) -> None:
        with pytest.raises(SourceUnavailable, match="offline mode"):
            await described(source, odd_database, "t")
        odd_database.execute("SET GLOBAL offline_mode = OFF")
        await described(source, odd_database, "t")

    try:
        with_source(odd_database, work, user="idle", password="p", **key_of(odd_database))
    finally:
        odd_database.execute("SET GLOBAL offline_mode = OFF; DROP USER idle@'%'")


def test_half_a_surrogate_pair_does_not_end_a_text(mysql_database: TestDatabase, tmp_path: Path) -> None:
    mysql_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, u varchar(9) NOT NULL, w varchar(9)) CHARACTER SET ucs2;"
        "INSERT INTO t VALUES (1, _ucs2 X'00410042D80000430044', _ucs2 X'D800'), (2, 'é日', NULL), (3, '', 'z')"
    )
    with running(tmp_path) as host:
        configure(host, mysql_database)
        warnings = " ".join(synced(host)["warnings"])
        assert "column u: of the values read, 1 are no valid Unicode text and are kept as bytes" in warnings
        assert replica(host, "SELECT u, w FROM t ORDER BY id") == [
            (b"\xff" + bytes.fromhex("00410042D80000430044"), b"\xff\xd8\x00"), ("é日", None), ("", "z"),
        ]  # fmt: skip
        assert_equal(host)
        mysql_database.execute("UPDATE t SET u = _ucs2 X'00410042D80000430045' WHERE id = 1")
        host.result("POST", "/data-replication/verify/t", {"repair": True})
        assert replica(host, "SELECT hex(u) FROM t WHERE id = 1") == [("FF00410042D80000430045",)]
        assert_equal(host)


MIB = 1 << 20


@pytest.mark.parametrize("key", [", PRIMARY KEY (id)", ""], ids=["key", "no key"])
def test_a_document_of_which_the_server_gives_nothing(mysql_database: TestDatabase, tmp_path: Path, key: str) -> None:
    """Its text is longer than max_allowed_packet, though what is stored is not: an error that names it."""
    numbers = (
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 60000)"
        " SELECT 1, JSON_ARRAYAGG(0.1e0 + i / 7e0) FROM n"
    )
    mysql_database.execute(f"CREATE TABLE t (id int NOT NULL, j json{key}); INSERT INTO t VALUES (2, '[]'), (3, NULL)")
    mysql_database.execute(f"SET cte_max_recursion_depth = 100000; INSERT INTO t {numbers}")
    ((before,),) = mysql_database.fetch("SELECT @@GLOBAL.max_allowed_packet")
    with running(tmp_path) as host:
        configure(host, mysql_database)
        synced(host)
        assert_equal(host)
        try:
            mysql_database.execute(f"SET GLOBAL max_allowed_packet = {MIB}")
            configure(
                host,
                mysql_database,
                name="other",
                targetTable="other",
                sourceConfig={**mysql_database.source_config, "sslMode": "REQUIRED"},
            )
            response = host.request("POST", "/data-replication/sync/other")
            assert response.status_code == 502
            assert (
                "reading "
                + mysql_database.name
                + ".t: a value of the column j is longer than the server's max_allowed_packet"
                in response.text
            )
            configure(host, mysql_database, sourceConfig={**mysql_database.source_config, "sslMode": "REQUIRED"})
            response = host.request("POST", "/data-replication/verify/t", {})
            assert response.status_code == 502
            assert "the text of its JSON (column j), is larger than" in response.text
        finally:
            mysql_database.execute(f"SET GLOBAL max_allowed_packet = {before}")


def test_a_stopped_replica_is_not_taken_for_a_primary(odd_database: TestDatabase, tmp_path: Path) -> None:
    """What it has still to apply comes in below every floor; and whether it has, an ordinary user may have to ask."""
    odd_database.execute("CREATE TABLE t (id int PRIMARY KEY) SELECT 1 AS id; CREATE USER who@'%' IDENTIFIED BY 'p'")
    odd_database.execute(f"GRANT PROCESS ON *.* TO who@'%'; GRANT SELECT ON {odd_database.name}.* TO who@'%'")
    with running(tmp_path) as host:
        user = {"user": "who", "password": "p", **key_of(odd_database)}
        configure(host, odd_database, sourceConfig={**odd_database.source_config, **user})

        def protection() -> str:
            synced(host)
            return str(host.status("t")["protection"])

        try:
            assert protection().startswith("transactions")
            odd_database.execute(
                "SET completion_type = NO_CHAIN, GTID_NEXT = '3e11fa47-71ca-11e1-9e33-c80aa9429562:1';"
                "BEGIN; COMMIT; SET GTID_NEXT = AUTOMATIC;"
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = 1"
            )
            found = protection()
            assert found.startswith("lookback")
            assert "GRANT REPLICATION CLIENT ON *.* to it" in found
            odd_database.execute("GRANT REPLICATION CLIENT ON *.* TO who@'%'")
            found = protection()
            assert found.startswith("lookback")
            assert "is set up to apply the transactions of another server" in found
            odd_database.execute("RESET REPLICA ALL")
            until(lambda: protection().startswith("transactions"), what="the protection of a server that was promoted")
        finally:
            odd_database.execute("RESET REPLICA ALL; DROP USER who@'%'; RESET BINARY LOGS AND GTIDS")
