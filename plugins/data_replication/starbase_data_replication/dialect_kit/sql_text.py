"""A plan as SQL, for sources that speak a SQL of their own. Must not know a driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starbase_data_replication.dialect_kit.row_plan import RowPlan
from starbase_data_replication.model import Column, TableName
from starbase_data_replication.sources import Syntax, bracketed


def quoted(name: str) -> str:
    """A name in double quotes, as standard SQL has it."""
    return '"' + name.replace('"', '""') + '"'


class SqlText:
    """The statements of one kind of source.

    quote: makes an identifier of a name.
    mark: what stands for a bound value; `{}` in it is the number of the value, from 1: `?`, `%s`, `${}`, `:{}`.
    """

    def __init__(self, *, quote: Callable[[str], str] = quoted, mark: str = "?") -> None:
        self._quote = quote
        self._mark = mark

    def table(self, table: TableName) -> str:
        """A table's name, with its schema if it has one."""
        return ".".join(self._quote(part) for part in (table.schema, table.name) if part)

    def conditions(self, plan: RowPlan) -> tuple[str, list[Any]]:
        """The condition of a plan, ` WHERE …` or nothing, and the values to bind.

        Without the user's filter where `plan.left_filter` asks for rows that do not fit it: see `select`. Raises
        SourceRejected, naming `where`, for a filter that not all servers read alike.
        """
        schema, values, found = plan.schema, list[Any](), list[str]()
        tracking = self._quote(schema.tracking_column)
        if schema.where is not None and not plan.left_filter:
            found.append(self._filter(schema.where))
        if plan.floor is not None:
            above = f"{tracking} > {self._bind(values, plan.floor)}"
            found.append(f"({above} OR {tracking} IS NULL)" if plan.nulls else above)
        elif not plan.nulls:
            found.append(f"{tracking} IS NOT NULL")
        if plan.after_key is not None:
            found.append(self._above(schema.key, plan.after_key, values))
        if plan.keys is not None:
            found.append(self._among(schema.key, plan.keys, values))
        return (f" WHERE {' AND '.join(found)}" if found else ""), values

    def select(self, plan: RowPlan) -> tuple[str, list[Any]]:
        """The SELECT that reads the rows of a plan by their `Cast.select`, and the values to bind. Raises as
        `conditions`, which use the bare columns."""
        schema = plan.schema
        where, values = self.conditions(plan)
        columns = [self._selected(column) for column in schema.columns]
        order = f" ORDER BY {', '.join(map(self._quote, schema.key))}" if plan.in_key_order and schema.key else ""
        if not plan.left_filter or schema.where is None:
            return f"SELECT {', '.join(columns)} FROM {self.table(schema.table)}{where}{order}", values
        tracking, wanted = self._quote(schema.tracking_column), self._filter(schema.where)
        # A row without a tracking value may have left the filter long ago, and would be read at each sync.
        fits = f"CASE WHEN {wanted} THEN 1 WHEN {tracking} IS NULL THEN NULL ELSE 0 END"
        named = [f"{column} AS c{number}" for number, column in enumerate((*columns, fits))]
        inner = f"SELECT {', '.join(named)} FROM {self.table(schema.table)}{where}"
        return f"SELECT * FROM ({inner}) AS t WHERE c{len(columns)} IS NOT NULL", values

    def highest(self, table: TableName, column: str) -> str:
        """The SELECT of a column's highest value: one row, NULL where there is none. Without its `Cast.select`."""
        return f"SELECT max({self._quote(column)}) FROM {self.table(table)}"

    def _filter(self, where: str) -> str:
        text = bracketed(where, Syntax.STANDARD)
        # A driver that formats values into the statement takes a % of the user's for the beginning of one.
        return text.replace("%", "%%") if "%" in self._mark else text

    def _selected(self, column: Column) -> str:
        return column.cast.select.replace("{}", self._quote(column.name))

    def _bind(self, values: list[Any], value: Any) -> str:
        values.append(value)
        return self._mark.replace("{}", str(len(values)))

    def _above(self, names: Sequence[str], key: Sequence[Any], values: list[Any]) -> str:
        """`(a, b) > (x, y)`, for servers without comparisons of rows: a > x OR a = x AND b > y."""
        found = []
        for at in range(len(names)):
            same = [f"{self._quote(name)} = {self._bind(values, key[i])}" for i, name in enumerate(names[:at])]
            found.append(" AND ".join([*same, f"{self._quote(names[at])} > {self._bind(values, key[at])}"]))
        return f"({' OR '.join(found)})"

    def _among(self, names: Sequence[str], keys: Sequence[Sequence[Any]], values: list[Any]) -> str:
        if not keys:
            return "1 = 0"
        if len(names) == 1:
            return f"{self._quote(names[0])} IN ({', '.join(self._bind(values, key[0]) for key in keys)})"
        each = (
            " AND ".join(f"{self._quote(name)} = {self._bind(values, key[at])}" for at, name in enumerate(names))
            for key in keys
        )
        return f"({' OR '.join(f'({one})' for one in each)})"
