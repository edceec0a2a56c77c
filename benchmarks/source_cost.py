"""What a first load and an idle sync cost the source: CPU of the server's processes, and what it had to touch.

Buffers are those that the server looked at, in its cache or not. A sort that does not fit, or a table scan where an
index serves, shows there, and in the last column.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ours, page, peers
from benchmarks.measure import Failed, Tool, say
from benchmarks.settings import Settings
from benchmarks.sources import Dialect, Source, running

# One idle sync is too short for the kernel's clock of 10 ms.
IDLE_SYNCS = 40
SETTLE_SECONDS = 1.5
COUNTERS: dict[Dialect, str] = {
    "postgresql": "SELECT blks_hit + blks_read, temp_bytes FROM pg_stat_database WHERE datname = current_database()",
    "mysql": "SELECT sum(if(variable_name = 'INNODB_BUFFER_POOL_READ_REQUESTS', variable_value, 0)), "
    "sum(if(variable_name = 'SORT_ROWS', variable_value, 0)) FROM information_schema.global_status",
}
LAST_COLUMN: dict[Dialect, str] = {"postgresql": "temporary files, MiB", "mysql": "rows sorted"}


@dataclass(frozen=True)
class Cost:
    """Of the server: seconds of CPU, buffers looked at, and what stands in the last column."""

    cpu: float
    buffers: float
    last: float

    def less(self, other: Cost, count: int) -> Cost:
        """What each of `count` syncs cost that this has and `other` has not."""
        cpu, buffers = max(0.0, self.cpu - other.cpu), max(0.0, self.buffers - other.buffers)
        return Cost(cpu / count, buffers / count, max(0.0, self.last - other.last) / count)


def measure(settings: Settings) -> str:
    parts = []
    dialects: tuple[Dialect, ...] = ("postgresql", "mysql")
    for dialect in dialects:
        with running(dialect) as source:
            say(f"source cost, {source.name}: filling {settings.rows:,} rows")
            source.fill(settings.rows)
            lines = [*_ours(source, settings), *_peers(source, settings)]
            heads = ["tool", "first load: CPU s", "buffers", LAST_COLUMN[dialect]]
            heads += ["nothing changed: CPU ms", "buffers", LAST_COLUMN[dialect]]
            parts.append(f"**{source.name}, {settings.rows:,} rows**\n\n{page.table(heads, lines)}")
    return "\n\n".join(parts)


def _ours(source: Source, settings: Settings) -> list[list[str]]:
    loads: list[Cost] = []
    directory = settings.directory / source.dialect
    template = ours.configured(settings.directory / f"{source.dialect}-template", ours.body(source))
    for _ in range(settings.slow_runs):
        ours.copy(template, directory)
        loads.append(_cost(source, lambda: _syncs(directory, 1)))
    once = _cost(source, lambda: _syncs(directory, 1))
    many = _cost(source, lambda: _syncs(directory, 1 + IDLE_SYNCS))
    return [_line("Starbase, running host", loads, many.less(once, IDLE_SYNCS))]


def _syncs(directory: Path, count: int) -> None:
    """Sync `count` times in one host, then end it, so that the server's sessions report their counters."""
    with ours.host_in(directory) as host:
        for _ in range(count):
            host.sync("orders")


def _peers(source: Source, settings: Settings) -> list[list[str]]:
    where = settings.directory / f"peers-{source.dialect}"
    tools = [peers.to_nothing(source, where / "nothing"), peers.duckdb(source, where / "duckdb", mode="follow")]
    tools.append(peers.sling(source, where / "sling", fresh=False))
    if source.dialect == "postgresql":
        tools.append(peers.dlt(source, where / "dlt", fresh=False))
    lines = []
    for tool in tools:
        try:
            if tool.failure is not None:
                raise Failed(tool.failure)
            load, idle = _run(source, tool), None
            if tool is not tools[0]:
                idle = _run(source, tool)
            lines.append(_line(tool.name, [load], idle))
        except Failed as error:
            lines.append([tool.name, f"not measured: {error}", *[""] * 5])
    return lines


def _run(source: Source, tool: Tool) -> Cost:
    tool.prepare(0)
    return _cost(source, lambda: tool.run(0))


def _cost(source: Source, work: Callable[[], object]) -> Cost:
    before = _counters(source)
    cpu = source.cpu_seconds()
    work()
    cpu = source.cpu_seconds() - cpu
    after = _counters(source)
    say(f"  {cpu:.3f} s of the server's CPU, {after[0] - before[0]:.0f} buffers")
    return Cost(cpu, after[0] - before[0], after[1] - before[1])


def _counters(source: Source) -> tuple[float, float]:
    # PostgreSQL's sessions hand in their counts when they end.
    time.sleep(SETTLE_SECONDS)
    first, second = source.database.fetch(COUNTERS[source.dialect])[0]
    return float(first), float(second)


def _line(name: str, loads: list[Cost], idle: Cost | None) -> list[str]:
    def last(value: float) -> str:
        return f"{value / 2**20:.0f}" if value > 2**20 else f"{value:.0f}"

    line = [name, f"{statistics.median(each.cpu for each in loads):.2f}"]
    line += [f"{statistics.median(each.buffers for each in loads):,.0f}", last(max(each.last for each in loads))]
    return line + (["–"] * 3 if idle is None else [f"{1000 * idle.cpu:.1f}", f"{idle.buffers:,.0f}", last(idle.last)])
