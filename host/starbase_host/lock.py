"""The lock file that keeps a second host off a database, and that tells a command where the first one listens.

The kernel holds the lock on the open file: it ends with the process that holds it, however that process ends. A
process that only looks takes a shared lock for a moment.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from starbase_host.errors import ConfigError, Conflict

NO_FILE = "is where the lock file belongs, but is not a regular file; remove it"
TRIES = 500
PAUSE_SECONDS = 0.01
# How a host writes its address: http, a numeric IP address, a port.
URL = re.compile(r"http://([0-9.]+|\[[0-9a-f:.]+(%\w+)?\]):[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a lock.

    pid: its process id; None when it is not known.
    serves: True for a host that serves HTTP, False for a command.
    url: where the host listens, such as http://127.0.0.1:8000; None until it listens, and for a command.
    """

    pid: int | None = None
    serves: bool = True
    url: str | None = None

    def __str__(self) -> str:
        what = "host" if self.serves else "`starbase` command"
        return f"{what} (pid {'unknown' if self.pid is None else self.pid})"


class Lock:
    """The lock file. It describes its holder as JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._serves = False

    def acquire(self, *, serves: bool) -> None:
        """Take the lock, unless this object holds it already.

        serves: True for a host that serves HTTP, False for a command.
        Raises Conflict, which names the holder; ConfigError when the lock file cannot be made or written.
        """
        if self._file is not None:
            return
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Through a link, the text about the holder would replace what another file holds.
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._config_error("opened", error) from error
        try:
            if not _is_file(descriptor):
                raise ConfigError("host.database", f"{self.path} {NO_FILE}")
            self._take(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._file, self._serves = descriptor, serves
        try:
            self.describe(None)
        except BaseException:
            self.release()
            raise

    def _config_error(self, what: str, error: OSError) -> ConfigError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "free some space"
        elif error.errno in (errno.EISDIR, errno.ENXIO, errno.ELOOP):
            return ConfigError("host.database", f"{self.path} {NO_FILE}")
        else:
            fix = "name a file in a directory that the host can write to"
        return ConfigError("host.database", f"{self.path} cannot be {what}: {error.strerror}; {fix}")

    def _take(self, descriptor: int) -> None:
        for _ in range(TRIES):
            if _flock(descriptor, fcntl.LOCK_SH):
                # Nobody holds it: the text in it is from a process that was killed. Remove it before the lock is ours,
                # or a command that looks then sends the admin token to the address where that process listened.
                os.ftruncate(descriptor, 0)
                if _flock(descriptor, fcntl.LOCK_EX):
                    return
            elif (holder := read_holder(descriptor)).pid is not None:
                fix = "stop it, or use another database" if holder.serves else "try again when it has ended"
                raise Conflict(f"another {holder} holds {self.path}; {fix}")
            # Another process only looks, or takes or releases the lock at this moment.
            time.sleep(PAUSE_SECONDS)
        raise Conflict(
            f"another process holds {self.path} and has not written its pid; stop it, or use another database"
        )

    def describe(self, url: str | None) -> None:
        """Write the holder and its address into the file.

        url: where the host listens; None while it does not.
        Raises ConfigError when the file cannot be written, as on a full disk.
        """
        assert self._file is not None
        text = json.dumps(dataclasses.asdict(Holder(pid=os.getpid(), serves=self._serves, url=url))).encode()
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text, 0)
        except OSError as error:
            raise self._config_error("written", error) from error

    def release(self) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def holder_of(path: Path) -> Holder | None:
    """Return the process that holds the lock file; None when no process does."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        # `acquire` reports a lock file that is not a regular file.
        return None if not _is_file(descriptor) or _flock(descriptor, fcntl.LOCK_SH) else read_holder(descriptor)
    finally:
        os.close(descriptor)


def read_holder(descriptor: int) -> Holder:
    """Read what the holder has written about itself.

    The result is an empty Holder while the text is being written, or when another program wrote it.
    """
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
        pid, serves, url = found["pid"], found["serves"], found["url"]
        if type(pid) is int and type(serves) is bool and (url is None or URL.fullmatch(url)):
            return Holder(pid=pid, serves=serves, url=url)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return Holder()


def _is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _flock(descriptor: int, kind: int) -> bool:
    """Take the lock without waiting; return whether that was possible."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
