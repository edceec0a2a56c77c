"""What a source answers is bounded in every dialect: counts, columns, texts of its catalogue, rows.

The dialect here is another plugin's, so that each answer can be any object; sources' own protocols are in test_source.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import pytest

from starbase_data_replication.errors import OddAnswer
from starbase_data_replication.model import Batch, Cast, Column, OpenTransactions, Options, TableName, TableSchema
from starbase_data_replication.sources import ReadPlan, checked_schema, checked_transactions, read_rows
from starbase_data_replication.sources.expressions import Syntax
from starbase_data_replication.sources.mysql.compare import MysqlComparing
from starbase_data_replication.sources.origins import random_function
from starbase_data_replication.sources.protocols import Part
from starbase_data_replication.sync.selection import selected
from starbase_data_replication.sync.tracking_values import rises
from tests.support.hosts import HostProcess
from tests.support.odd_dialect import answering, answering_right, configure, error, odd_host


@pytest.fixture(scope="module", name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with odd_host(tmp_path_factory.mktemp("odd")) as host:
        yield host


@pytest.fixture(autouse=True)
def _right(host: HostProcess) -> Iterator[None]:
    yield
    answering_right(host)


COUNTS = ["10**30", "2**63", "-5", "'7'", "None", "1.5"]


@pytest.mark.parametrize("count", COUNTS)
def test_a_count_that_no_table_has(host: HostProcess, count: str) -> None:
    """One of 10^30 had no room in the record of its run, which was tried again for ever."""
    name = f"count{COUNTS.index(count)}"
    configure(host, name)
    host.sync(name)
    answering(host, f"summaries = [{{0: Summary({count}, 5)}}]")
    assert f"broke a rule, comparing {name}: received an impossible count of rows" in error(host, "verify", name)


@pytest.mark.parametrize(("number", "parts"), [(1, "[{7: Summary(1, 5)}]"), (2, "[]"), (3, "[{}] * 9")])
def test_sums_that_were_not_asked_for(host: HostProcess, number: int, parts: str) -> None:
    name = f"sums{number}"
    configure(host, name)
    host.sync(name)
    answering(host, f"summaries = {parts}")
    assert f"comparing {name}: received " in error(host, "verify", name)


@pytest.mark.parametrize("rows", [[["0", "0", "9" * 5000, "5"]], [["7", "0", "1", "5"]], [["0", "0", "x", "5"]]])
@pytest.mark.anyio
async def test_sums_that_mysql_does_not_give(rows: list[list[str]]) -> None:
    class Fake:
        syntax = Syntax.MYSQL

        async def fetch(self, sql: str) -> list[list[str]]:
            return rows

    column = Column(name="id", source_type="int", nullable=False, cast=Cast(declared="INTEGER"))
    schema = TableSchema(table=TableName(schema=None, name="t"), columns=(column,), key=("id",), tracking_column="id")
    comparing = MysqlComparing(cast(Any, Fake()), schema, schema.columns, Options())
    with pytest.raises(OddAnswer, match="comparing t: received an answer that MySQL does not give"):
        await comparing.summarise([Part()])


BYTES = ["-(10**30)", "10**30", "'7'", "float('nan')", "None"]


@pytest.mark.parametrize("size", BYTES)
def test_a_batch_of_a_size_that_none_has(host: HostProcess, size: str) -> None:
    name = f"bytes{BYTES.index(size)}"
    configure(host, name)
    answering(host, f"batches = [Batch(rows=[('1', 'a')], bytes={size}, last=True)]")
    assert f"reading {name}: received a batch whose size is not a number of bytes" in error(host, "sync", name)


def test_more_columns_than_a_replica_has(host: HostProcess) -> None:
    """SQLite's own error came of it, as an unexpected one; 2,000 are copied, and so are those that are chosen."""
    configure(host, "wide")
    wide = "columns = (column('id'), *(column(f'c{number}') for number in range(MANY)))"
    answering(host, wide.replace("MANY", "2000"))
    answer = host.request("POST", "/data-replication/sync/wide")
    assert answer.json()["error"].endswith(" failed: columns: choose at most 2,000 of the 2,001 of wide")
    rows = "\nbatches = [Batch(rows=[['1'] * {}], bytes=4, last=True)]"
    answering(host, wide.replace("MANY", "1999") + rows.format(2000))
    assert host.sync("wide")["status"] == "success"
    configure(host, "chosen", columns=["id", "c7"])
    answering(host, wide.replace("MANY", "2000") + rows.format(2))
    assert host.sync("chosen")["status"] == "success"
    configure(host, "marked", deletes={"mark": "gone_at"})
    answering(host, wide.replace("MANY", "1999"))
    answer = host.request("POST", "/data-replication/sync/marked")
    assert "columns: choose at most 1,999 of the 2,000 of marked" in answer.json()["error"]


