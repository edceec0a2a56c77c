"""Situations from public bug reports of tools that do this job: no row lost, no value changed in silence.

docs/reference/reports.md lists them, with what happens here. Each test makes the situation on a real server.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from starbase_data_replication.errors import SourceChanged
from starbase_data_replication.model import TableName
from starbase_data_replication.model.options import Options
from starbase_data_replication.sources.postgresql.dialect import PostgresqlDialect
from starbase_data_replication.sources.protocols import Comparable, Part
from tests.support.hosts import HostProcess, running, until
from tests.support.servers import TestDatabase

pytestmark = pytest.mark.xdist_group("public_reports")
_names = itertools.count(1)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    """One host for all: each test has its own name, database and target."""
    with running(Path(tmp_path_factory.mktemp("reports"))) as host:
        yield host


def configure(host: HostProcess, database: TestDatabase, table: str = "t", **more: Any) -> str:
    """A replication of a table; its name, which is its target's too."""
    name = f"r{next(_names)}"
    body = {"name": name, "sourceConfig": database.source_config, "sourceTable": table, "targetTable": name}
    options = {"isActive": False, "settleSeconds": 0, "lookbackSeconds": 0}
    host.configure(**{**body, **options, **more})
    return name


def ids(host: HostProcess, name: str) -> list[Any]:
    return [row[0] for row in host.query(f"SELECT id FROM {name} ORDER BY id")]


def synced(host: HostProcess, name: str) -> dict[str, Any]:
    run = host.sync(name)
    assert run["status"] == "success", run
    return run


def refusal(host: HostProcess, name: str) -> str:
    """What a sync that must fail says."""
    answer = host.request("POST", f"/data-replication/sync/{name}")
    assert answer.status_code == 502, answer.text
    return str(answer.json()["error"])


def verified(host: HostProcess, name: str) -> dict[str, Any]:
    host.result("POST", f"/data-replication/verify/{name}")
    found: dict[str, Any] = host.status(name)["last_verify"]
    return found


def assert_equal(host: HostProcess, name: str) -> None:
    """Source and replica hold the same, by verify's own comparison."""
    found = verified(host, name)
    assert (found["missing"], found["different"], found["extra"]) == (0, 0, 0), found


NOW = {"postgresql": "clock_timestamp()", "mysql": "now(6)"}
STAMP = {"postgresql": "timestamptz", "mysql": "datetime(6)"}


def test_a_cursor_keeps_its_microseconds(host: HostProcess, source_database: TestDatabase) -> None:
    """A cursor that loses its last digits on the way reads nothing, and moves on."""
    kind = source_database.dialect
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, at {STAMP[kind]} NOT NULL)")
    name = configure(host, source_database, trackingColumn="at")
    for n in range(1, 6):
        source_database.execute(f"INSERT INTO t VALUES ({n}, {NOW[kind]})")
        synced(host, name)
        assert ids(host, name) == list(range(1, n + 1))
    until(lambda: synced(host, name)["rows_read"] == 0, what="a floor that is the last row's own value")


def test_equal_cursors_across_an_interruption(host: HostProcess, source_database: TestDatabase) -> None:
    """Rows of one cursor value, committed one after the other, before and after a sync that has read that value."""
    kind = source_database.dialect
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, at {STAMP[kind]} NOT NULL)")
    name = configure(host, source_database, trackingColumn="at", lookbackSeconds=60)
    (moment,) = source_database.fetch(f"SELECT CAST({NOW[kind]} AS char(26))")[0]
    for n in range(1, 4):
        source_database.execute(f"INSERT INTO t VALUES ({n}, '{moment}')")
        synced(host, name)
    assert ids(host, name) == [1, 2, 3]


