"""Columns and tables of every kind that PostgreSQL has: each arrives whole, and a verification finds it equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from starbase_data_replication.model import Column, UnrepresentableValues
from starbase_data_replication.model.casts import Cast
from starbase_data_replication.sources.batches import TOO_LARGE, fitting
from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase

ODD_NAMES = (
    "rowid", "oid", "_rowid_", "Mixed Case",
    'with "quotes"', "it's {} %s $1", "naïve 🙂", "select", "replica", "excluded",
    "x" * 63, "ab🙂" * 10,
)  # fmt: skip


TABLES = """
    CREATE TABLE parts (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
    CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
    INSERT INTO parts SELECT n, date '2026-01-01' + n, 'v' || n FROM generate_series(1, 90) n;
    CREATE TABLE parent (id int PRIMARY KEY, v text); CREATE TABLE child (more int) INHERITS (parent);
    INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES (1, 'c', 2), (2, 'c', 2);
    CREATE UNLOGGED TABLE quick (id int PRIMARY KEY); INSERT INTO quick VALUES (1), (2);
    CREATE VIEW seen AS SELECT id, v, day FROM parts WHERE id > 80;
    CREATE MATERIALIZED VIEW kept AS SELECT id, v FROM parts;
    CREATE EXTENSION postgres_fdw;
    CREATE SERVER self FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{host}', port '{port}', dbname '{database}');
    CREATE USER MAPPING FOR CURRENT_USER SERVER self OPTIONS (user '{user}', password '{password}');
    CREATE FOREIGN TABLE far (id int, v text) SERVER self OPTIONS (table_name 'parent')
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    with running(tmp_path) as started:
        yield started


def mirror(
    host: HostProcess, database: TestDatabase, table: str, *, tracking: str = "id", **more: Any
) -> dict[str, Any]:
    """Replicate a table under its own name, sync and verify; the run."""
    target = table.replace(".", "_")
    body = {"name": target, "sourceConfig": database.source_config, "sourceTable": table, "targetTable": target}
    host.configure(**body, trackingColumn=tracking, isActive=False, **more)
    run = host.sync(target)
    found = host.result("POST", f"/data-replication/verify/{target}")
    assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0)
    return run


def test_columns_of_every_kind(embedded_database: TestDatabase, host: HostProcess) -> None:
    """Generated, stored and virtual, identity, and names that SQLite or we could take for something else."""
    names = ", ".join('"' + name.replace('"', '""') + '" text' for name in ODD_NAMES)
    embedded_database.execute(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, "
        f"stored int GENERATED ALWAYS AS (n * 2) STORED, virtual int GENERATED ALWAYS AS (n * 3) VIRTUAL, {names})"
    )
    marks = ", ".join(f"'{number}'" for number in range(len(ODD_NAMES)))
    embedded_database.execute(f"INSERT INTO t VALUES (DEFAULT, 7, DEFAULT, DEFAULT, {marks})")
    assert mirror(host, embedded_database, "t")["warnings"] == []
    rows = host.result("POST", "/query", {"sql": "SELECT * FROM t"})
    expected = {"id": 1, "n": 7, "stored": 14, "virtual": 21}
    assert rows == [expected | {name: str(number) for number, name in enumerate(ODD_NAMES)}]
    # Without a key the replica is walked along SQLite's own, by a name that no column has taken.
    embedded_database.execute("CREATE TABLE u (rowid text, oid text, id int); INSERT INTO u VALUES ('a', 'b', 1)")
    mirror(host, embedded_database, "u")
    assert host.query("SELECT rowid, oid, id FROM u") == [["a", "b", 1]]
    embedded_database.execute(
        "CREATE TABLE w (rowid text, oid text, _rowid_ text, id int); INSERT INTO w (id) VALUES (1)"
    )
    body = {"name": "w", "sourceConfig": embedded_database.source_config, "sourceTable": "w", "targetTable": "w"}
    host.configure(**body, isActive=False)
    host.sync("w")
    answer = host.request("POST", "/data-replication/verify/w")
    assert (answer.status_code, "rename" in answer.json()["error"]) == (502, True)
    mirror(host, embedded_database, "w", rename={"oid": "oid_2"})


