"""`make bench`: runs the groups that ONLY names, or all; prints each table, and writes docs/explanation/performance.md.

    make bench [ONLY=first_load,start] [ROWS=1000000] [RUNS=5] [SLOW_RUNS=3] [WRITE=1]

WRITE=0 prints and leaves the page as it is.
"""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import apsw
import psutil

from benchmarks import page, peers
from benchmarks.measure import say
from benchmarks.settings import Settings

GROUPS = (
    "first_load", "incremental", "unchanged", "memory", "readers", "query", "start", "many", "source_cost",
)  # fmt: skip


def main() -> None:
    only = [name for name in os.environ.get("ONLY", "").split(",") if name] or list(GROUPS)
    unknown = sorted(set(only) - set(GROUPS))
    if unknown:
        raise SystemExit(f"no group is named {', '.join(unknown)}; there are: {', '.join(GROUPS)}")
    rows, runs = int(os.environ.get("ROWS") or 1_000_000), int(os.environ.get("RUNS") or 5)
    slow_runs = int(os.environ.get("SLOW_RUNS") or min(runs, 3))
    for name in only:
        began = time.monotonic()
        say(f"== {name}")
        with tempfile.TemporaryDirectory(prefix="starbase-bench-") as directory:
            settings = Settings(rows=rows, runs=runs, slow_runs=slow_runs, directory=Path(directory))
            text = importlib.import_module(f"benchmarks.{name}").measure(settings)
        text += f"\n\n`make bench ONLY={name} ROWS={rows} RUNS={runs}`, {machine()}, load average before {load():.1f}."
        say(f"\n{text}\n\n{name} took {time.monotonic() - began:.0f} s")
        if os.environ.get("WRITE", "1") != "0":
            page.write(name, text)
    if os.environ.get("WRITE", "1") != "0":
        page.write("versions", versions())


def machine() -> str:
    return f"{datetime.date.today()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def load() -> float:
    return _load_before


def versions() -> str:
    def first_line(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
        except (OSError, subprocess.CalledProcessError):
            return "not installed"

    postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    lines = [
        ["system", f"{platform.freedesktop_os_release().get('PRETTY_NAME')}, {platform.machine()}"],
        ["Python", platform.python_version()],
        ["SQLite", apsw.sqlite_lib_version()],
        ["PostgreSQL", first_line(str(postgres[-1]), "--version") if postgres else "not installed"],
        ["MariaDB", first_line("mariadbd", "--version")],
    ]
    for environment, package in (
        ("peers", "duckdb"), ("peers", "dlt"), ("peers", "sling"), ("sqlite-tools", "db-to-sqlite"),
        ("sqlite-tools", "datasette"), ("ingestr", "ingestr"),
    ):  # fmt: skip
        lines.append([package, peers.version(environment, package)])
    return page.table(["what", "version"], lines)


_load_before = os.getloadavg()[0]

if __name__ == "__main__":
    main()
