"""How large a statement becomes when SQLite puts the text of subqueries in the place of their columns.

SQLite replaces a column of a subquery, a common table expression, a view or an alias by its expression. With
`x+x+x+x` over `x+x+x+x`, each level multiplies the one below, and while SQLite prepares, nothing can interrupt it. So
the host estimates the size first, from the tokens, in linear time. The estimate may be too high, but not too low.

SQLite also copies whole conditions: into each SELECT below, and `5` into the place of `x` beside `x = 5`. These copies
take less memory, and ordinary statements have many. So they are estimated apart.

Pure functions over texts. Must not know connections, roles or limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from starbase_host.selects import KEYWORDS, TOKEN_CHARACTERS, Arm, Part, Select, TooManyLevels, read_selects, tokenize

# A larger size is not told apart.
MOST = 1 << 40
_PLAIN_NAME = re.compile(r"[^\W\d][\w$]*+\Z")
_NUMBERED = re.compile(r"column\d++\Z")


class Size(NamedTuple):
    """How large a statement becomes, each at most MOST.

    tokens: once columns are replaced by their expressions.
    copied: tokens of the conditions that SQLite copies besides.
    """

    tokens: int
    copied: int


class Cost(NamedTuple):
    """How many tokens a use of a column becomes.

    value: in the result of a SELECT.
    term: in a condition, which SQLite also pushes down into subqueries that it does not merge.
    each: in the one of these subqueries where it becomes longest.
    leaves: how many columns of tables are in that.
    lone: whether it may be a column of a table and nothing else.
    fixed: whether it may be without a column of a table.
    """

    value: int
    term: int
    each: int = 1
    leaves: int = 1
    lone: bool = True
    fixed: bool = False


class Conditions(NamedTuple):
    """What SQLite copies of the conditions of a query and of all that it reads.

    selects: how many SELECTs they become.
    pushed: tokens that SQLite copies into other SELECTs.
    uses: columns of tables in all conditions, also the copied ones.
    constant: tokens of the longest expression that is equal to a column.
    more: tokens that others can add to it, because they use that column.
    growth: how often it can stand in these.
    """

    selects: int = 0
    pushed: int = 0
    uses: int = 0
    constant: int = 0
    more: int = 0
    growth: int = 1

    def beside(self, other: Conditions, copies: int = 1) -> Conditions:
        """Add those of another query, of which SQLite makes so many copies, and which can use each other's columns."""
        return Conditions(
            min(MOST, self.selects + other.selects * copies),
            min(MOST, self.pushed + other.pushed * copies),
            min(MOST, self.uses + other.uses * copies),
            max(self.constant, other.constant),
            min(MOST, self.more + other.more),
            min(MOST, self.growth * other.growth),
        )

    def apart(self, other: Conditions) -> Conditions:
        """Add those of another arm, which cannot use the columns of this one."""
        more, growth = max(self.more, other.more), max(self.growth, other.growth)
        return self.beside(other)._replace(more=more, growth=growth)

    @property
    def copied(self) -> int:
        constants = (self.constant + self.more) * self.growth * self.uses if self.constant else 0
        return min(MOST, self.pushed + constants)