def test_unsigned_keys_above_the_signed_limit(host: HostProcess, either_mysql: TestDatabase) -> None:
    """Keys above 2^63 are missed, or make a chunked load go round for ever."""
    either_mysql.execute("CREATE TABLE t (id bigint unsigned PRIMARY KEY, v int)")
    either_mysql.execute("INSERT INTO t VALUES (1, 1), (9223372036854775807, 2), (9223372036854775808, 3)")
    name = configure(host, either_mysql)
    synced(host, name)
    either_mysql.execute("INSERT INTO t VALUES (18446744073709551614, 4)")
    synced(host, name)
    either_mysql.execute("INSERT INTO t VALUES (18446744073709551615, 5)")
    synced(host, name)
    assert host.query(f"SELECT CAST(id AS TEXT), v FROM {name} ORDER BY v") == [
        ["1", 1], ["9223372036854775807", 2], ["9223372036854775808", 3],
        ["18446744073709551614", 4], ["18446744073709551615", 5],
    ]  # fmt: skip
    assert_equal(host, name)


def test_a_key_that_may_be_null_is_refused(host: HostProcess, source_database: TestDatabase) -> None:
    """A walk along a key leaves out the row whose key is NULL."""
    source_database.execute("CREATE TABLE t (id int, v int)")
    source_database.execute("INSERT INTO t VALUES (1, 1), (2, 2), (NULL, 3)")
    name = configure(host, source_database, keyColumns=["id"])
    assert "keyColumns" in refusal(host, name)


def test_infinity_and_nan_are_not_null(host: HostProcess, postgres_database: TestDatabase) -> None:
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamptz, n numeric, f float8)")
    postgres_database.execute(
        "INSERT INTO t VALUES (1, 'infinity', 'NaN', 'NaN'), (2, '-infinity', 'Infinity', '-Infinity'), "
        "(3, '19999-12-31 00:00Z', '-Infinity', 'Infinity')"
    )
    name = configure(host, postgres_database)
    synced(host, name)
    rows = host.query(f"SELECT at, n, f FROM {name} ORDER BY id")
    assert rows[0] == ["infinity", "NaN", "NaN"]
    assert rows[1] == ["-infinity", "Infinity", "-Infinity"]
    assert rows[2][0].startswith("19999-12-31")
    assert_equal(host, name)


def test_zero_dates_stay_what_they_are(host: HostProcess, either_mysql: TestDatabase) -> None:
    """A zero date becomes NULL, or 1970."""
    with either_mysql.connect() as session:
        session.execute("SET sql_mode = 'ALLOW_INVALID_DATES'")
        session.execute(
            "CREATE TABLE t (id int PRIMARY KEY, d date NOT NULL, dt datetime NOT NULL, "
            "ts timestamp NOT NULL DEFAULT '0000-00-00 00:00:00')"
        )
        session.execute("INSERT INTO t VALUES (1, '0000-00-00', '0000-00-00', '0000-00-00'), (2, '2025-00-15', "
                        "'2025-02-31 01:02:03', '1970-01-02 00:00:00')")  # fmt: skip
    name = configure(host, either_mysql)
    synced(host, name)
    rows = host.query(f"SELECT d, dt, ts FROM {name} ORDER BY id")
    assert rows[0][0] == "0000-00-00"
    assert rows[0][1].startswith("0000-00-00")
    assert rows[0][2].startswith("0000-00-00")
    assert rows[1][0] == "2025-00-15"
    assert rows[1][1].startswith("2025-02-31")
    assert_equal(host, name)


def test_the_repeated_hour_of_a_time_zone(host: HostProcess, either_mysql: TestDatabase) -> None:
    """Two moments of the repeated hour in autumn become one, where a session in a named zone reads them."""
    with either_mysql.connect() as session:
        session.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamp NOT NULL)")
        session.execute("SET time_zone = '+00:00'")
        session.execute("INSERT INTO t VALUES (1, '2025-10-26 00:30:00'), (2, '2025-10-26 01:30:00')")
    name = configure(host, either_mysql, trackingColumn="at")
    synced(host, name)
    first, second = (row[0] for row in host.query(f"SELECT at FROM {name} ORDER BY id"))
    assert "00:30:00" in first
    assert "01:30:00" in second


