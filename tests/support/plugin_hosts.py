"""A host inside the test's own process, whose plugins are objects of the test."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import types
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from starbase_host import Clock, hookimpl
from starbase_host.app import Core, create_app
from starbase_host.config import HostConfig, PluginConfig
from tests.support.hosts import ADMIN, CLIENT
from tests.support.servers import TestDatabase


class InProcess:
    """A host that runs, and a client of it."""

    def __init__(self, core: Core, client: httpx.AsyncClient) -> None:
        self.core = core
        self._client = client

    async def request(self, method: str, path: str, body: Any = None, *, token: str | None = ADMIN) -> httpx.Response:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return await self._client.request(method, path, json=body, headers=headers)

    async def status(self, name: str) -> dict[str, Any]:
        """What status shows of a replication."""
        answer = await self.request("GET", "/data-replication/status")
        (found,) = (each for each in answer.json()["result"]["configs"] if each["name"] == name)
        config: dict[str, Any] = found
        return config

    async def until_status(self, name: str, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until status shows what is wanted."""
        async with asyncio.timeout(30):
            while True:
                if condition(await self.status(name)):
                    return
                await asyncio.sleep(0.01)

    async def query(self, sql: str, *, token: str = ADMIN) -> httpx.Response:
        return await self.request("POST", "/query/raw", {"sql": sql}, token=token)


class Gate:
    """A plugin that keeps the next batch until it is opened."""

    def __init__(self) -> None:
        self.closed = False
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    @hookimpl(optionalhook=True)
    async def transform_batch(self, replication: str, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if self.closed:
            self.closed = False
            self.reached.set()
            await self.opened.wait()
        return columns


def config_of(directory: Path, plugins: Mapping[str, object], **settings: Any) -> HostConfig:
    """A configuration that enables these objects as plugins, in this order."""
    found = []
    for name, instance in plugins.items():
        module = types.ModuleType(f"plugin_of_a_test_{uuid.uuid4().hex}")
        module.__dict__["plugin"] = lambda options, instance=instance: instance
        sys.modules[module.__name__] = module
        found.append(PluginConfig(name=name, module=module.__name__))
    return HostConfig(
        database=directory / "starbase.db", admin_token=ADMIN, client_token=CLIENT, plugins=tuple(found), **settings
    )


@contextlib.asynccontextmanager
async def host_with(
    directory: Path, plugins: Mapping[str, object], *, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[InProcess]:
    """A host with these plugins inside this context."""
    app = create_app(config_of(directory, plugins, **settings), clock=clock)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host") as client,
    ):
        yield InProcess(app.state.core, client)


def body(database: TestDatabase, **more: Any) -> dict[str, Any]:
    options = {"name": "t", "sourceConfig": database.source_config, "sourceTable": "t", "targetTable": "t"}
    return {**options, "isActive": False, "lookbackSeconds": 0, "trackingColumn": "id", **more}


async def counted(host: InProcess, rows: int) -> None:
    """Wait until status shows so many."""
    await host.until_status("t", lambda now: now["row_count"] == rows)
