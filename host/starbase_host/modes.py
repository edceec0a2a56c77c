"""Files that hold secrets, and those whom their mode lets read them.

Owns what is done about it. Must not know what the files hold. The group is left alone: to let one read is a way of
sharing, and is granted by hand; what everybody may do comes from a umask or a copy, and nobody has meant it.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from starbase_host.errors import ConfigError

log = logging.getLogger("starbase")

OTHERS = 0o007


def take_from_others(path: Path, key: str | None = None) -> None:
    """Take a file's rights from everybody but its owner and its group, if it is there and they have any.

    By its name: to open and close a file would drop the locks that SQLite has on it.

    Raises ConfigError where that cannot be done, naming `key`, or the file itself.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & OTHERS:
            return
        path.chmod(mode & ~OTHERS)
        if stat.S_IMODE(os.stat(path).st_mode) & OTHERS:
            raise OSError(0, "its file system keeps no modes")
    except FileNotFoundError:
        return
    except OSError as error:
        why = f"{path} can be read by everybody ({error.strerror}); give it the mode 0600"
        raise ConfigError(key or str(path), why) from error
    log.warning(
        "everybody could read or write %s; now only its owner and its group can; what it holds may be known", path
    )