def test_a_key_that_changes_its_case(host: HostProcess, either_mysql: TestDatabase) -> None:
    """To the source 'a' and 'A' are one key. The row under the old spelling stays, until verify or reconcile."""
    either_mysql.execute(
        "CREATE TABLE t (id varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, n int, "
        "at datetime(6) NOT NULL DEFAULT now(6) ON UPDATE now(6))"
    )
    either_mysql.execute("INSERT INTO t (id, n) VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4)")
    name = configure(host, either_mysql, trackingColumn="at", deletes="reconcile")
    synced(host, name)
    either_mysql.execute("UPDATE t SET id = 'A', n = 3 WHERE id = 'a'")
    synced(host, name)
    assert ["A", 3] in host.query(f"SELECT id, n FROM {name}")
    host.result("POST", f"/data-replication/reconcile/{name}")
    assert host.query(f"SELECT id, n FROM {name} ORDER BY id") == [["A", 3], ["b", 2], ["c", 3], ["d", 4]]


def test_values_that_other_tools_shorten(host: HostProcess, postgres_database: TestDatabase) -> None:
    """Midnight at a day's end, an array that does not begin at one, and numbers of JSON beyond 2^53."""
    postgres_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, at time, a int[], j jsonb, i interval, "
        "g int GENERATED ALWAYS AS (id * 2) STORED)"
    )
    postgres_database.execute(
        "INSERT INTO t VALUES (1, '24:00:00', '[5:6]={1,2}', '{\"n\": 12345678901234567890.10}', "
        "'1 mon -1 day 25:00:00')"
    )
    name = configure(host, postgres_database)
    synced(host, name)
    ((at, array, document, interval, generated),) = host.query(f"SELECT at, a, j, i, g FROM {name}")
    assert (at, document, generated) == ("24:00:00", '{"n": 12345678901234567890.10}', 2)
    assert postgres_database.fetch(f"SELECT '{interval}'::interval = '1 mon -1 day 25:00:00'") == [(True,)]
    assert "5" in array or postgres_database.fetch(f"SELECT 1 WHERE '{array}' = '[1,2]'") == [(1,)]
    assert_equal(host, name)


def test_a_text_with_nul_in_it(host: HostProcess, either_mysql: TestDatabase) -> None:
    either_mysql.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(20))")
    either_mysql.execute("INSERT INTO t VALUES (1, CONCAT('a', CHAR(0), 'b'))")
    name = configure(host, either_mysql)
    synced(host, name)
    assert host.query(f"SELECT hex(v) FROM {name}") == [["610062"]]
    assert_equal(host, name)


def test_names_that_formatting_would_change(host: HostProcess, source_database: TestDatabase) -> None:
    """Percent signs and braces in names pass through no formatting."""
    quote = '"' if source_database.dialect == "postgresql" else "`"
    names = ["a%sb", "c{}d", "e%(f)s", "?", ":g", "$1"]
    columns = ", ".join(f"{quote}{name}{quote} int" for name in names)
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})".replace("%", "%"))
    source_database.execute("INSERT INTO t VALUES (1, 1, 2, 3, 4, 5, 6)")
    name = configure(host, source_database)
    synced(host, name)
    assert host.query(f"SELECT * FROM {name}") == [[1, 1, 2, 3, 4, 5, 6]]
    assert_equal(host, name)


def test_rows_later_on_the_day_of_a_date_cursor(host: HostProcess, source_database: TestDatabase) -> None:
    """A sync of today has read today's date; more rows of today come."""
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, day date NOT NULL)")
    today = {"postgresql": "current_date", "mysql": "current_date()"}[source_database.dialect]
    name = configure(host, source_database, trackingColumn="day")
    for n in range(1, 4):
        source_database.execute(f"INSERT INTO t VALUES ({n}, {today})")
        synced(host, name)
        assert ids(host, name) == list(range(1, n + 1))


def test_numbers_inside_an_array_keep_their_digits(host: HostProcess, postgres_database: TestDatabase) -> None:
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, v numeric[], big bigint[])")
    postgres_database.execute("INSERT INTO t VALUES (1, '{0.1,1.10,NULL}', '{9223372036854775807}')")
    name = configure(host, postgres_database)
    synced(host, name)
    ((numbers, big),) = host.query(f"SELECT v, big FROM {name}")
    assert "1.10" in numbers
    assert "0.1000" not in numbers
    assert "9223372036854775807" in big


