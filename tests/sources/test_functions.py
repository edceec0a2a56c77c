"""What functions of a source do in a READ ONLY transaction, for a user who may read one table.

These are the cells of SECURITY.md, "Functions of a source", that matter most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pymysql
import pytest

from starbase_data_replication.sources.mysql.connection import BEGIN, ISOLATION
from tests.support.hosts import running
from tests.support.packages import ROOT
from tests.support.servers import TestDatabase
from tests.support.sessions import MySQLSession, PostgresSession, Session

PASSWORD = "a password"
READ_ONLY = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# Of MySQL's and MariaDB's errors.
IN_READ_ONLY = 1792


@pytest.fixture(name="reader")
def _reader(postgres_database: TestDatabase) -> Iterator[str]:
    name = f"{postgres_database.name}_reader"
    postgres_database.execute(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE hidden (id int); "
        f"CREATE SEQUENCE s; CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT ON t TO {name}"
    )
    yield name
    postgres_database.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.fixture(name="session")
def _session(postgres_database: TestDatabase, reader: str) -> Iterator[PostgresSession]:
    """The reader's, in a transaction as the sources begin it."""
    with logged_in(postgres_database, reader) as session:
        session.execute(READ_ONLY)
        yield session


def logged_in(database: TestDatabase, user: str) -> PostgresSession:
    return PostgresSession(database.server.host, database.server.port, user, PASSWORD, database.name)


