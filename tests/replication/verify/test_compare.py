"""Comparing a replica with its source: every difference is found, nothing else is, and little is sent for it."""

from __future__ import annotations

import asyncio
import math
import random
import struct
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from starbase_data_replication.errors import SchemaMismatch, SourceRejected
from starbase_data_replication.model import TableSchema
from starbase_data_replication.model.options import Options, Replication
from starbase_data_replication.model.runs import Progress
from starbase_data_replication.sources.features import RegisteredDialect
from starbase_data_replication.sources.mysql.compare import double_text, float_text, in_json
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.postgresql.compare import PostgresqlComparing
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.sources.protocols import Comparable, Key, Part, ReadPlan, Source
from starbase_data_replication.sync.identity import identity_of
from starbase_data_replication.sync.sync import Sync
from starbase_data_replication.verify import compare as comparing
from starbase_data_replication.verify import replica_checksums
from starbase_data_replication.verify.compare import CompareProgress, Comparison, Differences, What
from starbase_host import Clock, Database
from tests.support.servers import TestDatabase, sequence
from tests.support.stored import under_way

T = TypeVar("T")
DEFAULTS = Options()


@dataclass(kw_only=True)
class Mirror:
    """A source's table and its replica, made by a real sync."""

    source: Source
    schema: TableSchema
    database: Database
    options: Options
    sync: Callable[[], Coroutine[Any, Any, Any]]
    progress: list[CompareProgress] = field(default_factory=list)

    @property
    def comparable(self) -> Comparable:
        assert isinstance(self.source, Comparable)
        return self.source

    async def compare(self, what: What = "rows", **more: Any) -> Comparison:
        return await comparing.compare(
            self.comparable, self.schema, self.database, "t", options=self.options, what=what,
            on_progress=self.progress.append, **more,
        )  # fmt: skip

    async def recheck(self, keys: Sequence[Key]) -> Differences:
        return await comparing.recheck(
            self.comparable, self.schema, self.database, "t", keys, options=self.options, what="rows"
        )

    async def replica(self, sql: str, *values: Any) -> list[Any]:
        return await self.database.write(lambda connection: connection.execute(sql, values).fetchall())


def mirrored(
    database: TestDatabase,
    directory: Path,
    work: Callable[[Mirror], Coroutine[Any, Any, T]],
    *,
    tracking: str = "id",
    options: Options = DEFAULTS,
) -> T:
    """Replicate table t, then run a coroutine with it."""
    dialect = PostgresqlDialect() if database.dialect == "postgresql" else MysqlDialect()
    replication = Replication(
        name="t", source_config=database.source_config, source_table="t", target_table="t",
        tracking_column=tracking, options=options,
    )  # fmt: skip

    async def main() -> T:
        internal = Database(directory / "replica.db")
        internal.open()
        source = dialect.open(database.source_config, max_connections=2)
        try:
            await internal.migrate("data_replication", "starbase_data_replication.storage.migrations")
            stored = await internal.write(partial(under_way, replication=replication))
            table = dialect.table_name(database.source_config, "t")

            async def sync() -> None:
                await Sync(
                    stored=stored, source=source, table=table,
                    identity=identity_of(["t"], replication), database=internal, clock=Clock(),
                    progress=Progress(started_at=0.0), dialect=RegisteredDialect(label="the dialect"),
                ).run()  # fmt: skip

            await sync()
            schema = await source.describe(table, tracking)
            return await work(Mirror(source=source, schema=schema, database=internal, options=options, sync=sync))
        finally:
            await source.close()
            internal.close()

    return asyncio.run(main())


def numbers(dialect: str, count: int) -> str:
    return (
        f"generate_series(1, {count}) AS n(i)"
        if dialect == "postgresql"
        else f"(SELECT seq AS i FROM {sequence(count)}) n"
    )


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that a table of some rows goes through everything that one of millions would."""
    monkeypatch.setattr(replica_checksums, "PART_ROWS", 6)
    monkeypatch.setattr(replica_checksums, "LEAF_ROWS", 2)
    monkeypatch.setattr(comparing, "LEAF_ROWS", 2)
    monkeypatch.setattr(comparing, "PARTS_AT_ONCE", 3)
    monkeypatch.setattr(comparing, "HELD_ROWS", 8)


@dataclass(frozen=True, kw_only=True)
class KeyCase:
    """columns: of the key. values: each a row's, as SQL. order: the columns by which both sides order alike."""

    columns: str
    values: Sequence[str]
    order: tuple[str, ...]