def test_tables_of_every_kind(postgres_database: TestDatabase, host: HostProcess) -> None:
    database = postgres_database
    place = {key: str(value) for key, value in database.source_config.items()}
    database.execute(TABLES.format(**place))
    whole = "has no primary key and no unique index without NULLs: every sync loads it whole"
    parent = (
        "has children by inheritance, whose rows its key does not cover: every sync loads it whole; if it identifies a "
        'row among all of them, set keyColumns to ["id"]'
    )
    wanted = {
        "parts": (90, None), "parts_2": (60, None), "parent": (3, parent), "child": (2, whole), "quick": (2, None),
        "seen": (10, whole), "kept": (90, whole), "far": (3, whole),
    }  # fmt: skip
    for table, (rows, warning) in wanted.items():
        run = mirror(host, database, table)
        assert run["warnings"] == ([] if warning is None else [f"public.{table} {warning}"]), table
        assert host.query(f"SELECT count(*) FROM {table}") == [[rows]], table
    with database.connect() as session:
        session.execute("CREATE TEMPORARY TABLE brief (id int PRIMARY KEY)")
        schema = session.fetch("SELECT nspname::text FROM pg_namespace WHERE oid = pg_my_temp_schema()")[0][0]
        body = {
            "name": "b",
            "sourceConfig": database.source_config,
            "sourceTable": f"{schema}.brief",
            "targetTable": "b",
        }
        host.configure(**body, trackingColumn="id", isActive=False)
        answer = host.request("POST", "/data-replication/sync/b")
        assert answer.status_code == 502
        assert "temporary" in answer.json()["error"]


@pytest.mark.prove
def test_as_many_columns_as_there_can_be(postgres_database: TestDatabase, host: HostProcess) -> None:
    """1,600, with names as long as there can be; floating point, which asks most of the statements."""
    names = [f"{'column_name_' * 5}"[:57] + f"_{number:05d}" for number in range(1599)]
    kinds = ["float4", "smallint", "text"]
    columns = ", ".join(f"{name} {kinds[number % 3]}" for number, name in enumerate(names))
    values = ", ".join(["'-0.0'", "n", "'x'"][number % 3] for number in range(len(names)))
    postgres_database.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {columns})")
    postgres_database.execute(f"INSERT INTO wide SELECT n, {values} FROM generate_series(1, 50) n")
    assert mirror(host, postgres_database, "wide")["records_processed"] == 50
    postgres_database.execute(f"UPDATE wide SET {names[1500]} = '0.0' WHERE id = 7")
    host.result("POST", "/data-replication/reset/wide")
    assert mirror(host, postgres_database, "wide")["rows_read"] <= 50
    sign = apsw.Connection(str(host.database), flags=apsw.SQLITE_OPEN_READONLY)
    rows = list(sign.execute(f"SELECT id FROM wide WHERE atan2({names[1500]}, -1.0) > 0"))
    sign.close()
    assert rows == [(7,)]


