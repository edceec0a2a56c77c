"""What the triggers of a replica do to its rows. Users have made them: a replica is made without any.

SQLite itself reports what a trigger writes. It is asked once before a run writes, so that rows cost nothing. Functions
of an APSW connection; they change nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Sequence

import apsw

from starbase_data_replication.errors import SchemaMismatch
from starbase_host import fold_name

# Comments and quoted words, which are skipped; then what drops a row without an error.
NO_CODE = re.compile(
    r"--[^\n]*+|/\*.*?(?:\*/|\Z)|'(?:[^']++|'')*+(?:'|\Z)|\"(?:[^\"]++|\"\")*+(?:\"|\Z)"
    r"|`(?:[^`]++|``)*+(?:`|\Z)|\[[^\]]*+(?:\]|\Z)",
    re.DOTALL,
)
IGNORES = re.compile(r"\bRAISE\s*\(\s*IGNORE\s*\)", re.IGNORECASE)


def check(
    connection: apsw.Connection, table: str, columns: Collection[str], statements: Callable[[], Sequence[str]]
) -> list[str]:
    """The warnings of the triggers of `table` that the statements would fire. columns: the source's.

    Raises SchemaMismatch for a trigger that silently drops rows.
    """
    triggers = connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?)", (table,)
    ).fetchall()
    if not triggers:
        return []
    for name, sql in triggers:
        if IGNORES.search(NO_CODE.sub(" ", str(sql))):
            raise SchemaMismatch(
                f"table {table} has the trigger {name}, whose RAISE(IGNORE) drops rows of the source in silence; drop "
                "the trigger, or have it RAISE(ABORT, …), then verify with repair"
            )
    names = sorted(_writers(connection, table, columns, statements()))
    return [
        f"the trigger {name} changes rows of {table} itself, which then differ from the source's; drop it, or have it "
        "write to another table or to a column that the source does not have"
        for name in names
    ]


def _writers(connection: apsw.Connection, table: str, columns: Collection[str], statements: Sequence[str]) -> set[str]:
    """The triggers that write the source's columns, also those that other triggers fire.

    SQLite names them when it prepares the statements.
    """
    found: set[str] = set()
    kept = {fold_name(name) for name in columns}

    def ask(action: int, first: str | None, second: str | None, schema: str | None, trigger: str | None) -> int:
        own = trigger is not None and fold_name(first or "") == fold_name(table)
        updates = action == apsw.SQLITE_UPDATE and fold_name(second or "") in kept
        if own and trigger is not None and (updates or action in (apsw.SQLITE_DELETE, apsw.SQLITE_INSERT)):
            found.add(trigger)
        return apsw.SQLITE_OK

    before, connection.authorizer = connection.authorizer, ask
    try:
        for statement in statements:
            # Prepared and never run, so nothing is bound. A trigger that no longer fits the table fails the run that
            # fires it, and the error names it.
            with contextlib.suppress(apsw.BindingsError, apsw.SQLError):
                connection.execute(f"EXPLAIN {statement}", None, can_cache=False)
    finally:
        connection.authorizer = before
    return found