def test_text_of_any_character_set_is_unicode(host: HostProcess, either_mysql: TestDatabase) -> None:
    """Letters that the destination's own character set lacks become question marks."""
    either_mysql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a varchar(20) CHARACTER SET latin2, b varchar(20) CHARACTER SET cp1251, "
        "c varchar(20) CHARACTER SET sjis, d varchar(20) CHARACTER SET utf8mb4)"
    )
    with either_mysql.connect() as session:
        session.execute("SET NAMES utf8mb4")
        session.execute("INSERT INTO t VALUES (1, 'żółć', 'Привет', '日本語', '🙂')")
    name = configure(host, either_mysql)
    synced(host, name)
    assert host.query(f"SELECT a, b, c, d FROM {name}") == [["żółć", "Привет", "日本語", "🙂"]]
    assert_equal(host, name)


def test_a_key_that_stops_being_unique(host: HostProcess, source_database: TestDatabase) -> None:
    """Of two rows with one key a merge keeps one, and says success."""
    source_database.execute("CREATE TABLE base (id int, v int)")
    source_database.execute("INSERT INTO base VALUES (1, 1), (2, 2)")
    source_database.execute("CREATE VIEW t AS SELECT id, v FROM base")
    name = configure(host, source_database, keyColumns=["id"])
    synced(host, name)
    source_database.execute("INSERT INTO base VALUES (3, 3), (3, 4)")
    assert "keyColumns" in refusal(host, name)


def test_a_partition_that_is_detached(host: HostProcess, postgres_database: TestDatabase) -> None:
    """Its rows are gone from the table: to a replica that is a delete, and deletes says what becomes of them."""
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)")
    postgres_database.execute("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (1) TO (100)")
    postgres_database.execute("CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (100) TO (200)")
    postgres_database.execute("INSERT INTO t VALUES (1, 1), (100, 1), (101, 1), (102, 1), (103, 1)")
    name = configure(host, postgres_database, deletes="reconcile")
    synced(host, name)
    postgres_database.execute("ALTER TABLE t DETACH PARTITION t1")
    synced(host, name)
    assert ids(host, name) == [1, 100, 101, 102, 103]
    host.result("POST", f"/data-replication/reconcile/{name}")
    assert ids(host, name) == [100, 101, 102, 103]


def test_a_rewritten_table_in_a_snapshot_of_a_group(host: HostProcess, postgres_database: TestDatabase) -> None:
    """A table that is rewritten after the snapshot was opened looks empty in it: PostgreSQL's DDL is not all MVCC."""
    postgres_database.execute("CREATE TABLE big (id int PRIMARY KEY, v text)")
    postgres_database.execute("INSERT INTO big SELECT n, repeat('x', 100) FROM generate_series(1, 3000) n")
    postgres_database.execute("CREATE TABLE small (id int PRIMARY KEY, v int)")
    postgres_database.execute("INSERT INTO small SELECT n, n FROM generate_series(1, 100) n")
    together = {"group": f"g{next(_names)}", "isActive": True, "syncIntervalMinutes": 600}
    big = configure(host, postgres_database, "big", maxRowsPerSecond=1000, **together)
    until(lambda: host.status(big)["last_success_at"], what="the first load")
    small = configure(host, postgres_database, "small", **together)
    until(lambda: host.status(small)["last_success_at"], what="the first load of the second")
    postgres_database.execute("INSERT INTO small SELECT n, n FROM generate_series(101, 110) n")
    answer = host.request("POST", f"/data-replication/reset/{big}", None, wait="false")
    assert answer.status_code == 202
    until(lambda: (host.status(big)["progress"] or {}).get("rows", 0) > 0, what="rows of the first")
    postgres_database.execute("ALTER TABLE small ALTER COLUMN v TYPE bigint")
    until(lambda: not host.status(big)["is_running"], seconds=60, what="the end of the run")
    synced(host, big)
    assert len(ids(host, small)) == 110
    assert len(ids(host, big)) == 3000


