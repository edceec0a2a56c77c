"""Joins by USING and NATURAL, which SQLite's authorizer does not check.

SQLite compares the columns of such a join without asking the authorizer about them, and those of a FULL JOIN it even
returns: `SELECT a FROM hidden FULL JOIN (SELECT NULL AS a WHERE 0) USING (a)`. So the guard refuses such a statement if
its text, or that of a view it may read, contains a name that the role may not read. Must not know roles or connections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

REFUSAL = (
    "a statement with USING or NATURAL may not mention a table that the role may not read, because SQLite does not "
    "check such joins; write JOIN … ON a.id = b.id instead"
)
_BY_NAME = re.compile(rb"\b(?:using|natural)\b")


def joins_by_name(text: bytes) -> bool:
    """Whether a folded text may contain such a join."""
    return (b"using" in text or b"natural" in text) and _BY_NAME.search(text) is not None


@dataclass(frozen=True)
class NamedJoins:
    """Which statements may join by name what their role may not read.

    views: the folded definition of each view, by its folded name.
    """

    views: Mapping[bytes, bytes]

    @classmethod
    def of(cls, views: Iterable[tuple[bytes, bytes]]) -> NamedJoins:
        """views: folded names and definitions. Without a view that joins by name, no view matters."""
        found = dict(views)
        return cls(found if any(map(joins_by_name, found.values())) else {})

    def texts(self, sql: bytes) -> list[bytes]:
        """The statement, and the definitions of the views that it may read, if one of them joins by name; else []."""
        texts, seen = [sql], set()
        for text in texts:
            for name, definition in self.views.items():
                if name not in seen and name in text:
                    seen.add(name)
                    texts.append(definition)
        return texts if any(map(joins_by_name, texts)) else []

    def refuses(self, sql: bytes, is_unreadable: Callable[[bytes], bool]) -> bool:
        """Whether the guard must refuse the folded statement.

        is_unreadable: whether a folded text names what the role may not read.
        """
        return any(map(is_unreadable, self.texts(sql)))
