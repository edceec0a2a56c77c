"""Which values of a time column are settled, by the source's clock: zones, clocks put back, precision."""

from __future__ import annotations

import datetime

import pytest

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.model import Candidate
from starbase_data_replication.model.options import Options
from starbase_data_replication.sources.mysql import source_clock
from starbase_data_replication.sources.mysql.source import MysqlSource
from starbase_data_replication.sources.protocols import ReadPlan
from tests.support.mysql_sources import described, rows_of, with_source
from tests.support.servers import TestDatabase


def moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("utc", "zone", "local"),
    [
        ("2024-06-01 12:00:00", "+05:30", "2024-06-01 17:30:00"),
        ("2024-06-01 12:00:00", "-03:30", "2024-06-01 08:30:00"),
        ("2024-06-01 12:00:00", "Europe/Berlin", "2024-06-01 14:00:00"),
        # At 01:00 UTC the clock goes from 03:00 back to 02:00: before, it is held an hour back.
        ("2024-10-26 21:59:00", "Europe/Berlin", "2024-10-26 23:59:00"),
        ("2024-10-26 22:00:00", "Europe/Berlin", "2024-10-26 23:00:00"),
        ("2024-10-27 00:59:59", "Europe/Berlin", "2024-10-27 01:59:59"),
        ("2024-10-27 01:00:00", "Europe/Berlin", "2024-10-27 02:00:00"),
        # Put forward, nothing is repeated.
        ("2024-03-31 00:59:59", "Europe/Berlin", "2024-03-31 01:59:59"),
        ("2024-03-31 01:00:00", "Europe/Berlin", "2024-03-31 03:00:00"),
    ],
)
def test_the_clock_of_a_zone_never_shows_less_later(utc: str, zone: str, local: str) -> None:
    found = source_clock.clock_in_zone(utc, zone)
    assert (found.utc, found.local) == (moment(utc), moment(local))


def test_all_that_a_clock_put_back_will_show_lies_above_the_cap() -> None:
    start = moment("2024-10-26 18:00:00")
    shown = []
    for minute in range(12 * 60):
        utc = start + datetime.timedelta(minutes=minute)
        offset = 2 if utc < moment("2024-10-27 01:00:00") else 1
        shown.append((utc, utc + datetime.timedelta(hours=offset)))
    for number, (utc, _) in enumerate(shown):
        low = source_clock.clock_in_zone(utc.isoformat(" "), "Europe/Berlin").local
        assert low <= min(local for _, local in shown[number:])
        assert low >= utc + datetime.timedelta(hours=1)


NOW = source_clock.SourceClock(utc=moment("2024-06-01 00:00:01.987654"), local=moment("2024-06-01 02:00:01.987654"))


@pytest.mark.parametrize(
    ("kind", "digits", "settle", "wanted"),
    [
        ("timestamp", 6, 0, "2024-06-01 00:00:01.987654"),
        ("timestamp", 0, 2, "2024-05-31 23:59:59"),
        ("datetime", 3, 0, "2024-06-01 02:00:01.987"),
        ("datetime", 0, 0, "2024-06-01 02:00:01"),
        ("date", 0, 2, "2024-06-01"),
        ("year", None, 0, "2024"),
    ],
)
def test_the_cap_is_cut_to_what_the_column_holds(kind: str, digits: int | None, settle: float, wanted: str) -> None:
    assert source_clock.first_unsettled(NOW, kind, digits, settle) == wanted


def test_a_value_less_the_lookback_is_cut_down_and_an_impossible_date_has_none() -> None:
    assert source_clock.minus_seconds("2024-06-01 00:00:10", "datetime", 0, 0.5) == "2024-06-01 00:00:09"
    assert source_clock.minus_seconds("2024-06-01", "date", None, 60) == "2024-05-31"
    assert source_clock.minus_seconds("0001-01-01 00:00:00", "datetime", 0, 60) is None
    assert source_clock.minus_seconds("2024-02-31 00:00:00", "datetime", 0, 60) is None
    assert source_clock.minus_seconds("0000-00-00 00:00:00", "datetime", 0, 60) is None


def note(database: TestDatabase, column: str, options: Options) -> Candidate | None:
    async def work(source: MysqlSource) -> Candidate | None:
        schema = await described(source, database, "t", column)
        return (await source.read_high_watermark(schema, options, noted_at=5.0)).candidate

    return with_source(database, work)


