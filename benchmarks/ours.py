"""The product as it ships: a directory with a configured replication, a running host, a command."""

from __future__ import annotations

import contextlib
import http.client
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.hosts import ADMIN, CONFIG, HostProcess

from benchmarks import environments
from benchmarks.measure import Failed, Figure, timed, whole_process
from benchmarks.sources import Source

PROBE = '\n[plugins.probe]\nmodule = "benchmarks.probe"\n'


def body(source: Source, *, name: str = "orders", table: str = "orders", **fields: Any) -> dict[str, Any]:
    """What `configure` takes for a table of the source, off its schedule."""
    found = {
        "name": name,
        "sourceConfig": source.database.source_config,
        "sourceTable": table,
        "targetTable": name,
        "trackingColumn": "updated_at",
        "isActive": False,
    }
    return {**found, **fields}


def configured(directory: Path, *bodies: dict[str, Any]) -> Path:
    """A new host's directory with these replications, and nothing loaded yet. The host is stopped."""
    directory.mkdir(parents=True)
    with HostProcess(directory) as host:
        for each in bodies:
            host.configure(**each)
    return directory


def starbase() -> Path:
    """The command, as a user has it."""
    return environments.product() / "starbase"


def copy(template: Path, directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(template, directory)
    return directory


def sync_command(directory: Path, name: str = "orders") -> Figure:
    """`starbase replication sync NAME`, in a process of its own, with no host running."""
    return whole_process(
        [starbase(), "--config", str(directory / "plugin.toml"), "replication", "sync", name], cwd=directory
    )


def sync_inside(host: HostProcess, name: str = "orders") -> Figure:
    """POST /data-replication/sync/NAME to a running host: as long as the answer takes."""
    return timed(lambda: host.sync(name))


@contextlib.contextmanager
def host_in(directory: Path, *, probe: bool = False) -> Iterator[HostProcess]:
    """A host on a directory that may be configured already; the database in it stays as it is."""
    with HostProcess(directory, CONFIG + (PROBE if probe else "")) as host:
        yield host


@contextlib.contextmanager
def connection(host: HostProcess) -> Iterator[http.client.HTTPConnection]:
    """A client that costs next to nothing itself."""
    address = urlsplit(host.url)
    with contextlib.closing(http.client.HTTPConnection(address.hostname or "", address.port)) as opened:
        yield opened


def memory_mib(host: HostProcess, key: str = "VmRSS") -> float:
    """Resident memory of the host now; with VmHWM, at most so far."""
    for line in Path(f"/proc/{host.pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise Failed(f"the kernel does not tell {key}")


def rows_of(host: HostProcess, table: str = "orders") -> int:
    return int(host.query(f'SELECT count(*) FROM "{table}"')[0][0])


__all__ = [
    "ADMIN", "HostProcess", "body", "configured", "connection", "copy", "host_in", "memory_mib", "rows_of", "starbase",
    "sync_command", "sync_inside",
]  # fmt: skip
