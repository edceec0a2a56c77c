"""Tracking values that are a rounded clock: to the hour, to the day, a number of days. Pure functions.

Examples are `date_trunc('hour', now())`, a year in a smallint and seconds since 1970 in an integer. Many transactions,
one after another, store the same value until the clock shows the next one. So the highest value may come again, and
cannot be the floor yet; lower values cannot come again. No catalogue says how a column is rounded, but a value shows
what is possible: while a clock that is rounded in a usual way could show it, the floor stays just below it. If a value
only looks like that, its rows are read a second time, and nothing is lost.
"""

from __future__ import annotations

import datetime
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from itertools import chain

# The difference between the clocks of any two zones and UTC, with an hour for a clock that is put back.
ZONES = datetime.timedelta(hours=15)
DAY = datetime.timedelta(hours=25)
QUARTER_HOUR = datetime.timedelta(minutes=15)
STEPS = tuple(
    datetime.timedelta(milliseconds=step) for step in (1, 1000, 60_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000)
)
EPOCH = datetime.datetime(1970, 1, 1)

# Units of times since 1970, by how many there are in a second. Zones do not change them.
PER_SECOND = (Decimal(1_000_000), Decimal(1000), Decimal(1))
# Lengths in seconds of the periods that other numbers count.
PERIODS = (60, 300, 600, 900, 1800, 3600, 7200, 10_800, 14_400, 21_600, 28_800, 43_200)
YEAR_2000 = 946_684_800
# How many seconds such a number may be ahead of the source's clock and still count as its time.
AHEAD_SECONDS = 60
# Days are counted from 1970, from 1900 (spreadsheets), from the years 0 and 1, and from 4713 BC.
FIRST_DAYS = (0, 25_569, 719_528, 719_163, 2_440_588)
CALENDAR = ("%Y", "%Y%m", "%Y%m%d", "%y%m%d", "%Y%j", "%G%V", "%Y%U", "%Y%W")
CALENDAR_TIMES = {10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


def below_a_shown_time(value: str, edge: str, *, digits: int | None, dates: bool = False) -> str:
    """The value, or the time just before it if it may come again.

    edge: what the column's clock showed at the time up to which rows are settled; above the value.
    digits: the column's fractional digits; None is six.
    dates: whether the column contains days.
    """
    try:
        shown, now = datetime.datetime.fromisoformat(value), datetime.datetime.fromisoformat(edge)
        shown, now = shown.replace(tzinfo=None), now.replace(tzinfo=None)
        if not _comes_again(shown, now - shown, dates=dates):
            return value
        fraction = datetime.timedelta(microseconds=10 ** (6 - (6 if digits is None else digits)))
        before = shown - (datetime.timedelta(days=1) if dates else fraction)
    except (ValueError, OverflowError):
        return value
    if dates:
        return f"{before:%Y-%m-%d}"
    # A zone is UTC: see the dialects' settings.
    return before.isoformat(" ") + ("+00" if value.endswith("+00") else "")


def _comes_again(shown: datetime.datetime, age: datetime.timedelta, *, dates: bool) -> bool:
    since = shown - EPOCH
    if not dates:
        if any(age < step and not since % step for step in STEPS):
            return True
        if since % QUARTER_HOUR:
            return False
        if age < DAY:
            return True
    slack = datetime.timedelta() if dates else ZONES
    first = (shown - slack).date()
    days = [
        first + datetime.timedelta(days=number)
        for number in range((shown + slack).date().toordinal() - first.toordinal() + 1)
    ]
    return (
        (age < 6 * DAY + DAY and any(day.weekday() in (0, 5, 6) for day in days))
        or (age < 31 * DAY and any(day.day == 1 for day in days))
        or (age < 92 * DAY and any(day.day == 1 and day.month in (1, 4, 7, 10) for day in days))
        or (age < 366 * DAY and any(day.day == 1 and day.month == 1 for day in days))
    )


def below_a_shown_number(value: str, now: str, *, settle_seconds: float) -> str:
    """The value, or a number just below it if it may come again. now: seconds since 1970, by the source's clock."""
    try:
        number, seconds = Decimal(value), Decimal(now)
    except InvalidOperation:
        return value
    if not number.is_finite():
        return value
    for scale in PER_SECOND:
        low = (seconds - Decimal(settle_seconds)) * scale // 1
        if low <= number <= (seconds + AHEAD_SECONDS) * scale:
            return str(int(low) - 1)
        if YEAR_2000 * scale < number < low and _is_cut(number / scale, seconds):
            return str(_number_below(number))
    for period in PERIODS:
        low = (seconds - Decimal(settle_seconds)) // period
        if low <= number <= (seconds + AHEAD_SECONDS) / period:
            return str(int(low) - 1)
    if number != number.to_integral_value() or not 0 < number < 10**14:
        return value
    whole, moment = int(number), EPOCH + datetime.timedelta(seconds=float(seconds))
    slack = ZONES + datetime.timedelta(seconds=settle_seconds)
    return str(whole - 1) if _is_of_today(whole, moment - slack, moment + ZONES) else value


def shows_a_time(value: str, now: str) -> bool:
    """Whether a number looks like seconds, milliseconds or microseconds since 1970, and is not in the future."""
    try:
        number, seconds = Decimal(value), Decimal(now)
    except InvalidOperation:
        return False
    return number.is_finite() and any(
        YEAR_2000 * scale <= number <= (seconds + AHEAD_SECONDS) * scale for scale in PER_SECOND
    )


def _is_cut(shown: Decimal, now: Decimal) -> bool:
    """Whether seconds since 1970 may be a rounded clock that still shows this value."""
    moment = EPOCH + datetime.timedelta(microseconds=int(shown * 1_000_000))
    return _comes_again(moment, datetime.timedelta(microseconds=int((now - shown) * 1_000_000)), dates=False)


def _number_below(number: Decimal) -> int:
    return int(number.to_integral_value(ROUND_CEILING)) - 1


def _is_of_today(number: int, earliest: datetime.datetime, latest: datetime.datetime) -> bool:
    """Whether a number is a day, a week, a month, a year or a time of the calendar between the two."""
    length = len(str(number))
    if length in CALENDAR_TIMES:
        try:
            return earliest <= datetime.datetime.strptime(str(number), CALENDAR_TIMES[length]) <= latest
        except ValueError:
            return False
    moments = [earliest + datetime.timedelta(hours=hours) for hours in range(0, 48, 6)]
    days = {min(moment, latest).date() for moment in moments}
    counts = {(day - EPOCH.date()).days for day in days}
    since = chain.from_iterable(
        (count + first, (count + first) // 7, (count + 3) // 7) for count in counts for first in FIRST_DAYS
    )
    months = ((day.year - start) * 12 + day.month - less for day in days for start in (0, 1970) for less in (0, 1))
    return number in {*since, *months, *(int(day.strftime(form)) for day in days for form in CALENDAR)}
