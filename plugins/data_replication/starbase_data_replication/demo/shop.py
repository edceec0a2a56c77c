"""`starbase demo`: a shop in an embedded PostgreSQL, customers who keep it busy, and a host that replicates it.

The host is a separate process, started as a user starts it, and reached by HTTP alone. Everything is in temporary
directories and ends with this process, for whatever reason it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from starbase_data_replication.demo.embedded import EmbeddedPostgres
from starbase_data_replication.demo.process import ServerError, spawn
from starbase_host import ConfigError

# Short enough to watch: a new order is in the replica within three seconds.
SYNC_SECONDS = 3
SHOPPING_SECONDS = 0.4
# How long the host may take to listen, and to end; both take about a second on a machine that is not busy.
START_SECONDS = 15.0
STOP_SECONDS = 8.0

CONFIG = """\
[host]
bind = "127.0.0.1:{port}"
database = "starbase.db"
admin_token = "{token}"

[plugins.data_replication]
"""

SHOPPING = (
    "INSERT INTO orders (customer, status, amount, details) "
    "SELECT 'customer ' || (random() * 500)::int, 'new', (random() * 1000)::numeric(10, 2), "
    """'{"items": 1}'::jsonb FROM generate_series(1, $1::int)""",
    "UPDATE orders SET status = (ARRAY['paid', 'packed', 'sent'])[1 + (random() * 2)::int] "
    "WHERE id IN (SELECT id FROM orders ORDER BY id DESC LIMIT $1::int)",
)


# Prints what happens: the first argument for --json, the second for people.
Emit = Callable[[Any, str], None]


def run(port: int, emit: Emit) -> None:
    """Run the demo until Ctrl-C or SIGTERM. Raises ConfigError if a server cannot start."""
    _check_port(port)
    emit({"event": "starting"}, "starting an embedded PostgreSQL with a small shop …")
    try:
        with EmbeddedPostgres() as postgres, tempfile.TemporaryDirectory(prefix="starbase-demo-") as directory:
            asyncio.run(_demo(postgres, Path(directory), port, emit))
    except ServerError as error:
        raise ConfigError("demo", str(error)) from error
    emit({"event": "stopped"}, "stopped: the host, the shop and its database are gone")


def _check_port(port: int) -> None:
    """Raise ConfigError if the port is taken, before anything is started; the host would not name --port."""
    with contextlib.closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                "demo", f"cannot listen on port {port}: {error.strerror}; choose another with --port"
            ) from error


async def _demo(postgres: EmbeddedPostgres, directory: Path, port: int, emit: Emit) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    shop = await asyncpg.connect(host=postgres.socket_dir, port=postgres.port, user=postgres.user, database="postgres")
    token = secrets.token_urlsafe(16)
    try:
        await shop.execute(files(__package__).joinpath("shop.sql").read_text(encoding="utf-8"))
        with _host_process(directory, port, token) as host:
            url = await _address(host, directory, stop)
            headers = {"authorization": f"Bearer {token}"}
            # Plain HTTP to this machine: no certificates are loaded, and no proxy is used.
            transport = httpx.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, transport=transport) as client:
                await _configure(client, postgres)
                emit({"event": "listening", "url": url, "admin_token": token}, _explanation(url, token))
                await _until(stop, _shopping(shop), _watching(client, host, emit))
    finally:
        await shop.close()


@contextlib.contextmanager
def _host_process(directory: Path, port: int, token: str) -> Iterator[subprocess.Popen[bytes]]:
    config = directory / "plugin.toml"
    config.touch(mode=0o600)
    config.write_text(CONFIG.format(port=port, token=token))
    command = [sys.executable, "-m", "starbase_host.cli", "serve", "--json", "--config", config]
    process = spawn([str(word) for word in command], directory, None, signal.SIGTERM)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _address(host: subprocess.Popen[bytes], directory: Path, stop: asyncio.Event) -> str:
    """The host's address, once it says that it listens."""
    for _ in range(int(START_SECONDS / 0.05)):
        log = (directory / "log").read_text(errors="replace")
        for line in log.splitlines():
            with contextlib.suppress(ValueError, KeyError):
                return str(json.loads(line)["url"])
        if host.poll() is not None or stop.is_set():
            raise ConfigError(
                "demo", f"the host did not start: {_reason((log.splitlines() or ['no reason given'])[-1])}; try --port"
            )
        await asyncio.sleep(0.05)
    raise ConfigError("demo", "the host did not start in time")


def _reason(line: str) -> str:
    """The error in the host's last line, which may be JSON."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(line)["error"])
    return line


async def _configure(client: httpx.AsyncClient, postgres: EmbeddedPostgres) -> None:
    body = {
        "name": "orders",
        "sourceConfig": {
            "dialect": "postgresql",
            "host": postgres.socket_dir,
            "port": postgres.port,
            "user": postgres.user,
            "database": postgres.database,
        },
        "sourceTable": "orders",
        "targetTable": "orders",
        "trackingColumn": "updated_at",
        "syncIntervalMinutes": SYNC_SECONDS / 60,
    }
    response = await client.post("/data-replication/configure", json=body)
    if not response.is_success:
        raise ConfigError("demo", response.text)


def _explanation(url: str, token: str) -> str:
    curl = f"curl -s -H 'Authorization: Bearer {token}'"
    sql = json.dumps({"sql": "SELECT status, count(*) AS orders FROM orders GROUP BY status"})
    return (
        f"\nthe host listens on {url} and mirrors the shop's orders every {SYNC_SECONDS} s. Try:\n\n"
        f"  {curl} {url}/query -d '{sql}'\n"
        f"  {curl} {url}/data-replication/status\n"
        f"  {curl} '{url}/data-replication/logs?limit=3'\n"
        "\nCtrl-C stops everything.\n"
    )


async def _until(stop: asyncio.Event, *coroutines: Any) -> None:
    """Run these until `stop` is set, and raise what one of them raises."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in (waiting, *tasks):
            task.cancel()
        await asyncio.gather(waiting, *tasks, return_exceptions=True)


async def _shopping(shop: Any) -> None:
    while True:
        await shop.execute(random.choice(SHOPPING), random.randint(1, 12))
        await asyncio.sleep(SHOPPING_SECONDS)


async def _watching(client: httpx.AsyncClient, host: subprocess.Popen[bytes], emit: Emit) -> None:
    """Report each run that ends."""
    seen = 0
    while True:
        if host.poll() is not None:
            raise ConfigError("demo", "the host has ended unexpectedly")
        logs = (await client.get("/data-replication/logs", params={"limit": 20})).json()["result"]["logs"]
        for run in reversed([each for each in logs if each["id"] > seen]):
            seen = run["id"]
            rows = await client.post("/query", json={"sql": "SELECT count(*) AS rows FROM orders"})
            count = rows.json()["result"][0]["rows"] if rows.is_success else None
            rows_changed = (
                f"{run['records_processed']:>5,} {'row' if run['records_processed'] == 1 else 'rows'} changed"
            )
            changed = f"{rows_changed} in {run['sync_duration_ms']:>3} ms"
            what = run["error_message"] or f"{changed}; the replica has {'none' if count is None else count}"
            line = f"{run['finished_at'][11:19]}  {run['config_name']}  {run['status']}  {what}"
            emit({"event": "run", "run": run, "rows": count}, line)
        await asyncio.sleep(0.5)
