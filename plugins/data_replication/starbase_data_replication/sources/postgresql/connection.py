"""The connection of this room: asyncpg's, without what it leaves behind on a server that others use too.

A pooler that hands connections out by transaction gives the next client what we leave: a statement's name, a
setting. asyncpg names the statements of its cursors, and resets a session, with all settings of whoever shares it,
when a connection goes back to the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from starbase_data_replication.sources.postgresql.answers import Answers
from starbase_host import overrides

# A source that hangs must not hold a run for ever; a table that must be scanned may take minutes to answer.
STATEMENT_TIMEOUT_SECONDS = 600.0

# How many statements a connection keeps the description of, and of how many characters at most: those of a sync that
# finds nothing, of some tables.
MAX_KEPT = 32
MAX_KEPT_CHARACTERS = 40_000


class Connection(asyncpg.Connection):
    """Statements without a name, and no reset: everything of ours ends with its transaction."""

    # Whether the server may be asked which one it is.
    tells_server = True
    # Whether others may have heard the MD5 of its password.
    heard_md5 = False
    # What stands before its protocol, and counts what comes.
    answers: Answers

    def ask_for_server(self, asked: bool) -> None:
        self.tells_server = asked

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        # By its text, what a statement takes and answers. The one that may be kept now; the rest may not.
        self._kept: dict[str, Any] = {}
        self._keeping: str | None = None

    async def fetch_known(self, sql: str, *values: Any) -> Sequence[asyncpg.Record]:
        """As `fetch`, for a statement whose text alone says of which types its values and its columns are.

        The server describes it once. After that it goes in one message, with its values, and the server parses it once
        instead of twice. It has no name all the same, so nothing of it stays on the server. Never for one that answers
        a column of a user's table as it is: after an ALTER TABLE its bytes would be read as the old type's.
        """
        self._keeping = sql
        try:
            return await self.fetch(sql, *values, timeout=STATEMENT_TIMEOUT_SECONDS)
        finally:
            self._keeping = None

    @overrides("asyncpg.connection.Connection._do_execute", "asyncpg.connection.Connection._prepare")
    async def _get_statement(self, query: str, timeout: float | None, **options: Any) -> Any:
        kept = query == self._keeping and len(query) <= MAX_KEPT_CHARACTERS
        if kept and (known := self._kept.get(query)) is not None:
            return known
        statement = await super()._get_statement(query, timeout, **{**options, "named": False})  # type: ignore[misc]
        # One that is marked as not prepared is sent together with its values.
        if kept and not statement.prepared:
            while len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[query] = statement
        return statement

    async def prove_single(self, sql: str) -> None:
        """Let the server take this text apart by the extended protocol, by which it is one statement or an error."""
        protocol: Any = self._protocol  # type: ignore[attr-defined]
        await protocol.prepare(
            "", sql, STATEMENT_TIMEOUT_SECONDS, record_class=asyncpg.Record, ignore_custom_codec=True
        )

    @overrides("asyncpg.connection.Connection.reset")
    def get_reset_query(self) -> str:
        return ""
