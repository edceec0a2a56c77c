"""How the rows of a MySQL or MariaDB table are streamed: which, in which order, how many at once."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from starbase_data_replication.model import Batch, Row, TableSchema
from starbase_data_replication.sources.mysql.packed_rows import Packing
from starbase_data_replication.sources.mysql.source import MysqlSource
from starbase_data_replication.sources.mysql.sql import select
from starbase_data_replication.sources.protocols import ReadPlan
from tests.support.mysql_sources import batches_of, described, in_sqlite, plan_of, rows_of, with_source
from tests.support.servers import TestDatabase, sequence

MEBIBYTE = 1 << 20
COMPOSITE = "a varchar(20) CHARACTER SET latin1, b int, PRIMARY KEY (a, b)"
COMPOSITE_VALUES = "ELT(1 + seq % 5, 'a', 'B', 'é', 'Z', ''), -seq"

# Of a key: the columns, and the values of row number `seq`.
KEYS = {
    "integer": ("a bigint PRIMARY KEY", "seq - 50"),
    "unsigned": ("a bigint unsigned PRIMARY KEY", "18446744073709549000 + seq"),
    "decimal": ("a decimal(30,10) PRIMARY KEY", "seq / 7 - 5"),
    "float and integer": ("a float, b int, PRIMARY KEY (a, b)", "(seq % 7) / 10, seq"),
    "double": ("a double PRIMARY KEY", "(seq - 50) / 7e200"),
    "composite": (COMPOSITE, COMPOSITE_VALUES),
    "binary text": ("a varchar(20) COLLATE utf8mb4_bin PRIMARY KEY", "concat(ELT(1 + seq % 3, 'a', 'B', '😀'), seq)"),
    "bytes": ("a varbinary(20), b binary(3), PRIMARY KEY (a, b)", "char(seq % 9), left(unhex(sha2(seq, 256)), 16)"),
    "three": ("a date, b time(2), c year, PRIMARY KEY (a, b, c)",
              "'2024-01-01' + INTERVAL seq DIV 50 DAY, sec_to_time((seq % 5 - 2) * 1.25), 2000 + seq % 50"),
    "datetime": ("a datetime(6) PRIMARY KEY", "'2024-01-01' + INTERVAL seq * 333333 MICROSECOND"),
    "timestamp": ("a timestamp(3) PRIMARY KEY", "'2024-01-01' + INTERVAL seq * 1333 * 1000 MICROSECOND"),
    "zero dates": ("a datetime, b int, PRIMARY KEY (a, b)", "IF(seq % 2, '0000-00-00', '2024-02-30 10:00:00'), seq"),
    "bits": ("a bit(40) PRIMARY KEY", "seq * 10007"),
    "uuid": ("a uuid PRIMARY KEY", "concat(left(sha2(seq, 256), 8), '-4a47-11ed-8a4a-02fc00000001')"),
}  # fmt: skip
KINDS = [*(kind for kind in KEYS if kind != "uuid"), pytest.param("uuid", marks=pytest.mark.mariadb_only)]


def fill(database: TestDatabase, key: str, values: str, rows: int = 100) -> None:
    session = database.connect()
    session.execute("SET sql_mode = 'ALLOW_INVALID_DATES,NO_UNSIGNED_SUBTRACTION'")
    session.execute(f"CREATE TABLE t (note text, {key})")
    session.execute(f"INSERT INTO t SELECT concat('row ', seq), {values} FROM {sequence(rows)}")
    session.execute("ANALYZE TABLE t")


@pytest.mark.parametrize("kind", KINDS)
def test_a_load_in_key_order_goes_on_after_any_batch(either_mysql: TestDatabase, kind: str) -> None:
    fill(either_mysql, *KEYS[kind])

    async def work(source: MysqlSource) -> tuple[list[Batch], list[list[Row]]]:
        schema = await described(source, either_mysql, "t", "a")
        batches = await batches_of(source, ReadPlan(schema=schema, in_key_order=True, batch_rows=30))
        rests = [
            await rows_of(source, ReadPlan(schema=schema, in_key_order=True, after_key=batch.last_key))
            for batch in batches
        ]
        return batches, rests

    batches, rests = with_source(either_mysql, work)
    rows = [row for batch in batches for row in batch.rows]
    assert [len(batch.rows) for batch in batches] == [30, 30, 30, 10]
    assert [batch.last for batch in batches] == [False, False, False, True]
    assert len({row[0] for row in rows}) == 100
    for number, rest in enumerate(rests, 1):
        assert [row[0] for row in rest] == [row[0] for row in rows[30 * number :]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_is_walked_by_its_index(either_mysql: TestDatabase, kind: str) -> None:
    fill(either_mysql, *KEYS[kind], rows=2000)

    async def work(source: MysqlSource) -> tuple[TableSchema, tuple[str, ...] | None]:
        schema = await described(source, either_mysql, "t", "a")
        batches = await batches_of(source, ReadPlan(schema=schema, in_key_order=True, batch_rows=1990))
        return schema, batches[0].last_key

    schema, key = with_source(either_mysql, work)
    for after, kinds in ((None, ("index",)), (key, ("range", "index"))):
        sql = select(ReadPlan(schema=schema, in_key_order=True, after_key=after), [Packing(schema.columns).expression])
        how, index, extra = plan_of(either_mysql, sql)
        assert how in kinds
        assert (index, "filesort" in extra) == ("PRIMARY", False)
    assert how == "range" or kind == "zero dates"


MIXED = {
    "second": ("a int, b varchar(9), c int, PRIMARY KEY (a, b DESC, c)", "seq % 7, concat('é', seq % 50), seq"),
    "first": ("a int, b int, PRIMARY KEY (a DESC, b)", "seq % 7, seq"),
    "unique": ("a int NOT NULL, b int NOT NULL, UNIQUE (a, b DESC)", "seq % 7, seq"),
    "all": ("a int, b int, PRIMARY KEY (a DESC, b DESC)", "seq % 7, seq"),
}


@pytest.mark.parametrize("kind", MIXED)
def test_a_key_of_mixed_direction_is_walked_by_its_index(either_mysql: TestDatabase, kind: str) -> None:
    """Read otherwise, the whole table would be sorted first; a position says in which order it was reached."""
    fill(either_mysql, *MIXED[kind], rows=2000)

    async def work(source: MysqlSource) -> tuple[TableSchema, list[Batch], list[Row], list[Row]]:
        schema = await described(source, either_mysql, "t", "a")
        plan = ReadPlan(schema=schema, in_key_order=True, batch_rows=700)
        batches = await batches_of(source, plan)
        ends: list[Row] = []
        for number, batch in enumerate(batches):
            rest = await rows_of(source, replace(plan, after_key=batch.last_key))
            assert rest == [row for later in batches[number + 1 :] for row in later.rows]
            # One that an earlier version has reached, in rising order, and one that belonged to a dropped index.
            rising = replace(schema, falling=())
            assert batch.last_key is not None
            ends += await rows_of(source, replace(plan, schema=rising, after_key=batch.last_key))
            assert ends[len(ends) - len(rest) :] == rest
        before = await rows_of(source, replace(plan, schema=rising))
        old = (await batches_of(source, replace(plan, schema=rising)))[0].last_key
        assert old is not None
        assert len(old) == len(schema.key)
        after_old = await rows_of(source, replace(plan, after_key=old))
        return schema, batches, before[700:], after_old

    schema, batches, rest, after_old = with_source(either_mysql, work)
    assert after_old == rest
    assert (schema.falling == ()) == (kind == "all")

    def explained(schema: TableSchema, after: tuple[str, ...] | None) -> str:
        plan = ReadPlan(schema=schema, in_key_order=True, after_key=after)
        return str(either_mysql.fetch(f"EXPLAIN {select(plan, [Packing(schema.columns).expression])}")).lower()

    for after in (None, batches[0].last_key):
        assert "sort" not in explained(schema, after)
        assert ("'a'" if kind == "unique" else "primary") in explained(schema, after).replace("using a ", "'a'")
    assert ("sort" in explained(replace(schema, falling=()), None)) == (kind != "all")


@pytest.mark.parametrize("kind", [*KINDS, "label"])
def test_rows_are_found_by_their_keys_as_the_replica_has_them(either_mysql: TestDatabase, kind: str) -> None:
    label = ("a enum('z','y','é'), b int, PRIMARY KEY (a, b)", "1 + seq % 3, seq")
    fill(either_mysql, *KEYS.get(kind, label))

    async def work(source: MysqlSource) -> tuple[list[Row], list[Row], list[Row]]:
        schema = await described(source, either_mysql, "t", "a")
        rows = await rows_of(source, ReadPlan(schema=schema))
        width = len(schema.key)
        keys = tuple(tuple(in_sqlite(schema, row)[1 : 1 + width]) for row in rows[::7])
        found = await rows_of(source, ReadPlan(schema=schema, keys=keys))
        return rows[::7], found, await rows_of(source, ReadPlan(schema=schema, keys=()))

    wanted, found, none = with_source(either_mysql, work)
    assert sorted(row[0] for row in found) == sorted(row[0] for row in wanted)
    assert none == []


def test_only_what_lies_above_the_floor_is_read_and_rows_without_a_value_if_wanted(
    either_mysql: TestDatabase,
) -> None:
    either_mysql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, at datetime(6) NULL, INDEX (at));"
        f"INSERT INTO t SELECT seq, '2024-01-01' + INTERVAL seq MICROSECOND FROM {sequence(2000)};"
        "INSERT INTO t VALUES (3001, NULL), (3002, NULL); ANALYZE TABLE t"
    )
    floor = "2024-01-01 00:00:00.001998"

    async def work(source: MysqlSource) -> tuple[list[list[Any]], list[int], str]:
        schema = await described(source, either_mysql, "t", "at")
        plans = [
            ReadPlan(schema=schema, floor=floor),
            ReadPlan(schema=schema, floor=floor, nulls=False),
            ReadPlan(schema=schema, after_key=("1999",), in_key_order=True, nulls=False),
        ]
        found = [sorted(int(row[0]) for row in await rows_of(source, plan)) for plan in plans]
        nulls = [await source.count_nulls(schema, at_most=limit) for limit in (None, 10, 1)]
        return found, nulls, select(plans[0], ["1"])

    found, nulls, sql = with_source(either_mysql, work)
    assert found == [[1999, 2000, 3001, 3002], [1999, 2000], [2000]]
    assert nulls == [2, 2, 1]
    assert plan_of(either_mysql, sql)[0] == "range"


def test_the_snapshot_is_open_once_the_context_is_entered(either_mysql: TestDatabase) -> None:
    either_mysql.execute("CREATE TABLE t (id int PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1)")

    async def work(source: MysqlSource) -> list[Row]:
        schema = await described(source, either_mysql, "t")
        async with source.read(ReadPlan(schema=schema)) as batches:
            either_mysql.execute("INSERT INTO t VALUES (2); UPDATE t SET id = 10 WHERE id = 1")
            return [row async for batch in batches for row in batch.rows]

    assert with_source(either_mysql, work) == [("1",)]


def test_an_empty_table_gives_one_last_batch(either_mysql: TestDatabase) -> None:
    either_mysql.execute("CREATE TABLE t (id int PRIMARY KEY)")

    async def work(source: MysqlSource) -> list[Batch]:
        return await batches_of(source, ReadPlan(schema=await described(source, either_mysql, "t")))

    assert with_source(either_mysql, work) == [Batch(rows=[], bytes=0, last=True)]


@pytest.fixture
def large_packets(either_mysql: TestDatabase) -> Iterator[None]:
    ((before,),) = either_mysql.fetch("SELECT @@GLOBAL.max_allowed_packet")
    either_mysql.execute(f"SET GLOBAL max_allowed_packet = {64 * MEBIBYTE}")
    yield
    either_mysql.execute(f"SET GLOBAL max_allowed_packet = {before}")


@pytest.mark.usefixtures("large_packets")
def test_a_batch_ends_at_its_bytes_and_memory_does_not_grow_with_the_table(either_mysql: TestDatabase) -> None:
    either_mysql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, body longtext);"
        f"INSERT INTO t SELECT seq, 'x' FROM {sequence(20000)};"
        f"INSERT INTO t SELECT 20000 + seq, repeat('é', 500000) FROM {sequence(80)};"
    )
    # Of four batches' bytes and more, at most two are ever in memory: one with the caller, one being read.
    batches, peak = measured(either_mysql)
    assert sum(len(batch) for batch in batches) == 20080
    assert max(len(batch) for batch in batches) == 5000
    assert [sum(batch) for batch in batches if sum(batch) > 5 * MEBIBYTE] == []
    assert len(batches) > 12
    assert peak < 24 * MEBIBYTE


@pytest.mark.usefixtures("large_packets")
def test_a_value_larger_than_a_packet_of_the_protocol_arrives_whole(either_mysql: TestDatabase) -> None:
    limit = (1 << 24) - 1
    # The row's packet holds the id, '1', and the value, after one and four bytes that give their lengths.
    sizes = [15_000_000, limit - 6, limit - 7, limit, 2 * limit - 6, 50_000_000]
    values = ", ".join(f"({number}, repeat('z', {size}))" for number, size in enumerate(sizes, 1))
    either_mysql.execute(f"CREATE TABLE t (id int PRIMARY KEY, body longtext); INSERT INTO t VALUES {values}, (9, '')")
    batches, _ = measured(either_mysql)
    assert batches == [[size] for size in [*sizes, 0]]


def measured(database: TestDatabase) -> tuple[list[list[int]], int]:
    """The batches of a read of t as the lengths of its texts, and how much memory it took at most."""

    async def work(source: MysqlSource) -> list[list[int]]:
        schema = await described(source, database, "t")
        async with source.read(ReadPlan(schema=schema, in_key_order=True, batch_bytes=4 * MEBIBYTE)) as batches:
            return [[len(row[1]) for row in batch.rows] async for batch in batches]

    tracemalloc.start()
    try:
        return with_source(database, work), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
