"""The rows of a replica that the shadow beside it lacks: finds them piece by piece, counts them, and copies them.

Functions of an APSW connection, on these two tables only. Must not know why a row is missing, nor what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import apsw

from starbase_data_replication.model import NO_AFFINITY, Cast, Former, TableSchema, whole_or_text
from starbase_data_replication.storage.sqlite_tables import ExistingColumn, columns_of
from starbase_host import fold_name, quote

# Rows of the replica in one piece. The writer is busy for one piece at a time, and others write in between.
PIECE_ROWS = 10_000
ROWIDS = ("rowid", "_rowid_", "oid")
OTHER_KEY = "its key is different"
NO_ROWID = (
    "its columns use every name of SQLite's row number (rowid, _rowid_, oid), which is needed to read its rows in "
    "pieces (use rename for one of them), or it was created WITHOUT ROWID"
)
# A value of another form is compared as the new form would store it, so that the shadow's key index is used.
AS_STORED = {"INTEGER": "CAST({} AS INTEGER)", "TEXT": "CAST({} AS TEXT)", "BLOB": "CAST({} AS BLOB)"}

# A decimal that was text, in today's form, for columns whose values are checked one by one: see casts.py.
_FEW_DIGITS = "WHEN length(trim(replace(replace({}, '.', ''), '-', ''), '0')) <= 15 THEN CAST({} AS REAL)"
_INTEGRAL = "WHEN typeof(CAST({} AS NUMERIC)) = 'integer' THEN CAST({} AS NUMERIC)"
_IS_NUMBER = "CASE WHEN typeof({}) <> 'text' OR {} GLOB '*[^0-9.-]*' OR length({}) > 300 THEN {}"
DECIMAL = f"{_IS_NUMBER} {_FEW_DIGITS} {_INTEGRAL} ELSE {{}} END"
WHOLE = f"{_IS_NUMBER} {_INTEGRAL} {_FEW_DIGITS} ELSE {{}} END"


class Piece(NamedTuple):
    """Some rows that the shadow lacks.

    Attributes:
        places: their row numbers in the replica.
        keys: their keys.
        end: the row number to go on from; None after the last piece.
    """

    places: list[int]
    keys: list[tuple[Any, ...]]
    end: int | None


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """A replica, and the shadow that is to replace it.

    Attributes:
        old: the replica's table.
        new: the shadow's.
        key: pairs of an expression over a row `o` of the replica and the shadow's column, in the key's order.
        old_key: the replica's columns of the key.
        columns: the shadow's columns to the replica's.
        extra: columns of both that the source does not have.
        mark: the mark column; None if there is none.
        marked: whether the replica has that column, too.
        rowid: a name of the replica's row number.
        decimals: the shadow's columns of decimals without affinity, to a template of what is stored of a text there.
    """

    old: str
    new: str
    key: Sequence[tuple[str, str]]
    old_key: Sequence[str]
    columns: Mapping[str, str]
    extra: Sequence[str]
    mark: str | None
    marked: bool
    rowid: str
    decimals: Mapping[str, str]

    @classmethod
    def of(
        cls,
        connection: apsw.Connection,
        old: str,
        new: str,
        schema: TableSchema,
        former: Former | None,
        mark: str | None,
    ) -> Self | str:
        """The two tables; or why their rows cannot be matched or walked, in words."""
        there, here = columns_of(connection, old) or {}, columns_of(connection, new) or {}
        rowid = _rowid(connection, old, there)
        old_key = [
            name for _, name in sorted((each.key_position, name) for name, each in there.items() if each.key_position)
        ]
        if former is not None and tuple(former.fingerprint.key) != schema.key:
            return OTHER_KEY
        if len(old_key) != len(schema.key):
            return OTHER_KEY
        if former is None and [*map(fold_name, old_key)] != [*map(fold_name, schema.target_key)]:
            return OTHER_KEY
        if rowid is None:
            return NO_ROWID
        columns = _columns(schema, former, there)
        own = {fold_name(column.target) for column in schema.columns} | (
            {fold_name(mark)} if mark is not None else set()
        )
        folded = {fold_name(name): name for name in there}
        extra = [name for name in here if fold_name(name) not in own and fold_name(name) in folded]
        return cls(
            old=old,
            new=new,
            key=_matched(schema, former, old_key),
            old_key=old_key,
            columns=columns,
            extra=extra,
            mark=mark,
            marked=mark is not None and fold_name(mark) in folded,
            rowid=rowid,
            decimals={
                column.target: _as_stored(column.cast)
                for column in schema.columns
                if column.cast.decimal and column.cast.declared == NO_AFFINITY
            },
        )

    def piece(self, connection: apsw.Connection, after: int | None) -> Piece:
        """The next rows that the shadow lacks, of those behind `after`."""
        where, bounds = self._within(after, None)
        sql = f"SELECT o.{self.rowid} FROM {quote(self.old)} AS o{where} ORDER BY o.{self.rowid} LIMIT 1 OFFSET ?"
        end: int | None = connection.execute(sql, (*bounds, PIECE_ROWS - 1)).get
        where, bounds = self._within(after, end)
        names = ", ".join(f"o.{quote(name)}" for name in self.old_key)
        lacking = f"NOT EXISTS (SELECT 1 FROM {quote(self.new)} AS s WHERE {self._same})"
        sql = f"SELECT o.{self.rowid}, {names} FROM {quote(self.old)} AS o{where or ' WHERE 1'} AND {lacking}"
        rows = connection.execute(sql, bounds).fetchall()
        return Piece([int(str(row[0])) for row in rows], [tuple(row[1:]) for row in rows], end)

    def unmarked(self) -> Self:
        """The same tables, to copy rows with the mark that they have, or without one."""
        extra = [*self.extra, *([self.mark] if self.mark is not None and self.marked else [])]
        return replace(self, mark=None, extra=extra)

    def carry(self, connection: apsw.Connection, places: Sequence[int], at: str) -> int:
        """Copy these rows as they are, and mark unmarked ones with `at` if there is a mark column. Returns how many."""
        taken = dict(self.columns) | {name: name for name in self.extra}
        names = [*map(quote, taken)]
        values = [self.decimals.get(here, "{}").replace("{}", f"o.{quote(name)}") for here, name in taken.items()]
        if self.mark is not None:
            names.append(quote(self.mark))
            values.append(f"coalesce(o.{quote(self.mark)}, ?1)" if self.marked else "?1")
        sql = (
            f"INSERT INTO {quote(self.new)} ({', '.join(names)}) SELECT {', '.join(values)} "
            f"FROM {quote(self.old)} AS o WHERE o.{self.rowid} = ?2 AND ?1 IS NOT NULL"
        )
        for place in places:
            connection.execute(sql, (at, place))
        return len(places)

    def fill(self, connection: apsw.Connection, after: int | None, end: int | None) -> None:
        """Copy into the shadow's rows the replica's values of columns that the source does not have."""
        if not self.extra:
            return
        where, bounds = self._within(after, end)
        values = ", ".join(f"{quote(name)} = o.{quote(name)}" for name in self.extra)
        some = " OR ".join(f"o.{quote(name)} IS NOT NULL" for name in self.extra)
        sql = f"UPDATE {quote(self.new)} AS s SET {values} FROM {quote(self.old)} AS o"
        connection.execute(f"{sql}{where or ' WHERE 1'} AND {self._same} AND ({some})", bounds)

    @property
    def _same(self) -> str:
        return " AND ".join(f"s.{quote(name)} = {expression}" for expression, name in self.key)

    def _within(self, after: int | None, end: int | None) -> tuple[str, list[int]]:
        bounds = [(f"o.{self.rowid} > ?", after), (f"o.{self.rowid} <= ?", end)]
        given = [(sql, bound) for sql, bound in bounds if bound is not None]
        where = f" WHERE {' AND '.join(sql for sql, _ in given)}" if given else ""
        return where, [bound for _, bound in given]


def count_by_former_key(
    connection: apsw.Connection, old: str, new: str, schema: TableSchema, former: Former
) -> int | None:
    """How many rows of the replica the shadow lacks, by their former key; None if it is not copied in this form."""
    forms = schema.fingerprint.columns
    before = former.fingerprint.columns
    if not former.fingerprint.key or any(
        name not in forms or name not in before or forms[name][1] != before[name][1] for name in former.fingerprint.key
    ):
        return None
    there = ", ".join(quote(before[name][2]) for name in former.fingerprint.key)
    here = ", ".join(quote(forms[name][2]) for name in former.fingerprint.key)
    sql = f"SELECT count(*) FROM (SELECT {there} FROM {quote(old)} EXCEPT SELECT {here} FROM {quote(new)})"
    return int(connection.execute(sql).get)


def _matched(schema: TableSchema, former: Former | None, old_key: Sequence[str]) -> list[tuple[str, str]]:
    forms = schema.fingerprint.columns
    pairs = []
    for name, column in zip(old_key, schema.key_columns, strict=True):
        same = former is not None and former.fingerprint.columns[column.name][1] == forms[column.name][1]
        template = "{}" if same else _as_stored(column.cast)
        pairs.append((template.replace("{}", f"o.{quote(name)}"), column.target))
    return pairs


def _as_stored(cast: Cast) -> str:
    """SQL: a template that turns a value of another form into this one."""
    if cast.decimal and cast.declared == NO_AFFINITY:
        return WHOLE if cast.convert is whole_or_text else DECIMAL
    return AS_STORED.get(cast.declared, "{}")


def _columns(schema: TableSchema, former: Former | None, there: Mapping[str, ExistingColumn]) -> dict[str, str]:
    """The shadow's columns to those of the replica that hold the same."""
    folded = {fold_name(name): name for name in there}
    before = former.fingerprint.columns if former is not None else {}
    taken = {fold_name(column[2]) for column in before.values()}
    columns = {}
    for column in schema.columns:
        # A name that another column of the source had is not this one's; one that none had may be its own, from before.
        free = None if fold_name(column.target) in taken else column.target
        name = before[column.name][2] if column.name in before else free
        if name is not None and fold_name(name) in folded:
            columns[column.target] = folded[fold_name(name)]
    return columns


def _rowid(connection: apsw.Connection, table: str, columns: Mapping[str, ExistingColumn]) -> str | None:
    """A name of the row number that no column has; None if the table has no row numbers, or no such name."""
    sql = "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND lower(name) = lower(?)"
    if connection.execute(sql, (table,)).get:
        return None
    taken = {fold_name(name) for name in columns}
    return next((name for name in ROWIDS if name not in taken), None)
