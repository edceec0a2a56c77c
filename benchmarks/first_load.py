"""First load: the whole of `orders`, from nothing, by every tool, into an SQLite file with a primary key."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import ours, page, peers
from benchmarks.measure import Failed, Figure, Tool, in_turn, say
from benchmarks.settings import Settings
from benchmarks.sources import Dialect, Source, running

# A running host has synced something before: its drivers are imported. As a command, that counts.
SMALL, SMALL_ROWS = "small", 10


def measure(settings: Settings) -> str:
    parts = []
    dialects: tuple[Dialect, ...] = ("postgresql", "mysql")
    for dialect in dialects:
        with running(dialect) as source:
            say(f"first load, {source.name}: filling {settings.rows:,} rows")
            source.fill(settings.rows)
            source.fill(SMALL_ROWS, SMALL)
            own = our_tools(source, settings)
            tools = [*own, *peer_tools(source, settings)]
            in_turn(tools, settings.runs)
            table = page.compared(tools, rows=settings.rows, against=own)
            parts.append(f"**{source.name}, {settings.rows:,} rows**\n\n{table}")
    return "\n\n".join(parts)


def our_tools(source: Source, settings: Settings) -> list[Tool]:
    where = settings.directory / f"first-load-{source.dialect}"
    template = ours.configured(where / "template", ours.body(source), ours.body(source, name=SMALL, table=SMALL))

    def inside(_: int) -> Figure:
        with ours.host_in(ours.copy(template, where / "inside")) as host:
            host.sync(SMALL)
            figure = ours.sync_inside(host)
            if ours.rows_of(host) != settings.rows:
                raise Failed("the replica does not hold every row")
            return Figure(seconds=figure.seconds, mib=ours.memory_mib(host, "VmHWM"))

    def command(_: int) -> Figure:
        return ours.sync_command(ours.copy(template, where / "command"))

    return [Tool("Starbase, running host", inside), Tool("Starbase, as a command", command)]


def peer_tools(source: Source, settings: Settings) -> list[Tool]:
    where = settings.directory / f"first-load-{source.dialect}"
    slow = settings.slow_runs

    def place(name: str) -> Path:
        shutil.rmtree(where / name, ignore_errors=True)
        return where / name

    tools = [peers.to_nothing(source, place("nothing")), peers.duckdb(source, place("duckdb"))]
    tools.append(peers.db_to_sqlite(source, place("db-to-sqlite"), rounds=slow))
    tools.append(peers.sling(source, place("sling"), rounds=slow))
    if source.dialect == "postgresql":
        tools.append(peers.dlt(source, place("dlt"), rounds=slow))
        tools.append(peers.ingestr(source, place("ingestr"), rounds=min(slow, 1)))
    return tools