def strings(*texts: str) -> list[str]:
    return [f"'{text}'" for text in texts]


INTEGERS = ["0", "-1", "-9223372036854775808", "9223372036854775807", *map(str, range(-40, 400, 17))]
TEXTS = strings(
    "01", "1", "A", "a", "B", "b", "", "Z", "_", "é", "E", "zz", "日本", "🙂", "ﬀ", "10", "9", "x y", "ab", "ba"
)
BYTE_VALUES = [bytes([n * 7 % 256] * (n % 5)) + bytes([n]) for n in range(30)]
COMPOSITE = [f"{n % 3}, {text}" for n, text in enumerate(TEXTS)]
DAYS = [f"20{n}-01-01 00:00:00.1" for n in range(10, 40)]
BORDER = [str(2**63 + n) for n in range(-9, 9)]
# Of version 7, in no order: those of version 4 cannot be followed.
UUIDS = strings(
    *(
        str(
            uuid.UUID(
                int=(1_700_000_000_000 + n * 7919 % 30) << 80 | 7 << 76 | 2 << 62 | random.Random(n).getrandbits(62)
            )
        )
        for n in range(30)
    )
)
POSTGRESQL = {
    "bigint": KeyCase(columns="a bigint", values=INTEGERS, order=("a",)),
    "C": KeyCase(columns='a text COLLATE "C"', values=TEXTS, order=("a",)),
    "ICU": KeyCase(columns='a text COLLATE "und-x-icu"', values=TEXTS, order=()),
    "char": KeyCase(columns='a char(5) COLLATE "C"', values=TEXTS, order=()),
    "bytea": KeyCase(columns="a bytea", values=[rf"'\x{value.hex()}'" for value in BYTE_VALUES], order=("a",)),
    "uuid": KeyCase(columns="a uuid", values=UUIDS, order=("a",)),
    "numeric": KeyCase(columns="a numeric", values=[*INTEGERS, "1.10", "'NaN'", "18446744073709551615"], order=()),
    "float": KeyCase(
        columns="a float8", values=[*(f"{n}::float8 / 7" for n in range(20)), "'NaN'", "'Infinity'"], order=()
    ),
    "timestamptz": KeyCase(
        columns="a timestamptz",
        values=strings("infinity", "-infinity", "4713-01-01 00:00:00+00 BC", *DAYS),
        order=(),
    ),
    "array": KeyCase(columns="a int[]", values=[f"'{{{n},{n * 2}}}'" for n in range(20)], order=()),
    "integer and C": KeyCase(columns='a int, b text COLLATE "C"', values=COMPOSITE, order=("a", "b")),
    "integer and ICU": KeyCase(columns='a int, b text COLLATE "und-x-icu"', values=COMPOSITE, order=("a",)),
    "one integer and ICU": KeyCase(
        columns='a int, b text COLLATE "und-x-icu"', values=[f"1, '{n}'" for n in range(40)], order=("a",)
    ),
}  # fmt: skip
MYSQL = {
    "bigint": KeyCase(columns="a bigint", values=INTEGERS, order=("a",)),
    "unsigned": KeyCase(
        columns="a bigint unsigned",
        values=[*map(str, range(0, 60, 5)), *BORDER, str(2**64 - 1), "10000000000000000000"],
        order=("a",),
    ),
    "unsigned above": KeyCase(columns="a bigint unsigned", values=[str(2**63 + 7**n) for n in range(22)], order=("a",)),
    "integer and unsigned": KeyCase(
        columns="a int, b bigint unsigned", values=[f"{n % 2}, {2**63 - 10 + n}" for n in range(30)], order=("a",)
    ),
    "binary collation": KeyCase(columns="a varchar(20) COLLATE utf8mb4_bin", values=TEXTS, order=()),
    "nopad": KeyCase(columns="a varchar(20) COLLATE {nopad}", values=[*TEXTS, "'a '", "'a\t'"], order=("a",)),
    "latin1": KeyCase(
        columns="a varchar(20) CHARACTER SET latin1", values=strings("a", "b", "ä", "é", "€", "z"), order=()
    ),
    "varbinary": KeyCase(columns="a varbinary(9)", values=[f"X'{value.hex()}'" for value in BYTE_VALUES], order=("a",)),
    "binary": KeyCase(columns="a binary(9)", values=[f"X'{value.hex():0<18}'" for value in BYTE_VALUES], order=("a",)),
    "uuid": KeyCase(columns="a uuid", values=UUIDS, order=()),
    "decimal": KeyCase(columns="a decimal(30,2)", values=INTEGERS, order=()),
    "double": KeyCase(columns="a double", values=[f"{n}e0 / 7" for n in range(20)], order=()),
    "timestamp": KeyCase(columns="a datetime(3)", values=strings(*DAYS), order=()),
    "enum": KeyCase(columns="a enum('z','a','B')", values=strings("z", "a", "B"), order=()),
    "integer and text": KeyCase(columns="a int, b varchar(20) COLLATE utf8mb4_bin", values=COMPOSITE, order=("a",)),
    "integer and binary": KeyCase(
        columns="a int, b varbinary(20)",
        values=[f"{n % 3}, X'{value.hex()}'" for n, value in enumerate(BYTE_VALUES)],
        order=("a", "b"),
    ),
}  # fmt: skip


