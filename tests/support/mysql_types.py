"""The types of MySQL and MariaDB as tests see them: values of each as SQL, and back from what a replica holds.

Knows nothing of how the product reads them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from hypothesis import strategies as st

from tests.support.servers import TestDatabase

# What the server writes of a value of any type, byte for byte.
AS_IT_IS = "HEX(CONCAT({}))"
# Floats print fewer digits than they have; labels that read alike have numbers; a NULL is not text.
DIGITS = "CAST({} * 1e0 AS CHAR)"
NUMBER = "CAST({} + 0 AS CHAR)"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A column's definition, its values as SQL, two of them that lie as close as can be, and its text for comparing."""

    definition: str
    values: st.SearchStrategy[str]
    pair: tuple[str, str]
    text: str = AS_IT_IS


def _integers(low: int, high: int) -> st.SearchStrategy[str]:
    return st.integers(low, high).map(str)


def _hex(value: bytes) -> str:
    return f"X'{value.hex()}'"


def _bytes(size: int, *, low: int = 0) -> st.SearchStrategy[str]:
    return st.binary(min_size=low, max_size=size).map(_hex)


def _utf8(text: str) -> str:
    return f"_utf8mb4 {_hex(text.encode())}"


def _decimals(whole: int, places: int, *, negative: bool = True) -> st.SearchStrategy[str]:
    most = 10 ** (whole + places) - 1
    return st.integers(-most if negative else 0, most).map(lambda number: _pointed(number, places))


def _pointed(number: int, places: int) -> str:
    digits = f"{abs(number):0{places + 1}}"
    return f"{'-' if number < 0 else ''}{digits[: len(digits) - places]}.{digits[len(digits) - places :]}"


def _floats(width: Literal[32, 64]) -> st.SearchStrategy[str]:
    found: st.SearchStrategy[float] = st.floats(width=width, allow_nan=False, allow_infinity=False)
    return found.map(_number)


def _number(value: float) -> str:
    # Without an exponent it would be a DECIMAL.
    return f"{value!r}{'' if 'e' in repr(value) else 'e0'}"


def _in_charset(name: str, size: int, step: int = 1) -> st.SearchStrategy[str]:
    """Any bytes that are a text in a character set of one byte, or of `step` bytes, a character."""
    return st.binary(max_size=size).map(lambda value: f"_{name} {_hex(value[: len(value) // step * step])}")


def _converted(name: str) -> st.SearchStrategy[str]:
    return st.text(max_size=7).map(lambda text: f"CONVERT({_utf8(text)} USING {name})")


# Bytes that the server takes for UTF-8, and no other program does: half of a surrogate pair.
_UTF8 = st.one_of(st.text(max_size=9).map(_utf8), st.just("'x'"), st.just("X'61EDA08062'"), st.just("'a '"))
_UTF8MB3 = st.one_of(
    st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=9).map(_utf8), st.just("X'EDBFBF'")
)
_YEARS = st.one_of(st.just(0), st.integers(1, 9999))
_DATES = st.builds(
    lambda year, month, day: f"{year:04}-{month:02}-{day:02}", _YEARS, st.integers(0, 12), st.integers(0, 31)
)
_CLOCK = st.builds(lambda h, m, s: f"{h:02}:{m:02}:{s:02}", st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))


def _fraction(digits: int) -> st.SearchStrategy[str]:
    return st.integers(0, 10**digits - 1).map(lambda n: f".{n:0{digits}}" if digits else "")


def _datetimes(digits: int) -> st.SearchStrategy[str]:
    return st.builds(lambda date, clock, part: f"'{date} {clock}{part}'", _DATES, _CLOCK, _fraction(digits))


def _timestamps(digits: int) -> st.SearchStrategy[str]:
    epoch = st.integers(1, 2**31 - 1)
    # Around the hours in which the clocks of Europe and of America were put back and forth.
    changes = st.sampled_from([1711846800, 1729990800, 1710054000, 1730613600]).flatmap(
        lambda moment: st.integers(moment - 7200, moment + 7200)
    )
    moments = st.builds(
        lambda second, part: f"FROM_UNIXTIME({second}{part})", st.one_of(epoch, changes), _fraction(digits)
    )
    return st.one_of(moments, st.just("'0000-00-00 00:00:00'"))


def _times(digits: int) -> st.SearchStrategy[str]:
    most = 838 * 3600 + 59 * 60 + 59
    return st.builds(
        lambda sign, second, part: f"'{sign}{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}{part}'",
        st.sampled_from(("", "-")),
        st.integers(0, most - 1),
        _fraction(digits),
    )


