"""Values longer than a function of the server may answer: they arrive as they are, or the sync says why it cannot.

A function that would answer more than max_allowed_packet answers NULL with a warning, and a replica with NULL in it
looked equal to a source that was read through the same function.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.support.hosts import HostProcess, running, until
from tests.support.servers import TestDatabase

MIB = 1 << 20
# A letter of each character set, of one to three bytes there.
LETTERS = {
    "utf8mb4": "é", "utf8mb3": "é", "ascii": "a", "latin1": "é", "ucs2": "é", "cp1251": "ж", "cp1256": "ب",
    "gbk": "中", "sjis": "ア", "ujis": "ア", "big5": "中", "euckr": "가", "greek": "α", "hebrew": "א",
}  # fmt: skip
NULLABLE = ("NULL", "NOT NULL")
# Bytes that are not valid text in a character set.
NO_TEXT = {"gbk": "A2A0", "cp1251": "98", "utf8mb3": "EDA080"}


@contextlib.contextmanager
def packets_of(database: TestDatabase, size: int) -> Iterator[None]:
    """Connections made in here may send and be sent no more at once; and functions answer no more."""
    ((before,),) = database.fetch("SELECT @@GLOBAL.max_allowed_packet")
    database.execute(f"SET GLOBAL max_allowed_packet = {size}")
    try:
        yield
    finally:
        database.execute(f"SET GLOBAL max_allowed_packet = {before}")


def configure(host: HostProcess, database: TestDatabase, **more: Any) -> None:
    table = {"sourceTable": "t", "targetTable": "t", "trackingColumn": "id", "isActive": False}
    host.configure(name="t", sourceConfig=database.source_config, **{**table, **more})


def verified(host: HostProcess, **body: Any) -> tuple[int, int, int]:
    found = host.result("POST", "/data-replication/verify/t", body)
    return found["missing"], found["extra"], found["different"]


def lengths(host: HostProcess, names: list[str]) -> list[list[int | None]]:
    """Of each row, how many characters."""
    replica = apsw.Connection(str(host.database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [list(row) for row in replica.execute(f"SELECT {', '.join(f'length({n})' for n in names)} FROM t")]
    finally:
        replica.close()


def test_a_text_longer_than_a_function_may_answer_is_not_null(either_mysql: TestDatabase, tmp_path: Path) -> None:
    """In every character set, in a column that may be NULL and in one that may not."""
    length = MIB + 7
    columns = ", ".join(f"c_{name} longtext CHARACTER SET {name} {NULLABLE[at % 2]}" for at, name in enumerate(LETTERS))
    empty = ", ".join("''" for _ in LETTERS)
    with packets_of(either_mysql, 64 * MIB):
        either_mysql.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
        either_mysql.execute(f"INSERT INTO t VALUES (1, {empty}), (2, {empty}), (3, {empty})")
        for name, letter in LETTERS.items():
            either_mysql.execute(f"UPDATE t SET c_{name} = REPEAT('{letter}', {length}) WHERE id = 2")
        with packets_of(either_mysql, MIB), running(tmp_path) as host:
            configure(host, either_mysql)
            run = host.sync("t")
            assert (run["status"], run["warnings"]) == ("success", [])
            names = [f"c_{name}" for name in LETTERS]
            nothing = [0] * len(names)
            assert lengths(host, names) == [nothing, [length] * len(names), nothing]
            last = ", ".join(f"substr({name}, -1)" for name in names)
            assert host.query(f"SELECT {last} FROM t WHERE id = 2") == [list(LETTERS.values())]
            assert verified(host) == (0, 0, 0)


@pytest.mark.parametrize("charset", ["utf8mb3", "gbk"])
def test_a_replica_that_has_null_for_a_long_text_is_found_different(
    mariadb_database: TestDatabase, tmp_path: Path, charset: str
) -> None:
    with packets_of(mariadb_database, 64 * MIB):
        mariadb_database.execute(
            f"CREATE TABLE t (id int PRIMARY KEY, v longtext CHARACTER SET {charset} NOT NULL);"
            f"INSERT INTO t VALUES (1, 'a'), (2, REPEAT('a', {2 * MIB}))"
        )
        with packets_of(mariadb_database, MIB), running(tmp_path) as host:
            configure(host, mariadb_database, lookbackSeconds=0)
            # Until the floor has risen: what lies below it is not read.
            until(lambda: host.sync("t") and host.status("t")["last_sync_value"])
            assert verified(host) == (0, 0, 0)
            host.result("POST", "/query", {"sql": "UPDATE t SET v = NULL WHERE id = 2"})
            assert verified(host) == (0, 0, 1)
            assert verified(host, repair=True) == (0, 0, 1)
            assert verified(host) == (0, 0, 0)
            assert lengths(host, ["v"]) == [[1], [2 * MIB]]


@pytest.mark.parametrize("charset", ["gbk", pytest.param("cp1251", marks=pytest.mark.prove)])
def test_many_bytes_that_are_not_valid_text(either_mysql: TestDatabase, tmp_path: Path, charset: str) -> None:
    """The server cannot mark them, so the sync names the column and the setting."""
    with packets_of(either_mysql, 64 * MIB):
        create_with_no_text(either_mysql, charset)
        with packets_of(either_mysql, MIB), running(tmp_path) as host:
            configure(host, either_mysql)
            answer = host.request("POST", "/data-replication/sync/t")
            assert answer.status_code == 502
            assert ".t: a value of the column v is longer than the server's max_allowed_packet" in answer.text


def test_many_bytes_that_are_not_valid_utf8(mariadb_database: TestDatabase, tmp_path: Path) -> None:
    """They are kept. MySQL refuses to store any."""
    with packets_of(mariadb_database, 64 * MIB):
        create_with_no_text(mariadb_database, "utf8mb3")
        with packets_of(mariadb_database, MIB), running(tmp_path) as host:
            configure(host, mariadb_database)
            (warning,) = host.sync("t")["warnings"]
            assert "of the values read, 1 are no valid Unicode text" in warning
            assert lengths(host, ["v"]) == [[1], [2 * MIB + len(NO_TEXT["utf8mb3"]) // 2]]
            assert verified(host) == (0, 0, 0)


def create_with_no_text(database: TestDatabase, charset: str) -> None:
    database.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, v longtext CHARACTER SET {charset} NOT NULL, w int);"
        "SET sql_mode = ''; INSERT INTO t VALUES (1, 'a', 1);"
        f"INSERT INTO t SELECT 2, CONVERT(CONCAT(REPEAT('a', {2 * MIB}), X'{NO_TEXT[charset]}') USING binary), 2"
    )
