"""Running a database server's binary: as an account that may run it, in a private directory, from start to end.

Nothing outside the directory is created or changed, and nothing of the server outlives this process. Runs the embedded
PostgreSQL, and the throwaway servers of the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

# A socket's path may have 107 bytes, on some systems 103; this leaves room for the names below it.
_LONGEST_PARENT = 64
_PR_SET_PDEATHSIG = 1
# Loaded here, because the child of a fork should do as little as it can.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ServerError(RuntimeError):
    """The server cannot run here. The first line of the message gives the reason, the others are from its log."""


def unprivileged_account() -> pwd.struct_passwd | None:
    """The account to run a server as, or None when this process is not root and can run it itself."""
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "daemon"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerError("a server must not run as root, and this system has no account nobody or daemon")


def private_directory(account: pwd.struct_passwd | None) -> Path:
    """A new directory that only the server's account can enter, its path short enough to hold a socket."""
    for name in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        parent = Path(os.path.realpath(name))
        if _suits(parent, account):
            directory = Path(tempfile.mkdtemp(prefix="starbase-", dir=parent))
            if account is not None:
                os.chown(directory, account.pw_uid, account.pw_gid)
            return directory
    raise ServerError("no temporary directory can hold the server: set TMPDIR to a short, writable one")


def _suits(parent: Path, account: pwd.struct_passwd | None) -> bool:
    # PostgreSQL reads its socket directory as a list, where a comma or a quote would mean something.
    if len(os.fsencode(parent)) > _LONGEST_PARENT or not re.fullmatch(r"[\w/.+-]+", str(parent), re.ASCII):
        return False
    if not os.access(parent, os.W_OK | os.X_OK):
        return False
    if account is None:
        return True
    noexec = bool(os.statvfs(parent).f_flag & getattr(os, "ST_NOEXEC", 0))
    return not noexec and all(above.stat().st_mode & 0o001 for above in (parent, *parent.parents))


def spawn(
    command: Sequence[str | Path],
    directory: Path,
    account: pwd.struct_passwd | None,
    on_parent_death: signal.Signals,
) -> subprocess.Popen[bytes]:
    """Start a server in a separate session, so that Ctrl-C in the terminal reaches this process alone.

    On Linux the server gets the signal `on_parent_death` when this process ends for any reason. The kernel takes the
    thread that started it for the parent, so a server that is started outside the main thread gets no such signal.
    """
    main = threading.current_thread() is threading.main_thread()
    with (directory / "log").open("ab") as log:
        try:
            return subprocess.Popen(
                command,
                cwd=directory,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=0o077,
                start_new_session=True,
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
                preexec_fn=_die_with(os.getpid(), on_parent_death) if _libc and main else None,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ServerError(f"cannot run {command[0]}: {error}") from error


def _die_with(parent: int, signum: signal.Signals) -> Callable[[], None]:
    def arrange() -> None:
        assert _libc is not None
        _libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        # The parent may have died before it was arranged.
        if os.getppid() != parent:
            os._exit(1)

    return arrange


class PrivateServer:
    """One server with its own data: `stop` and `start` keep them, `close` removes them.

    A subclass defines how the data are created, what the command is, and how to see that the server is ready. As a
    context manager it starts the server and closes it.

    stop_signals: the signals that end it, the gentlest first, each with the seconds until the next one.
    directory: the private directory; an empty path before the start.
    account: whom it runs as; None for this process's own account.
    """

    stop_signals: Sequence[tuple[signal.Signals, float]] = ()

    def __init__(self) -> None:
        self.directory = Path()
        self.account: pwd.struct_passwd | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Create the data in `directory`, which is new and belongs to `account`."""
        raise NotImplementedError

    def command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def is_ready(self, pid: int) -> bool:
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """The server's process ID, or None if it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start the server, on its data if it has run before. Does nothing if it runs. Raises ServerError."""
        if self.pid is not None:
            return
        try:
            if self.directory == Path():
                self.account = unprivileged_account()
                self.directory = private_directory(self.account)
                self.prepare()
        except BaseException:
            self.close()
            raise
        self._process = process = spawn(self.command(), self.directory, self.account, self.stop_signals[0][0])
        try:
            self._wait_until_ready(process)
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        for _ in range(6000):
            if self.is_ready(process.pid):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
                raise ServerError(f"the server ended while it started\n{self._log_tail()}")
        raise ServerError(f"the server is not ready after a minute\n{self._log_tail()}")

    def run(self, *command: str | Path) -> None:
        """Run a set-up command to its end, as the server's account. Raises ServerError."""
        process = spawn(command, self.directory, self.account, signal.SIGTERM)
        try:
            status = process.wait(120)
        except BaseException:
            _end(process, (signal.SIGTERM, 10), (signal.SIGKILL, 10))
            raise
        if status != 0:
            raise ServerError(f"{Path(command[0]).name} failed, status {status}\n{self._log_tail()}")

    def _log_tail(self) -> str:
        """The errors in the server's log, and its last lines."""
        lines = (self.directory / "log").read_text(errors="replace").splitlines()
        errors = [line for line in lines[:-5] if re.search(r"\b(ERROR|FATAL|PANIC)\b", line)]
        return "\n".join([*errors[:5], *lines[-5:]])

    def stop(self) -> None:
        """Stop the server and end its clients' sessions; its data stay for the next `start`."""
        process, self._process = self._process, None
        if process is not None:
            _end(process, *self.stop_signals)

    def close(self) -> None:
        """Stop the server and remove its directory: afterwards neither a process nor a file is left."""
        try:
            self.stop()
        finally:
            directory, self.directory = self.directory, Path()
            if directory != Path():
                _remove(directory)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end(process: subprocess.Popen[bytes], *steps: tuple[signal.Signals, float]) -> None:
    try:
        for signum, patience in steps:
            process.send_signal(signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                return
    except BaseException:
        process.kill()
        process.wait()
        raise
    raise ServerError(f"process {process.pid} does not end")


def _remove(directory: Path) -> None:
    # Helpers of a server that was killed may still write there for a moment.
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
    shutil.rmtree(directory)
