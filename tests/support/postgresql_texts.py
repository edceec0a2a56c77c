"""Texts that PostgreSQL reads as values of its types: hypothesis strategies."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st


def generated(strategy: st.SearchStrategy[str], count: int, number: int) -> list[str | None]:
    """So many values, and NULL."""
    found: dict[str, None] = {}

    @seed(number)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def collect(value: str) -> None:
        found[value] = None

    collect()
    return [None, *found]


def hexadecimal(stored: bytes) -> str:
    return "\\x" + stored.hex()


# Of the texts that PostgreSQL takes.
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
floats = st.floats().map(repr)
finite = st.floats(allow_nan=False, allow_infinity=False).map(repr)
any_floats = st.one_of(floats, st.sampled_from(["-0.0", "5e-324", "1.7976931348623157e308", "0.1", "NaN"]))
floats4 = st.one_of(
    st.floats(width=32).map(repr), st.sampled_from(["7.038531e-26", "-0.0", "1e-45", "3.4028235e38", "0.1", "16777217"])
)


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    return st.one_of(st.integers(low, high), st.sampled_from([low, high])).map(str)


def scaled(digits: int, scale: int) -> str:
    sign, text = "-" if digits < 0 else "", str(abs(digits)).rjust(scale + 1, "0")
    return f"{sign}{text[:-scale]}.{text[-scale:]}" if scale else f"{sign}{text}"


big = 10**300
decimals = st.one_of(
    st.builds(scaled, st.integers(-big, big), st.integers(0, 320)),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "0", "0.000", "-0.0", "9" * 131072, "0." + "0" * 16382 + "1"]),
)


def trimmed(text: str) -> str:
    """A decimal without the zeros behind its last digit."""
    return text.rstrip("0").rstrip(".") or "0" if "." in text else text


def sized(precision: int, scale: int) -> st.SearchStrategy[str]:
    """Decimals of a type of so many digits; more often than not, of few."""
    most = 10**precision - 1
    small = min(most, 10**15 - 1)
    found = st.one_of(st.integers(-small, small), st.integers(-most, most), st.integers(-99, 99))
    return st.one_of(found.map(lambda number: scaled(number, scale)), st.just("NaN"))


prices = st.integers(0, 10**12 - 1).map(lambda cents: scaled(cents, 2))


def _day(year: int, month: int, day: int) -> str:
    # Year 0 is 1 BC.
    return f"{year if year > 0 else 1 - year:04d}-{month:02d}-{day:02d}|{' BC' if year <= 0 else ''}"


def days(low: int, high: int) -> st.SearchStrategy[str]:
    years = st.one_of(st.integers(1, 9999), st.integers(low, high), st.sampled_from([low, 0, 1, 9999, 10000, high]))
    return st.builds(_day, years, st.integers(1, 12), st.integers(1, 28))


def _clock(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction:06d}"


DAY = 86_400 * 1_000_000
clocks = st.one_of(st.integers(0, DAY - 1), st.sampled_from([0, 1, DAY - 1, 500_000])).map(_clock)
zones = st.one_of(
    st.integers(-57599, 57599), st.sampled_from([0, 19800, -12600])
).map(lambda z: f"{'-' if z < 0 else '+'}{abs(z) // 3600:02d}:{abs(z) // 60 % 60:02d}:{abs(z) % 60:02d}")  # fmt: skip
infinities = st.sampled_from(["infinity", "-infinity"])
dates = st.one_of(days(-4711, 5874896).map(lambda day: day.replace("|", "")), infinities)
stamps = st.one_of(st.builds(lambda d, c: d.replace("|", " " + c), days(-4711, 294275), clocks), infinities)
zoned = st.one_of(st.builds(lambda d, c, z: d.replace("|", f" {c}{z}"), days(-4710, 294275), clocks, zones), infinities)
MONTHS = 2**31 - 1
intervals = st.builds(
    lambda months, day, us: f"{months} mons {day} days {us} microseconds",
    st.integers(-MONTHS, MONTHS), st.integers(-MONTHS, MONTHS), st.integers(-(2**62), 2**62) | st.integers(-9, 9),
)  # fmt: skip


def json_texts(strings: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """JSON as people write it: spaces, double keys, and numbers that no double holds."""
    scalars = st.one_of(
        st.sampled_from(["null", "true", "1.10", "-0", "1e3", "123456789012345678901234567890.10", "1E-300"]),
        strings.map(json.dumps),
        strings.map(lambda text: json.dumps(text, ensure_ascii=False)),
    )

    def pairs(each: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.tuples(st.sampled_from(['"a"', '"b"', '""']), each).map(" : ".join)

    return st.recursive(
        scalars,
        lambda each: st.one_of(
            st.lists(each, max_size=3).map(lambda items: "[ " + " ,".join(items) + "]"),
            st.lists(pairs(each), max_size=3).map(lambda items: "{" + ", ".join(items) + " }"),
        ),
        max_leaves=5,
    )


def addresses(*, network: bool) -> st.SearchStrategy[str]:
    def text(address: Any, bits: int) -> str:
        width = 32 if address.version == 4 else 128
        bits = bits % (width + 1)
        shown = type(address)(int(address) >> (width - bits) << (width - bits)) if network else address
        return f"{shown}/{bits}"

    return st.builds(text, st.ip_addresses(), st.integers(0, 128))


def hexes(size: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=size, max_size=size).map(lambda value: value.hex(":"))


def bits(low: int, high: int) -> st.SearchStrategy[str]:
    return st.text("01", min_size=low, max_size=high)


def in_quotes(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


lexemes = words.filter(bool).map(in_quotes)
points = st.tuples(any_floats, any_floats).map(lambda p: f"({p[0]},{p[1]})")
finite_points = st.tuples(finite, finite).map(lambda p: f"({p[0]},{p[1]})")
small = st.integers(-1000, 1000).map(str)
small_points = st.tuples(small, small).map(lambda p: f"({p[0]},{p[1]})")
labels = st.text("abcXYZ_09", min_size=1, max_size=5)


def joined(each: st.SearchStrategy[str], between: str, *, low: int = 0, high: int = 4) -> st.SearchStrategy[str]:
    return st.lists(each, min_size=low, max_size=high).map(between.join)


def in_array(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def arrays(each: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Flat, nested, with NULLs, empty, and with bounds of their own."""
    items = st.one_of(each.map(in_array), st.just("NULL"))
    flat = st.lists(items, max_size=4)

    def square(rows: Sequence[str], bounds: int | None) -> str:
        half = len(rows) // 2
        low = "" if bounds is None else f"[{bounds}:{bounds + 1}][2:{half + 1}]="
        return f"{low}{{{{{','.join(rows[:half])}}},{{{','.join(rows[half : 2 * half])}}}}}"

    def bounded(rows: Sequence[str], low: int) -> str:
        return f"[{low}:{low + len(rows) - 1}]={{{','.join(rows)}}}"

    return st.one_of(
        flat.map(lambda rows: "{" + ",".join(rows) + "}"),
        st.builds(square, st.lists(items, min_size=2, max_size=4), st.none() | st.integers(-3, 3)),
        st.builds(bounded, st.lists(items, min_size=1, max_size=4), st.integers(-3, 3)),
    )


