"""When is a replication due? Pure functions of `now`, in seconds since 1970.

Owns the grid of ticks. Must not know a clock, an alarm or a database; whoever calls stores what is returned.

A replication that has never run, was just configured or was just started is due at once. After that it is due
at the ticks of its own grid: one every interval, at a phase taken from its name, so that replications made
together do not start together, and one that ran late does not drift. A failed run changes nothing: the next
tick is the next try, so trying again is never faster than the interval. Ticks that pass while a run is still
going, or while the host is off, become one.
"""

from __future__ import annotations

import hashlib
import math

# Times are stored in milliseconds and added as doubles: less than this share of an interval is no difference.
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
    """When a replication is due next, asked when a run has ended or was skipped.

    last_due: when that run was due, which is not when it began. None means that there was none, and the
        answer is now.

    The answer is the grid's next tick. Where that lies less than half an interval after last_due, because the
    run was not on the grid (the first one, or the one after `start`), it is the point half an interval later;
    the tick after that is on the grid again. So from a last_due that is not in the future, the gap is at
    least half an interval. The answer is always later than now, and by at most one interval, even where the
    clock was set back and last_due lies in the future.
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
    """A stored due time as it holds now: asked at start, and whenever the clock may have been set.

    It stays unless it is more than one interval away, which only a clock set back or a shortened interval can
    do; then it is the grid's next tick. One that has passed stays too: it is due at once, and only once.
    """
    return due if due <= now + interval_seconds else next_tick(name, interval_seconds, now=now)
