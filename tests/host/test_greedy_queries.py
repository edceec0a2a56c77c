"""What a query may take of the host: memory, time of the event loop, and what its answers hold."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starbase_host.errors import TooLarge, Unavailable
from starbase_host.query import ANSWERS, Query, QueryRunner, Result
from starbase_host.wire import LONG_BYTES, Budget, JsonSink, Quota, Row, write_rows
from tests.support.hosts import CLIENT, CONFIG, HostProcess, running
from tests.support.memory import MEBIBYTE, watched
from tests.support.query_bench import Bench, Hooks, a_bench
from tests.support.servers import TestDatabase

MANY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {})"
WORST: dict[str, tuple[str, Any]] = {
    "names": (MANY.format(100_000) + f' SELECT i AS "{"n" * 5000}" FROM n', None),
    "an answer of 30 MiB": (MANY.format(30_000) + " SELECT i, hex(zeroblob(500)) FROM n", None),
    "wide rows": (MANY.format(4000) + f" SELECT {', '.join(f'i * 1.1 + {n}' for n in range(1900))} FROM n", None),
    "registers": (
        "WITH a(s) AS (SELECT ?), b(s) AS MATERIALIZED (SELECT s||s||s||s||s||s||s||s||s||s FROM a) "
        f"SELECT length(max({', '.join(f's||{n}' for n in range(95))})) FROM b",
        ["x" * 4_000_000],
    ),
    "collected": (MANY.format(3_000_000) + " SELECT length(json_group_array(hex(zeroblob(5000)))) FROM n", None),
    "a long parameter, joined to itself": ("SELECT ?1||?1||?1||?1||?1||?1||?1 AS a", ["x" * 3_900_000 + "\U0001f600"]),
    "texts of four bytes a character": (
        "SELECT char(128512)||printf('%.3000000c', 'x'), printf('%.3000000c', 'x')||char(128512)", None,
    ),
    "arguments": (f"SELECT length(json_array({', '.join(['?1||1'] * 99)}))", ["\x01" * 100_000]),
    "parameters": ("SELECT 1", [[]] * 30_000),
    "conditions copied as often as may be": (
        f"SELECT a FROM (SELECT 1 a{' UNION ALL SELECT 1' * 239}) WHERE a IN ({','.join('1' * 1600)})", None,
    ),
    "conditions copied too often": (
        f"SELECT a FROM (SELECT 1 a{' UNION ALL SELECT 1' * 239}) WHERE a IN ({','.join('1' * 40_000)})", None,
    ),
    "a value copied as often as may be": (
        f"SELECT 1 FROM t WHERE id = max(0,{','.join('1' * 90)}) AND id IN ({','.join(['id'] * 4000)})", None,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with a_bench(tmp_path_factory.mktemp("greedy"), max_bytes=8_000_000, max_rows=200_000, max_seconds=60) as bench:
        yield bench


@pytest.fixture(scope="module")
def shared_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(tmp_path_factory.mktemp("searched")) as host:
        yield host


@pytest.mark.parametrize("what", ["names", "an answer of 30 MiB", "registers", "arguments"])
def test_what_is_too_much_is_refused_before_it_is_there(shared: Bench, what: str) -> None:
    sql, params = WORST[what]
    shared.rows("SELECT 1")
    apsw.memory_high_water(True)
    before = apsw.memory_used()
    for _ in range(2):
        with pytest.raises(TooLarge):
            shared.json(sql, params)
    assert apsw.memory_high_water() - before < 48 * MEBIBYTE


def test_names_are_counted_for_an_admin_too(shared: Bench) -> None:
    sql, _ = WORST["names"]
    with pytest.raises(TooLarge, match="answer is too large"):
        shared.json(sql, role="admin")
    # In columns and rows, names stand there once.
    assert len(shared.json(sql, role="admin", raw=True)["rows"]) == 100_000


def test_a_long_value_is_read_and_many_of_them_are_not(shared: Bench) -> None:
    assert shared.rows("SELECT length(?)", ["x" * 6_000_000]) == [(6_000_000,)]
    (row,) = shared.json("SELECT ? AS a", ["ä" * 3_000_000])
    assert row == {"a": "ä" * 3_000_000}
    error = shared.refusal("SELECT " + ", ".join(f"?1||{n} AS a{n}" for n in range(20)), ["x" * 2_000_000])
    assert "its share of what a client's statement may hold at once" in str(error)


@pytest.mark.prove
def test_what_a_reader_keeps_of_statements_is_bounded_in_bytes(tmp_path: Path) -> None:
    with a_bench(tmp_path, max_seconds=60) as bench:
        for number in range(120):
            long = f"SELECT id, '{chr(0x1F600) * 12_000}' AS a{number} FROM orders WHERE id = 1"
            wide = f"SELECT {', '.join(['abs(id)+1'] * 1000)}, {number} FROM orders WHERE id = 1"
            for sql in (long, long, wide, wide):
                bench.json(sql, raw=True)
        bench.rows("SELECT id FROM orders")
        for connection, guard in bench.runner._guards.items():
            assert sum(map(sys.getsizeof, guard._lengths)) < MEBIBYTE
            assert connection.status(apsw.SQLITE_DBSTATUS_STMT_USED)[0] < 7 * MEBIBYTE
        assert any("SELECT id FROM orders" in guard._lengths for guard in bench.runner._guards.values())


def test_a_client_that_waits_to_be_alone_is_interrupted(tmp_path: Path) -> None:
    with a_bench(tmp_path, max_seconds=0.3) as bench, bench.runner._exclusive_lock:
        long = bench.refusal("SELECT ?||1", ["x" * 3_000_000])
        assert "ran longer" in str(long)
        assert bench.rows("SELECT 1") == [(1,)]


def test_memory_is_freed_while_the_event_loop_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("starbase_host.memory.TOO_MUCH_BYTES", apsw.memory_used() + 24 * MEBIBYTE)
    monkeypatch.setattr("starbase_host.memory.GROWN_BYTES", 0)
    collect = Query(sql=WORST["collected"][0], role="client")

    def interrupted(runner: QueryRunner) -> int:
        """Block the event loop until a query is interrupted."""
        for _ in range(600):
            time.sleep(0.05)
            if count := sum(query.interruption is not None for query in runner._active):
                return count
        return 0

    async def collect_while_busy(runner: QueryRunner) -> int:
        queries = [asyncio.create_task(runner.run(collect)) for _ in range(4)]
        await asyncio.sleep(0)
        count = interrupted(runner)
        for answer in await asyncio.gather(*queries, return_exceptions=True):
            assert isinstance(answer, TooLarge)
        return count

    with a_bench(tmp_path, max_seconds=60) as bench:
        assert bench.wait(collect_while_busy(bench.runner)) >= 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.text(max_size=3), min_size=1, max_size=5).flatmap(
        lambda columns: st.tuples(
            st.just(tuple(columns)),
            st.lists(
                st.tuples(
                    *[
                        st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary()
                        | st.sampled_from(['"\\\n' * 60_000, "😀ä" * 90_000, b"\xff" * 150_001])
                        for _ in columns
                    ]
                ),
                max_size=4,
            ),
        )
    ),
    st.booleans(),
)  # fmt: skip
def test_the_pieces_are_the_json_of_the_rows(answer: tuple[tuple[str, ...], list[Row]], raw: bool) -> None:
    columns, rows = answer
    text = JsonSink(Budget(bytes=1 << 30, quota=Quota(1 << 30, ANSWERS)), raw=raw, lock=threading.Lock())
    text.restart()
    text.begin(columns)
    assert write_rows(iter(rows), text, len(rows)) == len(rows)
    text.finish(columns, len(rows), 0)
    assert max(map(len, text.pieces)) < 8 * LONG_BYTES
    read = json.loads(b"".join(text.pieces), parse_constant=pytest.fail)

    def wire(value: Any) -> Any:
        if isinstance(value, bytes):
            return {"$base64": base64.b64encode(value).decode()}
        if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            return None if value != value else "Infinity" if value > 0 else "-Infinity"
        return value

    wired = [[wire(value) for value in row] for row in rows]
    if raw:
        meta = {"rows_read": len(rows), "rows_written": 0}
        assert read == {"columns": list(columns), "rows": wired, "meta": meta}
    else:
        assert read == [dict(zip(columns, row, strict=True)) for row in wired]


def test_half_a_surrogate_pair_of_a_plugin_is_escaped(tmp_path: Path) -> None:
    class Plugin(Hooks):
        async def after_query(self, query: Query, result: Result) -> Result:
            return replace(result, rows=[("\ud800" * 200_000,)])

        def implementers(self, hook: str) -> list[str]:
            return ["here"]

    with a_bench(tmp_path, Plugin()) as bench:
        assert bench.json("SELECT 1 AS a") == [{"a": "\ud800" * 200_000}]


def test_rows_that_a_plugin_sees_are_bounded_by_what_they_take(tmp_path: Path) -> None:
    class Plugin(Hooks):
        def implementers(self, hook: str) -> list[str]:
            return ["here"]

    with (
        a_bench(tmp_path, Plugin(), max_bytes=8_000_000, max_rows=200_000, max_seconds=60) as bench,
        pytest.raises(TooLarge, match="answer is too large"),
    ):
        bench.json(MANY.format(150_000) + " SELECT i, i + 1, i + 2 FROM n")


def test_answers_that_wait_to_be_read_are_bounded_and_small_ones_always_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("starbase_host.query.QUOTA_BYTES", {"admin": 9_000_000, "client": 9_000_000})
    with a_bench(tmp_path, max_seconds=60) as bench:
        big = Query(sql="SELECT printf('%.3000000c', 'x') AS x", role="client")
        held = [bench.wait(bench.runner.answer(big)) for _ in range(2)]
        for _ in range(3):
            with pytest.raises(Unavailable, match="wait to be read"):
                bench.wait(bench.runner.answer(big))
        assert bench.json("SELECT 1 AS a") == [{"a": 1}]
        assert bench.wait(bench.runner.answer(replace(big, role="admin"))).size > 3_000_000
        held.pop()
        assert bench.wait(bench.runner.answer(big)).size > 3_000_000


@contextlib.contextmanager
def attacked(host: HostProcess, worst: list[str], *, clients: int = 8) -> Iterator[list[tuple[str, int]]]:
    """Clients that send what is worst, one after the other, all at once; what they were answered, with its status."""
    answered: list[tuple[str, int]] = []
    ending = threading.Event()

    def attack(number: int) -> None:
        with httpx.Client(base_url=host.url, headers={"authorization": f"Bearer {CLIENT}"}, timeout=120) as client:
            # One after the other has its turn with each.
            while not ending.is_set():
                what = worst[number % len(worst)]
                sql, params = WORST[what]
                number += 1
                answer = client.post("/query", content=json.dumps({"sql": sql, "params": params}))
                answered.append((what, answer.status_code))

    threads = [threading.Thread(target=attack, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        ending.set()
        for thread in threads:
            thread.join()


LIMIT = 600 * MEBIBYTE


@pytest.mark.elsewhere_in_prove
def test_clients_that_try_their_worst_stop_neither_a_sync_nor_the_host(
    source_database: TestDatabase, tmp_path: Path
) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, body varchar(100))")
    source_database.execute("INSERT INTO t VALUES (1, 'one')")
    quick = [what for what in WORST if what not in ("wide rows", "names")]
    with running(tmp_path, CONFIG.replace("[plugins", "max_query_seconds = 3\n[plugins")) as host:
        host.configure(
            name="t", isActive=False, sourceTable="t", targetTable="t", sourceConfig=source_database.source_config
        )
        host.sync("t")
        with watched(host.pid) as seen, attacked(host, quick) as answered:
            for number in range(2, 4):
                source_database.execute(f"INSERT INTO t VALUES ({number}, 'more')")
                assert host.sync("t")["rows_read"] >= 1
                host.query("CREATE TABLE IF NOT EXISTS w(a)")
                host.query("INSERT INTO w VALUES (?)", "x" * 1_000_000)
            assert host.result("GET", "/health") == {"status": "ready"}
        assert {status for _, status in answered} <= {200, 400, 408, 413, 503}
        assert seen[1] - seen[0] < LIMIT
        assert host.query("SELECT count(*) FROM t") == [[3]]
        assert host.request("POST", "/query", {"sql": "SELECT 1 AS a"}, token=CLIENT).status_code == 200


# Texts in which a search that goes back would read on to the end at each of its letters: it would take hours.
ENDLESS_SEARCHES: dict[str, bytes] = {
    "a text of JSON that does not end": b'{"sql":"SELECT 1","params":["x' + b'\\"' * 1_800_000 + b"," * 100_001,
    "and ends in a backslash": b'{"sql":"SELECT 1","params":["x' + b'\\"' * 1_800_000 + b"," * 100_001 + b"\\",
    "brackets of SQL": b'{"sql":"SELECT 1 --pragma\\n,' + b"[" * 3_900_000 + b'"}',
    "brackets within the limit": b'{"sql":"SELECT 1 --pragma\\n,' + b"[" * 99_900 + b'"}',
    "quotes": b'{"sql":"SELECT 1 --pragma\\n,' + b"`a" * 49_000 + b'"}',
    "texts of SQL": b'{"sql":"SELECT 1 --pragma\\n,' + b"'a " * 33_000 + b'"}',
    "a pragma's spaces": b'{"sql":"PRAGMA table_list' + b" " * 99_900 + b'x"}',
    "a transaction of many statements": b'{"transaction":[' + b'{"sql":"SELECT 1"},' * 33_000 + b'{"sql":"SELECT 1"}]}',
    "unknown fields": b'{"sql":"SELECT 1"' + b"".join(b',"f%d":1' % number for number in range(90_000)) + b"}",
    "many names": b'{"sql":"SELECT 1 --pragma\\n' + b", 'a', main . sqlite_schema" * 3_500 + b'"}',
}


@pytest.mark.parametrize("what", ENDLESS_SEARCHES)
def test_a_text_is_gone_through_once(shared_host: HostProcess, what: str) -> None:
    with httpx.Client(base_url=shared_host.url, timeout=60) as client:
        headers = {"authorization": f"Bearer {CLIENT}"}
        answer = client.post("/query", content=ENDLESS_SEARCHES[what], headers=headers)
    assert answer.status_code in (400, 403, 413), answer.text
    assert shared_host.result("GET", "/health") == {"status": "ready"}


@pytest.mark.anyio
async def test_long_bodies_that_wait_are_bounded(shared_host: HostProcess) -> None:
    """Of sixty at once some are refused; short ones are not, and afterwards a long one is taken again."""
    long = {"sql": "SELECT length(?1)", "params": ["a" * 3_000_000 + "\U0001f600"]}
    body = json.dumps(long, ensure_ascii=False).encode()
    headers = {"authorization": f"Bearer {CLIENT}"}
    limits = httpx.Limits(max_connections=None)
    with watched(shared_host.pid) as seen:
        async with httpx.AsyncClient(base_url=shared_host.url, timeout=120, headers=headers, limits=limits) as client:
            answers = await asyncio.gather(
                *(client.post("/query", content=body) for _ in range(60)),
                *(client.post("/query", json={"sql": "SELECT 1"}) for _ in range(20)),
            )
    assert {answer.status_code for answer in answers[:60]} <= {200, 503}
    assert {answer.status_code for answer in answers[60:]} == {200}
    assert seen[1] - seen[0] < LIMIT
    assert shared_host.request("POST", "/query", long, token=CLIENT).status_code == 200


@pytest.mark.prove
@pytest.mark.anyio
async def test_short_bodies_of_many_values_are_bounded(tmp_path: Path) -> None:
    """While all readers are busy, a hundred bodies wait, each of 63 KiB, which parsed would take 2 MB."""
    slow = {"sql": MANY.format(10**12) + " SELECT count(*) FROM n"}
    body = b'{"sql":"SELECT 1","params":[' + b'{"":0},' * 9000 + b"0]}"
    headers = {"authorization": f"Bearer {CLIENT}"}
    limits = httpx.Limits(max_connections=None)
    with running(tmp_path, CONFIG.replace("[plugins", "max_query_seconds = 20\n[plugins")) as host:
        async with httpx.AsyncClient(base_url=host.url, timeout=120, headers=headers, limits=limits) as client:
            busy = [asyncio.create_task(client.post("/query", json=slow)) for _ in range(8)]
            await asyncio.sleep(1)
            many = asyncio.gather(*(client.post("/query", content=body) for _ in range(100)))
            few = await client.post("/query", json={"sql": "SELECT " + ", ".join("?" * 100), "params": [1] * 100})
            answers = [answer.status_code for answer in await many]
            assert {answer.status_code for answer in await asyncio.gather(*busy)} == {408}
            assert few.status_code == 200
            assert set(answers) == {400, 503}
            assert answers.count(400) <= 200_000 // 18_000
            assert (await client.post("/query", content=body)).status_code == 400


PROBE = """
import json, socket, sys, time
address, seconds = sys.argv[1], float(sys.argv[2])
host, port = address.removeprefix("http://").split(":")
connection = socket.create_connection((host, int(port)))
waits, end = [], time.monotonic() + seconds
while time.monotonic() < end:
    began = time.perf_counter()
    connection.sendall(b"GET /health HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n")
    said = b""
    while b'"ready"}}' not in said:
        said += connection.recv(65536)
    waits.append(time.perf_counter() - began)
    time.sleep(0.02)