@dataclass(frozen=True)
class _Table:
    """What a query or view is to the query that reads it.

    columns: name and cost of each.
    copies: how often SQLite repeats the reading query for it.
    size: tokens of all that is in it.
    conditions: those of all that is in it.
    """

    columns: tuple[tuple[str | None, Cost], ...]
    copies: int
    size: int
    conditions: Conditions


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

    def size(self, sql: str) -> Size:
        """Return about how large the statement becomes. Raises TooManyLevels."""
        try:
            table = self._measure(read_selects(sql), (), {})
        except RecursionError:
            raise TooManyLevels from None
        return Size(min(MOST, table.size), table.conditions.copied)

    def view(self, name: str) -> Size:
        """Return the size of a view; nothing for another name. Raises TooManyLevels."""
        try:
            table = self._view(name.lower())
        except RecursionError:
            raise TooManyLevels from None
        if table is None:
            return Size(0, 0)
        columns = sum(cost.value for _, cost in table.columns)
        return Size(min(MOST, table.size + columns), table.conditions.copied)

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
        size, copies, columns, conditions = 0, 0, [], Conditions()
        merges = query.merges and not query.materialized
        for arm in query.arms:
            found, more, repeated, merged, those = self._measure_arm(arm, query.correlated, outer, visible)
            merges = merges and merged
            conditions = conditions.apart(those)
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
            sums = [cost._replace(value=1) for cost in sums]
        return _Table(tuple(zip(names, sums, strict=True)), copies if merges else 1, size, conditions)

    def _measure_arm(
        self, arm: Arm, correlated: bool, outer: tuple[dict[str, Cost], ...], tables: Mapping[str, _Later]
    ) -> tuple[list[tuple[str | None, Cost]], int, int, bool, Conditions]:
        scope: dict[str, Cost] = {}
        size, copies, widths = 0, 1, 0
        below: list[_Table] = []
        width: list[tuple[str | None, Cost]] = []
        anonymous = Cost(1, 1)
        # An UPDATE or a DELETE names its view where no columns are.
        sources = arm.sources if arm.columns else [name for name in arm.rest.names if self._view(name) is not None]
        for source in sources:
            table = self._find(source, outer, tables)
            if isinstance(table, int):
                width += [(None, Cost(1, 1))] * table
                widths += table
                continue
            below.append(table)
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
        windows = [*arm.rest.windows]
        own_windows, columns_size = arm.rest.own_windows, 0
        conditions = Conditions(selects=copies)
        for part in arm.columns:
            if part.star:
                columns += width
                size += sum(cost.value + len(name or "") // TOKEN_CHARACTERS for name, cost in width)
                continue
            cost, more, inner = measure.part(part)
            conditions = conditions.beside(inner._replace(selects=0))
            if correlated:
                conditions = conditions.beside(Conditions(uses=cost.leaves * copies))
            windows += part.windows
            own_windows += part.own_windows
            columns_size += cost.value
            size = min(MOST, size + cost.value + more)
            if part.aggregates and (arm.grouped or not correlated):
                # SQLite does not push a condition further down than into the HAVING here.
                cost = cost._replace(term=cost.value, each=cost.value, leaves=min(cost.leaves, cost.value))
            columns.append((part.alias, cost))
            names = [part.alias] if part.alias is not None else part.names[:4]
            for name in names:
                aliases[name] = _most([cost, aliases[name]]) if name in aliases else cost
        if aliases:
            measure.scopes = (aliases, *measure.scopes)
        rest, more, inner = measure.part(arm.rest)
        conditions = conditions.beside(inner._replace(selects=0)).beside(Conditions(uses=rest.leaves * copies))
        for table in below:
            conditions = conditions.beside(table.conditions, copies // table.copies)
        pushes = conditions.selects - copies
        conditions = conditions.beside(measure.equations(arm.rest)).beside(
            Conditions(pushed=rest.each * pushes, uses=rest.leaves * pushes)
        )
        # For each window, SQLite makes a SELECT within the other ones, and each of them has all columns.
        levels = own_windows + len(set(windows))
        conditions = conditions.beside(Conditions(pushed=min(MOST, levels * (columns_size + rest.value))))
        widest = _most([cost for _, cost in columns]).value
        size += rest.term + more + arm.rest.numbers * widest + len(windows) * (arm.rest.plain + len(arm.rest.names))
        if arm.joins_all_by_name:
            size += widths
        aggregates = not correlated and any(part.aggregates for part in arm.columns)
        merged = bool(arm.sources) and not arm.distinct and not arm.grouped and not aggregates
        return columns, min(MOST, size), copies, merged, conditions

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

    def part(self, part: Part) -> tuple[Cost, int, Conditions]:
        """Return the cost, and the tokens and conditions of the selects in it."""
        value = term = part.plain * self.copies
        each, leaves = part.plain, 0
        costs = self._costs(part)
        for cost in costs:
            value += cost.value * self.times
            term += cost.term * self.times
            each += cost.each * self.times
            leaves += cost.leaves * self.times
        more, conditions = 0, Conditions()
        for query in part.queries:
            table = self.expansion._measure(query, self.scopes, self.tables)
            more += table.size * self.copies
            value, term, each = value + table.size, term + table.size, each + table.size
            conditions = conditions.beside(table.conditions, self.copies)
        lone = len(costs) == 1 and costs[0].lone and not part.plain
        fixed = all(cost.fixed for cost in costs)
        whole = Cost(min(MOST, value), min(MOST, term), min(MOST, each), min(MOST, leaves), lone, fixed)
        return whole, min(MOST, more), conditions

    def equations(self, part: Part) -> Conditions:
        """Return what SQLite may put in the place of columns, because of the equations in a condition."""
        found = Conditions()
        costs = self._costs(part) if part.equations else []
        for plain, first, last in part.equations:
            terms = costs[first:last]
            if not any(cost.lone for cost in terms) or (plain <= 1 and all(cost.lone for cost in terms)):
                # Neither side is a column, or both are.
                continue
            size = min(MOST, plain + sum(cost.each for cost in terms))
            grows = min(MOST, max(1, sum(cost.leaves for cost in terms) - 1))
            if sum(not cost.fixed for cost in terms) <= 1:
                found = found.beside(Conditions(constant=size, growth=grows))
            else:
                found = found.beside(Conditions(more=size, growth=grows))
        return found

    def _costs(self, part: Part) -> list[Cost]:
        return [self._cost(name, index in part.constants) for index, name in enumerate(part.names)]

    def _cost(self, name: str, constant: bool) -> Cost:
        found = [scope[name] for scope in self.scopes if name in scope]
        if not found:
            plain = _PLAIN_NAME.match(name) and not _NUMBERED.match(name)
            return Cost(self.copies, self.copies, fixed=constant) if plain else self.anonymous
        return found[0] if len(found) == 1 else _most(found)


def _sum(costs: Sequence[Cost]) -> Cost:
    value, term = sum(cost.value for cost in costs), sum(cost.term for cost in costs)
    return _most(costs)._replace(value=min(MOST, value), term=min(MOST, term))


def _most(costs: Sequence[Cost]) -> Cost:
    if not costs:
        return Cost(1, 1)
    return Cost(
        max(cost.value for cost in costs),
        max(cost.term for cost in costs),
        max(cost.each for cost in costs),
        max(cost.leaves for cost in costs),
        any(cost.lone for cost in costs),
        any(cost.fixed for cost in costs),
    )
