"""The lock file that keeps a second host off a database, and that tells a command where the first one is.

The lock is the kernel's, on the open file: it ends with the process that holds it, however that ends. Whoever looks
takes it shared, for a moment.
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

NO_FILE = "is where the lock file belongs, and is no file; remove it"
TRIES = 500
PAUSE_SECONDS = 0.01
# What a host says of itself: http, an address in figures, a port.
URL = re.compile(r"http://([0-9.]+|\[[0-9a-f:.]+(%\w+)?\]):[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock. serves: it is a host that answers at `url`, once it knows that; else it is a command."""

    pid: int | None = None
    serves: bool = True
    url: str | None = None

    def __str__(self) -> str:
        what = "host" if self.serves else "`starbase` command"
        return f"{what} (pid {'unknown' if self.pid is None else self.pid})"


class Lock:
    """The lock file that keeps a second host off the database. Says as JSON who the holder is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._serves = False

    def acquire(self, *, serves: bool) -> None:
        """Take it, unless it is taken already. serves: not for a command.

        Raises Conflict, which names the holder, and ConfigError when the file cannot be one or cannot be written.
        """
        if self._file is not None:
            return
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._wrong("opened", error) from error
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

    def _wrong(self, what: str, error: OSError) -> ConfigError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            mend = "free some space"
        elif error.errno in (errno.EISDIR, errno.ENXIO):
            return ConfigError("host.database", f"{self.path} {NO_FILE}")
        else:
            mend = "name a file where one can be written"
        return ConfigError("host.database", f"{self.path} cannot be {what}: {error.strerror}; {mend}")

    def _take(self, descriptor: int) -> None:
        for _ in range(TRIES):
            if _flock(descriptor, fcntl.LOCK_SH):
                # Nobody holds it: what stands there is of one that was killed. It must be gone before the lock is ours,
                # or a command that looks then sends the admin token to wherever that one has listened.
                os.ftruncate(descriptor, 0)
                if _flock(descriptor, fcntl.LOCK_EX):
                    return
            elif (holder := read(descriptor)).pid is not None:
                mend = "stop it, or use another database" if holder.serves else "try again when it has ended"
                raise Conflict(f"another {holder} holds {self.path}; {mend}")
            # Somebody only looks, or takes it or lets it go at this moment.
            time.sleep(PAUSE_SECONDS)
        raise Conflict(f"another process holds {self.path}, and does not say which; stop it, or use another database")

    def describe(self, url: str | None) -> None:
        """Write down who holds it and at which address it answers. Raises ConfigError, as on a full disk."""
        assert self._file is not None
        text = json.dumps(dataclasses.asdict(Holder(pid=os.getpid(), serves=self._serves, url=url))).encode()
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text, 0)
        except OSError as error:
            raise self._wrong("written", error) from error

    def release(self) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def holder_of(path: Path) -> Holder | None:
    """Who holds the lock file; None when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Who then takes what is no file is told so.
        return None if not _is_file(descriptor) or _flock(descriptor, fcntl.LOCK_SH) else read(descriptor)
    finally:
        os.close(descriptor)


def read(descriptor: int) -> Holder:
    """What the holder says of itself; a Holder of which nothing is known while it writes that, or another has."""
    try:
        said = json.loads(os.pread(descriptor, 4096, 0))
        pid, serves, url = said["pid"], said["serves"], said["url"]
        if type(pid) is int and type(serves) is bool and (url is None or URL.fullmatch(url)):
            return Holder(pid=pid, serves=serves, url=url)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return Holder()


def _is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _flock(descriptor: int, kind: int) -> bool:
    """Take the lock if that is possible at once."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
