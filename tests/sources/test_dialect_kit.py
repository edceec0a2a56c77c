"""What follows from a connection that describes a table, reads rows and finds the highest tracking value."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.dialect_kit import RowPlan, SqlText, position_text, position_value
from starbase_data_replication.dialect_kit.source import KitSource
from starbase_data_replication.dialect_kit.tracking_times import ahead_of, before, settled
from starbase_data_replication.errors import CastFailed, SourceRejected, SourceUnavailable
from starbase_data_replication.model import Cast, Column, Options, Row, TableName, TableSchema
from starbase_data_replication.sources.protocols import ReadPlan
from tests.support.sqlite_dialect import SqliteConnection, SqliteDialect, settings_of

# 2026-01-01 12:00:00 UTC.
NOON = 1_767_268_800.0


@pytest.fixture
def file(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(tmp_path / "source.db"))
    connection.execute("CREATE TABLE t (k TEXT, n INTEGER, f REAL, b BLOB, at DATETIME, PRIMARY KEY (k, n))")
    yield connection
    connection.close()


values = st.one_of(
    st.integers(),
    st.floats(allow_nan=False),
    st.binary(),
    st.text(),
    st.sampled_from(["5", '"5"', "null", "NaN", '{"hex": "00"}']),
)


@given(values)
def test_a_position_is_read_back_as_it_was(value: Any) -> None:
    text = position_text(value)
    assert text.isprintable() or isinstance(value, str)
    assert repr(position_value(text)) == repr(value)


def test_an_ordinary_text_is_its_own_position() -> None:
    assert position_text("2026-01-01 12:00") == "2026-01-01 12:00"
    assert position_text("5") != position_text(5)


TIMES = [
    ("2026-01-01 11:59:30.250", "2026-01-01 11:59:30.250"),
    ("2026-01-01 12:00:00.000", "2026-01-01 11:59:49.999"),
    ("2027-01-01T00:00:00Z", "2026-01-01T11:59:49Z"),
    ("2026-01-01T13:59:59.9+02:00", "2026-01-01T13:59:49.9+02:00"),
    ("2026-01-01", "2025-12-31"),
    ("2025-06-03", "2025-06-03"),
    (int(NOON), int(NOON) - 11),
    (int(NOON * 1000), int(NOON * 1000) - 10_001),
    (int(NOON) - 60, int(NOON) - 60),
    ("not a time", "not a time"),
]


@pytest.mark.parametrize(("value", "expected"), TIMES, ids=[str(value) for value, _ in TIMES])
def test_a_time_is_settled_once_no_other_row_can_get_it(value: Any, expected: Any) -> None:
    assert settled(value, clock=NOON, settle_seconds=10) == expected


def test_a_lookback_lies_before_a_time_in_its_own_form() -> None:
    assert before("2026-01-01T00:00:30Z", 60) == "2025-12-31T23:59:30Z"
    assert before(int(NOON * 1000), 60) == int(NOON * 1000) - 60_000
    assert ahead_of("2026-01-02", clock=NOON, seconds=60) == "2026-01-01"
    assert ahead_of("2026-01-01 12:00:30", clock=NOON, seconds=60) is None


@asynccontextmanager
async def opened(
    file: apsw.Connection, dialect: SqliteDialect | None = None, *, connections: int = 2
) -> AsyncIterator[KitSource]:
    source = (dialect or SqliteDialect()).open(settings_of(Path(file.filename)), max_connections=connections)
    assert isinstance(source, KitSource)
    try:
        yield source
    finally:
        await source.close()


T = TableName(schema=None, name="t")


@pytest.mark.parametrize(
    "where", ["1 = 1) OR (1 = 1", "1; DROP TABLE t", "k = '\\'", "[(] = 1", "`k` = 1", "k = 1 -- b", "k = ?", "q'(x)'"]
)
@pytest.mark.anyio
async def test_a_filter_stays_in_its_brackets(file: apsw.Connection, where: str) -> None:
    async with opened(file) as source:
        schema = await source.describe(T, "at")
        with pytest.raises(SourceRejected, match=r"^where: "):
            await source.check_filter_and_key(replace(schema, where=where), key=False)


@pytest.mark.anyio
async def test_rows_that_sqlite_cannot_store_are_named(file: apsw.Connection) -> None:
    file.execute("INSERT INTO t VALUES ('a', 1, 0.5, x'00', NULL)")
    async with opened(file) as source:
        schema = await source.describe(T, "at")
        wrong = replace(schema.columns[2], cast=Cast(convert=Decimal))
        refused = r"t\.f: a value of type REAL \(Python: Decimal\) could not be cast" + STORABLE
        with pytest.raises(CastFailed, match=refused):
            await rows_of(source, replace(schema, columns=(*schema.columns[:2], wrong, *schema.columns[3:])))


STORABLE = (
    r"; values must be int, float, str, bytes, bool or None; give the column a Cast with `select`.*, or `convert`"
)


@pytest.mark.anyio
async def test_a_tracking_value_that_sqlite_cannot_store_is_named(file: apsw.Connection) -> None:
    class Dated(SqliteConnection):
        def high_watermark(self, schema: TableSchema) -> Any:
            return datetime(2026, 1, 1, tzinfo=UTC)

    class Dialect(SqliteDialect):
        connection = Dated

    async with opened(file, Dialect()) as source:
        schema = await source.describe(T, "at")
        kind = r"^t\.at: a value of type DATETIME \(Python: datetime\) could not be cast; "
        with pytest.raises(CastFailed, match=f"{kind}`high_watermark` returned it{STORABLE}"):
            await source.read_high_watermark(schema, Options(), noted_at=NOON)


@pytest.mark.anyio
async def test_columns_keep_what_the_dialect_notes_of_them(file: apsw.Connection) -> None:
    column = Column(name="k", source_type="TEXT", nullable=False, cast=Cast(), private={"index": 3})
    assert replace(column, renamed="key").private == {"index": 3}
    assert column == replace(column, private=None)


@pytest.mark.anyio
async def test_a_cancelled_read_interrupts_the_driver_and_frees_its_connection(file: apsw.Connection) -> None:
    for number in range(3):
        file.execute("INSERT INTO t VALUES (?, 1, 0.5, x'00', NULL)", (str(number),))
    reached = threading.Event()

    class Watched(SqliteConnection):
        def __init__(self, settings: Mapping[str, Any]) -> None:
            super().__init__(settings)
            self.file.create_scalar_function("reached", self.reach, 0)

        def reach(self, *_: object) -> int:
            reached.set()
            return 1

    class WatchedDialect(SqliteDialect):
        connection = Watched

    endless = "(WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c) = 0"
    async with opened(file, WatchedDialect(), connections=1) as source:
        schema = await source.describe(T, "at")
        reading = asyncio.create_task(rows_of(source, replace(schema, where=f"reached() = 1 AND {endless}")))
        assert await asyncio.to_thread(reached.wait, 30)
        reading.cancel()
        async with asyncio.timeout(4):
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert len(await rows_of(source, schema)) == 3


@pytest.mark.anyio
async def test_a_source_opens_no_more_connections_than_it_may(file: apsw.Connection) -> None:
    async with opened(file, connections=2) as source:
        schema = await source.describe(T, "at")
        most = 0
        async with source.snapshot(), source.snapshot():
            waiting = asyncio.create_task(rows_of(source, schema))
            for _ in range(20):
                most = max(most, len(source._pool._lent))
                await asyncio.sleep(0)
            assert most == 2
            assert not waiting.done()
        await waiting


@pytest.mark.anyio
async def test_what_a_driver_raises_is_named_without_its_text(file: apsw.Connection) -> None:
    broken = SqliteDialect().open({"file": "/nowhere/x", "password": "sesame"}, max_connections=1)
    with pytest.raises(SourceUnavailable, match=r"sourceConfig\.file"):
        await broken.describe(T, "at")
    await broken.close()


def test_settings_are_checked_by_their_schema() -> None:
    dialect = SqliteDialect()
    assert dialect.check({"dialect": "sqlite", "file": "${FILE}", "password": "x"}, "t") == {}
    assert dialect.check({"file": 3, "pasword": "x"}, "a.b.c") == {
        "sourceConfig.file": "must be a text",
        "sourceConfig.password": "is required: a password, checked for tests",
        "sourceConfig.pasword": "is not a key of this dialect; did you mean password?",
        "sourceTable": 'has more than two names; write schema.table, and a name with a dot as "my.table"',
    }
    shown = dialect.secret_parts({"file": "f", "password": "sesame"})
    assert shown == {"file": "f", "password": "***"}
    assert dialect.identity({"file": "f", "password": "x"}, "t") == ("f", "", "t")


def test_statements_for_other_drivers() -> None:
    sql = SqlText(mark="%s", quote=lambda name: f"`{name}`")
    schema = TableSchema(
        table=TableName(schema="s", name="t"), key=("a", "b"), tracking_column="c", where="d LIKE 'x%'",
        columns=tuple(Column(name=name, source_type="", nullable=True, cast=Cast()) for name in "abcd"),
    )  # fmt: skip
    text, values = sql.select(RowPlan(schema=schema, floor=3, after_key=(1, 2), nulls=False, in_key_order=True))
    assert text == (
        "SELECT `a`, `b`, `c`, `d` FROM `s`.`t` WHERE (d LIKE 'x%%'\n) AND `c` > %s "
        "AND (`a` > %s OR `a` = %s AND `b` > %s) ORDER BY `a`, `b`"
    )
    assert values == [3, 1, 1, 2]


async def rows_of(source: KitSource, schema: TableSchema) -> list[Row]:
    async with source.read(ReadPlan(schema=schema)) as batches:
        return [row async for batch in batches for row in batch.rows]
