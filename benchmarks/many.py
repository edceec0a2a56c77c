"""Many: 1,000 replications with a one-minute interval on one host, of small tables of both servers.

How late each tick began and ended, and what the host takes meanwhile. The first minute is not counted.
"""

from __future__ import annotations

import datetime
import os
import time

import psutil

from benchmarks import crowd, ours, page
from benchmarks.measure import quantile, say
from benchmarks.settings import Settings
from starbase_data_replication.runs import schedule

COUNT = int(os.environ.get("MANY") or 1000)
INTERVAL_SECONDS = 60.0
MEASURED_SECONDS = 120.0


def measure(settings: Settings) -> str:
    directory = settings.directory / "host"
    with crowd.sources() as sources:
        configuring = crowd.configure(directory, sources, COUNT, INTERVAL_SECONDS / 60)
        begin = time.time() + 5
        names = [f"replication_{number}" for number in range(COUNT)]
        crowd.set_alarms(directory, [schedule.next_tick(name, INTERVAL_SECONDS, now=begin) for name in names])
        with ours.host_in(directory, probe=True) as host:
            time.sleep(INTERVAL_SECONDS + 10)
            process = psutil.Process(host.pid)
            servers = [source.cpu_seconds() for source in sources]
            host.request("GET", "/probe/lag")
            since, before = time.time(), process.cpu_times()
            time.sleep(MEASURED_SECONDS)
            until, after = time.time(), process.cpu_times()
            lag = host.result("GET", "/probe/lag")
            cpu = after.user + after.system - before.user - before.system
            shares = [cpu / (until - since)]
            shares += [
                (source.cpu_seconds() - was) / (until - since) for source, was in zip(sources, servers, strict=True)
            ]
            mib = ours.memory_mib(host, "VmHWM")
            # Those that were due near the end may still run.
            time.sleep(10)
            columns = "config_name, status, started_at, finished_at"
            rows = host.query(f"SELECT {columns} FROM tmp_replication_logs ORDER BY id DESC LIMIT 9000")
    return _summary(rows, since, until, shares, mib, lag, configuring)


def _summary(
    rows: list[list[str]], since: float, until: float, shares: list[float], mib: float, lag: list[float], conf: float
) -> str:
    begun, ended, failed, took = [], [], 0, []
    for name, status, started, finished in rows:
        started_at, finished_at = _seconds(started), _seconds(finished)
        due = schedule.next_tick(name, INTERVAL_SECONDS, now=started_at) - INTERVAL_SECONDS
        if since <= due < until:
            failed += status != "success"
            begun.append(started_at - due)
            ended.append(finished_at - due)
            took.append(finished_at - started_at)
    expected = COUNT * (until - since) / INTERVAL_SECONDS
    say(f"  {len(begun)} runs, of {expected:.0f} due")
    lines = [
        ["runs recorded / due", f"{len(begun)} / {expected:.0f}"],
        ["of these, not successful", str(failed)],
        ["start after due time, s: p50, p99, max", _three(begun)],
        ["end after due time, s: p50, p99, max", _three(ended)],
        ["duration of a run, s: p50, p99, max", _three(took)],
        ["CPU of the host, cores", f"{shares[0]:.2f}"],
        ["CPU of PostgreSQL and MariaDB, cores", f"{shares[1]:.2f}, {shares[2]:.2f}"],
        ["peak memory of the host, MiB", f"{mib:.0f}"],
        ["loop delay, ms: p50, p99, max", _three([1000 * each for each in lag])],
        [f"configuring the {COUNT}, s", f"{conf:.1f}"],
    ]
    return page.table([f"{COUNT} replications, every {INTERVAL_SECONDS:.0f} s", f"in {until - since:.0f} s"], lines)


def _three(values: list[float]) -> str:
    return ", ".join(f"{quantile(values, share):.2f}" for share in (0.5, 0.99, 1)) if values else "–"


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()
