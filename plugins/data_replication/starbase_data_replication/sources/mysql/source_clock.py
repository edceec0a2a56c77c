"""The source's clock, in the zone and precision of a tracking column that holds a time. Pure functions.

A value may become the floor only after the clock has passed it in the column's precision: until then, rows with the
same value can still come.
"""

from __future__ import annotations

import datetime
import zoneinfo
from dataclasses import dataclass

# The clock in UTC, and in the zone of ordinary sessions now and some hours later: CONVERT_TZ knows SYSTEM, and
# named zones wherever the server itself could be set to one.
CLOCK_SQL = """
SELECT UTC_TIMESTAMP(6),
       CONVERT_TZ(UTC_TIMESTAMP(6), '+00:00', @@GLOBAL.time_zone),
       CONVERT_TZ(UTC_TIMESTAMP(6) + INTERVAL 3 HOUR, '+00:00', @@GLOBAL.time_zone) - INTERVAL 3 HOUR
"""
AHEAD = datetime.timedelta(hours=3)


@dataclass(frozen=True, kw_only=True)
class SourceClock:
    """The source's time now.

    Attributes:
        utc: in UTC.
        local: in the zone of columns without one: the lowest time that this zone's clock will show from now on. If it
            will be put back within three hours, that is below the time now, so that rows of the repeated hour do not
            come in below the floor.
    """

    utc: datetime.datetime
    local: datetime.datetime


def parse_clock(utc: str, local: str, later: str) -> SourceClock:
    """Parse the answer to CLOCK_SQL."""
    now, *local_times = (datetime.datetime.fromisoformat(text) for text in (utc, local, later))
    return SourceClock(utc=now, local=min(local_times))


def clock_in_zone(utc: str, zone: str) -> SourceClock:
    """The same in a zone that the user has set: an IANA name, or an offset such as +02:00."""
    now = datetime.datetime.fromisoformat(utc)
    info: datetime.tzinfo
    if zone[:1] in "+-":
        hours, minutes = (int(part) for part in zone[1:].split(":"))
        offset = datetime.timedelta(hours=hours, minutes=minutes)
        info = datetime.timezone(-offset if zone[0] == "-" else offset)
    else:
        info = zoneinfo.ZoneInfo(zone)
    return SourceClock(utc=now, local=min(_shown(now, info), _shown(now + AHEAD, info) - AHEAD))


def _shown(utc: datetime.datetime, zone: datetime.tzinfo) -> datetime.datetime:
    return utc.replace(tzinfo=datetime.UTC).astimezone(zone).replace(tzinfo=None)


def first_unsettled(clock: SourceClock, kind: str, digits: int | None, settle_seconds: float) -> str:
    """The lowest value of a column that is not settled yet, as its type's text."""
    now = clock.utc if kind == "timestamp" else clock.local
    return _text(now - datetime.timedelta(seconds=settle_seconds), kind, digits)


def minus_seconds(value: str, kind: str, digits: int | None, seconds: float) -> str | None:
    """A column's value minus so many seconds; None if it is not a valid date."""
    if kind == "year":
        return None
    try:
        return _text(datetime.datetime.fromisoformat(value) - datetime.timedelta(seconds=seconds), kind, digits)
    except (ValueError, OverflowError):
        return None


def _text(moment: datetime.datetime, kind: str, digits: int | None) -> str:
    """Truncated, never rounded, to the column's precision."""
    if kind == "year":
        return f"{moment:%Y}"
    if kind == "date":
        return f"{moment:%Y-%m-%d}"
    kept = 6 if digits is None else digits
    fraction = f".{moment.microsecond:06}"[: kept + 1] if kept else ""
    # Not strftime: its %Y has no leading zeros on some systems.
    return f"{moment.replace(microsecond=0).isoformat(' ')}{fraction}"
