"""Which runs may work at once: those of one server never take all places, however many databases it has."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from starbase_data_replication.connections import Connections
from starbase_data_replication.runs.slots import Slot, Slots
from starbase_data_replication.sources import Dialects
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.storage import SecretKeys


@pytest.mark.anyio
async def test_databases_of_one_server_leave_a_place_to_others() -> None:
    slots = Slots(total=5, per_source=4, per_server=4)
    granted: list[str] = []

    async def run(source: str, server: str) -> None:
        async with slots.hold(source, server):
            granted.append(source)
            await asyncio.sleep(3600)

    async with contextlib.AsyncExitStack() as stack:
        runs = [asyncio.create_task(run(f"evil {number}", "evil")) for number in range(9)]
        for each in runs:
            stack.callback(each.cancel)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(granted) == 4
        runs.append(asyncio.create_task(run("good", "good")))
        stack.callback(runs[-1].cancel)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert granted[4:] == ["good"]
        runs[0].cancel()
        await asyncio.wait({runs[0]})
        await asyncio.sleep(0)
        assert granted[5:] == ["evil 4"]


@pytest.mark.anyio
async def test_databases_that_are_quiet_by_turns_leave_a_place_too() -> None:
    """A quiet run gives its place to another, and works again when its source sends a byte."""
    slots = Slots(total=4, per_source=4, per_server=3)
    held: list[Slot] = []
    good = asyncio.Event()

    async def run(source: str) -> None:
        async with slots.hold(source, "evil") as slot:
            held.append(slot)
            await asyncio.sleep(3600)

    async def other() -> None:
        async with slots.hold("good", "good"):
            good.set()

    async with contextlib.AsyncExitStack() as stack:
        for number in range(6):
            stack.callback(asyncio.create_task(run(f"evil {number}")).cancel)
        for _ in range(12):
            await asyncio.sleep(0)
            for slot in held:
                slots.set_quiet(slot, True)
        for slot in held:
            slots.set_quiet(slot, False)
        stack.callback(asyncio.create_task(other()).cancel)
        async with asyncio.timeout(10):
            await good.wait()


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_databases_and_users_of_one_host_and_port_are_one_server(dialect: str) -> None:
    dialects = Dialects({"postgresql": PostgresqlDialect(), "mysql": MysqlDialect()})
    connections = Connections(dialects, secret_keys=SecretKeys(None), max_connections=1)

    def server(**changed: object) -> str:
        login = {"dialect": dialect, "host": "db.example", "user": "u", "password": "p", "database": "d"}
        return connections.server({**login, **changed})

    assert server() == server(database="e", user="v", password="q", host="DB.example")
    assert server() != server(port=1234)
    assert server() != server(host="other.example")
    assert connections.server({"dialect": dialect}) != server()
