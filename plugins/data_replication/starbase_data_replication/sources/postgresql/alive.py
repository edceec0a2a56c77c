"""Who is alive on a PostgreSQL server: one look at it, and what has become of those seen before.

Tokens: `v:` and a virtual transaction id, which a session counts up and which begins anew with the server; `p:` and a
prepared transaction's id.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from typing import Any

from starbase_data_replication.model import Alive
from starbase_data_replication.sources.postgresql.settings import READER_NAME

ALIVE = files(__package__).joinpath("alive.sql").read_text(encoding="utf-8")


async def look(connection: Any) -> Alive:
    """Who is alive now."""
    row = await connection.fetchrow(ALIVE, READER_NAME)
    if row["standby"]:
        return Alive(known=False, reason="the source is a standby, which does not tell who is writing")
    tokens = {f"v:{token}" for token in row["virtual"]} | {f"p:{token}" for token in row["prepared"]}
    return Alive(known=True, tokens=frozenset(tokens), reason="pg_locks", epoch=row["epoch"])


def still_alive(noted: Alive, now: Alive) -> Alive:
    """Of those that were noted, who is alive now. Whoever may be the same counts as the same."""
    if not now.known or not noted.known:
        return replace(noted, known=False, reason=now.reason)
    virtual = {token for token in noted.tokens if token.startswith("v:")}
    prepared = noted.tokens - virtual
    virtual_now = {token for token in now.tokens if token.startswith("v:")}
    prepared_now = now.tokens - virtual_now
    if now.epoch != noted.epoch:
        # Virtual ids begin anew with the server; only what was prepared outlives it.
        virtual_now = set()
    still = (virtual & virtual_now) | (prepared & prepared_now)
    if virtual - virtual_now:
        # PREPARE TRANSACTION takes a transaction's virtual id away while it lives on: whatever was prepared
        # since may be the one that vanished.
        still |= prepared_now - prepared
    return replace(noted, tokens=frozenset(still), epoch=now.epoch)
