"""A name server that is silent holds up nothing but what needs the name."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication.errors import SourceUnavailable
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.network import lookups
from starbase_data_replication.sources.network.allowed_hosts import HostPolicy
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from tests.support.dialects import described
from tests.support.hosts import CONFIG, HostProcess, running, until
from tests.support.servers import TestDatabase

# Within the host, a plugin whose names are looked up for as long as the test takes.
SILENT = """
import socket, threading
from starbase_host import hookimpl

real = socket.getaddrinfo

def getaddrinfo(host, *words, **named):
    if str(host).endswith(".slow.example") and not named.get("flags"):
        threading.Event().wait()
    return real(host, *words, **named)

socket.getaddrinfo = getaddrinfo

def plugin(options):
    return P()

class P:
    @hookimpl
    def after_query(self, query, result):
        return None
"""


def source(dialect: str, host: str) -> dict[str, str]:
    return {"dialect": dialect, "connectionString": f"{dialect}://u@{host}/d?connect_timeout=1"}


@pytest.fixture(name="asked")
def _asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names that were looked up, of which those of slow.example never end."""
    real, names, end = socket.getaddrinfo, list[str](), threading.Event()

    def getaddrinfo(host: Any, *words: Any, **named: Any) -> Any:
        if not named.get("flags"):
            names.append(str(host))
            if str(host).endswith(".slow.example"):
                end.wait()
        return real(host, *words, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield names
    end.set()


@pytest.mark.parametrize(("name", "dialect"), [("postgresql", PostgresqlDialect), ("mysql", MysqlDialect)])
def test_the_error_says_that_the_lookup_hangs(asked: list[str], name: str, dialect: Any) -> None:
    began = time.monotonic()
    said = described(dialect(), source(name, "db.slow.example"))
    assert "the lookup of the name db.slow.example did not end in time; check this machine's DNS" in said
    assert time.monotonic() - began < 15, "the end waited for the lookup"


def test_other_names_and_addresses_do_not_wait(asked: list[str]) -> None:
    policy = HostPolicy()

    async def run() -> None:
        waiting = [asyncio.create_task(policy.addresses(f"db{number % 64}.slow.example")) for number in range(200)]
        await asyncio.sleep(0)
        assert await policy.addresses("127.0.0.1") == ["127.0.0.1"]
        assert "127.0.0.1" in await policy.addresses("localhost")
        # The threads that everything else of the host uses.
        assert await asyncio.to_thread(lambda: "free") == "free"
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 20))
    assert len(asked) == 65, "each name once, and no address"


def test_more_lookups_than_may_hang(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "MOST", 3)
    policy = HostPolicy()

    async def run() -> None:
        waiting = [asyncio.create_task(policy.addresses(f"db{number}.slow.example")) for number in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(SourceUnavailable, match=r"3 lookups .* so the name localhost is not looked up"):
            await policy.addresses("localhost")
        assert await policy.addresses("::1") == ["::1"]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(run())


def finished(host: HostProcess, name: str) -> dict[str, Any] | None:
    records = host.logs(name, 1)
    return records[0] if records and records[0]["status"] != "running" else None


def test_a_host_whose_names_hang(tmp_path: Path, postgres_database: TestDatabase) -> None:
    """Six of such lookups took all of asyncio's threads: /query, and sources without a name, waited for them."""
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    (tmp_path / "silent.py").write_text(SILENT)
    with running(tmp_path, CONFIG + "\n[plugins.silent]\nmodule = 'silent'\n") as host:
        for number in range(12):
            slow = source("postgresql" if number % 2 else "mysql", f"db{number}.slow.example")
            host.configure(
                name=f"slow{number}", sourceConfig=slow, sourceTable="t", targetTable=f"slow{number}",
                isActive=False,
            )  # fmt: skip
            host.request("POST", f"/data-replication/sync/slow{number}", wait="false")
        until(lambda: finished(host, "slow0"), what="the error of a name")
        host.configure(
            name="good", sourceConfig=postgres_database.source_config, sourceTable="t", targetTable="t", isActive=False
        )
        began = time.monotonic()
        assert host.sync("good")["records_processed"] == 1
        assert host.query("SELECT count(*) FROM t") == [[1]]
        assert time.monotonic() - began < 15
        record = until(lambda: finished(host, "slow11"), what="the error of another") or {}
        assert "the lookup of the name db11.slow.example did not end in time" in record["error_message"]
        assert host.stop(seconds=10) == 0
