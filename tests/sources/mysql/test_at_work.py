"""What a MySQL or MariaDB in daily use goes through: locks, changes of tables and settings, crashes, replicas.

None of it may cost a row: after one more sync that succeeds, the replica is equal.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from starbase_data_replication.errors import SourceUnavailable
from starbase_data_replication.sources.mysql import connection
from starbase_data_replication.sources.mysql.source import MysqlSource
from starbase_data_replication.sources.protocols import ReadPlan
from tests.support.hosts import HostProcess, running, until
from tests.support.mysql_sources import described, rows_of, with_source
from tests.support.servers import TestDatabase, sequence

# Those of MySQL 8.0 to 9.7 and of MariaDB 10.11 to 11.8; a server has most of them.
MODES = [
    "ALLOW_INVALID_DATES", "ANSI", "ANSI_QUOTES", "DB2", "EMPTY_STRING_IS_NULL", "ERROR_FOR_DIVISION_BY_ZERO",
    "HIGH_NOT_PRECEDENCE", "IGNORE_BAD_TABLE_OPTIONS", "IGNORE_SPACE", "MAXDB", "MSSQL", "MYSQL323", "MYSQL40",
    "NO_AUTO_CREATE_USER", "NO_AUTO_VALUE_ON_ZERO", "NO_BACKSLASH_ESCAPES", "NO_DIR_IN_CREATE",
    "NO_ENGINE_SUBSTITUTION", "NO_FIELD_OPTIONS", "NO_KEY_OPTIONS", "NO_TABLE_OPTIONS", "NO_UNSIGNED_SUBTRACTION",
    "NO_ZERO_DATE", "NO_ZERO_IN_DATE", "ONLY_FULL_GROUP_BY", "ORACLE", "PAD_CHAR_TO_FULL_LENGTH", "PIPES_AS_CONCAT",
    "POSTGRESQL", "REAL_AS_FLOAT", "SIMULTANEOUS_ASSIGNMENT", "STRICT_ALL_TABLES", "STRICT_TRANS_TABLES",
    "TIME_ROUND_FRACTIONAL", "TIME_TRUNCATE_FRACTIONAL", "TRADITIONAL",
]  # fmt: skip
# Values that a mode may read, compare or show otherwise.
TOUCHY = (
    "CREATE TABLE t (id bigint unsigned PRIMARY KEY, c char(9), b binary(3), v varchar(20), n decimal(9, 3) unsigned, "
    "f float, d double, day date, at datetime(3), ts timestamp(3) NULL)"
)
NO_MODE = "SET sql_mode = ''"
TOUCHY_ROW = (
    r"INSERT INTO t VALUES ({id}, 'a ', 'a', 'c:\\new \' \" {id}', 1.005, 1.1, 1e-300, '0000-00-00', "
    "'2026-02-30 01:02:03.0045', '2026-01-01 00:00:00.9995')"
)
# Keys that one of these collations takes for the same, and the others do not.
KEYS = ("a", "A", "a ", "á", "ä", "ae", "æ", "Z", "z", "ß", "ss", "", "😀", "日", "本", "ｱ", "ア", "l·l", "Ł")


@pytest.fixture(scope="module", name="served")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(tmp_path_factory.mktemp("work")) as host:
        yield host


@pytest.fixture(name="host")
def _host(served: HostProcess) -> Iterator[HostProcess]:
    yield served
    served.result("DELETE", "/data-replication/configure/t")
    served.query("DROP TABLE t")


def configure(host: HostProcess, database: TestDatabase, **more: Any) -> None:
    body = {"name": "t", "sourceConfig": database.source_config, "sourceTable": "t", "targetTable": "t"}
    host.configure(**{**body, "trackingColumn": "id", "isActive": False, "lookbackSeconds": 0, **more})


def synced(host: HostProcess, name: str = "t") -> dict[str, Any]:
    run = host.sync(name)
    assert run["status"] == "success", run
    return run


def differences(host: HostProcess, name: str = "t") -> tuple[int, int, int]:
    found = host.result("POST", f"/data-replication/verify/{name}", {})
    return found["missing"], found["extra"], found["different"]


@contextlib.contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Do some work in another thread, and wait for its end. What it raises fails the test."""
    raised: list[BaseException] = []

    def worker() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=worker)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not raised, raised


