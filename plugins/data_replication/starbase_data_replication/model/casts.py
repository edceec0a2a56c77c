"""Casts: how a source's value becomes what SQLite stores, and how the column is declared.

A cast is data. The source does the work if it can: it evaluates `select`, so that a value arrives in its final form.
`convert` is for what only Python can do, and costs time for each value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, TypeVar

T = TypeVar("T")

# No affinity: SQLite stores the value exactly as it is bound. A declared type that holds none of
# TEXT, CHAR, CLOB, BLOB would rewrite text ('007' becomes 7), and REAL would lose the sign of -0.0.
NO_AFFINITY = ""

# A decimal of at most this many significant digits survives the way into a double and back: DBL_DIG of IEEE 754.
EXACT_DIGITS = 15
# Every whole number of this many digits fits into SQLite's 64 bits; some of one more do not.
WHOLE_DIGITS = 18
# SQLite reads decimals with more places than this in another way than Python; up to here both make the same number.
MOST_PLACES = 20
# Beyond these, a double has fewer than EXACT_DIGITS digits, or none.
LARGEST, SMALLEST = 1e300, 1e-290


@dataclass(frozen=True, kw_only=True)
class Cast:
    """One way from the source to SQLite.

    Attributes:
        select: a template for the expression in the SELECT; `{}` stands for the quoted column.
        declared: SQLite's declared type: INTEGER, REAL, NUMERIC, TEXT, BLOB or NO_AFFINITY.
        convert: applied to each value that is not None; None if the value is already right.
        known: False for a type that is not in the ledger: its values travel as the source's text, with a warning.
        resumable: whether the source can compare the column with what the replica holds, so that a load in the order
            of a key of this type can resume.
        unrepresentable: stored values of this Python type could not be represented; they are counted. None counts none.
        policy: of those values, what they are and what became of them. The run's warnings say "N values" and this.
        decimal: whether the column holds decimals, as numbers if those are exact. Declared REAL or NUMERIC, SQLite
            itself makes the number of a text, exactly.
        scale: of decimals, the digits after the point; None if the type does not say.
        moment: of a time, the `select` that gives it as SQLite's own date functions do, if the user asks for that.
        form: for the ledger (docs/reference/types.md): what a stored value looks like.
        example: for the ledger: one stored value.
        sorts: for the ledger: whether SQLite orders the stored values as the source orders its own.
    """

    select: str = "{}"
    declared: str = "TEXT"
    convert: Callable[[Any], Any] | None = None
    known: bool = True
    resumable: bool = True
    unrepresentable: type | None = None
    policy: str = ""
    decimal: bool = False
    scale: int | None = None
    moment: str = ""
    form: str = ""
    example: str = ""
    sorts: bool = True


def float_or_text(value: float) -> float | str:
    """A double unchanged; NaN as text, because SQLite turns a bound NaN into NULL."""
    return value if value == value else "NaN"


def unsigned(value: int | str) -> int | str:
    """An unsigned 64-bit integer: INTEGER if SQLite's 64 signed bits hold it, else its digits as TEXT."""
    number = int(value)
    return number if number < 2**63 else str(number)


