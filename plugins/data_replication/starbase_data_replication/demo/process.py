"""Running somebody else's server binary: an account that may, a directory of its own, its start and its end.

Nothing outside the directory is created or changed, and nothing of the server outlives this process. The
embedded PostgreSQL is run with it, and so are the throwaway servers of the tests.
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
    """The server cannot run here. The first line says why, the others are what the server itself said."""


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
    """Start a server in a session of its own, so that Ctrl-C in the terminal is the caller's alone to act on.

    On Linux it gets `on_parent_death` when this process dies, in whatever way. The kernel takes the thread
    that started it for the parent, so a server started outside the main thread goes without.
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
    """One server on data of its own: `stop` and `start` keep them, `close` removes them.

    A kind of server says how its data are made, what its command is and how it shows that it is ready. As a
    context manager it starts and closes.
    """

    stop_signals: Sequence[tuple[signal.Signals, float]] = ()
    """What ends it, the gentlest first, each with the seconds it has to work."""

    def __init__(self) -> None:
        self.directory = Path()
        self.account: pwd.struct_passwd | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Make the data in `directory`, which is new; what is made there belongs to `account`."""
        raise NotImplementedError

    def command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def is_ready(self, pid: int) -> bool:
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """The server's process, or None when it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> None:
        """Start, on the data of the last time if there was one. Does nothing to a server that runs."""
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
        """Run a set-up command to its end, as the server would run."""
        process = spawn(command, self.directory, self.account, signal.SIGTERM)
        try:
            status = process.wait(120)
        except BaseException:
            _end(process, (signal.SIGTERM, 10), (signal.SIGKILL, 10))
            raise
        if status != 0:
            raise ServerError(f"{Path(command[0]).name} failed, status {status}\n{self._log_tail()}")

    def _log_tail(self) -> str:
        """What the server said of its errors, and last."""
        lines = (self.directory / "log").read_text(errors="replace").splitlines()
        errors = [line for line in lines[:-5] if re.search(r"\b(ERROR|FATAL|PANIC)\b", line)]
        return "\n".join([*errors[:5], *lines[-5:]])

    def stop(self) -> None:
        """Stop the server and end its clients' sessions; its data stay for the next `start`."""
        process, self._process = self._process, None
        if process is not None:
            _end(process, *self.stop_signals)

    def close(self) -> None:
        """Stop for good: afterwards neither a process nor a file is left."""
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
