"""How large a statement becomes when SQLite puts the text of subqueries in the place of their columns.

SQLite replaces a column of a subquery, a common table expression, a view or an alias by its expression. With
`x+x+x+x` over `x+x+x+x`, each level multiplies the one below, and while SQLite prepares, nothing can interrupt it. So
the host estimates the size first, from the tokens, in linear time. The estimate may be too high, but not too low.

Pure functions over texts. Must not know connections, roles or limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

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
# A larger size is not told apart.
MOST = 1 << 40
_ENDS_COLUMNS = frozenset(("where", "group", "having", "order", "limit"))
_SETS = frozenset(("union", "except", "intersect"))
# Words that are not names of columns.
_NOT_NAMES = """
    all and as asc between by case cast collate cross desc distinct else end escape except exists filter following
    from full group having in indexed inner intersect is isnull join left like limit natural not notnull null offset on
    or order outer over partition preceding right rows select then unbounded union using values when where with glob
    regexp match current row range groups exclude ties no others first last nulls materialized recursive window
"""
_WORDS = frozenset(_NOT_NAMES.split())
_COLLECT = """
    avg count group_concat json_group_array json_group_object jsonb_group_array jsonb_group_object string_agg sum total
"""
_AGGREGATES = frozenset(_COLLECT.split())
_PLAIN_NAME = re.compile(r"[^\W\d][\w$]*+\Z")
_NUMBERED = re.compile(r"column\d++\Z")


class TooManyLevels(Exception):
    """Selects are nested in one another more than MOST_NESTED deep."""


class Cost(NamedTuple):
    """How many tokens a use of a column becomes.

    value: in the result of a SELECT.
    term: in a condition, which SQLite also pushes down into subqueries that it does not merge.
    """

    value: int
    term: int


@dataclass
class _Part:
    """Tokens of one clause, or of one column.

    names: the columns that it uses.
    plain: how many other tokens it has.
    queries: the selects in it.
    """

    names: list[str] = field(default_factory=list)
    plain: int = 0
    queries: list[_Query] = field(default_factory=list)
    # Only for a column of the result.
    alias: str | None = None
    star: bool = False
    aggregates: bool = False
    named_windows: int = 0
    # Only for ORDER BY and GROUP BY: how many terms are the number of a column.
    numbers: int = 0


@dataclass
class _Arm:
    """One SELECT between UNION, EXCEPT and INTERSECT."""

    columns: list[_Part] = field(default_factory=list)
    sources: list[str | _Query] = field(default_factory=list)
    rest: _Part = field(default_factory=_Part)
    distinct: bool = False
    grouped: bool = False
    joins_all_by_name: bool = False
    values: bool = False


@dataclass
class _Query:
    """A SELECT with its WITH and all its arms.

    correlated: whether it stands in an expression, or in a query there: its aggregates may be those of an outer query.
    """

    correlated: bool = False
    tables: dict[str, _Query] = field(default_factory=dict)
    names: list[str] | None = None
    materialized: bool = False
    arms: list[_Arm] = field(default_factory=lambda: [_Arm()])
    merges: bool = True


@dataclass(frozen=True)
class _Table:
    """What a query or view is to the query that reads it.

    columns: name and cost of each.
    copies: how often SQLite repeats the reading query for it.
    size: tokens of all that is in it.
    """

    columns: tuple[tuple[str | None, Cost], ...]
    copies: int
    size: int


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view of the schema.

    width: how many columns it may have.
    definition: the text of a view; None for a table.
    """

    width: int
    definition: str | None = None


def relation(sql: str | None, *, view: bool) -> Relation:
    """Return the relation that a definition in the schema makes."""
    return Relation((sql or "").count(",") + 1, sql if view else None)


