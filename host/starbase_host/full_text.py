"""Which virtual tables hold text of tables that a client may not see.

A full-text index keeps words of the table or view that its option `content` names, and answers from them without
asking for that table. These are pure functions of the schema's text; when in doubt they name a table. Must not know
connections or roles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from starbase_host.mentions import mentioning

# The suffixes of the tables in which a full-text index stores its data.
SHADOWS = ["config", "content", "data", "docsize", "idx", "segdir", "segments", "stat"]
# A table of another module that mentions it only costs its readers some time.
_FTS5 = re.compile(r"\s*CREATE\s+VIRTUAL\b.*fts5", re.IGNORECASE | re.DOTALL)
# The options of an FTS5 table by which more characters than letters and digits can be a term, or each one.
CHARACTER_TERMS = re.compile(r"trigram|tokenchars|categories", re.IGNORECASE)
_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL\b", re.IGNORECASE)


def over_hidden(schema: Collection[tuple[str, str]], hides: Callable[[str], bool]) -> set[str]:
    """Return the names of the virtual tables that may hold hidden text, also through views and other virtual tables.

    schema: (name, SQL) of each view and virtual table.
    hides: whether a text mentions a hidden table.
    """
    virtual = {name for name, sql in schema if _VIRTUAL.match(sql)}
    # A virtual table without the option keeps only its own text; its columns may have any name.
    texts = ((name, sql) for name, sql in schema if name not in virtual or "content" in sql.lower())
    return mentioning({name for name, sql in schema if hides(sql)}, texts, suffixes=SHADOWS) & virtual


def searched(schema: Collection[tuple[str, str, bool]], *, by_characters: bool = False) -> set[str]:
    """Return the names of the FTS5 tables, and of the views that may read one, also through other views.

    by_characters: leave out the FTS5 tables in which a term is a word of letters and digits.

    schema: (name, SQL, whether it is a view) of each table and view.
    """
    tables = {
        name
        for name, sql, view in schema
        if not view and _FTS5.match(sql or "") and (not by_characters or CHARACTER_TERMS.search(sql))
    }
    return mentioning(tables, ((name, sql) for name, sql, view in schema if view)) if tables else tables
