"""Floating-point numbers, thousands at random, on every server: each bit arrives, and a verification agrees."""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path
from typing import Any

import apsw
import pytest

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.model.options import Options
from starbase_data_replication.sources.mysql import types
from starbase_data_replication.sources.mysql.connection import version_of
from starbase_data_replication.sources.mysql.source import MysqlSource
from starbase_data_replication.sources.mysql.types import shortest_float
from starbase_data_replication.sources.protocols import ReadPlan
from tests.support.hosts import HostProcess, running
from tests.support.mysql_sources import described, rows_of, with_source
from tests.support.servers import TestDatabase

COUNT = 3000
EXTREMES = [-0.0, 0.0, 5e-324, -2.2250738585072014e-308, -1.7976931348623157e308, 1e15, 1e22, 1 / 3, -1e-5]
# What a server works out itself, and numbers that are printed with fewer digits than they have.
MYSQL = """
CREATE TABLE t (id int PRIMARY KEY, d double, f float, dm double(30,10), fm float(20,2));
CREATE VIEW seen AS SELECT id, d / 3e0 AS d, f * 1e0 AS f, -dm AS dm, fm / 7e0 AS fm FROM t
"""
POSTGRESQL = """
CREATE TABLE t (id int PRIMARY KEY, d float8, f float4, dm float8, fm float4);
CREATE VIEW seen AS SELECT id, -d AS d, f::float8 AS f, -dm AS dm, -fm AS fm FROM t
"""


def doubles() -> list[float]:
    """Of every size, so many of each that texts of every length are among them."""
    choose = random.Random(17)
    found = [struct.unpack("<d", choose.randbytes(8))[0] for _ in range(COUNT)]
    return EXTREMES + [value for value in found if math.isfinite(value)]


def floats(count: int) -> list[float]:
    choose = random.Random(17)
    found = [struct.unpack("<f", choose.randbytes(4))[0] for _ in range(2 * count)]
    return [value for value in found if math.isfinite(value)][:count]


def literal(value: float, postgres: bool) -> str:
    text = repr(value)
    return f"'{text}'" if postgres else text if "e" in text else f"{text}e0"


def bits(value: Any) -> Any:
    return struct.pack("<d", value).hex() if isinstance(value, float) else value


def replica(host: HostProcess, name: str) -> list[tuple[Any, ...]]:
    connection = apsw.Connection(str(host.database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [tuple(map(bits, row)) for row in connection.execute(f"SELECT * FROM {name} ORDER BY id")]
    finally:
        connection.close()


def test_every_bit_arrives(source_database: TestDatabase, tmp_path: Path) -> None:
    postgres = source_database.dialect == "postgresql"
    source_database.execute(POSTGRESQL if postgres else MYSQL)
    wide = doubles()
    narrow = floats(len(wide))
    given = list(zip(wide, narrow, (math.fmod(value, 1e15) for value in wide), narrow[::-1], strict=True))
    for at in range(0, len(given), 500):
        rows = (
            f"({number}, {', '.join(literal(value, postgres) for value in (d, f, dm, math.fmod(fm, 1e15)))})"
            for number, (d, f, dm, fm) in enumerate(given[at : at + 500], at)
        )
        source_database.execute(f"INSERT INTO t VALUES {', '.join(rows)}")
    with running(tmp_path) as host:
        for table in ("t", "seen"):
            # A four-byte float is stored with the fewest digits that mean it, as PostgreSQL has it.
            number = "{}::text::float8" if postgres else "{} * 1e0"
            columns = ", ".join(number.format(name) for name in ("d", "f", "dm", "fm"))
            sent = source_database.fetch(f"SELECT id, {columns} FROM {table} ORDER BY id")
            short = (2, 4) if table == "t" and not postgres else ()
            expected = [
                tuple(bits(shortest_float(repr(value)) if at in short else value) for at, value in enumerate(row))
                for row in sent
            ]
            host.configure(
                name=table, sourceConfig=source_database.source_config, sourceTable=table, targetTable=table,
                trackingColumn="id", isActive=False, lookbackSeconds=0, keyColumns=["id"],
            )  # fmt: skip
            run = host.sync(table)
            assert run["status"] == "success", run
            found = replica(host, table)
            assert found == expected, [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]][:3]
            if table == "t":
                # MariaDB knows one zero.
                one_zero = "MariaDB" in source_database.fetch("SELECT version()")[0][0]
                assert [row[1] for row in found] == [bits(value or 0.0 if one_zero else value) for value in wide]
            verified = host.result("POST", f"/data-replication/verify/{table}", {})
            assert (verified["missing"], verified["extra"], verified["different"]) == (0, 0, 0), verified


def test_an_older_mysql_sends_them_one_by_one(mysql_database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 8.0.28 its JSON loses digits too: rows are not put together, and nothing can be compared."""
    monkeypatch.setattr(types, "JSON_IS_EXACT", (99, 0, 0))
    mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY, d double)")
    wide = doubles()[:300]
    rows = ", ".join(f"({number}, {literal(value, False)})" for number, value in enumerate(wide))
    mysql_database.execute(f"INSERT INTO t VALUES {rows}")

    async def work(source: MysqlSource) -> None:
        schema = await described(source, mysql_database, "t")
        found = [bits(row[1]) for row in await rows_of(source, ReadPlan(schema=schema, in_key_order=True))]
        assert found == list(map(bits, wide))
        with pytest.raises(SourceRejected, match=r"t: a MySQL older than 8\.0\.28 .* column d, .* excludeColumns"):
            async with source.comparing(schema, schema.columns, Options()):
                pass
        async with source.comparing(schema, schema.key_columns, Options()):
            pass

    with_source(mysql_database, work)


@pytest.mark.parametrize(
    ("text", "version"),
    [("9.7.4-2", (9, 7, 4)), ("8.0.28-0ubuntu0.20.04", (8, 0, 28)), ("8.4", (8, 4, 0))],
)  # fmt: skip
def test_a_version_is_read(text: str, version: tuple[int, int, int]) -> None:
    assert version_of(text) == version
