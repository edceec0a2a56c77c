"""Incremental: 10,000 rows updated all over `orders` and 10,000 new ones; each tool brings its own copy up to date.

And nothing changed, as a whole process. Every tool has loaded the table before; that is not measured. Ours reads again
what it has noted less than its lookback ago. Here that is five seconds, not a minute, and each round is later than
that: it reads the rows of its last sync twice, as on a schedule of a minute or more.

A tool finds its files and the source's in memory. While the others have their turns a virtual machine may lose to its
host what has not been touched for some seconds, and each page that is touched again costs as much as one from a disk.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import ours, page, peers
from benchmarks.measure import Failed, Figure, Tool, in_turn, say
from benchmarks.settings import Settings
from benchmarks.sources import Dialect, Source, running

LOOKBACK_SECONDS = 5
# The rows of a round, whose times are spread over ten minutes; a peer's position is the last round's end.
CHANGED = "SELECT * FROM orders WHERE updated_at > (SELECT max(updated_at) FROM orders) - interval {ten_minutes}"
TEN_MINUTES: dict[Dialect, str] = {"postgresql": "'10 minutes'", "mysql": "10 minute"}
PAUSE_SECONDS = LOOKBACK_SECONDS + 1.0


def measure(settings: Settings) -> str:
    count = max(1, min(10_000, settings.rows // 10))
    parts = []
    dialects: tuple[Dialect, ...] = ("postgresql", "mysql")
    for dialect in dialects:
        with running(dialect) as source:
            say(f"incremental, {source.name}: filling {settings.rows:,} rows, and every tool's first load")
            source.fill(settings.rows)
            directory = settings.directory / f"inside-{dialect}"
            ours.configured(directory, ours.body(source, lookbackSeconds=LOOKBACK_SECONDS))
            with ours.host_in(directory) as host:
                own, others = our_tools(source, settings, host), peer_tools(source, settings)
                tools = [*own, *others]
                for tool in tools:
                    _first_load(tool)
                compared = [*own, _limit(source, settings), *others]
                in_turn(compared, settings.runs, lambda number: _change(source, number + 1, count))
                parts.append(_section(source, f"{count:,} updated and {count:,} inserted", compared, own))
                for tool in tools:
                    tool.figures.clear()
                # One sync more lifts the floor over what a lookback would read again; then nothing is left.
                time.sleep(PAUSE_SECONDS)
                in_turn(own, 1)
                in_turn(tools, settings.runs)
                parts.append(_section(source, "nothing changed", tools, own))
    return "\n\n".join(parts)


def _change(source: Source, number: int, count: int) -> None:
    time.sleep(PAUSE_SECONDS)
    source.change(number, count)


def our_tools(source: Source, settings: Settings, host: ours.HostProcess) -> list[Tool]:
    def inside(_: int) -> Figure:
        figure = ours.sync_inside(host)
        if ours.rows_of(host) != source.database.fetch("SELECT count(*) FROM orders")[0][0]:
            raise Failed("the replica does not hold every row")
        return figure

    directory = settings.directory / f"command-{source.dialect}"
    ours.configured(directory, ours.body(source, lookbackSeconds=LOOKBACK_SECONDS))
    return [
        _warm(Tool("Starbase, running host", inside), source, host.directory),
        _warm(Tool("Starbase, as a command", lambda _: ours.sync_command(directory)), source, directory),
    ]


def peer_tools(source: Source, settings: Settings) -> list[Tool]:
    where = settings.directory / f"peers-{source.dialect}"
    tools = {"duckdb": peers.duckdb(source, where / "duckdb", mode="follow")}
    tools["sling"] = peers.sling(source, where / "sling", fresh=False)
    if source.dialect == "postgresql":
        tools["dlt"] = peers.dlt(source, where / "dlt", fresh=False)
    return [_warm(tool, source, where / name) for name, tool in tools.items()]


def _limit(source: Source, settings: Settings) -> Tool:
    """What the source takes to hand over the rows of a round, and nothing is kept of them."""
    directory = settings.directory / f"nothing-{source.dialect}"
    changed = CHANGED.format(ten_minutes=TEN_MINUTES[source.dialect])
    return _warm(peers.to_nothing(source, directory, changed), source, directory)


def _warm(tool: Tool, source: Source, directory: Path) -> Tool:
    """The tool, with its files and the source's read once before each turn; that is not measured."""
    before = tool.prepare

    def prepare(number: int) -> None:
        before(number)
        for path in (*source.server.directory.rglob("*"), *directory.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    while file.read(1 << 20):
                        pass

    tool.prepare = prepare
    return tool


def _first_load(tool: Tool) -> None:
    if tool.failure is None:
        try:
            tool.prepare(0)
            tool.run(0)
        except Failed as error:
            tool.failure = f"first load: {error}"


def _section(source: Source, what: str, tools: list[Tool], own: list[Tool]) -> str:
    return f"**{source.name}, {source.rows:,} rows, {what}**\n\n{page.compared(tools, against=own)}"
