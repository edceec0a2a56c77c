"""One look at a MySQL server for all who wait for one: never one that began before it was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from starbase_data_replication.sources.mysql import alive
from starbase_data_replication.sources.mysql.alive import Look

SERVER = ("", "127.0.0.1", 3306)


class Server:
    """Looks that last until they are let go; each shows how many there have been."""

    def __init__(self) -> None:
        self.looks = 0
        self.may_end = asyncio.Event()
        self.has_begun = asyncio.Event()

    async def take(self) -> Look:
        self.looks += 1
        self.has_begun.set()
        await self.may_end.wait()
        return Look(server=str(self.looks))

    def ask(self, user: str = "starbase") -> asyncio.Task[Look]:
        return asyncio.create_task(self._ask(user))

    async def _ask(self, user: str) -> Look:
        return await alive._shared((user,), SERVER, self.take)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "PAUSE_SECONDS", 0.0)


def with_server(work: Callable[[Server], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await work(Server())

    return asyncio.run(run())


def test_who_asks_while_a_look_is_taken_waits_for_the_next_and_shares_it() -> None:
    async def work(server: Server) -> list[str]:
        first = server.ask()
        await server.has_begun.wait()
        later = [server.ask() for _ in range(20)]
        await asyncio.sleep(0)
        server.may_end.set()
        return [(await each).server for each in (first, *later)]

    assert with_server(work) == ["1"] + ["2"] * 20


def test_another_user_may_see_something_else_and_shares_nothing() -> None:
    async def work(server: Server) -> set[str]:
        server.may_end.set()
        asked = [server.ask(user) for user in ("one", "two", "one")]
        return {(await each).server for each in asked}

    assert with_server(work) == {"1", "2"}


@pytest.mark.parametrize("before", [True, False], ids=["before its turn", "while it looks"])
def test_one_that_is_cancelled_takes_nobody_with_it(before: bool) -> None:
    async def work(server: Server) -> list[str]:
        holder = server.ask()
        await server.has_begun.wait()
        server.has_begun.clear()
        leader = server.ask()
        await asyncio.sleep(0)
        others = [server.ask() for _ in range(3)]
        await asyncio.sleep(0)
        if not before:
            server.may_end.set()
            await holder
            server.may_end.clear()
            await server.has_begun.wait()
        leader.cancel()
        await asyncio.wait([leader])
        server.may_end.set()
        return [(await each).server for each in others]

    found = with_server(work)
    assert len(set(found)) == 1
    assert found[0] == ("2" if before else "3")
