"""The text of a view, parsed: its tables, what it does with their rows, and where its columns come from.

The server rewrites a view's text: each table has its database, each name is in backticks, each column has its alias.
Pure functions, linear in the text. Must not know what follows from what they find.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# A hostile server writes these texts: a name or string that is not closed goes to the end, and nothing is read twice.
QUOTED_NAME = r"`(?:[^`]++|``)*+(?:`|\Z)"
# Strings, names in backticks, words, and any other character. A string goes on past a doubled quote.
TOKEN = re.compile(rf"'(?:[^'\\]++|\\.?|'')*+(?:'|\Z)|{QUOTED_NAME}|[^\W\d]\w*+|\d\w*+|\S", re.DOTALL)
# Longer texts are not parsed, nor those with so many SELECTs that their column lists could be longer: parsing blocks
# the event loop.
LONGEST_TEXT = 64 * 1024
MOST_FOLLOWING = 1024 * 1024

AGGREGATES = frozenset(
    {
        "avg",
        "bit_and",
        "bit_or",
        "bit_xor",
        "count",
        "group_concat",
        "json_arrayagg",
        "json_objectagg",
        "max",
        "min",
        "std",
        "stddev",
        "stddev_pop",
        "stddev_samp",
        "sum",
        "var_pop",
        "var_samp",
        "variance",
        "st_collect",
    }
)
# Functions whose value changes with time, or is random.
CLOCKS = frozenset(
    {
        "now",
        "sysdate",
        "current_timestamp",
        "current_date",
        "current_time",
        "curdate",
        "curtime",
        "localtime",
        "localtimestamp",
        "utc_timestamp",
        "utc_date",
        "utc_time",
        "rand",
        "uuid",
        "uuid_short",
    }
)
COMBINE = ("union", "intersect", "except")
MODIFIERS = frozenset(
    {
        "all",
        "distinct",
        "distinctrow",
        "high_priority",
        "straight_join",
        "sql_small_result",
        "sql_big_result",
        "sql_buffer_result",
        "sql_no_cache",
        "sql_cache",
        "sql_calc_found_rows",
    }
)
# Words that end a list of columns, outside of its brackets.
AFTER_COLUMNS = frozenset(
    {"from", "where", "group", "having", "order", "limit", "union", "intersect", "except", "fetch"}
)
# Words before the brackets around one of several combined SELECTs.
BEFORE_BRANCH = frozenset({"", "(", *COMBINE, "all", "distinct"})


# Functions that contain a `from` without a table.
FROM_INSIDE = frozenset({"extract", "trim", "substring", "substr"})
# Words in the place of a table that begin a query, or have no table.
NOT_TABLES = frozenset({"select", "with", "values", "lateral", "json_table", "dual"})
# Functions by which a view can show each user other rows.
WHO_READS = frozenset({"current_user", "user", "session_user", "system_user", "current_role"})
OF_SEQUENCES = frozenset({"nextval", "lastval", "setval"})
# A view that reads more tables is not traced: each is looked up by a SELECT within one statement.
MOST_TABLES = 500


@dataclass(frozen=True, kw_only=True)
class ViewText:
    """What a view's text says.

    Attributes:
        tables: database and name of each table or view that it reads.
        function: a stored function that it calls.
        unknown: whether something in it cannot be traced.
        union: whether it combines the rows of several SELECTs.
        asks: the function by which it asks who reads it.
        time_function: the function by which it asks the time, or a random value.
        picked: what it does with the rows that it reads, by the names in PICKED.
        words: its tokens, words in lower case; empty if the text is too long to parse.
    """

    tables: tuple[tuple[str, str], ...] = ()
    function: str | None = None
    unknown: bool = False
    union: bool = False
    asks: str | None = None
    time_function: str | None = None
    picked: tuple[str, ...] = ()
    words: Sequence[str] = field(default=(), compare=False)


class SelectList(NamedTuple):
    """The columns of one SELECT.

    Attributes:
        columns: alias and expression of each.
        whole: whether it is the view's own SELECT, or one of those that the view combines.
    """

    columns: tuple[tuple[str, tuple[str, ...]], ...]
    whole: bool


# Characters of text that are parsed or searched on the event loop; longer texts go to a thread.
SHORT = 4 * 1024


async def off_loop(length: int, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function of a text of this length, in a thread if it is long."""
    if length <= SHORT:
        return function(*arguments, **named)
    return await asyncio.to_thread(function, *arguments, **named)


def is_readable(text: str) -> bool:
    """Whether a text is short enough to be parsed."""
    return len(text) <= LONGEST_TEXT and len(text) * text.lower().count("select") <= MOST_FOLLOWING


def plain(word: str) -> str:
    return word[1:-1].replace("``", "`") if word[0] == "`" else word


