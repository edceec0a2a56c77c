"""The lock file that keeps a second host off a database, and that tells a command where the first one is.

The lock is the kernel's, on the open file: it ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from starbase_host.errors import ConfigError, Conflict


class Lock:
    """The lock file that keeps a second host off the database. Holds the holder's pid and address as JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self) -> None:
        """Take it, or raise Conflict naming the holder."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError("host.database", f"{self.path.parent} cannot hold it: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            holder = holder_of(self.path) or {}
            raise Conflict(
                f"another host (pid {holder.get('pid', 'unknown')}) holds {self.path}; stop it, or use another database"
            ) from None
        self._file = descriptor
        self.describe(None)

    def describe(self, url: str | None) -> None:
        """Write down who holds it and at which address it answers."""
        assert self._file is not None
        text = json.dumps({"pid": os.getpid(), "url": url}).encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text, 0)

    def release(self) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def holder_of(path: Path) -> dict[str, Any] | None:
    """Who holds the lock file: {"pid", "url"}; None when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        with contextlib.suppress(ValueError):
            found = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
            if isinstance(found, dict):
                return found
        return {}
    finally:
        os.close(descriptor)
    return None
