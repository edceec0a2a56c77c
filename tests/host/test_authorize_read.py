"""The hook `authorize_read`: columns that a role may not read, or reads as NULL, in every expression."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from starbase_host import hookimpl
from tests.support.hosts import ADMIN, CLIENT
from tests.support.plugin_hosts import InProcess, host_with

CANARY = "ada@example.com"
SCHEMA = f"""
CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT, salary INTEGER, name TEXT);
INSERT INTO people VALUES (1, '{CANARY}', 4711, 'Ada'), (2, 'bea@example.com', 4712, 'Bea');
CREATE INDEX by_email ON people (email);
CREATE TABLE orders (id INTEGER PRIMARY KEY, person INTEGER, email TEXT);
INSERT INTO orders VALUES (1, 1, '{CANARY}');
CREATE TABLE closed (id INTEGER PRIMARY KEY);
CREATE VIEW masked AS SELECT id, email AS contact, name FROM people;
CREATE VIEW joined AS SELECT email FROM people FULL JOIN (SELECT NULL AS email WHERE 0) USING (email);
CREATE VIRTUAL TABLE notes USING fts5(body);
INSERT INTO notes VALUES ('hello world');
"""


class Rules:
    """Masks e-mail addresses for clients, denies salaries to both roles, and a whole table to clients."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.fails = False

    @hookimpl
    async def authorize_read(self, role: str, table: str, column: str) -> Any:
        self.asked[role, table, column] += 1
        if self.fails:
            raise ValueError("a bug")
        if table == "closed" and role == "client":
            return "deny"
        if (table, column) == ("people", "email") and role == "client":
            return "null"
        if (table, column) == ("people", "salary"):
            return "deny"
        return None


class Lenient:
    """Allows everything; the strictest answer counts."""

    @hookimpl
    def authorize_read(self, column: str) -> str:
        return "allow"


@pytest.fixture
def rules() -> Rules:
    return Rules()


@pytest.fixture
async def host(tmp_path: Path, rules: Rules) -> AsyncIterator[InProcess]:
    async with host_with(tmp_path, {"rules": rules, "lenient": Lenient()}) as host:
        await host.core.database.write(lambda connection: connection.execute(SCHEMA).fetchall())
        yield host


async def rows(host: InProcess, sql: str, token: str = CLIENT) -> Any:
    answer = await host.query(sql, token=token)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]["rows"]


MASKED = {
    "SELECT email FROM people": [[None], [None]],
    "SELECT email AS name FROM people": [[None], [None]],
    "SELECT id, upper(email) || 'x', email IS NULL FROM people WHERE id = 1": [[1, None, 1]],
    "SELECT id FROM people WHERE email = 'ada@example.com'": [],
    "SELECT id FROM people WHERE email LIKE 'a%'": [],
    "SELECT count(email), max(email), group_concat(email) FROM people": [[0, None, None]],
    "SELECT (SELECT email FROM people LIMIT 1)": [[None]],
    "WITH p AS (SELECT email AS e FROM people) SELECT e FROM p": [[None], [None]],
    "SELECT contact FROM masked": [[None], [None]],
    "SELECT p.id FROM people p JOIN orders o ON o.email = p.email": [],
    "SELECT email FROM people UNION SELECT NULL": [[None]],
    "SELECT id FROM people GROUP BY email, id ORDER BY id": [[1], [2]],
    "SELECT json_object('e', email) FROM people WHERE id = 1": [['{"e":null}']],
    "SELECT count(*) FROM people": [[2]],
    "SELECT id FROM people INDEXED BY by_email WHERE email IS NULL": [[1], [2]],
}
DENIED = [
    "SELECT salary FROM people",
    "SELECT * FROM people",
    "SELECT id FROM people WHERE salary > 4711",
    "SELECT id FROM people ORDER BY salary",
    "SELECT sum(salary) FROM people",
    "SELECT count(*) FROM closed",
    "SELECT id FROM closed",
    "SELECT rowid FROM closed",
    "SELECT email FROM people FULL JOIN (SELECT NULL AS email WHERE 0) USING (email)",
    "SELECT email FROM people NATURAL FULL JOIN (SELECT NULL AS email WHERE 0)",
    "WITH guess(email) AS (VALUES ('ada@example.com')) SELECT count(*) FROM People JOIN guess USING (email)",
    "SELECT email FROM joined",
]