_SCALAR = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
_LISTS = st.lists(_SCALAR, max_size=3)
_JSON = (_SCALAR | _LISTS | st.dictionaries(st.text(max_size=3), _SCALAR | _LISTS, max_size=3)).map(
    lambda value: _utf8(json.dumps(value, ensure_ascii=False))
)
# By the system of coordinates; MySQL takes only degrees in one of them.
_COORDINATES = {
    0: st.floats(allow_nan=False, allow_infinity=False, width=32),
    3857: st.floats(allow_nan=False, allow_infinity=False, width=32),
    4326: st.floats(-90, 90, width=32),
}


def _vectors(size: int) -> st.SearchStrategy[str]:
    # Numbers whose bytes are letters, too: four-byte floats that look like text.
    letters = st.sampled_from(("X'61616161'", "X'41424344'", "X'7A7A7A7A'"))
    number = st.one_of(letters, st.floats(width=32, allow_nan=False, allow_infinity=False).map(_float_hex))
    return st.lists(number, min_size=size, max_size=size).map(lambda found: f"CONCAT({', '.join(found)})")


def _float_hex(value: float) -> str:
    return _hex(struct.pack("<f", value))


def _geometry(pattern: str, points: int) -> st.SearchStrategy[str]:
    def in_system(srid: int) -> st.SearchStrategy[str]:
        point = st.builds(lambda x, y: f"{x!r} {y!r}", _COORDINATES[srid], _COORDINATES[srid])
        found = st.lists(point, min_size=points, max_size=points)
        return found.map(lambda points: f"ST_GeomFromText('{pattern.format(*points)}', {srid})")

    return st.sampled_from(sorted(_COORDINATES)).flatmap(in_system)


def _kind(definition: str, values: st.SearchStrategy[str], first: str, second: str, text: str = AS_IT_IS) -> Kind:
    return Kind(definition=definition, values=values, pair=(first, second), text=text)


