"""The tables below a view, and what in them or in the view keeps transactions from protecting it.

Walks down a view level by level, by the texts of its views. What cannot be traced there is not protected. Must not know
what else makes a table's rows unprotected.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from starbase_data_replication.model import TableName
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.mysql.sql import table_sql
from starbase_data_replication.sources.mysql.view_text import ViewText, is_readable, off_loop, origin, parse_view
from starbase_data_replication.sources.origins import PICKED, computed_reason, computed_warning, random_function
from starbase_data_replication.sources.protocols import ProtectionFacts

# A table's kinds that hold rows of an engine; beside them are views, sequences and the catalogue's own.
TABLES = ("BASE TABLE", "SYSTEM VERSIONED")

ENGINE = "{name} is stored by {engine}: only InnoDB shows which transactions are open"
SEQUENCE = "{name} is a sequence, whose row changes outside of transactions"
CATALOGUE = "{name} is a table of the server's own catalogue, whose rows change outside of transactions"
NOT_SHOWN = (
    "the tables of the view {name} are not shown to this user: GRANT SHOW VIEW ON {sql} to it, and SELECT on the "
    "tables below"
)
HIDDEN = "{name}, which a view reads, is not shown to this user: GRANT SELECT ON {sql} to it"
FUNCTION = "the view {name} calls {function}, a stored function, and what that reads is unknown"
UNREADABLE = "what the view {name} reads cannot be traced"
BOTTOMLESS = "the view {name} reads no table: when its rows appear is unknown"
JOINED = (
    "the view {name} joins several tables: a row may appear with a row of another table, long after its own "
    "value was assigned"
)
SEVERAL = "values of {column} come from the AUTO_INCREMENT of several tables ({names}), which do not rise together"
TIMED = (
    "the view {name} calls {function}(): a row may appear when time has passed, long after its own value was assigned"
)
UNSEEN_TEXT = (
    "the text of the view {name} is not shown, so that it may hide rows from this user: GRANT SHOW VIEW ON {sql} to it"
)
ASKS = "the view {name} depends on who reads it by {function}(), and may hide rows from this user: replicate its tables"


# One table below a view: its number in the statement, its kind and engine; the position, EXTRA and, after a line break,
# default of the column that the tracking values come from; how many columns are AUTO_INCREMENT; its text if it is a
# view.
LOOK_UP = """
SELECT '{number}', t.TABLE_TYPE, t.ENGINE,
       (SELECT CONCAT(c.ORDINAL_POSITION, ' ', COALESCE(c.EXTRA, ''), '\n', COALESCE(c.COLUMN_DEFAULT, ''))
        FROM information_schema.COLUMNS c
        WHERE c.TABLE_SCHEMA = %s AND c.TABLE_NAME = %s AND c.COLUMN_NAME = %s),
       (SELECT COUNT(*) FROM information_schema.COLUMNS c
        WHERE c.TABLE_SCHEMA = %s AND c.TABLE_NAME = %s AND c.EXTRA LIKE '%%auto_increment%%'),
       (SELECT v.VIEW_DEFINITION FROM information_schema.VIEWS v WHERE v.TABLE_SCHEMA = %s AND v.TABLE_NAME = %s)
