"""Owns docs/reference/types.md, the ledger of types: made of the casts' own data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starbase_data_replication.model.casts import (
    Cast,
    decimal_cast,
    decimal_or_text,
    float_or_text,
    unsigned,
    whole_or_text,
)
from starbase_data_replication.sources.mysql import types as mysql
from starbase_data_replication.sources.postgresql import types as postgresql

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "types.md"

# The names that people write, where the catalogue has others.
SQL_NAMES = {
    "int2": "smallint", "int4": "integer", "int8": "bigint", "bool": "boolean", "float4": "real",
    "float8": "double precision", "varchar": "character varying", "bpchar": "character", "char": '"char"',
    "timetz": "time with time zone", "timestamptz": "timestamp with time zone", "varbit": "bit varying",
}  # fmt: skip
# Of a column without a declared type, by what makes its values.
CLASSES: dict[Any, str] = {
    unsigned: "INTEGER, TEXT", float_or_text: "REAL, TEXT", decimal_or_text: "REAL, INTEGER, TEXT",
    whole_or_text: "INTEGER, REAL, TEXT",
}  # fmt: skip
# Decimals by what their type says of their digits, which is not in its name.
DECIMALS = {
    "{}(p, s) up to p = 15": (15, 2), "{}(p, 0) up to p = 18": (18, 0), "{}(p, s) from p = 16": (16, 2),
    "{}(p, 0) from p = 19": (19, 0),
}  # fmt: skip
KINDS = {"e": "enums", "r": "ranges", "m": "multiranges", "c": "composite types"}

HEAD = """\
# What becomes of each type

This page is made of the casts' own data by `python scripts/ledger.py`; a test holds it to them.

What each type becomes, in short; the tables below have the rest:

| Source | SQLite |
|---|---|
| integers, booleans, `YEAR`, `BIT(n)` | INTEGER |
| floating point, `BIGINT UNSIGNED` | a column without a declared type; NaN, and what SQLite has no room for, as TEXT |
| `numeric`, `DECIMAL`, `money` | REAL, or INTEGER without decimals, where that is exact; else TEXT |
| text, `uuid`, `json`, enums, networks, bits, ranges, composite types | TEXT |
| `timestamp`, `DATETIME` | TEXT, ISO 8601 with six digits: `2026-11-22T16:02:16.500000` |
| `timestamp with time zone`, MySQL's `TIMESTAMP` | the same in UTC: `2026-11-22T16:02:16.500000Z` |
| `date` | TEXT, ISO 8601: `2026-11-22` |
| `time` | TEXT: on PostgreSQL as many digits as the value needs, `16:02:16.5`; on MySQL as many as declared |
| `interval` | TEXT, an ISO 8601 duration |
| arrays | TEXT, a JSON array; PostgreSQL's own text where JSON would lose something |
| `bytea`, `BINARY` to `LONGBLOB`, spatial types of MySQL | BLOB |

**Lossless, round-trippable, ordered.** From a value of the replica and its column's type at the source, the source's
value can be rebuilt exactly: every digit, every zero of a scale, the sign of a zero, a fraction of a second. Text forms
sort as the source sorts, where a text form can. SQLite's affinity changes no value on its way in: it makes numbers of
the digits of whole numbers and of decimals only where each of them is exact, and a column that may hold others has no
declared type, so that a value is stored just as it is. For what queries make of it, see
[Query a replica](../howto/query-a-replica.md).

- **Decimals** are numbers, because queries compare them. A double holds every decimal of at most 15 significant digits
  so that its digits can be told again: a `numeric(12, 2)` that is stored as 19.9 was 19.90. Where a type has room for
  more digits, each value is looked at: what is not exact as a number is TEXT, and the run's warnings count it. Of a
  `numeric` without a scale, zeros behind the last digit are not kept: 1.10 and 1.1 are one value to the source, too.
  `"types": {"price": "text"}` keeps the column as text, with every digit and every zero.

- **The class** of a stored value is that of the declared type. A column without one holds INTEGER, REAL or TEXT.
- **Sorts as the source** is said of `ORDER BY` over the column. Times and dates do so in the years 1 to 9999, after
  `-infinity` and before `infinity`.
- **NaN** is the text `NaN`, since SQLite makes a bound NaN into NULL. So it is apart from NULL, allowed in a key and in
  a column that is NOT NULL, and sorts after all numbers, as PostgreSQL sorts it. In arithmetic SQLite takes it for 0.
- **-0** keeps its sign, and **±Infinity** is SQLite's own: `9e999` and `-9e999` in SQL, `"Infinity"` in JSON answers.
- **NULL** is NULL, and apart from the empty string, the empty array and a JSON null.
- **Settings** of the server, of a role or of a session change nothing: neither time zones nor DateStyle, IntervalStyle,
  extra_float_digits, bytea_output, array_nulls and their like. Only money's decimals are the database's lc_monetary's.
