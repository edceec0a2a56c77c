"""What a replica was must not come back: a run that has ended writes nothing, a target that was left is made again."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from starbase_data_replication.model.runs import RunKind
from starbase_data_replication.plugin import plugin as data_replication
from starbase_data_replication.runs import runner
from starbase_data_replication.runs.active_run import ActiveRun
from starbase_data_replication.storage import StoredReplication, store
from tests.support.hosts import running, until
from tests.support.plugin_hosts import Gate, InProcess, body, counted, host_with
from tests.support.servers import TestDatabase, fresh_database

pytestmark = pytest.mark.elsewhere_in_prove


async def asked(host: InProcess, path: str, body: Any = None) -> None:
    answer = await host.request("POST", f"/data-replication/{path}", body)
    assert answer.status_code in (200, 202), answer.text


async def rows(host: InProcess) -> Any:
    return (await host.query("SELECT id, v FROM t ORDER BY id")).json()["result"]["rows"]


@pytest.mark.parametrize("ended_by", ["reset", "stop"])
def test_a_run_that_has_ended_writes_nothing(
    source_database: TestDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ended_by: str,
) -> None:
    """A plugin holds a batch for longer than an interrupted run may take; the next run is there by then."""
    monkeypatch.setattr(runner, "LET_GO_SECONDS", 0.1)
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(9))")
    source_database.execute("INSERT INTO t VALUES (1, 'old'), (2, 'old'), (3, 'old')")

    async def play() -> None:
        gate = Gate()
        async with host_with(tmp_path, {"data_replication": data_replication({}), "gate": gate}) as host:
            # A row a second, so that a batch is held while the read waits for its next one.
            config = body(source_database, transforms={"gate": ["v"]}, maxRowsPerSecond=1)
            await asked(host, "configure", {**config, "maxRowsPerSecond": None})
            await asked(host, "sync/t")
            await counted(host, 3)
            await asked(host, "configure", config)
            gate.closed = True
            await asked(host, "reset/t?wait=false")
            await asyncio.wait_for(gate.reached.wait(), 30)
            ended = (await host.status("t"))["progress"]["run_id"]
            source_database.execute("DELETE FROM t WHERE id = 1")
            source_database.execute("UPDATE t SET v = 'new'")
            await asked(host, "reset/t?wait=false" if ended_by == "reset" else "stop/t")
            if ended_by == "reset":
                await host.until_status(
                    "t", lambda now: now["progress"]["run_id"] != ended and now["progress"]["rows"] > 0
                )
            gate.opened.set()
            await host.until_status("t", lambda now: not now["is_running"])
            if ended_by == "stop":
                await asked(host, "sync/t")
            assert await rows(host) == [[2, "new"], [3, "new"]]
            await counted(host, 2)

    asyncio.run(play())
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_batch_that_came_too_late_is_not_logged_as_an_error(
    source_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is refused while the read waits for its next one; then the run ends, and no caller waits for it."""
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(9))")
    source_database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    refused = threading.Event()
    check_current = store.check_current

    def checked(connection: apsw.Connection, stored: StoredReplication) -> None:
        try:
            check_current(connection, stored)
        except store.Superseded:
            refused.set()
            raise

    monkeypatch.setattr(store, "check_current", checked)

    async def play() -> None:
        gate = Gate()
        async with host_with(tmp_path, {"data_replication": data_replication({}), "gate": gate}) as host:
            config = body(source_database, transforms={"gate": ["v"]}, maxRowsPerSecond=1)
            await asked(host, "configure", config)
            gate.closed = True
            await asked(host, "sync/t?wait=false")
            await asyncio.wait_for(gate.reached.wait(), 30)
            # What a change does first; it ends the run right after.
            sql = "UPDATE tmp_replication_configs SET revision = revision + 1"
            await host.core.database.write(lambda connection: connection.execute(sql).fetchall())
            gate.opened.set()
            assert await asyncio.to_thread(refused.wait, 30)
            # A caller that waited for the refused transaction has its error when a later one is done.
            await host.core.database.write(lambda connection: None)
            await asked(host, "stop/t")

    asyncio.run(play())
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_refused_run_learns_what_is_under_way(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(9))")
    source_database.execute("INSERT INTO t VALUES (1, 'a')")

    async def play() -> None:
        gate = Gate()
        async with host_with(tmp_path, {"data_replication": data_replication({}), "gate": gate}) as host:
            await asked(host, "configure", body(source_database, transforms={"gate": ["v"]}, isActive=False))
            await asked(host, "sync/t")
            source_database.execute("INSERT INTO t VALUES (2, 'b')")
            gate.closed = True
            verification = asyncio.create_task(asked(host, "verify/t"))
            await asyncio.wait_for(gate.reached.wait(), 30)
            refused = await host.request("POST", "/data-replication/sync/t")
            assert refused.status_code == 409
            assert "the verification of t has not ended" in refused.text
            gate.opened.set()
            await verification

    asyncio.run(play())


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [RunKind.SCHEDULED, RunKind.VERIFY])
async def test_a_tick_of_one_that_is_deleted_meanwhile(
    kind: RunKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not an error: an alarm that failed would come again and again, and be an error in the log."""
    start = runner.Runner.start

    async def deleted_first(self: runner.Runner, name: str, of: RunKind, **more: Any) -> ActiveRun:
        if of is kind:
            await self.store.database.write(lambda connection: store.delete(connection, name))
        return await start(self, name, of, **more)

    monkeypatch.setattr(runner.Runner, "start", deleted_first)
    unreachable = {"dialect": "mysql", "host": "127.0.0.1", "port": 1, "user": "u", "database": "d"}
    body = {"name": "t", "sourceConfig": unreachable, "sourceTable": "t", "targetTable": "t"}
    alarm = "sync:t" if kind is RunKind.SCHEDULED else "verify:t"
    left = f"SELECT name FROM tmp_alarms WHERE name = '{alarm}'"
    async with host_with(tmp_path, {"data_replication": data_replication({})}) as host:
        await asked(host, "configure", {**body, "verifyIntervalMinutes": 0.01})
        async with asyncio.timeout(30):
            while True:
                if not (await host.query(left)).json()["result"]["rows"]:
                    break
                await asyncio.sleep(0.01)
    assert "no replication is named t" not in caplog.text


def test_a_target_that_another_replication_used_meanwhile_is_loaded_again(
    source_database: TestDatabase, tmp_path: Path
) -> None:
    """t leaves its target, u is copied there and leaves it, and t comes back."""
    for name in ("t", "u"):
        source_database.execute(f"CREATE TABLE {name} (id int PRIMARY KEY)")
    source_database.execute("INSERT INTO t VALUES (1), (2)")
    source_database.execute("INSERT INTO u VALUES (11), (12), (13)")
    with running(tmp_path) as host:
        host.configure(**body(source_database))
        host.sync("t")
        host.configure(**body(source_database, targetTable="elsewhere"))
        other = {"name": "u", "sourceTable": "u"}
        host.configure(**body(source_database, **other))
        host.sync("u")
        host.configure(**body(source_database, **other, targetTable="elsewhere too"))
        host.configure(**body(source_database))
        host.sync("t")
        assert host.query("SELECT id FROM t ORDER BY id") == [[1], [2]]
        until(lambda: host.status("t")["row_count"] == 2, what="its number")


@pytest.mark.anyio
async def test_a_target_that_was_dropped_is_counted_when_it_is_made_again(
    source_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the load that begins then gets no further than its first batch."""
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(9))")
    source_database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    gate = Gate()
    async with host_with(tmp_path, {"data_replication": data_replication({}), "gate": gate}) as host:
        config = body(source_database, transforms={"gate": ["v"]})
        await asked(host, "configure", config)
        await asked(host, "sync/t")
        await counted(host, 3)
        assert (await host.query("DROP TABLE t")).status_code == 200
        gate.closed = True
        await asked(host, "sync/t?wait=false")
        await asyncio.wait_for(gate.reached.wait(), 30)
        await asked(host, "stop/t")
        gate.opened.set()
        assert await rows(host) == []
        await counted(host, 0)


