"""How long the search texts of FTS5 tables may be, however a statement gives them: QueryRunner, without HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from starbase_host.errors import Forbidden, TooLarge
from starbase_host.sandbox_rules import RANKED_TERMS, SEARCH_BYTES, SNIPPET_TERMS, Role
from tests.support.query_bench import Bench, a_bench

TERMS = 40_000
LONG = "a " * TERMS
SCHEMA = """
CREATE VIRTUAL TABLE ft USING fts5(body, other);
INSERT INTO ft VALUES ('a b', 'c'), (printf('%.*c', 100000, 'x'), 'long');
CREATE VIRTUAL TABLE "f""t" USING fts5(body);
CREATE VIRTUAL TABLE parts USING fts5(body, tokenize='trigram');
CREATE TABLE texts(body TEXT, word TEXT);
INSERT INTO texts SELECT printf('%.*c', 80000, 'a') , 'a';
UPDATE texts SET body = replace(body, 'a', 'a ');
CREATE VIEW over_ft AS SELECT ft AS hidden, body FROM ft;
CREATE VIEW over_over_ft AS SELECT * FROM over_ft;
"""
KNOWN = {
    "match": "SELECT count(*) FROM ft WHERE ft MATCH ?",
    "equals": "SELECT count(*) FROM ft WHERE ft = ?",
    "call": "SELECT count(*) FROM ft(?)",
    "hidden column": "SELECT count(*) FROM ft WHERE ft.ft = ?",
    "column": "SELECT count(*) FROM ft WHERE body MATCH ?",
    "several": "SELECT count(*) FROM ft WHERE ft MATCH 'a' AND body MATCH ?1 AND other MATCH ?1",
    "view": "SELECT count(*) FROM over_over_ft WHERE hidden MATCH ?",
    "quoted": """SELECT count(*) FROM "f""t" WHERE "f""t" MATCH ?""",
    "like": "SELECT count(*) FROM parts WHERE body LIKE ?",
    "glob": "SELECT count(*) FROM parts WHERE body GLOB ?",
    "union": "SELECT 1 FROM ft WHERE 0 UNION ALL SELECT count(*) FROM ft WHERE ft MATCH ?",
    "named": "SELECT count(*) FROM ft WHERE ft MATCH :text",
    "joined pieces": "SELECT count(*) FROM ft WHERE ft MATCH ? || ' a'",
    "either": "SELECT count(*) FROM ft WHERE ft MATCH iif(random() IS NULL, 'a', ?)",
}
MADE = {
    "column": "SELECT count(*) FROM texts JOIN ft ON ft MATCH texts.body",
    "subquery": "SELECT count(*) FROM ft WHERE ft MATCH (SELECT body FROM texts)",
    "collected": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 40000) "
    "SELECT count(*) FROM ft WHERE ft MATCH (SELECT group_concat('a', ' ') FROM n)",
    "printed": "SELECT count(*) FROM ft WHERE ft MATCH (SELECT replace(printf('%.40000c', 'a'), 'a', 'a '))",
    "call": "SELECT count(*) FROM texts, ft(texts.body)",
    "coalesced": "SELECT count(*) FROM ft WHERE ft MATCH coalesce((SELECT body FROM texts), 'a')",
    "casted": "SELECT count(*) FROM ft WHERE ft MATCH CAST((SELECT body FROM texts) AS BLOB)",
}
roles = pytest.mark.parametrize("role", ["client", "admin"])


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with a_bench(tmp_path_factory.mktemp("searches"), max_seconds=5) as bench:
        bench.write(SCHEMA)
        yield bench


def too_large(bench: Bench, sql: str, params: Any, role: Role) -> str:
    started = time.process_time()
    error = bench.refusal(sql, params, role)
    # The parse alone of so many terms takes several seconds.
    assert time.process_time() - started < 1
    assert isinstance(error, TooLarge)
    return str(error)


@roles
@pytest.mark.parametrize("name", KNOWN)
def test_a_long_search_text_is_refused(searched: Bench, name: str, role: Role) -> None:
    sql = KNOWN[name]
    text = "%abc" * (TERMS // 2) if name in ("like", "glob") else LONG
    for _ in range(2):
        message = too_large(searched, sql, {"text": text} if name == "named" else [text], role)
        assert "search text" in message, message
    assert searched.rows(sql, {"text": "abc"} if name == "named" else ["abc"], role)


@roles
def test_a_long_literal_is_refused(searched: Bench, role: Role) -> None:
    literal = "a " * (SEARCH_BYTES // 2 + 1)
    assert f"{SEARCH_BYTES:,}" in too_large(searched, f"SELECT 1 FROM ft('{literal}')", None, role)
    assert f"{SEARCH_BYTES:,}" in too_large(searched, f"SELECT 1 FROM ft(x'{literal.encode().hex()}')", None, role)


@roles
@pytest.mark.parametrize("name", MADE)
def test_a_search_text_that_is_made_cannot_become_long(searched: Bench, name: str, role: Role) -> None:
    message = too_large(searched, MADE[name], None, role)
    assert "literal or a parameter" in message


@roles
def test_search_texts_count_together(searched: Bench, role: Role) -> None:
    sql = "SELECT 1 FROM ft(?1) UNION ALL SELECT 1 FROM ft(?1)"
    too_large(searched, sql, ["a " * (SEARCH_BYTES // 4 + 1)], role)
    assert len(searched.rows(sql, ["a " * (SEARCH_BYTES // 4)], role)) == 2


@roles
@pytest.mark.parametrize("ranking", ["bm25(ft)", "highlight(ft, 0, '', '')", "ft.rank"])
def test_a_ranked_search_has_few_terms(searched: Bench, ranking: str, role: Role) -> None:
    sql = f"SELECT {ranking} FROM ft WHERE ft MATCH ?"
    for term in ("a ", '"a" ', '"" OR "" OR ', "a+", "a-", "é "):
        for _ in range(2):
            assert f"{RANKED_TERMS} terms" in too_large(searched, sql, [term * RANKED_TERMS + "a"], role)
    for term in ("a ", '"a" ', "a OR "):
        number = RANKED_TERMS // 2 if "OR" in term else RANKED_TERMS
        assert searched.rows(sql, [term * (number - 1) + "a"], role)
    literal = "a " * (RANKED_TERMS + 1)
    too_large(searched, f"SELECT {ranking} FROM ft WHERE ft MATCH '{literal}'", None, role)
    too_large(searched, sql.replace("?", "? || ' ' || ?"), ["a " * RANKED_TERMS, "a"], role)
    too_large(searched, f"{sql} UNION ALL SELECT 1 FROM ft(?1)", ["a " * (RANKED_TERMS // 2 + 1)], role)
    assert "literal or a parameter" in too_large(searched, sql.replace("?", "(SELECT body FROM texts)"), None, role)
    assert searched.rows(sql.replace("?", "(SELECT word FROM texts)"), None, role)
    assert searched.rows("SELECT ft.body FROM ft ORDER BY rank", None, role)
    assert searched.rows(f"SELECT {ranking} FROM ft WHERE ft MATCH ? AND rank MATCH 'bm25(2, 1)'", ["a"], role)


@roles
def test_each_character_of_a_trigram_counts(searched: Bench, role: Role) -> None:
    sql = "SELECT bm25(parts) FROM parts WHERE body LIKE ?"
    too_large(searched, sql, ["%" + "a" * RANKED_TERMS], role)
    assert searched.rows(sql, ["%abc%"], role) == []


def test_a_client_takes_no_snippets(searched: Bench) -> None:
    sql = "SELECT snippet(ft, 0, '', '', '', 9) FROM ft WHERE ft MATCH ?"
    assert isinstance(searched.refusal(sql, ["a"]), Forbidden)
    assert searched.rows(sql, ["a " * SNIPPET_TERMS], "admin")
    assert f"{SNIPPET_TERMS} terms" in too_large(searched, sql, ["a " * (SNIPPET_TERMS + 1)], "admin")


@pytest.mark.parametrize("operand", ["MATCH ?", "= ?", "MATCH (? || '')"])
@pytest.mark.parametrize("read", ["ft.rank", "bm25(ft)"])
def test_a_client_ranks_by_bm25_alone(searched: Bench, operand: str, read: str) -> None:
    sql = f"SELECT {read} FROM ft WHERE ft MATCH 'a' AND rank {operand} ORDER BY rank"
    snippet = "snippet(0, '', '', '', 9)"
    error = searched.refusal(sql, [snippet])
    assert isinstance(error, Forbidden)
    assert "bm25" in str(error)
    assert isinstance(searched.refusal("SELECT rank FROM ft('a', ?)", [snippet]), Forbidden)
    assert searched.rows("SELECT count(rank) FROM ft('a', ?)", ["BM25( 2 )"]) == [(1,)]
    too_large(searched, sql.replace("'a'", "'" + "a " * (SNIPPET_TERMS + 1) + "'"), [snippet], "admin")
    assert searched.rows(sql, [snippet], "admin")


def test_a_client_ranks_by_bm25_when_the_table_does_not(bench: Bench) -> None:
    bench.write(SCHEMA)
    sql = "SELECT body FROM over_ft WHERE hidden MATCH 'a'"
    ranked = "SELECT body FROM ft('a') ORDER BY rank"
    assert bench.rows(sql) == bench.rows(ranked) == [("a b",)]
    snippet = "snippet(0, '', '', '', 9)"
    bench.run("INSERT INTO ft(ft, rank) VALUES ('rank', ?)", [snippet], "admin")
    assert bench.rows(sql)
    assert isinstance(bench.refusal(ranked), Forbidden)
    assert bench.rows(ranked, None, "admin")
    bench.run("INSERT INTO ft(ft, rank) VALUES ('rank', 'bm25(3)')", None, "admin")
    assert bench.rows(ranked) == [("a b",)]


@roles
def test_an_ordinary_search_reads_long_documents(searched: Bench, role: Role) -> None:
    (row,) = searched.rows("SELECT body FROM ft WHERE ft MATCH 'other:long' AND typeof(body) != x'ff'", None, role)
    assert len(row[0]) == 100_000
    quoted = "SELECT length(body) FROM ft WHERE ft MATCH '\"' || ? || '\"' ORDER BY rank"
    assert searched.rows(quoted, ["long"], role) == [(100_000,)]
    joined = "SELECT count(*) FROM texts JOIN ft ON ft MATCH texts.word"
    assert searched.rows(joined, None, role) == [(1,)]
    assert searched.rows("SELECT length(value) FROM json_each(?)", ['["' + "a" * 100_000 + '"]'], role) == [(100_000,)]


@roles
def test_a_search_text_of_many_pieces_takes_no_longer(searched: Bench, role: Role) -> None:
    pieces = "||".join(["?1", "' b'"] * 120)
    sql = " UNION ALL ".join([f"SELECT count(*) FROM ft WHERE ft MATCH {pieces}"] * 40)
    too_large(searched, sql, ["a"], role)
    too_large(searched, sql, [LONG], role)


def test_an_admin_deletes_by_a_search(bench: Bench) -> None:
    bench.write(SCHEMA)
    too_large(bench, "DELETE FROM ft WHERE ft MATCH ?", [LONG], "admin")
    assert bench.run("DELETE FROM ft WHERE ft MATCH ?", ["a"], "admin").rows_written >= 1


def test_a_statement_is_checked_again_when_its_table_becomes_one_of_fts5(bench: Bench) -> None:
    bench.write("CREATE VIRTUAL TABLE ft USING fts5(body); CREATE VIEW seen AS SELECT name AS body FROM orders")
    sql = "SELECT count(*) FROM seen WHERE body = ?"
    assert bench.rows(sql, ["one"]) == [(1,)]
    bench.transaction(["DROP VIEW seen", "CREATE VIEW seen AS SELECT ft AS body FROM ft"])
    too_large(bench, sql, [LONG], "client")
