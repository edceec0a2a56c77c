"""Who may call what: every route of the application, the plugins' too, for every caller and every method."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route as StarletteRoute

from starbase_host import ConfigError, Host, Route, hookimpl
from starbase_host.app import create_app
from tests.support.access import ROLES, a_host
from tests.support.hosts import ADMIN, CLIENT
from tests.support.plugin_hosts import config_of

pytestmark = pytest.mark.anyio

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW")

# A caller's Authorization headers, and the role that they give.
CALLERS: list[tuple[tuple[bytes, ...], str | None]] = [
    ((), None),
    ((f"Bearer {ADMIN}".encode(),), "admin"),
    ((f"bearer  {ADMIN} ".encode(),), "admin"),
    ((f"Bearer {CLIENT}".encode(),), "client"),
    *(
        ((text.encode("latin-1"),), None)
        for text in (
            "", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {ADMIN}x", f"Bearer {ADMIN[:-1]}", ADMIN,
            f"Token {ADMIN}", f"Basic {ADMIN}", f"Bearer {ADMIN.upper()}", "Bearer \xe9\xff",
            f"Bearer {ADMIN}, Bearer {ADMIN}", f"Bearer{ADMIN}", f"Bearer\t{ADMIN}", "Bearer null", "Bearer None",
        )
    ),
    # Only the first of several counts.
    ((b"Bearer wrong", f"Bearer {ADMIN}".encode()), None),
]  # fmt: skip


def routes_of(app: Any) -> Iterator[tuple[str, str]]:
    """Method and path of everything that the application answers."""
    for route in app.router.routes:
        assert isinstance(route, StarletteRoute), f"{route} is not a plain route: nothing guards it"
        for method in (route.methods or set()) - {"HEAD"}:
            yield method, re.sub(r":\w+}", "}", route.path)


def concrete(path: str) -> str:
    return path.replace("{number}", "1").replace("{name}", "x")


async def call(client: httpx.AsyncClient, method: str, path: str, headers: tuple[bytes, ...]) -> httpx.Response:
    sent = [(b"authorization", value) for value in headers]
    return await client.request(
        method, path, headers=sent, content=b"{}" if method in ("POST", "PUT", "PATCH") else b""
    )


async def test_every_route_for_every_caller(tmp_path: Path) -> None:
    async with a_host(tmp_path) as (app, client):
        assert sorted(routes_of(app)) == sorted(ROLES)
        for (method, path), role in ROLES.items():
            for headers, caller in CALLERS:
                # HEAD is answered wherever GET is, and to the same callers.
                for sent in ("GET", "HEAD") if method == "GET" else (method,):
                    response = await call(client, sent, concrete(path), headers)
                    _expect(response, role, caller, (sent, path, headers))


def _expect(response: httpx.Response, role: str | None, caller: str | None, what: tuple[Any, ...]) -> None:
    if role is not None and caller is None:
        assert response.status_code == 401, what
        assert response.headers["www-authenticate"] == "Bearer"
    elif role == "admin" and caller == "client":
        assert response.status_code == 403, what
    else:
        assert response.status_code in (200, 400, 404), (what, response.text)
    assert response.headers.get("access-control-allow-origin") == (None if role == "admin" else "*")
    assert response.headers["content-type"] == "application/json"
    if what[0] == "HEAD":
        return
    assert set(response.json()) in ({"result"}, {"error"}) or "openapi" in response.json()
    if not response.is_success:
        assert "result" not in response.json(), what


async def test_other_methods_and_other_spellings_reach_nothing(tmp_path: Path) -> None:
    async with a_host(tmp_path) as (_, client):
        for path in sorted({path for _, path in ROLES}):
            mine = {method for method, one in ROLES if one == path}
            mine |= {"HEAD"} if "GET" in mine else set()
            for headers, _ in CALLERS[:4]:
                options = await call(client, "OPTIONS", concrete(path), headers)
                assert (options.status_code, options.content) == (204, b"")
                for method in set(METHODS) - mine:
                    response = await call(client, method, concrete(path), headers)
                    assert response.status_code == 405, (method, path)
                    assert set(response.headers["allow"].split(", ")) == mine
                    assert method == "HEAD" or set(response.json()) == {"error"}
        for path in {path for (_, path), role in ROLES.items() if role is not None}:
            for other in spellings(concrete(path)):
                for method in ("GET", "POST", "DELETE", "HEAD"):
                    response = await call(client, method, other, ())
                    assert response.status_code in (401, 404, 405), (method, other, response.status_code)


def spellings(path: str) -> list[str]:
    """A path in ways that a guard by its text would not know again."""
    first, rest = path[1], path[2:]
    return [
        path + "/", "/" + path, path + "/.", path + "%2f", path + "%00", path + ";x=1", path + "?token=" + ADMIN,
        path.upper(), f"/%{ord(first):x}{rest}", path.replace("/", "/./"), "/health/.." + path, "/x/../" + path,
        path + "#", path.replace("/", "\\"), path + " ", path + "//",
    ]  # fmt: skip


async def test_a_websocket_is_closed(tmp_path: Path) -> None:
    async with a_host(tmp_path) as (app, _):
        sent = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        for path in ("/query", "/status", "/nowhere"):
            await app({"type": "websocket", "path": path, "headers": [], "query_string": b""}, receive, send)
        assert set(sent) == {"websocket.close"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"role": "root"}, "must be admin, client or None"),
        ({"role": ""}, "must be admin, client or None"),
        ({"summary": 1}, "not text"),
        ({"statuses": "200"}, "not a list of numbers"),
        ({"statuses": (500,)}, "not a list of numbers"),
        ({"body": []}, "not a JSON Schema"),
        ({"query": {"a": 1}}, "not a JSON Schema"),
        ({"body": {"a": object()}}, "not JSON"),
    ],
)
async def test_a_route_that_is_described_wrongly_stops_the_start(
    tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    class Wrong:
        path_prefix = "/wrong"

        @hookimpl
        def register_routes(self, host: Host) -> list[Route]:
            async def answer(request: Any) -> None:
                """Never called."""

            return [Route("/wrong/route", answer, **options)]

    async def start() -> None:
        app = create_app(config_of(tmp_path, {"wrong": Wrong()}))
        async with app.router.lifespan_context(app):
            pass

    with pytest.raises(ConfigError, match=expected):
        await start()