def test_a_reset_ends_the_runs_of_its_whole_group(
    source_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A plugin holds a batch of another of the group: its run counted as under way, and the reset was refused."""
    monkeypatch.setattr(runner, "LET_GO_SECONDS", 0.1)
    for name in ("t", "u"):
        source_database.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, v varchar(9))")
        source_database.execute(f"INSERT INTO {name} VALUES (1, 'old'), (2, 'old')")

    async def play() -> None:
        gate = Gate()
        async with host_with(tmp_path, {"data_replication": data_replication({}), "gate": gate}) as host:
            await asked(host, "configure", body(source_database, group="g"))
            other = {"name": "u", "sourceTable": "u", "targetTable": "u", "group": "g", "transforms": {"gate": ["v"]}}
            # Both in one run: only those that are active are taken along. A row a second, so that a batch is held while
            # the read waits for its next one.
            await asked(host, "configure", body(source_database, **other, maxRowsPerSecond=1))
            await asked(host, "start/u")
            await host.until_status("u", lambda now: now["last_success_at"] is not None and not now["is_running"])
            gate.closed = True
            source_database.execute("INSERT INTO u VALUES (3, 'new'), (4, 'new'), (5, 'new')")
            await asked(host, "sync/t?wait=false")
            await asyncio.wait_for(gate.reached.wait(), 30)
            source_database.execute("DELETE FROM t WHERE id = 1")
            await asked(host, "reset/t?wait=false")
            gate.opened.set()
            await host.until_status("t", lambda now: not now["is_running"])
            assert await rows(host) == [[2, "old"]]
            found = (await host.query("SELECT count(*) FROM u")).json()["result"]["rows"]
            assert found == [[5]]

    asyncio.run(play())
    gc.collect()
    assert "never retrieved" not in caplog.text


class Late:
    """The members of a group are read, but reach the caller only when this is opened: once, after it was armed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.armed = threading.Event()
        self.reached = threading.Event()
        self.opened = threading.Event()
        members = runner._members

        def late(connection: apsw.Connection, *, name: str, kind: RunKind) -> tuple[str, ...]:
            found = members(connection, name=name, kind=kind)
            if self.armed.is_set():
                self.armed.clear()
                self.reached.set()
                assert self.opened.wait(30)
            return found

        monkeypatch.setattr(runner, "_members", late)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["moves", "leaves", "stops", "is deleted", "joins"])