FROM information_schema.TABLES t WHERE t.TABLE_SCHEMA = %s AND t.TABLE_NAME = %s
"""
# What LOOK_UP returns for one table: kind, engine, EXTRA with the position, default, count, text.
_TableRow = tuple[str, str | None, str | None, str, str, str | None]
# Views may read views; a server that invents another one for each would keep the walk going for ever.
MOST_LEVELS = 100
MOST_PLACES = 2_000
# Characters of all views of one walk that are parsed: some seconds of work, in a thread.
LONGEST_WALK = 512 * 1024
INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint", "decimal")


def with_computed(found: ProtectionFacts, table: TableName, column: str, where: str) -> ProtectionFacts:
    """These facts, for a tracking column that an expression computes. where: the table and column that do."""
    reasons = [reason for reason in (found.unprotected, computed_reason(column, where)) if reason]
    return found._replace(unprotected="; ".join(reasons), caveats=(computed_warning(table, column, where),))


class _Walk:
    """The places that a view reads, level by level.

    Attributes:
        level: databases and names to look up next; empty when every place was.
        seen: those of every level so far, in the order in which they were found.
    """

    def __init__(self, view: TableName) -> None:
        self.level = [(view.schema or "", view.name)]
        self.seen = dict.fromkeys(self.level)
        self._levels = 0
        self._room = LONGEST_WALK

    @property
    def too_deep(self) -> bool:
        return self._levels >= MOST_LEVELS or len(self.seen) > MOST_PLACES

    async def parse(self, text: str) -> ViewText:
        """Parse the text of a view, if there is room for it in this walk; else what it reads is unknown."""
        if not is_readable(text):
            return ViewText(unknown=True)
        self._room -= len(text)
        if self._room < 0:
            return ViewText(unknown=True)
        return await off_loop(len(text), parse_view, text)

    def descend(self, below: Iterable[tuple[str, str]]) -> None:
        self._levels += 1
        self.level = [place for place in dict.fromkeys(below) if place not in self.seen]
        self.seen |= dict.fromkeys(self.level)


async def view_protection_facts(connection: Connection, view: TableName, tracking: Any) -> ProtectionFacts:
    """The protection facts of a view, with one statement for each level below it."""
    reasons: dict[str, None] = {}
    counting: dict[str, None] = {}
    hidden: dict[str, None] = {}
    unseen_texts: dict[str, None] = {}
    queries: dict[str, str] = {}
    union = False
    walk = _Walk(view)
    # The tracking column's name at this level; computed: where an expression makes it.
    column: str | None = tracking.name
    computed: str | None = None
    random_default: str | None = None
    while walk.level:
        if walk.too_deep:
            reasons[UNREADABLE.format(name=view)] = None
            break
        found = await _look_up(connection, walk.level, column or "")
        origins: set[str | None] = set()
        below: list[tuple[str, str]] = []
        for place in walk.level:
            name = ".".join(place)
            sql = table_sql(TableName(schema=place[0], name=place[1]))
            if not found[place]:
                reasons[HIDDEN.format(name=name, sql=sql)] = None
            for kind, engine, extra, default, counts, text in found[place]:
                if column is not None and kind in TABLES:
                    random_default = random_default or random_function(default, tracking.rises)
                parsed = await walk.parse(text) if text else None
                alone = len(walk.level) == 1
                origins.add(await off_loop(len(text or ""), _origin, column, kind, extra, parsed, alone=alone))
                if column is not None and None in origins:
                    computed = computed or f"{name}.{column}"
                if kind in TABLES and engine == "InnoDB":
                    if counts != "0":
                        counting[name] = None
                elif kind in TABLES:
                    reasons[ENGINE.format(name=name, engine=engine or "an engine that is missing")] = None
                elif kind != "VIEW":
                    reasons[other_kind_reason(kind, name)] = None
                elif not text or parsed is None:
                    reasons[NOT_SHOWN.format(name=name, sql=sql)] = None
                    unseen_texts[UNSEEN_TEXT.format(name=name, sql=sql)] = None
                else:
                    # A text that is not parsed may be long, and there may be many.
                    queries[name] = text if parsed.words else await off_loop(len(text), _digest, text)
                    union |= parsed.union
                    if parsed.asks is not None:
                        hidden[ASKS.format(name=name, function=parsed.asks)] = None
                    reasons |= dict.fromkeys(_reasons(parsed, name))
                    below += parsed.tables
        walk.descend(below)
        column = origins.pop() if len(origins) == 1 and computed is None else None
    warnings = [*unseen_texts]
    if union and len(counting) > 1 and tracking.tracking_kind in INTEGERS:
        several = SEVERAL.format(column=tracking.name, names=", ".join(counting))
        reasons[several] = None
        warnings.append(
            f"{view}: {several}: a row whose table lies behind is not read; track a time, or set mode to full"
        )
    definition = hashlib.sha256(repr(sorted(queries.items())).encode()).hexdigest() if queries else ""
    facts = ProtectionFacts(
        unprotected="; ".join(reasons) or None,
        hidden="; ".join(hidden) or None,
        warnings=tuple(warnings),
        random_default=random_default,
        definition=definition,
    )
    return with_computed(facts, view, tracking.name, computed) if computed is not None else facts


def _origin(column: str | None, kind: str, extra: str | None, parsed: ViewText | None, *, alone: bool) -> str | None:
    """The name, at the next level, of the column that tracking values come from; None where an expression makes it.
    alone: no other table may have it."""
    if column is None or (extra is None and alone and kind in TABLES) or is_generated(extra):
        return None
    if parsed is None or not parsed.words:
        return column
    return None if extra is None else origin(parsed.words, int(extra.split()[0]) - 1)


def is_generated(extra: str | None) -> bool:
    """Whether an expression makes a column, by its EXTRA in the catalogue; of a default that may be
    "DEFAULT_GENERATED"."""
    return extra is not None and re.search(r"\b(?:VIRTUAL|STORED|PERSISTENT)\b", extra.upper()) is not None


async def tables_below(connection: Connection, view: TableName) -> list[tuple[str, str]]:
    """Databases and names of the tables and views below a view, as far as this user may see them."""
    walk = _Walk(view)
    while walk.level and not walk.too_deep:
        found = await _look_up(connection, walk.level)
        walk.descend(await _tables(walk, (row for rows in found.values() for row in rows)))
    return list(walk.seen)[1:]


async def missing_below(connection: Connection, view: TableName) -> list[str]:
    """The tables and views directly below a view that the catalogue does not show."""
    place = (view.schema or "", view.name)
    below = list(dict.fromkeys(await _tables(_Walk(view), (await _look_up(connection, [place]))[place])))
    found = await _look_up(connection, below) if below else {}
    return [".".join(each) for each in below if not found[each]]


async def _tables(walk: _Walk, rows: Iterable[_TableRow]) -> list[tuple[str, str]]:
    """The tables that the views among these rows read."""
    return [table for *_, text in rows if text for table in (await walk.parse(text)).tables]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _reasons(parsed: ViewText, name: str) -> Iterator[str]:
    """Why transactions do not protect a view, by its text."""
    if parsed.function is not None:
        yield FUNCTION.format(name=name, function=parsed.function)
    if parsed.unknown:
        yield UNREADABLE.format(name=name)
    elif not parsed.tables:
        yield BOTTOMLESS.format(name=name)
    if len(parsed.tables) > 1:
        yield JOINED.format(name=name)
    if parsed.time_function is not None:
        yield TIMED.format(name=name, function=parsed.time_function)
    for doing in parsed.picked:
        yield PICKED[doing].format(name=name)


def other_kind_reason(kind: str, name: str) -> str:
    """Why transactions do not protect what is neither a table nor a view."""
    return (SEQUENCE if kind == "SEQUENCE" else CATALOGUE).format(name=name)


async def _look_up(
    connection: Connection, places: Sequence[tuple[str, str]], column: str = ""
) -> dict[tuple[str, str], list[_TableRow]]:
    """The rows of LOOK_UP for each place; a table that this user may not see has no row.

    Each place has its own SELECT: otherwise MariaDB reads every table of the server.
    """
    sql = " UNION ALL ".join(LOOK_UP.format(number=number) for number in range(len(places)))
    values = [value for place in places for value in (*place, column, *place * 3)]
    found: dict[tuple[str, str], list[_TableRow]] = {place: [] for place in places}
    for number, *row in await connection.fetch(sql, values):
        kind, engine, particular, counts, text = (each.decode() if isinstance(each, bytes) else each for each in row)
        extra, _, default = (particular or "").partition("\n")
        place = places[int(number)]
        found[place].append((kind, engine, None if particular is None else extra, default, str(counts), text))
    return found