TIMES = {
    "d0": ("datetime", "now()"),
    "d6": ("datetime(6)", "now(6)"),
    "t0": ("timestamp NULL", "now()"),
    "t3": ("timestamp(3) NULL", "now(3)"),
    "da": ("date", "curdate()"),
    "y": ("year", "year(now())"),
}


def test_a_time_that_is_still_current_is_not_noted_in_whichever_zone(either_mysql: TestDatabase) -> None:
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in TIMES.items())
    old = ", ".join("2001" if name == "y" else "'2001-02-03 04:05:06'" for name in TIMES)
    either_mysql.execute(
        f"SET time_zone = '+00:00'; CREATE TABLE t (id int PRIMARY KEY, {columns}); INSERT INTO t VALUES (1, {old});"
        "SET time_zone = DEFAULT;"
        f"INSERT INTO t VALUES (2, {', '.join(value for _, value in TIMES.values())});"
        "INSERT INTO t (id, d6, t3) VALUES (3, now(6) + INTERVAL 1 DAY, now() + INTERVAL 1 DAY)"
    )
    values = {
        "d0": "2001-02-03 04:05:06",
        "d6": "2001-02-03 04:05:06.000000",
        "t0": "2001-02-03 04:05:06",
        "t3": "2001-02-03 04:05:06.000",
        "da": "2001-02-03",
        "y": "2001",
    }
    for name, value in values.items():
        found = note(either_mysql, name, Options(settle_seconds=60))
        assert found is not None
        assert (found.value, found.noted_at) == (value, 5.0)
    # The clock ticks on: without settling, a moment later it is a value like any other.
    for name in ("d6", "t3"):
        settled = note(either_mysql, name, Options(settle_seconds=0))
        assert settled is not None
        assert settled.value > "2001-02-04"
    # A zone that lies behind makes every value of this day a coming one, of those that carry no zone.
    late = Options(settle_seconds=0, tracking_time_zone="Pacific/Honolulu")
    zoneless, absolute = (note(either_mysql, name, late) for name in ("d6", "t3"))
    assert zoneless is not None
    assert absolute is not None
    assert settled is not None
    assert (zoneless.value[:4], absolute.value) == ("2001", settled.value)


@pytest.mark.parametrize(
    ("kind", "values", "value"),
    [
        ("bigint unsigned", "1, 18446744073709551615", "18446744073709551615"),
        ("decimal(20,5)", "-1, 99999999999999.00001", "99999999999999.00001"),
        ("float", "0.1, 0.3", "0.30000001192092896"),
        ("varchar(9) COLLATE utf8mb4_general_ci", "'a', 'Z', 'é'", "Z"),
        ("varbinary(9)", "'a', 0xff5c27", "\\xff5c27"),
        pytest.param(
            "uuid", "'00000000-0000-0000-0000-000000000001'", "00000000-0000-0000-0000-000000000001",
            marks=pytest.mark.mariadb_only,
        ),
        ("enum('z','a')", "'z', 'a'", "2"),
        ("bit(10)", "3, 5", "5"),
        ("date", "'0000-00-00'", "0000-00-00"),
    ],
)  # fmt: skip
def test_the_highest_value_is_the_sources_own_and_nothing_lies_above_it(
    either_mysql: TestDatabase, kind: str, values: str, value: str
) -> None:
    rows = values.replace(", ", "), (")
    either_mysql.execute(f"SET sql_mode = ''; CREATE TABLE t (v {kind} NULL); INSERT INTO t VALUES ({rows}), (NULL)")
    found = note(either_mysql, "v", Options())
    assert found is not None
    assert found.value == value
    above = with_source(either_mysql, lambda source: rows_above(source, either_mysql, value))
    assert above == [(None,)]


async def rows_above(source: MysqlSource, database: TestDatabase, floor: str) -> list[object]:
    return list(await rows_of(source, ReadPlan(schema=await described(source, database, "t", "v"), floor=floor)))


def test_an_empty_table_and_one_of_current_rows_have_nothing_to_note(either_mysql: TestDatabase) -> None:
    either_mysql.execute("CREATE TABLE t (v datetime(6), j json)")
    assert note(either_mysql, "v", Options()) is None
    either_mysql.execute("INSERT INTO t VALUES (now(6), '1'), (NULL, NULL)")
    assert note(either_mysql, "v", Options(settle_seconds=60)) is None


def test_a_column_without_an_order_cannot_be_tracked(either_mysql: TestDatabase) -> None:
    either_mysql.execute("CREATE TABLE t (g geometry)")
    with pytest.raises(SourceRejected, match=r"t\.g is of type geometry, which has no order"):
        note(either_mysql, "g", Options())