class Counted(str):
    """A name that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)


def comparisons(count: int) -> int:
    columns = tuple(
        Column(name=Counted(f"c{number}"), source_type="text", nullable=False, cast=Cast()) for number in range(count)
    )
    schema = TableSchema(table=TableName(schema=None, name="t"), columns=columns, key=("c0",), tracking_column="c0")
    options = Options(exclude_columns=tuple(str(column.name) for column in columns[count // 2 :]))
    Counted.compared = 0
    assert len(selected(schema, options).columns) == count // 2
    return Counted.compared


def test_choosing_columns_takes_time_in_proportion_to_them() -> None:
    """It compared each name with each other: 15,000 columns held the host for 23 seconds at each sync."""
    assert comparisons(2000) < 3 * comparisons(1000)


def test_long_names_of_columns(host: HostProcess) -> None:
    """One of 25 MB kept the host from answering for 25 seconds."""
    configure(host, "named")
    answering(host, "columns = (column('id'), column('c' * 255), column('v' * 256))")
    why = "the name of a column of named has 256 characters, more than 255; rename it at the source"
    assert why in error(host, "sync", "named")
    answering(host, "columns = (column('id'), column('v'), column('v'))")
    assert "describing named: received two columns with the same name" in error(host, "sync", "named")


def test_long_texts_of_a_catalogue(host: HostProcess) -> None:
    """They are cut where they come in, so that what is stored of them stays short."""
    configure(host, "texts")
    long = "columns = (column('id'), column('v', source_type='x' * 10**6, collation='y' * 10**6))"
    more = "dict(definition='d' * 10**6, files={'f' * 10**6: 'g' * 10**6}, warnings=('w' * 10**6,))"
    replaced = f"\nschema = lambda s: __import__('dataclasses').replace(s, **{more})"
    answering(host, long + replaced)
    assert host.sync("texts")["status"] == "success"
    assert len(str(host.status("texts"))) < 50_000


def test_long_texts_that_are_cut_stay_distinct() -> None:
    column = Column(name="id", source_type="int", nullable=False, cast=Cast(declared="INTEGER"))
    schema = TableSchema(table=TableName(schema=None, name="t"), columns=(column,), key=("id",), tracking_column="id")
    found = [checked_schema(replace(schema, definition="d" * 10**6 + end)).definition for end in "aab"]
    assert found[0] == found[1] != found[2]
    assert max(map(len, found)) <= 4096


def test_a_long_watermark(host: HostProcess) -> None:
    configure(host, "high")
    of_nothing = "noted_at=1.0, open_transactions=OpenTransactions(known=True)"
    high = "watermark = HighWatermark(candidate=Candidate(value='v' * {}, " + of_nothing + "))"
    answering(host, high.format(8193))
    why = "trackingColumn: high.id holds a value of 8,193 characters, more than the 8,192 that can be stored"
    assert why in error(host, "sync", "high")
    answering(host, high.format(8192))
    assert host.sync("high")["status"] == "success"


@pytest.mark.parametrize(("count", "long"), [(10_001, 1), (1, 256)])
def test_more_transactions_than_are_kept(count: int, long: int) -> None:
    found = OpenTransactions(known=True, tokens=frozenset(f"{each:0{long}}" for each in range(count)))
    assert checked_transactions(found).reason.startswith("the source ")
    assert not checked_transactions(found).known
    few = OpenTransactions(known=True, tokens=frozenset(list(found.tokens)[:10_000]))
    assert checked_transactions(few).known == (long == 1)


def test_a_highest_value_that_is_not_bytes_is_refused() -> None:
    with pytest.raises(OddAnswer, match="reading the highest tracking value: received an answer"):
        rises("bytes", "\\xzz", now=0.0)


def test_a_long_default_is_not_searched_to_its_end() -> None:
    assert random_function(" " * 5000 + "random()", "number") is None
    assert random_function("random()" + " " * 5000, "number") == "random()"


def test_a_cast_declares_one_of_sqlites_types(host: HostProcess) -> None:
    """What it declared went into the replica's definition as it was."""
    configure(host, "declared")
    answering(host, "columns = (column('id'), column('v', cast=Cast(declared='TEXT DEFAULT (randomblob(9)) UNIQUE')))")
    assert "describing declared: a cast declares a type that is not one of" in error(host, "sync", "declared")


@pytest.mark.anyio
@pytest.mark.parametrize("asked", [{"keys": (("1",), ("2",))}, {"newest_through": "7"}])
async def test_more_rows_than_were_asked_for_end_the_read(asked: dict[str, Any]) -> None:
    """All of them were held."""
    taken = 0

    async def batches() -> AsyncIterator[Batch]:
        nonlocal taken
        while True:
            taken += 1
            yield Batch(rows=[("1",)] * 50, bytes=4)

    class Fake:
        def read(self, plan: ReadPlan) -> Any:
            return nullcontext(batches())

    column = Column(name="id", source_type="int", nullable=False, cast=Cast(declared="INTEGER"))
    schema = TableSchema(table=TableName(schema=None, name="t"), columns=(column,), key=("id",), tracking_column="id")
    with pytest.raises(OddAnswer, match="reading t: received more rows than were asked for"):
        await read_rows(Fake(), ReadPlan(schema=schema, **asked))
    assert taken <= 3


def test_more_hashes_than_were_counted_end_a_comparison(host: HostProcess) -> None:
    configure(host, "hashes")
    host.sync("hashes")
    endless = "(((str(number),), 5) for number in __import__('itertools').count())"
    many = f"hashes = ([next(numbers) for _ in range(1000)] for numbers in [{endless}] for _ in iter(int, 1))"
    answering(host, f"summaries = [{{0: Summary(3, 5)}}]\n{many}")
    assert "comparing hashes: received more rows than were counted" in error(host, "verify", "hashes")


@pytest.mark.parametrize("base", ["SourceRejected", "ValueError"])
def test_an_error_whose_text_hangs(host: HostProcess, base: str) -> None:
    """Its text was made on the event loop, which then never ran again."""
    name = f"text{base}"
    configure(host, name)
    hang = "    def __str__(self):\n        import threading\n        threading.Event().wait()\n"
    answering(host, f"class Evil({base}):\n{hang}if name == 'columns':\n    raise Evil('x')")
    assert "unexpected Evil with the dialect odd of plugin odd" in error(host, "sync", name)
    assert host.result("GET", "/health") == {"status": "ready"}
