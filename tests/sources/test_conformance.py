"""The dialects that the plugin brings keep the contract, by the suite that third parties run; and it finds faults."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from starbase_data_replication import conformance
from starbase_data_replication.conformance import CHECKS, Check, NotConforming, Sample
from starbase_data_replication.model import Batch, Row, TableName
from starbase_data_replication.sources.mysql.dialect import MysqlDialect
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.sources.protocols import Dialect, ReadPlan, Source
from tests.support.servers import TestDatabase

COLUMNS = {
    "postgresql": 'k text COLLATE "C", i bigint, f float8, d numeric(12,2), b bytea, at timestamptz(6)',
    "mysql": "k varchar(20) COLLATE {nopad}, i bigint, f double, d decimal(12,2), b blob, at timestamp(6) NULL",
}


def sample_of(database: TestDatabase) -> Sample:
    """A table with a text for a key, a value of each storage class, and NULLs."""
    columns = COLUMNS[database.dialect]
    if database.dialect == "mysql":
        columns = columns.replace("{nopad}", database.nopad)
    database.execute(f"CREATE TABLE t ({columns}, PRIMARY KEY (k))")
    stored: list[Row] = []

    def literals(number: int) -> tuple[str, Row]:
        at = None if number == 3 else f"2026-01-01 00:00:{number:02d}.5"
        row = (f"k{number:03d} é🙂", number - 2**62, number / 3, number + 0.5, b"\x00\xff" * number)
        byte = "'\\x{}'" if database.dialect == "postgresql" else "X'{}'"
        shown = "NULL" if at is None else f"'{at}+00:00'" if database.dialect == "postgresql" else f"'{at}'"
        values = f"'{row[0]}', {row[1]}, {row[2]!r}, {row[3]}, {byte.format(row[4].hex())}, {shown}"
        return values, (*row, None if at is None else at.replace(" ", "T") + "00000Z")

    def add() -> Row:
        values, row = literals(len(stored))
        utc = "" if database.dialect == "postgresql" else "SET time_zone = '+00:00'; "
        database.execute(f"{utc}INSERT INTO t VALUES ({values})")
        stored.append(row)
        return row

    @contextlib.contextmanager
    def hold() -> Iterator[None]:
        with database.connect() as session:
            session.execute("BEGIN")
            session.execute(f"INSERT INTO t VALUES ({literals(59)[0]})")
            yield

    for _ in range(6):
        add()
    return Sample(
        dialect=PostgresqlDialect() if database.dialect == "postgresql" else MysqlDialect(),
        settings=database.source_config, source_table="t", tracking_column="at", rows=lambda: list(stored), add=add,
        hold=hold, secrets=[str(database.source_config["password"])],
    )  # fmt: skip


@pytest.mark.anyio
async def test_both_dialects_conform(source_database: TestDatabase) -> None:
    await conformance.check_all(sample_of(source_database))


class Faulty:
    """A dialect that does one thing wrong: every method but those that a test replaces is the right one's."""

    def __init__(self, dialect: Dialect, **wrong: Any) -> None:
        self._dialect = dialect
        self.__dict__.update(wrong)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dialect, name)

    # Spelled out, because a protocol is looked for in the class.
    @property
    def features(self) -> Collection[str]:
        return self._dialect.features

    def check(self, settings: Mapping[str, Any], source_table: str) -> dict[str, str]:
        return self._dialect.check(settings, source_table)

    def identity(self, settings: Mapping[str, Any], source_table: str) -> tuple[str, ...]:
        return self._dialect.identity(settings, source_table)

    def secret_parts(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._dialect.secret_parts(settings)

    def hosts(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(self._dialect.hosts(settings))

    def table_name(self, settings: Mapping[str, Any], source_table: str) -> TableName:
        return self._dialect.table_name(settings, source_table)

    def open(self, settings: Mapping[str, Any], *, max_connections: int) -> Source:
        return self._dialect.open(settings, max_connections=max_connections)


class Wrapped:
    """A source whose reads are changed by a function of the plan or of the batches."""

    def __init__(self, source: Source, change: Any) -> None:
        self._source = source
        self._change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    @contextlib.asynccontextmanager
    async def read(self, plan: ReadPlan) -> AsyncIterator[AsyncIterator[Batch]]:
        async with self._source.read(self._change(plan)) as batches:
            yield batches

    async def still_open(self, noted: Sequence[Any]) -> list[Any]:
        return [replace(each, tokens=frozenset()) for each in noted]


FAULTS: dict[str, tuple[Check, Any]] = {
    "a secret is shown": (conformance.settings, {"secret_parts": lambda settings: settings}),
    "any table is the same": (conformance.settings, {"identity": lambda settings, table: ("one",)}),
    "nothing is wrong": (conformance.settings, {"check": lambda settings, table: {}}),
    "a load begins anew": (conformance.first_load, lambda plan: replace(plan, after_key=None)),
    "the floor is lost": (conformance.following, lambda plan: replace(plan, floor=None)),
    "nulls are always read": (conformance.following, lambda plan: replace(plan, nulls=True)),
    "keys are not heeded": (conformance.comparing, lambda plan: replace(plan, keys=None)),
    "no open transaction": (conformance.open_transactions, lambda plan: plan),
}


@pytest.mark.anyio
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_found(postgres_database: TestDatabase, fault: str) -> None:
    check, wrong = FAULTS[fault]
    sample = sample_of(postgres_database)
    if callable(wrong):
        change = wrong
        right = sample.dialect
        wrong = {"open": lambda settings, max_connections: Wrapped(right.open(settings, max_connections=2), change)}
    with pytest.raises(NotConforming):
        await check(replace(sample, dialect=Faulty(sample.dialect, **wrong)))


def test_every_check_is_told() -> None:
    assert len({check.__name__ for check in CHECKS}) == 7
    assert all(check.__doc__ for check in CHECKS)
