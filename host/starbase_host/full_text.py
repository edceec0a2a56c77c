"""Which virtual tables hold text of what a client may not see: a full-text index keeps words of the table, or of the
view, that its option `content` names, and answers from them without asking for that table.

Pure functions of the schema's text. They find too many rather than too few. Must not know connections or roles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

# The tables in which a full-text index keeps what it has read.
SHADOWS = ["config", "content", "data", "docsize", "idx", "segdir", "segments", "stat"]
_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL\b", re.IGNORECASE)
_QUOTES = str.maketrans("", "", "\"'`[]")


def over_hidden(schema: Iterable[tuple[str, str]], hides: Callable[[str], bool]) -> set[str]:
    """The virtual tables that may hold hidden text, by themselves or through views and other virtual tables.

    schema: name and SQL of the views and virtual tables. hides: whether a text speaks of a hidden table.
    """
    entries = [(name, sql, _VIRTUAL.match(sql) is not None) for name, sql in schema]
    found = {name for name, sql, _ in entries if hides(sql)}
    while found:
        names = _any_of(found)
        more = {
            name
            for name, sql, virtual in entries
            if name not in found
            # One without the option keeps its own text; its columns may be called anything.
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
    """A text as names in it are compared: however they are quoted, and their ASCII letters without case."""
    return text.translate(_QUOTES).encode().lower().decode()