def create(database: TestDatabase, case: KeyCase) -> list[str]:
    """A table with this key; the text in `v` says which row it is."""
    names = [column.split()[0] for column in case.columns.replace("'z','a','B'", "").split(", ")]
    rows = ", ".join(f"({value}, 'v{number}')" for number, value in enumerate(case.values))
    columns = case.columns.replace("{nopad}", database.nopad)
    database.execute(f"CREATE TABLE t ({columns}, v varchar(20), PRIMARY KEY ({', '.join(names)}))")
    database.execute(f"INSERT INTO t VALUES {rows}")
    return names


async def by_v(mirror: Mirror) -> dict[str, Key]:
    names = ", ".join(mirror.schema.key)
    return {row[-1]: tuple(row[:-1]) for row in await mirror.replica(f"SELECT {names}, v FROM t")}


def check_key(database: TestDatabase, directory: Path, case: KeyCase, seed: int) -> None:
    names = create(database, case)
    choose = random.Random(seed)

    async def work(mirror: Mirror) -> None:
        keys = await by_v(mirror)
        assert len(keys) == len(case.values)
        async with mirror.comparable.comparing(mirror.schema, mirror.schema.columns, mirror.options) as remote:
            assert remote.order == case.order
        for what in ("rows", "keys"):
            equal = await mirror.compare(what)
            assert (equal.equal, equal.rows_compared, equal.replica_rows) == (True, len(keys), len(keys)), equal
        share = choose.choice((0.05, 0.2, 0.6))
        chosen = {v: choose.choice(("missing", "extra", "different")) for v in keys if choose.random() < share}
        wanted: dict[str, set[Key]] = {"missing": set(), "extra": set(), "different": set()}
        for v, kind in chosen.items():
            wanted[kind].add(keys[v])
            if kind == "missing":
                await mirror.replica("DELETE FROM t WHERE v = ?", v)
            elif kind == "different":
                await mirror.replica("UPDATE t SET v = v || 'x' WHERE v = ?", v)
            else:
                database.execute(f"DELETE FROM t WHERE v = '{v}'")
        for result in (await mirror.compare(), await mirror.compare("keys")):
            if result.different == 0:
                wanted = {**wanted, "different": set()}
            assert {kind: set(getattr(result.keys, kind)) for kind in wanted} == wanted
            assert (result.missing, result.extra, result.different) == tuple(map(len, wanted.values()))
            assert len(result.keys) == result.differences
        await check_rows_by_key(mirror, keys, chosen)

    mirrored(database, directory, work, tracking=names[0])


