"""What the fault tests share: a host that reads through a proxy, a replication that suffers, and one that must not.

Everything is seen from outside: over HTTP, in the events that a plugin of the test hears, and at the source.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.hosts import CONFIG, LISTENER, HostProcess, events_of, until
from tests.support.proxy import Proxy
from tests.support.servers import TestDatabase, sequence

CREATE = {
    "postgresql": "CREATE TABLE {name} (id bigserial PRIMARY KEY, note text NOT NULL)",
    "mysql": "CREATE TABLE {name} (id bigint AUTO_INCREMENT PRIMARY KEY, note text NOT NULL)",
}
FILL = {
    "postgresql": "INSERT INTO {name} (note) SELECT repeat(md5(n::text), {width}) FROM generate_series(1, {rows}) n",
    "mysql": "INSERT INTO {name} (note) SELECT repeat(left(sha2(seq, 256), 32), {width}) FROM " + sequence("{rows}"),
}
# Times as short as the options allow, and a schedule that tries again after 0.6 s.
OPTIONS = 'silence_timeout_seconds = 1\nmax_concurrent_syncs = 4\n\n[plugins.listener]\nmodule = "listener"\n'
INTERVAL_MINUTES = 0.01


def through(database: TestDatabase, proxy: Proxy | TestDatabase, **parameters: Any) -> dict[str, Any]:
    """A sourceConfig that reaches the database over this address, with little patience for connecting."""
    settings = database.source_config
    host, port = (proxy.host, proxy.port) if isinstance(proxy, Proxy) else (settings["host"], settings["port"])
    user, password = quote(settings["user"], safe=""), quote(settings["password"], safe="")
    more = "".join(f"&{name}={value}" for name, value in parameters.items())
    text = f"{database.dialect}://{user}:{password}@{host}:{port}/{settings['database']}?connect_timeout=1{more}"
    return {"dialect": database.dialect, "connectionString": text}


@dataclass
class Rig:
    """One host, one source behind a proxy, and `steady`, a replication of the same source without the proxy."""

    host: HostProcess
    database: TestDatabase
    proxy: Proxy
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def table(self, *, rows: int = 500, width: int = 4) -> str:
        name = f"t{next(self._numbers)}"
        self.database.execute(CREATE[self.database.dialect].format(name=name))
        self.write(name, rows=rows, width=width)
        return name

    def write(self, table: str, *, rows: int = 3, width: int = 1) -> None:
        self.database.execute(FILL[self.database.dialect].format(name=table, rows=rows, width=width))

    def replicate(self, name: str, *, config: dict[str, Any] | None = None, table: str = "", **more: Any) -> None:
        body = {"syncIntervalMinutes": INTERVAL_MINUTES, "lookbackSeconds": 0, "closeWaitSeconds": 0, **more}
        self.host.configure(
            name=name, sourceConfig=config or through(self.database, self.proxy), sourceTable=table or name,
            targetTable=name, **body,
        )  # fmt: skip

    def runs(self, name: str, status: str) -> int:
        return sum(run["status"] == status for run in self.host.logs(name))

    def equal(self, name: str, table: str = "") -> bool:
        wanted = [list(row) for row in self.database.fetch(f"SELECT id, note FROM {table or name} ORDER BY id")]
        return self.host.query(f'SELECT id, note FROM "{name}" ORDER BY id') == wanted

    def events(self, name: str) -> list[str]:
        """The types of what a plugin has heard of a replication, syncs left out."""
        heard = events_of(self.host.directory)
        return [event["type"] for event in heard if event["config_name"] == name and event["type"] != "sync"]

    @contextlib.contextmanager
    def suffering(self, heal: Callable[[], object], *, says: str, write: bool = True, **more: Any) -> Iterator[str]:
        """A replication that follows its table; inside the context the caller breaks something.

        Then: the run fails and says so, the status is degraded, `steady` goes on; and after `heal` everything that
        was written meanwhile is there, nothing else is, and each event has gone out once. write=False: while it
        suffers nobody can write either.
        """
        name = self.table()
        self.replicate(name, **more)
        until(lambda: self.host.status(name)["last_success_at"], what="the first sync")
        try:
            yield name
            until(lambda: self.failure(name), what="a failed run")
            until(lambda: says in str(self.failure(name)), what=f"a failed run that says {says!r}")
            broken = self.host.status(name)
            assert broken["degraded_since"] is not None
            assert broken["last_error"]
            if write:
                self.write(name)
            self.steady_goes_on()
        finally:
            heal()
        self.recovers(name)

    def failure(self, name: str) -> str | None:
        """What the last run that failed said."""
        return next((run["error_message"] for run in self.host.logs(name) if run["status"] == "error"), None)

    def steady_goes_on(self, *, seconds: float = 8) -> None:
        """The healthy replication has never failed, and syncs."""
        self.steady_goes_on_again(seconds=seconds)
        assert self.runs("steady", "error") == 0

    def steady_goes_on_again(self, *, seconds: float = 30) -> None:
        """It syncs, after a fault that was the host's own."""
        before = self.runs("steady", "success")
        until(lambda: self.runs("steady", "success") > before, seconds=seconds, what="a sync of another replication")

    def recovers(self, name: str) -> None:
        self.write(name)
        until(lambda: self.host.status(name)["degraded_since"] is None, what="the recovery")
        until(lambda: self.equal(name), what="equality")
        until(lambda: self.events(name) == ["degraded", "recovered"], what="both events")
        self.host.result("POST", f"/data-replication/stop/{name}")
        until(lambda: not self.host.status(name)["is_running"], what="the end of the last run")
        found = self.host.result("POST", f"/data-replication/verify/{name}")
        assert [found[kind] for kind in ("missing", "extra", "different")] == [0, 0, 0]
        self.host.result("DELETE", f"/data-replication/configure/{name}")


@contextlib.contextmanager
def rig(
    directory: Path,
    database: TestDatabase,
    *,
    steady: TestDatabase | None = None,
    options: str = OPTIONS,
    environ: dict[str, str] | None = None,
) -> Iterator[Rig]:
    """A rig with its host running and `steady` synced, which reads from a separate database if one is given."""
    (directory / "listener.py").write_text(LISTENER)
    with Proxy(database.server.host, database.server.port) as proxy:
        host = HostProcess(directory, CONFIG + options, environ=environ)
        made = Rig(host, database, proxy)
        with host:
            unharmed = steady or database
            unharmed.execute(CREATE[unharmed.dialect].format(name="steady"))
            made.replicate("steady", config=through(unharmed, unharmed))
            until(lambda: host.status("steady")["last_success_at"], what="the healthy replication")
            yield made


def seconds_of(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


__all__ = ["Rig", "rig", "seconds_of", "through"]
