"""Readers: a point query through POST /query, idle and during a first load; and how long the event loop was held.

A third figure tells what of it is the machine's: the idle host, while other processes keep every core busy.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from tests.support.hosts import CLIENT

from benchmarks import ours, page
from benchmarks.measure import quantile, say, spread
from benchmarks.settings import Settings
from benchmarks.sources import Dialect, running

IDLE_SECONDS = 6.0
PAUSE_SECONDS = 0.002
WHEN = ("idle", "idle, every core busy elsewhere", "during a first load")


def measure(settings: Settings) -> str:
    lines = []
    dialects: tuple[Dialect, ...] = ("postgresql", "mysql")
    for dialect in dialects:
        with running(dialect) as source:
            say(f"readers, {source.name}: filling {settings.rows:,} rows")
            source.fill(settings.rows)
            template = ours.configured(settings.directory / dialect, ours.body(source))
            rounds = []
            for number in range(settings.slow_runs):
                directory = ours.copy(template, settings.directory / f"{dialect}-{number}")
                with ours.host_in(directory, probe=True) as host:
                    rounds.append(_round(host))
            for index, what in enumerate(WHEN):
                asked = [found[index] for found in rounds]
                lines.append([source.name, what, *_cells([each[0] for each in asked], [each[1] for each in asked])])
            for index, what in enumerate(WHEN[1:], 1):
                p99 = [quantile(found[index][0], 0.99) / quantile(found[0][0], 0.99) for found in rounds]
                lines.append([source.name, f"p99 {what} ÷ idle", "", spread(p99), "", "", "", ""])
    heads = ["source", "when", "p50, ms", "p99, ms", "max, ms", "loop delay p99, ms", "p99.9, ms", "max, ms"]
    return page.table(heads, lines)


Asked = tuple[list[float], list[float]]


def _round(host: ours.HostProcess) -> tuple[Asked, Asked, Asked]:
    """As WHEN has it."""
    host.query("CREATE TABLE points (id INTEGER PRIMARY KEY, name TEXT)")
    host.query(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000) "
        "INSERT INTO points SELECT n, 'point ' || n FROM n"
    )
    idle = _ask(host, _in_a_while())
    with _every_core_busy():
        busy = _ask(host, _in_a_while())
    ended = threading.Event()

    def load() -> None:
        try:
            host.sync("orders")
        finally:
            ended.set()

    loading = threading.Thread(target=load)
    loading.start()
    during = _ask(host, ended)
    loading.join()
    found = idle, busy, during
    for what, each in zip(WHEN, found, strict=True):
        say(f"  p99 {what}: {quantile(each[0], 0.99):.1f} ms")
    return found


def _in_a_while() -> threading.Event:
    ended = threading.Event()
    threading.Timer(IDLE_SECONDS, ended.set).start()
    return ended


@contextlib.contextmanager
def _every_core_busy() -> Iterator[None]:
    """As many processes as there are cores, that do nothing but count."""
    counting = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for each in counting:
            each.kill()
            each.wait()


def _ask(host: ours.HostProcess, ended: threading.Event) -> Asked:
    """One request after another until `ended`: their latencies, and how late the loop was, in ms."""
    headers = {"authorization": f"Bearer {CLIENT}", "content-type": "application/json"}
    _lag(host)
    found: list[float] = []
    with ours.connection(host) as connection:
        while not ended.is_set():
            body = json.dumps({"sql": "SELECT * FROM points WHERE id = ?", "params": [len(found) % 1000 + 1]})
            began = time.perf_counter()
            connection.request("POST", "/query", body, headers)
            answer = connection.getresponse()
            answer.read()
            found.append((time.perf_counter() - began) * 1000)
            assert answer.status == 200, answer.status
            time.sleep(PAUSE_SECONDS)
    return found, _lag(host)


def _lag(host: ours.HostProcess) -> list[float]:
    # A client of its own, since the host's other one waits for the load.
    with ours.connection(host) as connection:
        connection.request("GET", "/probe/lag", headers={"authorization": f"Bearer {ours.ADMIN}"})
        late = json.loads(connection.getresponse().read())["result"]
    return [1000 * each for each in late]


def _cells(asked: list[list[float]], late: list[list[float]]) -> list[str]:
    def of(rounds: list[list[float]], share: float) -> str:
        return spread([quantile(each, share) for each in rounds])

    p50 = spread([statistics.median(each) for each in asked])
    return [p50, of(asked, 0.99), of(asked, 1), of(late, 0.99), of(late, 0.999), of(late, 1)]
