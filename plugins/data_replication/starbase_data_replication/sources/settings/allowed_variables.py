"""Which environment variables a sourceConfig may name. Owns the rules; must not know where a setting names one.

Anyone who may configure a replication also chooses the server that gets the value, and so can read every variable that
may be named. The variables that plugin.toml itself names are not checked here: its operator wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from starbase_data_replication.model import SECRET_KEY

OPTION = "allowed_env"
# The host's own; the tokens are named as in the example of plugin.toml. The key decrypts every stored secret, so anyone
# who may configure must not be able to have it sent to their own server.
NEVER = frozenset((SECRET_KEY, "ADMIN_AUTHORIZATION_TOKEN", "CLIENT_AUTHORIZATION_TOKEN"))
# The usual names of connections to databases: those of libpq, of the servers' images, of hosting services and
# frameworks. Not PG*, because PGP_PRIVATE_KEY matches it too.
DEFAULT = (
    "DATABASE_*", "*_DATABASE_URL", "DB_*", "*_DB_*", "PG_*", "PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE",
    "POSTGRES_*", "POSTGRESQL_*", "MYSQL_*", "MARIADB_*", "SOURCE_*", "STARBASE_SOURCE_*",
)  # fmt: skip
ENTRY = re.compile(r"(?:[A-Za-z0-9_*?]|\[!?[A-Za-z0-9_-]+\])+")


def wrong_with(entry: object) -> str | None:
    """Why an entry of the list could never match a variable that may be named, with the fix; None if it can."""
    if not isinstance(entry, str) or not entry:
        return "must be the name of a variable, or a pattern such as PG_*"
    if entry in NEVER:
        return f"is the host's own, and no source may name it; remove {entry}"
    inner = entry.removeprefix("${").removesuffix("}").removeprefix("$").partition("=")[0]
    if ENTRY.fullmatch(entry) is None:
        fix = f"write {inner}" if ENTRY.fullmatch(inner) else "write one such as PG_PASSWORD or PG_*"
        return f"is not a variable's name, nor a pattern of one; {fix}"
    return None


class Variables:
    """The variables that the sources of one host may name.

    allowed: names and patterns (`PG_*`); a variable must match one of them. Case matters.
    never: names that are refused even if they match: those that plugin.toml reads its tokens from.
    """

    def __init__(self, allowed: Iterable[str] = DEFAULT, *, never: Iterable[str] = ()) -> None:
        self._allowed = tuple(allowed)
        self._never = NEVER | set(never)

    def why_not(self, name: str) -> str | None:
        """Why a source may not name this variable, with the fix; None if it may."""
        if name in self._never:
            return f"the environment variable {name} may not be used here: it is the host's own"
        if any(fnmatchcase(name, pattern) for pattern in self._allowed):
            return None
        return (
            f"the environment variable {name} is not among {OPTION}; add it to {OPTION} in "
            "[plugins.data_replication] of plugin.toml and start the host again, or rename it"
        )


# For settings that do not come from a request: every variable except the host's own.
EVERY = Variables(("*",))
