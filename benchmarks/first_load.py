"""How long a first load, an idle sync and a small change take over HTTP, and the host's CPU and memory meanwhile.

    python -m benchmarks.first_load [postgresql|mysql] [ROWS]

Run from the root of a checkout, with the servers that the tests use. Prints one line for each step.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Literal

import psutil
from tests.hosts import HostProcess
from tests.servers import fresh_database, mariadb_server, postgres_server

CREATE = {
    "postgresql": "CREATE TABLE orders (id bigint PRIMARY KEY, customer_id int, status varchar(16), "
    "amount numeric(12,2), note text, payload jsonb, created_at timestamptz, updated_at timestamptz)",
    "mysql": "CREATE TABLE orders (id bigint PRIMARY KEY, customer_id int, status varchar(16), amount decimal(12,2), "
    "note varchar(60), payload json, created_at datetime(6), updated_at datetime(6), KEY (updated_at))",
}
FILL = {
    "postgresql": "INSERT INTO orders SELECT n, n % 1000, 'status ' || n % 5, n / 7.0, repeat('x', 60), "
    "jsonb_build_object('a', n, 'b', repeat('y', 90)), now() - interval '2 days', "
    "now() - interval '1 day' + n * interval '10 milliseconds' FROM generate_series(1, {rows}) n; "
    "CREATE INDEX ON orders (updated_at); ANALYZE orders",
    "mysql": "INSERT INTO orders SELECT seq, seq % 1000, concat('status ', seq % 5), seq / 7.0, repeat('x', 60), "
    "json_object('a', seq, 'b', repeat('y', 90)), now(6) - interval 2 day, "
    "now(6) - interval 1 day + interval seq * 10000 microsecond FROM seq_1_to_{rows}",
}
TOUCH = {
    "postgresql": "UPDATE orders SET status = 'touched', updated_at = now() WHERE id % 100 = 0; "
    "INSERT INTO orders SELECT id + 10000000, customer_id, status, amount, note, payload, created_at, now() "
    "FROM orders WHERE id % 100 = 1",
    "mysql": "UPDATE orders SET status = 'touched', updated_at = now(6) WHERE id % 100 = 0; "
    "INSERT INTO orders SELECT id + 10000000, customer_id, status, amount, note, payload, created_at, now(6) "
    "FROM orders WHERE id % 100 = 1",
}


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
            process = psutil.Process(host.pid)
            idle = peak = process.memory_info().rss
            done = threading.Event()

            def watch() -> None:
                nonlocal peak
                while not done.wait(0.02):
                    peak = max(peak, process.memory_info().rss)

            watcher = threading.Thread(target=watch)
            watcher.start()
            body = {"sourceConfig": database.source_config, "sourceTable": "orders", "targetTable": "orders"}
            host.configure(name="orders", isActive=False, trackingColumn="updated_at", **body)
            for step in ("first load", "idle", "idle", "2 % changed"):
                if step == "2 % changed":
                    database.execute(TOUCH[dialect])
                before, began = process.cpu_times(), time.perf_counter()
                run = host.sync("orders")
                seconds, after = time.perf_counter() - began, process.cpu_times()
                cpu = after.user + after.system - before.user - before.system
                print(
                    f"{dialect} {step}: {seconds:.3f} s, {cpu:.2f} s of the host's CPU, "
                    f"{run['rows_read']} read, {run['records_processed']} written"
                )
            done.set()
            watcher.join()
            print(f"{dialect} memory: idle host {idle / 2**20:.0f} MiB, at most {peak / 2**20:.0f} MiB")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "postgresql", int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
