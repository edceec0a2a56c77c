"""What the query hooks get of a statement: who asks, how long it ran, and where its columns come from."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from starbase_host import Query, Result, hookimpl
from tests.support.hosts import CLIENT
from tests.support.plugin_hosts import host_with


class Watching:
    def __init__(self) -> None:
        self.before: list[Query] = []
        self.after: list[tuple[Query, Result]] = []
        self.changes: dict[str, Any] = {}

    @hookimpl
    def before_query(self, query: Query) -> Query:
        self.before.append(query)
        return dataclasses.replace(query, sql=query.sql + " ", id="another", caller=None)

    @hookimpl
    def after_query(self, query: Query, result: Result) -> Result:
        self.after.append((query, result))
        return dataclasses.replace(result, **self.changes)


SCHEMA = """
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT);
INSERT INTO people VALUES (1, CAST(x'ff' AS TEXT));
CREATE VIEW named AS SELECT name AS called FROM people;
"""


@pytest.mark.anyio
async def test_what_the_hooks_get(tmp_path: Path) -> None:
    watching = Watching()
    async with host_with(tmp_path, {"watching": watching}) as host:
        await host.core.database.write(lambda connection: connection.execute(SCHEMA).fetchall())
        answer = await host.query("SELECT p.id AS n, 1 + 1, called FROM people p, named", token=CLIENT)
        assert answer.status_code == 200, answer.text
        await host.query("SELECT id FROM people WHERE 0")
        await host.query("SELECT name FROM sqlite_schema WHERE 0", token=CLIENT)
        watching.changes = {"columns": ("a", "b"), "rows": [(1, 2)]}
        assert (await host.query("SELECT id FROM people")).json()["result"]["rows"] == [[1, 2]]

    queries, results = zip(*watching.after, strict=True)
    assert results[0].origins == (("people", "id"), None, ("people", "name")), "also when the text is not UTF-8"
    assert results[1].origins == (("people", "id"),)
    assert results[2].origins == (("sqlite_schema", "name"),)
    assert all(0 < result.duration_ms < 60_000 for result in results)
    assert [query.id for query in queries] == [query.id for query in watching.before], "a plugin cannot change it"
    assert len({query.id for query in queries}) == 4
    assert all(re.fullmatch("[0-9a-f]{32}", query.id) for query in queries)
    callers = [query.caller for query in queries if query.caller is not None]
    assert [(caller.role, caller.by) for caller in callers] == [
        ("client", "token"), ("admin", "token"), ("client", "token"), ("admin", "token"),
    ]  # fmt: skip
