"""What a user's SQL may and may not do under each role: QueryRunner on a real database, without HTTP."""

from __future__ import annotations

import json
import time
from typing import Any

import apsw
import pytest

from starbase_host.errors import (
    Forbidden,
)
from starbase_host.sandbox_rules import CLIENT_REFUSAL, HIDDEN_PREFIXES, Role
from tests.support.query_bench import CANARY, Bench, contents
from tests.support.sql_attacks import (
    ADMIN_ALLOWED,
    ADMIN_FORBIDDEN,
    ADMIN_REFUSED,
    CLIENT_FORBIDDEN,
    CLIENT_HARMLESS,
    CLIENT_STOPPED,
    lines,
)


def test_there_are_a_hundred_attacks() -> None:
    assert len(lines(CLIENT_FORBIDDEN)) + len(lines(CLIENT_STOPPED)) >= 200


@pytest.mark.parametrize("sql", lines(CLIENT_FORBIDDEN))
def test_a_client_is_forbidden(shared: Bench, sql: str) -> None:
    before = contents(shared)
    error = shared.refusal(sql)
    assert isinstance(error, Forbidden)
    assert "hushed" not in str(error)
    assert "tmp_vault" not in str(error)
    assert CANARY not in str(error)
    assert contents(shared) == before
    with pytest.raises(Forbidden):
        shared.transaction([sql], "client")


@pytest.mark.parametrize("sql", lines(CLIENT_STOPPED))
def test_a_client_is_stopped(shared: Bench, sql: str) -> None:
    started = time.monotonic()
    error = shared.refusal(sql)
    assert error.status in (400, 403, 408, 413)
    assert time.monotonic() - started < 10
    assert CANARY not in str(error)


@pytest.mark.parametrize("sql", lines(CLIENT_HARMLESS))
def test_a_client_learns_nothing(shared: Bench, sql: str) -> None:
    answer = json.dumps(shared.json(sql, raw=True))
    assert CANARY not in answer
    if "sqlite_" in sql.lower() or "pragma" in sql.lower():
        for hidden in ("hushed", "tmp_", "over_notes", "over_vault", "notes_search", "watched_delete", "sqlite_stat"):
            assert hidden not in answer


VISIBLE = {
    "orders", "counted", "watched", "over_orders", "search", "search_data", "search_idx", "search_content",
    "search_docsize", "search_config", "places", "places_node", "places_parent", "places_rowid",
}  # fmt: skip


def test_a_client_sees_what_there_is(bench: Bench) -> None:
    bench.write("CREATE INDEX by_name ON orders(name); CREATE INDEX tmp_mark ON orders(1) WHERE 0")
    for sql in (
        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')",
        'SELECT "main"."sqlite_master"."name" FROM "main"."sqlite_master" WHERE type <> \'index\'',
        "SELECT name FROM pragma_table_list",
        "SELECT m.name FROM SQLITE_SCHEMA m JOIN pragma_table_list USING (name)",
    ):
        assert {name for (name,) in bench.rows(sql)} == VISIBLE, sql
    listed = bench.run("PRAGMA table_list")
    assert listed.columns == ("schema", "name", "type", "ncol", "wr", "strict")
    assert {row[1] for row in listed.rows} == VISIBLE
    assert bench.rows("PRAGMA table_list('ORDERS')") == [("main", "orders", "table", 3, 0, 0)]
    columns = [(0, "id", "INTEGER", 0, None, 1), (1, "name", "TEXT", 0, None, 0), (2, "total", "REAL", 0, None, 0)]
    for sql in ("PRAGMA table_info(orders)", "pragma main.table_info('Orders');", 'PRAGMA table_info = "orders"'):
        assert bench.rows(sql) == columns, sql
    assert bench.rows("SELECT * FROM pragma_table_info('orders')") == columns
    assert bench.rows("SELECT * FROM pragma_table_info(?)", ["orders"]) == columns
    assert bench.rows("PRAGMA index_list(orders)") == [(1, "by_name", 0, "c", 0)]
    assert bench.rows("SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'index'") == [
        ("by_name", "orders", "CREATE INDEX by_name ON orders(name)")
    ]
    found = bench.rows("SELECT t.name, count(*) FROM sqlite_schema t, pragma_table_info(t.name) GROUP BY 1")
    assert dict(found)["orders"] == 3
    bench.write("CREATE TABLE fresh(a, b REFERENCES tmp_notes); CREATE VIEW over_fresh AS SELECT a FROM fresh")
    assert bench.rows("SELECT name, sql FROM sqlite_schema WHERE name LIKE '%fresh'") == [
        ("fresh", None),
        ("over_fresh", "CREATE VIEW over_fresh AS SELECT a FROM fresh"),
    ]
    assert bench.transaction([("SELECT count(*) FROM sqlite_schema WHERE name = 'fresh'", None)], "client")[0].rows == [
        (1,)
    ]
    bench.database.make_private("fresh")
    assert bench.rows("SELECT name FROM sqlite_schema WHERE name LIKE '%fresh'") == []
    assert bench.rows("PRAGMA table_info(fresh)") == []
    error = bench.refusal("SELECT nothing FROM sqlite_schema")
    assert (error.status, "nothing" in str(error), "visible" in str(error)) == (400, True, False)
    assert ("table", "tmp_notes") in bench.rows("SELECT type, name FROM sqlite_schema", role="admin")


