"""Putting a shadow in a replica's place, with the indexes, triggers, views and full-text tables of the replica.

Functions of an APSW connection, inside the transaction that swaps. Must not know what the rows are.
"""

from __future__ import annotations

import re

import apsw

from starbase_data_replication.storage import user_objects
from starbase_data_replication.storage.sqlite_tables import TAG, fitting_views
from starbase_host import fold_name, mentioning, quote

# What the arguments of a full-text table consist of: comments, quoted texts, words and single marks. What is not closed
# goes to the end: a search that gave up there, and began again at the next mark, would take the square of the length.
TOKENS = re.compile(
    r"""--[^\n]*|/\*(?s:.*?)(?:\*/|\Z)|'(?:[^']|'')*(?:'|\Z)|"(?:[^"]|"")*(?:"|\Z)|`(?:[^`]|``)*(?:`|\Z)"""
    r"""|\[[^\]]*(?:\]|\Z)|[^\s'"`\[(),=]+|[(),=]""",
)


def swap(connection: apsw.Connection, name: str, shadow: str, seconds: float) -> list[str]:
    """Put the shadow in the table's place, with the table's indexes and triggers. Returns what no longer fits.

    seconds: how long each of them may take to be built again; `user_objects.for_all` adds to it. Raises AddedTooSlow.
    """
    seconds = user_objects.for_all(connection, seconds)
    extras = _indexes_and_triggers(connection, name)
    views = fitting_views(connection)
    connection.execute(f"DROP TABLE IF EXISTS {quote(name)}")
    connection.execute(f"ALTER TABLE {quote(shadow)} RENAME TO {quote(name)}")
    warnings = []
    for kind, each, sql in extras:
        try:
            with user_objects.deadline(
                connection, seconds, f"the {kind} {each} of table {name} took over {{:g}} seconds to build"
            ):
                connection.execute(sql)
        except apsw.Error as error:
            warnings.append(f"the {kind} {each} no longer fits and was left out ({error}): {sql}")
    still = fitting_views(connection)
    warnings += [f"the view {each} no longer fits: {views[each]}" for each in views if each not in still]
    return warnings + _rebuild_full_text(connection, name, still, seconds)


def _indexes_and_triggers(connection: apsw.Connection, name: str) -> list[tuple[str, str, str]]:
    """Those of the table that users have made: type, name and SQL."""
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_schema WHERE type IN ('index', 'trigger') AND sql IS NOT NULL "
        "AND lower(tbl_name) = lower(?) AND name NOT GLOB ?",
        (name, f"{TAG}*"),
    )
    return [(str(kind), str(each), str(sql)) for kind, each, sql in rows]


def _rebuild_full_text(connection: apsw.Connection, name: str, views: dict[str, str], seconds: float) -> list[str]:
    """Rebuild the full-text indexes whose text is in the table. Returns what could not be rebuilt, in words.

    They refer to rows by number, and the numbers are others now: a search would return other rows, or fail.
    """
    warnings = []
    for each in _full_text_over(connection, name, views):
        rebuild = f"INSERT INTO {quote(each)}({quote(each)}) VALUES ('rebuild')"
        try:
            with user_objects.deadline(
                connection, seconds, f"the full-text table {each} took over {{:g}} seconds to build"
            ):
                connection.execute(rebuild)
        except apsw.Error as error:
            warnings.append(
                f"the full-text table {each} could not be rebuilt ({error}), and its searches are wrong until it is; "
                f"add what it lacks, then run: {rebuild}"
            )
    return warnings


def _full_text_over(connection: apsw.Connection, name: str, views: dict[str, str]) -> list[str]:
    """The full-text tables whose content is the table, or a view that may read it."""
    rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL TABLE %USING%fts%'")
    readers = mentioning({fold_name(name)}, ((fold_name(view), sql) for view, sql in views.items()))
    found = []
    for table, sql in rows.fetchall():
        content = _content(str(sql))
        if content and fold_name(content) in readers:
            found.append(str(table))
    return found


def _content(sql: str) -> str:
    """The table, or the view, which holds a full-text table's text: its option `content`; "" where it has none."""
    tokens: list[str] = [token for token in TOKENS.findall(sql) if not token.startswith(("--", "/*"))]
    for before, option, equals, value in zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False):
        if before in "(," and option.lower() == "content" and equals == "=":
            quote_mark = value[0]
            if quote_mark == "[":
                return value[1:].removesuffix("]")
            if quote_mark in "'\"`":
                return value[1:].removesuffix(quote_mark).replace(quote_mark * 2, quote_mark)
            return value
    return ""
