"""Tracking values that are times: which of them are settled, and what lies a lookback before them. Pure functions.

A value is a text of ISO 8601 (`2026-01-31`, `2026-01-31 12:00:00.5`, `2026-01-31T12:00:00Z`) or a number of seconds,
milliseconds, microseconds or nanoseconds since 1970. A text without a zone is in UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from starbase_data_replication.dialect_kit.positions import Value
from starbase_data_replication.sources import below_a_shown_time

ISO = re.compile(
    r"\d{4}-\d\d-\d\d(?:(?P<mark>[T ])\d\d:\d\d(?::\d\d(?:\.(?P<digits>\d{1,9}))?)?)?(?P<zone>Z|[+-]\d\d:?\d\d)?\Z"
)
# Units in a second, by the least number that is one of them and not one of the former: seconds of the year 5138.
UNITS = ((1e11, 1), (1e14, 1_000), (1e17, 1_000_000), (float("inf"), 1_000_000_000))


@dataclass(frozen=True)
class _Form:
    """How a text writes a time: the mark between date and time, or none; digits of the second; minutes of the zone."""

    mark: str
    seconds: bool
    digits: int
    zone: str

    def write(self, moment: datetime) -> str:
        """The time, cut to the form's digits. moment: in the form's own zone."""
        if not self.mark:
            return f"{moment:%Y-%m-%d}{self.zone}"
        text = f"{moment:%Y-%m-%d}{self.mark}{moment:%H:%M}"
        if self.seconds:
            text += f":{moment:%S}"
        if self.digits:
            text += f".{moment.microsecond:06d}000"[: self.digits + 1]
        return text + self.zone

    @property
    def step(self) -> timedelta:
        """The shortest time between two times of this form, at least a microsecond."""
        if not self.mark:
            return timedelta(days=1)
        if not self.seconds:
            return timedelta(minutes=1)
        return timedelta(microseconds=10 ** (6 - min(self.digits, 6)))

    @property
    def offset(self) -> timedelta:
        if self.zone in ("", "Z"):
            return timedelta()
        sign, digits = self.zone[0], self.zone[1:].replace(":", "")
        minutes = int(digits[:2]) * 60 + int(digits[2:])
        return timedelta(minutes=-minutes if sign == "-" else minutes)


def is_time(value: Value) -> bool:
    """Whether a value can be read as a time."""
    return isinstance(value, int | float) or (isinstance(value, str) and _read(value) is not None)


def settled(value: Value, *, clock: float, settle_seconds: float) -> Value:
    """The value, or a lower one if rows that come later may still have it.

    clock: the source's, in seconds since 1970. settle_seconds: how far behind it a row is settled.
    """
    if isinstance(value, int | float):
        return min(value, int((clock - settle_seconds) * _unit(value)) - 1)
    found = _read(value) if isinstance(value, str) else None
    if found is None:
        return value
    shown, form = found
    edge = datetime.fromtimestamp(clock - settle_seconds, UTC).replace(tzinfo=None) + form.offset
    if shown >= edge:
        shown = datetime.fromisoformat(form.write(edge).removesuffix(form.zone)[:26]) - form.step
    below = below_a_shown_time(
        shown.isoformat(" ") if form.mark else f"{shown:%Y-%m-%d}",
        edge.isoformat(" "),
        digits=min(form.digits, 6),
        dates=not form.mark,
    )
    written = form.write(datetime.fromisoformat(below))
    # Cutting a value to its form's digits must not raise it.
    return min(written, value) if isinstance(value, str) else written


def before(value: Value, seconds: float) -> Value:
    """The time so many seconds before this one, in the same form; the value itself if it is no time."""
    if isinstance(value, int | float):
        return value - int(seconds * _unit(value))
    found = _read(value) if isinstance(value, str) else None
    if found is None:
        return value
    shown, form = found
    return form.write(shown - timedelta(seconds=seconds))


def ahead_of(value: Value, *, clock: float, seconds: float) -> Value | None:
    """The time so many seconds after the clock, in the form of the value, if the value lies above it; else None."""
    if isinstance(value, int | float):
        edge = int((clock + seconds) * _unit(value))
        return edge if value > edge else None
    found = _read(value) if isinstance(value, str) else None
    if found is None:
        return None
    shown, form = found
    later = datetime.fromtimestamp(clock + seconds, UTC).replace(tzinfo=None) + form.offset
    return form.write(later) if shown > later else None


def _unit(value: float) -> int:
    return next(unit for below, unit in UNITS if abs(value) < below)


def _read(value: str) -> tuple[datetime, _Form] | None:
    """The time that a text shows, in its own zone, and its form; None if it is no time."""
    if (found := ISO.match(value)) is None:
        return None
    zone, digits = found["zone"] or "", found["digits"] or ""
    text = value.removesuffix(zone)
    if digits:
        text = text[: len(text) - len(digits)] + digits[:6].ljust(6, "0")
    try:
        shown = datetime.fromisoformat(text)
    except ValueError:
        return None
    return shown, _Form(found["mark"] or "", text.count(":") == 2, len(digits), zone)
