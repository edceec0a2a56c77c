"""What keeps transactions from protecting a table of MySQL or MariaDB: its engine, or what a view stands on.

InnoDB alone tells which transactions are open, so a table's rows must be InnoDB's; of a view, those of every table
below it. The catalogue has a view's text as the server has rewritten it: each table with its database, each name in
backticks. What cannot be traced there is not protected. Must not know how a floor rises.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pymysql.constants import ER
from pymysql.err import Error

from starbase_data_replication.model import TableName
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.mysql.sql import table_sql
from starbase_data_replication.sources.mysql.views import TOKEN, clock, is_readable, origin, picked, plain, words_of
from starbase_data_replication.sources.origins import PICKED, computed_reason, computed_warning, drawn
from starbase_data_replication.sources.protocols import Grounds

# A table's kinds that hold rows of an engine; beside them are views, sequences and the catalogue's own.
TABLES = ("BASE TABLE", "SYSTEM VERSIONED")

ENGINE = "{name} is kept by {engine}: only InnoDB tells which transactions are open"
SEQUENCE = "{name} is a sequence, whose row changes outside of transactions"
CATALOGUE = "{name} is a table of the server's own catalogue, whose rows change outside of transactions"
NOT_SHOWN = (
    "what {name} stands on is not shown to this user: GRANT SHOW VIEW ON {sql} to it, and SELECT on the tables below"
)
HIDDEN = "{name}, on which a view stands, is not shown to this user: GRANT SELECT ON {sql} to it"
FUNCTION = "the view {name} calls {function}, a stored function, and what that reads is unknown"
UNREADABLE = "what the view {name} stands on cannot be traced"
BOTTOMLESS = "the view {name} stands on no table: when its rows appear is unknown"
JOINED = (
    "the view {name} puts several tables together: a row may appear with a row of another of them, long after its own "
    "value was taken"
)
SEVERAL = (
    "values of {column} come from several tables that count up by themselves ({names}), which do not rise together"
)
TIMED = "the view {name} calls {function}(): a row may appear when time has passed, long after its own value was taken"
UNTOLD = (
    "the text of the view {name} is not shown, so that it may hide rows from this user: GRANT SHOW VIEW ON {sql} to it"
)
ASKS = "the view {name} asks who reads it by {function}(), and may hide rows from this user: read its tables"
UNSEEN_PARTS = (
    "the partitions of {name} cannot be told apart: rows that EXCHANGE PARTITION brings in below what was read are not "
    "read; GRANT PROCESS ON *.* to this user, or verify with repair after it"
)
STEPS = (
    "the sequence {name} steps by {increment}, as for an object mapper that takes so many ids at once and uses them "
    "later: step by 1, track a time, or raise lookbackSeconds"
)
POOLED = (
    "an object mapper may take the values of {column} from {pool}, a block at a time, and use them later: take one "
    "at a time, track a time, or raise lookbackSeconds"
)

# Of one table below a view: its place in the question, its kind and engine, the place of the column that the
# tracking values come from with what is particular of it and, behind a line's end, its default; whether it counts up,
# its text if a view.
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
# How a trigger's text asks a sequence, and the sequence's name.
_NAME = r"(?:`(?:[^`]++|``)*+(?:`|\Z)|[\w$]++)"
ASKED = re.compile(rf"\b(?:nextval\s*\(|next\s+value\s+for\b)\s*({_NAME}(?:\s*\.\s*{_NAME})?)", re.IGNORECASE)
# What LOOK_UP answers of one table, its number left out.
_Found = tuple[str, str | None, str | None, str, str, str | None]
UNTRACED = "what {column} takes its values from cannot be traced"
LONGEST_TRIGGERS = 1024 * 1024
# Views stand on views; a server that invents another one for each would never be done.
MOST_LEVELS = 100
# Each is asked for by a SELECT within one statement.
MOST_TABLES = 500
INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint", "decimal")


class Below(NamedTuple):
    """What a view's text says that it stands on. unknown: something in it that cannot be traced. union: it puts the
    rows of several selects under each other. asks: the function by which it asks who reads it. clock: the one by which
    it asks the time. picked: what it does with the rows that it reads, by the names in PICKED."""

    tables: tuple[tuple[str, str], ...] = ()
    function: str | None = None
    unknown: bool = False
    union: bool = False
    asks: str | None = None
    clock: str | None = None
    picked: tuple[str, ...] = ()


async def grounds(
    connection: Connection,
    table: TableName,
    *,
    kind: str,
    engine: str | None,
    default: str | None,
    pooled: bool,
    generated: bool,
    triggers: str | None,
    tracking: Any,
) -> Grounds:
    """kind, engine: the table's, as the catalogue has them. default: of its tracking column. generated: whether that is
    made by an expression. pooled: whether nothing gives that its values, and something is called as what an object
    mapper takes them from. triggers: the texts of its triggers that may ask a sequence."""
    found = await _grounds(
        connection,
        table,
        kind=kind,
        engine=engine,
        default=default,
        pooled=pooled,
        triggers=triggers,
        tracking=tracking,
    )
    return _computed(found, table, tracking.name, f"{table}.{tracking.name}") if generated else found


def _computed(found: Grounds, table: TableName, column: str, where: str) -> Grounds:
    reasons = [reason for reason in (found.unprotected, computed_reason(column, where)) if reason]
    return found._replace(unprotected="; ".join(reasons), caveats=(computed_warning(table, column, where),))


async def _grounds(
    connection: Connection,
    table: TableName,
    *,
    kind: str,
    engine: str | None,
    default: str | None,
    pooled: bool,
    triggers: str | None,
    tracking: Any,
) -> Grounds:
    if kind in TABLES:
        if engine != "InnoDB":
            return Grounds(unprotected=ENGINE.format(name="the table", engine=engine or "an engine that is missing"))
        if default is not None and "nextval(" in default:
            found = re.search(r"nextval\((`(?:[^`]|``)*`(?:\.`(?:[^`]|``)*`)?)\)", default)
            if found is None:
                return Grounds(unprotected=UNTRACED.format(column=tracking.name))
            return await _of_sequence(connection, table, tracking.name, found[1])
        if triggers is not None and tracking.tracking_kind in INTEGERS and _mentions(triggers, tracking.name):
            return await _of_triggers(connection, table, tracking.name, triggers)
        if pooled and tracking.tracking_kind in INTEGERS:
            return Grounds(unprotected=POOLED.format(column=tracking.name, pool=f"{table.name}_seq"))
        return Grounds()
    if kind == "VIEW":
        return await _of_view(connection, table, tracking)
    return Grounds(unprotected=_of_kind(kind, str(table)))


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text, re.IGNORECASE) is not None


async def _of_triggers(connection: Connection, table: TableName, column: str, texts: str) -> Grounds:
    """A trigger that names the column may give it the value of any sequence that it asks."""
    if len(texts) > LONGEST_TRIGGERS:
        return Grounds(unprotected=UNTRACED.format(column=f"a trigger of {table} that sets {column}"))
    names: dict[str, None] = {}
    for asked in ASKED.findall(texts):
        parts = [plain(part) for part in re.findall(_NAME, asked)]
        names[table_sql(TableName(schema=(table.schema if len(parts) == 1 else parts[0]), name=parts[-1]))] = None
    if len(names) != 1:
        return Grounds(unprotected=UNTRACED.format(column=f"a trigger of {table} that sets {column}"))
    (name,) = names
    try:
        return await _of_sequence(connection, table, column, name)
    except Error as error:
        if error.args[0] not in (ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR, ER.NO_SUCH_TABLE):
            raise
    return Grounds(
        unprotected=f"the sequence {name} of {column} is not shown to this user: GRANT SELECT ON {name} to it"
    )


async def _of_sequence(connection: Connection, table: TableName, column: str, name: str) -> Grounds:
    """MariaDB keeps the values that a sequence has cached for all sessions: they are given out in their order."""
    rows = await connection.fetch(f"SELECT CAST(increment AS CHAR), CAST(cycle_option AS CHAR) FROM {name}")
    ((increment, cycles),) = rows
    if int(increment) < 0:
        return Grounds(
            unfollowable=f"the sequence {name} of {table}.{column} counts down: new rows come below those read"
        )
    if int(increment) > 1:
        return Grounds(unprotected=STEPS.format(name=name, increment=increment))
    if cycles == "1":
        return Grounds(
            unprotected=f"the sequence {name} of {column} may begin again below what was read: make it NOCYCLE"
        )
    return Grounds()


async def _of_view(connection: Connection, view: TableName, tracking: Any) -> Grounds:
    """Walk a view down to its tables, a statement for each level."""
    reasons: dict[str, None] = {}
    counting: dict[str, None] = {}
    hidden: dict[str, None] = {}
    untold: dict[str, None] = {}
    queries: dict[str, str] = {}
    union = False
    seen = {(view.schema or "", view.name)}
    level = sorted(seen)
    # The tracking column's name at this level; computed: where it is made by an expression.
    column: str | None = tracking.name
    computed: str | None = None
    chance: str | None = None
    levels = 0
    while level:
        levels += 1
        if levels > MOST_LEVELS:
            reasons[UNREADABLE.format(name=view)] = None
            break
        found = await _look_up(connection, level, column or "")
        origins: set[str | None] = set()
        below: dict[tuple[str, str], None] = {}
        for place in level:
            name = ".".join(place)
            sql = table_sql(TableName(schema=place[0], name=place[1]))
            if not found[place]:
                reasons[HIDDEN.format(name=name, sql=sql)] = None
            for kind, engine, extra, default, counts, text in found[place]:
                if column is not None and kind in TABLES:
                    chance = chance or drawn(default, tracking.rises)
                origins.add(_origin(column, kind, extra, text, alone=len(level) == 1))
                if column is not None and None in origins:
                    computed = computed or f"{name}.{column}"
                if kind in TABLES and engine == "InnoDB":
                    if counts != "0":
                        counting[name] = None
                elif kind in TABLES:
                    reasons[ENGINE.format(name=name, engine=engine or "an engine that is missing")] = None
                elif kind != "VIEW":
                    reasons[_of_kind(kind, name)] = None
                elif not text:
                    reasons[NOT_SHOWN.format(name=name, sql=sql)] = None
                    untold[UNTOLD.format(name=name, sql=sql)] = None
                else:
                    queries[name] = text
                    traced = trace(text)
                    union |= traced.union
                    if traced.asks is not None:
                        hidden[ASKS.format(name=name, function=traced.asks)] = None
                    reasons |= dict.fromkeys(_against(traced, name))
                    below |= dict.fromkeys(traced.tables)
        level = [place for place in below if place not in seen]
        seen |= set(level)
        column = origins.pop() if len(origins) == 1 and computed is None else None
    warnings = [*untold]
    if union and len(counting) > 1 and tracking.tracking_kind in INTEGERS:
        several = SEVERAL.format(column=tracking.name, names=", ".join(counting))
        reasons[several] = None
        warnings.append(
            f"{view}: {several}: a row whose table lies behind is not read; track a time, or set mode to full"
        )
    definition = hashlib.sha256(repr(sorted(queries.items())).encode()).hexdigest() if queries else ""
    grounded = Grounds(
        unprotected="; ".join(reasons) or None,
        hidden="; ".join(hidden) or None,
        warnings=tuple(warnings),
        drawn=chance,
        definition=definition,
    )
    return _computed(grounded, view, tracking.name, computed) if computed is not None else grounded


def _origin(column: str | None, kind: str, extra: str | None, text: str | None, *, alone: bool) -> str | None:
    """The name, at the next level, of the column that tracking values come from; None where an expression makes it.
    alone: no other table may have it."""
    if column is None or (extra is None and alone and kind in TABLES) or generated(extra):
        return None
    if not text or not is_readable(text):
        return column
    return None if extra is None else origin(words_of(text), int(extra.split()[0]) - 1)


def generated(extra: str | None) -> bool:
    """Whether a column is made by an expression, by what the catalogue has as particular of it. That of one with a
    default may be "DEFAULT_GENERATED"."""
    return extra is not None and re.search(r"\b(?:VIRTUAL|STORED|PERSISTENT)\b", extra.upper()) is not None


async def partitions(connection: Connection, table: TableName) -> Grounds:
    """The numbers of a partitioned table's parts: each gets another when it is exchanged, emptied or rebuilt."""
    name = f"{file_name(table.schema or '')}/{file_name(table.name)}#P#"
    catalogue = "INNODB_SYS_TABLES" if connection.is_mariadb else "INNODB_TABLES"
    sql = (
        f"SELECT NAME, CAST(TABLE_ID AS CHAR) FROM information_schema.{catalogue} "
        "WHERE LOWER(LEFT(NAME, %s)) = LOWER(%s)"
    )
    try:
        rows = await connection.fetch(sql, (str(len(name)), name))
    except Error as error:
        if error.args[0] != ER.SPECIFIC_ACCESS_DENIED_ERROR:
            raise
        rows = []
    parts = {str(found)[len(name) :]: str(number) for found, number in rows}
    return Grounds(parts=parts) if parts else Grounds(warnings=(UNSEEN_PARTS.format(name=table),))


