"""A tracking column of any ordered type: the source compares, and each sync reads just what is above the floor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hosts import running
from tests.support.servers import TestDatabase

# Of each type three values, each above the one before; the text of the second is often below that of the first.
ORDERED = {
    "smallint": ("-5", "9", "10"), "integer": ("-5", "9", "10"), "bigint": ("9", "10", "9223372036854775807"),
    "numeric": ("9.50", "10", "1e30"), "numeric(12,2)": ("-0.5", "9.1", "10.01"), "real": ("0.1", "9", "10e9"),
    "double precision": ("-Infinity", "0.1", "1e300"), "money": ("-3.00", "9.00", "1000.00"),
    "boolean": ("f", "f", "t"),
    "oid": ("9", "10", "4294967295"), "xid8": ("9", "10", "18446744073709551615"), "pg_lsn": ("9/0", "10/0", "10/1"),
    "date": ("0044-03-15 BC", "0900-01-01", "2020-01-01"), "time": ("09:00", "10:00", "24:00"),
    "timetz": ("10:00+14", "09:00+00", "09:00-05"), "interval": ("9 days", "10 days", "1 year"),
    **{
        f"timestamp({digits})": ("0044-03-15 BC", "2020-01-01 00:00:00", "2020-01-01 00:00:09.999999")
        for digits in range(7)
    },
    "timestamp": ("-infinity", "2020-01-01 00:00:00", "2020-01-01 00:00:00.000001"),
    "timestamptz": ("2020-01-01 00:00+14", "2020-01-01 00:00+00", "2020-01-01 00:00:00.000001+00"),
    "timestamptz(3)": ("2020-01-01 00:00+14", "2020-01-01 00:00+00", "2020-01-01 00:00:00.001+00"),
    "uuid": (
        "0190163d-8694-739b-aea5-966c26f8ad91", "01901640-0000-739b-aea5-966c26f8ad91",
        "{01901640-0000-739b-afa5-966c26f8ad91}",
    ),
    'text COLLATE "C"': ("", "Z", "a"), 'text COLLATE "und-x-icu"': ("a", "B", "é"), "text": ("a", "b", "c"),
    "varchar(9)": ("a", "b", "c"), "char(9)": ("a", "b ", "c"), "name": ("a", "b", "c"), '"char"': ("a", "b", "c"),
    "elsewhere.citext": ("A", "b", "C"), "elsewhere.ltree": ("a", "a.b", "b"),
    "elsewhere.cube": ("(1)", "(9)", "(10)"), "bytea": ("\\x", "\\x09", "\\x0900"),
    "inet": ("9.0.0.1", "10.0.0.0/8", "::1"),
    "cidr": ("9.0.0.0/8", "10.0.0.0/8", "::/0"), "macaddr": ("0:0:0:0:0:1", "0:0:0:0:0:2", "1:0:0:0:0:0"),
    "bit(4)": ("0001", "0010", "1000"), "varbit": ("0", "01", "1"), "mood": ("sad", "ok", "Happy"),
    "integer[]": ("{9}", "{10}", "{10,NULL}"), "int4range": ("empty", "[9,10)", "[10,11)"),
    "pair": ("(9,a)", "(10,a)", "(10,b)"),
    "jsonb": ("9", "10", "100"), "price": ("9", "10", "11.5"), "stamp": ("2020-01-01", "2020-01-02", "2020-01-03"),
    "regclass": ("1247", "1249", "1259"), "tid": ("(0,9)", "(0,10)", "(1,1)"), "elsewhere.isbn": (
        "0-306-40615-2", "0-393-04002-X", "1-86197-876-6"),
}  # fmt: skip

# Those that a careless comparison gets wrong.
FEW = (
    "numeric", "xid8", "date", "interval", "timestamp(0)", "timestamptz(3)", 'text COLLATE "und-x-icu"', "char(9)",
    "elsewhere.citext", "bytea", "inet", "mood", "integer[]", "pair", "regclass", "uuid",
)  # fmt: skip


@pytest.fixture
def table(postgres_database: TestDatabase) -> TestDatabase:
    """One table with a column of each type. Extensions in a schema that no role has in its path."""
    postgres_database.execute(
        "CREATE SCHEMA elsewhere; "
        + "; ".join(f"CREATE EXTENSION {name} SCHEMA elsewhere" for name in ("citext", "ltree", "cube", "isn"))
        + "; CREATE TYPE mood AS ENUM ('sad', 'ok', 'Happy'); CREATE TYPE pair AS (a int, b text); "
        "CREATE DOMAIN price AS numeric(9,2); CREATE DOMAIN stamp AS timestamptz(0)"
    )
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(ORDERED))
    postgres_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    return postgres_database


def insert(database: TestDatabase, number: int, at: int) -> None:
    """A row in which each column has the value at this place."""
    kinds = [kind.partition(" COLLATE")[0] for kind in ORDERED]
    via = ["oid::" if kind == "regclass" else "" for kind in kinds]
    values = ", ".join(f"${n}::text::{via[n - 1]}{kind}" for n, kind in enumerate(kinds, 1))
    database.execute(f"INSERT INTO t VALUES ({number}, {values})", *(texts[at] for texts in ORDERED.values()))


@pytest.mark.parametrize("kinds", [FEW, pytest.param(tuple(ORDERED), marks=pytest.mark.prove)], ids=["few", "all"])
def test_each_ordered_type_is_followed(table: TestDatabase, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    names = {f"c{number}": kind for number, kind in enumerate(ORDERED) if kind in kinds}
    insert(table, 1, 0)
    insert(table, 2, 1)
    with running(tmp_path) as host:
        body = {"sourceConfig": table.source_config, "sourceTable": "t", "lookbackSeconds": 0, "settleSeconds": 0}
        for name in names:
            host.configure(**body, name=name, targetTable=name, trackingColumn=name, isActive=False)
        read: dict[str, list[int]] = {name: [] for name in names}
        for number, at in ((0, 0), (3, 2), (4, 0)):
            if number:
                insert(table, number, at)
            for name in names:
                run = host.sync(name)
                read[name].append(run["rows_read"])
        # All, then the row above the floor (and those that share the floor), then none: the last one lies below it.
        wanted = {"boolean": [2, 3, 0]}
        assert {names[name]: rows for name, rows in read.items() if rows != wanted.get(names[name], [2, 1, 0])} == {}
        counts = {kind: host.query(f"SELECT count(*) FROM {name}")[0][0] for name, kind in names.items()}
        assert {kind: rows for kind, rows in counts.items() if rows != 3} == {}
