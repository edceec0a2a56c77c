"""Tables of every make of MySQL and MariaDB: names, engines, versions, wide rows, large values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase
from tests.support.sessions import Session

NAME = "T {} %s %(x)s '\"`ü日"
COLUMNS = [
    "rowid",
    "oid",
    "_rowid_",
    "{}",
    "%s %%",
    "Mixed Case",
    "back`tick",
    "quo'te\"s",
    "x" * 64,
    "é" * 64,
    "t.v",
    "日本",
]


def quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def configure(host: HostProcess, database: TestDatabase, table: str, *, target: str, **more: Any) -> None:
    source_table = '"' + table.replace('"', '""') + '"'
    body = {"name": target, "sourceConfig": database.source_config, "sourceTable": source_table, "targetTable": target}
    host.configure(**{**body, "isActive": False, "trackingColumn": "id", "lookbackSeconds": 0, **more})


def replicated(host: HostProcess, database: TestDatabase, table: str, *, target: str, **more: Any) -> list[Any]:
    """Sync a table, and verify it; the replica's rows."""
    configure(host, database, table, target=target, **more)
    run = host.sync(target)
    assert (run["status"], run["warnings"]) == ("success", []), run
    assert_equal(host, target)
    return rows_of(host, target)


def rows_of(host: HostProcess, target: str) -> list[Any]:
    connection = apsw.Connection(str(host.database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.execute(f'SELECT * FROM "{target}" ORDER BY 1').fetchall()
    finally:
        connection.close()


def assert_equal(host: HostProcess, target: str) -> None:
    found = host.result("POST", f"/data-replication/verify/{target}", {})
    assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0), found


ENGINES = {
    "memory": "CREATE TABLE memory (id int PRIMARY KEY, v varchar(9)) ENGINE=MEMORY",
    "myisam": "CREATE TABLE myisam (id int PRIMARY KEY, v varchar(9)) ENGINE=MyISAM",
    "compressed": "CREATE TABLE compressed (id int PRIMARY KEY, v varchar(9)) ROW_FORMAT=COMPRESSED",
    "parts": "CREATE TABLE parts (id int PRIMARY KEY, v varchar(9)) PARTITION BY HASH (id) PARTITIONS 3",
    "ranges": "CREATE TABLE ranges (id int PRIMARY KEY, v varchar(9)) PARTITION BY RANGE (id) "
    "(PARTITION a VALUES LESS THAN (2), PARTITION b VALUES LESS THAN MAXVALUE)",
    "bits": "CREATE TABLE bits (id int PRIMARY KEY, v varchar(9), gone int INVISIBLE DEFAULT 7, "
    "twice int AS (id * 2) VIRTUAL, thrice int AS (id * 3) STORED)",
}
MARIADB_ENGINES = {
    "aria": "CREATE TABLE aria (id int PRIMARY KEY, v varchar(9)) ENGINE=Aria",
    "versioned": "CREATE TABLE versioned (id int PRIMARY KEY, v varchar(9)) WITH SYSTEM VERSIONING",
}
MYSQL_ENGINES = {
    "hidden_index": "CREATE TABLE hidden_index (id int PRIMARY KEY, v varchar(9), INDEX (v) INVISIBLE)",
}


def test_tables_of_every_make(either_mysql: TestDatabase, tmp_path: Path) -> None:
    session = either_mysql.connect()
    engines = {**ENGINES, **(MARIADB_ENGINES if either_mysql.is_mariadb else MYSQL_ENGINES)}
    for table, sql in engines.items():
        session.execute(sql)
        session.execute(
            f"INSERT INTO {table} (id, v) VALUES (1, 'a'), (2, 'b'); UPDATE {table} SET v = 'c' WHERE id = 2"
        )
    session.execute(
        "CREATE TABLE csv (id int NOT NULL, v varchar(9) NOT NULL) ENGINE=CSV; CREATE VIEW seen AS SELECT * FROM bits;"
        "INSERT INTO csv VALUES (1, 'a'), (2, 'c')"
    )
    with running(tmp_path) as host:
        for table in engines:
            found = replicated(host, either_mysql, table, target=table)
            assert [row[:2] for row in found] == [(1, "a"), (2, "c")], table
            assert [row[2:] for row in found] == ([(7, 2, 3), (7, 4, 6)] if table == "bits" else [(), ()])
        for table in ("csv", "seen"):
            assert_without_key(host, either_mysql, table, "id")
        assert rows_of(host, "csv") == [(1, "a"), (2, "c")]
        assert [row[:2] for row in rows_of(host, "seen")] == [(1, "a"), (2, "c")]


def assert_without_key(host: HostProcess, database: TestDatabase, table: str, tracking: str) -> None:
    configure(host, database, table, target=table, trackingColumn=tracking)
    (warning,) = host.sync(table)["warnings"]
    assert "has no primary key" in warning
    assert_equal(host, table)


def test_histories_and_sequences_of_mariadb(mariadb_database: TestDatabase, tmp_path: Path) -> None:
    session = mariadb_database.connect()
    session.execute(
        "CREATE SEQUENCE seq START WITH 5; SELECT NEXTVAL(seq);"
        "CREATE TABLE history (id int PRIMARY KEY, v varchar(9), since timestamp(6) GENERATED ALWAYS AS ROW START,"
        " until timestamp(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (since, until))"
        " WITH SYSTEM VERSIONING;"
        "CREATE TABLE transactions (id int PRIMARY KEY, v varchar(9),"
        " since bigint unsigned GENERATED ALWAYS AS ROW START INVISIBLE,"
        " until bigint unsigned GENERATED ALWAYS AS ROW END INVISIBLE, PERIOD FOR SYSTEM_TIME (since, until))"
        " WITH SYSTEM VERSIONING"
    )
    for table in ("history", "transactions"):
        session.execute(f"INSERT INTO {table} (id, v) VALUES (1, 'a'), (2, 'b')")
    with running(tmp_path) as host:
        assert_history_is_followed(host, mariadb_database, session)
        assert_without_key(host, mariadb_database, "seq", "next_not_cached_value")
        assert rows_of(host, "seq")[0][3] == 5


def assert_history_is_followed(host: HostProcess, database: TestDatabase, session: Session) -> None:
    """Of a row's versions the source shows the last: so does the replica."""
    for table in ("history", "transactions"):
        replicated(host, database, table, target=table, trackingColumn="since")
        session.execute(f"UPDATE {table} SET v = 'c' WHERE id = 2")
        host.sync(table)
        assert [row[:2] for row in rows_of(host, table)] == [(1, "a"), (2, "c")]
        assert_equal(host, table)
    # One that lasts ends with the highest number, or time, that there is.
    assert {row[3] for row in rows_of(host, "transactions")} == {str(2**64 - 1)}
    assert {row[3] for row in rows_of(host, "history")} == {"2038-01-19T03:14:07.999999Z"}


def test_names_of_every_kind(either_mysql: TestDatabase, tmp_path: Path) -> None:
    columns = ", ".join(f"{quoted(name)} varchar(9)" for name in COLUMNS)
    values = ", ".join(f"'v{number}'" for number in range(len(COLUMNS)))
    session = either_mysql.connect()
    session.execute(
        f"CREATE TABLE {quoted(NAME)} ({columns}, ID int, PRIMARY KEY (ID, {quoted('{}')}, {quoted('%s %%')}))"
    )
    session.execute(f"INSERT INTO {quoted(NAME)} VALUES ({values}, 1)")
    with running(tmp_path) as host:
        row = (*(f"v{number}" for number in range(len(COLUMNS))), 1)
        assert replicated(host, either_mysql, NAME, target="odd", trackingColumn="ID") == [row]
        names = [name for (name,) in host.query("SELECT name FROM pragma_table_info('odd')")]
        assert names == [*COLUMNS, "ID"]
        # By a tracking column and a key of such names, too, from the second sync on.
        for tracking in ("%s %%", "{}", "back`tick"):
            configure(host, either_mysql, NAME, target="odd", trackingColumn=tracking, deletes="reconcile")
            session.execute(f"UPDATE {quoted(NAME)} SET {quoted(tracking)} = CONCAT({quoted(tracking)}, 'x')")
            assert host.sync("odd")["status"] == "success"


@pytest.mark.parametrize(
    ("definition", "engine"),
    [
        ("int", "InnoDB"),
        # InnoDB has no room for so many of these in a row, others have.
        pytest.param("double", "MyISAM", marks=pytest.mark.prove),
        pytest.param("bigint unsigned", "MyISAM", marks=pytest.mark.prove),
        pytest.param("varchar(9)", "MyISAM", marks=pytest.mark.prove),
    ],
)
def test_as_many_columns_as_innodb_takes(
    either_mysql: TestDatabase, tmp_path: Path, definition: str, engine: str
) -> None:
    columns = ", ".join(f"c{number} {definition}" for number in range(1016))
    session = either_mysql.connect()
    session.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {columns}) ENGINE={engine}")
    values = ", ".join(f"({number}, {', '.join(str(number % 10) for _ in range(1016))})" for number in range(1, 31))
    session.execute(f"INSERT INTO wide VALUES {values}")
    with running(tmp_path) as host:
        assert len(replicated(host, either_mysql, "wide", target="wide")) == 30
        session.execute("UPDATE wide SET c1015 = 5, id = id + 100 WHERE id = 30")
        host.sync("wide")
        assert float(rows_of(host, "wide")[-1][-1]) == 5


