"""The selects of a statement: their columns, their sources, and the names that each part uses.

Reads tokens once, in linear time, and takes SQL for what it may be. Pure functions over texts. Must not know what a
select costs, nor the schema.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from starbase_host.conditions import Equation, Equations

# An unclosed token ends at the end of the text, and nothing backtracks.
_TOKEN = re.compile(
    r"""
    \s++ | --[^\n]*+ | /\*.*?(?:\*/|\Z)
    | (?P<text>[xX]?'(?:[^']++|'')*+(?:'|\Z))
    | "(?P<a>(?:[^"]++|"")*+)(?:"|\Z) | `(?P<b>(?:[^`]++|``)*+)(?:`|\Z) | \[(?P<c>[^\]]*+)(?:\]|\Z)
    | (?P<number>\d[\w.]*+) | (?P<word>[^\W\d][\w$]*+) | [?:@$#]\w*+ | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)
# More selects within one another are refused, so that reading them never exceeds Python's stack.
MOST_NESTED = 100
_ENDS_COLUMNS = frozenset(("where", "group", "having", "order", "limit"))
_SETS = frozenset(("union", "except", "intersect"))
# Words that are not names of columns.
_NOT_NAMES = """
    all and as asc between by case cast collate cross desc distinct else end escape except exists filter following
    from full group having in indexed inner intersect is isnull join left like limit natural not notnull null offset on
    or order outer over partition preceding right rows select then unbounded union using values when where with glob
    regexp match current row range groups exclude ties no others first last nulls materialized recursive window
"""
KEYWORDS = frozenset(_NOT_NAMES.split())
_COLLECT = """
    avg count group_concat json_group_array json_group_object jsonb_group_array jsonb_group_object string_agg sum total
"""
_AGGREGATES = frozenset(_COLLECT.split())
# What an expression may end with besides names and values.
_LAST = frozenset((")", "end", "null", "isnull", "notnull"))
# Values that look like names. A name in quotes may be a value too: SQLite takes it for a text if no column has it.
_CONSTANTS = frozenset(("true", "false", "current_date", "current_time", "current_timestamp"))
# Each further piece of this many characters counts as a token: SQLite copies the text of a token with it.
TOKEN_CHARACTERS = 32


class TooManyLevels(Exception):
    """Selects are nested in one another more than MOST_NESTED deep."""


@dataclass
class Part:
    """Tokens of one clause, or of one column.

    names: the columns that it uses.
    constants: which of them may be constants instead.
    plain: how many other tokens it has.
    queries: the selects in it.
    equations: those of a condition.
    """

    names: list[str] = field(default_factory=list)
    plain: int = 0
    queries: list[Select] = field(default_factory=list)
    constants: set[int] = field(default_factory=set)
    equations: list[Equation] = field(default_factory=list)
    # Only for a column of the result.
    alias: str | None = None
    star: bool = False
    aggregates: bool = False
    # The windows that it names, and how many it defines itself.
    windows: list[str] = field(default_factory=list)
    own_windows: int = 0
    # Only for ORDER BY and GROUP BY: how many terms are the number of a column.
    numbers: int = 0


@dataclass
class Arm:
    """One SELECT between UNION, EXCEPT and INTERSECT.

    columns: those of its result.
    sources: the tables, by their names, and the selects that it reads from.
    rest: what is neither in its columns nor a source.
    distinct, grouped: whether it says DISTINCT, and GROUP BY.
    joins_all_by_name: whether it says NATURAL.
    values: whether it is a VALUES.
    """

    columns: list[Part] = field(default_factory=list)
    sources: list[str | Select] = field(default_factory=list)
    rest: Part = field(default_factory=Part)
    distinct: bool = False
    grouped: bool = False
    joins_all_by_name: bool = False
    values: bool = False


@dataclass
class Select:
    """A SELECT with its WITH and all its arms.

    correlated: whether it stands in an expression, or in a query there: its aggregates may be those of an outer query.
    """

    correlated: bool = False
    tables: dict[str, Select] = field(default_factory=dict)
    names: list[str] | None = None
    materialized: bool = False
    arms: list[Arm] = field(default_factory=lambda: [Arm()])
    merges: bool = True


class _Frame:
    """A query that is being read: which clause of which arm, and how many plain brackets are open in it."""

    def __init__(self, query: Select) -> None:
        self.query = query
        self.clause = "before"
        self.brackets: list[str] = []
        self.source_next = False
        self.by = False
        # Before a SELECT stand the conditions of UPDATE and DELETE, but also what a CREATE declares.
        self.equations = Equations(self.arm.rest, counts=False)

    @property
    def arm(self) -> Arm:
        return self.query.arms[-1]

    @property
    def part(self) -> Part:
        return self.arm.columns[-1] if self.clause == "columns" else self.arm.rest


def read_selects(sql: str) -> Select:
    """Read all selects of a statement into one query, whose first arm is what stands around them."""
    tokens = tokenize(sql)
    top = Select()
    frames = [_Frame(top)]
    at, count = 0, len(tokens)
    while at < count:
        kind, word = tokens[at]
        following = tokens[at + 1] if at + 1 < count else ("mark", ";")
        frame = frames[-1]
        at += 1
        begins = (kind, word) == ("mark", "(")
        if frame.clause not in ("columns", "with") and not (begins and _begins_query(tokens, at)):
            frame.equations.read(kind, word)
        if begins:
            if _begins_query(tokens, at):
                query = _begin_query(frame)
                if len(frames) > MOST_NESTED:
                    raise TooManyLevels
                frames.append(_Frame(query))
            else:
                frame.brackets.append("group" if frame.source_next else "plain")
                frame.part.plain += 0 if frame.source_next else 1
        elif kind == "mark" and word == ")":
            if frame.brackets:
                frame.brackets.pop()
            elif len(frames) > 1:
                frames.pop().equations.end()
                frames[-1].source_next = False
        elif kind == "word" and frame.clause == "with" and not frame.brackets:
            if word not in ("select", "values"):
                at = _read_common_table(tokens, at - 1, frame, frames)
            else:
                _begin_arm(frame, word)
        elif frame.brackets[-1:] == ["plain"]:
            _take(frame, kind, word, following, tokens, at)
        elif kind == "word" and (frame.clause != "columns" or word != "from" or not _is_distinct_from(tokens, at)):
            at = _read_word(frame, word, following, tokens, at)
        else:
            at = _read_other(frame, kind, word, following, tokens, at)
    for frame in frames:
        frame.equations.end()
    return top


def _begins_query(tokens: list[tuple[str, str]], at: int) -> bool:
    if at >= len(tokens) or tokens[at][0] != "word":
        return False
    if tokens[at][1] in ("select", "values"):
        return True
    return tokens[at][1] == "with" and _begins_with(tokens, at + 1)


def _begins_with(tokens: list[tuple[str, str]], at: int) -> bool:
    """Whether common table expressions follow: `with` may also be the name of a column."""
    if at < len(tokens) and tokens[at] == ("word", "recursive"):
        at += 1
    if at + 1 >= len(tokens) or tokens[at][0] not in ("word", "quoted"):
        return False
    if tokens[at][0] == "word" and tokens[at][1] in ("in", "and", "or", "not"):
        return False
    return tokens[at + 1] in (("word", "as"), ("mark", "("))


def _begin_query(frame: _Frame) -> Select:
    """Begin a select in brackets: a source, or a part of an expression."""
    if frame.source_next and frame.brackets[-1:] != ["plain"]:
        query = Select(correlated=frame.query.correlated)
        frame.arm.sources.append(query)
        return query
    query = Select(correlated=True)
    frame.part.queries.append(query)
    return query


def _begin_arm(frame: _Frame, word: str) -> None:
    if frame.clause not in ("before", "with"):
        frame.query.arms.append(Arm())
    frame.clause, frame.source_next, frame.by = "columns", False, False
    frame.arm.columns.append(Part())
    frame.equations.end()
    frame.equations = Equations(frame.arm.rest, counts=True)
    frame.arm.values = word == "values"


def _read_common_table(tokens: list[tuple[str, str]], at: int, frame: _Frame, frames: list[_Frame]) -> int:
    """Read `name (columns) AS MATERIALIZED (`, and begin its query; return where it begins."""
    if tokens[at] == ("word", "recursive") or tokens[at][0] not in ("word", "quoted"):
        return at + 1
    name = tokens[at][1]
    names: list[str] | None = None
    at += 1
    if tokens[at : at + 1] == [("mark", "(")]:
        names = []
        at += 1
        while at < len(tokens) and tokens[at] != ("mark", ")"):
            if tokens[at][0] != "mark":
                names.append(tokens[at][1])
            at += 1
        at += 1
    hints = [word for _, word in tokens[at : at + 3]]
    if hints[:1] != ["as"]:
        return at
    at += 1
    materialized = hints[1:2] == ["materialized"]
    while tokens[at : at + 1] in ([("word", "not")], [("word", "materialized")]):
        at += 1
    if tokens[at : at + 1] != [("mark", "(")]:
        return at
    query = Select(correlated=frame.query.correlated, names=names, materialized=materialized)
    frame.query.tables[name] = query
    if len(frames) > MOST_NESTED:
        raise TooManyLevels
    frames.append(_Frame(query))
    return at + 1


def _is_distinct_from(tokens: list[tuple[str, str]], at: int) -> bool:
    return at >= 2 and tokens[at - 2] == ("word", "distinct")


def _read_word(frame: _Frame, word: str, following: tuple[str, str], tokens: list[tuple[str, str]], at: int) -> int:
    """Read a word outside of all brackets; return where to go on."""
    arm = frame.arm
    if word == "with" and frame.clause == "before" and _begins_with(tokens, at):
        frame.clause = "with"
    elif word in ("select", "values"):
        _begin_arm(frame, word)
    elif word in _SETS and frame.clause != "before":
        if (word, following) != ("union", ("word", "all")):
            frame.query.merges = False
    elif frame.clause == "before":
        # Before a SELECT, and in statements without one.
        _take(frame, "word", word, following, tokens, at)
    elif word in ("distinct", "all") and frame.clause == "columns" and tokens[at - 2] == ("word", "select"):
        arm.distinct = word == "distinct"
    elif word == "from" and frame.clause == "columns":
        frame.clause, frame.source_next = "from", True
    elif word in _ENDS_COLUMNS:
        frame.clause, frame.source_next = "rest", False
        frame.by = word in ("group", "order")
        arm.grouped = arm.grouped or word == "group"
        arm.rest.plain += 1
    elif frame.clause == "from" and word in ("join", "natural", "full", "right", "left", "inner", "cross", "outer"):
        frame.source_next = True
        if word in ("full", "right"):
            arm.joins_all_by_name = True
    else:
        return _read_other(frame, "word", word, following, tokens, at)
    return at


def _read_other(
    frame: _Frame, kind: str, word: str, following: tuple[str, str], tokens: list[tuple[str, str]], at: int
) -> int:
    """Read a token outside of plain brackets that does not begin a clause; return where to go on."""
    arm = frame.arm
    if frame.clause == "from" and (kind, word) == ("mark", ","):
        frame.source_next = True
    elif frame.clause == "from" and frame.source_next and (kind in ("word", "quoted", "text")):
        frame.source_next = False
        if following == ("mark", ".") and at + 1 < len(tokens):
            word = tokens[at + 1][1]
            at += 2
        arm.sources.append(word)
    elif frame.clause == "columns" and (kind, word) == ("mark", ","):
        arm.columns.append(Part())
    elif frame.clause == "columns" and (kind, word) == ("word", "as"):
        if following[0] != "mark":
            frame.part.alias = following[1]
            at += 1
    else:
        _take(frame, kind, word, following, tokens, at)
    return at


def _take(
    frame: _Frame, kind: str, word: str, following: tuple[str, str], tokens: list[tuple[str, str]], at: int
) -> None:
    """Count a token of an expression."""
    part = frame.part
    before = tokens[at - 2] if at >= 2 else ("mark", ";")
    part.plain += len(word) // TOKEN_CHARACTERS
    if kind == "mark" and word == "*" and frame.clause == "columns" and not frame.brackets:
        ends = following in (("mark", ","), ("mark", ";"), ("mark", ")")) or following == ("word", "from")
        begins = before in (("mark", ","), ("mark", "."), ("word", "select"), ("word", "distinct"), ("word", "all"))
        part.star = part.star or (begins and ends)
    elif kind == "number" and frame.by and not frame.brackets:
        begins = before in (("mark", ","), ("word", "by"))
        part.numbers += begins
    if kind == "word" and following == ("mark", "("):
        part.aggregates = part.aggregates or word in _AGGREGATES
        part.own_windows += word == "over"
        part.plain += 1
    elif following == ("mark", "."):
        return
    elif kind == "word" and word == "over":
        part.windows.append(following[1])
        part.plain += 1
    elif kind == "quoted" or (kind == "word" and word not in KEYWORDS):
        ends = frame.clause == "columns" and not frame.brackets and _ends_column(following)
        if ends and _ends_expression(before):
            # An alias without AS.
            part.alias = word
            return
        if word in _CONSTANTS or (kind == "quoted" and before != ("mark", ".")):
            part.constants.add(len(part.names))
        part.names.append(word)
        if ends:
            # `x` and `t.x`.
            part.alias = word if part.alias is None else part.alias
    elif kind == "text":
        part.plain += 1
        if frame.clause == "columns" and not frame.brackets and _ends_column(following) and before[1] != ",":
            part.alias = word
    else:
        part.plain += 1


def _ends_column(following: tuple[str, str]) -> bool:
    return following in (("mark", ","), ("mark", ";"), ("mark", ")"), ("word", "from"), ("word", "union")) or (
        following[0] == "word" and following[1] in _ENDS_COLUMNS
    )


def _ends_expression(token: tuple[str, str]) -> bool:
    kind, word = token
    return kind not in ("word", "mark") or word in _LAST or (kind == "word" and word not in KEYWORDS)


def tokenize(sql: str) -> list[tuple[str, str]]:
    """Return the tokens, each as its kind (word, quoted, text, number, mark or other) and its text in lower case."""
    found: list[tuple[str, str]] = []
    for match in _TOKEN.finditer(sql):
        group = match.lastgroup
        if group is None:
            if match.group()[:1] in "?:@$#":
                found.append(("other", "?"))
        elif group == "word":
            found.append(("word", match.group().lower()))
        elif group == "mark":
            found.append(("mark", match.group()))
        elif group == "number":
            found.append(("number", match.group()))
        elif group == "text":
            found.append(("text", match.group()[1:-1].lower()))
        else:
            quote = match.group()[0]
            name = match.group(group).lower()
            found.append(("quoted", name.replace(quote * 2, quote)))
    return found
