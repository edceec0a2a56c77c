"""A tracking column of any ordered type of MySQL and MariaDB: each sync reads what is new, and loses nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.hosts import HostProcess, running
from tests.support.servers import TestDatabase
from tests.support.sessions import Session

# Five values in their order, as SQL; the fourth is the third one again, or what the type takes for equal to it.
TRACKING: dict[str, tuple[str, str]] = {
    **{name: (name, "1 2 3 3 4") for name in ("tinyint", "smallint", "mediumint", "int", "bigint")},
    "negative": ("bigint", "-9223372036854775808 -1 0 0 1"),
    "unsigned": (
        "bigint unsigned zerofill",
        "0 9223372036854775807 9223372036854775808 9223372036854775808 18446744073709551615",
    ),
    "decimal": ("decimal(65,30)", "-1.5 -1.499999999999999999999999999999 9 9.0 10"),
    "float": ("float", "-1.5 0.1 16777216 16777217 3e38"),
    "double": ("double", "-1e300 0.1 0.30000000000000004 0.30000000000000004 0.30000000000000010"),
    "double10_2": ("double(10,2)", "-1 0.1 1.10 1.101 1.11"),
    "year": ("year", "0 1901 1999 99 2020"),
    "bit": ("bit(5)", "0 1 8 8 31"),
    "bit64": ("bit(64)", "0 1 9223372036854775808 9223372036854775808 18446744073709551615"),
    "date": ("date", "'0000-00-00' '2024-00-15' '2024-01-00' '2024-01-00' '2024-01-01'"),
    "time": ("time", "'-838:59:59' '-00:00:01' '99:00:00' '99:00:00' '100:00:00'"),
    "time6": ("time(6)", "'-00:00:00.5' '-00:00:00.25' '00:00:01' '00:00:01' '838:59:59'"),
    **{
        f"datetime{n}": (f"datetime({n})", "'0000-00-00' '1000-01-01' '2024-02-31' '2024-02-31' '2024-03-01'")
        for n in (0, 3, 6)
    },
    "datetime_part": (
        "datetime(6)",
        "'2024-01-01 00:00:00.000001' '2024-01-01 00:00:00.000002' '2024-01-01 00:00:00.00001' "
        "'2024-01-01 00:00:00.000010' '2024-01-01 00:00:00.1'",
    ),
    **{
        f"timestamp{n}": (
            f"timestamp({n}) NULL",
            "'0000-00-00' '1970-01-02' '2024-02-29' '2024-02-29' '2024-03-01'",
        )
        for n in (0, 3, 6)
    },
    "char": ("char(9)", "'' 'a' 'b' 'B ' 'c'"),
    "varchar": ("varchar(9) COLLATE utf8mb4_unicode_ci", "'' 'd' 'e' 'É' 'f'"),
    "nopad": ("varchar(9) COLLATE utf8mb4_nopad_bin", "'' 'Z' 'a' 'a' 'é'"),
    "0900": ("varchar(9) COLLATE utf8mb4_0900_ai_ci", "'' 'd' 'e' 'É' 'f'"),
    "0900_bin": ("varchar(9) COLLATE utf8mb4_0900_bin", "'' 'Z' 'a' 'a' 'é'"),
    "latin1": ("varchar(9) CHARACTER SET latin1 COLLATE latin1_german1_ci", "'' 'a' 'b' 'B' 'ö'"),
    "cp1251": ("varchar(9) CHARACTER SET cp1251", "'' 'a' 'б' 'Б' 'в'"),
    "ucs2": ("varchar(9) CHARACTER SET ucs2", "'' 'a' 'b' 'B' '日'"),
    "text": ("text", "'' 'a' 'b' 'B' '日'"),
    "binary": ("binary(3)", "X'00' X'0001' X'61' X'61' X'FF'"),
    "varbinary": ("varbinary(3)", "X'' X'00' X'61' X'61' X'FF'"),
    "blob": ("blob", "X'' X'00' X'61' X'61' X'FF'"),
    "enum": ("enum('z','a','B')", "0 1 2 'A' 3"),
    "set": ("set('z','a')", "0 1 2 'A' 'z,a'"),
    "uuid": (
        "uuid",
        # Those of the versions 1 to 5 are ordered by their last part first, and refused.
        "'0190163d-8694-739b-aea5-966c26f8ad91' '01901640-0000-739b-8ea5-966c26f8ad91' "
        "'01901640-0000-739b-aea5-966c26f8ad91' '01901640-0000-739b-aea5-966c26f8ad91' "
        "'01901641-0000-739b-8ea5-000000000000'",
    ),
    "inet4": ("inet4", "'0.0.0.0' '9.0.0.0' '10.0.0.0' '10.0.0.0' '255.0.0.0'"),
    "inet6": ("inet6", "'::' '::9' '::10' '::10' 'ff::'"),
}
MARIADB_ONLY = {"nopad", "uuid", "inet4", "inet6"}
MYSQL_ONLY = {"0900", "0900_bin"}
VALUE = re.compile(r"X?'[^']*'|\S+")
LAX = "SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'"


def insert(session: Session, names: Sequence[str], number: int) -> None:
    """The row of this number into each table."""
    for name in names:
        values = TRACKING[name][1]
        session.execute(f"INSERT INTO `{name}` VALUES ({number}, {VALUE.findall(values)[number - 1]})")


def sync(host: HostProcess, names: Sequence[str], wanted: list[int]) -> dict[str, int]:
    """Sync each table; its replica then holds just these rows. How many rows were read."""
    read = {}
    for each in names:
        run = host.sync(each)
        assert run["status"] == "success", (each, run)
        found = [number for (number,) in host.query(f'SELECT id FROM "{each}" ORDER BY id')]
        assert found == wanted, each
        read[each] = run["rows_read"]
    return read


def configure(host: HostProcess, database: TestDatabase, name: str) -> None:
    host.configure(
        name=name, sourceConfig=database.source_config, sourceTable=name, targetTable=name, trackingColumn="v",
        isActive=False, lookbackSeconds=0, closeWaitSeconds=0,
    )  # fmt: skip


FEW = ("bit64", "time6", "varchar", "cp1251", "uuid", "0900")


@pytest.mark.parametrize("names", [FEW, pytest.param(tuple(TRACKING), marks=pytest.mark.prove)], ids=["few", "all"])
def test_rows_that_are_committed_late_are_read_for_every_type(
    either_mysql: TestDatabase, tmp_path: Path, names: tuple[str, ...]
) -> None:
    session, late = either_mysql.connect(), either_mysql.connect()
    names = tuple(name for name in names if name not in (MYSQL_ONLY if either_mysql.is_mariadb else MARIADB_ONLY))
    for each in (session, late):
        each.execute(LAX)
    for name in names:
        definition = TRACKING[name][0]
        session.execute(f"CREATE TABLE `{name}` (id int PRIMARY KEY, v {definition}, INDEX (v(3)))"
                        if definition in ("text", "blob")
                        else f"CREATE TABLE `{name}` (id int PRIMARY KEY, v {definition}, INDEX (v))")  # fmt: skip
    insert(session, names, 1)
    insert(session, names, 2)
    with running(tmp_path) as host:
        for name in names:
            configure(host, either_mysql, name)
        sync(host, names, [1, 2])
        # A row that is equal to what will be the highest value, in a transaction that ends after that was read.
        late.execute("BEGIN")
        insert(late, names, 4)
        insert(session, names, 3)
        sync(host, names, [1, 2, 3])
        late.execute("COMMIT")
        sync(host, names, [1, 2, 3, 4])
        insert(session, names, 5)
        sync(host, names, [1, 2, 3, 4, 5])
        read = sync(host, names, [1, 2, 3, 4, 5])
        assert {name for name, rows in read.items() if rows} == set()


def test_a_time_stamp_goes_on_while_the_clocks_are_put_back(either_mysql: TestDatabase, tmp_path: Path) -> None:
    summer, winter = either_mysql.connect(), either_mysql.connect()
    summer.execute("SET time_zone = '+02:00'")
    winter.execute("SET time_zone = '+01:00'")
    summer.execute("CREATE TABLE stamps (id int PRIMARY KEY, v timestamp(3) NOT NULL)")
    with running(tmp_path) as host:
        configure(host, either_mysql, "stamps")
        wanted = []
        # The hour between two and three, twice; what the clock shows repeats, the values go on.
        for number, (session, shown) in enumerate(
            [(summer, "02:15"), (summer, "02:59:59.999"), (winter, "02:00"), (winter, "02:15"), (winter, "03:00")]
        ):
            session.execute(f"INSERT INTO stamps VALUES ({number}, '2024-10-27 {shown}')")
            wanted.append(number)
            host.sync("stamps")
            assert [row[0] for row in host.query("SELECT id FROM stamps ORDER BY v")] == wanted
        assert host.query("SELECT v FROM stamps WHERE id IN (0, 3)") == [
            ["2024-10-27T00:15:00.000000Z"],
            ["2024-10-27T01:15:00.000000Z"],
        ]
        assert host.sync("stamps")["rows_read"] == 0


@pytest.mark.parametrize(("first", "again"), [("'a'", "'A'"), pytest.param("'a'", "'a'", marks=pytest.mark.prove)])
def test_a_later_row_with_the_value_of_the_floor_is_read(
    either_mysql: TestDatabase, tmp_path: Path, first: str, again: str
) -> None:
    """What the collation takes for equal is equal."""
    either_mysql.execute(
        f"CREATE TABLE labels (id int PRIMARY KEY, v varchar(9)); INSERT INTO labels VALUES (1, {first})"
    )
    with running(tmp_path) as host:
        configure(host, either_mysql, "labels")
        host.sync("labels")
        assert host.sync("labels")["rows_read"] == 0
        either_mysql.execute(f"INSERT INTO labels VALUES (2, {again})")
        assert host.sync("labels")["rows_read"] == 2
        assert host.query("SELECT id FROM labels ORDER BY id") == [[1], [2]]
