"""Which variables of the environment a sourceConfig may name. Owns the rules; must not know where a name stands.

Who may configure a replication chooses the server that a value is sent to, so that each variable that may be named can
be read by them. What plugin.toml names, its operator has written, and is not judged here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from starbase_data_replication.model import SECRET_KEY

OPTION = "allowed_env"
# The host's own, the tokens under the names that plugin.toml's own example has. The key opens every stored secret:
# anyone who may configure must not be able to have it sent to a server of their own.
NEVER = frozenset((SECRET_KEY, "ADMIN_AUTHORIZATION_TOKEN", "CLIENT_AUTHORIZATION_TOKEN"))
# What databases' connections are usually called: by libpq, the servers' own images, hosting services, frameworks. Not
# PG*, which PGP_PRIVATE_KEY matches too.
DEFAULT = (
    "DATABASE_*", "*_DATABASE_URL", "DB_*", "*_DB_*", "PG_*", "PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE",
    "POSTGRES_*", "POSTGRESQL_*", "MYSQL_*", "MARIADB_*", "SOURCE_*", "STARBASE_SOURCE_*",
)  # fmt: skip
ENTRY = re.compile(r"(?:[A-Za-z0-9_*?]|\[!?[A-Za-z0-9_-]+\])+")


def wrong_with(entry: object) -> str | None:
    """Why an entry of the list could never match a variable that may be named, and the fix; or None."""
    if not isinstance(entry, str) or not entry:
        return "must be the name of a variable, or a pattern such as PG_*"
    if entry in NEVER:
        return f"is the host's own, and may be named by no source; remove {entry}"
    inner = entry.removeprefix("${").removesuffix("}").removeprefix("$").partition("=")[0]
    if ENTRY.fullmatch(entry) is None:
        mend = f"write {inner}" if ENTRY.fullmatch(inner) else "write one such as PG_PASSWORD or PG_*"
        return f"is not a variable's name, nor a pattern of one; {mend}"
    return None


class Variables:
    """The rules of one host.

    allowed: names and patterns (`PG_*`), of which a variable must match one; case counts. never: names that may not be
        named whatever matches: those that plugin.toml reads its tokens from.
    """

    def __init__(self, allowed: Iterable[str] = DEFAULT, *, never: Iterable[str] = ()) -> None:
        self._allowed = tuple(allowed)
        self._never = NEVER | set(never)

    def why_not(self, name: str) -> str | None:
        """Why a source may not name this variable, and the fix; None where it may."""
        if name in self._never:
            return f"the environment variable {name} may not be used here: it is the host's own"
        if any(fnmatchcase(name, pattern) for pattern in self._allowed):
            return None
        return (
            f"the environment variable {name} is not among {OPTION}; add it to {OPTION} in "
            "[plugins.data_replication] of plugin.toml and start the host again, or rename it"
        )


# For settings that nobody has sent: every variable but the host's own.
EVERY = Variables(("*",))
