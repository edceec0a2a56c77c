"""The hook `authenticate`: cookies and other credentials of plugins, their throttling, and that it fails closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from starlette.requests import Request

from starbase_host import Caller, Host, Route, hookimpl
from tests.support.hosts import CLIENT
from tests.support.plugin_hosts import InProcess, host_with


class Cookies:
    """Knows the cookies `ada` and `root`, and spoils its copy of the request."""

    def __init__(self) -> None:
        self.asked = 0
        self.callers: list[Caller] = []

    @hookimpl
    def authenticate(self, request: Request) -> Any:
        self.asked += 1
        user = request.cookies.get("user")
        request.scope["headers"].clear()
        return {"ada": Caller(role="client", name="ada"), "root": "admin"}.get(user or "")

    @hookimpl
    def register_routes(self, host: Host) -> list[Route]:
        return [Route("/cookies/me", self.me, role="client")]

    async def me(self, request: Request) -> Any:
        caller: Caller = request.state.caller
        return {"role": caller.role, "by": caller.by, "name": caller.name, "cookie": request.cookies.get("user")}


class Broken:
    """Raises, or returns what it is given."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    @hookimpl
    async def authenticate(self, request: Request) -> Any:
        if self.answer is None:
            raise ValueError("a secret reason")
        return self.answer


WRONG: dict[str, Any] = {
    "raises": None,
    "another role": "root",
    "a number": 1,
    "a number as the name": Caller(role="admin", name=cast(str, 7)),
}


async def ask(host: InProcess, path: str, cookie: str | None = None, *, token: str | None = None) -> Any:
    given = {"cookie": cookie and f"user={cookie}", "authorization": token and f"Bearer {token}"}
    headers = {name: value for name, value in given.items() if value}
    return await host._client.get(path, headers=headers)


@pytest.mark.anyio
async def test_a_plugin_knows_its_callers(tmp_path: Path) -> None:
    cookies = Cookies()
    async with host_with(tmp_path, {"cookies": cookies}) as host:
        answer = await ask(host, "/cookies/me", "ada")
        assert answer.json()["result"] == {"role": "client", "by": "cookies", "name": "ada", "cookie": "ada"}
        assert (await ask(host, "/status", "ada")).status_code == 403
        assert (await ask(host, "/status", "root")).status_code == 200
        assert (await ask(host, "/status", "eve")).status_code == 401
        assert (await ask(host, "/status")).status_code == 401
        asked = cookies.asked
        answer = await ask(host, "/cookies/me", "ada", token=CLIENT)
        assert (answer.json()["result"]["by"], cookies.asked) == ("token", asked), "a token needs no plugin"
        assert (await ask(host, "/health", "eve")).status_code == 200
        assert cookies.asked == asked, "nor does a route without a role"


@pytest.mark.anyio
@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
async def test_it_fails_closed_and_harms_no_other(tmp_path: Path, answer: Any) -> None:
    async with host_with(tmp_path, {"broken": Broken(answer), "cookies": Cookies()}) as host:
        assert (await ask(host, "/cookies/me", "ada")).status_code == 200
        refused = await ask(host, "/cookies/me", "eve")
        assert refused.status_code == 500
        assert "plugin broken: authenticate" in refused.json()["error"]
        assert "secret reason" not in refused.text
        assert (await ask(host, "/cookies/me", token=CLIENT)).status_code == 200


@pytest.mark.anyio
async def test_guesses_are_throttled(tmp_path: Path) -> None:
    cookies = Cookies()
    async with host_with(tmp_path, {"cookies": cookies}) as host:
        statuses = [(await ask(host, "/cookies/me", f"guess-{number}")).status_code for number in range(25)]
        assert statuses[:20] == [401] * 20
        assert 429 in statuses
        asked = cookies.asked
        assert (await ask(host, "/cookies/me", "ada")).status_code == 429
        assert cookies.asked == asked, "who guesses has to wait before a plugin is asked"
        assert (await ask(host, "/cookies/me", "ada", token=CLIENT)).status_code == 200, "a token never waits"
