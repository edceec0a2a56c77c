"""Privileges on PostgreSQL's catalogue that a role lacks, as the GRANT statements that give them.

Every role has them, unless they were revoked from PUBLIC. Must not know which statement needs them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg

# Begins another transaction after a statement failed and ended the last one.
BeginAgain = Callable[[Any], Awaitable[None]]

TABLES = """
    SELECT pg_catalog.format('GRANT SELECT ON TABLE pg_catalog.%s TO %I', name, user)
    FROM pg_catalog.unnest($1::text[]) AS name
    WHERE NOT pg_catalog.has_table_privilege(pg_catalog.to_regclass('pg_catalog.' || name), 'SELECT')
"""
FUNCTIONS = """
    SELECT pg_catalog.format('GRANT EXECUTE ON FUNCTION pg_catalog.%s(%s) TO %I',
                             p.proname, pg_catalog.oidvectortypes(p.proargtypes), user)
    FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace::oid AND p.proname = ANY ($1::text[])
      AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
"""
NAMED = re.compile(r"\bpg_catalog\.(\w+)(\(?)")


def named(*statements: str) -> tuple[list[str], list[str]]:
    """The tables and the functions of the catalogue that these statements name with its schema."""
    found = {match.groups() for sql in statements for match in NAMED.finditer(sql)}
    return sorted(name for name, call in found if not call), sorted(name for name, call in found if call)


async def missing(connection: Any, tables: Sequence[str], functions: Sequence[str], *, begin_again: BeginAgain) -> str:
    """The GRANT statements to run; empty if they cannot be found out. Runs in a transaction that has not failed."""
    grants = await connection.fetch(TABLES, tables)
    try:
        grants += await connection.fetch(FUNCTIONS, functions)
    except asyncpg.InsufficientPrivilegeError:
        # The next attempt finds the functions.
        await begin_again(connection)
    return "; ".join(grant for (grant,) in grants)