def text_or_bytes(value: bytes) -> str | bytes:
    """Text that came as bytes; the bytes if they are not UTF-8, which SQLite keeps as they are."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def decimal_cast(
    precision: int | None = None, scale: int | None = None, *, select: str = "{}", also: str = "", example: str = ""
) -> Cast:
    """The cast of a decimal type.

    If each value of the type is exact as a number, SQLite makes the numbers, at no cost; of a wider type, each value
    is checked. A number is REAL, so that half of 5.00 is 2.5, except for types without digits after the point.

    precision: the type's digits; None if it does not say.
    scale: how many of them are after the point; None if it does not say.
    select: see Cast.
    also: for the ledger, what else a column of the type may hold.
    example: for the ledger, a stored value.
    """
    if precision is not None and scale is not None:
        if 0 < scale <= MOST_PLACES and precision <= EXACT_DIGITS:
            form = f"the number; pad its text to the type's decimals{also}"
            return Cast(select=select, declared="REAL", decimal=True, scale=scale, form=form, example="1234567890.1")
        if scale <= 0 and precision - scale <= WHOLE_DIGITS:
            form = f"the number{also}"
            return Cast(select=select, declared="NUMERIC", decimal=True, scale=scale, form=form, example="1234567890")
    whole = scale is not None and scale <= 0
    return Cast(
        select=select,
        declared=NO_AFFINITY,
        convert=whole_or_text if whole else decimal_or_text,
        unrepresentable=str,
        policy=NOT_EXACT,
        decimal=True,
        scale=scale,
        form=f"the number if it has at most {EXACT_DIGITS} digits or is a 64-bit integer; else every digit as TEXT"
        f"{also}",
        example=example or ("1234567890" if whole else "1234567890.1"),
        sorts=False,
    )


NOT_EXACT = (
    "are exact as no number of SQLite's and are kept as text, which compares as text; CAST(… AS REAL) makes the "
    'nearest number, and "types": {"…": "text"} keeps every value of the column as its digits'
)


def as_text(cast: Cast) -> Cast:
    """The cast that stores the same decimals as all their digits, with every zero."""
    return replace(
        cast, declared="TEXT", convert=None, unrepresentable=None, policy="", decimal=False, scale=None, sorts=False
    )


def decimal_or_text(text: str) -> float | int | str:
    """A decimal as the number that represents it exactly; else unchanged."""
    if len(text) <= EXACT_DIGITS and text[-1] <= "9":
        # Adding 0.0 turns -0.0 into 0.0: decimals have no negative zero.
        return float(text) + 0.0
    number = _exact_float(text)
    if number is not None or not _is_number(text):
        return text if number is None else number
    before, _, after = text.partition(".")
    return text if after.strip("0") else _whole(before, text)


def whole_or_text(text: str) -> float | int | str:
    """A decimal without digits after the point as the number that represents it exactly; else unchanged."""
    if len(text) <= WHOLE_DIGITS and text[-1] <= "9":
        return int(text)
    if not _is_number(text):
        return text
    number = _whole(text, None)
    exact = _exact_float(text) if number is None else number
    return text if exact is None else exact


def _is_number(text: str) -> bool:
    return "0" <= text[-1] <= "9"


def _whole(digits: str, otherwise: T) -> int | T:
    """The integer, if it fits into SQLite's; else `otherwise`."""
    # Python refuses to parse more than 4300 digits.
    if len(digits.lstrip("-0")) > WHOLE_DIGITS + 1:
        return otherwise
    number = int(digits)
    return number if -(2**63) <= number < 2**63 else otherwise


def _exact_float(text: str) -> float | None:
    """The double of a decimal of few enough digits; None if it has more, or is not a number."""
    digits = text.lstrip("-").replace(".", "", 1).strip("0")
    if not _is_number(text) or len(digits) > EXACT_DIGITS:
        return None
    number = float(text) + 0.0
    return number if not digits or SMALLEST < abs(number) < LARGEST else None


def plain(value: float | int | str) -> str:
    """A decimal's digits, without an exponent and without leading or trailing zeros."""
    text = format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)
    if not _is_number(text):
        return text
    minus, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    before, _, after = digits.partition(".")
    before, after = before.lstrip("0") or "0", after.rstrip("0")
    written = f"{before}.{after}" if after else before
    return written if written == "0" else minus + written


def as_stored(cast: Cast, value: Any) -> Any:
    """A value as SQLite stores it: SQLite turns digits into numbers by itself."""
    if cast.declared == "INTEGER":
        return None if value is None else int(value)
    if cast.decimal and isinstance(value, str) and cast.declared != NO_AFFINITY and _is_number(value):
        return float(value) if cast.declared == "REAL" else int(value)
    return value
