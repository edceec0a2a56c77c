"""Who may read a file that holds secrets, by its owner and its mode.

Takes the rights of other users away. Must not know what the files hold. The rights of the group stay: somebody gives
them on purpose, to share a file. The rights of all other users come from a umask or a copy, and are a mistake.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from starbase_host.errors import ConfigError

log = logging.getLogger("starbase")

OTHERS = 0o007


def is_of_another(owner: int, user: int) -> bool:
    """Whether a file of this owner can be changed by another user than the one who runs this process, or root.

    Root can open every file, so it must check the owner. Any other user can open another user's file only if someone
    gave rights to a group.
    """
    return user == 0 and owner != 0


def refuse_of_another(path: Path, owner: int, key: str | None = None) -> None:
    """Raises ConfigError when root would use a file that belongs to another user."""
    if is_of_another(owner, os.geteuid()):
        fix = f"run the host as that user, or run `chown root {path}`"
        raise ConfigError(key or str(path), f"{path} belongs to the user {owner}, and this process runs as root; {fix}")


def remove_other_access(path: Path, key: str | None = None) -> None:
    """Take the rights to a file from all users but its owner and its group. A file that does not exist is left out.

    The file is addressed by name: to open and close it would drop the locks that SQLite has on it.

    key: the configuration key that an error names; by default the path.
    Raises ConfigError when the mode cannot be changed.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & OTHERS:
            return
        path.chmod(mode & ~OTHERS)
        if stat.S_IMODE(os.stat(path).st_mode) & OTHERS:
            raise OSError(0, "its file system does not keep modes")
    except FileNotFoundError:
        return
    except OSError as error:
        why = f"{path} can be read by any user ({error.strerror}); give it the mode 0600"
        raise ConfigError(key or str(path), why) from error
    log.warning(
        "any user could read or write %s; now only its owner and its group can; its contents may be known", path
    )
