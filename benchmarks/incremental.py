"""Incremental: 10,000 rows updated all over `orders` and 10,000 new ones; each tool brings its own copy up to date.

And nothing changed, as a whole process. Every tool has loaded the table before; that is not measured. Between two
rounds lies more than a minute, as between two syncs of a schedule: ours reads again what is younger than that.
"""

from __future__ import annotations

import time

from benchmarks import ours, page, peers
from benchmarks.measure import Failed, Figure, Tool, in_turn, say
from benchmarks.settings import Settings
from benchmarks.sources import Dialect, Source, running

# lookbackSeconds as it is by default, and a little more.
LOOKBACK_SECONDS = 63.0


def measure(settings: Settings) -> str:
    count = max(1, min(10_000, settings.rows // 10))
    parts = []
    dialects: tuple[Dialect, ...] = ("postgresql", "mysql")
    for dialect in dialects:
        with running(dialect) as source:
            say(f"incremental, {source.name}: filling {settings.rows:,} rows, and every tool's first load")
            source.fill(settings.rows)
            directory = settings.directory / f"inside-{dialect}"
            ours.configured(directory, ours.body(source))
            with ours.host_in(directory) as host:
                own = our_tools(source, settings, host)
                tools = [*own, *peer_tools(source, settings)]
                for tool in tools:
                    _first_load(tool)
                in_turn(tools, settings.runs, lambda number: _change(source, number + 1, count))
                parts.append(_section(source, f"{count:,} updated and {count:,} inserted", tools, own))
                for tool in tools:
                    tool.figures.clear()
                # One sync more lifts the floor over what a lookback would read again; then nothing is left.
                time.sleep(LOOKBACK_SECONDS)
                in_turn(own, 1)
                in_turn(tools, settings.runs)
                parts.append(_section(source, "nothing changed", tools, own))
    return "\n\n".join(parts)


def _change(source: Source, number: int, count: int) -> None:
    time.sleep(LOOKBACK_SECONDS)
    source.change(number, count)


def our_tools(source: Source, settings: Settings, host: ours.HostProcess) -> list[Tool]:
    def inside(_: int) -> Figure:
        figure = ours.sync_inside(host)
        if ours.rows_of(host) != source.database.fetch("SELECT count(*) FROM orders")[0][0]:
            raise Failed("the replica does not hold every row")
        return figure

    directory = settings.directory / f"command-{source.dialect}"
    ours.configured(directory, ours.body(source))
    return [
        Tool("ours, in the running host", inside),
        Tool("ours, as a command", lambda _: ours.sync_command(directory)),
    ]


def peer_tools(source: Source, settings: Settings) -> list[Tool]:
    where = settings.directory / f"peers-{source.dialect}"
    tools = [peers.duckdb(source, where / "duckdb", mode="follow")]
    tools.append(peers.sling(source, where / "sling", fresh=False))
    if source.dialect == "postgresql":
        tools.append(peers.dlt(source, where / "dlt", fresh=False))
    return tools


def _first_load(tool: Tool) -> None:
    if tool.failure is None:
        try:
            tool.prepare(0)
            tool.run(0)
        except Failed as error:
            tool.failure = f"first load: {error}"


def _section(source: Source, what: str, tools: list[Tool], own: list[Tool]) -> str:
    return f"**{source.name}, {source.rows:,} rows, {what}**\n\n{page.compared(tools, against=own)}"