def _range(ends: Sequence[Any], shown: Callable[[Any], str], brackets: tuple[str, str]) -> str:
    low, high = (None if end is None else shown(end) for end in ends)
    return f"{brackets[0]}{'' if low is None else low},{'' if high is None else high}{brackets[1]}"


def ranges(ends: st.SearchStrategy[Any], shown: Callable[[Any], str] = str) -> st.SearchStrategy[str]:
    pairs = st.one_of(
        st.lists(ends, min_size=2, max_size=2).map(sorted),
        st.tuples(st.none(), ends),
        st.tuples(ends, st.none()),
        st.just((None, None)),
    )
    brackets = st.tuples(st.sampled_from("[("), st.sampled_from("])"))
    return st.one_of(st.builds(_range, pairs, st.just(shown), brackets), st.just("empty"))


def multiranges(each: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(each, max_size=3).map(lambda items: "{" + ",".join(items) + "}")


def _field(value: str | None) -> str:
    return "" if value is None else in_array(value)


def rows(*fields: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A composite value."""
    return st.tuples(*(st.none() | field for field in fields)).map(lambda row: f"({','.join(map(_field, row))})")


def in_seconds(n: int) -> str:
    return f"2026-01-01 {_clock(n)}"


moods = st.sampled_from(["sad", "ok", "Happy 🙂", 'a "quoted", one', ""])
pairs = rows(small, words, arrays(decimals.filter(lambda n: len(n) < 50)), zoned, json_texts(words))
nested = rows(pairs, arrays(pairs), moods)
moments = st.integers(0, DAY - 1)
moment_ranges = ranges(moments, lambda n: f'"{in_seconds(n)}"')
plain = words.filter(lambda text: len(text.strip()) == len(text))
xml_text = st.text("abc é🙂\n", max_size=9).map(lambda text: f'<?xml version="1.0"?><a b="1">{text}</a>')
catalogue = st.sampled_from(["1259", "1247", "99999999"])
hstores = st.dictionaries(words, st.none() | words, max_size=3).map(
    lambda found: ",".join(f"{in_array(k)}=>{'NULL' if v is None else in_array(v)}" for k, v in found.items())
)
