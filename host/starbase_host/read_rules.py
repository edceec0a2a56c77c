"""Which columns a role may read, as the plugins decide: each column is asked about once, and the answer is kept.

The guard of a connection looks decisions up in SQLite's authorizer, which cannot wait for a plugin. What it does not
find, it collects in `Undecided`; the query then asks the plugins, and runs again. Must not know plugins or connections.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Literal

from starbase_host.sandbox_rules import Role

ReadDecision = Literal["allow", "null", "deny"]
# Table and column, as the schema writes them; the column is "" where a statement reads none, such as in count(*).
Column = tuple[str, str]
# The later one wins where plugins disagree.
STRICTNESS: Mapping[str, int] = {"allow": 0, "null": 1, "deny": 2}
# An admin can make any number of tables. A decision takes some 200 bytes.
MAX_DECISIONS = 100_000


class Undecided(Exception):
    """A statement reads columns about which no plugin has been asked yet; nothing of it has run."""

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__(columns)
        self.columns = columns


class ReadRules:
    """The decisions of one host. `find` may be called in any thread.

    generation: rises when decisions are forgotten, and statements that were prepared under them must not run again.
    """

    def __init__(self, ask: Callable[[Role, str, str], Awaitable[ReadDecision]]) -> None:
        """ask: asks the plugins about a role, a table and a column. Raises StarbaseError if one fails."""
        self._ask = ask
        self._decisions: dict[tuple[Role, bytes, bytes], ReadDecision] = {}
        self.generation = 0

    def find(self, role: Role, table: str, column: str) -> ReadDecision | None:
        """The decision about a column; None if the plugins have not been asked."""
        return self._decisions.get(_key(role, table, column))

    async def decide(self, role: Role, columns: Iterable[Column]) -> None:
        """Ask about those columns that are not decided yet. Raises StarbaseError if a plugin fails; then ask again."""
        for table, column in columns:
            key = _key(role, table, column)
            if key not in self._decisions:
                decision = await self._ask(role, table, column)
                if len(self._decisions) >= MAX_DECISIONS:
                    self.generation += 1
                    self._decisions.clear()
                self._decisions[key] = decision


def _key(role: Role, table: str, column: str) -> tuple[Role, bytes, bytes]:
    return role, table.encode().lower(), column.encode().lower()
