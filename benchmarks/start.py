"""Start: from exec to the first 200 of GET /health, with no and with 1,000 replications; and what is imported."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.support.hosts import CONFIG
from tests.support.servers import free_port

from benchmarks import crowd, environments, ours, page
from benchmarks.measure import Failed, Figure, Tool, in_turn, spread, whole_process
from benchmarks.settings import Settings

DRIVERS = ("asyncpg", "aiomysql", "pymysql", "databases", "sqlalchemy")
ASK = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def measure(settings: Settings) -> str:
    empty, full = settings.directory / "empty", settings.directory / "full"
    ours.configured(empty)
    with crowd.sources() as sources:
        crowd.configure(full, sources, 1000, 60)
    crowd.set_alarms(full, [time.time() + 3600] * 1000)
    import_asyncio: list[str | Path] = [environments.product() / "python", "-c", "import asyncio"]
    tools = [
        Tool("serve to /health, no replication", lambda _: _serve(empty)),
        Tool("serve to /health, 1,000 replications", lambda _: _serve(full)),
        Tool("starbase --help", lambda _: whole_process([ours.starbase(), "--help"], cwd=empty)),
        Tool("python -c 'import asyncio', for comparison", lambda _: whole_process(import_asyncio, cwd=empty)),
    ]
    in_turn(tools, 2 * settings.runs)
    lines = []
    for tool in tools:
        figures = tool.figures.values()
        mib = [each.mib for each in figures if each.mib is not None]
        lines.append([tool.name, spread([each.seconds for each in figures]), spread(mib, ".0f")])
    with ours.host_in(full, probe=True) as host:
        imported = {name.partition(".")[0] for name in host.result("GET", "/probe/modules")}
    found = ", ".join(name for name in DRIVERS if name in imported) or "none"
    return page.table(["what", "s", "MiB"], lines) + (
        f"\n\nA started host has imported {found} of these: {', '.join(DRIVERS)}."
    )


def _serve(directory: Path) -> Figure:
    port = free_port()
    (directory / "plugin.toml").write_text(CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    shutil.rmtree(directory / "log", ignore_errors=True)
    began = time.perf_counter()
    process = subprocess.Popen(
        [ours.starbase(), "serve", "--config", str(directory / "plugin.toml")], env=os.environ,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not _is_healthy(port):
            if process.poll() is not None or time.perf_counter() - began > 60:
                raise Failed("the host did not start")
            time.sleep(0.005)
        seconds = time.perf_counter() - began
        status = Path(f"/proc/{process.pid}/status").read_text()
        kib = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
        return Figure(seconds=seconds, mib=int(kib) / 1024)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _is_healthy(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(ASK)
            return connection.recv(100).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
