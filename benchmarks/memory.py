"""Memory: the resident memory of the idle host, and its highest during a first load of few, many and wide rows."""

from __future__ import annotations

from benchmarks import ours, page
from benchmarks.measure import say
from benchmarks.settings import Settings
from benchmarks.sources import Dialect, Source, running

WIDE: dict[Dialect, str] = {
    "postgresql": "CREATE TABLE wide (id bigint PRIMARY KEY, body text NOT NULL); "
    "INSERT INTO wide SELECT n, md5(n::text) FROM generate_series(1, 20000) n; "
    "INSERT INTO wide SELECT n, repeat(md5(n::text), 31250) FROM generate_series(20001, 20300) n",
    "mysql": "CREATE TABLE wide (id bigint PRIMARY KEY, body longtext NOT NULL); "
    "INSERT INTO wide SELECT seq, md5(seq) FROM seq_1_to_20000; "
    "INSERT INTO wide SELECT seq, repeat(md5(seq), 31250) FROM seq_20001_to_20300",
}


def measure(settings: Settings) -> str:
    lines = []
    dialects: tuple[Dialect, ...] = ("postgresql", "mysql")
    for dialect in dialects:
        with running(dialect) as source:
            for rows in (settings.rows // 10, 5 * settings.rows):
                say(f"memory, {source.name}: filling {rows:,} rows")
                source.fill(rows)
                lines.append([source.name, f"{rows:,} orders", *_load(source, settings, "orders", "updated_at")])
            source.database.execute("DROP TABLE orders")
            source.database.execute(WIDE[dialect])
            what = "20,000 narrow rows, then 300 of 1 MB"
            lines.append([source.name, what, *_load(source, settings, "wide", "id")])
    return page.table(["source", "table", "idle, MiB", "peak, MiB", "above idle, MiB"], lines)


def _load(source: Source, settings: Settings, table: str, tracking: str) -> list[str]:
    directory = settings.directory / f"{source.dialect}-{table}-{source.rows}"
    ours.configured(directory, ours.body(source, name=table, table=table, trackingColumn=tracking))
    with ours.host_in(directory) as host:
        host.query("SELECT 1")
        idle = ours.memory_mib(host)
        host.sync(table)
        most = ours.memory_mib(host, "VmHWM")
    say(f"  {table}: idle {idle:.0f} MiB, at most {most:.0f} MiB")
    return [f"{idle:.0f}", f"{most:.0f}", f"{most - idle:.0f}"]
