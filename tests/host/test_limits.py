"""What callers cannot exhaust: guesses of tokens, connections, headers, bodies, and the time that each may take."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_host import Clock, http, protocol
from starbase_host.app import create_app
from starbase_host.login_throttle import FORGET_SECONDS, FREE_GUESSES, MAX_ADDRESSES, LoginThrottle
from starbase_host.server import run_server
from tests.support.hosts import ADMIN, CLIENT, CONFIG, running
from tests.support.plugin_hosts import config_of

pytestmark = pytest.mark.anyio


class Hand(Clock):
    """A clock that a test moves."""

    at = 1000.0

    def monotonic(self) -> float:
        return self.at


def guess(throttle: LoginThrottle, address: str, times: int, *, now: float = 0.0, first: int = 0) -> None:
    for number in range(first, first + times):
        throttle.record_failure(address, b"%d" % number, now)


def test_guesses_make_an_address_wait_twice_as_long_each_time() -> None:
    throttle = LoginThrottle(60)
    guess(throttle, "10.0.0.1", FREE_GUESSES)
    assert throttle.wait_seconds("10.0.0.1", 0) == 0
    waits = []
    for number in range(10):
        throttle.record_failure("10.0.0.1", b"guess %d" % number, 0)
        waits.append(throttle.wait_seconds("10.0.0.1", 0))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert throttle.wait_seconds("10.0.0.1", 59) == 1
    assert throttle.wait_seconds("10.0.0.1", 60) == 0
    assert throttle.wait_seconds("10.0.0.2", 0) == 0
    throttle.record_failure("10.0.0.1", b"later", FORGET_SECONDS + 1)
    assert throttle.wait_seconds("10.0.0.1", FORGET_SECONDS + 1) == 0


def test_one_old_token_does_not_count_as_a_guess_and_zero_turns_the_limit_off() -> None:
    throttle = LoginThrottle(60)
    for _ in range(1000):
        throttle.record_failure("10.0.0.1", b"the token of last year", 0)
    assert throttle.wait_seconds("10.0.0.1", 0) == 0
    off = LoginThrottle(0)
    guess(off, "10.0.0.1", 1000)
    assert off.wait_seconds("10.0.0.1", 0) == 0


def test_an_ipv6_network_is_one_address_and_a_mapped_one_is_ipv4() -> None:
    throttle = LoginThrottle(60)
    for number in range(FREE_GUESSES + 5):
        throttle.record_failure(f"2001:db8::{number:x}", b"%d" % number, 0)
    assert throttle.wait_seconds("2001:db8::ffff:1", 0) > 0
    assert throttle.wait_seconds("2001:db8:0:1::1", 0) == 0
    guess(throttle, "::ffff:10.0.0.9", FREE_GUESSES + 1)
    assert throttle.wait_seconds("10.0.0.9", 0) > 0


def test_its_memory_is_bounded() -> None:
    throttle = LoginThrottle(60)
    for number in range(MAX_ADDRESSES + 500):
        throttle.record_failure(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", b"x", number)
    guess(throttle, "10.9.9.9", 5000)
    assert len(throttle._guesses) == MAX_ADDRESSES
    assert max(len(each.tokens) for each in throttle._guesses.values()) <= FREE_GUESSES


@given(st.lists(st.tuples(st.sampled_from(["10.0.0.1", "::1", "", "x"]), st.binary(max_size=2), st.floats(0, 1e6))))
def test_an_address_that_has_not_failed_never_waits(calls: list[tuple[str, bytes, float]]) -> None:
    throttle = LoginThrottle(60)
    for address, token, now in calls:
        throttle.record_failure(address, token, now)
        assert throttle.wait_seconds("10.0.0.2", now) == 0
        assert 0 <= throttle.wait_seconds(address, now) <= 60


async def test_a_right_token_never_waits_and_wrong_ones_do(tmp_path: Path) -> None:
    clock = Hand()
    app = create_app(config_of(tmp_path, {}), clock=clock)

    async def ask(address: str, token: str, **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
            return await client.get("/status", headers={"authorization": f"Bearer {token}", **headers})

    async with app.router.lifespan_context(app):
        for number in range(FREE_GUESSES + 1):
            # Headers that claim another address change nothing.
            said = {"x-forwarded-for": f"10.1.1.{number}", "forwarded": f"for=10.1.1.{number}"}
            assert (await ask("10.0.0.1", f"guess-{number}", **said)).status_code == 401
        slowed = await ask("10.0.0.1", "another guess")
        assert slowed.status_code == 429
        assert slowed.headers["retry-after"] == "1"
        assert set(slowed.json()) == {"error"}
        for address in ("10.0.0.1", "10.0.0.2"):
            assert (await ask(address, ADMIN)).status_code == 200
            assert (await ask(address, CLIENT)).status_code == 403
        # Who has one token does not get more guesses of the other by showing it in between.
        assert (await ask("10.0.0.1", "another guess")).status_code == 429
        clock.at += 1
        assert (await ask("10.0.0.1", "another guess")).status_code == 401
        assert (await ask("10.0.0.1", "one more")).headers["retry-after"] == "2"
        # Near misses are wrong ones, too.
        for wrong in (ADMIN[:-1], ADMIN + "x", ADMIN.upper(), CLIENT[1:]):
            assert (await ask("10.0.0.1", wrong)).status_code == 429


def test_a_host_that_is_flooded_with_guesses_keeps_serving_its_admin(tmp_path: Path) -> None:
    """The command line from the same address, too."""
    with running(tmp_path) as host, httpx.Client(base_url=host.url) as guesser:
        seen = set()
        for number in range(FREE_GUESSES + 30):
            headers = {"authorization": f"Bearer guess-{number}"}
            seen.add(guesser.get("/status", headers=headers).status_code)
            assert host.request("GET", "/status").status_code == 200
        assert seen == {401, 429}
        assert host.command("replication", "list").returncode == 0


def test_a_short_token_is_warned_of(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG.replace(CLIENT, "short")) as host:
        assert "host.client_token is shorter than 16 characters" in host.log
        assert "host.admin_token" not in host.log


@contextlib.asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[str, int]]:
    """A host on a real socket in this process."""
    async with run_server(config_of(directory, {}, bind="127.0.0.1:0")) as (server, url):
        task = asyncio.create_task(server.serve())
        try:
            yield "127.0.0.1", int(url.rpartition(":")[2])
        finally:
            server.should_exit = True
            await task


async def spoken(address: tuple[str, int], *pieces: bytes, pause: float = 0.0) -> tuple[int, dict[str, object]]:
    """Send this, and read until the host closes: the status and the body of what it says."""
    reader, writer = await asyncio.open_connection(*address)
    said = b""

    async def listen() -> None:
        nonlocal said
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                said += piece

    listening = asyncio.create_task(listen())
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    await asyncio.wait_for(listening, 10)
    await end(writer)
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    return int(head.split()[1]), json.loads(body)


async def end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


GET = b"GET /health HTTP/1.1\r\nhost: x\r\n"
POST = (
    "POST /query HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 50\r\n"
    f"authorization: Bearer {ADMIN}\r\n\r\n"
).encode()


async def test_requests_that_are_malformed_too_large_or_too_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(http, "BODY_SECONDS", 0.3)
    async with served(tmp_path) as address:
        for malformed in (
            b"\x16\x03\x01\x02\x00\x01",
            b"GET\r\n\r\n",
            b"GET / HTTP/x\r\nhost: x\r\n\r\n",
            GET + b"x\xff y\r\n\r\n",
        ):
            assert (await spoken(address, malformed))[0] == 400, malformed
        smuggled = GET + b"content-length: 5\r\ncontent-length: 6\r\n\r\n"
        assert (await spoken(address, smuggled))[0] == 400
        for ambiguous in (
            GET.replace(b"\r\n", b"\n") + b"\n",
            GET + b"a: b\n\r\n",
            GET + b"a: b\r\n c\r\n\r\n",
            GET + b"a: b\r\n\tc\r\n\r\n",
            GET + b"a: b\rc: d\r\n\r\n",
        ):
            assert (await spoken(address, ambiguous))[0] == 400, ambiguous
        status, body = await spoken(address, GET + b"a: " + b"x" * 40_000 + b"\r\n\r\n")
        assert (status, set(body)) == (431, {"error"})
        assert (await spoken(address, b"GET /" + b"x" * 40_000))[0] == 431
        # Slow: nothing at all; a header, a byte at a time; the second request of a connection; a body.
        assert (await spoken(address))[0] == 408
        assert (await spoken(address, *(bytes([byte]) for byte in GET), pause=0.02))[0] == 408
        assert (await spoken(address, POST, *[b" "] * 30, pause=0.02))[0] == 408
        reader, writer = await asyncio.open_connection(*address)
        writer.write(GET + b"\r\n")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET /hea")
        assert b"408 Request Timeout" in await asyncio.wait_for(reader.read(), 10)
        await end(writer)


CHUNKED = POST.replace(b"content-length: 50", b"transfer-encoding: chunked")


async def test_a_request_of_very_many_pieces_is_refused(tmp_path: Path) -> None:
    """Each header, and each chunk of a body, takes a step of the event loop's time, however short it is."""
    async with served(tmp_path) as address:
        status, body = await spoken(address, GET + b"a:\r\n" * 200 + b"\r\n")
        assert (status, set(body)) == (431, {"error"})
        text = json.dumps({"sql": "SELECT 1"}).encode()
        few = b"".join(b"1\r\n%c\r\n" % byte for byte in text + b" " * 900)
        assert (await spoken(address, CHUNKED + few + b"0\r\n\r\n"))[0] == 200
        larger = b"".join(b"50\r\n%b\r\n" % (b" " * 80) for _ in range(3000))
        whole = CHUNKED + b"%x\r\n%b\r\n" % (len(text), text) + larger + b"0\r\n\r\n"
        assert (await spoken(address, whole))[0] == 200
        # The current request has no answer: its body does not end.
        reader, writer = await asyncio.open_connection(*address)
        writer.write(CHUNKED + b"1\r\n \r\n" * 3000)
        assert b"200 OK" not in await asyncio.wait_for(reader.read(), 10)
        await end(writer)


