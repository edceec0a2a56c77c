"""The one list of who may call what, and a host that has a route of each kind."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from starbase_data_replication.plugin import plugin as data_replication
from starbase_host import Host, Route, hookimpl
from starbase_host.app import create_app
from tests.support.plugin_hosts import config_of

# The one list of who may call what. A route that is not here fails the suite, and so does one that no longer exists.
ROLES: dict[tuple[str, str], str | None] = {
    ("GET", "/health"): None,
    ("GET", "/openapi.json"): None,
    ("POST", "/query"): "client",
    ("POST", "/query/raw"): "client",
    ("GET", "/tables"): "client",
    ("GET", "/status"): "admin",
    ("GET", "/plugins"): "admin",
    ("POST", "/data-replication/configure"): "admin",
    ("DELETE", "/data-replication/configure/{name}"): "admin",
    ("POST", "/data-replication/start/{name}"): "admin",
    ("POST", "/data-replication/stop/{name}"): "admin",
    ("POST", "/data-replication/sync/{name}"): "admin",
    ("POST", "/data-replication/reset/{name}"): "admin",
    ("POST", "/data-replication/verify/{name}"): "admin",
    ("POST", "/data-replication/reconcile/{name}"): "admin",
    ("GET", "/data-replication/status"): "admin",
    ("GET", "/data-replication/logs"): "admin",
    ("GET", "/data-replication/dialects"): "admin",
    # Those of a third party, below.
    ("GET", "/third/open"): None,
    ("GET", "/third/read/{number}"): "client",
    ("PUT", "/third/read/{number}"): "client",
    ("PATCH", "/third/unsaid"): "admin",
}


class Third:
    """A plugin with a route of each role."""

    path_prefix = "/third"

    @hookimpl
    def register_routes(self, host: Host) -> list[Route]:
        async def answer(request: Any) -> Any:
            return {"role": getattr(request.state, "role", None)}

        return [
            Route("/third/open", answer, role=None, summary="For everybody"),
            Route("/third/read/{number:int}", answer, ("GET", "PUT"), "client", body={"type": "integer"}),
            Route("/third/unsaid", answer, ("PATCH",)),
        ]


@contextlib.asynccontextmanager
async def a_host(directory: Path) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    app = create_app(config_of(directory, {"data_replication": data_replication({}), "third": Third()}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host") as client,
    ):
        yield app, client
