"""What a statement becomes when SQLite puts the expressions of subqueries in the place of their columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from starbase_host.errors import TooLarge
from starbase_host.expansion import Expansion, relation
from starbase_host.sandbox_rules import COPIED_TOKENS, EXPANDED_TOKENS
from starbase_host.selects import TooManyLevels
from tests.support.memory import MEBIBYTE
from tests.support.preparer import Preparer
from tests.support.query_bench import Bench, a_bench

LEAF = "(SELECT value AS x FROM json_each('[1]'))"


def nested(levels: int, expression: str, leaf: str = LEAF) -> str:
    return "SELECT x FROM " + f"(SELECT {expression} AS x FROM " * levels + leaf + ")" * levels


def chained(levels: int, expression: str, hint: str = "") -> str:
    tables = [f"a0(x) AS (SELECT x FROM {LEAF})"]
    tables += [f"a{number}(x) AS {hint} (SELECT {expression} FROM a{number - 1})" for number in range(1, levels + 1)]
    return f"WITH {', '.join(tables)} SELECT x FROM a{levels}"


# An expression of two hundred tokens.
WIDE = f"coalesce({','.join(['id+1'] * 99)})"
ARMS, ONES = " UNION ALL SELECT 1" * 239, ",".join("1" * 20_000)
BIG = f"max(0,{','.join(['max(' + ','.join('1' * 99) + ')'] * 30)})"
USES = f"j.id IN ({','.join(['j.id'] * 2000)})"


def cascade(tables: int, value: str) -> str:
    """One SELECT whose columns have values made of those before."""
    terms = [f"a{number}.id={value.format(f'a{number - 1}.id')}" for number in range(1, tables)]
    names = ",".join(f"orders a{number}" for number in range(tables))
    return f"SELECT 1 FROM {names} WHERE a0.id=1 AND {' AND '.join(terms)}"


BOMBS = {
    "a nested subquery": nested(12, "x+x+x+x"),
    "quoted names": nested(12, '"X"+[x]+`x`+"x"'),
    "an alias without AS": nested(12, "x+x+x+x").replace(" AS x", " x"),
    "qualified names": nested(12, "q.x+q.x+q.x+q.x").replace(")" * 12, ") q" * 12),
    "the text of an expression as its name": (
        "SELECT * FROM (SELECT \"x+x+x+x\"" + "+\"x+x+x+x\"" * 3 + " AS y FROM (SELECT x+x+x+x FROM "
        + nested(7, "x+x+x+x").removeprefix("SELECT x FROM ") + "))"
    ),
    "common table expressions": chained(12, "x+x+x+x"),
    "not materialized": chained(12, "x+x+x+x", "NOT MATERIALIZED"),
    "CASE": nested(12, "CASE x WHEN x THEN x ELSE x END"),
    "a wide function": nested(6, f"coalesce({','.join('x' * 30)})"),
    "DISTINCT, and a condition that is pushed down": nested(9, "DISTINCT x+x+x+x") + " WHERE x",
    "GROUP BY, and a condition": nested(9, "x+x+x+x").replace(LEAF + ")", LEAF + " GROUP BY 1)") + " WHERE x",
    "a subquery in the result": nested(9, "(SELECT x+x+x+x)"),
    "a compound": nested(9, "x+x+x+x", "(SELECT value AS x FROM json_each('[1]') UNION ALL SELECT 1 FROM orders)"),
    "an alias in a condition": f"SELECT {WIDE} AS a FROM orders WHERE a IN ({','.join('a' * 999)})",
    "an alias in ORDER BY": f"SELECT {WIDE} a FROM orders ORDER BY {','.join(['a+1'] * 999)}",
    "the number of a column": f"SELECT {WIDE} a FROM orders GROUP BY {','.join('1' * 999)}",
    "a named window": (
        f"SELECT {','.join(['sum(id)OVER w'] * 500)} FROM orders WINDOW w AS (PARTITION BY {','.join(['id'] * 500)})"
    ),
    "a condition on a column of a join": "SELECT 1 FROM orders JOIN (" + nested(9, "x+x+x+x") + ") AS y ON x = id",
    "IS DISTINCT FROM": nested(9, "x IS DISTINCT FROM x+x+x+x"),
    "a list over a compound": f"SELECT a FROM (SELECT DISTINCT 1 a{ARMS}) WHERE a IN ({ONES})",
    "a list over compounds in one another": (
        f"SELECT a FROM (SELECT DISTINCT a FROM (SELECT 1 a{ARMS}){ARMS}) WHERE a IN ({','.join('1' * 1000)})"
    ),
    "a list over DISTINCT": (
        f"SELECT a FROM {'(SELECT DISTINCT a FROM ' * 90}(SELECT 1 a){')' * 90} WHERE a IN ({ONES})"
    ),
    "a list over a compound, in ON": (
        f"SELECT a FROM orders JOIN (SELECT DISTINCT 1 a{ARMS}) ON id IS NOT NULL AND a IN ({ONES})"
    ),
    "a value that is put in the place of its column": f"SELECT 1 FROM orders j WHERE j.id={BIG} AND {USES}",
    "a value on the left": f"SELECT 1 FROM orders j WHERE {BIG}==j.id AND {USES}",
    "a value in a list of one": f"SELECT 1 FROM orders j WHERE j.id IN ({BIG}) AND {USES}",
    "a value in brackets": f"SELECT 1 FROM orders j WHERE ((((j.id))=({BIG})) AND ({USES}))",
    "a value that is a BETWEEN": f"SELECT 1 FROM orders j WHERE {BIG} BETWEEN 0 AND 1 = j.id AND {USES}",
    "a value that is a CASE": f"SELECT 1 FROM orders j WHERE CASE WHEN 1 AND 1 THEN {BIG} END = j.id AND {USES}",
    "a value in ON": f"SELECT 1 FROM orders j JOIN counted ON j.id={BIG} WHERE {USES}",
    "a value in a column": f"SELECT 1 FROM orders j JOIN (SELECT {BIG} c FROM orders) q WHERE j.id=q.c AND {USES}",
    "a value in a column, with AS": (
        f"SELECT 1 FROM orders j JOIN (SELECT {BIG} AS c FROM orders) AS q ON j.id=q.c AND {USES}"
    ),
    "a value that is pushed down": f"SELECT 1 FROM (SELECT DISTINCT id FROM orders WHERE id={BIG}) AS j WHERE {USES}",
    "a value in the query around": (
        f"SELECT 1 FROM orders j WHERE j.id={BIG} AND EXISTS (SELECT 1 FROM counted WHERE {USES})"
    ),
    "values in the place of columns in values": cascade(12, "{0}+{0}+{0}"),
    "short, and values in values": cascade(6, "max({0},{0},{0},{0},{0},{0},{0},{0},{0},{0})"),
    "a long text": f"SELECT 1 FROM orders j WHERE j.name='{'x' * 50_000}' AND j.name IN ({','.join(['name'] * 999)})",
    "a long text in a column": f"SELECT {','.join(['x+1'] * 999)} FROM (SELECT '{'x' * 50_000}' AS x FROM orders)",
    "many windows": f"SELECT {','.join(f'sum(id) OVER (ORDER BY id+{n})' for n in range(1600))} FROM orders",
}  # fmt: skip
ORDINARY = {
    "columns passed through": "WITH a0 AS (SELECT id, name, total FROM orders)"
    + "".join(f", a{n} AS (SELECT id, name, total FROM a{n - 1})" for n in range(1, 60))
    + " SELECT * FROM a59",
    "sums over sums": "WITH s0 AS (SELECT id, name, total FROM orders)"
    + "".join(
        f", s{n} AS (SELECT name, id, sum(CASE WHEN total > 1 THEN total ELSE 0 END) / nullif(sum(total), 0) AS total "
        f"FROM s{n - 1} WHERE total IS NOT NULL GROUP BY name, id)"
        for n in range(1, 20)
    )
    + " SELECT name, total FROM s19 WHERE total > 0 ORDER BY total DESC LIMIT 10",
    "windows": (
        "WITH d AS (SELECT id, name, total, row_number() OVER (PARTITION BY name ORDER BY id) AS n, "
        "sum(total) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS running FROM orders), "
        "e AS (SELECT *, running - lag(running) OVER (ORDER BY id) AS change FROM d) "
        "SELECT a.name, max(a.change), sum(b.running) FROM e AS a JOIN e AS b ON a.id = b.id GROUP BY a.name"
    ),
    "materialized": chained(40, "x+x+x+x", "AS MATERIALIZED".removeprefix("AS ")),
    "a list of a thousand": f"SELECT id AS a FROM orders WHERE a IN ({', '.join(map(str, range(1000)))})",
    "a list of three thousand over several selects": (
        "WITH several(a) AS (" + " UNION ALL ".join(["SELECT id FROM over_orders WHERE id > 0"] * 4) + ") "
        f"SELECT a FROM several WHERE a IN ({','.join(map(str, range(3000)))})"
    ),
    "a list of three thousand over groups": (
        "SELECT * FROM (SELECT id, count(*) FROM over_orders GROUP BY id UNION SELECT id, 1 FROM orders) "
        f"WHERE id IN ({','.join(map(str, range(3000)))})"
    ),
    "two hundred arms": (
        "SELECT * FROM ("
        + " UNION ALL ".join(f"SELECT id, name FROM orders WHERE id > {n} AND name <> 'a'" for n in range(200))
        + ") WHERE id = 1 AND name LIKE 'o%' OR id > 4"
    ),
    "thirty views": (
        "SELECT count(*) FROM over_orders AS v0"
        + "".join(f" JOIN over_orders AS v{n} ON v{n}.id = v{n - 1}.id AND v{n}.id = v0.id + 0" for n in range(1, 30))
        + " WHERE v0.id = 1 AND v1.id IN (1, 2, 3)"
    ),
    "a thousand terms": (
        "SELECT id FROM orders WHERE "
        + " OR ".join(f"id = {n} AND name = 'a{n}' AND total >= {n} + id" for n in range(300))
    ),
    "values that are looked up": (
        "SELECT o.id FROM orders AS o"
        + "".join(f" LEFT JOIN orders AS p{n} ON p{n}.id = coalesce(o.id, o.total)" for n in range(4))
        + " WHERE o.name = 'one' AND date(o.total) = date('now', '-1 day')"
    ),
    "many columns over one window": (
        f"SELECT {', '.join(f'sum(total + {n}) OVER w' for n in range(200))} FROM orders WINDOW w AS (ORDER BY id)"
    ),
    "thirty windows": (
        f"SELECT {', '.join(f'sum(total) OVER (PARTITION BY name ORDER BY id + {n})' for n in range(30))} FROM orders"
    ),
    "scalar subqueries": (
        "SELECT o.id, (SELECT count(*) FROM orders AS p WHERE p.name = o.name) AS same, "
        "(SELECT max(total) FROM orders AS p WHERE p.id < o.id) AS before FROM orders AS o "
        "WHERE EXISTS (SELECT 1 FROM orders AS q WHERE q.id = o.id) ORDER BY same, before"
    ),
    "recursion": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT sum(i) FROM n",
    "arithmetic in steps": (
        "WITH a AS (SELECT id, total * 1.2 AS gross, total - 1 AS net FROM orders), "
        "b AS (SELECT id, gross, net, gross - net AS tax, (gross - net) / gross AS rate FROM a), "
        "c AS (SELECT id, round(tax, 2) AS tax, round(rate * 100, 1) AS rate, gross + tax AS paid FROM b), "
        "d AS (SELECT *, CASE WHEN rate > 10 THEN paid * rate ELSE paid END AS due FROM c) "
        "SELECT id, due, due - paid AS rest FROM d WHERE due > 0 AND rate < 50 ORDER BY due"
    ),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with a_bench(tmp_path_factory.mktemp("expansion"), max_seconds=60) as bench:
        yield bench


@pytest.mark.parametrize("what", BOMBS)
def test_a_statement_that_multiplies_is_refused_before_sqlite_prepares_it(shared: Bench, what: str) -> None:
    shared.rows("SELECT 1")
    apsw.memory_high_water(True)
    before = apsw.memory_used()
    for _ in range(2):
        error = shared.refusal(BOMBS[what])
        assert isinstance(error, TooLarge)
        assert "AS MATERIALIZED" in str(error)
    assert apsw.memory_high_water() - before < MEBIBYTE


@pytest.mark.parametrize("what", ORDINARY)
@pytest.mark.parametrize("role", ["client", "admin"])
def test_ordinary_sql_passes(shared: Bench, what: str, role: str) -> None:
    shared.run(ORDINARY[what], role="client" if role == "client" else "admin")


@pytest.mark.parametrize("levels", [4, 8])
def test_an_admin_may_have_more_than_a_client(shared: Bench, levels: int) -> None:
    sql = nested(levels, "x+x+x+x")
    assert Expansion({}).size(nested(levels + 1, "x+x+x+x")).tokens > 3 * Expansion({}).size(sql).tokens
    shared.run(sql, role="admin")
    if levels == 8:
        assert isinstance(shared.refusal(sql), TooLarge)
    assert isinstance(shared.refusal(nested(12, "x+x+x+x"), role="admin"), TooLarge)


def test_views_are_expanded_too_in_any_order(tmp_path: Path) -> None:
    with a_bench(tmp_path, max_seconds=60) as bench:
        bench.write("CREATE TABLE base(x)")
        bench.write("INSERT INTO base VALUES (1)")
        create = "CREATE VIEW {} AS SELECT x+x+x+x AS x FROM {}"
        # The last one gives a meaning to the ones above.
        for number in range(12, 7, -1):
            bench.run(create.format(f"e{number}", f"e{number - 1}"), role="admin")
        for number in range(1, 5):
            bench.run(create.format(f"e{number}", f"e{number - 1}" if number > 1 else "base"), role="admin")
        refused = 0
        for number in (5, 7, 6):
            try:
                bench.run(create.format(f"e{number}", f"e{number - 1}"), role="admin")
            except TooLarge as error:
                refused += "the view or table e1" in str(error)
                bench.write(create.format(f"e{number}", f"e{number - 1}"))
        assert refused == 1
        assert isinstance(bench.refusal("SELECT * FROM e12"), TooLarge)
        assert isinstance(bench.refusal("SELECT * FROM e12", role="admin"), TooLarge)
        assert bench.rows("SELECT x FROM e3") == [(64,)]
        bench.run("CREATE VIEW other AS SELECT id FROM orders", role="admin")


@pytest.mark.parametrize("backwards", [False, True])
def test_generated_columns_over_one_another_are_refused(shared: Bench, backwards: bool) -> None:
    columns = [
        f"c{number} INTEGER AS (c{number - 1}+c{number - 1}+c{number - 1}+c{number - 1})" for number in range(1, 13)
    ]
    made = ", ".join(["c0", *(reversed(columns) if backwards else columns)])
    error = shared.refusal(f"CREATE TABLE g{backwards:d}({made})", role="admin")
    assert isinstance(error, TooLarge)
    assert "generated column" in str(error)
    shared.run(
        f"CREATE TABLE h{backwards:d}(c0, {', '.join(columns[:5])}, k TEXT DEFAULT (1), CHECK (c0 > 0))", role="admin"
    )
    for number in range(6, 13):
        try:
            shared.run(f"ALTER TABLE h{backwards:d} ADD COLUMN {columns[number - 1]}", role="admin")
        except TooLarge:
            assert number < 11
            break
    else:
        pytest.fail("no column was refused")


def test_deep_nesting_is_refused() -> None:
    for sql in (nested(500, "x"), chained(3000, "x")):
        with pytest.raises(TooManyLevels):
            Expansion({}).size(sql)


@given(st.text(alphabet="()'\"`[],;.*+-x1 \nasselectfromwithunionbygrouporder", max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    assert min(Expansion({}).size(text)) >= 0


def test_time_grows_with_the_text() -> None:
    for unit in ("(", "(SELECT ", "x,", "'", "[", "WITH a AS (", "a AS (SELECT ", ")", "/*", '"'):
        with_limit = Expansion({})
        for sql in (unit * 20_000, "SELECT " + unit * 20_000):
            try:
                with_limit.size(sql)
            except TooManyLevels:
                continue


COLUMNS = ("x", "y", "z")
EXPRESSIONS = st.recursive(
    st.sampled_from([*COLUMNS, '"x"', "1", "'a'"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=5).map("+".join),
        st.lists(inner, min_size=2, max_size=5).map(lambda each: f"coalesce({', '.join(each)})"),
        st.tuples(inner, inner, inner).map(lambda each: "CASE WHEN {} THEN {} ELSE {} END".format(*each)),
        inner.map(lambda each: f"(SELECT {each})"),
        inner.map(lambda each: f"({each} IS DISTINCT FROM x)"),
    ),
    max_leaves=8,
)


@st.composite
def queries(draw: st.DrawFn) -> str:
    """Levels over one another, each with three columns, of every kind that SQLite merges or pushes down into."""
    sql = "SELECT c0 AS x, c1 AS y, c2 AS z FROM t"
    tables: list[str] = []
    for number in range(draw(st.integers(1, 9))):
        parts = [draw(EXPRESSIONS) for _ in COLUMNS]
        columns = ", ".join(f"{part} AS {name}" for part, name in zip(parts, COLUMNS, strict=True))
        kind = draw(st.sampled_from(["plain", "plain", "distinct", "group", "union all", "union", "join", "cte"]))
        where = draw(st.sampled_from(["", " WHERE x", " WHERE y > z", f" WHERE {draw(EXPRESSIONS)}"]))
        source = f"({sql})"
        if kind == "cte":
            tables.append(f"q{number} AS {draw(st.sampled_from(['', 'NOT MATERIALIZED', 'MATERIALIZED']))} {source}")
            source = f"q{number}"
        if kind == "join":
            source += " JOIN t ON c0 = x"
        sql = f"SELECT {'DISTINCT ' * (kind == 'distinct')}{columns} FROM {source}{where}"
        if kind == "group":
            sql += " GROUP BY x, y, z"
        if kind in ("union", "union all"):
            sql += f" {kind} SELECT c0, c1, c2 FROM t"
    head = f"WITH {', '.join(tables)} " if tables else ""
    return f"{head}{sql} ORDER BY x, {draw(st.sampled_from(['y', 'x+x', '1']))}" if " union" not in sql else head + sql


@pytest.fixture(scope="module")
def preparer() -> Iterator[Preparer]:
    preparer = Preparer(["CREATE TABLE t(c0, c1, c2)"])
    yield preparer
    preparer.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(queries())
def test_what_passes_prepares_within_bounded_memory(preparer: Preparer, sql: str) -> None:
    expansion = Expansion({"t": relation("CREATE TABLE t(c0, c1, c2)", view=False)})
    size = expansion.size(sql)
    if size.tokens > EXPANDED_TOKENS["client"] or size.copied > COPIED_TOKENS["client"]:
        return
    used, _, error = preparer.prepare(sql)
    assert error in (None, "out of memory") or "too large" in error or "ORDER BY term" in error, (error, sql)
    assert used < 64 * 1024 + 400 * (size.tokens + len(sql)) + 100 * size.copied, (size, used, sql)
