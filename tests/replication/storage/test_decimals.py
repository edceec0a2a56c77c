"""Decimals are numbers where that is exact: what each text becomes, and that its digits can be restored."""

from __future__ import annotations

from decimal import Decimal

import apsw
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.model.casts import as_stored, decimal_cast, decimal_or_text, plain, whole_or_text

NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30),
    st.integers(-(10**16), 10**16),
    st.integers(-(10**15), 10**15),
    st.sampled_from([2**63, 2**63 - 1, -(2**63), -(2**63) - 1, 10**15, 10**18, 10**19, 10**60, 0]),
)


def written(number: int, scale: int) -> str:
    digits = str(abs(number)).rjust(scale + 1, "0")
    whole, after = digits[: len(digits) - scale], digits[len(digits) - scale :]
    return f"{'-' if number < 0 else ''}{whole}{'.' if after else ''}{after}"


@given(number=NUMBERS, scale=st.integers(0, 30), zeros=st.integers(0, 40))
def test_a_wide_decimal_is_a_number_just_where_that_is_exact(number: int, scale: int, zeros: int) -> None:
    text = written(number, scale)
    if number >= 0:
        text = text.rjust(zeros, "0")
    stored = decimal_or_text(text)
    assert plain(stored) == plain(text)
    digits = text.lstrip("-").replace(".", "").strip("0")
    if isinstance(stored, float):
        assert len(digits) <= 15
        assert Decimal(repr(stored)) == Decimal(text)
    elif isinstance(stored, int):
        assert len(digits) > 15
        assert str(stored) == plain(text)
    else:
        assert stored == text
        assert len(digits) > 15


@given(number=NUMBERS, zeros=st.integers(0, 65))
def test_a_wide_decimal_without_decimals_is_an_integer_where_it_has_room(number: int, zeros: int) -> None:
    text = str(number) if number < 0 else str(number).rjust(zeros, "0")
    stored = whole_or_text(text)
    if -(2**63) <= number < 2**63:
        assert type(stored) is int
        assert stored == number
    else:
        assert plain(stored) == plain(text)
        assert isinstance(stored, float if len(str(abs(number)).strip("0")) <= 15 else str)


def test_values_that_are_not_numbers_or_out_of_range_are_text() -> None:
    for text in ("NaN", "Infinity", "-Infinity", "1" + "0" * 400, "0." + "0" * 400 + "1", "9" * 5000):
        assert decimal_or_text(text) == text
        assert whole_or_text(text) == text
        assert plain(text) == text


@given(number=st.integers(-(10**15) + 1, 10**15 - 1), scale=st.integers(0, 20))
def test_sqlite_makes_the_number_and_writes_its_digits_again(number: int, scale: int) -> None:
    """By affinity, from the text, at no cost in Python; and a comparison writes it with the zeros of its scale."""
    text = written(number, scale)
    cast = decimal_cast(15, scale)
    connection = apsw.Connection(":memory:")
    connection.execute(f"CREATE TABLE t (v {cast.declared})")
    connection.execute("INSERT INTO t VALUES (?)", (text,))
    ((stored, kind),) = connection.execute("SELECT v, typeof(v) FROM t")
    assert kind == ("real" if scale else "integer")
    assert stored == as_stored(cast, text)
    assert Decimal(repr(stored)) == Decimal(text)
    if scale:
        assert connection.execute(f"SELECT format('%.{scale}f', v) FROM t").get == text


@given(number=st.integers(-(10**18) + 1, 10**18 - 1))
def test_eighteen_digits_without_decimals_are_an_integer(number: int) -> None:
    cast = decimal_cast(18, 0)
    connection = apsw.Connection(":memory:")
    connection.execute(f"CREATE TABLE t (v {cast.declared})")
    connection.execute("INSERT INTO t VALUES (?)", (str(number),))
    assert connection.execute("SELECT v FROM t").get == number
