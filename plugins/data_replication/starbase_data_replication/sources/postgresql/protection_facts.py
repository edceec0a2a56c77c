"""Why transactions do not protect a table of PostgreSQL, or why it cannot be followed: the facts, and their messages.

Transactions protect a table if its rows become visible when the local transaction that took their tracking value
commits, and if values rise in the order in which they are taken. protection_facts.sql finds facts against that; here
each becomes a sentence with its fix. An unknown case is not protected. Must not know how a floor rises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from starbase_data_replication.model import TableName
from starbase_data_replication.sources.origins import PICKED, computed_reason, computed_warning, random_function
from starbase_data_replication.sources.postgresql.types import CLOCKS, RISES
from starbase_data_replication.sources.protocols import ProtectionFacts

PROTECTION_FACTS = files(__package__).joinpath("protection_facts.sql").read_text(encoding="utf-8")

ELSEWHERE = "its transactions belong to another server, and only that server knows them"
REFRESHED = "its rows appear at a REFRESH, not at the commit of their transaction, so incremental syncs would lose some"
# By the kind of fact that protection_facts.sql finds; {name} is the name of the object.
REASONS = {
    **PICKED,
    "method": "its access method {name} is not heap: when its rows appear is unknown",
    "subscribed": "a subscription writes {name}: " + ELSEWHERE + "; follow the publisher, or raise lookbackSeconds",
    "applied": "the extension {name} applies the transactions of another server, and only that server knows them",
    "distributed": "the extension {name} spreads tables over servers, and each knows only its own transactions",
    "bottomless": "the view {name} reads no table that the catalogue names: when its rows appear is unknown",
    "joined": (
        "the view {name} joins several tables: a row may appear with a row of another table, long after its "
        "own value was assigned"
    ),
    "function": (
        "a view calls {name}, which may read elsewhere: what a function reads is unknown, if it returns rows or is "
        "not IMMUTABLE"
    ),
    "default": "the default of {column} calls {name}, and where that gets its values is unknown",
    "trigger": (
        "the trigger function {name} may use a sequence that it does not name: it calls nextval, another function or "
        "EXECUTE, or is not written in PL/pgSQL"
    ),
    "clock": "the view {name} depends on the current time: a row may appear long after its own value was assigned",
    "pool": (
        "the sequence {name} steps by {increment}: an object mapper may take that many ids at once and use "
        "them later: step by 1, track a time, or raise lookbackSeconds"
    ),
}

# The kinds of fact about a sequence, or about what may ask one.
OF_NUMBERS = ("default", "trigger", "pool")


async def find_protection_facts(connection: Any, table: TableName, column: str, tracking_kind: str) -> ProtectionFacts:
    """Find the facts about a table and what it reads. tracking_kind: the name of the tracking column's base type."""
    found = await connection.fetch_known(PROTECTION_FACTS, table.schema, table.name, column)
    return parse_protection_facts(found, table, column, tracking_kind)


def numbered(tracking_kind: str) -> bool:
    """Whether a column's values may be taken from a sequence."""
    return tracking_kind not in CLOCKS and tracking_kind != "uuid"


def parse_protection_facts(
    found: Sequence[Mapping[str, Any]], table: TableName, column: str, tracking_kind: str
) -> ProtectionFacts:
    """The protection facts in these rows of the catalogue. Sequences do not count against a time or a uuid."""
    unprotected: list[str] = []
    unfollowable: list[str] = []
    warnings: list[str] = []
    caveats: list[str] = []
    # The catalogue writes a name without its schema if the search path finds it.
    itself = (str(table), table.name, f'"{table.name}"')
    rises = RISES.get(tracking_kind, "none")
    # If many partitions have the same column, one is named.
    if computed := sorted(str(row["name"]) for row in found if row["kind"] == "computed"):
        unprotected.append(computed_reason(column, computed[0]))
        caveats.append(computed_warning(table, column, computed[0]))
    sequences = sorted((row for row in found if row["kind"] == "sequence"), key=lambda row: str(row["name"]))
    for row in found:
        name, kind = row["name"], row["kind"]
        if kind == "materialized":
            what = (
                f"{table} is a materialized view" if name in itself else f"{table} reads the materialized view {name}"
            )
            unfollowable.append(f"{what}: {REFRESHED}")
        elif kind == "foreign":
            what = "a foreign table" if name in itself else f"reads the foreign table {name}"
            unprotected.append(f"{what}: {ELSEWHERE}")
        elif kind in OF_NUMBERS and numbered(tracking_kind):
            unprotected.append(REASONS[kind].format(name=name, column=column, increment=row["increment"]))
        elif kind not in (*OF_NUMBERS, "computed", "given", "sequence", "file", "query", "unassigned"):
            unprotected.append(REASONS[kind].format(name=name))
    for row in sequences if numbered(tracking_kind) else ():
        name = row["name"]
        if row["increment"] < 0:
            unfollowable.append(f"the sequence {name} of {table}.{column} counts down: new rows come below those read")
        elif row["cache"] > 1:
            unprotected.append(
                f"the sequence of {column} has CACHE {row['cache']}: a session takes values ahead of its transactions; "
                f"ALTER SEQUENCE {name} CACHE 1, or track a time"
            )
        elif row["increment"] > 1:
            unprotected.append(REASONS["pool"].format(name=name, increment=row["increment"]))
        if row["cycles"]:
            unprotected.append(
                f"the sequence of {column} may start again below the values read: ALTER SEQUENCE {name} NO CYCLE"
            )
    if numbered(tracking_kind) and len(sequences) > 1:
        names = ", ".join(str(row["name"]) for row in sequences)
        several = f"values of {column} come from several sequences ({names}), which do not rise together"
        unprotected.append(several)
        warnings.append(
            f"{table}: {several}: a row whose sequence lies behind is not read; track a time, or set mode to full"
        )
    defaults = [random_function(row["name"], rises) for row in found if row["kind"] == "given"]
    return ProtectionFacts(
        unprotected="; ".join(dict.fromkeys(unprotected)) or None,
        unfollowable="; ".join(dict.fromkeys(unfollowable)) or None,
        warnings=tuple(warnings),
        caveats=tuple(caveats),
        unassigned=any(row["kind"] == "unassigned" for row in found),
        random_default=next((each for each in defaults if each is not None), None),
        # A file's number is in the field of a sequence's cache.
        definition=next((str(row["name"]) for row in found if row["kind"] == "query"), ""),
        files={str(row["name"]): str(row["cache"]) for row in found if row["kind"] == "file"},
    )