def waiting_for_the_table(database: TestDatabase, count: int) -> bool:
    sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = %s AND state LIKE 'Waiting for table%%'"
    ((found,),) = database.fetch(sql, database.name)
    return bool(found >= count)


def test_a_sync_waits_for_a_locked_table(either_mysql: TestDatabase, host: HostProcess) -> None:
    either_mysql.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    configure(host, either_mysql)
    synced(host)
    holder = either_mysql.connect()
    holder.execute("LOCK TABLES t WRITE")
    with meanwhile(lambda: synced(host)):
        until(lambda: waiting_for_the_table(either_mysql, 1), what="the sync's wait")
        holder.execute("INSERT INTO t VALUES (2); UNLOCK TABLES")
    synced(host)
    assert host.query("SELECT id FROM t ORDER BY id") == [[1], [2]]


def test_a_sync_waits_behind_an_alter_that_waits(either_mysql: TestDatabase, host: HostProcess) -> None:
    """A statement that comes after an ALTER waits for it, and that for a transaction which has read the table."""
    either_mysql.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    configure(host, either_mysql, onSchemaChange="backfill", closeWaitSeconds=0)
    synced(host)
    holder = either_mysql.connect()
    holder.execute("BEGIN")
    holder.fetch("SELECT * FROM t")
    with meanwhile(lambda: either_mysql.execute("ALTER TABLE t ADD COLUMN v int DEFAULT 7")):
        until(lambda: waiting_for_the_table(either_mysql, 1), what="the ALTER's wait")
        with meanwhile(lambda: synced(host)):
            until(lambda: waiting_for_the_table(either_mysql, 2), what="the sync's wait")
            holder.execute("COMMIT")
    either_mysql.execute("INSERT INTO t (id) VALUES (2)")
    synced(host)
    assert host.query("SELECT id, v FROM t ORDER BY id") == [[1, 7], [2, 7]]


