"""Every type of MySQL and MariaDB, from its source through a real sync to SQLite and back, and in a verification."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from starbase_data_replication.model import Column
from starbase_data_replication.model.casts import NOT_EXACT, decimal_cast
from starbase_data_replication.sources.mysql.packed_rows import fits
from starbase_data_replication.sources.mysql.source import MysqlSource
from starbase_data_replication.sources.mysql.types import CASTS, NOT_UNICODE
from starbase_data_replication.sources.protocols import ReadPlan
from tests.support.hosts import HostProcess, running
from tests.support.mysql_sources import batches_of, described, rows_of, with_source
from tests.support.mysql_types import KINDS, Kind, back, kinds_of
from tests.support.servers import TestDatabase
from tests.support.sessions import Session

pytestmark = pytest.mark.newer_in_prove

LAX = "SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00', NAMES utf8mb4"
ROWS_AT_ONCE = 20
SIZED = re.compile(r"decimal\((\d+),(\d+)\)")
BLOBS = ("tinyblob", "blob", "mediumblob", "longblob")
SPATIAL = ("point", "geometry", "linestring", "multipoint")


def session_of(database: TestDatabase) -> Session:
    session = database.connect()
    session.execute(LAX)
    return session


def create(session: Session, kinds: Mapping[str, Kind], name: str = "t") -> None:
    columns = ", ".join(f"`{column}` {kind.definition}" for column, kind in kinds.items())
    session.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, {columns})")


def insert(session: Session, table: str, rows: list[list[str]]) -> None:
    for at in range(0, len(rows), ROWS_AT_ONCE):
        values = ", ".join(f"({', '.join(row)})" for row in rows[at : at + ROWS_AT_ONCE])
        session.execute(f"INSERT INTO {table} VALUES {values}")


def configure(host: HostProcess, database: TestDatabase, table: str = "t", **more: Any) -> None:
    body = {"name": "t", "sourceConfig": database.source_config, "sourceTable": table, "targetTable": "t"}
    host.configure(**{**body, "isActive": False, "trackingColumn": "id", "lookbackSeconds": 0, **more})


def synced(host: HostProcess) -> dict[str, Any]:
    run = host.sync("t")
    assert run["status"] == "success", run
    return run


def verified(host: HostProcess) -> dict[str, Any]:
    found: dict[str, Any] = host.result("POST", "/data-replication/verify/t", {})
    return found


def replica(host: HostProcess, sql: str) -> list[Any]:
    """From the file itself: an answer over HTTP is JSON, which has no bytes."""
    connection = apsw.Connection(str(host.database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def declared(host: HostProcess) -> dict[str, str]:
    return dict(replica(host, "SELECT name, type FROM pragma_table_info('t')"))


def generated(values: st.SearchStrategy[str], count: int) -> Iterator[str]:
    """Values of a strategy, as many as are wanted; hypothesis chooses them, its seed among the options of the run."""
    found: list[str] = []

    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(values)
    def collect(value: str) -> None:
        found.append(value)

    collect()
    # A type of few values has fewer examples.
    return (found[number % len(found)] for number in range(count))


@pytest.mark.parametrize("rows", [20, pytest.param(1000, marks=pytest.mark.prove)])
def test_any_value_can_be_made_again_from_the_replica(either_mysql: TestDatabase, tmp_path: Path, rows: int) -> None:
    session = session_of(either_mysql)
    kinds = kinds_of(either_mysql)
    create(session, kinds)
    columns = [generated(kind.values, rows) for kind in kinds.values()]
    insert(session, "t", [[str(number), *values] for number, values in enumerate(zip(*columns, strict=True))])
    session.execute(f"INSERT INTO t (id) VALUES ({rows})")
    with running(tmp_path) as host:
        configure(host, either_mysql)
        run = synced(host)
        types = declared(host)
        stored = replica(host, "SELECT * FROM t ORDER BY id")
        assert_excepted_are_told(host, run)
        assert_sorted_as_said(host, session, kinds)
        assert_the_same_when_put_together(host, either_mysql)
        found = verified(host)
    create(session, kinds, "back")
    definitions = ["int", *(kind.definition for kind in kinds.values())]
    again = [
        [back(value, types[name], definition) for value, name, definition in zip(row, types, definitions, strict=True)]
        for row in stored
    ]
    insert(session, "back", again)
    assert len(stored) == rows + 1
    for column, kind in kinds.items():
        here, there = (kind.text.replace("{}", f"{table}.`{column}`") for table in ("t", "back"))
        same = f"BINARY {here} <=> BINARY {there}"
        different = session.fetch(f"SELECT t.id, {here}, {there} FROM t LEFT JOIN back USING (id) WHERE NOT ({same})")
        assert not different, (
            kind.definition,
            different[:3],
            [row[list(types).index(column)] for row in stored][:3],
        )
    assert (found["missing"], found["extra"], found["different"]) == (0, 0, 0), found


def assert_excepted_are_told(host: HostProcess, run: dict[str, Any]) -> None:
    texts = [name for name, kind in declared(host).items() if kind == "TEXT"]
    counts = ", ".join(f"sum(typeof(\"{name}\") = 'blob')" for name in texts)
    (row,) = replica(host, f"SELECT {counts} FROM t")
    wanted = {
        f"column {name}: of the values read, {count} {NOT_UNICODE}"
        for name, count in zip(texts, row, strict=True)
        if count
    }
    assert wanted
    for name, kind in KINDS.items():
        if kind.definition.startswith("decimal") and declared(host)[name] == "":
            ((count,),) = replica(host, f"SELECT count(*) FROM t WHERE typeof(\"{name}\") = 'text'")
            wanted |= {f"column {name}: of the values read, {count} {NOT_EXACT}"} if count else set()
    assert set(run["warnings"]) == wanted


def assert_the_same_when_put_together(host: HostProcess, database: TestDatabase) -> None:
    """Without the columns that keep a table from it, rows come as one value each, and are the same."""

    async def columns(source: MysqlSource) -> list[Column]:
        return list((await described(source, database, "t", "id")).columns)

    found = with_source(database, columns)
    kept = [column.name for column in found if fits(column)]
    left = [column.name for column in found if not fits(column)]
    assert len(kept) > 2 * len(left)
    configure(host, database, name="packed", targetTable="packed", excludeColumns=left)
    run = host.sync("packed")
    assert run["status"] == "success", run
    values = ", ".join(f'"{name}", typeof("{name}")' for name in kept)
    packed, wanted = (replica(host, f"SELECT {values} FROM {table} ORDER BY id") for table in ("packed", "t"))
    assert packed == wanted, [
        (kept[number // 2], one, other)
        for row, whole in zip(packed, wanted, strict=True)
        for number, (one, other) in enumerate(zip(row, whole, strict=True))
        if one != other
    ]


def assert_sorted_as_said(host: HostProcess, session: Session, kinds: Mapping[str, Kind]) -> None:
    for column, kind in kinds.items():
        cast = CASTS.get(kind.definition.split()[0].split("(")[0])
        cast = CASTS["bigint unsigned"] if kind.definition.startswith("bigint unsigned") else cast
        cast = CASTS["bit(64)"] if kind.definition == "bit(64)" else cast
        if (sized := SIZED.match(kind.definition)) is not None:
            cast = decimal_cast(*map(int, sized.groups()))
        if cast is None or cast.sorts:
            here = replica(host, f'SELECT id FROM t ORDER BY "{column}", id')
            assert here == session.fetch(f"SELECT id FROM t ORDER BY `{column}`, id"), kind.definition


def test_a_verification_finds_the_smallest_change_of_each_type(either_mysql: TestDatabase, tmp_path: Path) -> None:
    session = session_of(either_mysql)
    kinds = kinds_of(either_mysql)
    create(session, kinds)
    names = list(kinds)
    for number, (column, kind) in enumerate(kinds.items()):
        session.execute(f"INSERT INTO t (id, `{column}`) VALUES ({number}, {kind.pair[0]})")
    with running(tmp_path) as host:
        configure(host, either_mysql)
        synced(host)
        # Once more: the floor has risen to the highest id, and what changes below it is not read.
        synced(host)
        assert [names[row[0]] for row in verified(host)["keys"]["different"]] == []
        for at in range(0, len(kinds), 50):
            chosen = list(enumerate(kinds.items()))[at : at + 50]
            for number, (column, kind) in chosen:
                session.execute(f"UPDATE t SET `{column}` = {kind.pair[1]} WHERE id = {number}")
            found = host.result("POST", "/data-replication/verify/t", {"repair": True})
            seen = {number for (number,) in found["keys"]["different"]}
            assert [kind.definition for number, (_, kind) in chosen if number not in seen] == []
            assert (found["missing"], found["extra"], found["different"]) == (0, 0, len(chosen)), found
        assert verified(host)["different"] == 0


def test_a_key_that_is_not_unicode_text(either_mysql: TestDatabase, tmp_path: Path) -> None:
    """Found by its key like any other row, repaired, and passed in a first load."""
    keys = {
        "cp1251": ["_cp1251 X'98'", "'я'", "_cp1251 X'9861'", "'\\\\x98'"],
        "utf8mb4": ["X'EDA080'", "'я'", "X'61EDA081'", "'\\\\xeda080'"],
        "utf8mb3": ["X'EDA080'", "'я'", "X'61EDA081'", "'\\\\xeda080'"],
        "ucs2": ["_ucs2 X'D800'", "'я'", "_ucs2 X'0061D801'", "'z'"],
    }
    session = session_of(either_mysql)
    with running(tmp_path) as host:
        for charset, values in keys.items():
            session.execute(
                f"CREATE TABLE {charset} (k varchar(9) CHARACTER SET {charset}, id int, PRIMARY KEY (k, id))"
            )
            session.execute(f"ALTER TABLE {charset} ADD v int DEFAULT 0")
            rows = ", ".join(f"({value}, {number})" for number, value in enumerate(values, 1))
            session.execute(f"INSERT INTO {charset} (k, id) VALUES {rows}")
            configure(host, either_mysql, table=charset, name=charset, targetTable=charset)
            for _ in range(2):
                assert host.sync(charset)["status"] == "success"
            session.execute(f"UPDATE {charset} SET v = 1")
            for different in (len(values), 0):
                found = host.result("POST", f"/data-replication/verify/{charset}", {"repair": True})
                assert (found["missing"], found["extra"], found["different"]) == (0, 0, different), (charset, found)
            assert replica(host, f"SELECT sum(v), count(*) FROM {charset}") == [(len(values), len(values))]


FEW = ("double", "float", "bit64", "decimal65_30", "char", "utf8mb3", "latin1", "cp1251", "timestamp6", "uuid", "enum")


@pytest.mark.parametrize("chosen", [FEW, pytest.param(tuple(KINDS), marks=pytest.mark.prove)], ids=["few", "all"])
def test_a_first_load_goes_on_behind_any_key(either_mysql: TestDatabase, chosen: tuple[str, ...]) -> None:
    session = session_of(either_mysql)
    names = []
    kinds = kinds_of(either_mysql)
    for name in (name for name in chosen if name in kinds):
        kind = kinds[name]
        if not kind.definition.startswith(
            ("tinytext", "text", "mediumtext", "longtext", "json", "varchar(99)", "vector", *BLOBS, *SPATIAL)
        ):
            names.append(name)
            session.execute(
                f"CREATE TABLE `{name}` (k {kind.definition.removesuffix(' NULL')} NOT NULL PRIMARY KEY, id int)"
            )
            values = ", ".join(f"({value}, 1)" for value in (*generated(kind.values, 4), *kind.pair) if value != "NULL")
            session.execute(f"INSERT IGNORE INTO `{name}` VALUES {values}")

    async def work(source: MysqlSource) -> set[str]:
        resumed = set()
        for name in names:
            schema = await described(source, either_mysql, name)
            batches = await batches_of(source, ReadPlan(schema=schema, in_key_order=True, batch_rows=1))
            rows = [row for batch in batches for row in batch.rows]
            for number, batch in enumerate(batches):
                if batch.last_key is not None:
                    resumed.add(name)
                    plan = ReadPlan(schema=schema, in_key_order=True, after_key=batch.last_key)
                    assert await rows_of(source, plan) == rows[number + 1 :], (kinds[name].definition, batch.last_key)
        return resumed

    resumed = with_source(either_mysql, work)
    assert set(FEW) & kinds.keys() - resumed == {"cp1251", "enum"}
