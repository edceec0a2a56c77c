"""Tracking values that a clock has cut down: as pure functions, and on servers."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.sources.rounding import below_a_shown_number, below_a_shown_time
from tests.support.hosts import running
from tests.support.servers import TestDatabase

moments = st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2200, 1, 1))
zones = st.integers(-48, 56).map(lambda quarters: datetime.timedelta(minutes=15 * quarters))
MINUTE = datetime.timedelta(minutes=1)


def cut(moment: datetime.datetime, unit: str) -> datetime.datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        "millisecond": moment.replace(microsecond=moment.microsecond // 1000 * 1000),
        "second": moment.replace(microsecond=0),
        "minute": moment.replace(second=0, microsecond=0),
        "five minutes": moment.replace(minute=moment.minute // 5 * 5, second=0, microsecond=0),
        "hour": moment.replace(minute=0, second=0, microsecond=0),
        "day": day,
        "week": day - datetime.timedelta(days=day.weekday()),
        "sunday": day - datetime.timedelta(days=(day.weekday() + 1) % 7),
        "month": day.replace(day=1),
        "quarter": day.replace(day=1, month=(day.month - 1) // 3 * 3 + 1),
        "year": day.replace(day=1, month=1),
    }[unit]


UNITS = ("millisecond", "second", "minute", "five minutes", "hour", "day", "week", "sunday", "month", "quarter", "year")


@given(moments, zones, st.sampled_from(UNITS), st.integers(0, 400), st.sampled_from((None, 3, 6)))
def test_no_floor_reaches_a_time_that_the_clock_still_shows(
    now: datetime.datetime, zone: datetime.timedelta, unit: str, days: int, digits: int | None
) -> None:
    """Cut in the application's zone, stored in UTC; `edge` is the source's clock in UTC."""
    value = cut(now + zone, unit) - zone
    edge = now if value < now else now + datetime.timedelta(microseconds=1)
    floor = below_a_shown_time(value.isoformat(" "), edge.isoformat(" "), digits=digits)
    assert datetime.datetime.fromisoformat(floor) < value
    assert value - datetime.datetime.fromisoformat(floor) <= datetime.timedelta(milliseconds=1)
    # A time that tells of its microseconds does not come again, and none does for ever.
    exact = now.replace(microsecond=now.microsecond // 1000 * 1000 + 1).isoformat(" ")
    assert below_a_shown_time(exact, edge.isoformat(" "), digits=digits) == exact
    later = (value + datetime.timedelta(days=400 + days)).isoformat(" ")
    assert below_a_shown_time(value.isoformat(" "), later, digits=digits) == value.isoformat(" ")


@given(moments, st.sampled_from(("week", "sunday", "month", "quarter", "year")))
def test_days_are_cut_to_weeks_and_more(now: datetime.datetime, unit: str) -> None:
    value, today = cut(now, unit).date(), now.date()
    if value < today:
        floor = below_a_shown_time(value.isoformat(), today.isoformat(), digits=None, dates=True)
        assert floor == (value - datetime.timedelta(days=1)).isoformat()


NUMBERS: dict[str, Callable[[datetime.datetime], int]] = {
    "microseconds": lambda at: int(at.timestamp() * 1_000_000),
    "milliseconds": lambda at: int(at.timestamp() * 1000),
    "seconds": lambda at: int(at.timestamp()),
    "minutes": lambda at: int(at.timestamp()) // 60,
    "hours": lambda at: int(at.timestamp()) // 3600,
    "days": lambda at: int(at.timestamp()) // 86400,
    "ordinal": lambda at: at.toordinal(),
    "to_days": lambda at: at.toordinal() + 365,
    "week": lambda at: int(at.strftime("%G%V")),
    "year": lambda at: at.year,
    "month": lambda at: int(at.strftime("%Y%m")),
    "date": lambda at: int(at.strftime("%Y%m%d")),
    "time": lambda at: int(at.strftime("%Y%m%d%H%M%S")),
}


@given(moments, zones, st.sampled_from(sorted(NUMBERS)))
def test_no_floor_reaches_a_number_that_the_clock_still_shows(
    now: datetime.datetime, zone: datetime.timedelta, unit: str
) -> None:
    now = now.replace(tzinfo=datetime.UTC)
    local = now if unit in ("microseconds", "milliseconds", "seconds", "minutes", "hours") else now + zone
    value = NUMBERS[unit](local)
    seconds = Decimal((now - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1))
    floor = below_a_shown_number(str(value), str(seconds / 1_000_000), settle_seconds=2)
    assert value - 10_000_000 < int(floor) < value


EPOCH = datetime.datetime(1970, 1, 1)


@given(moments.filter(lambda at: at.year > 2001), zones, st.sampled_from(UNITS), st.sampled_from((1, 1000, 1_000_000)))
def test_no_floor_reaches_a_cut_time_that_is_a_number(
    now: datetime.datetime, zone: datetime.timedelta, unit: str, per_second: int
) -> None:
    """Cut in the application's zone, then written as seconds since 1970, or as their thousandths or millionths."""
    value = (cut(now + zone, unit) - zone - EPOCH) // datetime.timedelta(microseconds=1) * per_second // 1_000_000
    seconds = Decimal((now - EPOCH) // datetime.timedelta(microseconds=1)) / 1_000_000
    assert int(below_a_shown_number(str(value), str(seconds), settle_seconds=2)) < value
    later = seconds + 400 * 86_400
    assert below_a_shown_number(str(value), str(later), settle_seconds=2) == str(value)


def test_other_numbers_are_what_they_are() -> None:
    for value in ("1", "0", "-5", "41", "1234567", "99999999999999999999", "1.5", "NaN", "Infinity", "a text"):
        assert below_a_shown_number(value, "1796060000.5", settle_seconds=2) == value


# A column of t for each kind of clock: on PostgreSQL, and on the others.
CLOCKS = {
    "hours": ("timestamptz DEFAULT date_trunc('hour', now())",
              "datetime(6) DEFAULT (DATE_FORMAT(NOW(6), '%Y-%m-%d %H:00:00'))"),
    "months": ("timestamp DEFAULT date_trunc('month', localtimestamp)",
               "datetime DEFAULT (DATE_FORMAT(NOW(), '%Y-%m-01'))"),
    "seconds": ("timestamp(0) DEFAULT date_trunc('second', localtimestamp)", "timestamp NOT NULL DEFAULT now()"),
    "dates": ("date DEFAULT current_date", "date DEFAULT (CURRENT_DATE)"),
    "months_as_dates": ("date DEFAULT date_trunc('month', now())::date",
                        "date DEFAULT (DATE_FORMAT(NOW(), '%Y-%m-01'))"),
    "years": ("smallint DEFAULT extract(year FROM now())", "year DEFAULT (YEAR(NOW()))"),
    "epoch_days": ("int DEFAULT floor(extract(epoch FROM now()) / 86400)",
                   "int DEFAULT (FLOOR(UNIX_TIMESTAMP() / 86400))"),
    "epoch_seconds": ("bigint DEFAULT floor(extract(epoch FROM now()))", "bigint DEFAULT (UNIX_TIMESTAMP())"),
    "numbers_of_days": ("numeric DEFAULT to_char(now(), 'YYYYMMDD')::numeric",
                        "decimal(20) DEFAULT (DATE_FORMAT(NOW(), '%Y%m%d'))"),
    "epoch_of_the_hour": ("bigint DEFAULT extract(epoch FROM date_trunc('hour', now()))",
                          "bigint DEFAULT (UNIX_TIMESTAMP() DIV 3600 * 3600)"),
    "ms_of_the_day": ("double precision DEFAULT extract(epoch FROM date_trunc('day', now())) * 1000",
                      "double DEFAULT (UNIX_TIMESTAMP() DIV 86400 * 86400000)"),
    "counts_of_600_s": ("int DEFAULT floor(extract(epoch FROM now()) / 600)",
                        "int DEFAULT (UNIX_TIMESTAMP() DIV 600)"),
    "days_since_2001": ("numeric(20,3) DEFAULT floor(extract(epoch FROM now()) / 86400) * 86400 - 978307200",
                        "decimal(20,3) DEFAULT (UNIX_TIMESTAMP() DIV 86400 * 86400 - 978307200)"),
    "four_bytes": ("real DEFAULT floor(extract(epoch FROM now()) / 3600) * 3600",
                   "float DEFAULT (UNIX_TIMESTAMP() DIV 3600 * 3600)"),
    "texts_of_days": ("text DEFAULT to_char(now(), 'YYYY-MM-DD')",
                      "varchar(20) DEFAULT (DATE_FORMAT(NOW(), '%Y-%m-%d'))"),
    "batches": ("int DEFAULT 7", "int DEFAULT 7"),
    "labels": ("varchar(9) DEFAULT 'a'", "varchar(9) DEFAULT 'a'"),
}  # fmt: skip


@pytest.mark.elsewhere_in_prove
def test_values_that_come_again_until_the_clock_goes_on(source_database: TestDatabase, tmp_path: Path) -> None:
    """Rows of one hour, day or year, in sync after sync, without lookback: all of them arrive, in each replica."""
    column = 0 if source_database.dialect == "postgresql" else 1
    columns = ", ".join(f"{name} {types[column]}" for name, types in CLOCKS.items())
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    with running(tmp_path) as host:
        for name in CLOCKS:
            host.configure(
                name=name, sourceConfig=source_database.source_config, sourceTable="t", targetTable=name,
                trackingColumn=name, isActive=False, lookbackSeconds=0, closeWaitSeconds=0, settleSeconds=0.1,
            )  # fmt: skip
        for number in range(1, 4):
            source_database.execute(f"INSERT INTO t (id) VALUES ({number})")
            for name in CLOCKS:
                host.sync(name)
        found = {name: [row[0] for row in host.query(f"SELECT id FROM {name} ORDER BY id")] for name in CLOCKS}
        assert found == {name: [1, 2, 3] for name in CLOCKS}


@pytest.mark.parametrize("key", ["id", "v"])
def test_rows_with_a_number_that_is_not_a_time_are_read_once(
    source_database: TestDatabase, tmp_path: Path, key: str
) -> None:
    source_database.execute(f"CREATE TABLE t (id int NOT NULL, v bigint NOT NULL, PRIMARY KEY ({key}))")
    source_database.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
    with running(tmp_path) as host:
        host.configure(
            name="t", sourceConfig=source_database.source_config, sourceTable="t", targetTable="t",
            trackingColumn="v", isActive=False, lookbackSeconds=0, closeWaitSeconds=0,
        )  # fmt: skip
        host.sync("t")
        assert host.sync("t")["rows_read"] == 0


ZONES = {"-05:00": -300, "+05:30": 330, "-02:30": -150, "Etc/GMT+5": -300}


@pytest.mark.elsewhere_in_prove
def test_a_zone_of_the_users_is_read_as_iso_has_it(source_database: TestDatabase, tmp_path: Path) -> None:
    """A time that is still to come there lifts no floor: the rows that the clock stamps before it all arrive."""
    postgresql = source_database.dialect == "postgresql"
    now = "now() AT TIME ZONE 'UTC'" if postgresql else "UTC_TIMESTAMP(6)"
    hour = "'1 hour'" if postgresql else "1 HOUR"

    def at(minutes: int) -> str:
        span = f"'{minutes} minutes'" if postgresql else f"{minutes} MINUTE"
        return f"({now} + INTERVAL {span})"

    def insert(number: int, later: str = "") -> None:
        values = ", ".join(f"{at(minutes)}{later}" for minutes in ZONES.values())
        source_database.execute(f"INSERT INTO t VALUES ({number}, {values})")

    columns = ", ".join(f"v{number} {'timestamp' if postgresql else 'datetime(6)'}" for number in range(len(ZONES)))
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    insert(1)
    insert(2, f" + INTERVAL {hour}")
    with running(tmp_path) as host:
        names = [f"v{number}" for number in range(len(ZONES))]
        for name, zone in zip(names, ZONES, strict=True):
            host.configure(
                name=name, sourceConfig=source_database.source_config, sourceTable="t", targetTable=name,
                trackingColumn=name, trackingTimeZone=zone, isActive=False, lookbackSeconds=0, closeWaitSeconds=0,
                settleSeconds=0,
            )  # fmt: skip
            host.sync(name)
            assert any("1 row of" in text for text in host.sync(name)["warnings"]), zone
        for number in (3, 4):
            insert(number)
            for name in names:
                host.sync(name)
        found = {name: [row[0] for row in host.query(f"SELECT id FROM {name} ORDER BY id")] for name in names}
        assert found == {name: [1, 2, 3, 4] for name in names}


@pytest.mark.parametrize("kind", ["int", "varchar(9)"])
def test_a_row_with_the_floors_own_value_is_read_though_higher_ones_came_as_well(
    source_database: TestDatabase, tmp_path: Path, kind: str
) -> None:
    source_database.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {kind})")
    source_database.execute("INSERT INTO t VALUES (1, '7')")
    with running(tmp_path) as host:
        host.configure(
            name="t", sourceConfig=source_database.source_config, sourceTable="t", targetTable="t",
            trackingColumn="v", isActive=False, lookbackSeconds=0, closeWaitSeconds=0,
        )  # fmt: skip
        host.sync("t")
        assert host.sync("t")["rows_read"] == 0
        source_database.execute("INSERT INTO t VALUES (2, '7'), (3, '8')")
        host.sync("t")
        assert host.query("SELECT id FROM t ORDER BY id") == [[1], [2], [3]]
        assert host.sync("t")["rows_read"] == 0