def test_a_wait_for_a_locked_table_ends(either_mysql: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """After five minutes, here after one second; and the same source goes on once the table is free."""
    either_mysql.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    assert "lock_wait_timeout = 300" in connection.SETTINGS
    monkeypatch.setattr(
        connection, "SETTINGS", connection.SETTINGS.replace("lock_wait_timeout = 300", "lock_wait_timeout = 1")
    )

    async def work(source: MysqlSource) -> None:
        schema = await described(source, either_mysql, "t")
        plan = ReadPlan(schema=schema)
        holder = either_mysql.connect()
        holder.execute("LOCK TABLES t WRITE")
        with pytest.raises(SourceUnavailable, match=r"(?i)reading .*lock wait timeout"):
            await rows_of(source, plan)
        holder.execute("UNLOCK TABLES")
        assert [row[0] for row in await rows_of(source, plan)] in ([1], ["1"])

    with_source(either_mysql, work)


def test_instant_changes_amid_syncs(either_mysql: TestDatabase, host: HostProcess) -> None:
    """Rows of before and after lie in one table in different forms, and nothing is rewritten."""
    either_mysql.execute("CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, a int)")
    changes = [
        "ADD COLUMN b varchar(9) DEFAULT 'b'",
        "ADD COLUMN c int DEFAULT 5 FIRST",
        "DROP COLUMN a",
        "DROP COLUMN b",
    ]
    insert = "INSERT INTO t (id) VALUES (NULL), (NULL)"

    def work() -> None:
        for change in changes:
            either_mysql.execute(insert)
            either_mysql.execute(f"ALTER TABLE t {change}, ALGORITHM=INSTANT")
            either_mysql.execute(insert)

    configure(host, either_mysql, onSchemaChange="backfill")
    synced(host)
    done = Thread(target=work)
    done.start()
    while done.is_alive():
        answer = host.request("POST", "/data-replication/sync/t")
        # Two changes within one sync end it, and the next one goes on.
        changed = "Unknown column" in answer.text or "Table definition has changed" in answer.text
        assert answer.status_code == 200 or changed, answer.text
    done.join()
    synced(host)
    assert host.query("SELECT COUNT(*), MIN(id), MAX(id) FROM t") == [
        list(row) for row in either_mysql.fetch("SELECT COUNT(*), MIN(id), MAX(id) FROM t")
    ]
    assert differences(host) == (0, 0, 0)


@pytest.mark.prove
def test_every_sql_mode(either_mysql: TestDatabase, tmp_path: Path) -> None:
    """Each as the server's: a load, an incremental sync and a comparison."""
    session = either_mysql.connect()
    session.execute(NO_MODE)
    session.execute(TOUCHY)
    ((before,),) = either_mysql.fetch("SELECT @@GLOBAL.sql_mode")
    met = []
    with running(tmp_path) as host:
        try:
            for number, mode in enumerate(MODES):
                with contextlib.suppress(Exception):
                    session.execute(f"SET GLOBAL sql_mode = '{mode}'")
                    met.append(mode)
                if mode not in met:
                    continue
                end_sessions(either_mysql, session)
                session.execute(TOUCHY_ROW.format(id=2 * number))
                configure(host, either_mysql, name=mode, targetTable=f"t_{mode}")
                synced(host, mode)
                session.execute(TOUCHY_ROW.format(id=2 * number + 1))
                synced(host, mode)
                assert differences(host, mode) == (0, 0, 0), mode
                assert host.query(f'SELECT COUNT(*), c, v FROM "t_{mode}" WHERE id = {2 * number + 1}') == [
                    [1, "a", f"c:\\new ' \" {2 * number + 1}"]
                ], mode
        finally:
            session.execute("SET GLOBAL sql_mode = %s", before)
    assert len(met) >= 20, met


def end_sessions(database: TestDatabase, spared: Any) -> None:
    """So that new ones begin, with the settings that the server has now."""
    ((own,),) = spared.fetch("SELECT CONNECTION_ID()")
    sql = "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> %s"
    for (thread,) in spared.fetch(sql, database.name, own):
        with contextlib.suppress(Exception):
            spared.execute(f"KILL {thread}")


@pytest.mark.prove
def test_a_server_whose_time_zone_changes(either_mysql: TestDatabase, host: HostProcess) -> None:
    """A TIMESTAMP is a moment in each of them; a DATETIME is what is written there."""
    either_mysql.execute(
        "CREATE TABLE t (id int PRIMARY KEY, ts timestamp(6) NOT NULL DEFAULT now(6), at datetime(6) DEFAULT now(6))"
    )
    ((before,),) = either_mysql.fetch("SELECT @@GLOBAL.time_zone")
    session = either_mysql.connect()
    configure(host, either_mysql, trackingColumn="ts", settleSeconds=0)
    try:
        for number, zone in enumerate(("+13:00", "-12:00", "SYSTEM", "+05:45", "-00:30")):
            session.execute(f"SET GLOBAL time_zone = '{zone}'; SET time_zone = '{zone}'")
            end_sessions(either_mysql, session)
            session.execute(f"INSERT INTO t (id) VALUES ({number})")
            synced(host)
            assert host.query("SELECT COUNT(*) FROM t") == [[number + 1]], zone
    finally:
        session.execute("SET GLOBAL time_zone = %s", before)
    assert differences(host) == (0, 0, 0)


@pytest.mark.parametrize(
    "collation", ["ai_ci", pytest.param("as_cs", marks=pytest.mark.prove), pytest.param("bin", marks=pytest.mark.prove)]
)
@pytest.mark.parametrize("tracking", [pytest.param("id", marks=pytest.mark.prove), "k"])
def test_keys_of_a_collation_that_fills_up_with_nothing(
    either_mysql: TestDatabase, host: HostProcess, collation: str, tracking: str
) -> None:
    """MySQL's default since 8.0: 'a' and 'a ' are two keys, in it and in the order of a load."""
    mariadb = {"ai_ci": "utf8mb4_unicode_520_nopad_ci", "as_cs": "utf8mb4_nopad_bin", "bin": "utf8mb4_bin"}
    name = mariadb[collation] if either_mysql.is_mariadb else f"utf8mb4_0900_{collation}"
    either_mysql.execute(f"CREATE TABLE t (k varchar(9) COLLATE {name} PRIMARY KEY, id int NOT NULL UNIQUE)")
    session = either_mysql.connect()
    for number, key in enumerate(KEYS):
        session.execute("INSERT IGNORE INTO t VALUES (%s, %s)", key, number)
    configure(host, either_mysql, trackingColumn=tracking, deletes="reconcile")
    synced(host)
    ((highest,),) = either_mysql.fetch("SELECT MAX(k) FROM t")
    for number, more in enumerate(("a", "a ")):
        either_mysql.execute("INSERT IGNORE INTO t VALUES (%s, %s)", highest + more, number + 100)
    either_mysql.execute("DELETE FROM t WHERE k IN ('ß', '日', 'a')")
    synced(host)
    host.result("POST", "/data-replication/reconcile/t", {"force": True})
    assert differences(host) == (0, 0, 0)
    assert host.query("SELECT k FROM t ORDER BY id") == [
        list(row) for row in either_mysql.fetch("SELECT k FROM t ORDER BY id")
    ]


@pytest.mark.prove
@pytest.mark.parametrize("loading", [True, False], ids=["first load", "incremental"])
def test_a_server_that_is_killed_during_a_sync(either_mysql: TestDatabase, tmp_path: Path, loading: bool) -> None:
    """SIGKILL: it comes back with all that was committed, and the next sync ends what this one has begun."""
    either_mysql.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    either_mysql.execute("CREATE TABLE t (id int PRIMARY KEY, v int, w text, at timestamp(6) NOT NULL DEFAULT now(6))")
    # More than what the kernel holds between the two.
    insert = "INSERT INTO t (id, v, w) SELECT seq + {first}, {v}, repeat('w', 8000) FROM " + sequence(3000)
    either_mysql.execute(insert.format(first=0, v=0))
    with running(tmp_path) as host:
        configure(host, either_mysql, trackingColumn="at", settleSeconds=0)
        if not loading:
            synced(host)
            either_mysql.execute(insert.format(first=3000, v=1))
            either_mysql.execute("UPDATE t SET v = 1, at = now(6) WHERE id <= 500")
        host.configure(name="t", maxRowsPerSecond=1000)
        answers: list[int] = []

        def sync() -> None:
            with contextlib.suppress(httpx.HTTPError):
                answers.append(host.request("POST", "/data-replication/sync/t").status_code)

        written = "SELECT COUNT(*) FROM t" if loading else "SELECT COUNT(*) FROM t WHERE v = 1"
        with meanwhile(sync):
            until(lambda: host.status("t")["is_running"] and count_of(host, written) > 0, what="the first rows")
            pid = either_mysql.server.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            until(lambda: either_mysql.server.pid is None, what="the server's end")
        assert answers == [502]
        either_mysql.server.start()
        host.configure(name="t", maxRowsPerSecond=None)
        synced(host)
        assert differences(host) == (0, 0, 0)
        assert count_of(host, "SELECT COUNT(*) FROM t") == (3000 if loading else 6000)


def count_of(host: HostProcess, sql: str) -> int:
    with contextlib.suppress(AssertionError):
        return int(host.query(sql)[0][0])
    return 0