def refused(session: Session, expression: str) -> str:
    """What the server says; the transaction begins again."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        session.fetch(f"SELECT id FROM t WHERE ({expression}) IS NOT NULL")
    session.execute("ROLLBACK")
    session.execute(READ_ONLY)
    return str(caught.value)


def test_a_reader_of_postgresql_holds_an_advisory_lock_after_the_transaction(
    postgres_database: TestDatabase, session: PostgresSession
) -> None:
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"  # fmt: skip  # noqa: E501
    session.fetch("SELECT id FROM t WHERE pg_advisory_lock(42) IS NOT NULL")
    session.execute("ROLLBACK")
    assert postgres_database.fetch(held) == [(1,)]


def test_a_reader_of_postgresql_moves_no_sequence(
    postgres_database: TestDatabase, reader: str, session: PostgresSession
) -> None:
    assert "permission denied for sequence s" in refused(session, "nextval('s')")
    postgres_database.execute(f"GRANT ALL ON SEQUENCE s TO {reader}")
    assert "cannot execute nextval() in a read-only transaction" in refused(session, "nextval('s')")
    assert "cannot execute setval() in a read-only transaction" in refused(session, "setval('s', 9)")


def test_a_reader_of_postgresql_ends_only_sessions_of_its_role(
    postgres_database: TestDatabase, reader: str, session: PostgresSession
) -> None:
    with logged_in(postgres_database, reader) as same:
        ((pid,),) = same.fetch("SELECT pg_backend_pid()")
        assert session.fetch(f"SELECT pg_terminate_backend({pid})") == [(True,)]
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            same.fetch("SELECT pg_sleep(30)")
    other = f"{reader}_2"
    postgres_database.execute(f"CREATE ROLE {other} LOGIN PASSWORD '{PASSWORD}'")
    try:
        with logged_in(postgres_database, other) as theirs:
            ((pid,),) = theirs.fetch("SELECT pg_backend_pid()")
            for function in ("pg_terminate_backend", "pg_cancel_backend"):
                assert "must be a member of the role" in refused(session, f"{function}({pid})")
            assert theirs.fetch("SELECT 1") == [(1,)]
    finally:
        postgres_database.execute(f"DROP ROLE {other}")


def test_what_a_reader_of_postgresql_is_refused(session: PostgresSession) -> None:
    for expression in (
        "pg_stat_reset()", "pg_backup_start('x')", "pg_create_physical_replication_slot('x')",
        "pg_drop_replication_slot('x')", "pg_read_file('/etc/passwd')", "ARRAY(SELECT pg_ls_dir('.'))",
        "pg_reload_conf()", "lo_import('/etc/passwd')", "lo_export(1, '/tmp/x')",
        "query_to_xml('SELECT * FROM hidden', true, true, '')",
    ):  # fmt: skip
        assert re.search("permission denied|must be superuser", refused(session, expression)), expression


def test_a_where_leaves_no_large_object_for_the_transaction_is_rolled_back(
    postgres_database: TestDatabase, reader: str, session: PostgresSession, tmp_path: Path
) -> None:
    assert session.fetch("SELECT id FROM t WHERE lo_create(0) > 0") == [(1,)]
    session.execute("ROLLBACK")
    config = {**postgres_database.source_config, "user": reader, "password": PASSWORD}
    with running(tmp_path) as host:
        host.configure(
            name="t", sourceConfig=config, sourceTable="t", targetTable="t", trackingColumn="id", isActive=False,
            where="lo_create(0) > 0",
        )  # fmt: skip
        assert host.sync("t")["records_processed"] == 1
    assert postgres_database.fetch("SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]


def test_the_revokes_of_the_page_refuse_a_reader(
    postgres_database: TestDatabase, reader: str, session: PostgresSession
) -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    (statements,) = re.findall(r"```sql\n(REVOKE.*?)```", page, re.DOTALL)
    calls = ["pg_logical_emit_message(false, 'a', 'b')", "pg_logical_emit_message(false, 'a', 'b'::bytea)",
             "lo_create(0)", "lo_creat(-1)", "lo_from_bytea(0, 'x')"]  # fmt: skip
    for call in calls:
        assert len(session.fetch(f"SELECT id FROM t WHERE ({call}) IS NOT NULL")) == 1, call
    postgres_database.execute(statements)
    # A transaction that has called them goes on with what it knew.
    session.execute("ROLLBACK")
    for call in calls:
        assert "permission denied for function" in refused(session, call), call


@pytest.fixture(name="mysql_reader")
def _mysql_reader(either_mysql: TestDatabase) -> Iterator[Callable[[], MySQLSession]]:
    """Opens sessions of a user who may read one table, in a transaction as the sources begin it."""
    name, server = f"reader_{either_mysql.name[-8:]}", either_mysql.server
    either_mysql.execute(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); "
        f"CREATE USER {name}@'%' IDENTIFIED BY '{PASSWORD}'; GRANT SELECT ON t TO {name}@'%'; "
        "CREATE FUNCTION writes() RETURNS int DETERMINISTIC MODIFIES SQL DATA "
        "BEGIN INSERT INTO t VALUES (7); RETURN 1; END"
    )
    either_mysql.execute(f"GRANT EXECUTE ON FUNCTION {either_mysql.name}.writes TO {name}@'%'")
    opened: list[MySQLSession] = []

    def open_one() -> MySQLSession:
        opened.append(MySQLSession(server.host, server.port, name, PASSWORD, either_mysql.name))
        opened[-1].execute(ISOLATION)
        opened[-1].execute(BEGIN)
        return opened[-1]

    yield open_one
    for session in opened:
        session.close()
    either_mysql.execute(f"DROP USER {name}@'%'")


def test_what_a_reader_of_mysql_may_call(either_mysql: TestDatabase, mysql_reader: Callable[[], MySQLSession]) -> None:
    session, lock = mysql_reader(), f"{either_mysql.name}_lock"
    for call in (
        f"GET_LOCK('{lock}', 0) = 1",
        "SLEEP(0.001) = 0",
        "BENCHMARK(2, SHA2('a', 256)) = 0",
        "(@name := 1) = 1",
    ):
        assert session.fetch(f"SELECT id FROM t WHERE {call}") == [(1,)], call
    session.execute("ROLLBACK")
    assert either_mysql.fetch("SELECT IS_FREE_LOCK(%s)", lock) == [(0,)]
    session.close()


def test_a_reader_of_mysql_reads_no_file(either_mysql: TestDatabase, mysql_reader: Callable[[], MySQLSession]) -> None:
    """A user with FILE reads it on MariaDB; the MySQL of these tests lets none (secure_file_priv is NULL)."""
    read = "SELECT LENGTH(LOAD_FILE('/etc/passwd')) > 0"
    assert either_mysql.fetch(read) == [(1 if either_mysql.is_mariadb else None,)]
    assert mysql_reader().fetch(read) == [(None,)]


def test_a_function_of_mysql_that_writes_is_refused(
    either_mysql: TestDatabase, mysql_reader: Callable[[], MySQLSession]
) -> None:
    with pytest.raises(pymysql.err.OperationalError) as caught:
        mysql_reader().fetch("SELECT id FROM t WHERE writes() = 1")
    assert caught.value.args[0] == IN_READ_ONLY
    assert either_mysql.fetch("SELECT id FROM t") == [(1,)]