async def check_rows_by_key(mirror: Mirror, keys: dict[str, Key], chosen: dict[str, str]) -> None:
    """Looking again at the same keys says the same, and reading by keys gives just those rows."""
    again = await mirror.recheck(list(keys.values()))
    for kind in ("missing", "extra", "different"):
        assert set(getattr(again, kind)) == {keys[v] for v in chosen if chosen[v] == kind}
    asked = {v: key for number, (v, key) in enumerate(sorted(keys.items())) if number % 3 == 0}
    async with mirror.source.read(ReadPlan(schema=mirror.schema, keys=tuple(asked.values()))) as batches:
        rows = [row async for batch in batches for row in batch.rows]
    assert {row[-1] for row in rows} == {v for v in asked if chosen.get(v) != "extra"}


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("key", POSTGRESQL)
def test_keys_of_postgresql(postgres_database: TestDatabase, tmp_path: Path, key: str, seed: int) -> None:
    check_key(postgres_database, tmp_path, POSTGRESQL[key], seed)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "key", [pytest.param(key, marks=[pytest.mark.mariadb_only] if key == "uuid" else []) for key in MYSQL]
)
def test_keys_of_mysql(either_mysql: TestDatabase, tmp_path: Path, key: str, seed: int) -> None:
    check_key(either_mysql, tmp_path, MYSQL[key], seed)


def test_one_value_among_many_costs_few_sums(source_database: TestDatabase, tmp_path: Path) -> None:
    rows = f"SELECT i, 'name' FROM {numbers(source_database.dialect, 100_000)}"
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, name varchar(20)); INSERT INTO t {rows}")

    async def work(mirror: Mirror) -> None:
        equal = await mirror.compare()
        assert (equal.equal, equal.rows_compared, equal.ranges) == (True, 100_000, 13)
        assert mirror.progress[-1] == CompareProgress(rows=100_000, ranges=13)
        await mirror.replica("UPDATE t SET name = 'Name' WHERE id = 77777")
        found = await mirror.compare()
        assert found.keys == Differences(different=((77777,),))
        assert found.ranges < 50
        assert (await mirror.compare("keys")).equal
        assert await mirror.recheck([(1,), (77777,)]) == found.keys
        source_database.execute("UPDATE t SET name = 'Name' WHERE id = 77777")
        assert not await mirror.recheck([(1,), (77777,)])

    mirrored(source_database, tmp_path, work)


@pytest.mark.parametrize("rows", [0, 12_000])
def test_either_side_is_empty(source_database: TestDatabase, tmp_path: Path, rows: int) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    if rows:
        source_database.execute(f"INSERT INTO t SELECT i FROM {numbers(source_database.dialect, rows)}")

    async def work(mirror: Mirror) -> None:
        assert (await mirror.compare()).equal
        chunks: list[Differences] = []

        async def found(differences: Differences) -> None:
            chunks.append(differences)

        source_database.execute("CREATE TABLE kept AS SELECT id FROM t; DELETE FROM t")
        result = await mirror.compare("keys", on_differences=found)
        assert (result.missing, result.extra, result.rows_compared) == (0, rows, 0)
        source_database.execute("INSERT INTO t SELECT id FROM kept")
        await mirror.replica("DELETE FROM t")
        result = await mirror.compare("keys", on_differences=found)
        assert (result.missing, result.extra, result.replica_rows) == (rows, 0, 0)
        assert all(len(chunk) <= comparing.REPORTED_KEYS for chunk in chunks)
        for kind in ("missing", "extra"):
            assert sorted(key for chunk in chunks for key in getattr(chunk, kind)) == [(n + 1,) for n in range(rows)]
        complete = len(result.keys) == result.differences
        assert (complete, len(result.keys)) == (rows == 0, min(rows, comparing.KEPT_KEYS))

    mirrored(source_database, tmp_path, work)