def file_name(name: str) -> str:
    """As the server names a file after it; of letters beyond ASCII it has other ways, so that nothing is found."""
    return re.sub(r"[^0-9A-Za-z_]", lambda match: f"@{ord(match[0]):04x}", name)


async def tables_below(connection: Connection, view: TableName) -> list[tuple[str, str]]:
    """The databases and names of whatever a view stands on, views among them, as far as this user is shown it."""
    seen = {(view.schema or "", view.name): None}
    level = list(seen)
    levels = 0
    while level and levels < MOST_LEVELS:
        levels += 1
        texts = [row[-1] for rows in (await _look_up(connection, level)).values() for row in rows if row[-1]]
        level = [each for text in texts for each in trace(text).tables if each not in seen]
        level = list(dict.fromkeys(level))
        seen |= dict.fromkeys(level)
    return list(seen)[1:]


async def missing_below(connection: Connection, view: TableName) -> list[str]:
    """The tables and views directly below a view that the catalogue does not show."""
    place = (view.schema or "", view.name)
    texts = [found[-1] for found in (await _look_up(connection, [place]))[place] if found[-1]]
    below = list(dict.fromkeys(each for text in texts for each in trace(text).tables))
    found = await _look_up(connection, below) if below else {}
    return [".".join(each) for each in below if not found[each]]


