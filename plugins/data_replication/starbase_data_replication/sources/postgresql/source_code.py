"""Code of a source, the functions that a view, a `where` or a policy calls, runs in our transaction and may change its
settings.

What it has changed must not decide the answer of a statement of ours. A rollback to a savepoint takes back every
setting, also one that was set for the session. The READ ONLY transaction ends with a ROLLBACK, so nothing is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starbase_data_replication.errors import SETTINGS_CHANGED, SourceRejected
from starbase_data_replication.model import TableSchema
from starbase_data_replication.sources.postgresql.errors import translate_errors

# What decides how values are written and which rows are seen while a statement runs.
TRUSTED = (
    "client_encoding", "TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output", "array_nulls",
    "row_security", "lc_monetary", "standard_conforming_strings", "role", "session_authorization",
)  # fmt: skip
# Without an operator: a search_path could give another meaning to it.
SETTINGS_SQL = "SELECT " + ", ".join(f"pg_catalog.current_setting('{name}')" for name in TRUSTED)
SAVEPOINT = "SAVEPOINT starbase_source_code"
TAKE_BACK = "ROLLBACK TO SAVEPOINT starbase_source_code; RELEASE SAVEPOINT starbase_source_code"
# What holds rows, or has none to show: not a view, and not a foreign table, whose rows another server's code may make.
PLAIN = frozenset({"table", "partitioned table", "materialized view"})


class SourceCode:
    """Some statements that read one table: `begin` before the first, `check` after the last and before its answer is
    used. For a plain table without a filter or policy neither sends anything of this.

    doing: begins the messages.
    """

    def __init__(self, connection: Any, schema: TableSchema, doing: str) -> None:
        self._connection = connection
        self._doing = doing
        self._runs = schema.kind not in PLAIN or schema.where is not None or schema.policed
        self._noted: Sequence[Any] = ()

    async def begin(self, *first: str) -> None:
        """first: settings of ours for these statements."""
        with translate_errors(self._doing):
            if sql := "; ".join((SAVEPOINT, *first) if self._runs else first):
                await self._connection.execute(sql)
            if self._runs:
                self._noted = await self._settings()

    async def check(self) -> None:
        """Raises SourceRejected if the code has changed what decides our answers; all that it has set is taken back."""
        if not self._runs:
            return
        with translate_errors(self._doing):
            now = await self._settings()
            changed = [name for name, old, new in zip(TRUSTED, self._noted, now, strict=True) if old != new]
            if changed:
                names = ", ".join(changed)
                raise SourceRejected(SETTINGS_CHANGED.format(doing=self._doing, names=names, of="transaction"))
            await self._connection.execute(TAKE_BACK)

    async def _settings(self) -> Sequence[Any]:
        (row,) = await self._connection.fetch_known(SETTINGS_SQL)
        return tuple(row)
