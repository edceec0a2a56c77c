"""A dialect of SQLite files, built from the kit: the sample that tests of the kit and of the conformance suite use."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import apsw

from starbase_data_replication.dialect_kit import BaseDialect, BlockingConnection, RowPlan, SqlText, Value
from starbase_data_replication.errors import SourceRejected, SourceUnavailable, SyncError, TableMissing
from starbase_data_replication.model import Cast, Column, OpenTransactions, Row, TableName, TableSchema

SQL = SqlText()
# How many connections are open, by file.
OPEN: Counter[str] = Counter()
# What a type's name declares, what its values rise by, and their cast.
TYPES = {
    "INTEGER": ("number", Cast(declared="INTEGER")),
    "REAL": ("", Cast(declared="")),
    "BLOB": ("", Cast(declared="BLOB")),
    "DATETIME": ("time", Cast()),
}


class SqliteConnection(BlockingConnection):
    """One connection to a file. It also sees whether another connection has a transaction that writes."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        if settings["password"] != "sesame":
            raise SourceRejected("the password is wrong")
        self.file = apsw.Connection(settings["file"], flags=apsw.SQLITE_OPEN_READWRITE)
        self.file.set_busy_timeout(0)
        OPEN[settings["file"]] += 1

    def close(self) -> None:
        self.file.close()
        OPEN[self.settings["file"]] -= 1

    def interrupt(self) -> None:
        self.file.interrupt()

    def explain(self, error: Exception) -> SyncError | None:
        if isinstance(error, apsw.CantOpenError | apsw.BusyError | apsw.NotADBError):
            return SourceUnavailable("the file cannot be read; look at sourceConfig.file")
        return SourceRejected(f"SQLite refuses the statement: {error}") if isinstance(error, apsw.SQLError) else None

    def begin(self) -> None:
        self.file.execute("BEGIN")
        # The first statement that reads takes the snapshot.
        self.file.execute("SELECT count(*) FROM sqlite_schema").fetchall()

    def end(self) -> None:
        self.file.execute("ROLLBACK")

    def describe(self, table: TableName, tracking_column: str) -> TableSchema:
        sql = 'SELECT name, upper(type), "notnull", pk FROM pragma_table_info(?)'
        found: list[Any] = self.file.execute(sql, (table.name,)).fetchall()
        if not found:
            raise TableMissing(f"the table {table} does not exist")
        columns = tuple(_column(name, kind, not null and not pk) for name, kind, null, pk in found)
        key = tuple(name for name, _, _, pk in sorted(found, key=lambda row: row[3]) if pk)
        return TableSchema(table=table, columns=columns, key=key, tracking_column=tracking_column)

    def rows(self, plan: RowPlan) -> Iterator[Row]:
        sql, values = SQL.select(plan)
        yield from self.file.execute(sql, values)

    def high_watermark(self, schema: TableSchema) -> Value | None:
        value: Value | None = self.file.execute(SQL.highest(schema.table, schema.tracking_column)).get
        return value

    def clock(self) -> float:
        return time.time()

    def open_transactions(self) -> OpenTransactions:
        writer: frozenset[str] = frozenset()
        try:
            self.file.execute("BEGIN IMMEDIATE; ROLLBACK")
        except apsw.BusyError:
            writer = frozenset({"writer"})
        return OpenTransactions(known=True, tokens=writer, reason="the lock of the file's one writer")


class SqliteDialect(BaseDialect):
    connection = SqliteConnection
    address = ("file",)
    rows_heed = frozenset({"where", "left_filter", "keys", "resume", "snapshot"})

    def schema(self) -> Mapping[str, Any]:
        return {
            "type": "object",
            "properties": {
                "file": {"type": "string", "minLength": 1, "description": "the file's path"},
                "password": {"type": "string", "writeOnly": True, "description": "a password, checked for tests"},
            },
            "required": ["file", "password"],
        }


def settings_of(file: Path) -> dict[str, Any]:
    return {"dialect": "sqlite", "file": str(file), "password": "sesame"}


def _column(name: str, kind: str, nullable: bool) -> Column:
    rises, cast = TYPES.get(kind, ("", Cast()))
    return Column(name=name, source_type=kind, nullable=nullable, cast=cast, rises=rises)