@pytest.mark.elsewhere_in_prove
def test_a_value_that_too_many_rows_share_is_warned_of(source_database: TestDatabase, tmp_path: Path) -> None:
    """Read again at each sync they would cost too much; a row that comes in with the value is not read, and verify
    finds it. What a clock has left does not come again, and is not warned of; nor is what the source counts up."""
    rows = ", ".join(f"({number}, 7, 1234567890)" for number in range(10_001))
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v int, seconds int)")
    source_database.execute(f"INSERT INTO t VALUES {rows}")
    with running(tmp_path) as host:
        for name in ("v", "seconds"):
            host.configure(
                name=name, sourceConfig=source_database.source_config, sourceTable="t", targetTable=name,
                trackingColumn=name, isActive=False, lookbackSeconds=0, closeWaitSeconds=0,
            )  # fmt: skip
            host.sync(name)
        (warning,) = host.sync("v")["warnings"]
        assert "trackingColumn: more than 10000 rows of " in warning
        assert "have the same v" in warning
        assert host.sync("seconds")["warnings"] == []
        source_database.execute("INSERT INTO t VALUES (10001, 7, 1234567891)")
        assert host.sync("v")["rows_read"] == 0
        assert host.result("POST", "/data-replication/verify/v", {"repair": True})["missing"] == 1


def test_a_boolean_does_not_rise_on_any_server(source_database: TestDatabase, tmp_path: Path) -> None:
    source_database.execute("CREATE TABLE t (id int PRIMARY KEY, v boolean)")
    with running(tmp_path) as host:
        host.configure(
            name="t", sourceConfig=source_database.source_config, sourceTable="t", targetTable="t",
            trackingColumn="v", isActive=False,
        )  # fmt: skip
        (warning,) = host.sync("t")["warnings"]
        assert "t.v is of type " in warning
        assert "whose values do not rise" in warning
