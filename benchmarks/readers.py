"""How a first load disturbs those who read: latencies of a point query over HTTP, idle and during the load.

    python -m benchmarks.readers [postgresql|mysql] [ROWS]

Also how long the host's event loop was held at most, as its /health sees it: that route does nothing but answer. Run
from the root of a checkout, with the servers that the tests use.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Literal

import httpx
from tests.hosts import ADMIN, HostProcess
from tests.servers import fresh_database, mariadb_server, postgres_server

from benchmarks.first_load import CREATE, FILL

IDLE_SECONDS = 8.0
PAUSE_SECONDS = 0.002


def latencies(host: HostProcess, ended: threading.Event, *, health: bool) -> list[float]:
    """Milliseconds of one request after another, until `ended`."""
    found: list[float] = []
    with httpx.Client(base_url=host.url, headers={"authorization": f"Bearer {ADMIN}"}) as client:
        while not ended.is_set():
            body = {"sql": "SELECT * FROM points WHERE id = ?", "params": [len(found) % 1000 + 1]}
            began = time.perf_counter()
            answer = client.get("/health") if health else client.post("/query", json=body)
            found.append((time.perf_counter() - began) * 1000)
            answer.raise_for_status()
            time.sleep(PAUSE_SECONDS)
    return found


def measure(host: HostProcess, what: str, ended: threading.Event) -> None:
    results: dict[bool, list[float]] = {}

    def ask(health: bool) -> None:
        results[health] = latencies(host, ended, health=health)

    threads = [threading.Thread(target=ask, args=(health,)) for health in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for health, name in ((False, "POST /query"), (True, "GET /health")):
        found = sorted(results[health])
        median, p99 = found[len(found) // 2], found[int(len(found) * 0.99)]
        print(f"{what}, {name}: {len(found)} asked, median {median:.1f} ms, p99 {p99:.1f} ms, most {found[-1]:.1f} ms")


def main(dialect: str, rows: int) -> None:
    server = postgres_server() if dialect == "postgresql" else mariadb_server()
    kind: Literal["postgresql", "mysql"] = "postgresql" if dialect == "postgresql" else "mysql"
    with contextlib.ExitStack() as stack:
        server.start()
        stack.callback(server.close)
        database = stack.enter_context(fresh_database(kind, server))
        database.execute(CREATE[dialect])
        database.execute(FILL[dialect].format(rows=rows))
        with tempfile.TemporaryDirectory() as directory, HostProcess(Path(directory)) as host:
            host.query("CREATE TABLE points (id INTEGER PRIMARY KEY, name TEXT)")
            host.query(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000) "
                "INSERT INTO points SELECT n, 'point ' || n FROM n"
            )
            body = {"sourceConfig": database.source_config, "sourceTable": "orders", "targetTable": "orders"}
            host.configure(name="orders", isActive=False, trackingColumn="updated_at", **body)
            idle = threading.Event()
            timer = threading.Timer(IDLE_SECONDS, idle.set)
            timer.start()
            measure(host, "idle", idle)
            ended = threading.Event()

            def load() -> None:
                try:
                    host.sync("orders")
                finally:
                    ended.set()

            loading = threading.Thread(target=load)
            loading.start()
            measure(host, "during a first load", ended)
            loading.join()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "postgresql", int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