async def test_a_group_that_changes_while_its_run_begins(
    how: str, source_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change finds no run that it could end; the run is then one of those that are of the group by now."""
    late = Late(monkeypatch)
    with fresh_database(source_database.dialect, source_database.server) as other:
        for name in ("t", "u"):
            source_database.execute(f"CREATE TABLE {name} (id int PRIMARY KEY)")
            source_database.execute(f"INSERT INTO {name} VALUES (1)")
        other.execute("CREATE TABLE u (id int PRIMARY KEY)")
        other.execute("INSERT INTO u VALUES (1), (7)")
        u = {"name": "u", "sourceTable": "u", "targetTable": "u"}
        async with host_with(tmp_path, {"data_replication": data_replication({})}) as host:

            async def ids(table: str) -> Any:
                return (await host.query(f"SELECT id FROM {table} ORDER BY id")).json()["result"]["rows"]

            async def runs_of(name: str) -> int:
                sql = f"SELECT count(*) FROM tmp_replication_logs WHERE config_name = '{name}'"
                return int((await host.query(sql)).json()["result"]["rows"][0][0])

            await asked(host, "configure", body(source_database, group="g", syncIntervalMinutes=60))
            await asked(host, "configure", body(source_database, **u, group="g", syncIntervalMinutes=60))
            await asked(host, "start/u")
            await host.until_status("u", lambda now: now["last_success_at"] is not None and not now["is_running"])
            await asked(host, "sync/t")
            if how == "joins":
                await asked(host, "stop/u")
            for name in ("t", "u"):
                source_database.execute(f"INSERT INTO {name} VALUES (2)")
            before = await runs_of("u")
            late.armed.set()
            sync = asyncio.create_task(asked(host, "sync/t"))
            assert await asyncio.to_thread(late.reached.wait, 30)
            if how == "moves":
                away = body(other, **u, group=None)
                await asked(host, "configure", away)
            elif how == "leaves":
                await asked(host, "configure", {"name": "t", "group": None})
            elif how == "stops":
                await asked(host, "stop/u")
            elif how == "joins":
                await host.core.database.write(lambda connection: store.set_active(connection, "u", True))
            else:
                assert (await host.request("DELETE", "/data-replication/configure/u")).status_code == 200
            late.opened.set()
            await sync
            if how == "joins":
                # The members of a group are recorded one after the other.
                async with asyncio.timeout(30):
                    while await runs_of("u") == before:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            assert await ids("t") == [[1], [2]]
            assert await ids("u") == ([[1], [2]] if how == "joins" else [[1]])
            assert await runs_of("u") == before + (how == "joins")
            if how == "moves":
                await asked(host, "sync/u")
                assert await ids("u") == [[1], [7]]


@pytest.mark.anyio
async def test_one_that_is_stopped_while_its_tick_begins_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop finds no run to end, and none begins."""
    late = Late(monkeypatch)
    unreachable = {"dialect": "mysql", "host": "127.0.0.1", "port": 1, "user": "u", "database": "d"}
    config = {"name": "t", "sourceConfig": unreachable, "sourceTable": "t", "targetTable": "t"}
    async with host_with(tmp_path, {"data_replication": data_replication({})}) as host:
        late.armed.set()
        await asked(host, "configure", {**config, "isActive": True, "syncIntervalMinutes": 60})
        assert await asyncio.to_thread(late.reached.wait, 30)
        await asked(host, "stop/t")
        late.opened.set()
        delivery = host.core.alarms._tasks.get(("data_replication", "sync:t"))
        if delivery is not None:
            await asyncio.wait({delivery}, timeout=30)
        # The tick has ended, and has not set an alarm again that the stop had forgotten.
        assert (await host.query("SELECT 1 FROM tmp_alarms WHERE name = 'sync:t'")).json()["result"]["rows"] == []
        assert (await host.query("SELECT status FROM tmp_replication_logs")).json()["result"]["rows"] == []
        assert not (await host.status("t"))["is_running"]