- **Domains** are what they stand on; generated and identity columns are what their type is.

## What cannot be represented

One case apart, no type and no value fails a sync, and none is changed in silence. What SQLite cannot hold is counted
for each column, and the run's warnings say how many of the values read it was, and what became of them:

| What | Policy |
|---|---|
| Bytes that are not UTF-8, in a PostgreSQL database whose encoding is SQL_ASCII | kept, as a BLOB, in a TEXT column |
| Bytes without a place in Unicode, in a PostgreSQL database in WIN1252, EUC_JP and the like | kept, as a BLOB |
| MySQL's text that is no Unicode: half a surrogate pair, undefined bytes | kept, as a BLOB, in a TEXT column |
| The same in gbk, cp1251 and the like, when longer than `max_allowed_packet` | the sync fails, and names the column |
| A decimal that is exact as no number of SQLite's: more than 15 digits, `NaN`, `Infinity` | kept, as TEXT |
| A value or a row of more than 1,000,000,000 bytes, SQLite's limit | the largest values are NULL until the row fits |
| A type that is not on this page, such as an extension's | the source's own text, or its bytes in hex (MySQL) |

A verification counts a row that was too large as different.
"""
POSTGRESQL = """
## PostgreSQL

What is in the table, PostgreSQL reads back as the same value: `SELECT '…'::type`. The numbers of objects (`regclass`
and its like) are read back through `oid`. A `real` is to be read from its digits, not from the double.

Text is Unicode, whatever the database's encoding. These have bytes without a place in Unicode: EUC_CN, EUC_JP,
EUC_JIS_2004, EUC_KR, ISO_8859_6, ISO_8859_7, ISO_8859_8, LATIN3, WIN874, WIN1250 to WIN1255, WIN1257 and WIN1258. A
text that holds such bytes, or one of several EUC characters that Unicode has once, is a BLOB in that encoding.
A database in EUC_TW is read as its server converts it, and a text that it cannot convert stops its table. MULE_INTERNAL
cannot be read: PostgreSQL has no way from it to Unicode.
"""
EXTENSIONS = "\n### Extensions\n"
ARRAYS = "\n### Types that users define\n"
MYSQL = """
## MySQL and MariaDB

Text is Unicode, whatever its character set and collation; the collation is not kept. CHAR is without its padding, as
the server gives it. Two things read alike: an ENUM's error value, and an empty label, where it has one. Invisible,
virtual, stored and compressed columns are what their type is, and so are the row's start and end of a system-versioned
table, of which the replica has the current rows.

A BLOB in a TEXT column is text that is none in Unicode. If its first byte is FF, the others are the text in the
column's own character set; else they are what the server sends as UTF-8, and what it reads back as such.
"""


def row(names: str, cast: Cast) -> str:
    declared = cast.declared or "none"
    classes = cast.declared or CLASSES.get(cast.convert, "REAL")
    if cast.declared == "NUMERIC":
        classes = "INTEGER"
    cells = [names, declared, classes, cast.form, _code(cast.example), "yes" if cast.sorts else "no"]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(casts: Mapping[str, Cast], names: Mapping[str, str] = SQL_NAMES, *, code: bool = True) -> str:
    """One row for each cast; types whose casts are the same share one."""
    together: dict[Cast, list[str]] = {}
    for name, cast in casts.items():
        shown = names.get(name, name)
        if name in ("numeric", "decimal"):
            sized = postgresql.numeric if name == "numeric" else _decimal
            for label, digits in DECIMALS.items():
                together[sized(*digits)] = [_code(label.format(name))]
            if name == "decimal":
                continue
            shown = "numeric"
        together.setdefault(cast, []).append(_code(shown) if code else shown)
    lines = ["| Type | Declared | Class | Form | Example | Sorts as the source |", "|---|---|---|---|---|---|"]
    return "\n".join([*lines, *(row(", ".join(found), cast) for cast, found in together.items())]) + "\n"


def page() -> str:
    """The page as it has to be."""
    users = {KINDS[kind]: cast for kind, cast in postgresql.CASTS_BY_KIND.items()}
    users["arrays"] = postgresql.JSON_ARRAY
    users["arrays of composite types, json, jsonb, hstore, and of domains over arrays"] = postgresql.TEXT_ARRAY
    return (
        HEAD
        + POSTGRESQL + "\n" + table(postgresql.CASTS)
        + EXTENSIONS + "\n" + table(postgresql.EXTENSION_CASTS)
        + ARRAYS + "\n" + table(users, {}, code=False)
        + MYSQL + "\n" + table(mysql.CASTS, {})
    )  # fmt: skip


def _decimal(precision: int, scale: int) -> Cast:
    return decimal_cast(precision, scale, also=mysql.ZEROFILL)


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`" if text else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
