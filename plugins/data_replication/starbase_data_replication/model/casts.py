"""Casts: how a source's value becomes what SQLite stores, and what the column is declared as.

A cast is data. The source does the work where it can: `select` is the expression it evaluates, so that a
value arrives in its final form; `convert` is for what only Python can do, and costs time for each value.
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

# A decimal of so many significant digits is what its nearest double is written as: the double stands for it alone.
EXACT_DIGITS = 15
# Whole numbers of so many digits fit into SQLite's 64 bits.
WHOLE_DIGITS = 18
# SQLite reads digits with more zeros after the point than so many in another way; the same ones are read by Python.
MOST_PLACES = 20
# Past these, a double has fewer digits than it should, or none.
LARGEST, SMALLEST = 1e300, 1e-290


@dataclass(frozen=True, kw_only=True)
class Cast:
    """One way from the source to SQLite.

    select: a template for the expression in the SELECT; `{}` stands for the quoted column.
    declared: SQLite's declared type.
    convert: applied to each value that is not None, or None when the value is already right.
    known: False for a type that the ledger does not have: it travels as the source's text, with a warning.
    resumable: the source can compare the column with what the replica holds, so that a first load in the
        order of a key of this type can go on where it stood.
    excepted, policy: stored values of this Python type are those that the form cannot represent; they are counted,
        and the run's warnings say "N values" and the policy: what they are and what became of them.
    decimal: the column holds decimals, as numbers where those are exact. scale: their digits after the point, where
        the type says how many. Declared REAL or NUMERIC, SQLite makes the number of a text by itself, and exactly.
    moment: of a moment, the `select` that answers it as SQLite's own date functions do, for who asks for that.
    form, example, sorts: for the ledger (docs/reference/types.md): what a stored value looks like, one such value, and
        whether SQLite orders the stored values as the source orders its own.
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
    """A double as itself; NaN as text, because SQLite turns a bound NaN into NULL."""
    return value if value == value else "NaN"


def unsigned(value: int | str) -> int | str:
    """An unsigned 64-bit integer: INTEGER where SQLite's 64 signed bits hold it, its digits as TEXT above."""
    number = int(value)
    return number if number < 2**63 else str(number)


def text_or_bytes(value: bytes) -> str | bytes:
    """Text that came as its bytes; where they are not UTF-8 the bytes, which SQLite keeps as they are."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def decimal_cast(
    precision: int | None = None, scale: int | None = None, *, select: str = "{}", also: str = "", example: str = ""
) -> Cast:
    """The cast of a decimal type of so many digits, so many of them after the point; None where it does not say.

    Where each value of the type is exact as a number, SQLite makes the numbers, at no cost; of a wider type each value
    is looked at. A number is REAL, so that a half of 5.00 is 2.5, but for types without digits after the point.

    also: for the ledger, what else a column of the type may hold.
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
    """The same decimals as their digits, all of them and every zero."""
    return replace(
        cast, declared="TEXT", convert=None, unrepresentable=None, policy="", decimal=False, scale=None, sorts=False
    )


def decimal_or_text(text: str) -> float | int | str:
    """A decimal as the number that stands for it exactly, else as it is."""
    if len(text) <= EXACT_DIGITS and text[-1] <= "9":
        # No number has a sign on its zero.
        return float(text) + 0.0
    number = _exact_float(text)
    if number is not None or not _is_number(text):
        return text if number is None else number
    before, _, after = text.partition(".")
    return text if after.strip("0") else _whole(before, text)


def whole_or_text(text: str) -> float | int | str:
    """A decimal without digits after the point as the number that stands for it exactly, else as it is."""
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
    """The integer, where SQLite has room for it."""
    # Python refuses to read very many digits at once.
    if len(digits.lstrip("-0")) > WHOLE_DIGITS + 1:
        return otherwise
    number = int(digits)
    return number if -(2**63) <= number < 2**63 else otherwise


def _exact_float(text: str) -> float | None:
    """The double of a decimal that has few enough digits; None where it has more, or is no number."""
    digits = text.lstrip("-").replace(".", "", 1).strip("0")
    if not _is_number(text) or len(digits) > EXACT_DIGITS:
        return None
    number = float(text) + 0.0
    return number if not digits or SMALLEST < abs(number) < LARGEST else None


def plain(value: float | int | str) -> str:
    """A decimal's digits: without an exponent, and without zeros at either end that mean nothing."""
    text = format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)
    if not _is_number(text):
        return text
    minus, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    before, _, after = digits.partition(".")
    before, after = before.lstrip("0") or "0", after.rstrip("0")
    written = f"{before}.{after}" if after else before
    return written if written == "0" else minus + written


def as_stored(cast: Cast, value: Any) -> Any:
    """What SQLite makes of a value by itself, as it is stored: the number of its digits."""
    if cast.declared == "INTEGER":
        return None if value is None else int(value)
    if cast.decimal and isinstance(value, str) and cast.declared != NO_AFFINITY and _is_number(value):
        return float(value) if cast.declared == "REAL" else int(value)
    return value