def test_a_server_that_does_not_list_its_transactions(host: HostProcess, postgres_database: TestDatabase) -> None:
    """Servers that speak PostgreSQL's protocol may have an empty pg_locks: that is not "nobody writes"."""
    postgres_database.execute("CREATE TABLE t (id bigserial PRIMARY KEY, v int)")
    postgres_database.execute("INSERT INTO t (v) VALUES (1)")
    with postgres_database.connect() as session:
        session.execute("SET allow_system_table_mods = on")
        session.execute("ALTER VIEW pg_catalog.pg_locks RENAME TO pg_real_locks")
        session.execute("CREATE VIEW pg_catalog.pg_locks AS SELECT * FROM pg_catalog.pg_real_locks WHERE false")
        session.execute("GRANT SELECT ON pg_catalog.pg_locks TO PUBLIC")
    name = configure(host, postgres_database)
    synced(host, name)
    assert host.status(name)["protection"].startswith("lookback")


@pytest.mark.anyio
async def test_a_rewritten_table_is_not_compared_as_an_empty_one(postgres_database: TestDatabase) -> None:
    """A repair, or a reconciliation, would remove every row of the replica."""
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    postgres_database.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
    source = PostgresqlDialect().open(postgres_database.source_config, max_connections=1)
    try:
        schema = await source.describe(TableName(schema="public", name="t"), "id")
        assert isinstance(source, Comparable)
        async with source.comparing(schema, schema.columns, Options()) as open_snapshot:
            await asyncio.to_thread(postgres_database.execute, "ALTER TABLE t ALTER COLUMN v TYPE bigint")
            with pytest.raises(SourceChanged, match="rewritten"):
                await open_snapshot.summarise([Part()])
    finally:
        await source.close()


def test_a_partition_that_is_attached_with_its_rows(host: HostProcess, postgres_database: TestDatabase) -> None:
    """Its rows appear at once, below the floor: no transaction has given them their values since."""
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)")
    postgres_database.execute("CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (100) TO (200)")
    postgres_database.execute("INSERT INTO t SELECT n, n FROM generate_series(100, 150) n")
    name = configure(host, postgres_database)
    synced(host, name)
    synced(host, name)
    postgres_database.execute("CREATE TABLE t1 (id int PRIMARY KEY, v int)")
    postgres_database.execute("INSERT INTO t1 SELECT n, n FROM generate_series(1, 50) n")
    postgres_database.execute("ALTER TABLE t ATTACH PARTITION t1 FOR VALUES FROM (1) TO (100)")
    run = host.sync(name)
    assert run["status"] == "success", run
    assert ids(host, name) == [*range(1, 51), *range(100, 151)]
    postgres_database.execute("CREATE TABLE t3 PARTITION OF t FOR VALUES FROM (200) TO (300)")
    postgres_database.execute("INSERT INTO t VALUES (200, 1)")
    assert synced(host, name)["rows_read"] <= 2
    assert ids(host, name)[-1] == 200


def test_a_partition_that_is_exchanged(host: HostProcess, mariadb_database: TestDatabase) -> None:
    """The same by EXCHANGE PARTITION."""
    mariadb_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id) "
        "(PARTITION p1 VALUES LESS THAN (100), PARTITION p2 VALUES LESS THAN (200))"
    )
    mariadb_database.execute("INSERT INTO t VALUES (150, 1)")
    name = configure(host, mariadb_database)
    synced(host, name)
    synced(host, name)
    mariadb_database.execute("CREATE TABLE other (id int PRIMARY KEY, v int)")
    mariadb_database.execute("INSERT INTO other VALUES (1, 1), (2, 2)")
    mariadb_database.execute("ALTER TABLE t EXCHANGE PARTITION p1 WITH TABLE other")
    synced(host, name)
    assert ids(host, name) == [1, 2, 150]


