"""How the time of each function of a client grows with its arguments: SQLite cannot be interrupted inside a call.

Growth is judged, never the time itself, by the clock of this thread alone. A new SQLite may give a function that is
allowed more arguments, or more work: everything that the linked one lists is tried.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_host.errors import StarbaseError
from starbase_host.sandbox import Guard
from starbase_host.sandbox_rules import CLIENT_FUNCTIONS, CREATABLE_MODULES, RANKED_TERMS, SEARCH_BYTES

# Known to be quadratic, and held to values so short that it does not matter: see sandbox_rules.py.
SQUARE = {"instr", "replace"}
LONG = 64 * 1024
# Less than this is not looked into: a quadratic function takes more for LONG, a linear one far less.
SUSPECT_SECONDS = 0.01
# Four times the length: linear work takes 4 times as long, quadratic work 16 times.
MOST_GROWTH = 9

KINDS: dict[str, Callable[[int], Any]] = {
    "number": lambda n: n,
    "one letter": lambda n: "g" * n,
    "that letter last": lambda n: "h" * (n - 1) + "g",
    "digits": lambda n: "1" * n,
    "different letters": lambda n: "".join(chr(0x4E00 + i % 20_000) for i in range(n // 3)),
    "formats": lambda n: "%s" * (n // 2),
    "wide format": lambda n: f"%{n}d%.{n}f",
    "array": lambda n: "[" + "1," * (n // 2 - 1) + "1]",
    "object": lambda n: "{" + ",".join(f'"{i}":1' for i in range(n // 10)) + "}",
    "path": lambda n: "$" + ".g" * (n // 2),
    "escapes": lambda n: "\\u0041" * (n // 6),
    "bytes": lambda n: b"\x00" * n,
}
THIRD = ("number", "one letter", "array")
WINDOW = {"first_value", "lag", "last_value", "lead", "nth_value", "ntile"}


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    connection = apsw.Connection(":memory:")
    guard = Guard(connection, "client")
    guard.install()
    yield guard
    connection.close()


def calls(guard: Guard) -> Iterator[tuple[str, str, int]]:
    """Name, statement and number of arguments of each call that a client may make of a function."""
    listed = guard.run_trusted("SELECT DISTINCT name, narg FROM pragma_function_list ORDER BY 1, 2")
    for name, count in listed:
        if name not in CLIENT_FUNCTIONS or name in SQUARE:
            continue
        for arguments in (1, 2, 3) if count < 0 else (count,):
            if name in ("->", "->>"):
                yield name, f"SELECT ? {name} ?", 2
            elif 0 < arguments <= 3:
                over = " OVER ()" if name in WINDOW else ""
                yield name, f"SELECT {name}({', '.join('?' * arguments)}){over}", arguments


@functools.cache
def value(kind: str, size: int) -> Any:
    return (KINDS.get(kind) or SEARCHES[kind])(size)


def seconds(guard: Guard, sql: str, kinds: tuple[str, ...], size: int, best_of: int = 1) -> float:
    values = [value(kind, size) for kind in kinds]
    taken = []
    for _ in range(best_of):
        started = time.thread_time()
        # Refused, too long, or no such arguments: what it took to say so counts all the same.
        with contextlib.suppress(apsw.Error, StarbaseError):
            guard.connection.execute(sql, values, can_cache=guard.begin(sql)).fetchall()
        taken.append(time.thread_time() - started)
    return min(taken)


def too_steep(guard: Guard, sql: str, kinds: tuple[str, ...], size: int = LONG) -> bool:
    if seconds(guard, sql, kinds, size) < SUSPECT_SECONDS:
        return False
    # Once could be the machine's other work.
    return all(
        seconds(guard, sql, kinds, size, 3) > MOST_GROWTH * seconds(guard, sql, kinds, size // 4, 3) for _ in range(3)
    )


def test_no_function_of_a_client_grows_with_the_square_of_its_arguments(guard: Guard) -> None:
    found, tried = [], set()
    for name, sql, arguments in calls(guard):
        tried.add(name)
        for kinds in itertools.product(*[KINDS, KINDS, THIRD][:arguments]):
            if too_steep(guard, sql, kinds):
                found.append((sql, kinds))
                break
    assert found == []
    assert tried >= {"unhex", "trim", "json_set", "printf", "like", "upper", "->>"}


SEARCHES: dict[str, Callable[[int], Any]] = {
    "terms": lambda n: "a " * (n // 2),
    "different terms": lambda n: " ".join(f"a{i}" for i in range(n // 6)),
    "either": lambda n: " OR ".join("a" * (n // 5)),
    "all": lambda n: " AND ".join("a" * (n // 6)),
    "none": lambda n: " NOT ".join("a" * (n // 6)),
    "near": lambda n: "NEAR(" + "a " * (n // 2) + ")",
    "near one another": lambda n: " NEAR ".join("a" * (n // 7)),
    "phrase": lambda n: '"' + "a " * (n // 2) + '"',
    "phrases": lambda n: '"a a" ' * (n // 6),
    "added phrases": lambda n: " + ".join("a" * (n // 4)),
    "columns": lambda n: "body:a " * (n // 7),
    "set of columns": lambda n: "{" + "body " * (n // 5) + "}: a",
    "prefixes": lambda n: "a* " * (n // 3),
    "brackets": lambda n: "(" * (n // 2) + "a" + ")" * (n // 2),
    "pattern": lambda n: "%abc" * (n // 4),
    "other pattern": lambda n: "*abc" * (n // 4),
    "one word": lambda n: "a" * n,
}
COLUMNS = {"geopoly": "body", "rtree": "id, body, other", "rtree_i32": "id, body, other"}
TOKENIZERS = {"fts5": ", tokenize='trigram'"}


def searches(guard: Guard) -> Iterator[str]:
    """Statements that search each virtual table of each module that a table may have in the linked SQLite."""
    for (name,) in guard.run_trusted("SELECT name FROM pragma_module_list ORDER BY 1"):
        if name.encode().lower() not in CREATABLE_MODULES:
            continue
        for table, more in ((f"of_{name}", ""), (f"also_{name}", TOKENIZERS.get(name, ""))):
            guard.run_trusted(f"CREATE VIRTUAL TABLE {table} USING {name}({COLUMNS.get(name, 'body')}{more})")
            if name != "geopoly":
                row = "1, 2, 3" if name.startswith("rtree") else "'a abc a'"
                guard.run_trusted(f"INSERT INTO {table} VALUES ({row})")
            column = "_shape" if name == "geopoly" else "body"
            for operand in (f"{table} MATCH ?", f"{table} = ?", *(f"{column} {o} ?" for o in SEARCH_OPERATORS)):
                yield f"SELECT count(*) FROM {table} WHERE {operand}"
            yield f"SELECT count(*) FROM {table}(?)"
    guard.refresh()


SEARCH_OPERATORS = ("MATCH", "=", "LIKE", "GLOB", ">")


@pytest.mark.prove
def test_no_search_of_a_virtual_table_grows_with_the_square_of_its_text() -> None:
    with contextlib.closing(apsw.Connection(":memory:")) as connection:
        guard = Guard(connection, "client")
        guard.install()
        found = []
        statements = list(searches(guard))
        for sql in statements:
            for kind in SEARCHES:
                if too_steep(guard, sql, (kind,)) or too_steep(guard, sql, (kind,), SEARCH_BYTES):
                    found.append((sql, kind))
        assert found == []
        assert {sql.split()[3].partition("(")[0] for sql in statements} >= {"of_fts5", "of_fts4", "of_rtree"}


RANKINGS = {
    "bm25": "SELECT bm25(ranked) FROM ranked WHERE ranked MATCH ? AND rowid = ?",
    "highlight": "SELECT length(highlight(ranked, 0, '', '')) FROM ranked WHERE ranked MATCH ? AND rowid = ?",
    "rank": "SELECT ranked.rank FROM ranked WHERE ranked MATCH ? AND rowid = ?",
    "order": "SELECT 1 FROM ranked WHERE ranked MATCH ? AND rowid = ? ORDER BY rank",
}


@pytest.fixture
def ranked() -> Iterator[apsw.Connection]:
    """Full-text rows whose number says how often the word `a` occurs in them."""
    with contextlib.closing(apsw.Connection(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE ranked USING fts5(body)")
        for size in (1000, 4000):
            connection.execute("INSERT INTO ranked(rowid, body) VALUES (?, ?)", (size, "a " * size))
        yield connection


def ranking_seconds(connection: apsw.Connection, name: str, terms: int, size: int, guard: Guard | None) -> float:
    sql, taken = RANKINGS[name], []
    for _ in range(3):
        started = time.thread_time()
        with contextlib.suppress(StarbaseError, apsw.AuthError, apsw.TooBigError):
            can_cache = guard.begin(sql) if guard else True
            connection.execute(sql, ("a " * terms, size), can_cache=can_cache).fetchall()
        taken.append(time.thread_time() - started)
    return min(taken)


def grows_with_matches_alone(connection: apsw.Connection, name: str, guard: Guard) -> bool:
    few, many = [ranking_seconds(connection, name, RANKED_TERMS, size, guard) for size in (1000, 4000)]
    one, *more = [ranking_seconds(connection, name, RANKED_TERMS * factor, 4000, guard) for factor in (1, 4, 60)]
    return many < max(SUSPECT_SECONDS, MOST_GROWTH * few) and max(more) < max(SUSPECT_SECONDS, 2 * one)


@pytest.mark.parametrize("name", RANKINGS)
def test_the_time_to_rank_a_row_grows_with_its_matches_alone(ranked: apsw.Connection, name: str) -> None:
    guard = Guard(ranked, "client")
    guard.install()
    try:
        assert any(grows_with_matches_alone(ranked, name, guard) for _ in range(3))
    finally:
        ranked.authorizer = ranked.exec_trace = None


texts = st.text("0aF gh-\u20ac^]\\\0", max_size=9)


@given(texts, texts)
def test_unhex_answers_what_it_does_in_sqlite(guard: Guard, value: str, ignored: str) -> None:
    sql = "SELECT unhex(?, ?)"
    with apsw.Connection(":memory:") as plain:
        expected = plain.execute(sql, (value, ignored)).get
    assert guard.connection.execute(sql, (value, ignored), can_cache=guard.begin(sql)).get == expected


@pytest.mark.prove
def test_quadratic_work_is_seen() -> None:
    with apsw.Connection(":memory:") as connection:
        plain = Guard(connection, "admin")
        for sql in ("SELECT trim(?, ?)", "SELECT unhex(?, ?)"):
            assert too_steep(plain, sql, ("one letter", "that letter last"), LONG // 8), sql
        assert not too_steep(plain, "SELECT hex(?)", ("one letter",))
        # The limit of a search text is what holds this back: without the guard's, it is seen.
        connection.execute("CREATE VIRTUAL TABLE found USING fts5(body)")
        for kind in ("terms", "either"):
            values = [seconds_of(connection, value(kind, size)) for size in (LONG, LONG // 4)]
            assert values[0] > 6 * values[1], kind


def seconds_of(connection: apsw.Connection, text: str) -> float:
    started = time.thread_time()
    connection.execute("SELECT count(*) FROM found WHERE found MATCH ?", (text,)).fetchall()
    return time.thread_time() - started