def _against(below: Below, name: str) -> Iterator[str]:
    if below.function is not None:
        yield FUNCTION.format(name=name, function=below.function)
    if below.unknown:
        yield UNREADABLE.format(name=name)
    elif not below.tables:
        yield BOTTOMLESS.format(name=name)
    if len(below.tables) > 1:
        yield JOINED.format(name=name)
    if below.clock is not None:
        yield TIMED.format(name=name, function=below.clock)
    for doing in below.picked:
        yield PICKED[doing].format(name=name)


def _of_kind(kind: str, name: str) -> str:
    return (SEQUENCE if kind == "SEQUENCE" else CATALOGUE).format(name=name)


async def _look_up(
    connection: Connection, places: Sequence[tuple[str, str]], column: str = ""
) -> dict[tuple[str, str], list[_Found]]:
    """Of each table its kind, engine, that column's place and what is particular of it, its default, count of columns
    that count up, and text. One that is hidden has no row.

    Each is asked for by itself: only so does MariaDB look at these, and not at every table of the server.
    """
    sql = " UNION ALL ".join(LOOK_UP.format(number=number) for number in range(len(places)))
    values = [value for place in places for value in (*place, column, *place * 3)]
    found: dict[tuple[str, str], list[_Found]] = {place: [] for place in places}
    for number, *row in await connection.fetch(sql, values):
        kind, engine, particular, counts, text = (each.decode() if isinstance(each, bytes) else each for each in row)
        extra, _, default = (particular or "").partition("\n")
        place = places[int(number)]
        found[place].append((kind, engine, None if particular is None else extra, default, str(counts), text))
    return found


