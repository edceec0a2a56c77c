"""The SQLite side: a replica table made to match its source, rows applied, a shadow swapped in.

Functions of an APSW connection that run on the host's writer thread, inside its transaction. Must not know where rows
come from.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import apsw

from starbase_data_replication.errors import CHANGED_ON_THE_WAY, SchemaMismatch, SourceUnavailable
from starbase_data_replication.model import Column, Row, Rows, TableSchema
from starbase_data_replication.storage import triggers, user_objects
from starbase_data_replication.storage.sqlite_tables import (
    ExistingColumn,
    affinity,
    columns_of,
    free_tag,
    shadow_name,
    stage_name,
    tag_of,
)
from starbase_data_replication.storage.swap import swap
from starbase_host import fold_name, quote

NO_VALUE = "a row of the source has NULL in a column that must identify it; fill it, or name other columns"
# A user's table may have a constraint with its own conflict clause, such as ON CONFLICT IGNORE, which drops rows.
INSERT = "INSERT OR ABORT INTO"
# Rows of one INSERT. More rows save calls into SQLite; past some twenty nothing is gained.
ROWS_PER_STATEMENT = 20
VARIABLES = apsw.Connection(":memory:").limit(apsw.SQLITE_LIMIT_VARIABLE_NUMBER)


class Target:
    """One replica table, and the statements that write it. Built for one schema and one run.

    Attributes:
        name: the target's name.
        schema: what of the source table is copied.
        mark: the extra column that says since when a row is gone; None if there is none.
        dropped: columns that the source no longer has. They are not written, so that rows keep their values.
        former_names: names that the source's columns had here before.
        added_seconds: how long a batch may take if users have added triggers and the like.
        shadow: the name of the table that a load writes beside the target.
        stage: the name of the table that holds a group's rows.
        table: the name of the table that this run writes.
        warnings: what to tell the user of that table, once `match` or `adopt` was called.
    """

    def __init__(
        self,
        name: str,
        schema: TableSchema,
        *,
        shadow_id: int,
        mark: str | None = None,
        dropped: Sequence[str] = (),
        former_names: Sequence[str] = (),
        added_seconds: float = user_objects.SECONDS,
    ) -> None:
        self.name = name
        self.schema = schema
        self.mark = mark
        self.dropped = dropped
        self.former_names = former_names
        self.added_seconds = added_seconds
        self.shadow = shadow_name(shadow_id)
        self.stage = stage_name(shadow_id)
        self.table = name
        self.warnings: list[str] = []
        self._statements: dict[int, str] = {}
        _check_names(schema, mark)

    def match(self, connection: apsw.Connection, *, shadow: bool, fresh: bool, run_id: str = "") -> None:
        """Make the table that this run writes to exist, fit and have a tag: the target, or its shadow.

        fresh: whether to start with an empty shadow. run_id: for the tag. Raises SchemaMismatch with the difference
        that cannot be fixed.
        """
        self.table = self.shadow if shadow else self.name
        if fresh:
            connection.execute(f"DROP TABLE IF EXISTS {quote(self.shadow)}")
        found = columns_of(connection, self.table)
        if found is None:
            connection.execute(self._create_sql(self._extra_columns(connection)))
        else:
            self._check_fit(connection, self.table, found)
            with self._translate_rejections():
                self._add_columns(connection, found)
            self._check_triggers(connection)
        if tag_of(connection, self.table) is None:
            tag = free_tag(connection, run_id)
            connection.execute(f"CREATE INDEX {quote(tag)} ON {quote(self.table)} (1) WHERE 0")

    def _add_columns(self, connection: apsw.Connection, found: Mapping[str, ExistingColumn]) -> None:
        for column in self._missing(found):
            connection.execute(f"ALTER TABLE {quote(self.table)} ADD COLUMN {_definition(column)}")
        if self.mark is not None and not _has(found, self.mark):
            connection.execute(f"ALTER TABLE {quote(self.table)} ADD COLUMN {quote(self.mark)} TEXT")

    def missing(self, connection: apsw.Connection) -> list[Column]:
        """The source's columns that are missing in the table that this run writes."""
        return self._missing(columns_of(connection, self.table) or {})

    def _missing(self, found: Mapping[str, ExistingColumn]) -> list[Column]:
        names = {fold_name(name) for name in found}
        return [column for column in self.schema.columns if fold_name(column.target) not in names]

    def adopt(self, connection: apsw.Connection, *, shadow: bool) -> bool:
        """Write to the table as it is, if `match` has nothing to do; returns whether. Raises SchemaMismatch as that."""
        self.table = self.shadow if shadow else self.name
        found = columns_of(connection, self.table)
        if found is None or tag_of(connection, self.table) is None:
            return False
        self._check_fit(connection, self.table, found)
        self._check_triggers(connection)
        return not self._missing(found) and (self.mark is None or _has(found, self.mark))

    def check_fit(self, connection: apsw.Connection) -> None:
        """Raise SchemaMismatch if the target exists and cannot be the replica as it is."""
        found = columns_of(connection, self.name)
        if found is not None:
            self._check_fit(connection, self.name, found)

    def has_mark(self, connection: apsw.Connection) -> bool:
        """Whether the target has the mark column, if it needs one."""
        return self.mark is None or _has(columns_of(connection, self.name) or {}, self.mark)

    def apply(self, connection: apsw.Connection, rows: Sequence[Row]) -> int:
        """Insert or update rows, except those that are the same already. Returns how many were written."""
        width = len(self.schema.columns)
        step = max(1, min(ROWS_PER_STATEMENT, VARIABLES // width)) * width
        values = Rows.of(rows, width).values
        changed = 0
        with user_objects.bounded(connection, self.table, self.added_seconds), self._translate_rejections():
            for at in range(0, len(values), step):
                bound = values[at : at + step]
                connection.execute(self._cached_upsert_sql(len(bound) // width), bound)
                changed += connection.changes()
        return changed

    @contextlib.contextmanager
    def _translate_rejections(self) -> Iterator[None]:
        """Raise SchemaMismatch for what the table rejects: a user may have made it, or added to it."""
        try:
            yield
        except apsw.ConstraintError as error:
            # A user who made the table may have declared NOT NULL for columns outside the key.
            nullable_keys = [f".{column.target}" for column in self.schema.key_columns if column.nullable]
            if "NOT NULL" in str(error) and str(error).endswith(tuple(nullable_keys)):
                raise SchemaMismatch(f"keyColumns: {NO_VALUE}") from error
            raise SchemaMismatch(
                f"table {self.name} refuses a row of the source ({error}); drop that constraint, or the table"
            ) from error
        except apsw.MismatchError as error:
            # A key of whole numbers takes nothing else. Only a comparison finds other changed bytes.
            raise SourceUnavailable(f"{self.schema.table}: {CHANGED_ON_THE_WAY}") from error
        except apsw.CorruptError as error:
            if getattr(error, "extendedresult", None) != apsw.SQLITE_CORRUPT_VTAB:
                raise
            raise SchemaMismatch(
                f"table {self.name} cannot be written: the index of a full-text table that a trigger on it writes does "
                f"not match its text ({error}); build it again: INSERT INTO it(it) VALUES ('rebuild')"
            ) from error
        except apsw.SQLError as error:
            raise SchemaMismatch(
                f"table {self.name} cannot be written as it is ({error}); drop what has been added to it, or the table"
            ) from error

    def make_stage(self, connection: apsw.Connection) -> None:
        """Make an empty stage: rows as they are read, each with whether it is to be removed."""
        connection.execute(f"DROP TABLE IF EXISTS {quote(self.stage)}")
        definitions = [_definition(column) for column in self.schema.columns]
        # The last column, under a name that no other column has.
        connection.execute(f"CREATE TABLE {quote(self.stage)} ({', '.join([*definitions, quote(self._removed)])})")

    def put_on_stage(self, connection: apsw.Connection, rows: Iterable[Row], removed: Iterable[Row]) -> None:
        """Put rows on the stage: those to write, and those to remove."""
        marks = ", ".join("?" * (len(self.schema.columns) + 1))
        sql = f"INSERT INTO {quote(self.stage)} VALUES ({marks})"
        connection.executemany(sql, chain(((*row, 0) for row in rows), ((*row, 1) for row in removed)))

    def merge_stage(self, connection: apsw.Connection) -> int:
        """Write what is on the stage, and drop the stage. Returns how many rows were written."""
        stage, gone = quote(self.stage), quote(self._removed)
        key = ", ".join(quote(name) for name in self.schema.target_key)
        columns = ", ".join(quote(column.target) for column in self.schema.columns)
        with user_objects.bounded(connection, self.table, self.added_seconds, whole=True), self._translate_rejections():
            connection.execute(
                f"DELETE FROM {quote(self.table)} WHERE ({key}) IN (SELECT {key} FROM {stage} WHERE {gone} = 1)"
            )
            changed = connection.changes()
            connection.execute(
                f"{INSERT} {quote(self.table)} AS replica ({columns}) "
                f"SELECT {columns} FROM {stage} WHERE {gone} = 0{self._conflict_sql()}"
            )
            changed += connection.changes()
        connection.execute(f"DROP TABLE {stage}")
        return changed

    @property
    def _removed(self) -> str:
        """A name that no column has."""
        taken = {fold_name(column.target) for column in self.schema.columns}
        return next(name for number in range(len(taken) + 1) if (name := f"removed{number}") not in taken)

    def remove(self, connection: apsw.Connection, keys: Iterable[Sequence[Any]]) -> int:
        """Remove rows by their keys. Returns how many existed."""
        return self._change_each(connection, self._delete_sql(), map(tuple, keys))

    def _delete_sql(self) -> str:
        where = " AND ".join(f"{quote(name)} IS ?" for name in self.schema.target_key)
        return f"DELETE FROM {quote(self.table)} WHERE {where}"

    def _check_triggers(self, connection: apsw.Connection) -> None:
        columns = [column.target for column in self.schema.columns]
        self.warnings = triggers.check(connection, self.table, columns, self._writing_sql)

    def _writing_sql(self) -> list[str]:
        return [self._upsert_sql(1), *([self._delete_sql()] if self.schema.key else [])]

    def mark_removed(self, connection: apsw.Connection, keys: Iterable[Sequence[Any]], at: str) -> int:
        """Mark rows that are not marked yet with the time `at`. Returns how many."""
        assert self.mark is not None
        where = " AND ".join(f"{quote(name)} IS ?" for name in self.schema.target_key)
        sql = f"UPDATE {quote(self.table)} SET {quote(self.mark)} = ? WHERE {where} AND {quote(self.mark)} IS NULL"
        return self._change_each(connection, sql, ((at, *key) for key in keys))

    def _change_each(self, connection: apsw.Connection, sql: str, bindings: Iterable[tuple[Any, ...]]) -> int:
        """Execute a statement once with each of these values. Returns how many rows it changed."""
        changed = 0
        with user_objects.bounded(connection, self.table, self.added_seconds):
            for values in bindings:
                connection.execute(sql, values)
                changed += connection.changes()
        return changed

    def swap(self, connection: apsw.Connection) -> list[str]:
        """Put the shadow in the target's place. Returns warnings of what no longer fits."""
        return swap(connection, self.name, self.shadow, self.added_seconds)

    def _extra_columns(self, connection: apsw.Connection) -> list[str]:
        """Columns of the target that the source does not have: a shadow keeps them, for the views that name them."""
        there = columns_of(connection, self.name) or {}
        # A column that is left out, or renamed, must not stay behind.
        described = (*self.schema.columns, *self.schema.left_out)
        known = {fold_name(name) for column in described for name in (column.name, column.target)}
        known |= {fold_name(name) for name in self.former_names}
        known |= {fold_name(self.mark)} if self.mark is not None else set()
        return [
            # A declared type may be any text if it is quoted.
            f"{quote(name)} {quote(declared) if declared else ''}".rstrip()
            for name, (declared, _, _) in there.items()
            if fold_name(name) not in known
        ]

    def _create_sql(self, extra: list[str]) -> str:
        definitions = [_definition(column) for column in self.schema.columns]
        key = self.schema.key_columns
        if len(key) == 1:
            # INTEGER PRIMARY KEY on its own column makes it SQLite's rowid: one tree, not two.
            at = self.schema.columns.index(key[0])
            definition = _definition(key[0])
            if key[0].nullable and key[0].cast.declared == "INTEGER":
                # As the rowid, SQLite would fill it with a number where it is NULL.
                definition = f"{quote(key[0].target)} INT"
            definitions[at] = f"{definition} NOT NULL PRIMARY KEY"
        elif key:
            names = set(self.schema.key)
            for at, column in enumerate(self.schema.columns):
                if column.name in names:
                    definitions[at] += " NOT NULL"
        if self.mark is not None:
            extra = [f"{quote(self.mark)} TEXT", *extra]
        definitions += extra
        if len(key) > 1:
            definitions.append(f"PRIMARY KEY ({', '.join(quote(column.target) for column in key)})")
        return f"CREATE TABLE {quote(self.table)} ({', '.join(definitions)})"

    def _cached_upsert_sql(self, rows: int) -> str:
        if rows not in self._statements:
            self._statements[rows] = self._upsert_sql(rows)
        return self._statements[rows]

    def _upsert_sql(self, rows: int) -> str:
        columns = [quote(column.target) for column in self.schema.columns]
        row = f"({', '.join('?' * len(columns))})"
        sql = f"{INSERT} {quote(self.table)} AS replica ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"
        return sql + self._conflict_sql() if self.schema.key else sql

    def _conflict_sql(self) -> str:
        key = [quote(name) for name in self.schema.target_key]
        # SQLite takes 0.0 and -0.0 for the same key. A key without affinity may hold either, so it is written too.
        same = {quote(column.target) for column in self.schema.key_columns if column.cast.declared}
        rest = [name for column in self.schema.columns if (name := quote(column.target)) not in same]
        # A row that is read exists again, so its mark is cleared. Columns that the source no longer has stay as they
        # are: that a column is gone does not change the row.
        emptied = [quote(self.mark)] if self.mark is not None else []
        sql = f" ON CONFLICT ({', '.join(key)}) DO "
        if not rest and not emptied:
            return sql + "NOTHING"
        assignments = [*(f"{name} = excluded.{name}" for name in rest), *(f"{name} = NULL" for name in emptied)]
        different = [self._differs_sql(rest), *(f"replica.{name} IS NOT NULL" for name in emptied)]
        return sql + f"UPDATE SET {', '.join(assignments)} WHERE {' OR '.join(different)}"

    def _differs_sql(self, names: list[str]) -> str:
        """SQL: whether an existing row differs. It compares row values: SQLite limits the depth of a chain of ORs."""
        if not names:
            return "0"
        # A change of case is a change, even if the column ignores case.
        nocase, written = {quote(column.target) for column in self.schema.columns if column.nocase}, set(names)
        there = ", ".join(f"replica.{name}{' COLLATE BINARY' if name in nocase else ''}" for name in names)
        here = ", ".join(f"excluded.{name}" for name in names)
        forms = [
            name
            for column in self.schema.columns
            if not column.cast.declared and (name := quote(column.target)) in written
        ]
        if forms:
            # Without affinity, 1 and 1.0 are different values that compare as equal, and so are 0.0 and -0.0. Only
            # atan2 shows the sign of a zero.
            there += "".join(f", typeof(replica.{n}), iif(replica.{n} = 0, atan2(replica.{n}, -1.0), 0)" for n in forms)
            here += "".join(
                f", typeof(excluded.{n}), iif(excluded.{n} = 0, atan2(excluded.{n}, -1.0), 0)" for n in forms
            )
        return f"({there}) IS NOT ({here})"

    def _check_fit(self, connection: apsw.Connection, table: str, found: Mapping[str, ExistingColumn]) -> None:
        in_key = sorted((column.key_position, fold_name(name)) for name, column in found.items() if column.key_position)
        key = [name for _, name in in_key]
        wanted = [fold_name(name) for name in self.schema.target_key]
        if key != wanted:
            raise SchemaMismatch(
                f"table {self.name} exists with the key ({', '.join(key) or 'none'}), but the source's key is "
                f"({', '.join(wanted) or 'none'}); drop the table, or choose another targetTable"
            )
        there = {fold_name(name): column for name, column in found.items()}
        for column in self.schema.columns:
            if (mine := there.get(fold_name(column.target))) is None:
                continue
            declared = mine.declared
            if mine.computed:
                raise SchemaMismatch(
                    f"table {self.name} exists and computes {column.target} itself; drop the table, or choose another "
                    "targetTable"
                )
            collation = connection.column_metadata("main", table, column.target)[1].upper()
            if column.nocase and collation != "NOCASE":
                raise SchemaMismatch(
                    f"table {self.name} exists and compares {column.target} by {collation}; collations asks for "
                    "NOCASE: declare it so, or drop the table"
                )
            if not column.nocase and collation != "BINARY":
                raise SchemaMismatch(
                    f"table {self.name} exists and compares {column.target} by {collation}, to which different values "
                    "are the same; it must be declared without COLLATE"
                )
            if affinity(declared) != affinity(column.cast.declared):
                raise SchemaMismatch(
                    f"table {self.name} exists and declares {column.target} as {declared or 'nothing'}, which would "
                    f"change values; it must be declared {column.cast.declared or 'without a type'}"
                )


def _has(found: Mapping[str, ExistingColumn], name: str) -> bool:
    return fold_name(name) in {fold_name(each) for each in found}


def _definition(column: Column) -> str:
    collation = " COLLATE NOCASE" if column.nocase else ""
    return f"{quote(column.target)} {column.cast.declared}{collation}".rstrip()


def _check_names(schema: TableSchema, mark: str | None) -> None:
    seen: dict[str, str] = {}
    for column in schema.columns:
        other = seen.setdefault(fold_name(column.target), column.name)
        if other != column.name:
            example = json.dumps({column.name: f"{column.target}_2"}, ensure_ascii=False)
            raise SchemaMismatch(
                f"{schema.table} has the columns {other} and {column.name}, which SQLite cannot tell apart; give one "
                f'another name in the replica, with "rename": {example}'
            )
    if mark is not None and fold_name(mark) in seen:
        raise SchemaMismatch(f"deletes.mark: {schema.table} has a column {mark} itself; choose another name")