TRICKY = {
    "postgresql": {
        "int": ["0", "-1", "2147483647"],
        "bool": ["true", "false"],
        "text": ["''", "'a'", "'1:a'", "','", "'ä€🙂'", "'A'", "E'\\n'", "'null'", "'0'"],
        "varchar": ["'ab'", "''"],
        "char(4)": ["'a'", "''"],
        "bytea": ["'a'", r"'\x'", r"'\x00'", r"'\xff00'"],
        "numeric": ["1.10", "1.1", "0", "'NaN'", "1e50"],
        "float8": ["'-0'", "0", "'NaN'", "'Infinity'", "'-Infinity'", "5e-324", "1e308", "0.1", "1"],
        "float4": ["'-0'", "0", "'NaN'", "'Infinity'", "1e-45", "3e38", "0.1", "16777217"],
        "timestamptz": ["'2024-02-29 23:59:59.999999+14'", "'infinity'", "'0044-03-15 BC'", "'20000-01-01'"],
        "timestamp(0)": ["'2024-02-29 23:59:59'", "'-infinity'"],
        "jsonb": ["""'{"b": [1, 1.10, null], "a": "ä"}'""", "'null'", "'\"\"'"],
        "json": ["'{ }'", "'{}'"],
        "uuid": ["'00000000-0000-0000-0000-000000000000'"],
        "int[]": ["'{1,2}'", "'{}'", "'{NULL}'"],
        "interval": ["'1 month -1 day'", "'0'"],
        "money": ["12.30"],
        "inet": ["'::1/64'"],
    },
    "mysql": {
        "int": ["0", "-1"],
        "int zerofill": ["0", "5", "12345"],
        "bigint unsigned": ["0", "9223372036854775807", "9223372036854775808", "18446744073709551615"],
        "bigint unsigned zerofill": ["7", "18446744073709551615"],
        "bit(3)": ["b'101'", "0"],
        "bit(64)": ["1", "18446744073709551615"],
        "year": ["0", "2024"],
        "varchar(20)": ["''", "'a'", "'1:a'", "','", "'ä€🙂'", "'A'", "'a '", "'0'", r"'\0'", r"'a\0b'"],
        "varchar(21) CHARACTER SET latin1": ["'ä€'", "''"],
        "char(4)": ["'a'", "''"],
        "text": ["''", "'a'"],
        "longtext": ["''", "'ä'"],
        "varbinary(5)": ["X'00'", "''", "X'FF00'"],
        "longblob": ["''", "X'00'", "X'FF00'"],
        "decimal(30,10)": ["1.10", "-0.0000000001"],
        "decimal(5,2) zerofill": ["1.1"],
        "double": ["-0e0", "0", "5e-324", "1.7976931348623157e308", "0.1", "1e15", "1e14", "123456789012345680"],
        "double(10,2)": ["1.1", "-0e0"],
        "float": ["-0e0", "0", "1e-45", "3.4e38", "0.1", "16777217", "123456.789"],
        "float(7,2)": ["1.1"],
        "datetime": ["'2024-02-29 23:59:59'", "'9999-12-31 23:59:59'"],
        "timestamp(3) NULL": ["'2024-02-29 23:59:59.999'"],
        "time(6)": ["'-838:59:59'"],
        "date": ["'2024-02-29'"],
        "json": ["'{\"a\": 1}'"],
        "enum('a','B')": ["'B'"],
        "set('a','b')": ["'a,b'", "''"],
        "point": ["point(1, 2)"],
    },
}  # fmt: skip


def test_every_value_is_the_same_on_both_sides(source_database: TestDatabase, tmp_path: Path) -> None:
    types = dict(TRICKY[source_database.dialect])
    if source_database.is_mariadb:
        types["inet6"] = ["'::1'"]
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(types))
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    rows = max(map(len, types.values())) + 1
    for row in range(rows):
        # One row has NULL everywhere.
        values = [cases[row % len(cases)] if row else "NULL" for cases in types.values()]
        source_database.execute(f"INSERT INTO t VALUES ({row}, {', '.join(values).replace('%', '%%')})")

    async def work(mirror: Mirror) -> None:
        result = await mirror.compare()
        assert result.equal, result
        assert result.rows_compared == rows
        for number, kind in enumerate(types):
            # NULL, '', a blob and a number are never taken for each other, nor for any value of the type.
            (value,) = (await mirror.replica(f"SELECT c{number} FROM t WHERE id = 1"))[0]
            kept = await mirror.replica(f"SELECT typeof(c{number}) FROM t WHERE id = 1")
            for other in (None, "", "5", b"", b"a", 5, 5.5, -0.0, 0, "0", "NaN", "!"):
                await mirror.replica(f"UPDATE t SET c{number} = ? WHERE id = 1", other)
                now = (await mirror.replica(f"SELECT c{number} FROM t WHERE id = 1"))[0][0]
                same = exactly(now) == exactly(value)
                assert (await mirror.compare()).equal is same, (kind, kept, value, now)
            await mirror.replica(f"UPDATE t SET c{number} = ? WHERE id = 1", value)
        assert (await mirror.compare()).equal

    mirrored(source_database, tmp_path, work)