@pytest.mark.prove
def test_a_partition_that_is_exchanged_there_and_back(host: HostProcess, either_mysql: TestDatabase) -> None:
    """Between two syncs: the catalogue looks as before. As documented, a verification finds the rows."""
    either_mysql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id) "
        "(PARTITION p1 VALUES LESS THAN (100), PARTITION p2 VALUES LESS THAN (200));"
        "INSERT INTO t VALUES (1, 1), (150, 1); CREATE TABLE other (id int PRIMARY KEY, v int)"
    )
    name = configure(host, either_mysql)
    synced(host, name)
    synced(host, name)
    exchange = "ALTER TABLE t EXCHANGE PARTITION p1 WITH TABLE other"
    either_mysql.execute(f"{exchange}; INSERT INTO other VALUES (2, 2); {exchange}")
    synced(host, name)
    host.request("POST", f"/data-replication/verify/{name}", {"repair": True})
    assert ids(host, name) == [1, 2, 150]


def test_a_table_that_is_swapped_by_renaming(host: HostProcess, source_database: TestDatabase) -> None:
    """A job builds the table beside the old one and renames both: the cursor belongs to a table that is gone."""
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    source_database.execute("INSERT INTO t VALUES (1, 1), (2, 2), (9, 9)")
    name = configure(host, source_database)
    synced(host, name)
    synced(host, name)
    if source_database.dialect == "mysql":
        # It tells when a table was made to the second.
        made = "SELECT create_time < now() FROM information_schema.tables WHERE table_schema = database()"
        until(lambda: source_database.fetch(made)[0][0], what="another second")
    source_database.execute("CREATE TABLE t_new (id int PRIMARY KEY, v int)")
    source_database.execute("INSERT INTO t_new VALUES (3, 3), (4, 4), (9, 90)")
    if source_database.dialect == "postgresql":
        with source_database.connect() as session:
            session.execute("BEGIN")
            session.execute("ALTER TABLE t RENAME TO t_old")
            session.execute("ALTER TABLE t_new RENAME TO t")
            session.execute("COMMIT")
    else:
        source_database.execute("RENAME TABLE t TO t_old, t_new TO t")
    synced(host, name)
    found = dict(host.query(f"SELECT id, v FROM {name}"))
    assert {key: found.get(key) for key in (3, 4, 9)} == {3: 3, 4: 4, 9: 90}


def test_a_view_that_is_redefined(host: HostProcess, source_database: TestDatabase) -> None:
    """The view shows rows that it did not show before: they have old values, and lie below the cursor."""
    source_database.execute("CREATE TABLE now_t (id int PRIMARY KEY, v int)")
    source_database.execute("CREATE TABLE old_t (id int PRIMARY KEY, v int)")
    source_database.execute("INSERT INTO now_t VALUES (10, 1), (11, 1)")
    source_database.execute("INSERT INTO old_t VALUES (1, 1), (2, 1)")
    source_database.execute("CREATE VIEW t AS SELECT id, v FROM now_t")
    name = configure(host, source_database, keyColumns=["id"])
    synced(host, name)
    synced(host, name)
    source_database.execute("CREATE OR REPLACE VIEW t AS SELECT id, v FROM now_t UNION ALL SELECT id, v FROM old_t")
    synced(host, name)
    assert ids(host, name) == [1, 2, 10, 11]


def test_a_table_that_is_only_rewritten_is_not_loaded_again(host: HostProcess, source_database: TestDatabase) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    source_database.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
    name = configure(host, source_database)
    synced(host, name)
    until(lambda: synced(host, name)["rows_read"] == 0, what="a floor")
    source_database.execute("VACUUM FULL t" if source_database.dialect == "postgresql" else "OPTIMIZE TABLE t")
    run = synced(host, name)
    assert (run["rows_read"], run["warnings"]) == (0, [])


def test_a_table_that_is_emptied_and_filled_again(host: HostProcess, source_database: TestDatabase) -> None:
    """A job empties the table and fills it with as many rows, of the same ids: nothing lies above the cursor."""
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    source_database.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
    name = configure(host, source_database)
    synced(host, name)
    synced(host, name)
    source_database.execute("TRUNCATE TABLE t")
    source_database.execute("INSERT INTO t VALUES (1, 10), (2, 20)")
    synced(host, name)
    found = host.query(f"SELECT v FROM {name} ORDER BY id")
    if not source_database.is_mariadb:
        assert found == [[10], [20]]
    else:
        # Nothing that costs little tells of it there: verify does.
        assert (found, verified(host, name)["different"]) == ([[1], [2]], 2)
