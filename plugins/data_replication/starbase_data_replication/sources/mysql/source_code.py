"""Code of a source, the functions that a view or a `where` calls, runs in our session and may change it.

What it has changed must not decide the answer of a statement of ours. A plain table runs no such code: MySQL and
MariaDB let no generated column, default or CHECK call a stored function.
"""

from __future__ import annotations

from starbase_data_replication.errors import SETTINGS_CHANGED, SourceRejected
from starbase_data_replication.model import TableSchema
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.mysql.errors import translate_errors
from starbase_data_replication.sources.mysql.session_variables import restore_sql, untrusted


class SourceCode:
    """Some statements that read one table: `begin` before the first, `check` after the last and before its answer is
    used. For a plain table without a filter neither sends anything.

    doing: begins the messages.
    """

    def __init__(self, connection: Connection, schema: TableSchema, doing: str) -> None:
        self._connection = connection
        self._doing = doing
        self._runs = schema.kind == "view" or schema.where is not None

    async def begin(self) -> None:
        connection = self._connection
        if not self._runs:
            return
        with translate_errors(self._doing):
            if connection.noted is None:
                connection.noted = await connection.session_variables()
        # It may do more than set variables: see `Connection.leave`.
        connection.ran_code = True

    async def check(self) -> None:
        """Raises SourceRejected if the code has changed what decides our answers; what else it has set is set back."""
        connection = self._connection
        if not self._runs:
            return
        assert connection.noted is not None
        with translate_errors(self._doing):
            now = await connection.session_variables()
            if changed := untrusted(connection.noted, now, mariadb=connection.is_mariadb):
                names = ", ".join(changed)
                raise SourceRejected(SETTINGS_CHANGED.format(doing=self._doing, names=names, of="session"))
            if restore := restore_sql(connection.noted, now):
                await connection.fetch(restore)