@pytest.mark.anyio
@pytest.mark.parametrize("sql", MASKED)
async def test_a_masked_column_is_null_in_every_expression(host: InProcess, sql: str) -> None:
    for _ in range(3):
        # The second time, the statement is prepared already.
        assert await rows(host, sql) == MASKED[sql]


@pytest.mark.anyio
@pytest.mark.parametrize("sql", DENIED)
async def test_a_denied_column_refuses_the_query(host: InProcess, sql: str) -> None:
    for _ in range(2):
        answer = await host.query(sql, token=CLIENT)
        assert answer.status_code == 403, answer.text
        assert CANARY not in answer.text


@pytest.mark.anyio
async def test_each_column_is_asked_about_once(host: InProcess, rules: Rules) -> None:
    for _ in range(2):
        await rows(host, "SELECT id, email FROM people")
        await rows(host, "SELECT email FROM people", ADMIN)
        assert await rows(host, "SELECT body FROM notes WHERE notes MATCH 'hello'") == [["hello world"]]
        assert await rows(host, "SELECT o.id FROM orders o JOIN (SELECT 1 AS id) USING (id)") == [[1]]
        assert await rows(host, "WITH x AS (SELECT 1) SELECT count(*) FROM x") == [[1]]
    assert set(rules.asked.values()) == {1}
    assert ("client", "x", "") not in rules.asked, "names that a client makes up would fill the memory"
    assert {key for key in rules.asked if key[1] == "people"} == {
        ("client", "people", "id"), ("client", "people", "email"), ("admin", "people", "email"),
    }  # fmt: skip


@pytest.mark.anyio
async def test_an_admin_and_writes(host: InProcess) -> None:
    assert await rows(host, "SELECT email FROM people WHERE id = 1", ADMIN) == [[CANARY]]
    for sql in (
        "SELECT salary FROM people",
        "CREATE TABLE copy AS SELECT salary FROM people",
        "CREATE INDEX by_salary ON people (salary)",
        "UPDATE people SET name = salary",
        "INSERT INTO orders (email) SELECT salary FROM people",
        "DELETE FROM people RETURNING salary",
    ):
        assert (await host.query(sql, token=ADMIN)).status_code == 403, sql
    await rows(host, "UPDATE people SET name = 'Eve' WHERE id = 1", ADMIN)
    body = {"transaction": [{"sql": "UPDATE people SET name = 'x'"}, {"sql": "SELECT salary FROM people"}]}
    assert (await host.request("POST", "/query", body)).status_code == 403
    assert await rows(host, "SELECT name FROM people", ADMIN) == [["Eve"], ["Bea"]]


@pytest.mark.anyio
async def test_tables_list_what_may_be_read(host: InProcess) -> None:
    answer = (await host.request("GET", "/tables", token=CLIENT)).json()["result"]
    tables = {table["name"]: [column["name"] for column in table["columns"]] for table in answer}
    assert tables["people"] == ["id", "email", "name"]
    assert "closed" not in tables


@pytest.mark.anyio
async def test_a_plugin_that_fails_refuses_the_query(host: InProcess, rules: Rules) -> None:
    rules.fails = True
    refused = await host.query("SELECT name FROM people", token=CLIENT)
    assert (refused.status_code, "plugin rules: authorize_read" in refused.text) == (500, True)
    rules.fails = False
    assert await rows(host, "SELECT name FROM people") == [["Ada"], ["Bea"]], "it is asked again"
