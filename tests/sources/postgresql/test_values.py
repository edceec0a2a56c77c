"""Every value of PostgreSQL arrives intact: generated ones of every type, through a host, rebuilt from the replica."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import apsw
import pytest

from starbase_data_replication.model.casts import NOT_EXACT
from starbase_data_replication.sources.postgresql.types import CASTS
from tests.support.hosts import running
from tests.support.postgresql_texts import generated
from tests.support.postgresql_types import KINDS, USER_TYPES, Kind, create_extensions, digits, has_xml
from tests.support.servers import TestDatabase

# What a source may be set to, by its administrator or for one role: nothing of it may show in a value.
STRANGE = """
    ALTER DATABASE {name} SET TimeZone = 'Pacific/Chatham'; ALTER DATABASE {name} SET DateStyle = 'SQL, DMY';
    ALTER DATABASE {name} SET IntervalStyle = 'sql_standard'; ALTER DATABASE {name} SET extra_float_digits = -15;
    ALTER DATABASE {name} SET bytea_output = 'escape'; ALTER DATABASE {name} SET xmloption = 'document';
    ALTER DATABASE {name} SET standard_conforming_strings = off; ALTER DATABASE {name} SET array_nulls = off;
    ALTER DATABASE {name} SET quote_all_identifiers = on;
    ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'
"""
EXACT = "SET TimeZone = 'UTC'; SET extra_float_digits = 3; SET array_nulls = on; SET standard_conforming_strings = on"
# The years whose text has four digits: only those sort as text.
FAR = re.compile(r"[0-9]{5,}-|.* BC")


def test_values_of_every_type(either_postgres: TestDatabase, tmp_path: Path) -> None:
    check(either_postgres, tmp_path, count=12, seed=1)


@pytest.mark.prove
@pytest.mark.parametrize("seed", [2, 3])
def test_many_values_of_every_type(either_postgres: TestDatabase, tmp_path: Path, seed: int) -> None:
    check(either_postgres, tmp_path, count=150, seed=seed)


def check(database: TestDatabase, directory: Path, *, count: int, seed: int) -> None:
    extensions = create_extensions(database) | ({"xml"} if has_xml(database) else set())
    kinds = {name: kind for name, kind in KINDS.items() if not kind.needs or kind.needs in extensions}
    database.execute(USER_TYPES)
    values = {name: generated(kind.values, count, seed) for name, kind in kinds.items()}
    rows = max(map(len, values.values()))
    columns = [[column[n % len(column)] for n in range(rows)] for column in values.values()]
    create(database, "zoo", kinds)
    fill(database, "zoo", kinds, columns)
    database.execute(STRANGE.format(name=database.name))
    with running(directory) as host:
        body = {"name": "zoo", "sourceConfig": database.source_config, "sourceTable": "zoo", "targetTable": "zoo"}
        host.configure(**body, trackingColumn="id", isActive=False, types={"numeric_text": "text"})
        run = host.sync("zoo")
        assert (run["status"], run["rows_read"]) == ("success", rows)
        replica = apsw.Connection(str(host.database), flags=apsw.SQLITE_OPEN_READONLY)
        assert set(run["warnings"]) == told_of_decimals(replica, kinds)
        stored = [list(row) for row in replica.execute('SELECT * FROM "zoo" ORDER BY "id"')]
        found = host.result("POST", "/data-replication/verify/zoo")
        assert (found["missing"], found["extra"], found["different"], found["rows_compared"]) == (0, 0, 0, rows)
        replica.close()
    rebuilt = [
        [None if row[at] is None else kind.rebuilt(row[at]) for row in stored]
        for at, kind in enumerate(kinds.values(), 1)
    ]
    create(database, "rebuilt", kinds)
    fill(database, "rebuilt", kinds, rebuilt)
    compare(database, kinds)
    check_order(database, kinds, host.database)


def told_of_decimals(replica: apsw.Connection, kinds: dict[str, Kind]) -> set[str]:
    """The warnings that count the decimals which are text."""
    found = set()
    declared = dict(replica.execute("SELECT name, type FROM pragma_table_info('zoo')"))
    for name, kind in kinds.items():
        if kind.rebuilt is digits and declared[name] == "":
            count = replica.execute(f"SELECT count(*) FROM zoo WHERE typeof(\"{name}\") = 'text'").get
            found |= {f"column {name}: of the values read, {count} {NOT_EXACT}"} if count else set()
    assert found
    return found


def create(database: TestDatabase, table: str, kinds: dict[str, Kind]) -> None:
    columns = ", ".join(f'"{name}" {kind.sql}' for name, kind in kinds.items())
    database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, {columns})")


def fill(database: TestDatabase, table: str, kinds: dict[str, Kind], columns: list[list[Any]]) -> None:
    """Columns of texts, which the source reads as their types."""
    count = len(columns[0])
    lists = ", ".join(f"${n}::text[]" for n in range(1, len(kinds) + 1))
    names = ", ".join(f"c{n}" for n in range(len(kinds)))
    expressions = ", ".join(f"c{n}{kind.via}::{kind.sql}" for n, kind in enumerate(kinds.values()))
    with database.connect() as session:
        session.execute(EXACT)
        sql = f"INSERT INTO {table} SELECT i, {expressions} FROM unnest({lists}) WITH ORDINALITY AS s ({names}, i)"
        session.execute(sql, *columns)
        assert session.fetch(f"SELECT count(*) FROM {table}") == [(count,)]


def compare(database: TestDatabase, kinds: dict[str, Kind]) -> None:
    """Bit by bit (*<>), and by the source's own text."""
    with database.connect() as session:
        session.execute(EXACT)
        wrong = []
        for name in kinds:
            a, b = f'z."{name}"', f'r."{name}"'
            wrong += [
                (name, *row)
                for row in session.fetch(
                    f"SELECT z.id, {a}::text, {b}::text FROM zoo z JOIN rebuilt r USING (id) "
                    f"WHERE ROW({a})::record *<> ROW({b})::record OR {a}::text IS DISTINCT FROM {b}::text"
                )
            ]
        assert wrong == []


def check_order(database: TestDatabase, kinds: dict[str, Kind], replica: Path) -> None:
    """Types that the ledger says sort: SQLite has the source's order. Of times, the years of four digits."""
    sorting = [name for name in kinds if name in CASTS and CASTS[name].sorts]
    sorting += ["numeric_12_2", "numeric_15_15", "numeric_15_0", "numeric_18_0"]
    assert len(sorting) > 15
    connection = apsw.Connection(str(replica), flags=apsw.SQLITE_OPEN_READONLY)
    with database.connect() as session:
        for name in sorting:
            ids = [row[0] for row in connection.execute(f'SELECT id, "{name}" FROM zoo') if not FAR.match(str(row[1]))]
            within = f"id IN ({','.join(map(str, ids))})"
            ranks = f'SELECT id, dense_rank() OVER (ORDER BY "{name}" NULLS FIRST) FROM zoo WHERE {within} ORDER BY id'
            assert list(connection.execute(ranks)) == session.fetch(ranks), name
    connection.close()
