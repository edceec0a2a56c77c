"""Which late-commit protection is in force, as the status tells it, and the cases that it must cover one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import HostProcess, running, until
from tests.support.servers import TestDatabase, sequence

NOW = {"postgresql": "now()", "mysql": "now(6)"}


def configure(host: HostProcess, database: TestDatabase, **more: Any) -> None:
    body = {"name": "t", "sourceConfig": database.source_config, "sourceTable": "t", "targetTable": "t"}
    host.configure(**{**body, "isActive": False, "lookbackSeconds": 0, "closeWaitSeconds": 0, **more})


def ids(host: HostProcess) -> list[int]:
    return [row[0] for row in host.query("SELECT id FROM t ORDER BY id")]


def test_transactions_protect(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source_database.execute("INSERT INTO t VALUES (1)")
    with running(tmp_path) as host:
        configure(host, source_database)
        host.sync("t")
        assert host.status("t")["protection"].startswith("transactions")


def test_a_sequence_with_a_cache_is_found(postgres_database: TestDatabase, tmp_path: Path) -> None:
    postgres_database.execute("CREATE SEQUENCE apart CACHE 50")
    for table in (
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 20) PRIMARY KEY, x int)",
        "CREATE TABLE t (id bigint DEFAULT nextval('apart') PRIMARY KEY, x int)",
    ):
        postgres_database.execute(f"DROP TABLE IF EXISTS t; {table}; INSERT INTO t (x) VALUES (1)")
        with running(tmp_path) as host:
            configure(host, postgres_database, lookbackSeconds=None)
            host.result("POST", "/data-replication/reset/t")
            protection = host.status("t")["protection"]
            assert protection.startswith("lookback")
            assert "CACHE" in protection


def test_a_transaction_that_has_written_nothing_yet(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """It has taken its now(), nothing more, when the sync looks; pg_locks knows it all the same."""
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT now())")
    with running(tmp_path) as host:
        configure(host, postgres_database, trackingColumn="at", settleSeconds=0)
        host.sync("t")
        late = postgres_database.connect()
        late.execute("BEGIN")
        late.execute("SELECT now()")
        for number in range(1, 6):
            postgres_database.execute(f"INSERT INTO t VALUES ({number})")
            host.sync("t")
        late.execute("INSERT INTO t VALUES (100)")
        late.execute("COMMIT")
        host.sync("t")
        assert ids(host) == [1, 2, 3, 4, 5, 100]


def test_a_prepared_transaction(source_database: TestDatabase, tmp_path: Path) -> None:
    """Prepared after the watermark was noted, committed from another session much later."""
    column = {"postgresql": "timestamptz DEFAULT now()", "mysql": "timestamp(6) DEFAULT now(6)"}
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, at {column[source_database.dialect]})")
    xa = source_database.dialect == "mysql"
    with running(tmp_path) as host:
        configure(host, source_database, trackingColumn="at", settleSeconds=0)
        host.sync("t")
        late = source_database.connect()
        late.execute("XA START 'late'" if xa else "BEGIN")
        late.execute("INSERT INTO t (id) VALUES (100)")
        source_database.execute("INSERT INTO t (id) VALUES (1)")
        host.sync("t")
        if xa:
            late.execute("XA END 'late'")
        late.execute("XA PREPARE 'late'" if xa else "PREPARE TRANSACTION 'late'")
        late.close()
        for number in range(2, 5):
            source_database.execute(f"INSERT INTO t (id) VALUES ({number})")
            host.sync("t")
        until(
            lambda: commits(source_database, "XA COMMIT 'late'" if xa else "COMMIT PREPARED 'late'"), what="the commit"
        )
        host.sync("t")
        assert ids(host) == [1, 2, 3, 4, 100]


def commits(database: TestDatabase, sql: str) -> bool:
    """MariaDB lets another session have a prepared transaction only once its first one has quite gone."""
    try:
        database.execute(sql)
    except Exception as error:
        if "1397" not in str(error):
            raise
        return False
    return True


@pytest.mark.elsewhere_in_prove
def test_equal_values_in_different_syncs(source_database: TestDatabase, tmp_path: Path) -> None:
    """The same second of a column without fractions, in sync after sync."""
    column = {"postgresql": "timestamp(0)", "mysql": "datetime"}[source_database.dialect]
    default = {"postgresql": "localtimestamp", "mysql": "now()"}[source_database.dialect]
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, at {column} DEFAULT {default})")
    with running(tmp_path) as host:
        configure(host, source_database, trackingColumn="at", settleSeconds=0)
        for number in range(1, 41):
            source_database.execute(f"INSERT INTO t (id) VALUES ({number})")
            host.sync("t")
        assert ids(host) == list(range(1, 41))


@pytest.mark.elsewhere_in_prove
def test_a_bulk_load_with_one_timestamp_is_read_again_only_until_it_is_closed(
    source_database: TestDatabase, tmp_path: Path
) -> None:
    postgresql = source_database.dialect == "postgresql"
    source_database.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, at {'timestamptz' if postgresql else 'timestamp(6)'})"
    )
    past = "now() - interval '1 hour'" if postgresql else "now(6) - interval 1 hour"
    numbers = "generate_series(1, 100000) n" if postgresql else f"(SELECT seq AS n FROM {sequence(100000)}) s"
    with running(tmp_path) as host:
        configure(host, source_database, trackingColumn="at")
        source_database.execute(f"INSERT INTO t VALUES (0, {past})")
        host.sync("t")
        source_database.execute(f"INSERT INTO t SELECT n, {NOW[source_database.dialect]} FROM {numbers}")
        assert host.sync("t")["rows_read"] == 100_000

        def closed() -> bool:
            run = host.sync("t")
            assert run["records_processed"] == 0
            return int(run["rows_read"]) == 0

        until(closed, what="the closing of the value")
        assert host.sync("t")["rows_read"] == 0


@pytest.mark.elsewhere_in_prove
def test_rows_of_the_future_are_read_every_time_and_lift_nothing(source_database: TestDatabase, tmp_path: Path) -> None:
    column = {"postgresql": "timestamptz DEFAULT now()", "mysql": "datetime(6) DEFAULT now(6)"}
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, at {column[source_database.dialect]})")
    source_database.execute("INSERT INTO t VALUES (1, '2099-01-01 00:00:00')")
    with running(tmp_path) as host:
        configure(host, source_database, trackingColumn="at", settleSeconds=0)
        for number in range(2, 6):
            source_database.execute(f"INSERT INTO t (id) VALUES ({number})")
            host.sync("t")
        assert ids(host) == [1, 2, 3, 4, 5]
        assert "2099" not in (host.status("t")["watermark"] or "")
        run = host.sync("t")
        assert run["records_processed"] == 0
        assert any("future" in warning and "1 row" in warning for warning in run["warnings"])


@pytest.mark.elsewhere_in_prove
@pytest.mark.parametrize(
    ("types", "values"),
    [
        (("smallint", "smallint"), "{}"),
        (("bigint", "bigint unsigned"), "{} + 9223372036854775000"),
        (("numeric(30,10)", "decimal(30,10)"), "{} + 123456789012345678.0000000001"),
        (("text", "varchar(20)"), "'{}'"),
        (("uuid", "binary(16)"), "'0190e1b2-0000-7000-8000-00000000000{}'"),
        (("date", "date"), "'2001-01-0{}'"),
    ],
)
def test_a_tracking_column_of_any_ordered_type(
    source_database: TestDatabase, tmp_path: Path, types: tuple[str, str], values: str
) -> None:
    """Compared by the source in its own type: nothing is lost to a double, to text order or to a sign."""
    column = types[0] if source_database.dialect == "postgresql" else types[1]
    if column == "bigint":
        values = "{} + 9223372036854775000 - 1"
    if column == "binary(16)":
        values = "unhex(replace('0190e1b2-0000-7000-8000-00000000000{}', '-', ''))"
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {column} NOT NULL)")
    with running(tmp_path) as host:
        configure(host, source_database, trackingColumn="v")
        for number in range(1, 8):
            source_database.execute(f"INSERT INTO t VALUES ({number}, {values.format(number)})")
            run = host.sync("t")
            assert run["records_processed"] == 1
        assert host.sync("t")["rows_read"] <= 1
        assert ids(host) == list(range(1, 8))


def test_nan_never_becomes_the_floor(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """NaN stands above every number: as a floor it would hide all rows to come."""
    for kind in ("numeric", "float8"):
        postgres_database.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, v {kind} NOT NULL)")
        postgres_database.execute("INSERT INTO t VALUES (1, 1), (2, 'NaN'), (3, 'Infinity')")
        with running(tmp_path) as host:
            configure(host, postgres_database, trackingColumn="v")
            host.result("POST", "/data-replication/reset/t")
            for number in (4, 5):
                postgres_database.execute(f"INSERT INTO t VALUES ({number}, {number})")
                host.sync("t")
            assert ids(host) == [1, 2, 3, 4, 5]


def test_an_ordinary_role_is_enough(postgres_database: TestDatabase, tmp_path: Path) -> None:
    """SELECT on the table and nothing else: the transactions of other roles are seen all the same."""
    role = f"reader_{postgres_database.name[-8:]}"
    postgres_database.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT now())")
    postgres_database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'a password'; GRANT SELECT ON t TO {role}")
    config = {**postgres_database.source_config, "user": role, "password": "a password"}
    try:
        with running(tmp_path) as host:
            configure(host, postgres_database, sourceConfig=config, trackingColumn="at", settleSeconds=0)
            host.sync("t")
            late = postgres_database.connect()
            late.execute("BEGIN")
            late.execute("INSERT INTO t VALUES (100)")
            for number in range(1, 4):
                postgres_database.execute(f"INSERT INTO t VALUES ({number})")
                host.sync("t")
            late.execute("COMMIT")
            host.sync("t")
            assert ids(host) == [1, 2, 3, 100]
            assert host.status("t")["protection"].startswith("transactions")
    finally:
        postgres_database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.elsewhere_in_prove
def test_a_long_transaction_bounds_the_second_reading(source_database: TestDatabase, tmp_path: Path) -> None:
    """While it is open, a sync reads what has changed since it began, not the table; and waits for it only once."""
    postgresql = source_database.dialect == "postgresql"
    column = "timestamptz DEFAULT now()" if postgresql else "timestamp(6) NOT NULL DEFAULT now(6)"
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, at {column})")
    past = "now() - interval '1 hour'" if postgresql else "now(6) - interval 1 hour"
    numbers = "generate_series(1, 5000) n" if postgresql else f"(SELECT seq AS n FROM {sequence(5000)}) s"
    source_database.execute(f"INSERT INTO t SELECT n, {past} FROM {numbers}")
    with running(tmp_path) as host:
        configure(host, source_database, trackingColumn="at", settleSeconds=0, closeWaitSeconds=2)
        host.sync("t")
        host.sync("t")
        late = source_database.connect()
        late.execute("BEGIN")
        late.execute("INSERT INTO t (id) VALUES (100000)")
        for number in range(1, 9):
            source_database.execute(f"INSERT INTO t (id) VALUES ({10000 + number})")
            run = host.sync("t")
            assert run["records_processed"] == 1
            assert run["rows_read"] <= number
            assert number == 1 or run["sync_duration_ms"] < 1500
        late.execute("COMMIT")
        host.sync("t")
        assert host.query("SELECT count(*) FROM t") == [[5009]]
