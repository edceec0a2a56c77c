"""What the query hooks get of a statement: who asks, how long it ran, and where its columns come from."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from starbase_host import Host, Query, Result, hookimpl
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


class Keeper:
    """Keeps a secret, and the time at which it forgets it, in one transaction."""

    @hookimpl
    @contextlib.asynccontextmanager
    async def plugin_lifespan(self, host: Host) -> AsyncIterator[None]:
        def keep(connection: Any) -> None:
            connection.execute("CREATE TABLE tmp_kept (secret); INSERT INTO tmp_kept VALUES ('hushed')")
            host.alarms.set_in(connection, "forget", host.clock.now() + 3600, {"rows": 1})

        host.database.make_private("tmp_kept")
        await host.database.write(keep)
        yield


@pytest.mark.anyio
async def test_a_private_table_stays_private(tmp_path: Path) -> None:
    async with host_with(tmp_path, {"keeper": Keeper()}) as host:
        for sql in ("SELECT * FROM tmp_kept", "SELECT count(*) FROM TMP_Kept", "DROP TABLE tmp_kept"):
            refused = await host.query(sql)
            assert (refused.status_code, "hushed" in refused.text) == (403, False)
        answer = await host.query("SELECT plugin, name, payload FROM tmp_alarms")
        assert answer.json()["result"]["rows"] == [["keeper", "forget", '{"rows": 1}']]
        assert not hasattr(host.core.database.private_tables, "clear")
