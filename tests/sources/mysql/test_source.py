"""A MySQL or MariaDB table as a source: what it looks like, and what its values become."""

from __future__ import annotations

from typing import Any

import pytest

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.model import TableName, TableSchema
from starbase_data_replication.sources.mysql.describe import DESCRIBE_OF_MARIADB, DESCRIBE_OF_MYSQL
from starbase_data_replication.sources.mysql.source import MysqlSource
from starbase_data_replication.sources.protocols import ReadPlan
from tests.support.mysql_sources import described, in_sqlite, rows_of, table_name, with_source
from tests.support.mysql_types import MARIADB_ONLY
from tests.support.servers import TestDatabase, sequence


def describe(database: TestDatabase, table: str, tracking: str = "id") -> TableSchema:
    return with_source(database, lambda source: described(source, database, table, tracking))


ODD = "Tä`ble '\"%s\\ 表"


def test_every_column_is_described_with_any_name(either_mysql: TestDatabase) -> None:
    quoted = ODD.replace("`", "``").replace("%", "%%")
    either_mysql.execute(
        f"CREATE TABLE `{quoted}` (`a``b` varchar(5) NOT NULL, `select` int, ID int PRIMARY KEY, `ünï %%s` datetime(3),"
        " hidden int INVISIBLE DEFAULT 5, doubled int AS (`select` * 2) VIRTUAL,"
        " `stored` int AS (`select` * 3) STORED);"
        f"INSERT INTO `{quoted}` (`a``b`, `select`, ID) VALUES ('x', 4, 1)".replace("%%", "%")
    )

    async def work(source: MysqlSource) -> tuple[TableSchema, list[Any]]:
        schema = await described(source, either_mysql, ODD, "ünï %s")
        return schema, await rows_of(source, ReadPlan(schema=schema, floor="2024-01-01 00:00:00.000"))

    schema, rows = with_source(either_mysql, work)
    assert [(c.name, c.nullable) for c in schema.columns] == [
        ("a`b", False),
        ("select", True),
        ("ID", False),
        ("ünï %s", True),
        ("hidden", True),
        ("doubled", True),
        ("stored", True),
    ]
    assert (schema.key, schema.tracking.time_digits, schema.tracking.source_type) == (("ID",), 3, "datetime(3)")
    assert rows == [("x", "4", "1", None, "5", "8", "12")]


@pytest.mark.parametrize(
    ("definition", "key"),
    [
        ("PRIMARY KEY (b, a), UNIQUE (id)", ("b", "a")),
        ("UNIQUE u (a, b), UNIQUE v (b), UNIQUE w (maybe)", ("b",)),
        ("UNIQUE (a, b, id), UNIQUE z (b, id)", ("b", "id")),
        ("UNIQUE (maybe), UNIQUE (id, maybe)", ()),
        ("UNIQUE (b(3))", ()),
        pytest.param("UNIQUE (long_text)", ("long_text",), marks=pytest.mark.mariadb_only),
        ("INDEX (id)", ()),
        ("UNIQUE u (id) COMMENT 'PRIMARY'", ("id",)),
    ],
)
def test_the_key_is_the_primary_one_else_the_smallest_without_nulls(
    either_mysql: TestDatabase, definition: str, key: tuple[str, ...]
) -> None:
    columns = "id int NOT NULL, a int NOT NULL, b varchar(9) NOT NULL, maybe int, long_text text NOT NULL"
    either_mysql.execute(f"CREATE TABLE t ({columns}, {definition}); CREATE VIEW v AS SELECT * FROM t")
    assert describe(either_mysql, "t").key == key
    assert describe(either_mysql, "v").key == ()


