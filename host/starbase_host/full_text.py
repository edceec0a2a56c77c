"""Which virtual tables hold text of tables that a client may not see.

A full-text index keeps words of the table or view that its option `content` names, and answers from them without
asking for that table. These are pure functions of the schema's text; when in doubt they name a table. Must not know
connections or roles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

# The suffixes of the tables in which a full-text index stores its data.
SHADOWS = ["config", "content", "data", "docsize", "idx", "segdir", "segments", "stat"]
_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL\b", re.IGNORECASE)
_WORD = re.compile(r"[\w$]+")


def over_hidden(schema: Collection[tuple[str, str]], hides: Callable[[str], bool]) -> set[str]:
    """Return the names of the virtual tables that may hold hidden text, also through views and other virtual tables.

    schema: (name, SQL) of each view and virtual table.
    hides: whether a text mentions a hidden table.
    """
    virtual = {name for name, sql in schema if _VIRTUAL.match(sql)}
    # A virtual table without the option keeps only its own text; its columns may have any name.
    mentions = _Mentions((name, sql) for name, sql in schema if name not in virtual or "content" in sql.lower())
    found = {name for name, sql in schema if hides(sql)}
    waiting = list(found)
    # Each name is looked up once, so that a long chain of views takes no longer than as many views beside one another.
    while waiting:
        more = mentions.of(waiting.pop()) - found
        found |= more
        waiting += more
    return found & virtual


class _Mentions:
    """Which texts may mention a name, or a table that stores data of a full-text index of that name."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        self._texts: set[str] = set()
        self._by_word: dict[str, set[str]] = {}
        for name, text in texts:
            self._texts.add(name)
            for word in _words(text):
                self._by_word.setdefault(word, set()).add(name)

    def of(self, name: str) -> set[str]:
        words = _words(name)
        if not words:
            # Quoted, a name may hold no letter at all, and is not looked for among the other marks of a text.
            return self._texts
        if len(words) == 1:
            words += [f"{words[0]}_{suffix}" for suffix in SHADOWS]
            return set[str]().union(*(self._by_word.get(word, ()) for word in words))
        return self._by_word.get(words[0], set())


def _words(text: str) -> list[str]:
    """Return the words of a text, with ASCII letters folded as SQLite folds them."""
    return _WORD.findall(text.encode().lower().decode())
