"""The connection of this room: asyncpg's, without what it leaves behind on a server that others use too.

A pooler that hands connections out by transaction gives the next client what we leave: a statement's name, a
setting. asyncpg names the statements of its cursors, and resets a session, with all settings of whoever shares it,
when a connection goes back to the pool.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from starbase_host import overrides

# A source that hangs must not hold a run for ever; a table that must be scanned may take minutes to answer.
STATEMENT_TIMEOUT_SECONDS = 600.0


class Connection(asyncpg.Connection):
    """Statements without a name, and no reset: everything of ours ends with its transaction."""

    # Whether the server may be asked which one it is.
    tells_server = True
    # Whether others may have heard the MD5 of its password.
    heard_md5 = False

    def ask_for_server(self, asked: bool) -> None:
        self.tells_server = asked

    @overrides("asyncpg.connection.Connection._do_execute", "asyncpg.connection.Connection._prepare")
    async def _get_statement(self, query: str, timeout: float | None, **options: Any) -> Any:
        return await super()._get_statement(query, timeout, **{**options, "named": False})  # type: ignore[misc]

    async def prove_single(self, sql: str) -> None:
        """Let the server take this text apart by the extended protocol, by which it is one statement or an error."""
        protocol: Any = self._protocol  # type: ignore[attr-defined]
        await protocol.prepare(
            "", sql, STATEMENT_TIMEOUT_SECONDS, record_class=asyncpg.Record, ignore_custom_codec=True
        )

    @overrides("asyncpg.connection.Connection.reset")
    def get_reset_query(self) -> str:
        return ""
