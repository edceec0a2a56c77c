"""The admin token: the configured one, or one that the host makes and keeps in a file beside the database.

Owns that file, and writes it whole or not at all: an empty file would lock every caller out, even after a restart.
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
from starbase_host.modes import refuse_of_another

log = logging.getLogger("starbase")

MAX_BYTES = 4096
FIX = "remove it, and the host makes a token when it starts"


def admin_token(config: HostConfig) -> tuple[str, bool]:
    """Return the admin token, and whether it was made now. Raises ConfigError when the file cannot be used.

    Call it only while you hold the database: two processes could make a token each.
    """
    token = config.admin_token or _read(config.token_file)
    if token:
        return token, False
    return _make(config.token_file), True


def known_token(config: HostConfig) -> str:
    """Return the admin token of a running host.

    Raises ConfigError when there is no token. It does not make one: the running host would reject it.
    """
    token = config.admin_token or _read(config.token_file)
    if not token:
        raise ConfigError(str(config.token_file), "holds no admin token any more; restart the host to make one")
    return token


def _read(path: Path) -> str:
    """Return the token in the file; "" when the file does not exist or is empty."""
    try:
        # Without O_NONBLOCK, the start would wait for the other end of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(str(path), f"is a link to a file that does not exist; {FIX}") from None
        return ""
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}; {FIX}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(str(path), f"is not a regular file; {FIX}")
        refuse_of_another(path, found.st_uid)
        if found.st_mode & 0o077:
            _restrict_to_owner(path, descriptor)
        content = os.read(descriptor, MAX_BYTES)
    finally:
        os.close(descriptor)
    token = content.decode("ascii", "replace").strip()
    if token and not is_token(token):
        raise ConfigError(str(path), f"does not hold a token, which is printable ASCII without spaces; {FIX}")
    return token


def _restrict_to_owner(path: Path, descriptor: int) -> None:
    try:
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise ConfigError(
            str(path), f"is open to users other than its owner ({error.strerror}); give it the mode 0600"
        ) from error
    log.warning("other users could read or write %s; now only its owner can; for another token, %s", path, FIX)


def _make(path: Path) -> str:
    token = secrets.token_urlsafe(32)
    new_path = path.with_name(path.name + ".new")
    try:
        # A crash may have left one.
        new_path.unlink(missing_ok=True)
        descriptor = os.open(new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(descriptor)
        new_path.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new_path.unlink(missing_ok=True)
        fix = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"look at {new_path}"
        raise ConfigError(str(path), f"cannot be written: {error.strerror}; {fix}, or set host.admin_token") from error
    return token