@pytest.mark.parametrize("name", ["tmp_notes", "tmp_nothing", "sqlite_stat1", "sqlite_nothing"])
@pytest.mark.parametrize(
    "sql", ["SELECT * FROM {}", "SELECT nothing FROM {}", "SELECT {}.id FROM orders", "SELECT FROM {}"]
)
def test_what_is_hidden_looks_like_what_is_not_there(shared: Bench, sql: str, name: str) -> None:
    error = shared.refusal(sql.format(name))
    assert isinstance(error, Forbidden)
    assert str(error) == CLIENT_REFUSAL


def test_a_client_reads(shared: Bench) -> None:
    result = shared.run("SELECT id, name, total FROM orders ORDER BY id")
    assert result.columns == ("id", "name", "total")
    assert result.rows == [(1, "one", 1.5), (2, "two", 2.5), (3, "three", None)]
    assert (result.rows_read, result.rows_written) == (3, 0)
    assert shared.rows("SELECT count(*) FROM over_orders") == [(3,)]
    assert shared.rows("SELECT highlight(search, 0, '<', '>') FROM search('hello')") == [("<hello> world",)]
    assert shared.rows("SELECT x FROM places WHERE id = 1") == [(2.0,)]
    assert shared.rows("SELECT value FROM json_each('[1, 2]')") == [(1,), (2,)]
    assert shared.rows("SELECT trim('xxaxx', 'x'), ltrim('xa', 'x'), rtrim('ax', 'x'), trim(' a ')") == [
        ("a", "a", "a", "a")
    ]


def test_a_client_sees_a_table_at_once_and_not_a_table_that_is_gone(bench: Bench) -> None:
    for name in ("dbstat", "fresh"):
        assert bench.refusal(f"SELECT a FROM {name}").status in (400, 403)
    bench.write("CREATE TABLE fresh(a); CREATE VIRTUAL TABLE spots USING rtree(id, x, y)")
    assert bench.rows("SELECT a FROM fresh") == []
    assert bench.rows("SELECT * FROM spots") == []
    bench.write("CREATE TABLE unrelated(a)")
    assert bench.rows("SELECT * FROM spots") == []
    bench.write("DROP TABLE fresh")
    assert bench.refusal("SELECT a FROM fresh").status == 400


def test_the_same_text_is_judged_for_each_role(bench: Bench) -> None:
    for _ in range(3):
        assert bench.rows("SELECT hushed FROM tmp_notes", role="admin") == [(CANARY,)]
        assert isinstance(bench.refusal("SELECT hushed FROM tmp_notes"), Forbidden)


def test_a_table_that_becomes_private_leaves_the_statement_cache(bench: Bench) -> None:
    roles: tuple[Role, ...] = ("admin", "client")
    for role in roles:
        for _ in range(3):
            bench.rows("SELECT name FROM orders", role=role)
    bench.database.make_private("Orders")
    for role in roles:
        assert isinstance(bench.refusal("SELECT name FROM orders", role=role), Forbidden)
        assert isinstance(bench.refusal("SELECT id FROM over_orders", role=role), Forbidden)


@pytest.mark.parametrize("sql", lines(ADMIN_FORBIDDEN))
def test_even_an_admin_is_forbidden(shared: Bench, sql: str) -> None:
    before = contents(shared)
    error = shared.refusal(sql, role="admin")
    assert isinstance(error, Forbidden)
    assert CANARY not in str(error)
    assert contents(shared) == before