def generated_size(sql: str) -> int:
    """Return how many tokens the largest generated column of a CREATE TABLE becomes; SQLite expands them in turn."""
    columns = dict(_generated_columns(_tokens(sql)))
    sizes: dict[str, int] = {}
    # Each pass finds the columns whose names are known: in the order of a chain, or the other way round.
    for order in (list(columns), list(reversed(columns))) * 2:
        for name in order:
            names, plain = columns[name]
            sizes[name] = min(MOST, plain + sum(sizes.get(each, 1) for each in names))
    return max(sizes.values(), default=0)


def _generated_columns(tokens: list[tuple[str, str]]) -> Iterator[tuple[str, tuple[list[str], int]]]:
    """Yield each generated column of a CREATE TABLE, with the names in it and the number of its other tokens."""
    depth, name, begins = 0, "", False
    names: list[str] | None = None
    plain = 0
    for before, (kind, word) in zip([("mark", ""), *tokens], tokens, strict=False):
        if (kind, word) == ("mark", "("):
            depth += 1
            begins = begins or depth == 1
            if depth == 2 and before == ("word", "as"):
                names, plain = [], 0
        elif (kind, word) == ("mark", ")"):
            if depth == 2 and names is not None:
                yield name, (names, plain)
                names = None
            depth -= 1
        elif depth == 1 and (kind, word) == ("mark", ","):
            begins = True
        elif depth == 1 and begins and kind in ("word", "quoted", "text"):
            name, begins = word, False
        elif names is not None and (kind == "quoted" or (kind == "word" and word not in _WORDS)):
            names.append(word)
        elif names is not None:
            plain += 1