@pytest.mark.parametrize("named", [True, False])
def test_a_source_may_hash_with_md5(
    postgres_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """As a PostgreSQL older than 11 does, and a dialect of another plugin that names no digest."""
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'ä'), (2, NULL)")
    made = PostgresqlComparing.__init__

    def with_md5(self: PostgresqlComparing, *arguments: Any, **more: Any) -> None:
        made(self, *arguments, **more)
        self._hashed = "md5({})"
        self.digest = "md5"
        if not named:
            del self.digest

    monkeypatch.setattr(PostgresqlComparing, "__init__", with_md5)

    async def work(mirror: Mirror) -> None:
        assert (await mirror.compare()).equal
        await mirror.replica("UPDATE t SET a = 'a' WHERE id = 1")
        assert (await mirror.compare()).keys == Differences(different=((1,),))

    mirrored(postgres_database, tmp_path, work)


def exactly(value: Any) -> tuple[str, Any]:
    return type(value).__name__, struct.pack(">d", value) if isinstance(value, float) else value


def test_texts_do_not_run_into_each_other(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, a varchar(9), b varchar(9), c varchar(9))")
    source_database.execute("INSERT INTO t VALUES (1, 'a', 'bc', NULL), (2, '', NULL, 'x'), (3, '1:', '2', '')")

    async def work(mirror: Mirror) -> None:
        for row in (
            (1, "ab", "c", None),
            (1, "a", None, "bc"),
            (2, None, "", "x"),
            (3, "1", ":2", ""),
            (3, "1:", "2", None),
        ):
            before = (await mirror.replica("SELECT * FROM t WHERE id = ?", row[0]))[0]
            await mirror.replica("REPLACE INTO t VALUES (?, ?, ?, ?)", *row)
            assert (await mirror.compare()).keys.different == ((row[0],),)
            await mirror.replica("REPLACE INTO t VALUES (?, ?, ?, ?)", *before)
        assert (await mirror.compare()).equal

    mirrored(source_database, tmp_path, work)