@pytest.mark.parametrize("size", [8_000_000, pytest.param(50_000_000, marks=pytest.mark.prove)])
def test_a_large_value(postgres_database: TestDatabase, host: HostProcess, size: int) -> None:
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, v text, b bytea)")
    postgres_database.execute(
        f"INSERT INTO t SELECT 1, repeat('é', {size // 2}), decode(repeat('00ff', {size // 4}), 'hex'); "
        "INSERT INTO t VALUES (2, '', ''), (3, NULL, NULL)"
    )
    mirror(host, postgres_database, "t")
    assert host.query("SELECT octet_length(v), length(b), v IS NULL FROM t ORDER BY id") == [
        [size, size // 2, 0], [0, 0, 0], [None, None, 1],
    ]  # fmt: skip


def test_text_in_no_encoding(postgres_database: TestDatabase, host: HostProcess) -> None:
    """In a database of SQL_ASCII any bytes are text: invalid UTF-8 is kept as a BLOB, counted, and reported."""
    name = f"{postgres_database.name}_ascii"
    postgres_database.execute(
        f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    database = replace(postgres_database, source_config={**postgres_database.source_config, "database": name})
    try:
        with database.connect() as session:
            session.execute("CREATE TABLE t (id int PRIMARY KEY, v text, c char(4), a text[], n int, j json)")
            session.execute(
                r"""INSERT INTO t VALUES (1, convert_from('\xff61', 'SQL_ASCII'), convert_from('\xe9', 'SQL_ASCII'),
                    ARRAY[convert_from('\x80', 'SQL_ASCII')], 1, '1'), (2, 'naïve 🙂', 'é', '{é}', 2, NULL),
                    (3, convert_from('\xc3', 'SQL_ASCII'), NULL, NULL, NULL, NULL)"""
            )
        run = mirror(host, database, "t")
        policy = "are not valid UTF-8, and kept as a BLOB of their bytes"
        counted = {"v": 2, "c": 1, "a": 1}
        assert run["warnings"] == [
            f"column {column}: of the values read, {n} {policy}" for column, n in counted.items()
        ]
        rows = host.query("SELECT hex(v), typeof(v), hex(c), typeof(a), a FROM t WHERE id < 3 ORDER BY id")
        assert rows[0][:4] == ["FF61", "blob", "E9202020", "blob"]
        assert rows[1] == ["naïve 🙂".encode().hex().upper(), "text", "C3A92020", "text", '["é"]']
    finally:
        postgres_database.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_what_is_larger_than_sqlite_holds_becomes_null_and_is_counted() -> None:
    columns = [Column(name=name, source_type="text", nullable=True, cast=Cast()) for name in "abc"]
    limit = 100
    rows: list[Any] = [("x" * 60, b"y" * 39, 1), ("é" * 60, "z", None), ("v", "w", 2)]
    exceptions: Counter[UnrepresentableValues] = Counter()
    assert fitting(rows, 10, columns, exceptions, limit=limit) == rows
    assert exceptions == {}
    fitted = fitting(rows, 400, columns, exceptions, limit=limit)
    assert fitted == [(None, b"y" * 39, 1), (None, "z", None), ("v", "w", 2)]
    assert exceptions == {UnrepresentableValues("a", TOO_LARGE): 2}


OWN_TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN moods AS mood[]; CREATE TYPE pair AS (a int, b mood);
    CREATE TYPE span AS RANGE (subtype = float8);
    CREATE TABLE t (m mood, p positive, c pair, r span, a pair[], d moods, o oid, s pg_snapshot, e path,
                    i int4range, k varchar(9), n name, f float4, PRIMARY KEY (m, p, k, o));
    INSERT INTO t SELECT
        'glad', n, ROW(n, 'sad'::mood)::pair, '[1,2)', ARRAY[ROW(n, 'glad'::mood)::pair], '{sad,glad}', n,
        '10:20:10,14', '[(0,0),(1,1)]', '[1,5)', n, 'n', 0.5 FROM generate_series(1, 9) n
"""


@pytest.mark.parametrize("tracking", ["p", "k"])
def test_tables_of_types_that_users_make(host: HostProcess, postgres_database: TestDatabase, tracking: str) -> None:
    """The driver is not let ask what such a type is made of."""
    postgres_database.execute(OWN_TYPES)
    host.configure(
        name="t", sourceConfig=postgres_database.source_config, sourceTable="t", targetTable="t", isActive=False,
        trackingColumn=tracking, where="m = 'glad' AND (c).a < 9 AND r @> 1.5::float8",
    )  # fmt: skip
    assert host.sync("t")["records_processed"] == 8
    host.result("POST", "/query", {"sql": "DELETE FROM t WHERE p = 3"})
    host.result("POST", "/data-replication/verify/t", {"repair": True})
    found = host.result("POST", "/data-replication/verify/t", {})
    assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0)
    assert host.query("SELECT count(*) FROM t WHERE m = 'glad'") == [[8]]