print(json.dumps(sorted(waits)))
"""


@pytest.mark.prove
def test_health_is_answered_meanwhile(tmp_path: Path) -> None:
    """Within 100 ms beyond what a host that does nothing takes in the same seconds, on the same machine."""
    seconds = 20.0
    directories = [tmp_path / "attacked", tmp_path / "idle"]
    for directory in directories:
        directory.mkdir()
    with running(directories[0]) as host, running(directories[1]) as idle:
        with watched(host.pid) as seen, attacked(host, list(WORST)) as answered:
            probes = [
                subprocess.Popen(
                    [sys.executable, "-c", PROBE, each.url, str(seconds)], stdout=subprocess.PIPE, text=True
                )
                for each in (host, idle)
            ]
            waits, control = (json.loads(probe.communicate(timeout=120)[0]) for probe in probes)
        assert seen[1] - seen[0] < LIMIT
        print(f"resident: {(seen[1] - seen[0]) // MEBIBYTE} MiB more; {len(answered)} answers")
        for name, each in (("attacked", waits), ("idle", control)):
            parts = [each[min(len(each) - 1, int(len(each) * part))] * 1000 for part in (0.5, 0.9, 0.99, 1)]
            print(name, len(each), *(f"{part:.1f}" for part in parts), "ms (half, 90 %, 99 %, all)")
        assert len(waits) > 20
        # The machine is others' too, whose work makes both wait: more where there are more threads.
        assert waits[int(len(waits) * 0.9)] < control[int(len(control) * 0.9)] + 0.1
        assert waits[-1] < control[-1] + 1
