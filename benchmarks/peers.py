"""The tools that a user might pick instead: their own environments, and how each does a load and a sync.

Nothing of them is a dependency of the project. One that cannot be installed, or whose program does not run, is a line
in the table with the reason.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.environments import installed
from benchmarks.measure import Failed, Figure, Tool, unavailable, whole_process
from benchmarks.sources import Source

PROGRAMS = Path(__file__).with_name("programs")

REQUIREMENTS = {
    "peers": [
        "duckdb==1.5.5", "duckdb-extensions", "duckdb-extension-postgres-scanner==1.5.5",
        "duckdb-extension-mysql-scanner==1.5.5", "duckdb-extension-sqlite-scanner==1.5.5",
        "dlt[sqlalchemy]", "pyarrow", "psycopg2-binary", "pymysql", "sling==1.4.10.post2",
    ],
    "sqlite-tools": ["db-to-sqlite", "psycopg2-binary", "pymysql", "datasette"],
    "ingestr": ["ingestr==0.14.155"],
}  # fmt: skip

# Sling and dlt would tell their makers of each run.
QUIET = {"SLING_DISABLE_TELEMETRY": "TRUE", "RUNTIME__DLTHUB_TELEMETRY": "false", "DISABLE_TELEMETRY": "true"}


@functools.cache
def environment(name: str) -> Path:
    """The directory of an environment's programs, installed if need be. Raises Failed."""
    return installed(name, REQUIREMENTS[name], stamp="\n".join(REQUIREMENTS[name]))


def version(name: str, package: str) -> str:
    with contextlib.suppress(Failed, subprocess.CalledProcessError):
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        python = environment(name) / "python"
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return "not installed"


Words = Callable[[Path], Sequence[str | Path]]


def _tool(name: str, words: Words, directory: Path, *, fresh: bool, rounds: int = 1000) -> Tool:
    """A tool that is one command, whose files lie in its own directory. fresh: each run starts with none."""

    def prepare(_: int) -> None:
        if fresh:
            shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)

    def run(_: int) -> Figure:
        return whole_process(words(directory), cwd=directory, environ={**QUIET, "HOME": str(directory)})

    return Tool(name, run, prepare, rounds)


def _offered(name: str, make: Callable[[], Tool]) -> Tool:
    try:
        return make()
    except Failed as error:
        return unavailable(name, str(error))


def _server(source: Source) -> list[str]:
    server = source.server
    return [server.host, str(server.port), server.user, server.password, source.database.name]


def duckdb(source: Source, directory: Path, *, mode: str = "load") -> Tool:
    extension = "postgres" if source.dialect == "postgresql" else "mysql"
    name = f"DuckDB, {extension} and sqlite extensions" + ("" if mode == "load" else ", hand-written upsert")

    def make() -> Tool:
        program = [environment("peers") / "python", PROGRAMS / "duck.py"]
        words: list[str | Path] = [*program, mode, source.dialect, *_server(source)]
        return _tool(name, lambda where: [*words, where / "out.db"], directory, fresh=mode == "load")

    return _offered(name, make)


def sling(source: Source, directory: Path, *, fresh: bool = True, rounds: int = 1000) -> Tool:
    def make() -> Tool:
        program = environment("peers") / "sling"
        url = source.url("postgresql" if source.dialect == "postgresql" else "mysql")
        url += "?sslmode=disable" if source.dialect == "postgresql" else ""
        stream = "public.orders" if source.dialect == "postgresql" else f"{source.database.name}.orders"

        def words(where: Path) -> list[str | Path]:
            return [
                program, "run", "--src-conn", url, "--src-stream", stream, "--tgt-conn", f"sqlite://{where / 'out.db'}",
                "--tgt-object", "main.orders", "--mode", "incremental", "--primary-key", "id",
                "--update-key", "updated_at",
            ]  # fmt: skip

        return _tool("Sling, incremental", words, directory, fresh=fresh, rounds=rounds)

    return _offered("Sling, incremental", make)


def dlt(source: Source, directory: Path, *, fresh: bool = True, rounds: int = 1000) -> Tool:
    def make() -> Tool:
        words: list[str | Path] = [
            environment("peers") / "python",
            PROGRAMS / "dlt_load.py",
            source.url(_sqlalchemy(source)),
        ]
        return _tool(
            "dlt, pyarrow, merge", lambda where: [*words, where / "out.db", where / "state"], directory,
            fresh=fresh, rounds=rounds,
        )  # fmt: skip

    return _offered("dlt, pyarrow, merge", make)


def ingestr(source: Source, directory: Path, *, rounds: int = 1000) -> Tool:
    def make() -> Tool:
        program = environment("ingestr") / "ingestr"
        stream = "public.orders" if source.dialect == "postgresql" else f"{source.database.name}.orders"

        def words(where: Path) -> list[str | Path]:
            return [
                program, "ingest", "--source-uri", source.url(_sqlalchemy(source)), "--source-table", stream,
                "--dest-uri", f"sqlite:///{where / 'out.db'}", "--dest-table", "main.orders", "--yes",
                "--incremental-strategy", "merge", "--incremental-key", "updated_at", "--primary-key", "id",
            ]  # fmt: skip

        return _tool("ingestr, merge", words, directory, fresh=True, rounds=rounds)

    return _offered("ingestr, merge", make)


def db_to_sqlite(source: Source, directory: Path, *, rounds: int = 1000) -> Tool:
    def make() -> Tool:
        program = environment("sqlite-tools") / "db-to-sqlite"
        url = source.url(_sqlalchemy(source))
        return _tool(
            "db-to-sqlite", lambda where: [program, url, where / "out.db", "--table", "orders"], directory,
            fresh=True, rounds=rounds,
        )  # fmt: skip

    return _offered("db-to-sqlite", make)


def to_nothing(source: Source, directory: Path, query: str = "SELECT * FROM orders") -> Tool:
    """The limit: reading alone, into nothing, as fast as the server gives it."""
    if source.dialect == "postgresql":
        words: list[str | Path] = [sys.executable, PROGRAMS / "copy_binary.py", *_server(source), query]
        return _tool("COPY (FORMAT binary), discarded: the limit", lambda _: words, directory, fresh=True)
    name = "mariadb --quick, discarded: the limit"
    program = shutil.which("mariadb") or shutil.which("mysql")
    if program is None:
        return unavailable(name, "no mariadb client is installed")
    server = source.server
    client = [
        program, "--no-defaults", "--quick", "--skip-column-names", f"--host={server.host}", f"--port={server.port}",
        f"--user={server.user}", f"--password={server.password}", source.database.name, "-e", query,
    ]  # fmt: skip
    return _tool(name, lambda _: ["sh", "-c", 'exec "$@" >/dev/null', "sh", *client], directory, fresh=True)


def _sqlalchemy(source: Source) -> str:
    return "postgresql+psycopg2" if source.dialect == "postgresql" else "mysql+pymysql"