class Expansion:
    """Estimates sizes of statements over one schema.

    schema: its tables and views by name, in lowercase.
    """

    def __init__(self, schema: Mapping[str, Relation]) -> None:
        self._schema = schema
        self._view_names = tuple(name for name, known in schema.items() if known.definition is not None)
        self._views: dict[str, _Table | None] = {}

    def size(self, sql: str) -> int:
        """Return about how many tokens the statement becomes, at most MOST. Raises TooManyLevels."""
        try:
            query = _read(sql)
            return min(MOST, self._measure(query, (), {}).size)
        except RecursionError:
            raise TooManyLevels from None

    def view(self, name: str) -> int:
        """Return the size of a view; 0 for another name. Raises TooManyLevels."""
        try:
            table = self._view(name.lower())
        except RecursionError:
            raise TooManyLevels from None
        return 0 if table is None else min(MOST, table.size + sum(cost.value for _, cost in table.columns))

    def mentions_view(self, sql: str) -> bool:
        """Whether a text may contain the name of a view."""
        folded = sql.lower()
        return any(name in folded for name in self._view_names)

    def _view(self, name: str) -> _Table | None:
        known = self._schema.get(name)
        if known is None or known.definition is None:
            return None
        if name not in self._views:
            # A view that reads itself, which SQLite refuses.
            self._views[name] = None
            self._views[name] = self._measure(_read(known.definition), (), {})
        return self._views[name]

    def _measure(self, query: _Query, outer: tuple[dict[str, Cost], ...], tables: Mapping[str, _Later]) -> _Table:
        visible = dict(tables)
        for name, inner in query.tables.items():
            visible[name] = _Later(inner, outer, visible)
        size, copies, columns = 0, 0, []
        merges = query.merges and not query.materialized
        for arm in query.arms:
            found, more, repeated, merged = self._measure_arm(arm, query.correlated, outer, visible)
            merges = merges and merged
            size, copies = min(MOST, size + more), min(MOST, copies + repeated)
            columns.append(found)
        names = [name for name, _ in columns[0]] if query.names is None else query.names
        if len({len(each) for each in columns}) == 1 and len(names) == len(columns[0]):
            sums = [_sum(costs) for costs in zip(*([cost for _, cost in each] for each in columns), strict=True)]
        else:
            widest = _sum([_most([cost for _, cost in each]) for each in columns])
            sums = [widest] * len(names)
        if query.materialized:
            sums = [Cost(1, 1)] * len(names)
        elif not merges:
            sums = [Cost(1, term) for _, term in sums]
        return _Table(tuple(zip(names, sums, strict=True)), copies if merges else 1, size)

    def _measure_arm(
        self, arm: _Arm, correlated: bool, outer: tuple[dict[str, Cost], ...], tables: Mapping[str, _Later]
    ) -> tuple[list[tuple[str | None, Cost]], int, int, bool]:
        scope: dict[str, Cost] = {}
        size, copies, widths = 0, 1, 0
        width: list[tuple[str | None, Cost]] = []
        anonymous = Cost(1, 1)
        for source in arm.sources:
            table = self._find(source, outer, tables)
            if isinstance(table, int):
                width += [(None, Cost(1, 1))] * table
                widths += table
                continue
            size, copies = min(MOST, size + table.size), min(MOST, copies * table.copies)
            width += table.columns
            widths += len(table.columns)
            anonymous = _most([anonymous, *(cost for _, cost in table.columns)])
            for name, cost in table.columns:
                if name is not None:
                    scope[name] = _most([cost, scope[name]]) if name in scope else cost
        scopes = (scope, *outer) if scope else outer
        # A RIGHT or FULL JOIN by name reads each column from all tables.
        times = len(arm.sources) if arm.joins_all_by_name else 1
        measure = _Measure(self, scopes, tables, anonymous, times, copies)
        columns: list[tuple[str | None, Cost]] = []
        aliases: dict[str, Cost] = {}
        windows = 0
        for part in arm.columns:
            if part.star:
                columns += width
                size += sum(cost.value for _, cost in width)
                continue
            value, term, more = measure.part(part)
            windows += part.named_windows
            size = min(MOST, size + value + more)
            if part.aggregates and (arm.grouped or not correlated):
                term = value
            cost = Cost(min(MOST, value), min(MOST, term))
            columns.append((part.alias, cost))
            names = [part.alias] if part.alias is not None else part.names[:4]
            for name in names:
                aliases[name] = _most([cost, aliases[name]]) if name in aliases else cost
        if aliases:
            measure.scopes = (aliases, *measure.scopes)
        _, term, more = measure.part(arm.rest)
        widest = _most([cost for _, cost in columns]).value
        size += term + more + arm.rest.numbers * widest + windows * (arm.rest.plain + len(arm.rest.names))
        if arm.joins_all_by_name:
            size += widths
        aggregates = not correlated and any(part.aggregates for part in arm.columns)
        merged = bool(arm.sources) and not arm.distinct and not arm.grouped and not aggregates
        return columns, min(MOST, size), copies, merged

    def _find(
        self, source: str | _Query, outer: tuple[dict[str, Cost], ...], tables: Mapping[str, _Later]
    ) -> _Table | int:
        if isinstance(source, _Query):
            return self._measure(source, outer, tables)
        later = tables.get(source)
        if later is not None:
            return later.table(self)
        view = self._view(source)
        if view is not None:
            return view
        known = self._schema.get(source)
        return known.width if known is not None else 10


class _Later:
    """A common table expression, measured when a query first reads it."""

    def __init__(self, query: _Query, outer: tuple[dict[str, Cost], ...], tables: Mapping[str, _Later]) -> None:
        self._query, self._outer, self._tables = query, outer, tables
        self._table: _Table | None = None
        self._begun = False

    def table(self, expansion: Expansion) -> _Table | int:
        if self._table is None:
            if self._begun:
                # It reads itself; SQLite does not merge it then.
                self._query.merges = False
                return 10
            self._begun = True
            self._table = expansion._measure(self._query, self._outer, self._tables)
        return self._table


