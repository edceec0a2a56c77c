"""Messages about tracking columns whose values come from an expression, the same for every dialect.

Such a value rises only if the expression does, and no catalogue shows whether it does. Must not know how a dialect
finds such columns.
"""

from __future__ import annotations

import re

from starbase_data_replication.model import TableName

RANDOM = re.compile(
    r"\b(random|random_normal|rand|random_bytes|gen_random_bytes|gen_random_uuid|uuid|uuidv4|uuid_v4|uuid_generate_v[14]m?c?)"
    r"\s*\(",
    re.IGNORECASE,
)
# In a number, a random part may follow a part that rises: a time, or a number of a sequence. In a time, a random part
# moves the time itself.
RISING = re.compile(r"now|time|date|nextval|uuidv7", re.IGNORECASE)
# Characters of a default that are searched: the event loop waits for it.
LONGEST_DEFAULT = 4096


def random_function(default: str | None, rises: str) -> str | None:
    """The function that makes a default random, or a time with a random part; None if it is not.

    rises: as in Column. For uuids, texts and bytes the result is None, because their values show it.
    """
    default = None if default is None else default[:LONGEST_DEFAULT]
    found = RANDOM.search(default) if default is not None and rises in ("number", "time") else None
    if found is None or (rises == "number" and RISING.search(default or "")):
        return None
    return f"{found[1].lower()}()"


def computed_reason(column: str, where: str) -> str:
    return f"{column} is computed ({where}), and nothing shows that its values rise"


def computed_warning(table: TableName, column: str, where: str) -> str:
    return (
        f"trackingColumn: {table}.{column} is computed ({where}): a row whose computed value does not rise above those "
        "that were read is not read; track the plain column that it is computed from, or set mode to full"
    )


# By what a view does with the rows that it reads; {name} is the view's name.
PICKED = {
    "aggregated": "the view {name} uses an aggregate: a change of any row may change what it shows",
    "grouped": "the view {name} groups rows: a row may appear, or change, long after its value was assigned",
    "distinct": "the view {name} shows one of several equal rows: another may appear long after its value was assigned",
    "limited": "the view {name} limits its rows: one may appear when another goes, long after its value was assigned",
    "windowed": "the view {name} uses a window function: a change of any row may change what it shows",
    "compared": (
        "the view {name} removes rows by UNION, INTERSECT or EXCEPT: one may appear when another changes, long "
        "after its value was assigned"
    ),
    "repeated": (
        "the view {name} reads a table more than once: a row may appear with another, long after its value was assigned"
    ),
}