@pytest.mark.parametrize("sql", lines(ADMIN_REFUSED))
def test_even_an_admin_is_refused(shared: Bench, sql: str) -> None:
    before = contents(shared)
    assert shared.refusal(sql, role="admin").status in (400, 403, 413)
    assert contents(shared) == before


def test_an_admin_may_do_the_rest(bench: Bench) -> None:
    for sql in lines(ADMIN_ALLOWED):
        bench.run(sql, role="admin")


def test_the_host_analyzes_private_tables_and_an_admin_does_not_see_the_samples(bench: Bench) -> None:
    assert bench.rows("SELECT count(*) FROM sqlite_stat4 WHERE tbl = 'tmp_vault'", role="admin") == [(1,)]
    bench.run("DROP TABLE sqlite_stat4", role="admin")
    bench.run("ANALYZE", role="admin")
    sampled = bench.rows("SELECT DISTINCT tbl FROM sqlite_stat4", role="admin")
    assert ("tmp_notes",) in sampled
    assert ("tmp_vault",) not in sampled


def test_the_writer_is_left_as_it_was(bench: Bench) -> None:
    def state(connection: apsw.Connection) -> list[Any]:
        limits = [number for name, number in vars(apsw).items() if name.startswith("SQLITE_LIMIT_")]
        return [
            connection.authorizer,
            connection.exec_trace,
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1),
            *(connection.limit(number) for number in limits),
        ]

    before = bench.wait(bench.database.write(state))
    bench.run("INSERT INTO orders VALUES (9, 'x', 1)", role="admin")
    for sql in ("INSERT INTO orders VALUES (9, 'x', 1)", "DELETE FROM tmp_vault", "INSERT INTO orders SELEC"):
        bench.refusal(sql, role="admin")
    assert bench.wait(bench.database.write(state)) == before
    bench.write("UPDATE tmp_vault SET hushed = 'the host may'")


def test_a_trigger_of_an_admin_does_not_read_private_tables_for_the_host(bench: Bench) -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON orders BEGIN INSERT INTO tmp_notes SELECT NULL, hushed FROM {}; END"
    for name in ("tmp_vault", '"TMP_VAULT"', "main.[Tmp_Vault]", "over_vault JOIN tmp_vault"):
        assert isinstance(bench.refusal(trigger.format(name), role="admin"), Forbidden)
    assert isinstance(bench.refusal("CREATE VIEW v AS SELECT hushed AS h FROM tmp_vault", role="admin"), Forbidden)


def test_the_names_that_are_hidden_are_those_of_the_contract() -> None:
    assert HIDDEN_PREFIXES == (b"tmp_", b"sqlite_")


def test_an_index_is_not_led_to_a_hidden_table_later(bench: Bench) -> None:
    bench.run("CREATE VIEW names AS SELECT id, name FROM orders", role="admin")
    bench.run("CREATE VIRTUAL TABLE named USING fts5(name, content='names', content_rowid='id')", role="admin")
    bench.run("INSERT INTO named(named) VALUES ('rebuild')", role="admin")
    assert bench.rows("SELECT rowid FROM named('two')") == [(2,)]
    for statements in (
        ["DROP VIEW names", "CREATE VIEW names AS SELECT id, hushed AS name FROM tmp_notes"],
        ["DROP VIEW names", "CREATE VIEW names AS SELECT rowid AS id, hushed AS name FROM over_over_notes"],
    ):
        with pytest.raises(Forbidden, match="a full-text index would show the role client"):
            bench.transaction(statements, "admin")
    assert bench.rows("SELECT rowid FROM named('two')") == [(2,)]
    # What has nothing to do with it is made as ever, beside an index that is there already.
    bench.run("CREATE VIEW other_notes AS SELECT hushed FROM over_notes", role="admin")
    bench.run("CREATE VIRTUAL TABLE own USING fts5(over_notes)", role="admin")
    bench.run("INSERT INTO own VALUES ('mine')", role="admin")
    assert bench.rows("SELECT * FROM own('mine')") == [("mine",)]


def test_a_view_that_never_ends_does_not_hold_up_the_list(bench: Bench) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    bench.run(f"CREATE VIEW filled AS WITH m AS MATERIALIZED ({endless}) SELECT x.i FROM m x, m y WHERE x.i = y.i",
              role="admin")  # fmt: skip
    assert bench.rows("SELECT name FROM sqlite_schema WHERE name = 'filled'") == [("filled",)]
