"""How large a statement becomes when SQLite puts the text of subqueries in the place of their columns.

SQLite replaces a column of a subquery, a common table expression, a view or an alias by its expression. With
`x+x+x+x` over `x+x+x+x`, each level multiplies the one below, and while SQLite prepares, nothing can interrupt it. So
the host estimates the size first, from the tokens, in linear time. The estimate may be too high, but not too low.

Pure functions over texts. Must not know connections, roles or limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from starbase_host.selects import KEYWORDS, Arm, Part, Select, TooManyLevels, read_selects, tokenize

# A larger size is not told apart.
MOST = 1 << 40
_PLAIN_NAME = re.compile(r"[^\W\d][\w$]*+\Z")
_NUMBERED = re.compile(r"column\d++\Z")


class Cost(NamedTuple):
    """How many tokens a use of a column becomes.

    value: in the result of a SELECT.
    term: in a condition, which SQLite also pushes down into subqueries that it does not merge.
    """

    value: int
    term: int


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
    columns = dict(_generated_columns(tokenize(sql)))
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
        elif names is not None and (kind == "quoted" or (kind == "word" and word not in KEYWORDS)):
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
            query = read_selects(sql)
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
            self._views[name] = self._measure(read_selects(known.definition), (), {})
        return self._views[name]

    def _measure(self, query: Select, outer: tuple[dict[str, Cost], ...], tables: Mapping[str, _Later]) -> _Table:
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
        self, arm: Arm, correlated: bool, outer: tuple[dict[str, Cost], ...], tables: Mapping[str, _Later]
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
        self, source: str | Select, outer: tuple[dict[str, Cost], ...], tables: Mapping[str, _Later]
    ) -> _Table | int:
        if isinstance(source, Select):
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

    def __init__(self, query: Select, outer: tuple[dict[str, Cost], ...], tables: Mapping[str, _Later]) -> None:
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

    def part(self, part: Part) -> tuple[int, int, int]:
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
