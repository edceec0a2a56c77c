"""When a replication is due: unit tests, and properties over many names, intervals and clocks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.runs.schedule import TOLERANCE, next_due, next_tick, phase, still_due

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True)
INTERVALS = st.floats(0.6, 365 * 86400)
TIMES = st.floats(0, 4e9)
ROUNDING = 1e-5


def on_grid(name: str, interval: float, at: float) -> bool:
    off = (at - phase(name, interval)) / interval
    return abs(off - round(off)) <= TOLERANCE


def test_never_run_is_due_at_once() -> None:
    assert next_due("orders", 60, now=1000.0, last_due=None) == 1000.0


@given(NAMES, INTERVALS)
def test_phase_lies_in_the_interval_and_is_the_same_every_time(name: str, interval: float) -> None:
    assert 0 <= phase(name, interval) < interval
    assert phase(name, interval) == phase(name, interval)


def test_phase_is_the_same_in_every_process() -> None:
    assert phase("orders", 3600) == 3581.8618066561826


def test_many_names_spread_over_the_interval() -> None:
    phases = [phase(f"replication-{number}", 1.0) for number in range(1000)]
    tenths = [sum(tenth <= value * 10 < tenth + 1 for value in phases) for tenth in range(10)]
    assert min(tenths) > 60


@given(NAMES, INTERVALS, TIMES)
def test_next_tick_is_on_the_grid_and_within_one_interval(name: str, interval: float, now: float) -> None:
    tick = next_tick(name, interval, now=now)
    assert now < tick <= now + interval
    assert on_grid(name, interval, tick)


@given(NAMES, INTERVALS, TIMES, TIMES)
def test_next_due_is_at_most_one_interval_from_now_even_if_the_clock_jumped(
    name: str, interval: float, now: float, last_due: float
) -> None:
    assert now < next_due(name, interval, now=now, last_due=last_due) <= now + interval + ROUNDING


@given(NAMES, INTERVALS, TIMES, st.floats(0, 5))
def test_gap_is_never_under_half_an_interval(name: str, interval: float, due: float, late: float) -> None:
    following = next_due(name, interval, now=due + late * interval, last_due=due)
    assert following - due >= interval * (0.5 - 2 * TOLERANCE)


@given(NAMES, INTERVALS, TIMES, st.lists(st.floats(0, 0.4), min_size=6, max_size=6))
def test_after_a_first_sync_at_any_time_the_runs_are_soon_on_the_grid_and_stay(
    name: str, interval: float, start: float, lateness: list[float]
) -> None:
    due, dues = start, []
    for late in lateness:
        due = next_due(name, interval, now=due + late * interval, last_due=due)
        dues.append(due)
    assert all(on_grid(name, interval, at) for at in dues[2:])
    gaps = [after - before for before, after in pairwise(dues[2:])]
    assert all(abs(gap - interval) <= 2 * TOLERANCE * interval for gap in gaps)


@given(NAMES, INTERVALS, TIMES, st.floats(1, 1000))
def test_missed_ticks_become_one(name: str, interval: float, due: float, missed: float) -> None:
    now = due + missed * interval
    assert still_due(name, interval, now=now, due=due) == due
    following = next_due(name, interval, now=now, last_due=due)
    assert now < following <= now + interval + ROUNDING


@given(NAMES, st.floats(0.6, 86400), TIMES)
def test_an_alarm_that_rings_a_moment_early_does_not_ring_twice(name: str, interval: float, now: float) -> None:
    tick = next_tick(name, interval, now=now)
    following = next_due(name, interval, now=tick - 0.0004, last_due=tick - 0.0004)
    assert following - tick >= interval * (1 - 2 * TOLERANCE)


@given(NAMES, INTERVALS, TIMES, TIMES)
def test_a_stored_due_time_is_never_more_than_one_interval_away(
    name: str, interval: float, now: float, due: float
) -> None:
    held = still_due(name, interval, now=now, due=due)
    assert held <= now + interval
    assert held == due or due > now + interval


def test_clock_set_back_by_a_day_postpones_by_at_most_one_interval() -> None:
    due = next_due("orders", 3600, now=1_000_000.0, last_due=999_000.0)
    now = 1_000_000.0 - 86_400
    assert now < still_due("orders", 3600, now=now, due=due) <= now + 3600
    assert now < next_due("orders", 3600, now=now, last_due=due) <= now + 3600


def test_a_shortened_interval_holds_at_once() -> None:
    assert still_due("orders", 60, now=1000.0, due=1000.0 + 3600) <= 1060
