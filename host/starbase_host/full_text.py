"""Which virtual tables hold text of tables that a client may not see.

A full-text index keeps words of the table or view that its option `content` names, and answers from them without
asking for that table. These are pure functions of the schema's text; when in doubt they name a table. Must not know
connections or roles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

# The suffixes of the tables in which a full-text index stores its data.
SHADOWS = ["config", "content", "data", "docsize", "idx", "segdir", "segments", "stat"]
_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL\b", re.IGNORECASE)
_QUOTES = str.maketrans("", "", "\"'`[]")


def over_hidden(schema: Iterable[tuple[str, str]], hides: Callable[[str], bool]) -> set[str]:
    """Return the names of the virtual tables that may hold hidden text, also through views and other virtual tables.

    schema: (name, SQL) of each view and virtual table.
    hides: whether a text mentions a hidden table.
    """
    entries = [(name, sql, _VIRTUAL.match(sql) is not None) for name, sql in schema]
    found = {name for name, sql, _ in entries if hides(sql)}
    while found:
        names = _any_of(found)
        more = {
            name
            for name, sql, virtual in entries
            if name not in found
            # A virtual table without the option keeps only its own text; its columns may have any name.
            and (not virtual or "content" in sql.lower())
            and names.search(_bare(sql))
        }
        if not more:
            break
        found |= more
    return {name for name, _, virtual in entries if virtual and name in found}


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    words = "|".join(re.escape(_bare(name)) for name in names)
    return re.compile(rf"(?<![\w$])(?:{words})(?:_(?:{'|'.join(SHADOWS)}))?(?![\w$])")


def _bare(text: str) -> str:
    """Remove quotes and fold ASCII letters, so that names in the text can be compared."""
    return text.translate(_QUOTES).encode().lower().decode()
