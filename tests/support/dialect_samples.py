"""Samples of the dialects that the conformance suite is tried on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import apsw

from starbase_data_replication.conformance import Sample
from starbase_data_replication.model import Row
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from tests.support.servers import TestDatabase
from tests.support.sqlite_dialect import OPEN, SqliteDialect, settings_of

COLUMNS = {
    "postgresql": 'k text COLLATE "C", i bigint, f float8, d numeric(12,2), b bytea, at timestamptz(6)',
    "mysql": "k varchar(20) COLLATE {nopad}, i bigint, f double, d decimal(12,2), b blob, at timestamp(6) NULL",
}
OPEN_SESSIONS = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}


def server_sample(database: TestDatabase) -> Sample:
    """A table with a text for a key, a value of each storage class, and NULLs."""
    postgresql = database.dialect == "postgresql"
    columns = COLUMNS[database.dialect]
    if not postgresql:
        columns = columns.replace("{nopad}", database.nopad)
    database.execute(f"CREATE TABLE t ({columns}, PRIMARY KEY (k))")
    stored: list[Row] = []

    def literals(number: int, at: str | None) -> tuple[str, Row]:
        decimal = number + 0.5 if number % 2 else None
        row = (f"k{number:03d} é🙂", number // 2 - 2**62, number / 3, decimal, b"\x00\xff" * number)
        byte = "'\\x{}'" if postgresql else "X'{}'"
        shown = "NULL" if at is None else f"'{at}+00:00'" if postgresql else f"'{at}'"
        digits = "NULL" if decimal is None else str(decimal)
        values = f"'{row[0]}', {row[1]}, {row[2]!r}, {digits}, {byte.format(row[4].hex())}, {shown}"
        return values, (*row, None if at is None else at.replace(" ", "T") + "Z")

    def insert(at: str | None) -> Row:
        values, row = literals(len(stored), at)
        utc = "" if postgresql else "SET time_zone = '+00:00'; "
        database.execute(f"{utc}INSERT INTO t VALUES ({values})")
        stored.append(row)
        return row

    def add() -> Row:
        return insert(None if len(stored) == 3 else f"2026-01-01 00:00:{len(stored):02d}.500000")

    def stamp(seconds: float) -> Row:
        return insert(_time(time.time() + seconds))

    @contextlib.contextmanager
    def hold() -> Iterator[None]:
        with database.connect() as session:
            session.execute("BEGIN")
            session.execute(f"INSERT INTO t VALUES ({literals(99, '2026-01-01 00:00:59.500000')[0]})")
            yield

    def connections() -> int:
        return int(database.fetch(OPEN_SESSIONS[database.dialect])[0][0])

    for _ in range(6):
        add()
    good = database.source_config
    return Sample(
        dialect=PostgresqlDialect() if postgresql else MysqlDialect(), settings=good, source_table="t",
        tracking_column="at", rows=lambda: list(stored), add=add, where="f < 1 OR f > 1.5", no_key=["i"],
        not_where=["no_such = 1"], fits=lambda row: row[2] < 1 or row[2] > 1.5, stamp=stamp, deleted="d", hold=hold,
        secrets=[str(good["password"])], hosts=[str(good["host"])], elsewhere={**good, "database": "other"},
        broken={"password": {**good, "password": "Wr0ng-password"}, "port": {**good, "port": 1}},
        connections=connections,
    )  # fmt: skip


def sqlite_sample(folder: Path) -> Sample:
    """A file of the kit's dialect, with a key of two columns."""
    path = folder / "source.db"
    file = apsw.Connection(str(path))
    file.execute("PRAGMA journal_mode = wal; PRAGMA synchronous = off")
    file.execute("CREATE TABLE t (k TEXT, n INTEGER, f REAL, b BLOB, at DATETIME, gone TEXT, PRIMARY KEY (k, n))")
    stored: list[Row] = []

    def insert(at: str | None) -> Row:
        number = len(stored)
        row = (
            f"k{number // 2:03d} é",
            number - 2**62,
            number / 3,
            b"\x00\xff" * number,
            at,
            "x" if number % 2 else None,
        )
        file.execute("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", row)
        stored.append(row)
        return row

    def add() -> Row:
        return insert(None if len(stored) == 3 else f"2026-01-01 00:00:{len(stored):02d}.500000")

    @contextlib.contextmanager
    def hold() -> Iterator[None]:
        file.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES ('z', 0, 0.0, x'', '2026-01-01 00:00:59.5', NULL)")
        try:
            yield
        finally:
            file.execute("ROLLBACK")

    for _ in range(6):
        add()
    good = settings_of(path)
    return Sample(
        dialect=SqliteDialect(), settings=good, source_table="t", tracking_column="at", rows=lambda: list(stored),
        add=add, where="f < 1 OR f > 1.5", fits=lambda row: row[2] < 1 or row[2] > 1.5, no_key=["k"],
        not_where=["k = ?", "no_such = 1"], stamp=lambda seconds: insert(_time(time.time() + seconds)),
        deleted="gone", hold=hold,
        secrets=["sesame"], hosts=[str(path.resolve())], elsewhere=settings_of(folder / "other.db"),
        connections=lambda: OPEN[str(path)],
        broken={"password": {**good, "password": "Wr0ng-password"}, "file": settings_of(folder / "none.db")},
    )  # fmt: skip


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