# What has a `from` inside its brackets that no table follows.
FROM_INSIDE = frozenset({"extract", "trim", "substring", "substr"})
# What may stand where a table does, and brings its own tables, or none.
NOT_TABLES = frozenset({"select", "with", "values", "lateral", "json_table", "dual"})
# What a view may call to show each user other rows.
WHO_READS = frozenset({"current_user", "user", "session_user", "system_user", "current_role"})
OF_SEQUENCES = frozenset({"nextval", "lastval", "setval"})


def trace(text: str) -> Below:
    """The tables in a view's text, as the server writes it. A pure function."""
    if not is_readable(text):
        return Below(unknown=True)
    tokens = [(match[0], match.start(), match.end()) for match in TOKEN.finditer(text)]
    words = [token if token[0] in "`'" else token.lower() for token, *_ in tokens]
    tables: dict[tuple[str, str], int] = {}
    functions = [words[at] for at in range(len(tokens) - 1) if _is_call(tokens, at)]
    closing = _closing(words)
    ctes = {plain(words[at]) for at in range(len(words) - 1) if _defines(words, at, closing)}
    unknown = any(word in OF_SEQUENCES for word in words)
    brackets: list[str] = []
    for at, word in enumerate(words):
        if word == "(":
            brackets.append(words[at - 1] if at else "")
        elif word == ")":
            if brackets:
                brackets.pop()
        elif word in ("join", "straight_join") or (word == "from" and not (brackets and brackets[-1] in FROM_INSIDE)):
            names = _names(words, at + 1)
            if len(names) == 2:
                tables[names[0], names[1]] = tables.get((names[0], names[1]), 0) + 1
            elif not (names[0] in ctes if len(names) == 1 else not names and _brings_its_own(words, at + 1, ctes)):
                unknown = True
    if len(tables) > MOST_TABLES:
        return Below(unknown=True)
    union = any(word in ("union", "intersect", "except") for word in words)
    calls = (word for at, word in enumerate(words[:-1]) if word in WHO_READS and words[at + 1] == "(")
    doing = [*picked(words), *(["repeated"] if any(count > 1 for count in tables.values()) else [])]
    return Below(
        tuple(tables), plain(functions[0]) if functions else None, unknown, union, next(calls, None), clock(words),
        tuple(doing),
    )  # fmt: skip


