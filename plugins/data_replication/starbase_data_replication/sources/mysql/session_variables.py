"""The session variables of MySQL and MariaDB that code of the source may change, and the statement that reads them.

Must not know a connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# What decides the answers of our own statements. The first one decides how every other value is sent.
TRUSTED = (
    "character_set_results", "character_set_client", "character_set_connection", "collation_connection", "time_zone",
    "sql_mode", "sql_select_limit", "max_sort_length",
)  # fmt: skip
# With this one, a system-versioned table shows old rows. The other one changes how a time becomes a date.
TRUSTED_ON_MARIADB = ("system_versioning_asof", "old_mode")
# What functions set for themselves with good reason. It changes no answer of ours, only how long a statement may take,
# and what the code of the next table computes.
RESTORED = (
    "group_concat_max_len", "div_precision_increment", "default_week_format", "lc_time_names", "optimizer_switch",
    "sql_auto_is_null", "sql_big_selects", "sql_quote_show_create", "lock_wait_timeout", "net_write_timeout",
)  # fmt: skip
RESTORED_ON_MARIADB = ("max_statement_time", "mrr_buffer_size", "default_regex_flags")
RESTORED_ON_MYSQL = ("max_execution_time",)
# A session whose clock was set shows the same time in each statement. NOW() of this statement is when it began.
CLOCK = "timestamp"
CLOCK_GOES = "ABS(UNIX_TIMESTAMP(SYSDATE(6)) - @@SESSION.timestamp) < 60"

NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def names(*, mariadb: bool) -> tuple[str, ...]:
    """The variables that the statement reads, in its order."""
    return (*_trusted(mariadb), *RESTORED, *(RESTORED_ON_MARIADB if mariadb else RESTORED_ON_MYSQL))


def variables_sql(*, mariadb: bool) -> str:
    """The statement that reads the variables: one row, of which the first value is whether the clock goes.

    Without its LIMIT, sql_select_limit would apply to it.
    """
    return f"SELECT {CLOCK_GOES}, {', '.join(f'@@SESSION.{name}' for name in names(mariadb=mariadb))} LIMIT 1"


def untrusted(noted: Mapping[str, Any], now: Mapping[str, Any], *, mariadb: bool) -> list[str]:
    """The variables that decide our answers, and that have changed."""
    changed = [name for name in (CLOCK, *_trusted(mariadb)) if noted[name] != now[name]]
    return [TRUSTED[0]] if TRUSTED[0] in changed else changed


def restore_sql(noted: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The statement that gives every other variable its noted value again; empty if none has changed."""
    changed = [name for name in noted if noted[name] != now[name]]
    return f"SET {', '.join(f'SESSION {name} = {_literal(noted[name])}' for name in changed)}" if changed else ""


def _trusted(mariadb: bool) -> tuple[str, ...]:
    return (*TRUSTED, *TRUSTED_ON_MARIADB) if mariadb else TRUSTED


def _literal(value: Any) -> str:
    text = str(value)
    return text if NUMBER.fullmatch(text) else "'" + text.replace("'", "''") + "'"
