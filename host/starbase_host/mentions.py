"""Which views and virtual tables mention a table, directly or through one another, by the texts of the schema.

When in doubt, a text mentions a name. Must not know connections, nor what follows from a mention.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

# A name that needs no quotes in SQLite, or a part of one that does.
_WORD = re.compile(r"[0-9A-Za-z_$\x80-\U0010ffff]+")


def mentioning(names: Collection[str], texts: Iterable[tuple[str, str]], *, suffixes: Sequence[str] = ()) -> set[str]:
    """Return these names, and those of the texts that may mention one of them, also through other texts.

    texts: the name and the SQL of each view or virtual table.
    suffixes: a text that mentions a name with `_` and one of these counts as mentioning the name.
    """
    mentions = _Mentions(texts, suffixes)
    found, waiting = set(names), list(names)
    # Each name is looked up once, so that a long chain of views takes no longer than as many views beside one another.
    while waiting:
        more = mentions.of(waiting.pop()) - found
        found |= more
        waiting += more
    return found


class _Mentions:
    """Which texts may mention a name."""

    def __init__(self, texts: Iterable[tuple[str, str]], suffixes: Sequence[str]) -> None:
        self._suffixes = suffixes
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
            words += [f"{words[0]}_{suffix}" for suffix in self._suffixes]
            return set[str]().union(*(self._by_word.get(word, ()) for word in words))
        return self._by_word.get(words[0], set())


def _words(text: str) -> list[str]:
    """Return the words of a text, with ASCII letters folded as SQLite folds them."""
    return _WORD.findall(text.encode().lower().decode())
