"""Nothing changed: what one sync inside the running host takes, in milliseconds and in round trips to the source.

On a small and on a large table, since the cost must not grow with it. As a command, and next to the peers:
the group `incremental`.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import ours, page
from benchmarks.measure import say, spread
from benchmarks.settings import Settings
from benchmarks.sources import Dialect, Source, running
from benchmarks.wire import CountingProxy, counting_proxy

SYNCS = 30
# Syncs of a schedule do not follow one another at once either.
PAUSE_SECONDS = 0.3


def measure(settings: Settings) -> str:
    lines = []
    dialects: tuple[Dialect, ...] = ("postgresql", "mysql")
    for dialect in dialects:
        with running(dialect) as source, counting_proxy(source.server.host, source.server.port) as proxy:
            small = max(1000, settings.rows // 100)
            source.fill(settings.rows)
            source.fill(small, "small")
            source.rows = settings.rows
            lines += _lines(source, proxy, settings.directory / dialect, small)
    heads = [
        "source",
        "rows",
        "read",
        "ms over HTTP",
        "ms by the run record",
        "round trips",
        "ms in round trips",
        "other ms, by the run record",
        "other ms, over HTTP",
    ]
    return page.table(heads, lines) + (
        f"\n\nMedians of {SYNCS} syncs on a pooled connection, {PAUSE_SECONDS:g} s apart. A counting proxy measured "
        "the round trips of as many syncs in between; the proxy adds time. *Other* is a sync's time minus the round "
        "trips of the next sync through the proxy. *read* counts rows of the last minute (`lookbackSeconds`)."
    )


def _lines(source: Source, proxy: CountingProxy, directory: Path, small: int) -> list[list[str]]:
    counted = {**source.database.source_config, "host": "127.0.0.1", "port": proxy.port}
    tables = {"orders": source.rows, "small": small}
    bodies = [ours.body(source, name=table, table=table) for table in tables]
    bodies += [ours.body(source, name=f"{table}_counted", table=table, sourceConfig=counted) for table in tables]
    ours.configured(directory, *bodies)
    lines = []
    with ours.host_in(directory) as host, ours.connection(host) as connection:
        for table, rows in tables.items():
            for name in (table, f"{table}_counted"):
                # Twice: after the first load, what its lookback leaves to be read again.
                _sync(connection, name)
                _sync(connection, name)
            wall, inside, trips, waited, besides, of_run, read = [], [], [], [], [], [], 0
            for _ in range(SYNCS):
                time.sleep(PAUSE_SECONDS)
                seconds, run = _sync(connection, table)
                wall.append(seconds * 1000)
                inside.append(float(run["sync_duration_ms"]))
                read = run["rows_read"]
                assert run["records_processed"] == 0, run
                # By another address, the same server is not known for the same: its list must be left alone meanwhile.
                time.sleep(PAUSE_SECONDS)
                before, waited_before = proxy.round_trips, proxy.waited_seconds
                _sync(connection, f"{table}_counted")
                trips.append(proxy.round_trips - before)
                waited.append((proxy.waited_seconds - waited_before) * 1000)
                besides.append(wall[-1] - waited[-1])
                of_run.append(inside[-1] - waited[-1])
            say(f"  {source.name}, {rows:,} rows: {statistics.median(wall):.1f} ms, {trips[-1]} round trips")
            lines.append(
                [
                    source.name, f"{rows:,}", f"{read:,}", spread(wall, ".1f"), spread(inside, ".0f"),
                    f"{statistics.median(trips):.0f}", spread(waited, ".1f"), spread(of_run, ".1f"),
                    spread(besides, ".1f"),
                ]
            )  # fmt: skip
    return lines


def _sync(connection: http.client.HTTPConnection, name: str) -> tuple[float, dict[str, Any]]:
    """One sync: how many seconds until its answer, and the run."""
    began = time.perf_counter()
    connection.request("POST", f"/data-replication/sync/{name}", headers={"authorization": f"Bearer {ours.ADMIN}"})
    answer = connection.getresponse().read()
    seconds = time.perf_counter() - began
    return seconds, json.loads(answer)["result"]["run"]