@pytest.mark.parametrize("megabytes", [18, pytest.param(50, marks=pytest.mark.prove)])
def test_values_above_max_allowed_packet(either_mysql: TestDatabase, tmp_path: Path, megabytes: int) -> None:
    """More than the server takes or builds in one piece as it is set: stored while it was set otherwise."""
    size = megabytes * 1024 * 1024
    ((packet,),) = either_mysql.fetch("SELECT @@GLOBAL.max_allowed_packet")
    either_mysql.execute("CREATE TABLE large (id int PRIMARY KEY, v longtext, b longblob)")
    either_mysql.execute("SET GLOBAL max_allowed_packet = 67108864")
    try:
        either_mysql.execute(
            f"INSERT INTO large VALUES (1, REPEAT('é', {size // 2}), NULL), (2, '', REPEAT('b', {size}))"
        )
    finally:
        either_mysql.execute(f"SET GLOBAL max_allowed_packet = {packet}")
    with running(tmp_path) as host:
        found = replicated(host, either_mysql, "large", target="large")
        assert [(row[0], len((row[1] or "").encode()), len(row[2] or b"")) for row in found] == [
            (1, size, 0),
            (2, 0, size),
        ]
        assert (set(found[0][1]), set(found[1][2])) == ({"é"}, {ord("b")})


def test_a_geometry_of_more_than_half_a_packet(either_mysql: TestDatabase, tmp_path: Path) -> None:
    """In hexadecimal it would be larger than what the server makes a text of."""
    points = 45_000
    ((packet,),) = either_mysql.fetch("SELECT @@GLOBAL.max_allowed_packet")
    line = ", ".join(f"{number} 1" for number in range(points))
    either_mysql.execute("CREATE TABLE t (id int PRIMARY KEY, g geometry, l linestring)")
    either_mysql.execute(f"INSERT INTO t SELECT 1, g, g FROM (SELECT ST_GeomFromText('LINESTRING({line})') AS g) AS s")
    try:
        either_mysql.execute("SET GLOBAL max_allowed_packet = 1048576")
        with running(tmp_path) as host:
            ((_, geometry, string),) = replicated(host, either_mysql, "t", target="t")
            assert len(geometry) == len(string) > points * 16
    finally:
        either_mysql.execute(f"SET GLOBAL max_allowed_packet = {packet}")