@given(st.lists(st.sampled_from(['"', "\\", ",", "[", "{", "a", '\\"', '"",', '"a"', "é"]), max_size=60))
def test_separators_are_counted_outside_strings(parts: list[str]) -> None:
    text = "".join(parts).encode() * 40
    count = http._count_separators(http._TEXTS.sub(b"", text))
    for limit in (count - 1, count):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(http, "CLIENT_SEPARATORS", limit)
            assert http._has_too_many_values(text) == (count > limit)


async def test_two_lengths_of_one_body_end_the_connection(tmp_path: Path) -> None:
    async with served(tmp_path) as address:
        reader, writer = await asyncio.open_connection(*address)
        body = json.dumps({"sql": "SELECT 1"}).encode()
        head = POST.replace(b"connection: close\r\n", b"transfer-encoding: chunked\r\n")
        writer.write(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) + GET + b"\r\n")
        said = await asyncio.wait_for(reader.read(), 10)
        await end(writer)
        assert b"connection: close" in said
        assert said.count(b"HTTP/1.1") == 1


def test_no_cache_keeps_an_answer_and_no_browser_guesses_what_it_is(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        for method, path in (("GET", "/health"), ("GET", "/status"), ("POST", "/query"), ("GET", "/none")):
            headers = host.request(method, path).headers
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"


async def unread(address: tuple[str, int], sql: str, *, receives: bool) -> bytes:
    """Ask on a connection whose client takes 20 kB every 50 ms, or nothing for a second, and then the rest."""
    body = json.dumps({"sql": sql}).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, address)
    await loop.sock_sendall(connection, POST.replace(b": 50", b": %d" % len(body)) + body)
    got = b""
    with connection, contextlib.suppress(ConnectionError):
        for _ in range(20):
            await asyncio.sleep(0.05)
            if receives:
                got += await loop.sock_recv(connection, 20_000)
        while piece := await loop.sock_recv(connection, 1 << 20):
            got += piece
    return got


