"""What the text of a view says of its rows and its columns, as the server has written it: each name in backticks, each
column with its alias. Pure functions. Must not know what follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

# Strings, names in backticks, words, and whatever else stands by itself. A string goes on past a doubled quote. Whoever
# answers for the server writes these texts: what is not closed goes to the end, and nothing is read twice.
TOKEN = re.compile(r"'(?:[^'\\]++|\\.?|'')*+(?:'|\Z)|`(?:[^`]++|``)*+(?:`|\Z)|[^\W\d]\w*+|\d\w*+|\S", re.DOTALL)
# A longer text is not taken apart, nor one whose SELECTs, each with all that may follow it, come to more: that would
# hold up others.
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
# What answers otherwise at another time.
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
# What a list of columns ends before, outside of its brackets.
AFTER_COLUMNS = frozenset(
    {"from", "where", "group", "having", "order", "limit", "union", "intersect", "except", "fetch"}
)
# What stands before the brackets around one whole SELECT of several.
BEFORE_BRANCH = frozenset({"", "(", *COMBINE, "all", "distinct"})


class SelectList(NamedTuple):
    """The columns of one SELECT: of each its alias, and what it is. whole: it is the view's own, or one of those that
    the view puts under each other."""

    columns: tuple[tuple[str, tuple[str, ...]], ...]
    whole: bool


def is_readable(text: str) -> bool:
    """Whether a text is short enough to be taken apart."""
    return len(text) <= LONGEST_TEXT and len(text) * text.lower().count("select") <= MOST_FOLLOWING


def words_of(text: str) -> list[str]:
    return [token if token[0] in "`'" else token.lower() for token in TOKEN.findall(text)]


def plain(word: str) -> str:
    return word[1:-1].replace("``", "`") if word[0] == "`" else word


def origin(words: Sequence[str], at: int) -> str | None:
    """The column of the table below that a view's column is, by its name there; None for one that an expression makes,
    or that cannot be traced. at: the column's place in the view, from 0: a view may call it otherwise than its text."""
    lists = list(select_lists(words))
    own = [each for each in lists if each.whole]
    inner: dict[str, list[tuple[str, ...]]] = {}
    for alias, expression in (pair for each in lists if not each.whole for pair in each.columns):
        inner.setdefault(alias.lower(), []).append(expression)
    combined = sum(word in COMBINE for word in words)
    # A name before brackets is that of a function, or of something that gives its columns other names.
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
        # What is called so in a SELECT within this one is followed further down.
        below = inner.get(name, [])
        if not below or any(_name(expression) == name for expression in below):
            found.add(name)
        made += below
    return found.pop() if len(found) == 1 else None


def picked(words: Sequence[str]) -> Iterator[str]:
    """What a view does with the rows that it reads, so that which it shows may change with others: names of PICKED."""
    pairs = list(zip(words, [*words[1:], ""], strict=True))
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


def clock(words: Sequence[str]) -> str | None:
    """The function by which a view asks the time, or chance."""
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
