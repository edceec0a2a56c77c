"""The ledger of MySQL's and MariaDB's types: each example is what the server's value becomes."""

from __future__ import annotations

from starbase_data_replication.sources.mysql.source import MysqlSource
from starbase_data_replication.sources.mysql.types import CASTS
from starbase_data_replication.sources.protocols import ReadPlan
from tests.support.mysql_sources import described, in_sqlite, rows_of, with_source
from tests.support.mysql_types import MARIADB_ONLY, MYSQL_ONLY, back
from tests.support.servers import TestDatabase

# What a type must be given to hold the example of the ledger.
SIZES = {
    "char": "(9)", "varchar": "(9)", "binary": "(4)", "varbinary": "(4)", "decimal": "(20,2)", "time": "(1)",
    "bit": "(8)", "enum": "('new')", "set": "('a','b','c')", "int": " unsigned",
}  # fmt: skip
# Types of geometry that a point is not.
GEOMETRIES = {
    "linestring": "ST_GeomFromText('LINESTRING(0 0, 1 1)')",
    "polygon": "ST_GeomFromText('POLYGON((0 0, 1 1, 0 1, 0 0))')",
    "multipoint": "ST_GeomFromText('MULTIPOINT(0 0)')",
    "multilinestring": "ST_GeomFromText('MULTILINESTRING((0 0, 1 1))')",
    "multipolygon": "ST_GeomFromText('MULTIPOLYGON(((0 0, 1 1, 0 1, 0 0)))')",
    "geometrycollection": "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(0 0))')",
    "geomcollection": "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(0 0))')",
}
# MySQL keeps what a document means, and not its text; its times end with a whole second.
ON_MYSQL = {"json": '{"a": 2}', "time": "-838:59:59.0"}


def test_each_example_of_the_ledger_is_what_its_type_becomes(either_mysql: TestDatabase) -> None:
    session = either_mysql.connect()
    session.execute("SET sql_mode = '', time_zone = '+00:00'")
    found = {}
    elsewhere = MYSQL_ONLY if either_mysql.is_mariadb else MARIADB_ONLY
    types = {name: cast for name, cast in CASTS.items() if name not in elsewhere}
    assert len(types) == len(CASTS) - len(elsewhere)
    for number, (name, cast) in enumerate(types.items()):
        value = f"X'{cast.example[2:]}'" if cast.declared == "BLOB" else back(cast.example, "TEXT", name)
        value = cast.example if name.startswith("bit") else GEOMETRIES.get(name, value)
        session.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY, v {name}{SIZES.get(name, '')} NULL)")
        session.execute(f"INSERT INTO t{number} VALUES (1, {value})")

    async def work(source: MysqlSource) -> None:
        for number, name in enumerate(types):
            schema = await described(source, either_mysql, f"t{number}")
            assert schema.columns[1].cast.known
            (row,) = await rows_of(source, ReadPlan(schema=schema))
            found[name] = in_sqlite(schema, row)[1]

    with_source(either_mysql, work)
    for name, cast in types.items():
        assert cast.form, name
        if not GEOMETRIES.get(name):
            shown = f"\\x{found[name].hex()}" if cast.declared == "BLOB" else str(found[name])
            assert shown == (cast.example if either_mysql.is_mariadb else ON_MYSQL.get(name, cast.example)), name
