"""The soak: writers, schedules and random faults on both databases for as long as you like, and equality at the end.

`python -m tests.support.soak --minutes 20 --seed 7`; `make soak MINUTES=20`. Exits with 1 when the replicas differ. It
prints what it did, and at the end what came of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.faults import through
from tests.support.hosts import CONFIG, LISTENER, HostProcess, events_of, until
from tests.support.proxy import Proxy
from tests.support.servers import DistroPostgres, Server, TestDatabase, ThrowawayMariaDB, ThrowawayMySQL, fresh_database
from tests.support.workload import Workload

OPTIONS = 'silence_timeout_seconds = 2\n\n[plugins.listener]\nmodule = "listener"\n'
# How long a fault lasts, and the calm after it; seconds.
FAULT_SECONDS = (0.5, 6.0)
CALM_SECONDS = (1.0, 6.0)


class HardyWorkload(Workload):
    """Writers that connect again when their source was restarted: what they had not committed is gone, as it is."""

    async def _write(self, number: int, choose: random.Random) -> None:
        while not self._stop.is_set():
            try:
                await super()._write(number, random.Random(choose.random()))
            except Exception:
                await asyncio.sleep(0.5)


@dataclass
class Source:
    """One database, the proxy through which the host sees it, and its writers."""

    name: str
    server: Server
    database: TestDatabase
    proxy: Proxy
    workload: Workload

    def freeze(self) -> Callable[[], None]:
        assert self.server.pid is not None
        processes = [psutil.Process(self.server.pid), *psutil.Process(self.server.pid).children(recursive=True)]
        frozen = []
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
                frozen.append(process)

        def resume() -> None:
            for process in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

        return resume

    def restart(self) -> Callable[[], None]:
        self.server.stop()
        return self.server.start


def say(*words: object) -> None:
    print(f"{time.strftime('%H:%M:%S')} ", *words, flush=True)


def break_something(host: HostProcess, source: Source, choose: random.Random) -> tuple[str, Callable[[], None]]:
    """One fault at random: its name, and what ends it."""
    proxy = source.proxy

    def fault(**how: Any) -> Callable[[], None]:
        proxy.begin(**how)
        return proxy.heal

    def again(work: Callable[[], object]) -> Callable[[], None]:
        work()
        return proxy.heal

    def kill() -> Callable[[], None]:
        host.kill()
        host.start()
        return proxy.heal

    def act(path: str) -> Callable[[], None]:
        host.request("POST", f"/data-replication/{path}/{source.name}", wait="false")
        return proxy.heal

    faults: dict[str, Callable[[], Callable[[], None]]] = {
        "host killed": kill,
        "host killed at once again": lambda: (kill(), kill())[1],
        "connections cut": lambda: again(proxy.cut),
        "cut at a byte": lambda: fault(cut_at=int(10 ** choose.uniform(1, 6))),
        "black hole": lambda: fault(black_hole=True),
        "refused": lambda: again(proxy.refuse),
        "delayed": lambda: fault(delay_seconds=choose.uniform(0.01, 0.3)),
        "trickle": lambda: fault(bytes_per_second=choose.uniform(2_000, 200_000)),
        "source restarted": source.restart,
        "source frozen": source.freeze,
        "reset": lambda: act("reset"),
        "verify": lambda: act("verify"),
    }
    name = choose.choice(list(faults))
    return name, faults[name]()


def differences(host: HostProcess, source: Source) -> tuple[int, int, int]:
    """Rows missing from the replica, stale in it, and too many in it."""
    wanted = {row[0]: row for row in source.workload.rows()}
    sql = f"SELECT id, writer, note FROM {source.name} WHERE id > ? ORDER BY id LIMIT 50000"
    found: dict[int, list[Any]] = {}
    while rows := host.query(sql, max(found, default=-1)):
        found.update((row[0], row) for row in rows)
    stale = sum(1 for key in wanted.keys() & found.keys() if wanted[key] != found[key])
    return len(wanted.keys() - found.keys()), stale, len(found.keys() - wanted.keys())


@contextlib.contextmanager
def sources(seed: int, writers: int) -> Iterator[list[Source]]:
    with contextlib.ExitStack() as stack:
        made = []
        servers: list[tuple[str, Any, Any]] = [
            ("postgresql", DistroPostgres(), "postgresql"), ("mariadb", ThrowawayMariaDB(), "mysql"),
            ("mysql", ThrowawayMySQL(), "mysql"),
        ]  # fmt: skip
        for number, (name, server, dialect) in enumerate(servers):
            stack.enter_context(server)
            database = stack.enter_context(fresh_database(dialect, server))
            proxy = stack.enter_context(Proxy(server.host, server.port))
            workload = HardyWorkload(database, seed=seed + number, writers=writers)
            workload.create_table()
            made.append(Source(name, server, database, proxy, workload))
        yield made


def soak(minutes: float, seed: int, directory: Path, writers: int) -> int:
    choose = random.Random(seed)
    (directory / "listener.py").write_text(LISTENER)
    counted: Counter[str] = Counter()
    with sources(seed, writers) as made, HostProcess(directory, CONFIG + OPTIONS) as host:
        for source in made:
            host.configure(
                name=source.name, sourceConfig=through(source.database, source.proxy), sourceTable="items",
                targetTable=source.name, trackingColumn="updated_at", syncIntervalMinutes=0.01, lookbackSeconds=0,
            )  # fmt: skip
        deadline = time.monotonic() + 60 * minutes
        with contextlib.ExitStack() as writing:
            for source in made:
                writing.enter_context(source.workload.running())
            while time.monotonic() < deadline:
                source = choose.choice(made)
                name, heal = break_something(host, source, choose)
                counted[f"{source.name}: {name}"] += 1
                time.sleep(choose.uniform(*FAULT_SECONDS))
                heal()
                source.proxy.heal()
                time.sleep(choose.uniform(*CALM_SECONDS))
        say(f"{sum(counted.values())} faults:", dict(sorted(counted.items())))
        return sum(not settled(host, source) for source in made) + report(host, directory)


def settled(host: HostProcess, source: Source) -> bool:
    """Whether the replica equals its source after one more successful sync, and the verification says so too."""
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    until(lambda: (host.status(source.name)["last_success_at"] or "") > since, seconds=120, what="one more sync")
    host.result("POST", f"/data-replication/stop/{source.name}")
    until(lambda: not host.status(source.name)["is_running"], what="the end of the last run")
    until(lambda: host.request("POST", f"/data-replication/sync/{source.name}").is_success, what="a last sync")
    found = differences(host, source)
    verified = host.result("POST", f"/data-replication/verify/{source.name}")
    compared = [verified[kind] for kind in ("missing", "extra", "different")]
    runs = Counter(run["status"] for run in host.logs(source.name))
    say(f"{source.name}: {len(source.workload.rows())} rows, {source.workload.commits} commits, of which")
    say(f"    {source.workload.late} took long; of its last 1000 runs: {dict(runs)}")
    say(f"    missing, stale, too many: {found}; verify: {compared}")
    return found == (0, 0, 0) and compared == [0, 0, 0]


def report(host: HostProcess, directory: Path) -> int:
    """Problems other than differences: events out of turn, unexpected errors."""
    heard = events_of(directory)
    wrong = 0
    for name in ("postgresql", "mariadb", "mysql"):
        own = {each["id"]: each["type"] for each in heard if each["config_name"] == name}
        kinds = [kind for kind in own.values() if kind in ("degraded", "recovered")]
        turns = all(kind == ("degraded", "recovered")[at % 2] for at, kind in enumerate(kinds))
        say(f"{name}: {len(kinds)} events degraded and recovered, {'in' if turns else 'OUT OF'} turn")
        wrong += not turns
    unexpected = host.log.count("Traceback")
    say(f"{unexpected} tracebacks in the host's log")
    return wrong + unexpected


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--writers", type=int, default=3)
    parser.add_argument("--keep", type=Path, default=None, help="a directory for the host's log and database")
    options = parser.parse_args()
    say(f"soak of {options.minutes:g} minutes, seed {options.seed}")
    with contextlib.ExitStack() as stack:
        directory = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        problems = soak(options.minutes, options.seed, directory, options.writers)
    say("PASSED" if problems == 0 else "FAILED")
    return int(problems != 0)


if __name__ == "__main__":
    sys.exit(main())