def test_only_the_table_itself_is_opened_to_describe_it(either_mysql: TestDatabase) -> None:
    """Else a look-up costs a tenth of a millisecond and more for each table of the server."""
    either_mysql.execute("CREATE TABLE items (id int PRIMARY KEY); CREATE TABLE Items (other int PRIMARY KEY)")
    sql = DESCRIBE_OF_MARIADB if either_mysql.is_mariadb else DESCRIBE_OF_MYSQL
    names = (either_mysql.name, "items") * (sql.count("%s") // 2)
    steps = either_mysql.fetch(f"EXPLAIN FORMAT=TRADITIONAL {sql}", *names)
    if either_mysql.is_mariadb:
        assert len(steps) <= 4
        assert not any("all databases" in str(step) for step in steps)
    else:
        # The catalogue is tables of InnoDB: each is read by an index, but for what there is one row of.
        assert not [step for step in steps if step[4] == "ALL" and not str(step[2]).startswith("<")], steps
    schema = with_source(either_mysql, lambda source: described(source, either_mysql, "items"))
    assert [column.name for column in schema.columns] == ["id"]


def test_what_is_not_there_is_refused_by_name(either_mysql: TestDatabase) -> None:
    either_mysql.execute("CREATE TABLE items (id int); CREATE TABLE `Mixed` (id int)")
    assert describe(either_mysql, "Mixed").estimated_rows == 0
    for name in ("nothing", "items ", "ïtems", "iteMs", "mixed"):
        with pytest.raises(SourceRejected, match=f"no table or view {either_mysql.name}.{name}"):
            describe(either_mysql, name)
    with pytest.raises(SourceRejected, match="has no column at; trackingColumn"):
        describe(either_mysql, "items", "at")

    async def without_schema(source: MysqlSource) -> TableSchema:
        return await source.describe(TableName(schema=None, name="items"), "id")

    assert with_source(either_mysql, without_schema).table == table_name(either_mysql, "items")


# A type, a value as SQL, and what SQLite holds in the end.
VALUES: list[tuple[str, str, object]] = [
    ("tinyint", "-128", -128),
    ("bool", "true", 1),
    ("int(5) unsigned zerofill", "42", 42),
    ("bigint", "-9223372036854775808", -(2**63)),
    ("bigint unsigned", "9223372036854775807", 2**63 - 1),
    ("bigint unsigned", "18446744073709551615", "18446744073709551615"),
    ("year", "2155", 2155),
    ("year", "0", 0),
    ("bit(1)", "b'1'", 1),
    ("bit(63)", "b'111'", 7),
    ("bit(64)", "0xffffffffffffffff", str(2**64 - 1)),
    ("bit(64)", "5", 5),
    ("decimal(65,30)", "'12345678901234567890123456789012345.000000000000000000000000000001'", None),
    ("decimal(5,2)", "-1.10", -1.1),
    ("float", "0.1", 0.1),
    ("float", "16777216", 16777216.0),
    ("float", "3.4028234663852886e38", 3.4028235e38),
    ("float", "1.17549435e-38", 1.1754944e-38),
    ("float(7,3)", "1234.567", 1234.567),
    ("double", "0.1", 0.1),
    ("double", "1.7976931348623157e308", 1.7976931348623157e308),
    ("double", "5e-324", 5e-324),
    ("double", "-1.2345678901234567e-300", -1.2345678901234567e-300),
    ("double(20,4)", "123456789012.1235", 123456789012.1235),
    ("char(5)", "'ab  '", "ab"),
    ("varchar(9)", "'007'", "007"),
    ("varchar(9)", "''", ""),
    ("varchar(9) CHARACTER SET latin1", "'é€'", "é€"),
    ("varchar(9) CHARACTER SET utf16", "'é😀'", "é😀"),
    ("mediumtext", "'1e5'", "1e5"),
    ("text", "concat('a', char(0), '😀', char(10))", "a\0😀\n"),
    ("binary(4)", "'ab'", b"ab\0\0"),
    ("varbinary(9)", "0x00ff00", b"\0\xff\0"),
    ("longblob", "''", b""),
    ("date", "'2024-02-29'", "2024-02-29"),
    ("date", "'0000-00-00'", "0000-00-00"),
    ("date", "'2024-00-00'", "2024-00-00"),
    ("datetime", "'2024-02-29 01:02:03'", "2024-02-29T01:02:03.000000"),
    ("datetime(3)", "'9999-12-31 23:59:59.999'", "9999-12-31T23:59:59.999000"),
    ("datetime(6)", "'1000-01-01 00:00:00.000001'", "1000-01-01T00:00:00.000001"),
    ("datetime", "'0000-00-00'", "0000-00-00T00:00:00.000000"),
    ("datetime", "'2024-02-31 01:00:00'", "2024-02-31T01:00:00.000000"),
    ("timestamp NULL", "'2024-02-29 01:02:03'", "2024-02-28T19:32:03.000000Z"),
    ("timestamp(6) NULL", "'2024-02-29 01:02:03.000004'", "2024-02-28T19:32:03.000004Z"),
    ("timestamp NULL", "'0000-00-00'", "0000-00-00T00:00:00.000000Z"),
    ("time", "'-838:59:59'", "-838:59:59"),
    ("time(6)", "'00:00:00.000001'", "00:00:00.000001"),
    ("json", """'{"a": 1.0, "a": [null]}'""", None),
    ("enum('x','é')", "'é'", "é"),
    ("set('a','b')", "'b,a'", "a,b"),
    ("set('a','b')", "''", ""),
    ("geometry", "ST_GeomFromText('POINT(1 2)', 4326)", None),
    ("uuid", "'123e4567-e89b-12d3-a456-426614174000'", "123e4567-e89b-12d3-a456-426614174000"),
    ("inet6", "'::FFFF:1.2.3.4'", "::ffff:1.2.3.4"),
    ("inet4", "'1.2.3.4'", "1.2.3.4"),
]
MYSQL = {
    "json": '{"a": [null]}',
    # The latitude is given first, and kept last.
    "geometry": bytes.fromhex("e6100000" + "01010000000000000000000040000000000000f03f"),
}
SPECIAL = {
    "decimal(65,30)": "12345678901234567890123456789012345.000000000000000000000000000001",
    "json": '{"a": 1.0, "a": [null]}',
    "geometry": bytes.fromhex("e6100000" + "0101000000000000000000f03f0000000000000040"),
}


def test_every_value_reaches_sqlite_as_it_was(either_mysql: TestDatabase) -> None:
    cases = [each for each in VALUES if either_mysql.is_mariadb or each[0] not in MARIADB_ONLY]
    definitions = ", ".join(f"c{number} {kind}" for number, (kind, _, _) in enumerate(cases))
    session = either_mysql.connect()
    # The session's zone is the server's, +05:30; what is read must not depend on it.
    session.execute("SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+05:30'")
    session.execute(f"CREATE TABLE t (id int PRIMARY KEY, {definitions})")
    session.execute(f"INSERT INTO t VALUES (1, {', '.join(value for _, value, _ in cases)})")
    session.execute("INSERT INTO t (id) VALUES (2)")

    async def work(source: MysqlSource) -> tuple[TableSchema, list[Any]]:
        schema = await described(source, either_mysql, "t")
        return schema, await rows_of(source, ReadPlan(schema=schema, in_key_order=True))

    schema, (full, empty) = with_source(either_mysql, work)
    found = in_sqlite(schema, full)[1:]
    special = SPECIAL if either_mysql.is_mariadb else {**SPECIAL, **MYSQL}
    wanted = [special.get(kind, value) for kind, _, value in cases]
    for (kind, sql, _), want, have in zip(cases, wanted, found, strict=True):
        assert (have, type(have)) == (want, type(want)), f"{kind} {sql}"
    assert empty[1:] == (None,) * len(cases)
    assert all(column.cast.known for column in schema.columns)


def test_doubles_and_floats_keep_every_bit(either_mysql: TestDatabase) -> None:
    either_mysql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, d double, f float);"
        "INSERT INTO t SELECT seq, rand(seq) * pow(10, seq % 600 - 300e0), rand(seq) * pow(10, seq % 70 - 37e0)"
        f" FROM {sequence(3000)}"
    )

    async def work(source: MysqlSource) -> list[Any]:
        schema = await described(source, either_mysql, "t")
        return await rows_of(source, ReadPlan(schema=schema))

    rows = with_source(either_mysql, work)
    # The server says by itself whether it is the same number.
    session = either_mysql.connect()
    session.execute("CREATE TEMPORARY TABLE back (id int PRIMARY KEY, d double, f float)")
    for at in range(0, len(rows), 1000):
        values = ", ".join(f"({number}, {d!r}, {f!r})" for number, d, f in rows[at : at + 1000])
        session.execute(f"INSERT INTO back VALUES {values}")
    assert session.fetch("SELECT COUNT(*) FROM t JOIN back USING (id) WHERE t.d = back.d AND t.f = back.f") == [(3000,)]
