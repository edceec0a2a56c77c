"""The admin token: the configured one, or one that the host makes and keeps in a file beside the database.

Owns that file. It is there whole or not at all: an empty one would lock everybody out, over restarts too.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import stat
from pathlib import Path

from starbase_host.config import HostConfig, is_token
from starbase_host.errors import ConfigError

log = logging.getLogger("starbase")

MAX_BYTES = 4096
MEND = "remove it, and the host makes one when it starts"


def admin_token(config: HostConfig) -> tuple[str, bool]:
    """The token, and whether it was made now. Only for who holds the database: two could make one each."""
    token = config.admin_token or _stored(config.token_file)
    if token:
        return token, False
    return _make(config.token_file), True


def known_token(config: HostConfig) -> str:
    """The token of a host that runs. Raises ConfigError where there is none: to make one would not tell the host."""
    token = config.admin_token or _stored(config.token_file)
    if not token:
        raise ConfigError(str(config.token_file), "holds no admin token any more; restart the host, and it makes one")
    return token


def _stored(path: Path) -> str:
    """What the file holds; nothing where there is no file, or an empty one."""
    try:
        # A pipe would have the start wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(str(path), f"is a link to nothing; {MEND}") from None
        return ""
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}; {MEND}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(str(path), f"is no file; {MEND}")
        if found.st_mode & 0o077:
            _take_from_others(path, descriptor)
        content = os.read(descriptor, MAX_BYTES)
    finally:
        os.close(descriptor)
    token = content.decode("ascii", "replace").strip()
    if token and not is_token(token):
        raise ConfigError(str(path), f"holds no token: printable ASCII without spaces; {MEND}")
    return token


def _take_from_others(path: Path, descriptor: int) -> None:
    try:
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise ConfigError(str(path), f"is not its owner's alone ({error.strerror}); give it the mode 0600") from error
    log.warning("others could read or write %s; now only its owner can; for another token %s", path, MEND)


def _make(path: Path) -> str:
    token = secrets.token_urlsafe(32)
    beside = path.with_name(path.name + ".new")
    try:
        # One that a crash has left.
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        mend = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"look at {beside}"
        raise ConfigError(str(path), f"cannot be written: {error.strerror}; {mend}, or set host.admin_token") from error
    return token
