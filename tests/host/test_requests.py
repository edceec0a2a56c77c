"""What a caller sends and the host does not know: it is refused by name, and nothing is done in silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from starbase_host import Host, Route, hookimpl
from tests.support.hosts import ADMIN, HostProcess, running
from tests.support.plugin_hosts import host_with

PREFIX = "/data-replication"
# Nothing listens on port 1: a run that is begun all the same is soon done with.
SOURCE = {"dialect": "postgresql", "host": "127.0.0.1", "port": 1, "user": "u"}
BODY = {"name": "t", "sourceConfig": SOURCE, "sourceTable": "t", "targetTable": "t", "isActive": False}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(tmp_path_factory.mktemp("requests")) as host:
        host.configure(**BODY)
        yield host
        assert host.logs() == [], "a mistake has begun a run"
        assert host.status("t")["is_active"] == 0


@pytest.mark.anyio
async def test_a_host_answers_others_while_it_takes_a_long_body_apart(host: HostProcess) -> None:
    body = b'{"sql": "SELECT 1", "params": [' + b"{}," * 1_300_000 + b"1]}"
    headers = {"authorization": f"Bearer {ADMIN}"}
    waits = []
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=host.url, timeout=60) as client:
        posting = asyncio.create_task(client.post("/query", content=body, headers=headers))
        while not posting.done():
            asked = time.monotonic()
            assert (await client.get("/health")).status_code == 200
            waits.append(time.monotonic() - asked)
        answer = await posting
    assert (answer.status_code, "32,766" in answer.text, len(answer.text) < 200) == (400, True, True)
    # On the loop, one of them would wait for nearly all of it.
    assert max(waits) < (time.monotonic() - began) / 2


def refused(host: HostProcess, method: str, path: str, body: Any = None) -> str:
    """The error of a request that is answered with 400."""
    response = host.request(method, path, body)
    assert response.status_code == 400, (method, path, response.text)
    return str(response.json()["error"])


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("POST", "/sync/t?Wait=false", "Wait is not a parameter of this route; known: wait"),
        ("POST", "/sync/t?foo=1&bar", "foo is not a parameter of this route; known: wait; bar is not a parameter"),
        ("POST", "/sync/t?wait=false&wait=true", "wait occurs twice; give it once"),
        ("POST", "/sync/t?force=true", "force is not a parameter of this route; known: wait"),
        ("POST", "/reset/t?force=true", 'force belongs in the body: {"force": true}'),
        ("POST", "/verify/t?repair=true", 'repair belongs in the body: {"repair": true}'),
        ("POST", "/reconcile/t?force", 'force belongs in the body: {"force": true}'),
        ("POST", "/start/t?wait=false", "wait is not a parameter of this route; it takes none"),
        ("POST", "/stop/t?=1", "(no name) is not a parameter of this route; it takes none"),
        ("POST", "/configure?name=t", "name belongs in the body"),
        ("DELETE", "/configure/t?force=1", "force is not a parameter of this route; it takes none"),
        ("GET", "/logs?Limit=5", "Limit is not a parameter of this route; known: limit, name"),
        ("GET", "/logs?limit=5&limit=6", "limit occurs twice; give it once"),
        ("GET", "/status?name=t", "name is not a parameter of this route; it takes none"),
    ],
)
def test_a_parameter_that_the_plugin_does_not_know(host: HostProcess, method: str, path: str, error: str) -> None:
    assert refused(host, method, PREFIX + path).startswith(error)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/query"), ("POST", "/query/raw"), ("GET", "/status"), ("GET", "/plugins")],
)
def test_a_parameter_that_the_host_does_not_know(host: HostProcess, method: str, path: str) -> None:
    body = {"sql": "SELECT 1"} if method == "POST" else None
    assert refused(host, method, path + "?Foo=1", body) == "Foo is not a parameter of this route; it takes none"
    assert host.request(method, path + "?", body).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/openapi.json"])
def test_what_a_probe_adds_against_caches_is_let_through(host: HostProcess, path: str) -> None:
    assert host.request("GET", f"{path}?at=1", token=None).status_code == 200


def test_a_long_list_of_parameters_is_answered_shortly(host: HostProcess) -> None:
    error = refused(host, "GET", "/status?" + "&".join(f"{'x' * 300}{number}" for number in range(80)))
    assert len(error) < 3000


@pytest.mark.anyio
async def test_parameters_of_a_third_party(tmp_path: Path) -> None:
    """A route that says nothing of its query is left alone; one that says it is held to that, after its role."""

    class Third:
        @hookimpl
        def register_routes(self, host: Host) -> list[Route]:
            async def answer(request: Any) -> Any:
                return dict(request.query_params)

            said = {"a": {"type": "string"}}
            return [
                Route("/third/unsaid", answer),
                Route("/third/said", answer, query=said),
                Route("/third/none", answer, query={}),
            ]

    async with host_with(tmp_path, {"third": Third()}) as host:
        assert (await host.request("GET", "/third/unsaid?x=1&x=2")).json() == {"result": {"x": "2"}}
        assert (await host.request("GET", "/third/said?a=1")).json() == {"result": {"a": "1"}}
        error = {"error": "x is not a parameter of this route; known: a"}
        assert (await host.request("GET", "/third/said?x=1")).json() == error
        assert (await host.request("GET", "/third/none?x=1")).status_code == 400
        assert (await host.request("GET", "/third/said?x=1", token=None)).status_code == 401


@pytest.mark.parametrize("name", ["json_each", "JSON_Tree", "pragma_table_info", "pragma_function_list", "dbstat"])
def test_a_target_that_sqlite_has_itself(host: HostProcess, name: str) -> None:
    body = {**BODY, "name": "function", "targetTable": name}
    error = refused(host, "POST", f"{PREFIX}/configure", body)
    assert error == f"targetTable is a table-valued function of SQLite, {name}; choose another name"
    assert all(each["name"] != "function" for each in host.result("GET", f"{PREFIX}/status")["configs"])


@pytest.mark.parametrize(
    ("module", "ends"),
    [
        ("fts5(x)", "data idx content docsize config"),
        ("fts4(x)", "content segments segdir docsize stat"),
        ("fts3(x)", "content segments segdir"),
        ("rtree(id, a, b)", "node parent rowid"),
        # It keeps no text, and would take a table of that name for its own.
        ("fts5(x, content='')", "content"),
    ],
)
def test_a_target_in_which_a_virtual_table_keeps_its_data(host: HostProcess, module: str, ends: str) -> None:
    host.result("POST", "/query", {"sql": f"CREATE VIRTUAL TABLE kept USING {module}"})
    for end in ends.split():
        name = f"Kept_{end}" if end == "data" else f"kept_{end}"
        error = refused(host, "POST", f"{PREFIX}/configure", {**BODY, "name": "shadow", "targetTable": name})
        why = "is where the virtual table kept keeps its own data; choose another targetTable, or drop kept"
        assert error == f"targetTable {why}"
    host.result("POST", "/query", {"sql": "DROP TABLE kept"})
    host.configure(**{**BODY, "name": "free", "targetTable": f"kept_{ends.split()[0]}"})
    host.result("DELETE", f"{PREFIX}/configure/free")


WITHOUT_FIELDS = [("POST", verb) for verb in ("sync", "start", "stop")] + [("DELETE", "configure")]


@pytest.mark.parametrize(("method", "verb"), WITHOUT_FIELDS)
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"repairs": false}', "repairs is not a field; this body has no fields"),
        (b"x", "the body is not JSON"),
        (b"[]", "the body must be an object"),
        (b"null", "the body must be an object"),
        (b'{"a": 1, "a": 2}', "a occurs twice in one object of the body"),
    ],
)
def test_a_body_with_nothing_that_is_known(host: HostProcess, method: str, verb: str, body: bytes, error: str) -> None:
    assert refused(host, method, f"{PREFIX}/{verb}/t", body).startswith(error)


@pytest.mark.parametrize(("method", "verb"), WITHOUT_FIELDS)
def test_a_body_that_is_too_large(host: HostProcess, method: str, verb: str) -> None:
    assert host.request(method, f"{PREFIX}/{verb}/t", b" " * (5 * 1024 * 1024)).status_code == 413


def test_where_wait_belongs_is_said(host: HostProcess) -> None:
    for verb in ("sync", "reset", "verify"):
        error = refused(host, "POST", f"{PREFIX}/{verb}/t", {"wait": False})
        assert error == "wait belongs in the query: ?wait=false"
    assert refused(host, "POST", f"{PREFIX}/stop/t", {"wait": False}).startswith("wait is not a field")


EMPTY: list[Any] = [None, b"", {}, b"{ }"]


def test_an_empty_body_is_accepted(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        host.configure(**BODY)
        for verb, status in (("sync", 502), ("reset", 502), ("stop", 200), ("start", 200)):
            for body in EMPTY:
                response = host.request("POST", f"{PREFIX}/{verb}/t", body)
                assert response.status_code == status, (verb, body, response.text)
            # Sent in chunks, of which there is none.
            nothing, headers = iter(list[bytes]()), {"authorization": f"Bearer {ADMIN}"}
            chunked = httpx.post(f"{host.url}{PREFIX}/{verb}/t", content=nothing, headers=headers)
            assert chunked.status_code == status, (verb, chunked.text)


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/query", b'{"sql": "SELECT 1", "sql": "SELECT 2"}', "sql"),
        ("/query/raw", b'{"sql": "SELECT :a", "params": {"a": 1, "a": 2}}', "a"),
        ("/query", b'{"transaction": [{"sql": "SELECT 1", "sq\\u006c": "SELECT 2"}]}', "sql"),
        (f"{PREFIX}/configure", b'{"name": "t", "name": "t"}', "name"),
        (f"{PREFIX}/configure", b'{"name": "t", "sourceConfig": {"host": "a", "host": "b"}}', "host"),
        (f"{PREFIX}/verify/t", b'{"repair": false, "repair": true}', "repair"),
        ("/query", b'{"' + b"x" * 300 + b'": 1, "' + b"x" * 300 + b'": 1}', "x" * 60),
        ("/query", b'{"\\ud800": 1, "\\ud800": 2}', "\\ud800"),
    ],
)
def test_a_key_that_occurs_twice(host: HostProcess, path: str, body: bytes, key: str) -> None:
    assert refused(host, "POST", path, body) == f"{key} occurs twice in one object of the body; remove one"


def test_a_number_that_is_too_long(host: HostProcess) -> None:
    for path in ("/query", f"{PREFIX}/configure"):
        error = refused(host, "POST", path, b'{"params": ' + b"9" * 5000 + b"}")
        assert error == "the body has a number with more than 400 digits; shorten it, or send it as text"