def parse_view(text: str) -> ViewText:
    if not is_readable(text):
        return ViewText(unknown=True)
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
            names = _table_names(words, at + 1)
            if len(names) == 2:
                tables[names[0], names[1]] = tables.get((names[0], names[1]), 0) + 1
            elif not (names[0] in ctes if len(names) == 1 else not names and _brings_its_own(words, at + 1, ctes)):
                unknown = True
    if len(tables) > MOST_TABLES:
        return ViewText(unknown=True, words=words)
    union = any(word in ("union", "intersect", "except") for word in words)
    calls = (word for at, word in enumerate(words[:-1]) if word in WHO_READS and words[at + 1] == "(")
    doing = [*picked(words), *(["repeated"] if any(count > 1 for count in tables.values()) else [])]
    return ViewText(
        tables=tuple(tables),
        function=plain(functions[0]) if functions else None,
        unknown=unknown,
        union=union,
        asks=next(calls, None),
        time_function=time_function(words),
        picked=tuple(doing),
        words=words,
    )


def _is_call(tokens: Sequence[tuple[str, int, int]], at: int) -> bool:
    """Whether a name in backticks is called: only stored functions are written so."""
    return tokens[at][0][0] == "`" and tokens[at + 1][0] == "(" and tokens[at + 1][1] == tokens[at][2]


def _closing(words: Sequence[str]) -> list[int]:
    """For each place, the place of the next closing bracket, or the end if no bracket follows."""
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


def _table_names(words: Sequence[str], at: int) -> list[str]:
    """The names at this place with dots between them, after any brackets."""
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


def origin(words: Sequence[str], at: int) -> str | None:
    """The name, in the table below, of the column that a view's column is; None if an expression makes it, or if it
    cannot be traced. at: the column's position in the view, from 0, because its name may differ from the text's."""
    lists = list(select_lists(words))
    own = [each for each in lists if each.whole]
    inner: dict[str, list[tuple[str, ...]]] = {}
    for alias, expression in (pair for each in lists if not each.whole for pair in each.columns):
        inner.setdefault(alias.lower(), []).append(expression)
    combined = sum(word in COMBINE for word in words)
    # A name before brackets is a function, or a subquery that renames its columns.
    renaming = any(word[0] == "`" and after == "(" for word, after in pairwise(words))
    if not own or combined != len(own) - 1 or renaming:
        return None
    made = [each.columns[at][1] if at < len(each.columns) else () for each in own]
    found: set[str] = set()
    seen: set[str] = set()
    while made:
        name = _name(made.pop())
        if name is None:
            return None
        if name in seen:
            continue
        seen.add(name)
        # A column with this name in an inner SELECT is followed further down.
        below = inner.get(name, [])
        if not below or any(_name(expression) == name for expression in below):
            found.add(name)
        made += below
    return found.pop() if len(found) == 1 else None


def picked(words: Sequence[str]) -> Iterator[str]:
    """What a view does with the rows that it reads, so that a row may appear because of others: names of PICKED."""
    pairs = list(pairwise([*words, ""]))
    if any(word in AGGREGATES and after == "(" for word, after in pairs):
        yield "aggregated"
    if ("group", "by") in pairs:
        yield "grouped"
    if any(word in ("distinct", "distinctrow") for word in words):
        yield "distinct"
    if any(word in ("limit", "fetch") for word in words):
        yield "limited"
    if "over" in words:
        yield "windowed"
    if any(word in COMBINE and (word != "union" or after != "all") for word, after in pairs):
        yield "compared"


def time_function(words: Sequence[str]) -> str | None:
    """The function by which a view asks the time, or a random value."""
    for at, word in enumerate(words):
        # With an argument it only converts that.
        if word in CLOCKS or (word == "unix_timestamp" and list(words[at + 1 : at + 3]) == ["(", ")"]):
            return word
    return None


def select_lists(words: Sequence[str]) -> Iterator[SelectList]:
    whole = [True]
    for at, word in enumerate(words):
        if word == "(":
            whole.append(whole[-1] and (words[at - 1] if at else "") in BEFORE_BRANCH)
        elif word == ")" and len(whole) > 1:
            whole.pop()
        elif word == "select":
            yield SelectList(tuple(_columns(words, at + 1)), whole[-1])


def _columns(words: Sequence[str], at: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    while at < len(words) and words[at] in MODIFIERS:
        at += 1
    expression: list[str] = []
    depth = 0
    for word in words[at:]:
        depth += {"(": 1, ")": -1}.get(word, 0)
        if depth < 0 or (depth == 0 and word in AFTER_COLUMNS):
            break
        if depth == 0 and word == ",":
            yield _column(expression)
            expression = []
        else:
            expression.append(word)
    yield _column(expression)


def _column(expression: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    if len(expression) > 2 and expression[-2] == "as":
        return plain(expression[-1]), tuple(expression[:-2])
    return plain(expression[-1]) if expression else "", tuple(expression)


def _name(expression: Sequence[str]) -> str | None:
    """The column's name, in lower case, where an expression is one: names in backticks with dots between them."""
    names, dots = expression[::2], expression[1::2]
    if not names or len(dots) != len(names) - 1 or any(dot != "." for dot in dots):
        return None
    return plain(names[-1]).lower() if all(name[0] == "`" for name in names) else None