def _whole(name: str, bits: int) -> dict[str, Kind]:
    high = 2**bits - 1
    return {
        name: _kind(name, _integers(-(2 ** (bits - 1)), high // 2), "0", "1"),
        f"{name}_u": _kind(f"{name} unsigned", _integers(0, high), str(high), str(high - 1)),
        f"{name}_z": _kind(f"{name} unsigned zerofill", _integers(0, high), "0", "1"),
    }


_CHARSETS_OF_ONE_BYTE = (
    "latin1", "latin2", "latin5", "latin7", "ascii", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852", "cp866",
    "greek", "hebrew", "koi8r", "koi8u", "tis620", "armscii8", "geostd8", "swe7", "dec8", "hp8", "keybcs2", "macce",
    "macroman",
)  # fmt: skip
_CHARSETS_OF_MORE_BYTES = ("sjis", "cp932", "ujis", "eucjpms", "gbk", "gb2312", "big5", "euckr")
# Types that one of the servers has.
MARIADB_ONLY = frozenset({"uuid", "inet4", "inet6"})
MYSQL_ONLY = frozenset({"geomcollection", "vector"})
_MARIADB_COLLATIONS = ("utf8mb4_nopad_bin", "utf8mb4_general_nopad_ci")
_MYSQL_COLLATIONS = ("utf8mb4_0900_bin", "utf8mb4_0900_ai_ci", "utf8mb4_ja_0900_as_cs")
_COLLATIONS = ("utf8mb4_unicode_ci", "utf8mb4_bin", *_MARIADB_COLLATIONS, *_MYSQL_COLLATIONS)

KINDS: Mapping[str, Kind] = {
    **_whole("tinyint", 8), **_whole("smallint", 16), **_whole("mediumint", 24), **_whole("int", 32),
    **_whole("bigint", 64),
    "bool": _kind("bool", _integers(0, 1), "0", "1"),
    "year": _kind("year", st.one_of(st.just("0"), _integers(1901, 2155)), "0", "2000"),
    "bit1": _kind("bit(1)", _integers(0, 1), "0", "1", NUMBER),
    "bit17": _kind("bit(17)", _integers(0, 2**17 - 1), "65536", "65537", NUMBER),
    "bit63": _kind("bit(63)", _integers(0, 2**63 - 1), "0", str(2**62), NUMBER),
    "bit64": _kind("bit(64)", _integers(0, 2**64 - 1), str(2**63), str(2**63 - 1), NUMBER),
    "decimal65_30": _kind("decimal(65,30)", _decimals(35, 30), "0", "-0.000000000000000000000000000001"),
    "decimal65_0": _kind("decimal(65,0)", _decimals(65, 0), "1", "-1"),
    "decimal15_4": _kind("decimal(15,4)", _decimals(11, 4), "-0.0001", "0"),
    "decimal16_2": _kind(
        "decimal(16,2)", st.one_of(_decimals(14, 2), _decimals(3, 2)), "10000000000000.01", "10000000000000.02"
    ),
    "decimal18_0": _kind("decimal(18,0)", _integers(-(10**18) + 1, 10**18 - 1), "999999999999999999", "1"),
    "decimal19_0": _kind(
        "decimal(19,0) zerofill", _integers(0, 10**19 - 1), "9223372036854775807", "9223372036854775808"
    ),
    "decimal_u": _kind("decimal(10,3) unsigned", _decimals(7, 3, negative=False), "1.1", "1.101"),
    "decimal_z": _kind("decimal(10,3) zerofill", _decimals(7, 3, negative=False), "1.1", "1.101"),
    "float": _kind("float", _floats(32), "0.1", "0.10000001", DIGITS),
    "float_u": _kind("float unsigned zerofill", _floats(32).map(lambda v: v.lstrip("-")), "0", "1e-45", DIGITS),
    "float7_3": _kind("float(7,3)", _decimals(4, 3), "0.001", "0.002", DIGITS),
    "double": _kind("double", _floats(64), "0.1e0", "0.10000000000000002e0", DIGITS),
    "double10_2": _kind("double(10,2)", _decimals(8, 2), "0.01", "0.02", DIGITS),
    "char": _kind("char(9)", _UTF8, "'a'", "'A'"),
    "varchar": _kind("varchar(9)", _UTF8, "'a'", "'a '"),
    "utf8mb3": _kind("varchar(9) CHARACTER SET utf8mb3", _UTF8MB3, "''", "NULL"),
    "utf16": _kind("varchar(9) CHARACTER SET utf16", _converted("utf16"), "'\\0'", "''"),
    "utf16le": _kind("varchar(9) CHARACTER SET utf16le", _converted("utf16le"), "'e'", "'é'"),
    "utf32": _kind("char(9) CHARACTER SET utf32", _converted("utf32"), "'é'", "'e\u0301'"),
    "ucs2": _kind("varchar(9) CHARACTER SET ucs2", _in_charset("ucs2", 18, 2), "_ucs2 X'D800'", "_ucs2 X'D801'"),
    **{
        name: _kind(f"varchar(9) CHARACTER SET {name}", _in_charset(name, 9), f"_{name} X'3F'", f"_{name} X'98'")
        for name in _CHARSETS_OF_ONE_BYTE
    },
    **{
        name: _kind(f"varchar(9) CHARACTER SET {name}", _converted(name), "'?'", "'\\\\'")
        for name in _CHARSETS_OF_MORE_BYTES
    },
    **{name: _kind(f"varchar(9) COLLATE {name}", _UTF8, "'a'", "'A'") for name in _COLLATIONS},
    "tinytext": _kind("tinytext", _UTF8, "''", "NULL"),
    "text": _kind("text", _UTF8, "'0'", "'00'"),
    "mediumtext": _kind("mediumtext", _UTF8, "'a'", "'b'"),
    "longtext": _kind("longtext", _UTF8, "X'EDA080'", "X'EDA081'"),
    "longtext_cp1251": _kind(
        "longtext CHARACTER SET cp1251", _in_charset("cp1251", 9), "_cp1251 X'98'", "_cp1251 X'9898'"
    ),
    "longtext_utf8mb3": _kind("longtext CHARACTER SET utf8mb3", _UTF8MB3, "'e'", "'é'"),
    "compressed": _kind("varchar(99) COMPRESSED", _UTF8, "'a'", "'b'"),
    "json": _kind("json", _JSON, "'1'", "'1.0'"),
    "enum": _kind("enum('x','é','X2',' y')", _integers(0, 4), "1", "0", NUMBER),
    "enum_cp1251": _kind("enum('я','?') CHARACTER SET cp1251", _integers(0, 2), "1", "2", NUMBER),
    "set": _kind(
        f"set({', '.join(repr(f's{n}') for n in range(64))})",
        _integers(0, 2**64 - 1), "0", "9223372036854775808", NUMBER
    ),
    "binary": _kind("binary(9)", _bytes(9), "X'00'", "X'0001'"),
    "varbinary": _kind("varbinary(9)", _bytes(9), "X'00'", "X''"),
    "tinyblob": _kind("tinyblob", _bytes(9), "X'00'", "X'01'"),
    "blob": _kind("blob", _bytes(9), "X''", "NULL"),
    "mediumblob": _kind("mediumblob", _bytes(9), "X'00'", "X'0000'"),
    "longblob": _kind("longblob", _bytes(9), "X'80'", "X'81'"),
    "blob_compressed": _kind("blob COMPRESSED", _bytes(9), "X'80'", "X'81'"),
    "date": _kind("date", _DATES.map(repr), "'0000-00-00'", "'2024-00-15'"),
    **{
        f"datetime{n}": _kind(f"datetime({n})", _datetimes(n), "'0000-00-00'", "'2024-02-31 00:00:00'")
        for n in range(7)
    },
    **{
        f"timestamp{n}": _kind(f"timestamp({n}) NULL", _timestamps(n), "'0000-00-00'", "FROM_UNIXTIME(1)")
        for n in range(7)
    },
    **{f"time{n}": _kind(f"time({n})", _times(n), "'-00:00:01'", "'00:00:01'") for n in range(7)},
    "vector": _kind("vector(3)", _vectors(3), "TO_VECTOR('[0,0,0]')", "TO_VECTOR('[0,0,1e-30]')", "HEX({})"),
    "uuid": _kind("uuid", st.uuids().map(lambda value: f"'{value}'"), "UUID()", "NULL"),
    "inet4": _kind("inet4", st.ip_addresses(v=4).map(lambda value: f"'{value}'"), "'0.0.0.0'", "'0.0.0.1'"),
    "inet6": _kind("inet6", st.ip_addresses(v=6).map(lambda value: f"'{value}'"), "'::'", "'::1'"),
    "point": _kind("point", _geometry("POINT({})", 1), "POINT(0, 0)", "ST_GeomFromText('POINT(0 0)', 4326)"),
    "geometry": _kind("geometry", _geometry("LINESTRING({}, {})", 2), "POINT(0, 1)", "POINT(1, 0)"),
    "linestring": _kind(
        "linestring", _geometry("LINESTRING({}, {}, {})", 3), "LINESTRING(POINT(0,0), POINT(1,1))",
        "LINESTRING(POINT(0,0), POINT(1,2))",
    ),
    "multipoint": _kind("multipoint", _geometry("MULTIPOINT({}, {})", 2), "MULTIPOINT(POINT(0,0))", "NULL"),
    "geometrycollection": _kind(
        "geometrycollection", _geometry("GEOMETRYCOLLECTION(POINT({}), LINESTRING({}, {}))", 3),
        "GEOMETRYCOLLECTION(POINT(0,0))", "GEOMETRYCOLLECTION(POINT(0,1))",
    ),
}  # fmt: skip
_MARIADB_KINDS = {*MARIADB_ONLY, "compressed", "blob_compressed", *_MARIADB_COLLATIONS}
_MYSQL_KINDS = {"vector", *_MYSQL_COLLATIONS}


def kinds_of(database: TestDatabase) -> dict[str, Kind]:
    """Those that its server has."""
    elsewhere = _MYSQL_KINDS if database.is_mariadb else _MARIADB_KINDS
    kinds = {name: kind for name, kind in KINDS.items() if name not in elsewhere}
    if not database.is_mariadb:
        # MySQL takes no half of a surrogate pair in UTF-8: it stores what stands before.
        kinds["longtext"] = replace(kinds["longtext"], pair=("'a'", "'a '"))
    return kinds


def back(value: Any, declared: str, definition: str) -> str:
    """SQL that makes a replica's value the source's again, from it and the source's type alone."""
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f") if definition.startswith("decimal") else _number(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        charset = definition.partition("CHARACTER SET ")[2].split()
        if declared == "BLOB" or not charset:
            return _hex(value)
        if value[:1] == b"\xff":
            return f"_{charset[0]} {_hex(value[1:])}"
        return f"CONVERT(_utf8mb4 {_hex(value)} USING {charset[0]})"
    if definition.startswith(("datetime", "timestamp")):
        return repr(value.replace("T", " ").removesuffix("Z"))
    return value if declared == "" else _utf8(value)
