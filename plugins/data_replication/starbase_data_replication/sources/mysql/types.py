"""MySQL's and MariaDB's types, what they become in SQLite, and how their values are compared. Data: one line a type.

Each connection has time zone UTC and character set utf8mb4, so a value's own text means the same on every
server. Integers travel as text: SQLite's INTEGER affinity makes numbers of them, exactly.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from starbase_data_replication.casts import NO_AFFINITY, Cast, unsigned

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_PLAIN = re.compile(r"[0-9A-Za-z:. -]*")
SIX_DIGITS = 6


def shortest_float(text: str) -> float:
    """A 4-byte float, given as the double that it is, as the double with the fewest digits that it stands for."""
    exact = float(text)
    for digits in range(6, 9):
        short = float(f"{exact:.{digits}g}")
        if _as_float4(short) == exact:
            return short
    return float(f"{exact:.9g}")


def _as_float4(value: float) -> float:
    number: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return number


def _stamp(suffix: str, digits: int) -> Cast:
    """ISO 8601 with six digits, so that the order of the text is the order of time."""
    missing = ("" if digits else ".") + "0" * (SIX_DIGITS - digits) + suffix
    stamp = "REPLACE({}, ' ', 'T')"
    return Cast(select=f"CONCAT({stamp}, '{missing}')" if missing else stamp)


INTEGER = Cast(declared="INTEGER")
UNSIGNED = Cast(declared=NO_AFFINITY, convert=unsigned)
BITS = "CAST({} AS UNSIGNED)"
TEXT = Cast()
LONG_TEXT = Cast(resumable=False)
# Its own text form would be in the column's character set, which may be binary.
LABEL = Cast(select="CAST({} AS CHAR)", resumable=False)
BYTES = Cast(declared="BLOB")
LONG_BYTES = Cast(declared="BLOB", resumable=False)
# FLOAT prints six digits of its nine; multiplied it is the double that it stands for, and DOUBLE(10,2) too
# loses the two digits that it is printed with. Adding 0 would lose the sign of -0.
EXACT = "{} * 1e0"

CASTS: dict[str, Cast] = {
    "tinyint": INTEGER,
    "smallint": INTEGER,
    "mediumint": INTEGER,
    "int": INTEGER,
    "bigint": INTEGER,
    "bigint unsigned": UNSIGNED,
    "year": INTEGER,
    "bit": Cast(select=BITS, declared="INTEGER"),
    "bit(64)": Cast(select=BITS, declared=NO_AFFINITY, convert=unsigned),
    "decimal": TEXT,
    "float": Cast(select=EXACT, declared=NO_AFFINITY, convert=shortest_float),
    "double": Cast(select=EXACT, declared=NO_AFFINITY, convert=float),
    "char": TEXT,
    "varchar": TEXT,
    "tinytext": LONG_TEXT,
    "text": LONG_TEXT,
    "mediumtext": LONG_TEXT,
    "longtext": LONG_TEXT,
    "json": LONG_TEXT,
    "enum": LABEL,
    "set": LABEL,
    "binary": BYTES,
    "varbinary": BYTES,
    "tinyblob": LONG_BYTES,
    "blob": LONG_BYTES,
    "mediumblob": LONG_BYTES,
    "longblob": LONG_BYTES,
    "date": TEXT,
    "time": TEXT,
    "uuid": TEXT,
    "inet4": TEXT,
    "inet6": TEXT,
    # The server's own form: four bytes of SRID, then WKB, which knows no SRID.
    "geometry": LONG_BYTES,
    "point": LONG_BYTES,
    "linestring": LONG_BYTES,
    "polygon": LONG_BYTES,
    "multipoint": LONG_BYTES,
    "multilinestring": LONG_BYTES,
    "multipolygon": LONG_BYTES,
    "geometrycollection": LONG_BYTES,
    "geomcollection": LONG_BYTES,
    **{f"datetime({digits})": _stamp("", digits) for digits in range(SIX_DIGITS + 1)},
    **{f"timestamp({digits})": _stamp("Z", digits) for digits in range(SIX_DIGITS + 1)},
}

UNKNOWN = Cast(select="HEX({})", known=False, resumable=False)

# Tracking columns of these types hold a time: rows that are stamped now may have the value of rows before.
CLOCKS = frozenset({"datetime", "timestamp", "date", "year"})


def cast_for(base: str, *, column_type: str, digits: int | None, bits: int | None) -> Cast:
    """The cast of a column: base is its DATA_TYPE, column_type its COLUMN_TYPE, bits the width of a BIT."""
    if base in ("datetime", "timestamp"):
        return CASTS[f"{base}({digits or 0})"]
    if base == "bigint" and "unsigned" in column_type:
        return UNSIGNED
    return CASTS["bit(64)"] if base == "bit" and bits == 64 else CASTS.get(base, UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class Order:
    """How a type's values are ordered: what the source compares, reads, and is given to compare with.

    column: a template for what is compared. value: one for what is selected as the value's text. literal: makes
    SQL of such a text, or of the replica's form of it, given the column's `compare_type`.
    """

    literal: Callable[[str, str], str]
    column: str = "{}"
    value: str = "{}"


def _number(text: str, _: str) -> str:
    return _checked(_NUMBER, text)


def _double(text: str, _: str, *, exact: Callable[[float], float] = float) -> str:
    # Without an exponent it would be a DECIMAL, and the comparison another one.
    number = repr(exact(float(text)))
    return number if "e" in number else f"{number}e0"


def _plain(text: str, _: str) -> str:
    return f"'{_checked(_PLAIN, text)}'"


def _time(text: str, _: str) -> str:
    return _plain(text.replace("T", " ").removesuffix("Z"), _)


def _bytes(text: str, _: str) -> str:
    return f"X'{bytes.fromhex(text.removeprefix(BYTES_MARK)).hex()}'"


def _text(text: str, charset_and_collation: str) -> str:
    # Given in the column's own character set and collation, an index serves; in hex there is nothing to escape.
    charset, collation = charset_and_collation.split()
    return f"CONVERT(_utf8mb4 X'{text.encode().hex()}' USING {charset}) COLLATE {collation}"


def _checked(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError("a stored position is not of its column's type")
    return text


# What stands before the hex digits of bytes, where a value is kept as text.
BYTES_MARK = "\\x"

NUMBERS = Order(literal=_number)
# Compared as they are, labels would be texts; they are ordered by their numbers.
LABELS = Order(literal=_number, column=BITS, value=BITS)
TIMES = Order(literal=_time)
TEXTS = Order(literal=_text)
BYTE_STRINGS = Order(literal=_bytes)
PLAIN = Order(literal=_plain)

ORDERS: dict[str, Order] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year", "decimal"), NUMBERS),
    "bit": Order(literal=_number, value=BITS),
    "float": Order(literal=partial(_double, exact=_as_float4), value=EXACT),
    "double": Order(literal=_double, value=EXACT),
    **dict.fromkeys(("date", "datetime", "timestamp", "time"), TIMES),
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), TEXTS),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), BYTE_STRINGS),
    **dict.fromkeys(("enum", "set"), LABELS),
    **dict.fromkeys(("uuid", "inet4", "inet6"), PLAIN),
}

# Whether two labels are the same is told by their text, and the index serves as well.
EQUALITIES: dict[str, Order] = {**ORDERS, **dict.fromkeys(("enum", "set"), TEXTS)}