@dataclass
class _Measure:
    """Measures the parts of one arm."""

    expansion: Expansion
    scopes: tuple[dict[str, Cost], ...]
    tables: Mapping[str, _Later]
    anonymous: Cost
    times: int
    copies: int

    def part(self, part: _Part) -> tuple[int, int, int]:
        """Return the tokens as a value and as a term, and those of the selects in it."""
        value = term = part.plain * self.copies
        for name in part.names:
            cost = self._cost(name)
            value += cost.value * self.times
            term += cost.term * self.times
        more = 0
        for query in part.queries:
            size = self.expansion._measure(query, self.scopes, self.tables).size
            more += size * self.copies
            value, term = value + size, term + size
        return min(MOST, value), min(MOST, term), min(MOST, more)

    def _cost(self, name: str) -> Cost:
        found = [scope[name] for scope in self.scopes if name in scope]
        if not found:
            plain = _PLAIN_NAME.match(name) and not _NUMBERED.match(name)
            return Cost(self.copies, self.copies) if plain else self.anonymous
        return found[0] if len(found) == 1 else _most(found)


def _sum(costs: list[Cost] | tuple[Cost, ...]) -> Cost:
    return Cost(min(MOST, sum(cost.value for cost in costs)), min(MOST, sum(cost.term for cost in costs)))


def _most(costs: list[Cost]) -> Cost:
    if not costs:
        return Cost(1, 1)
    return Cost(max(cost.value for cost in costs), max(cost.term for cost in costs))


class _Frame:
    """A query that is being read: which clause of which arm, and how many plain brackets are open in it."""

    def __init__(self, query: _Query) -> None:
        self.query = query
        self.clause = "before"
        self.brackets: list[str] = []
        self.source_next = False
        self.by = False

    @property
    def arm(self) -> _Arm:
        return self.query.arms[-1]

    @property
    def part(self) -> _Part:
        return self.arm.columns[-1] if self.clause == "columns" else self.arm.rest


def _read(sql: str) -> _Query:
    """Read all selects of a statement into one query, whose first arm is what stands around them."""
    tokens = _tokens(sql)
    top = _Query()
    frames = [_Frame(top)]
    at, count = 0, len(tokens)
    while at < count:
        kind, word = tokens[at]
        following = tokens[at + 1] if at + 1 < count else ("mark", ";")
        frame = frames[-1]
        at += 1
        if kind == "mark" and word == "(":
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
                frames.pop()
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


def _begin_query(frame: _Frame) -> _Query:
    """Begin a select in brackets: a source, or a part of an expression."""
    if frame.source_next and frame.brackets[-1:] != ["plain"]:
        query = _Query(correlated=frame.query.correlated)
        frame.arm.sources.append(query)
        return query
    query = _Query(correlated=True)
    frame.part.queries.append(query)
    return query


def _begin_arm(frame: _Frame, word: str) -> None:
    if frame.clause not in ("before", "with"):
        frame.query.arms.append(_Arm())
    frame.clause, frame.source_next, frame.by = "columns", False, False
    frame.arm.columns.append(_Part())
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
    query = _Query(correlated=frame.query.correlated, names=names, materialized=materialized)
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
        arm.columns.append(_Part())
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
    if kind == "mark" and word == "*" and frame.clause == "columns" and not frame.brackets:
        ends = following in (("mark", ","), ("mark", ";"), ("mark", ")")) or following == ("word", "from")
        begins = before in (("mark", ","), ("mark", "."), ("word", "select"), ("word", "distinct"), ("word", "all"))
        part.star = part.star or (begins and ends)
    elif kind == "number" and frame.by and not frame.brackets:
        begins = before in (("mark", ","), ("word", "by"))
        part.numbers += begins
    if kind == "word" and following == ("mark", "("):
        part.aggregates = part.aggregates or word in _AGGREGATES
        part.plain += 1
    elif following == ("mark", "."):
        return
    elif kind == "word" and word == "over":
        part.named_windows += 1
        part.plain += 1
    elif kind == "quoted" or (kind == "word" and word not in _WORDS):
        part.names.append(word)
        if frame.clause == "columns" and not frame.brackets and _ends_column(following):
            # `x`, `t.x`, and an alias without AS; an alias counts as one token more.
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


def _tokens(sql: str) -> list[tuple[str, str]]:
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