def random_floats(pattern: str, count: int) -> list[float]:
    """Any bits, whole numbers, and what lies at powers of ten, where the way of writing changes."""
    choose = random.Random(1)
    size = struct.calcsize(pattern)
    found = [struct.unpack(pattern, choose.randbytes(size))[0] for _ in range(count)]
    found += [
        float(f"{sign}{digits}e{power}")
        for sign in ("", "-")
        for digits in ("1", "9.9", "1.234567")
        for power in range(-30, 30)
    ]
    found += [float(choose.getrandbits(choose.randrange(1, 60))) for _ in range(count // 4)]
    return [value for value in found if math.isfinite(value)]


@pytest.mark.parametrize("width", [4, 8])
def test_floating_numbers_bit_for_bit(source_database: TestDatabase, tmp_path: Path, width: int) -> None:
    postgres = source_database.dialect == "postgresql"
    kind = {4: "float4" if postgres else "float", 8: "float8" if postgres else "double"}[width]
    values = random_floats("<f" if width == 4 else "<d", 4000)
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, x {kind})")
    rows = ", ".join(
        f"({number}, {value!r}{'' if 'e' in repr(value) else 'e0'})" for number, value in enumerate(values)
    )
    source_database.execute(f"INSERT INTO t VALUES {rows}")

    async def work(mirror: Mirror) -> None:
        assert (await mirror.compare()).equal
        ((value,),) = await mirror.replica("SELECT x FROM t WHERE id = 7")
        for near in (math.nextafter(value, math.inf), math.nextafter(value, -math.inf), -value):
            await mirror.replica("UPDATE t SET x = ? WHERE id = 7", near)
            assert (await mirror.compare()).keys == Differences(different=((7,),))

    mirrored(source_database, tmp_path, work)


@given(st.floats())
@example(-0.0)
@example(1e15)
@example(1626983080611305.8)
@example(5e-324)
def test_a_double_is_written_so_that_it_reads_back(value: float) -> None:
    for text in (double_text(value), in_json(value)):
        assert exactly(float(text)) == exactly(value) if math.isfinite(value) else text.startswith("!")
    assert float_text(value).startswith("!") or struct.unpack("<f", struct.pack("<f", value))[0] == float(
        float_text(value)
    )


def test_a_table_without_a_key(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int, v varchar(9))")
    source_database.execute("INSERT INTO t VALUES (1, 'a'), (1, 'a'), (1, 'a'), (2, NULL), (NULL, NULL)")

    async def work(mirror: Mirror) -> None:
        assert (await mirror.compare()).equal
        await mirror.replica("DELETE FROM t WHERE rowid IN (SELECT min(rowid) FROM t WHERE id = 1)")
        await mirror.replica("UPDATE t SET v = '' WHERE id = 2")
        await mirror.replica("INSERT INTO t VALUES (NULL, NULL)")
        for what in ("rows", "keys"):
            result = await mirror.compare(what)
            assert (result.missing, result.extra, result.different, len(result.keys)) == (2, 2, 0, 0)

    mirrored(source_database, tmp_path, work)


@pytest.mark.usefixtures("small_parts")
def test_a_large_table_without_a_key(source_database: TestDatabase, tmp_path: Path) -> None:
    rows = f"SELECT i % 7, 'x' FROM {numbers(source_database.dialect, 60)}"
    source_database.execute(f"CREATE TABLE t (id int, v varchar(9)); INSERT INTO t {rows}")

    async def work(mirror: Mirror) -> None:
        assert (await mirror.compare()).equal
        await mirror.replica("UPDATE t SET v = 'y' WHERE rowid = 5")
        result = await mirror.compare()
        assert (result.missing, result.extra, result.rows_compared) == (1, 1, 60)

    mirrored(source_database, tmp_path, work)


def test_rows_that_the_options_keep_out(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, at int, gone int)")
    source_database.execute("INSERT INTO t VALUES (1, 1, NULL), (2, NULL, NULL), (3, 3, 3), (4, 4, NULL)")

    async def work(mirror: Mirror) -> None:
        await mirror.replica("DELETE FROM t WHERE id IN (2, 3)")
        assert (await mirror.compare()).keys == Differences(missing=((2,), (3,)))
        mirror.options = Options(null_tracking="ignore", deletes={"sourceColumn": "gone"})
        assert (await mirror.compare()).equal
        assert not await mirror.recheck([(1,), (2,), (3,), (4,)])
        await mirror.replica("INSERT INTO t VALUES (3, 3, 3)")
        assert (await mirror.recheck([(3,)])).extra == ((3,),)

    mirrored(source_database, tmp_path, work, tracking="at")


def test_rows_that_are_marked_are_not_seen(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2)")

    async def work(mirror: Mirror) -> None:
        await mirror.replica("UPDATE t SET deleted = 'now' WHERE id = 2")
        assert (await mirror.compare()).keys == Differences(missing=((2,),))
        source_database.execute("DELETE FROM t WHERE id = 2")
        assert (await mirror.compare()).equal
        assert not await mirror.recheck([(2,)])

    mirrored(source_database, tmp_path, work, options=Options(deletes={"mark": "deleted"}))


def test_the_source_is_read_from_one_snapshot(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2)")

    async def work(mirror: Mirror) -> None:
        async with mirror.comparable.comparing(mirror.schema, mirror.schema.columns, mirror.options) as remote:
            source_database.execute("DELETE FROM t WHERE id = 1; UPDATE t SET v = 3; INSERT INTO t VALUES (5, 5)")
            (summary,) = await remote.summarise([Part()])
            rows = [row async for rows in remote.hashes(Part()) for row in rows]
        assert summary[0].rows == 2
        assert summary[0].checksum == sum(hashed for _, hashed in rows)
        assert sorted(key for key, _ in rows) == [(1,), (2,)]

    mirrored(source_database, tmp_path, work)


def test_a_table_with_many_columns(source_database: TestDatabase, tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(200)]
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {', '.join(f'{name} varchar(9)' for name in names)})")
    source_database.execute("INSERT INTO t (id, c0, c199) VALUES (1, 'a', 'b')")

    async def work(mirror: Mirror) -> None:
        assert (await mirror.compare()).equal
        await mirror.replica("UPDATE t SET c198 = ''")
        assert (await mirror.compare()).different == 1

    mirrored(source_database, tmp_path, work)


