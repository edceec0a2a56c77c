"""MySQL's and MariaDB's types, what they become in SQLite, and how their values are compared. Data: one line a type.

Each connection has time zone UTC and character set utf8mb4, so a value's own text means the same on every
server. Integers travel as text: SQLite's INTEGER affinity makes numbers of them, exactly.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial

from starbase_data_replication.model import NO_AFFINITY, Cast, decimal_cast, text_or_bytes, unsigned

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_DECIMAL = re.compile(r"decimal\(([0-9]+),([0-9]+)\)")
_PLAIN = re.compile(r"[0-9A-Za-z:. -]*")
SIX_DIGITS = 6


def shortest_float(text: str) -> float:
    """A 4-byte float, given as the double that it is, as the double with the fewest digits that reads back as it."""
    exact = float(text)
    for digits in range(6, 9):
        short = float(f"{exact:.{digits}g}")
        if _as_float4(short) == exact:
            return short
    return float(f"{exact:.9g}")


def _as_float4(value: float) -> float:
    number: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return number


def _text(form: str, example: str, *, resumable: bool = True, sorts: bool = False, select: str = "{}") -> Cast:
    return Cast(select=select, resumable=resumable, form=form, example=example, sorts=sorts)


def _bytes_kept(form: str, example: str, *, resumable: bool = True) -> Cast:
    return Cast(declared="BLOB", resumable=resumable, form=form, example=example)


def _integer(example: str, *, select: str = "{}", form: str = "the number") -> Cast:
    return Cast(select=select, declared="INTEGER", form=form, example=example)


def _large(example: str, *, select: str = "{}") -> Cast:
    form = "INTEGER up to 2^63-1, the digits as TEXT above"
    return Cast(select=select, declared=NO_AFFINITY, convert=unsigned, form=form, example=example, sorts=False)


def _stamp(suffix: str, digits: int) -> Cast:
    """ISO 8601 with six digits, so that the order of the text is the order of time."""
    missing = ("" if digits else ".") + "0" * (SIX_DIGITS - digits) + suffix
    stamp = "REPLACE({}, ' ', 'T')"
    form = f"ISO 8601{' in UTC' if suffix else ''}, always six digits; zero dates stay zeros"
    return Cast(
        select=f"CONCAT({stamp}, '{missing}')" if missing else stamp,
        moment="TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {}))" if digits else "CONCAT({})",
        form=form,
        example=f"2026-11-22T16:02:16.{'5' if digits else '0'}00000{suffix}",
    )


BITS = "CAST({} AS UNSIGNED)"
# A FLOAT is printed with six of its nine digits. Multiplied, it is the exact double, and a DOUBLE(10,2) is no longer
# rounded to two digits. Adding 0 would lose the sign of -0.
EXACT = "{} * 1e0"
# MySQL cuts the text of a computed number to 22 characters, so many lose their last digits. In a JSON document it
# writes all digits, from this version on.
AS_JSON = "CAST(CAST({} AS JSON) AS CHAR)"
JSON_IS_EXACT = (8, 0, 28)
# Exact only if it is sent as a number; as text it is cut.
EXACT_ALONE = f"({EXACT})"
# Without the CAST, the text would be in the column's character set, which may be binary.
LABEL = "CAST({} AS CHAR)"

_CHARACTERS = "the text, of CHAR without its padding"
_GEOMETRY = "the server's own form: four bytes of SRID, low byte first, then WKB, without SRID"
_POINT = "\\xe61000000101000000000000000000f03f0000000000000040"
_FLOAT = "the double itself; {}"
ZEROFILL = "; without the zeros of ZEROFILL, which the type implies"

# MySQL only: MariaDB stores documents as text. MySQL gives an empty text if it would be longer than
# max_allowed_packet.
JSON = "json"
# Each may be as long as a LONGBLOB.
GEOMETRIES = (
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
    "geometrycollection", "geomcollection",
)  # fmt: skip

CASTS: dict[str, Cast] = {
    "tinyint": _integer("-128"),
    "smallint": _integer("-32768"),
    "mediumint": _integer("8388607"),
    "int": _integer("4294967295"),
    "bigint": _integer("-9223372036854775808"),
    "bigint unsigned": _large("9223372036854775807"),
    "year": _integer("2155", form="the number; 0 is the year 0000"),
    "bit": _integer("5", select=BITS, form="the bits as a number"),
    "bit(64)": _large("5", select=BITS),
    "decimal": decimal_cast(also=ZEROFILL),
    "float": Cast(
        select=EXACT, declared=NO_AFFINITY, convert=shortest_float, example="0.1",
        form=_FLOAT.format("the fewest digits that identify the number; read them as FLOAT"),
    ),
    "double": Cast(
        select=EXACT, declared=NO_AFFINITY, convert=float, example="0.1", form=_FLOAT.format("-0 keeps its sign")
    ),
    "char": _text(_CHARACTERS, "naïve 🙂"),
    "varchar": _text("the text", "naïve 🙂"),
    **dict.fromkeys(("tinytext", "text", "mediumtext", "longtext"), _text("the text", "naïve 🙂", resumable=False)),
    "json": _text("the server's text of it", '{"a": 1.10, "a": 2}', resumable=False),
    "enum": _text("the label; the server's error value is the empty text", "new", resumable=False, select=LABEL),
    "set": _text("the labels, with commas, in the order of their declaration", "a,c", resumable=False, select=LABEL),
    "binary": _bytes_kept("the bytes, with their padding", "\\x00ff0000"),
    "varbinary": _bytes_kept("the bytes", "\\x00ff"),
    **dict.fromkeys(
        ("tinyblob", "blob", "mediumblob", "longblob"), _bytes_kept("the bytes", "\\x00ff", resumable=False)
    ),
    "vector": _bytes_kept("the numbers as four-byte floats, low byte first", "\\x0000803f", resumable=False),
    "date": _text("ISO 8601; zero dates stay zeros", "2026-11-22", sorts=True),
    "time": _text("two or three digits of hours, negative with a minus; as many decimals as declared", "-838:59:59.5"),
    "uuid": _text("36 characters, lower case", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
    "inet4": _text("dotted", "192.168.0.1"),
    "inet6": _text("as the server shortens it", "2001:db8::1"),
    **dict.fromkeys(GEOMETRIES, _bytes_kept(_GEOMETRY, _POINT, resumable=False)),
    **{f"datetime({digits})": _stamp("", digits) for digits in range(SIX_DIGITS + 1)},
    **{f"timestamp({digits})": _stamp("Z", digits) for digits in range(SIX_DIGITS + 1)},
}  # fmt: skip

# Replaces a value that the server has but cannot pass through a function: a result longer than max_allowed_packet is
# NULL with a warning. No text in UTF-8 and no hexadecimal digits equal it. A value is NULL only if the column itself
# is NULL.
LOST = b"\xfe"
LOST_DIGITS = "?"

UNKNOWN = Cast(
    select=f"IFNULL(HEX({{}}), IF({{}} IS NULL, NULL, '{LOST_DIGITS}'))",
    known=False,
    resumable=False,
    form="the source's bytes in hexadecimal",
    example="00FF",
    sorts=False,
)

# Character sets in which every text has a distinct Unicode text, which the server sends unchanged. (In others it sends
# a question mark for a text without one, and for invalid utf8mb3.)
SENT_WHOLE = frozenset(
    {"utf8mb4", "ucs2", "utf16", "utf16le", "utf32", "latin1", "latin2", "latin5", "latin7", "koi8r", "koi8u"}
    | {"cp850", "cp852", "cp866", "keybcs2", "macce", "macroman"}
)
SENT_AS_BYTES = frozenset({"utf8", "utf8mb3"})
# IFNULL copies nothing, so it answers a text of any length; CAST(… AS BINARY) answers NULL for a long one.
AS_BYTES = "IFNULL({}, CAST(NULL AS BINARY))"
# A text that converts to Unicode and back unchanged is sent as Unicode. Of any other, the bytes are sent, behind a
# byte that UTF-8 never has.
NO_UTF8 = b"\xff"
_UNICODE = "CONVERT({} USING utf8mb4)"
IF_UNICODE = (
    f"IF({AS_BYTES.replace('{}', f'CONVERT({_UNICODE} USING [charset])')} = {AS_BYTES}, "
    f"{AS_BYTES.replace('{}', _UNICODE)}, "
    f"IFNULL(CONCAT(X'{NO_UTF8.hex()}', {AS_BYTES}), IF({{}} IS NULL, NULL, X'{LOST.hex()}')))"
)
NOT_UNICODE = "are no valid Unicode text and are kept as bytes"


def lost(cast: Cast, kind: str) -> bytes | str | None:
    """What replaces a value of this cast and this DATA_TYPE that is too long to be converted; None if nothing does."""
    if kind == JSON:
        return ""
    if not cast.known:
        return LOST_DIGITS
    return LOST if cast.convert is text_or_bytes and cast.select != AS_BYTES else None


def in_charset(cast: Cast, charset: str, *, cut: bool = False) -> Cast:
    """The cast of a text in this character set: a value without a distinct Unicode text is kept as bytes, and counted.

    cut: converted, a text ends before what has none, as half a surrogate pair in ucs2 does on MySQL.
    """
    cast = replace(cast, unrepresentable=bytes, policy=NOT_UNICODE)
    if charset in SENT_WHOLE and not (cut and charset == "ucs2"):
        return cast
    if charset in SENT_AS_BYTES:
        return replace(cast, select=AS_BYTES, convert=text_or_bytes)
    return replace(cast, select=IF_UNICODE.replace("[charset]", charset), convert=text_or_bytes, resumable=False)


# Tracking columns of these types hold a time: rows that are stamped now may have the value of rows before.
CLOCKS = frozenset({"datetime", "timestamp", "date", "year"})
# Types of numbers that hold a time since 1970.
COUNTING = frozenset({"smallint", "mediumint", "int", "bigint", "decimal", "double"})


def cast_for(
    base: str,
    *,
    column_type: str,
    digits: int | None,
    bits: int | None,
    charset: str | None,
    mysql: tuple[int, int, int] | None = None,
) -> Cast:
    """The cast of a column: base is its DATA_TYPE, column_type its COLUMN_TYPE, bits the width of a BIT.

    mysql: the server's version; None for MariaDB.
    """
    if mysql is not None and base in ("float", "double"):
        return replace(CASTS[base], select=AS_JSON if mysql >= JSON_IS_EXACT else EXACT_ALONE)
    if mysql is not None and base == "vector":
        # Without a cast, its type is one that the driver decodes as text.
        return replace(CASTS[base], select="CAST({} AS BINARY)")
    if base in ("datetime", "timestamp"):
        return CASTS[f"{base}({digits or 0})"]
    if base == "decimal" and (digits_of := _DECIMAL.match(column_type)):
        return decimal_cast(int(digits_of[1]), int(digits_of[2]), also=ZEROFILL)
    if base == "bigint" and "unsigned" in column_type:
        return CASTS["bigint unsigned"]
    cast = CASTS["bit(64)"] if base == "bit" and bits == 64 else CASTS.get(base, UNKNOWN)
    return cast if charset is None or not cast.known else in_charset(cast, charset, cut=mysql is not None)


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


def _decimal(text: str, _: str) -> str:
    # The replica keeps a number: with an exponent it would be a DOUBLE, and would compare differently.
    return _checked(_NUMBER, format(Decimal(text), "f") if "e" in text else text.removesuffix(".0"))


def _double(text: str, _: str, *, exact: Callable[[float], float] = float) -> str:
    # Without an exponent it would be a DECIMAL, and would compare differently.
    number = repr(exact(float(text)))
    return number if "e" in number else f"{number}e0"


def _plain(text: str, _: str) -> str:
    return f"'{_checked(_PLAIN, text)}'"


def _time(text: str, _: str) -> str:
    return _plain(text.replace("T", " ").removesuffix("Z"), _)


def _bytes(text: str, _: str) -> str:
    return f"X'{bytes.fromhex(text.removeprefix(BYTES_MARK)).hex()}'"


def _literal_text(text: str, charset_and_collation: str) -> str:
    return text_literal(text.encode(), charset_and_collation)


def text_literal(text: bytes, charset_and_collation: str) -> str:
    """SQL of a text, given in UTF-8 or, behind NO_UTF8, in its own character set."""
    # In the column's character set and collation, the server can use an index; hex needs no escaping.
    charset, collation = charset_and_collation.split()
    if text.startswith(NO_UTF8):
        return f"_{charset} X'{text.removeprefix(NO_UTF8).hex()}' COLLATE {collation}"
    return f"CONVERT(_utf8mb4 X'{text.hex()}' USING {charset}) COLLATE {collation}"


def _checked(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError("a stored value is not of its column's type")
    return text


# The prefix of the hex digits of bytes, where a value is kept as text.
BYTES_MARK = "\\x"

NUMBERS = Order(literal=_number)
# Labels are ordered by their numbers; uncast, they would be compared as text.
LABELS = Order(literal=_number, column=BITS, value=BITS)
TIMES = Order(literal=_time)
TEXTS = Order(literal=_literal_text)
BYTE_STRINGS = Order(literal=_bytes)
PLAIN = Order(literal=_plain)

ORDERS: dict[str, Order] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year"), NUMBERS),
    "decimal": Order(literal=_decimal),
    "bit": Order(literal=_number, value=BITS),
    "float": Order(literal=partial(_double, exact=_as_float4), value=EXACT),
    "double": Order(literal=_double, value=EXACT),
    **dict.fromkeys(("date", "datetime", "timestamp", "time"), TIMES),
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), TEXTS),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), BYTE_STRINGS),
    **dict.fromkeys(("enum", "set"), LABELS),
    **dict.fromkeys(("uuid", "inet4", "inet6"), PLAIN),
}

# How a type's values rise in a tracking column: see Column.rises. The values of other types do not rise.
RISES: dict[str, str] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year", "decimal"), "number"),
    **dict.fromkeys(("float", "double"), "number"),
    **dict.fromkeys(("date", "datetime", "timestamp"), "time"),
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), "text"),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), "bytes"),
    "uuid": "uuid",
}

# Labels are compared for equality by their text, which can use the index.
EQUALITIES: dict[str, Order] = {**ORDERS, **dict.fromkeys(("enum", "set"), TEXTS)}
