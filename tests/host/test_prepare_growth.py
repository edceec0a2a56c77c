"""What SQLite takes while it prepares, for each kind of statement, as its parts double: nothing can interrupt it then.

What passes the host's estimate must prepare within memory in proportion to it. A new SQLite may copy more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from starbase_host.expansion import Expansion, Size, relation
from starbase_host.sandbox_rules import CLIENT_SQL_CHARACTERS, COPIED_TOKENS, EXPANDED_TOKENS
from starbase_host.selects import TooManyLevels
from tests.support.memory import MEBIBYTE
from tests.support.preparer import Preparer

TABLES = {
    "t": "CREATE TABLE t(v INTEGER, w TEXT, x, y)",
    "u": "CREATE TABLE u(v INTEGER, w TEXT, x, y)",
    "g": "CREATE TABLE g(a INTEGER, b INTEGER AS (a+a), c INTEGER AS (b+b), d TEXT AS (c||c||c))",
}
VIEWS = {
    "vu": "CREATE VIEW vu AS SELECT v, w, x+y AS s FROM t WHERE v > 1 UNION ALL SELECT v, w, x FROM u",
    "vd": "CREATE VIEW vd AS SELECT DISTINCT v, w FROM t",
    "vg": "CREATE VIEW vg AS SELECT v, sum(x) AS s FROM t GROUP BY v",
    "vv": "CREATE VIEW vv AS SELECT v, 1 AS one FROM vd WHERE v IN (SELECT v FROM vg)",
}
INDEXES = ["CREATE INDEX ti ON t(v, w)", "CREATE INDEX tx ON t(x+y)", "CREATE INDEX tp ON u(v) WHERE w > 'a'"]


def repeat(count: int, part: str, by: str = ",") -> str:
    """The part as often; `#` in it is its number."""
    return by.join(part.replace("#", str(number)) for number in range(count))


def within(count: int, before: str, inside: str, after: str) -> str:
    return before * count + inside + after * count


SHAPES: dict[str, Callable[[int], str]] = {
    "a list over a compound": lambda n: (
        f"SELECT a FROM (SELECT 1 a{repeat(min(n, 240), ' UNION ALL SELECT 1', '')}) WHERE a IN ({repeat(n, '1')})"
    ),
    "a list over DISTINCT": lambda n: (
        f"SELECT a FROM {within(min(n, 90), '(SELECT DISTINCT a FROM ', '(SELECT 1 a)', ')')} "
        f"WHERE a IN ({repeat(n, '1')})"
    ),
    "a list over GROUP BY": lambda n: f"SELECT * FROM vg WHERE v IN ({repeat(n, '1')})",
    "a list over views over views": lambda n: f"SELECT * FROM vv a, vv b, vu c WHERE a.v IN ({repeat(n, '1')})",
    "a list of subqueries": lambda n: f"SELECT * FROM vd WHERE v IN (SELECT v FROM u WHERE v IN ({repeat(n, '1')}))",
    "a value of many columns": lambda n: (
        f"SELECT 1 FROM t WHERE v = max(1,{repeat(min(n, 90), '1')}) AND v IN ({repeat(n, 'v')})"
    ),
    "a value in a list of one": lambda n: (
        f"SELECT 1 FROM t WHERE v IN ((1{repeat(min(n, 400), '+1', '')})) AND v IN ({repeat(n, 'v')})"
    ),
    "a value in subqueries": lambda n: (
        f"SELECT 1 FROM t WHERE v = max(1,{repeat(min(n, 90), '1')}) AND "
        f"EXISTS (SELECT 1 FROM u WHERE u.v IN ({repeat(n, 't.v')}))"
    ),
    "a value of a subquery": lambda n: (
        f"SELECT 1 FROM t JOIN (SELECT max(1,{repeat(min(n, 90), '1')}) c FROM u) ON v = c "
        f"WHERE v IN ({repeat(n, 'v')})"
    ),
    "a value that is pushed down": lambda n: (
        f"SELECT 1 FROM (SELECT DISTINCT v FROM t WHERE v = max(1,{repeat(min(n, 90), '1')})) WHERE v IN "
        f"({repeat(n, 'v')})"
    ),
    "values in values": lambda n: (
        f"SELECT 1 FROM t a0{repeat(min(n, 60), ', t b#', '')} WHERE a0.v = 1 AND b0.v = a0.v + a0.v"
        + "".join(f" AND b{number}.v = b{number - 1}.v + b{number - 1}.v" for number in range(1, min(n, 60)))
    ),
    "a long text": lambda n: f"SELECT 1 FROM t WHERE w = '{'x' * n}' AND w IN ({repeat(n // 2, 'w')})",
    "a long text in a column": lambda n: f"SELECT {repeat(min(n, 999), 'x+1')} FROM (SELECT '{'x' * n}' x FROM t)",
    "a long name": lambda n: f"WITH c AS (SELECT 1 AS {'x' * n}) SELECT * FROM {repeat(min(n, 60), 'c c#')}",
    "windows": lambda n: f"SELECT {repeat(n, 'sum(v) OVER (ORDER BY w+#)')} FROM t",
    "windows of a value": lambda n: f"SELECT {repeat(n, 'sum(#) OVER (ORDER BY #)')} FROM t",
    "windows that are named": lambda n: (
        f"SELECT {repeat(n, 'sum(v) OVER w#')} FROM t WINDOW {repeat(n, 'w# AS (ORDER BY x+#)')}"
    ),
    "windows over a window": lambda n: (
        f"SELECT {repeat(n, 'sum(v) OVER (w ROWS # PRECEDING)')} FROM t "
        f"WINDOW w AS (PARTITION BY {repeat(n, 'x')} ORDER BY y)"
    ),
    "windows in ORDER BY": lambda n: f"SELECT v FROM t ORDER BY {repeat(n, 'sum(v) OVER (ORDER BY w+#)')}",
    "windows beside columns": lambda n: (
        f"SELECT {repeat(min(n, 300), 'sum(v) OVER (ORDER BY w+#)')},{repeat(min(n, 1500), 'x+#')} FROM t"
    ),
    "windows over windows": lambda n: (
        f"SELECT a FROM {within(min(n, 90), '(SELECT sum(a) OVER (ORDER BY a) a FROM ', '(SELECT v a FROM t)', ')')}"
    ),
    "tables that are used often": lambda n: (
        "WITH c0 AS (SELECT v a, w b FROM t)"
        + "".join(
            f",c{number} AS (SELECT a,b FROM c{number - 1} UNION ALL SELECT b,a FROM c0 WHERE a={number})"
            for number in range(1, n)
        )
        + f" SELECT * FROM c{n - 1} WHERE a IN (1,2,3)"
    ),
    "one table, used often": lambda n: (
        f"WITH c AS (SELECT v a FROM t WHERE w IN ({repeat(n, '1')})) SELECT * FROM {repeat(min(n, 60), 'c c#')}"
    ),
    "IN within IN": lambda n: f"SELECT 1 FROM t WHERE {within(min(n, 90), 'v IN (SELECT v FROM u WHERE ', 'v', ')')}",
    "EXISTS": lambda n: (
        f"SELECT 1 FROM t WHERE {repeat(n, 'EXISTS(SELECT 1 FROM u WHERE u.v=t.v AND u.w=#)', ' AND ')}"
    ),
    "rows of VALUES": lambda n: f"SELECT 1 FROM t WHERE (v,w) IN (VALUES {repeat(n, '(#,#)')})",
    "rows of columns": lambda n: f"SELECT 1 FROM t WHERE ({repeat(n + 1, 'v')})<({repeat(n + 1, 'w')})",
    "rows of subqueries": lambda n: (
        f"SELECT 1 FROM t WHERE ({repeat(min(n, 1900) + 1, 'v')})=(SELECT {repeat(min(n, 1900) + 1, 'w')} FROM u)"
    ),
    "CASE": lambda n: f"SELECT CASE v {repeat(n, 'WHEN # THEN w', ' ')} END FROM t",
    "CASE within CASE": lambda n: f"SELECT {within(min(n, 400), 'CASE WHEN v THEN ', '1', ' END')} FROM t",
    "generated columns": lambda n: f"SELECT {repeat(min(n, 1900), 'd')} FROM g WHERE {repeat(n, 'd=#', ' OR ')}",
    "views in a join": lambda n: f"SELECT * FROM {repeat(min(n, 60), 'vu v#')}",
    "views in a compound": lambda n: (
        f"SELECT v FROM ({repeat(min(n, 250), 'SELECT * FROM vu', ' UNION ALL ')}) WHERE v=1"
    ),
    "compounds in a join": lambda n: (
        f"SELECT * FROM ({repeat(min(n, 240), 'SELECT v,w FROM t', ' UNION ALL ')}) a, "
        f"({repeat(min(n, 240), 'SELECT v,w FROM u', ' UNION ALL ')}) b WHERE a.v=b.v"
    ),
    "a compound in a LEFT JOIN": lambda n: (
        f"SELECT * FROM t LEFT JOIN ({repeat(min(n, 240), 'SELECT v,w FROM t', ' UNION ALL ')}) b "
        f"ON t.v=b.v AND b.w IN ({repeat(n, '1')})"
    ),
    "INTERSECT": lambda n: repeat(min(n, 249), "SELECT v FROM t WHERE w IN (1,2,3,4)", " INTERSECT "),
    "USING": lambda n: f"SELECT * FROM t t0{repeat(min(n, 30), ' JOIN t a# USING (v,w,x,y)', '')}",
    "NATURAL FULL JOIN": lambda n: (
        f"SELECT * FROM t t0{repeat(min(n, 62), ' NATURAL FULL JOIN t a#', '')} WHERE {repeat(n, 'v=#', ' OR ')}"
    ),
    "RIGHT JOIN": lambda n: f"SELECT * FROM t t0{repeat(min(n, 62), ' RIGHT JOIN u u# ON u#.v=t0.v', '')}",
    "OR of ANDs": lambda n: f"SELECT 1 FROM t,u WHERE {repeat(n, '(t.v=# AND u.w=#)', ' OR ')}",
    "AND of ORs": lambda n: f"SELECT 1 FROM t,u WHERE {repeat(n, '(t.v=# OR u.w=# AND t.w=2)', ' AND ')}",
    "BETWEEN": lambda n: f"SELECT 1 FROM t WHERE {repeat(n, 'v BETWEEN # AND w', ' OR ')}",
    "LIKE": lambda n: f"SELECT 1 FROM t WHERE {repeat(n, 'w LIKE ' + chr(39) + 'a#%' + chr(39), ' OR ')}",
    "ORDER BY an alias": lambda n: f"SELECT v+w+x+y a FROM t ORDER BY {repeat(min(n, 1900), 'a+#')}",
    "GROUP BY and ORDER BY": lambda n: (
        f"SELECT {repeat(min(n, 900), 'v+#')} FROM t GROUP BY {repeat(min(n, 900), 'v+#')} "
        f"ORDER BY {repeat(min(n, 900), 'v+#')}"
    ),
    "ORDER BY in a compound": lambda n: (
        f"SELECT {repeat(min(n, 1900), 'v c#')} FROM t UNION SELECT {repeat(min(n, 1900), 'w')} FROM t "
        f"ORDER BY {repeat(min(n, 1900), 'c#')}"
    ),
    "aggregates": lambda n: f"SELECT {repeat(min(n, 1900), 'sum(DISTINCT v+#) FILTER (WHERE w=#)')} FROM t",
    "ordered aggregates": lambda n: f"SELECT {repeat(min(n, 1900), 'group_concat(v ORDER BY w+#)')} FROM t",
    "HAVING": lambda n: f"SELECT v FROM t GROUP BY v HAVING {repeat(n, 'sum(x)># AND v<>#', ' AND ')}",
    "recursion": lambda n: (
        f"WITH RECURSIVE c(a) AS (SELECT 1{repeat(min(n, 240), ' UNION ALL SELECT a+# FROM c WHERE a<9', '')}) "
        f"SELECT * FROM c WHERE a IN ({repeat(n, '1')})"
    ),
    "json_each": lambda n: "SELECT * FROM json_each('[1]') j0" + repeat(min(n, 30), " JOIN json_each(j0.value) k#", ""),
    "an alias that repeats": lambda n: f"SELECT v+w a,{repeat(min(n, 1900), 'v a')} FROM t ORDER BY a",
    "names that repeat": lambda n: f"SELECT * FROM (SELECT {repeat(min(n, 1900), 'v')} FROM t)",
    "scalar subqueries over a view": lambda n: (
        f"SELECT {repeat(min(n, 1900), '(SELECT max(v) FROM vu WHERE vu.v=t.v)')} FROM t"
    ),
    "an expression of an index": lambda n: (
        f"SELECT {repeat(min(n, 1900), 'x+y')} FROM t WHERE {repeat(n, 'x+y=#', ' OR ')}"
    ),
    "equal columns": lambda n: (
        f"SELECT 1 FROM {repeat(min(n, 30) + 1, 't t#')} WHERE t0.v=1"
        + "".join(f" AND t{number}.v=t{number + 1}.v" for number in range(min(n, 30)))
    ),
    "UPSERT": lambda n: (
        "INSERT INTO t(v) SELECT v FROM vu WHERE true ON CONFLICT DO UPDATE SET "
        f"v = excluded.v{repeat(min(n, 400), '+v', '')} WHERE v IN ({repeat(n, 'v')}) RETURNING {repeat(n, 'v+#')}"
    ),
    "DELETE from a view": lambda n: f"DELETE FROM vv WHERE v IN ({repeat(n, '1')})",
    "UPDATE of a view": lambda n: f"UPDATE vv SET one = v{repeat(min(n, 400), '+v', '')} WHERE v IN ({repeat(n, '1')})",
}  # fmt: skip
SCHEMA = [
    *TABLES.values(),
    *VIEWS.values(),
    *INDEXES,
    "CREATE UNIQUE INDEX tv ON t(v)",
    "CREATE TRIGGER vvd INSTEAD OF DELETE ON vv BEGIN DELETE FROM t WHERE v = old.v; END",
    "CREATE TRIGGER vvu INSTEAD OF UPDATE ON vv BEGIN UPDATE t SET v = new.one WHERE v = old.v; END",
]


@pytest.fixture(scope="module")
def preparer() -> Iterator[Preparer]:
    preparer = Preparer(SCHEMA)
    yield preparer
    preparer.close()


def estimate(sql: str) -> Size | None:
    """None when the statement is refused."""
    relations = {name: relation(text, view=name in VIEWS) for name, text in {**TABLES, **VIEWS}.items()}
    try:
        size = Expansion(relations).size(sql)
    except TooManyLevels:
        return None
    fits = size.tokens <= EXPANDED_TOKENS["client"] + len(sql) and size.copied <= COPIED_TOKENS["client"]
    return size if fits and len(sql) <= CLIENT_SQL_CHARACTERS else None


def most_bytes(size: Size, sql: str) -> int:
    return 128 * 1024 + 300 * (size.tokens + len(sql)) + 100 * size.copied


@pytest.mark.parametrize("what", SHAPES)
@pytest.mark.prove
def test_what_passes_takes_memory_in_proportion_to_the_estimate(preparer: Preparer, what: str) -> None:
    before = ""
    for power in range(2, 18):
        sql = SHAPES[what](1 << power)
        size = estimate(sql)
        if size is None or sql == before:
            break
        before = sql
        used, seconds, error = preparer.prepare(sql)
        assert error in (None, "out of memory") or "too many" in error or "too large" in error, error
        assert used < min(most_bytes(size, sql), 60 * MEBIBYTE), (power, size, used)
        assert seconds < 10, (power, size, seconds)
    assert power > 3