def test_without_a_replica_there_is_nothing_to_compare(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")

    async def work(mirror: Mirror) -> None:
        await mirror.replica("DROP TABLE t")
        with pytest.raises(SchemaMismatch, match="sync first"):
            await mirror.compare()

    mirrored(source_database, tmp_path, work)


def test_a_dropped_source_table_raises_source_rejected(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")

    async def work(mirror: Mirror) -> None:
        source_database.execute("DROP TABLE t")
        with pytest.raises(SourceRejected, match="comparing"):
            await mirror.compare()

    mirrored(source_database, tmp_path, work)


def test_a_collation_of_the_replica_does_not_matter(
    source_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own table may order text in another way than by its bytes."""
    binary = 'COLLATE "C"' if source_database.dialect == "postgresql" else f"COLLATE {source_database.nopad}"
    source_database.execute(f"CREATE TABLE t (id varchar(9) {binary} PRIMARY KEY, v int)")
    source_database.execute("INSERT INTO t VALUES ('B', 1), ('a', 2), ('C', 3), ('d', 4)")

    async def work(mirror: Mirror) -> None:
        await mirror.replica("DROP TABLE t")
        await mirror.replica("CREATE TABLE t (id TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, v INTEGER)")
        await mirror.replica("INSERT INTO t VALUES ('B', 1), ('a', 2), ('C', 3), ('d', 4)")
        monkeypatch.setattr(replica_checksums, "PART_ROWS", 1)
        assert (await mirror.compare()).equal
        assert not await mirror.recheck([("B",), ("a",)])

    mirrored(source_database, tmp_path, work)


def test_large_values_have_a_hash(either_mysql: TestDatabase, tmp_path: Path) -> None:
    """Their texts one after the other would be longer than what the server lets a text be."""
    either_mysql.execute("CREATE TABLE t (id int PRIMARY KEY, a longtext, b longblob)")
    ((packet,),) = either_mysql.fetch("SELECT @@max_allowed_packet")
    either_mysql.execute(f"INSERT INTO t VALUES (1, REPEAT('a', {packet} - 9999), REPEAT('b', {packet} - 9999))")

    async def work(mirror: Mirror) -> None:
        assert (await mirror.compare()).equal
        await mirror.replica("UPDATE t SET a = a || 'x'")
        assert (await mirror.compare()).different == 1

    mirrored(either_mysql, tmp_path, work)


@pytest.mark.parametrize(
    "columns",
    [
        ["varchar(9) COLLATE {nopad}", "varchar(9) COLLATE utf8mb4_bin"],
        ["decimal(5, 0)", "varchar(9) COLLATE utf8mb4_unicode_ci", "varchar(9) CHARACTER SET hebrew"],
        ["varchar(9) CHARACTER SET latin1", "varchar(9) COLLATE utf8mb4_unicode_ci", "varchar(9) CHARACTER SET greek"],
    ],
)
def test_texts_of_several_collations(either_mysql: TestDatabase, tmp_path: Path, columns: list[str]) -> None:
    """One of them is not Unicode: put together as text, the server would put question marks in its place."""
    named = ", ".join(f"c{number} {column}" for number, column in enumerate(columns))
    named = named.replace("{nopad}", either_mysql.nopad)
    values = ["'1'"] * (len(columns) - 1)
    values.append("_hebrew X'D7'" if "hebrew" in named else "_greek X'D2'" if "greek" in named else "'x'")
    either_mysql.execute(f"CREATE TABLE t (id int PRIMARY KEY, {named})")
    either_mysql.execute(f"INSERT INTO t VALUES (1, {', '.join(values)})")

    async def work(mirror: Mirror) -> None:
        assert (await mirror.compare()).equal
        await mirror.replica("UPDATE t SET c1 = '2'")
        assert (await mirror.compare()).different == 1

    mirrored(either_mysql, tmp_path, work)
