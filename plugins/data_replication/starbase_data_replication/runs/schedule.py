"""When a replication is due: pure functions of `now`, in seconds since 1970.

Owns the grid of ticks. Must not know a clock, an alarm or a database; the scheduler stores what they return.

A replication that has never run, was just configured or was just started is due at once. After that it is due
at the ticks of its own grid: one every interval, at a phase that its name gives. So replications that were created
together do not run together, and a late run does not shift the next ones. A failed run changes nothing: the next
tick is the next try, so trying again is never faster than the interval. Ticks that pass while a run is still
going, or while the host is off, become one.
"""

from __future__ import annotations

import hashlib
import math

# Times are stored in milliseconds and added as doubles: one below this share of an interval is a rounding error.
TOLERANCE = 0.001


def phase(name: str, interval_seconds: float) -> float:
    """Where in its interval a replication's ticks lie: in [0, interval), the same in every process."""
    digest = hashlib.blake2b(name.encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48 * interval_seconds


def next_tick(name: str, interval_seconds: float, *, now: float) -> float:
    """The first tick of the grid after `now`: always later than now, and by at most one interval."""
    offset = phase(name, interval_seconds)
    tick = offset + (math.floor((now - offset) / interval_seconds) + 1) * interval_seconds
    if tick <= now:
        tick += interval_seconds
    return min(tick, now + interval_seconds)


def next_due(name: str, interval_seconds: float, *, now: float, last_due: float | None) -> float:
    """When a replication is due next: to be called when a run has begun or was skipped.

    last_due: when that run was due, which is not when it began. Without a run, None; the result is then now.

    The result is the grid's next tick. If that is less than half an interval after last_due, because the run was not
    on the grid (the first one, or the one after `start`), the result is half an interval after that tick; the next one
    is on the grid again. So the gap after a last_due that is not in the future is at least half an interval. The result
    is always later than now, by at most one interval, even if the clock was set back and last_due is in the future.
    """
    if last_due is None:
        return now
    tick = next_tick(name, interval_seconds, now=now)
    begun, slack = min(last_due, now), TOLERANCE * interval_seconds
    if tick < begun + slack:
        return now + interval_seconds
    half = interval_seconds / 2
    return tick if tick >= begun + half - slack else tick + half


def still_due(name: str, interval_seconds: float, *, now: float, due: float) -> float:
    """Correct a stored due time: to be called at start, and whenever the clock may have been set.

    It stays, unless it is more than one interval away, which only a clock that was set back or a shorter interval
    causes; then the result is the grid's next tick. A time that has passed stays too: it is due at once, and only once.
    """
    return due if due <= now + interval_seconds else next_tick(name, interval_seconds, now=now)
