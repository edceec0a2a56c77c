"""POST /query: requests per second of a point query on 16 connections, next to Datasette and to bare Starlette.

All on one file, one query, one connection of wrk after the other's, in turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

from tests.support.hosts import CLIENT
from tests.support.servers import free_port

from benchmarks import ours, page, peers
from benchmarks.measure import Failed, Figure, Tool, in_turn, say, spread, unavailable
from benchmarks.settings import Settings
from benchmarks.throughput import client_name, per_second

CONNECTIONS = 16
SECONDS = 4
SQL = "SELECT id, customer_id, status, amount FROM orders WHERE id = "
BODY = json.dumps({"sql": SQL + "?", "params": [None]}).replace("null", "%d")


def measure(settings: Settings) -> str:
    directory = ours.configured(settings.directory / "host")
    with ours.host_in(directory) as host, contextlib.ExitStack() as stack:
        host.query("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, status TEXT, amount TEXT)")
        host.query(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000) "
            "INSERT INTO orders SELECT n, n * 7 % 50000, 'paid', printf('%.2f', n / 7.0) FROM n"
        )
        headers = {"authorization": f"Bearer {CLIENT}", "content-type": "application/json"}
        bare = stack.enter_context(_bare(host.database))
        tools = [
            _tool("Starbase, POST /query", f"{host.url}/query", "POST", BODY, headers),
            _tool("bare Starlette, a constant", f"{bare}/constant", "POST", BODY, headers),
            _tool("bare Starlette, sqlite3 in its thread pool", f"{bare}/query", "POST", BODY, headers),
        ]
        try:
            address = stack.enter_context(_datasette(host.database))
            path = f"{address}/{host.database.stem}.json?{urlencode({'sql': SQL + ':id', '_shape': 'array'})}&id=%d"
            tools.insert(1, _tool("Datasette, its JSON API", path, "GET", "", {}))
        except Failed as error:
            tools.insert(1, unavailable("Datasette, its JSON API", str(error)))
        in_turn(tools, settings.runs)
    ours_tool = tools[0]
    lines = []
    for tool in tools:
        if not tool.figures:
            lines.append([tool.name, f"not measured: {tool.failure}", "", ""])
            continue
        rates = {number: 1 / figure.seconds for number, figure in tool.figures.items()}
        share = [(1 / ours_tool.figures[number].seconds) / rate for number, rate in rates.items()]
        micro = 1e6 * statistics.median(figure.seconds for figure in tool.figures.values())
        lines.append([tool.name, spread(list(rates.values()), ".0f"), f"{micro:.0f}", spread(share)])
    heads = ["server", "requests/s", "µs a request", "Starbase ÷ it"]
    return page.table(heads, lines) + f"\n\n{CONNECTIONS} connections by {client_name()}, {SECONDS} s each."


def _tool(name: str, url: str, method: str, body: str, headers: dict[str, str]) -> Tool:
    def run(_: int) -> Figure:
        rate = per_second(url, seconds=SECONDS, connections=CONNECTIONS, method=method, body=body, headers=headers)
        say(f"  {name}: {rate:.0f} requests/s")
        return Figure(seconds=1 / rate)

    return Tool(name, run)


@contextlib.contextmanager
def _bare(database: Path) -> Iterator[str]:
    words = [sys.executable, "-m", "uvicorn", "benchmarks.programs.bare:app", "--http", "h11", "--no-access-log"]
    with _serving(words, {"DATABASE": str(database)}) as address:
        yield address


@contextlib.contextmanager
def _datasette(database: Path) -> Iterator[str]:
    words = [str(peers.environment("sqlite-tools") / "datasette"), "serve", str(database)]
    with _serving(words, {}) as address:
        yield address


@contextlib.contextmanager
def _serving(words: list[str], environ: dict[str, str]) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [*words, "--host", "127.0.0.1", "--port", str(port)], env={**os.environ, **environ},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait(lambda: process.poll() is not None, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait(has_ended: Callable[[], bool], port: int) -> None:
    for _ in range(600):
        if has_ended():
            raise Failed("it ended while it started")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    raise Failed("it did not start within 30 s")
