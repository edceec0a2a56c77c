"""Which values are taken to rise with time, and which are known not to: pure functions."""

from __future__ import annotations

import secrets
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.sync.mixed_uuids import MixedUuids
from starbase_data_replication.sync.tracking_values import random_kind, rises

NOW = 1_796_000_000.0
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
BITS = st.integers(0, 2**128 - 1)
TIMES = st.floats(NOW - 25 * 365 * 86_400, NOW)
GREGORIAN = 0x01B21DD213814000


def as_bytes(number: int) -> str:
    return f"\\x{number:032x}"


def of_version(version: int, bits: int) -> uuid.UUID:
    return uuid.UUID(int=bits & ~(0xF << 76) & ~(0b11 << 62) | version << 76 | 0b10 << 62)


def uuid7(at: float, bits: int) -> uuid.UUID:
    return of_version(7, int(at * 1000) << 80 | bits & (2**80 - 1))


def uuid1(at: float, bits: int) -> uuid.UUID:
    ticks = int(at * 1e7) + GREGORIAN
    low, middle, high = ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48
    return of_version(1, low << 96 | middle << 80 | high << 64 | bits & (2**64 - 1))


def uuid6(at: float, bits: int) -> uuid.UUID:
    ticks = int(at * 1e7) + GREGORIAN
    return of_version(6, (ticks >> 12) << 80 | (ticks & 0xFFF) << 64 | bits & (2**64 - 1))


def swapped(found: uuid.UUID) -> bytes:
    """As MySQL's UUID_TO_BIN(…, 1) stores it."""
    raw = found.bytes
    return raw[6:8] + raw[4:6] + raw[0:4] + raw[8:]


def ulid(at: float, bits: int) -> str:
    number = int(at * 1000) << 80 | bits & (2**80 - 1)
    return "".join(CROCKFORD[number >> 5 * place & 31] for place in reversed(range(26)))


@given(TIMES, BITS)
def test_ids_that_begin_with_a_time_rise(at: float, bits: int) -> None:
    seven, six = uuid7(at, bits), uuid6(at, bits)
    for found in (seven, six):
        for text in (str(found), str(found).upper(), found.hex):
            assert rises("uuid", text, now=NOW)
            assert rises("text", text, now=NOW)
        assert rises("bytes", as_bytes(found.int), now=NOW)
        assert rises("bytes", "\\x" + str(found).encode().hex(), now=NOW)
    assert rises("text", ulid(at, bits), now=NOW)
    assert rises("text", f"user_{ulid(at, bits).lower()}", now=NOW)
    assert rises("bytes", as_bytes(int(at * 1000) << 80 | bits & (2**80 - 1)), now=NOW)
    assert rises("bytes", "\\x" + swapped(uuid1(at, bits)).hex(), now=NOW)
    assert rises("text", f"{int(at):08x}{bits & (2**64 - 1):016x}", now=NOW)


@given(st.sampled_from([3, 4, 5]), BITS)
def test_random_uuids_do_not(version: int, bits: int) -> None:
    """A table's highest one of them never begins with a zero, but where there are few."""
    found = of_version(version, bits | 0xF << 124)
    for kind, text in (("uuid", str(found)), ("text", str(found)), ("text", found.hex), ("bytes", as_bytes(found.int))):
        assert not rises(kind, text, now=NOW)
        assert random_kind(kind, text) == f"random uuids (version {version})"
    assert not rises("uuid", str(of_version(version, bits)), now=NOW)


@given(TIMES, BITS)
def test_the_first_version_of_uuids_sorts_by_its_lowest_part(at: float, bits: int) -> None:
    found = uuid1(at, bits)
    assert not rises("uuid", str(found), now=NOW)
    assert "version 1" in str(random_kind("uuid", str(found)))
    assert "version 1" in str(random_kind("text", str(found)))


@pytest.mark.parametrize("size", [16, 20, 32])
def test_digests_and_random_bytes_do_not(size: int) -> None:
    found = b"\xfe" + secrets.token_bytes(size - 1)
    for kind, text in (("text", found.hex()), ("bytes", "\\x" + found.hex())):
        assert not rises(kind, text, now=NOW)
        assert random_kind(kind, text) is not None


@pytest.mark.parametrize("text", ["", "a", "zebra", "A-0001", "0" * 32, "0" * 29 + "3e8", "9" * 24, "x" * 26, "8" * 26])
def test_of_other_values_nothing_is_known(text: str) -> None:
    assert not rises("text", text, now=NOW)
    assert random_kind("text", text) is None
    if text:
        assert random_kind("bytes", "\\x" + text.encode().hex()) is None


@pytest.mark.parametrize("kind", ["uuid", "text", "bytes"])
def test_above_the_highest_value_nothing_comes(kind: str) -> None:
    value = "\\x" + "f" * 32 if kind == "bytes" else str(uuid.UUID(int=2**128 - 1))
    assert not rises(kind, value, now=NOW)
    assert random_kind(kind, value) == "the highest value that there is"


@pytest.mark.parametrize("text", ["2026-11-30", "2026-11-30T12:00:00Z", "2026-11-30 12:00:00.5", "2026-11"])
def test_times_as_text_rise(text: str) -> None:
    assert rises("text", text, now=NOW)
    assert rises("bytes", "\\x" + text.encode().hex(), now=NOW)


@given(st.sampled_from(["uuid", "text", "bytes"]), st.text(max_size=70), st.binary(max_size=70))
def test_every_value_gets_an_answer(kind: str, text: str, raw: bytes) -> None:
    value = "\\x" + raw.hex() if kind == "bytes" else text
    if not rises(kind, value, now=NOW):
        random_kind(kind, value)


@given(TIMES, BITS, st.sampled_from([1, 3, 4, 5]), BITS, st.lists(TIMES, max_size=9))
def test_random_uuids_are_found_among_those_that_rise(
    at: float, bits: int, version: int, other: int, times: list[float]
) -> None:
    """In each form, however low they are; beside NULLs and shorter values. A ULID may look like any version."""
    random = of_version(version, other & (2**112 - 1))
    beside = [uuid7(time, bits) for time in (at, *times)]
    for form in (str, lambda each: each.hex, lambda each: f"{{{each}}}"):
        rows = [(1, value) for value in (None, "", "short", *map(form, beside))]
        mixed = MixedUuids(index=1, kind="text", place=form(uuid.UUID(int=7 << 76)).index("7"))
        assert mixed.find(rows, now=NOW) is None
        assert f"version {version}" in str(mixed.find([*rows, (1, form(random))], now=NOW))
    mixed = MixedUuids(index=0, kind="bytes", place=6)
    rising_bytes = [(each.bytes,) for each in beside] + [
        ((int(time * 1000) << 80 | other & (2**80 - 1)).to_bytes(16, "big"),) for time in times
    ]
    assert mixed.find(rising_bytes, now=NOW) is None
    assert f"version {version}" in str(mixed.find([*rising_bytes, (random.bytes,), (None,)], now=NOW))
    assert mixed.find([], now=NOW) is None
