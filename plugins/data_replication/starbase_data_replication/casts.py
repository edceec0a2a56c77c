"""Casts: how a source's value becomes what SQLite stores, and what the column is declared as.

A cast is data. The source does the work where it can: `select` is the expression it evaluates, so that a
value arrives in its final form; `convert` is for what only Python can do, and costs time for each value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# No affinity: SQLite stores the value exactly as it is bound. A declared type that holds none of
# TEXT, CHAR, CLOB, BLOB would rewrite text ('007' becomes 7), and REAL would lose the sign of -0.0.
NO_AFFINITY = ""


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
    form, example, sorts: for the ledger (docs/types.md): what a stored value looks like, one such value, and
        whether SQLite orders the stored values as the source orders its own.
    """

    select: str = "{}"
    declared: str = "TEXT"
    convert: Callable[[Any], Any] | None = None
    known: bool = True
    resumable: bool = True
    excepted: type | None = None
    policy: str = ""
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
