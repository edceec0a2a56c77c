"""A host's directory with many replications of a few small tables, for the groups `start` and `many`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from benchmarks import ours
from benchmarks.measure import say, timed
from benchmarks.sources import Source, running
from starbase_data_replication.runs.scheduler import SYNC

TABLES = 20
ROWS = 20


@contextlib.contextmanager
def sources() -> Iterator[list[Source]]:
    """Both servers, each with some small tables."""
    with running("postgresql") as postgres, running("mysql") as mariadb:
        for source in (postgres, mariadb):
            for number in range(TABLES):
                source.fill(ROWS, f"small_{number}")
        yield [postgres, mariadb]


def configure(directory: Path, sources: Sequence[Source], count: int, minutes: float) -> float:
    """Configure `count` replications, active; answers how many seconds that took. Their alarms are not due yet."""
    bodies = []
    for number in range(count):
        source, table = sources[number % len(sources)], f"small_{number // len(sources) % TABLES}"
        body = ours.body(source, name=f"replication_{number}", table=table, syncIntervalMinutes=minutes)
        bodies.append(body)
    seconds = timed(lambda: ours.configured(directory, *bodies)).seconds
    say(f"  configured {count} replications in {seconds:.1f} s")
    # Made active behind the host's back: each would begin its first sync at once.
    with contextlib.closing(apsw.Connection(str(directory / "data" / "starbase.db"))) as connection:
        connection.execute("UPDATE tmp_replication_configs SET is_active = 1")
    return seconds


def set_alarms(directory: Path, at: Sequence[float]) -> None:
    """Give each replication its alarm, in the order of their numbers."""
    with contextlib.closing(apsw.Connection(str(directory / "data" / "starbase.db"))) as connection, connection:
        for number, each in enumerate(at):
            connection.execute(
                "INSERT OR REPLACE INTO tmp_alarms (plugin, name, at, payload, attempts, generation) "
                "VALUES ('data_replication', ?, ?, 'null', 0, ?)",
                (f"{SYNC}replication_{number}", each, number + 1),
            )