async def test_an_answer_that_the_client_does_not_read_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 8_000_000
    sql = f"SELECT printf('%.{size // 4}c', 'x') AS x FROM json_each('[1,2,3,4]')"
    async with served(tmp_path) as address:
        assert len(await unread(address, sql, receives=False)) > size
        monkeypatch.setattr(protocol, "STALLED_SECONDS", 0.4)
        assert len(await unread(address, sql, receives=False)) < size
        # One that takes a little now and then is not waited for without end either.
        monkeypatch.setattr(protocol, "STALLED_SECONDS", 30)
        monkeypatch.setattr(protocol, "ANSWER_SECONDS", 0.4)
        assert len(await unread(address, sql, receives=True)) < size
        assert len(await unread(address, "SELECT 1", receives=True)) > 0


async def test_connections_are_bounded_and_come_free_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 5)
    async with served(tmp_path) as address:
        held = [await asyncio.open_connection(*address) for _ in range(5)]
        status, body = await spoken(address, GET + b"connection: close\r\n\r\n")
        assert (status, set(body)) == (503, {"error"})
        for _, writer in held:
            await end(writer)
            await writer.wait_closed()
        statuses: list[int] = []
        while 200 not in statuses and len(statuses) < 200:
            statuses.append((await spoken(address, GET + b"connection: close\r\n\r\n"))[0])
        assert statuses[-1] == 200


@pytest.mark.parametrize(
    ("body", "deep"),
    [
        (b"[" * 64 + b"1" + b"]" * 64, False), (b"[" * 65 + b"1" + b"]" * 65, True),
        (b'{"a":' * 65 + b"1" + b"}" * 65, True),
        (b"[" * 900 + b"]" * 900, True), (b"[" * 100_000 + b"]" * 100_000, True), (b"[" * 5000, None),
        (b"[" + b"[]," * 5000 + b"[]]", False), (b'["' + b"[" * 5000 + b'"]', False),
    ],
)  # fmt: skip
async def test_a_body_nested_too_deep_is_a_400(tmp_path: Path, body: bytes, deep: bool | None) -> None:
    app = create_app(config_of(tmp_path, {}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host") as client,
    ):
        response = await client.post("/query", content=body, headers={"authorization": f"Bearer {ADMIN}"})
    assert response.status_code == 400
    if deep is not None:
        assert ("deep" in response.json()["error"]) == deep
