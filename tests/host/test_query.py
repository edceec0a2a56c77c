"""How QueryRunner runs SQL: parameters, answers, limits, transactions, concurrency, hooks; without HTTP."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from starbase_host.clock import Clock
from starbase_host.errors import (
    Forbidden,
    InvalidRequest,
    QueryRejected,
    QueryTimeout,
    StarbaseError,
    TooLarge,
    Unavailable,
)
from starbase_host.query import Query, Result
from starbase_host.sandbox_rules import Role
from tests.support.query_bench import Bench, Hooks, a_bench, contents


@pytest.mark.parametrize(
    ("sql", "params", "row"),
    [
        ("SELECT ?, ?, ?", [1, "zwei", None], (1, "zwei", None)),
        ("SELECT ?2, ?1", [1, 2], (2, 1)),
        ("SELECT :a, @b, $c", {"a": 1, "b": 2, "c": 3}, (1, 2, 3)),
        ("SELECT :a, @b, $c", {":a": 1, "@b": 2, "$c": 3}, (1, 2, 3)),
        ("SELECT :a + :a", {"a": 2}, (4,)),
        ("SELECT typeof(?), ?", [True, False], ("integer", 0)),
        ("SELECT typeof(?), ?", [1.5, 2**63 - 1], ("real", 2**63 - 1)),
        ("SELECT typeof(?), ?", [{"$base64": "/wA="}, {"$base64": ""}], ("blob", b"")),
        ("SELECT length(?), ?", ["a\0b", "a\0b"], (1, "a\0b")),
        ("SELECT 1 ; -- that was all", [], (1,)),
        ("/* first */ SELECT 1; ; /* last", None, (1,)),
        ("SELECT ?; -- ?", (1,), (1,)),
    ],
)
def test_parameters(shared: Bench, sql: str, params: Any, row: tuple[Any, ...]) -> None:
    assert shared.rows(sql, params) == [row]


@pytest.mark.parametrize(
    ("sql", "params", "message"),
    [
        ("SELECT ?, ?", [1], "params: sql takes 2 parameters, but params has 1"),
        ("SELECT ?", [1, 2], "params: sql takes 1 parameters, but params has 2"),
        ("SELECT ?", None, "params: sql takes 1 parameters, but params has 0"),
        ("SELECT 1", [1], "params: sql takes 0 parameters, but params has 1"),
        ("SELECT :a", {}, "params.a is missing"),
        ("SELECT :a", {"a": 1, "b": 2}, "params.b: sql has no parameter of this name"),
        ("SELECT ?", {"a": 1}, "params: sql has parameters without names"),
        ("SELECT :a", {"a": 1, ":a": 2}, "params names a parameter twice"),
        ("SELECT ?", [2**63], "params[0] is not a 64-bit integer"),
        ("SELECT ?", [-(2**63) - 1], "params[0] is not a 64-bit integer"),
        ("SELECT :a", {"a": "\ud800"}, "params.a contains half of a surrogate pair"),
        ("SELECT ?", [math.nan], "params[0] is NaN"),
        ("SELECT ?, ?", [[1], {"a": 1}], "params[1] must be"),
        ("SELECT ?", [{"$base64": "?"}], "params[0]: $base64"),
        ("SELECT ?", "text", "params must be a list"),
        ("SELECT ?", 5, "params must be a list"),
        ("", None, "sql does not contain a statement"),
        (" ; -- nothing", None, "sql does not contain a statement"),
        ("SELECT 1\0", None, "sql contains NUL"),
        ("SELECT '\ud800'", None, "sql contains half of a surrogate pair"),
        ("SELECT 1; SELECT 2", None, "more than one statement"),
        ("SELEC 1", None, 'near "SELEC": syntax error'),
        ("SELECT missing FROM orders", None, "no such column: missing"),
        ("SELECT * FROM missing", None, "no such table: missing"),
        ("SELECT json('{')", None, "malformed JSON"),
    ],
)
def test_what_is_wrong_is_named(shared: Bench, sql: str, params: Any, message: str) -> None:
    roles: tuple[Role, ...] = ("admin", "client")
    for role in roles:
        error = shared.refusal(sql, params, role)
        assert isinstance(error, InvalidRequest)
        assert message in str(error)


def test_a_write_answers_how_many_rows_it_changed(bench: Bench) -> None:
    result = bench.run("INSERT INTO orders VALUES (?, ?, ?), (5, 'five', 5)", [4, "four", 4.5], "admin")
    assert (result.columns, result.rows, result.rows_read, result.rows_written) == ((), [], 0, 2)
    result = bench.run("DELETE FROM orders WHERE id > 3 RETURNING id AS gone", role="admin")
    assert (result.columns, result.rows, result.rows_read, result.rows_written) == (("gone",), [(4,), (5,)], 2, 2)
    error = bench.refusal("INSERT INTO orders VALUES (1, 'x', 1)", role="admin")
    assert isinstance(error, InvalidRequest)
    assert "UNIQUE constraint failed: orders.id" in str(error)


def test_a_refused_write_leaves_nothing(bench: Bench) -> None:
    before = contents(bench)
    for sql in (
        "INSERT INTO orders VALUES (8, 'x', 1), (1, 'x', 1)",
        "INSERT OR FAIL INTO orders VALUES (8, 'x', 1), (1, 'x', 1)",
        "INSERT OR ROLLBACK INTO orders VALUES (8, 'x', 1), (1, 'x', 1)",
        "DELETE FROM orders; DELETE FROM orders",
        "INSERT INTO orders WITH RECURSIVE c(x) AS (SELECT 100 UNION ALL SELECT x + 1 FROM c) SELECT x, 'x', 1 FROM c",
        "INSERT INTO orders SELECT NULL, 'x', 1 FROM json_each(?) RETURNING id",
        "INSERT INTO orders VALUES (NULL, 'x', 1) RETURNING CAST(x'ff' AS TEXT)",
    ):
        bench.refusal(sql, [json.dumps([1] * 2000)] if "?" in sql else None, "admin")
    assert contents(bench) == before


def test_columns_are_those_of_the_schema_now(bench: Bench) -> None:
    for _ in range(3):
        assert bench.run("SELECT * FROM orders WHERE id = 1").columns == ("id", "name", "total")
        assert bench.run("SELECT * FROM orders WHERE id = 0").columns == ("id", "name", "total")
    bench.write("ALTER TABLE orders ADD COLUMN extra DEFAULT 7")
    assert bench.json("SELECT * FROM orders WHERE id = 1")[0]["extra"] == 7
    bench.write("ALTER TABLE orders RENAME COLUMN extra TO more")
    assert bench.run("SELECT * FROM orders WHERE id = 0").columns == ("id", "name", "total", "more")


def test_the_forms_on_the_wire(shared: Bench) -> None:
    sql = "SELECT 9e999 AS a, -9e999 AS b, x'00ff' AS c, 9223372036854775807 AS d, 1.0 AS a, NULL AS e"
    assert shared.json(sql) == [
        {"a": 1.0, "b": "-Infinity", "c": {"$base64": "AP8="}, "d": 9223372036854775807, "e": None}
    ]
    assert shared.json(sql, raw=True) == {
        "columns": ["a", "b", "c", "d", "a", "e"],
        "rows": [["Infinity", "-Infinity", {"$base64": "AP8="}, 9223372036854775807, 1.0, None]],
        "meta": {"rows_read": 1, "rows_written": 0},
    }
    assert type(shared.json(sql, raw=True)["rows"][0][3]) is int


@pytest.mark.parametrize("tail", ["", ";", " ; -- the end", " -- the end", "\n/* the end */"])
def test_text_that_is_not_utf8_comes_as_bytes(bench: Bench, tail: str) -> None:
    sql = (
        "SELECT id, CASE id WHEN 2 THEN CAST(x'41ff' AS TEXT) ELSE name END AS n, x'41' AS n FROM orders"
        " WHERE id < :top ORDER BY id DESC"
    )
    for _ in range(2):
        result = bench.run(sql + tail, {"top": 3})
        assert result.columns == ("id", "n", "n")
        assert result.rows == [(2, b"A\xff", b"A"), (1, "one", b"A")]
    assert bench.json("SELECT CAST(x'ff' AS TEXT) AS a") == [{"a": {"$base64": "/w=="}}]
    assert "CAST(column AS BLOB)" in str(bench.refusal("SELECT CAST(x'ff' AS TEXT) /* open"))


def test_rows_and_bytes(bench: Bench) -> None:
    many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {}) SELECT x FROM c"
    assert len(bench.rows(many.format(1000))) == 1000
    error = bench.refusal(many.format(1001))
    assert isinstance(error, TooLarge)
    assert "more than 1,000 rows" in str(error)
    wide = "SELECT hex(zeroblob(1000000)) FROM json_each(?)"
    assert len(bench.rows(wide, [json.dumps([0] * 30)])) == 30
    assert "too large" in str(bench.refusal(wide, [json.dumps([0] * 40)]))
    with pytest.raises(TooLarge, match=r"transaction\[1\]"):
        bench.transaction([(wide, [json.dumps([0] * 20)])] * 2, "client")


def test_a_long_stored_value_is_read_and_not_searched(tmp_path: Path) -> None:
    with a_bench(tmp_path, max_seconds=30) as bench:
        bench.write("INSERT INTO orders VALUES (7, printf('%.50000000c', 'x'), 1)")
        bench.write("INSERT INTO orders VALUES (8, printf('%.6000000c', 'x'), 1)")
        by_id = "SELECT id, name, length(name) FROM orders WHERE id = ?"
        for _ in range(2):
            assert bench.rows(by_id, [7], "admin")[0][2] == 50_000_000
            assert bench.rows(by_id, [8])[0][2] == 6_000_000
        part = "a value is longer than 8,388,608 bytes, its share of what a client's statement may hold at once"
        assert str(bench.refusal(by_id, [7])).startswith(part)
        searched = bench.refusal("SELECT instr(name, 'y') FROM orders")
        assert isinstance(searched, TooLarge)
        limit = "a value is longer than 65,536 bytes, a client's limit in a statement that calls instr()"
        assert str(searched) == f"{limit}; avoid it, or ask as admin"
        assert bench.rows("SELECT name LIKE 'o%' FROM orders WHERE id = 1") == [(1,)]
        for _ in range(3):
            assert bench.rows("SELECT length(?)", ["x" * 1_000_000]) == [(1_000_000,)]
            # The second time, the list of functions is not asked for.
            assert str(bench.refusal("SELECT upper(instr(?, ?))", ["x" * 1_000_000, "y"])) == str(searched)
            assert isinstance(
                bench.refusal("SELECT replace(:a, 'x', 'y')", {"a": {"$base64": "AAAA" * 30_000}}), TooLarge
            )
        over = bench.refusal("SELECT zeroblob(70000000)", role="admin")
        assert str(over) == "a value is longer than 67,108,864 bytes; shorten it"


def test_a_view_as_large_as_may_be_does_not_blind_the_readers(bench: Bench) -> None:
    for terms in (250, 251):
        union = " UNION ALL ".join(f"SELECT {number} AS a" for number in range(terms))
        try:
            bench.run(f"CREATE VIEW v{terms} AS {union}", role="admin")
        except InvalidRequest:
            assert terms == 251
    deep = "+".join(["1"] * 450)
    bench.run(f"CREATE VIEW deep AS SELECT {deep} AS a", role="admin")
    bench.run("CREATE TABLE broad(" + ", ".join(f"column_{number} TEXT" for number in range(1990)) + ")", role="admin")
    assert bench.rows("SELECT count(*) FROM v250") == [(250,)]
    assert bench.rows("SELECT a FROM deep") == [(450,)]
    assert bench.rows("SELECT column_1989 FROM broad") == []


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT sum(x) FROM c"


def test_time_is_limited_and_the_connection_lives_on(bench: Bench) -> None:
    roles: tuple[Role, ...] = ("admin", "client")
    for role in roles:
        started = time.monotonic()
        error = bench.refusal(ENDLESS, role=role)
        assert isinstance(error, QueryTimeout)
        assert "0.4 seconds" in str(error)
        assert 0.3 < time.monotonic() - started < 5
        assert bench.rows("SELECT 1", role=role) == [(1,)]
        with pytest.raises(QueryTimeout):
            bench.transaction(["SELECT 1", ENDLESS], role)
    with pytest.raises(QueryTimeout):
        bench.transaction(["INSERT INTO orders VALUES (8, 'x', 1)", ENDLESS])
    assert bench.rows("SELECT count(*) FROM orders") == [(3,)]
    bench.run("INSERT INTO orders VALUES (8, 'x', 1)", role="admin")


def test_time_is_the_clocks(tmp_path: Path) -> None:
    class Fast(Clock):
        def monotonic(self) -> float:
            return super().monotonic() * 1000

    with a_bench(tmp_path, clock=Fast(), max_seconds=100) as bench:
        started = time.monotonic()
        assert isinstance(bench.refusal(ENDLESS), QueryTimeout)
        assert time.monotonic() - started < 5


def test_a_transaction_is_atomic_and_names_the_statement(bench: Bench) -> None:
    results = bench.transaction(
        ["SELECT count(*) FROM orders", ("INSERT INTO orders VALUES (?, 'x', 1)", [4]), "SELECT count(*) FROM orders"]
    )
    assert [result.rows for result in results] == [[(3,)], [], [(4,)]]
    assert [result.rows_written for result in results] == [0, 1, 0]
    before = contents(bench)
    for index, bad in enumerate(["INSERT INTO orders VALUES (1, 'x', 1)", "SELEC", "DELETE FROM tmp_vault", "COMMIT"]):
        good = [f"INSERT INTO orders VALUES ({10 + number}, 'x', 1)" for number in range(index)]
        with pytest.raises(StarbaseError, match=rf"transaction\[{index}\]: "):
            bench.transaction([*good, bad, "SELECT 1"])
        assert contents(bench) == before
    with pytest.raises(InvalidRequest) as caught:
        bench.transaction(["SELECT 1", ("SELECT ?", [2**64])])
    assert list(caught.value.fields) == ["transaction[1].params[0]"]
    with pytest.raises(InvalidRequest, match="has no statements"):
        bench.transaction([])


def test_a_transaction_may_make_what_it_uses(bench: Bench) -> None:
    made = ["CREATE TABLE made(a)", "INSERT INTO made VALUES (1)", "SELECT a FROM made", "DROP TABLE made"]
    assert bench.transaction(made)[2].rows == [(1,)]


def test_a_clients_transaction_only_reads_and_in_one_snapshot(tmp_path: Path) -> None:
    slow = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 5000000) SELECT sum(x) FROM c"
    count = "SELECT count(*) FROM orders"
    with a_bench(tmp_path, max_seconds=60) as bench:
        with pytest.raises(Forbidden, match=r"transaction\[1\]"):
            bench.transaction(["SELECT 1", "DELETE FROM orders"], "client")

        async def race() -> list[Result]:
            queries = [Query(sql=sql, role="client") for sql in (count, slow, count)]
            reading = asyncio.create_task(bench.runner.run_transaction(queries))
            await asyncio.sleep(0.05)
            insert = "INSERT INTO orders VALUES (NULL, 'x', 1)"
            await bench.database.write(lambda connection: connection.execute(insert).fetchall())
            assert not reading.done()
            return await reading

        before, _, after = bench.wait(race())
        assert before.rows == after.rows == [(3,)]
        assert bench.rows(count) == [(4,)]


def test_long_reads_block_neither_a_write_nor_other_reads(tmp_path: Path) -> None:
    with a_bench(tmp_path, max_seconds=30) as bench:

        async def race() -> float:
            runs = [asyncio.create_task(bench.runner.run(Query(sql=ENDLESS, role="client"))) for _ in range(8)]
            runs += [asyncio.create_task(bench.runner.run(Query(sql=ENDLESS, role="admin"))) for _ in range(7)]
            await asyncio.sleep(0.2)
            started = time.monotonic()
            await bench.runner.run(Query(sql="SELECT * FROM orders", role="admin"))
            await bench.runner.run(Query(sql="INSERT INTO orders VALUES (9, 'x', 1)", role="admin"))
            await bench.database.write(lambda connection: connection.execute("DELETE FROM orders").fetchall())
            elapsed = time.monotonic() - started
            assert not any(run.done() for run in runs)
            bench.runner.interrupt()
            stopped = await asyncio.gather(*runs, return_exceptions=True)
            assert all(isinstance(error, Unavailable) for error in stopped)
            return elapsed

        assert bench.wait(race()) < 5
        assert isinstance(bench.refusal("SELECT 1"), Unavailable)


def test_a_caller_that_goes_away_takes_its_query_along(tmp_path: Path) -> None:
    with a_bench(tmp_path, max_seconds=60, readers=1) as bench:

        async def leave() -> None:
            run = asyncio.create_task(bench.runner.run(Query(sql=ENDLESS, role="client")))
            await asyncio.sleep(0.1)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            await asyncio.wait_for(bench.runner.run(Query(sql="SELECT 1", role="client")), 5)

        bench.wait(leave())


def test_many_at_once(tmp_path: Path) -> None:
    with a_bench(tmp_path, max_seconds=30) as bench:

        async def flood() -> None:
            roles: tuple[Role, ...] = ("admin", "client")
            reads = [
                bench.runner.run(Query(sql="SELECT id FROM orders WHERE id = ?", params=[1], role=roles[number % 2]))
                for number in range(200)
            ]
            writes = [
                bench.runner.run(Query(sql="INSERT INTO orders(name) VALUES (?)", params=[str(number)], role="admin"))
                for number in range(50)
            ]
            results = await asyncio.gather(*reads, *writes)
            assert [result.rows for result in results[:200]] == [[(1,)]] * 200

        bench.wait(flood())
        assert bench.rows("SELECT count(*) FROM orders") == [(53,)]


def test_closing_ends_what_runs_and_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with a_bench(tmp_path, max_seconds=60) as bench:

        async def close() -> None:
            run = asyncio.create_task(bench.runner.run(Query(sql=ENDLESS, role="client")))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(bench.runner.close)
            with pytest.raises(Unavailable):
                await run

        bench.wait(close())
    assert threading.active_count() <= before


def test_a_locked_database_is_unavailable(bench: Bench) -> None:
    bench.wait(bench.database.write(lambda connection: connection.set_busy_timeout(10)))
    other = apsw.Connection(str(bench.database.path))
    other.execute("BEGIN IMMEDIATE")
    try:
        assert isinstance(bench.refusal("DELETE FROM orders", role="admin"), Unavailable)
        assert bench.rows("SELECT count(*) FROM orders") == [(3,)]
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_hooks_see_and_replace_queries_and_results(tmp_path: Path) -> None:
    class Plugin(Hooks):
        def __init__(self) -> None:
            self.seen: list[Query] = []

        async def before_query(self, query: Query) -> Query:
            self.seen.append(query)
            if "secret" in query.sql:
                raise QueryRejected("not that")
            return replace(query, sql=query.sql.replace("ORDERS_NOW", "orders"))

        async def after_query(self, query: Query, result: Result) -> Result:
            return replace(result, rows=[*result.rows, ("more",)])

        def implementers(self, hook: str) -> list[str]:
            return ["here"]

    plugin = Plugin()
    with a_bench(tmp_path, plugin) as bench:
        assert bench.json("SELECT 1 AS a") == [{"a": 1}, {"a": "more"}]
        plugin.seen.clear()
        assert bench.rows("SELECT count(*) FROM ORDERS_NOW") == [(3,), ("more",)]
        assert plugin.seen == [Query(sql="SELECT count(*) FROM ORDERS_NOW", params=None, role="client", raw=False)]
        assert isinstance(bench.refusal("SELECT 'secret'"), QueryRejected)
        with pytest.raises(QueryRejected):
            bench.transaction(["DELETE FROM orders", "SELECT 'secret'"])
        assert bench.rows("SELECT count(*) FROM orders")[0] == (3,)