def _is_call(tokens: Sequence[tuple[str, int, int]], at: int) -> bool:
    """Whether a name in backticks is called: only stored functions are written so."""
    return tokens[at][0][0] == "`" and tokens[at + 1][0] == "(" and tokens[at + 1][1] == tokens[at][2]


def _closing(words: Sequence[str]) -> list[int]:
    """Of each place the place of the next closing bracket; the end, where there is not one."""
    found, following = [len(words)] * len(words), len(words)
    for at in range(len(words) - 1, -1, -1):
        following = at if words[at] == ")" else following
        found[at] = following
    return found


def _defines(words: Sequence[str], at: int, closing: Sequence[int]) -> bool:
    """Whether a name is that of a common table expression: `name AS (`, or `name (columns) AS (`."""
    if words[at][0] != "`" and not words[at].isidentifier():
        return False
    after = at + 1
    if words[after] == "(":
        after = closing[after] + 1
    return list(words[after : after + 2]) == ["as", "("]


def _names(words: Sequence[str], at: int) -> list[str]:
    """The names with dots between them that stand here, behind any brackets."""
    while at < len(words) and words[at] == "(":
        at += 1
    names: list[str] = []
    while at < len(words) and words[at][0] == "`":
        names.append(plain(words[at]))
        if at + 1 >= len(words) or words[at + 1] != ".":
            break
        at += 2
    return names


def _brings_its_own(words: Sequence[str], at: int, ctes: set[str]) -> bool:
    while at < len(words) and words[at] == "(":
        at += 1
    return at < len(words) and (words[at] in NOT_TABLES or words[at] in ctes)
