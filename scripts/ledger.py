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

What a value of each source type becomes in the replica. `python scripts/ledger.py` writes this page from the code.

In short; the tables below have every type:

| Source | SQLite |
|---|---|
| integers, booleans, `YEAR`, `BIT(n)` | INTEGER |
| floating point | REAL, in a column without a declared type; NaN as TEXT |
| `BIGINT UNSIGNED` | INTEGER up to 2^63-1, else TEXT; in a column without a declared type |
| `numeric`, `DECIMAL`, `money` | REAL, or INTEGER without decimals, if that is exact; else TEXT |
| text, `uuid`, `json`, enums, networks, bits, ranges, composite types | TEXT |
| `timestamp`, `DATETIME` | TEXT, ISO 8601 with six digits: `2026-11-22T16:02:16.500000` |
| `timestamp with time zone`, MySQL's `TIMESTAMP` | the same in UTC: `2026-11-22T16:02:16.500000Z` |
| `date` | TEXT, ISO 8601: `2026-11-22` |
| `time` | TEXT: on PostgreSQL with as many digits as the value needs, `16:02:16.5`; on MySQL with as many as declared |
| `interval` | TEXT, an ISO 8601 duration |
| arrays | TEXT, a JSON array; PostgreSQL's own text if JSON would lose something |
| `bytea`, `BINARY` to `LONGBLOB`, spatial types of MySQL | BLOB |

**Values are lossless.** From a value in the replica and its column's type at the source, you can rebuild the source's
value exactly: every digit, every zero of a scale, the sign of a zero, a fraction of a second. SQLite's type affinity
does not change a value: a column has a declared number type only if SQLite represents every value of the source type
exactly. Text forms sort as the source sorts, if a text form can. [Query a replica](../howto/query-a-replica.md) shows
what queries return.

- **Decimals** are numbers, because queries compare them. A double preserves every decimal of at most 15 significant
  digits: a `numeric(12, 2)` stored as 19.9 was 19.90. If a type allows more digits, each value is checked: one that is
  not exact as a number is TEXT, and the run's warnings count it. In a `numeric` without a scale, trailing zeros are not
  kept; to the source, too, 1.10 equals 1.1. `"types": {"price": "text"}` keeps the column as text, with every digit and
  every zero.
- **Class** is SQLite's storage class: that of the declared type. A column without one holds INTEGER, REAL or TEXT.
- **Sorts as the source** refers to `ORDER BY` over the column. Times and dates do so in the years 1 to 9999, after
  `-infinity` and before `infinity`.
- **NaN** is the text `NaN`, because SQLite turns a bound NaN into NULL. So it differs from NULL, is allowed in a key
  and in a NOT NULL column, and sorts after all numbers, as on PostgreSQL. In arithmetic SQLite treats it as 0.
- **-0** keeps its sign, and **±Infinity** is SQLite's own: `9e999` and `-9e999` in SQL, `"Infinity"` in JSON answers.
- **NULL** is NULL, distinct from the empty string, the empty array and a JSON null.
- **Settings** of the server, a role or a session do not change values: not time zones, DateStyle, IntervalStyle,
  extra_float_digits, bytea_output or array_nulls. Only the decimals of money depend on the database's lc_monetary.
- **Domains** are treated as their base type, generated and identity columns as their type.

## What cannot be represented

If SQLite cannot represent a value, the run's warnings say how many such values it read in which column, and how they
were stored. Only one case fails a sync:

| What | Stored as |
|---|---|
| Bytes that are not UTF-8, in a PostgreSQL database whose encoding is SQL_ASCII | a BLOB, in a TEXT column |
| Bytes without a Unicode character, in a PostgreSQL database in WIN1252, EUC_JP and the like | a BLOB |
| MySQL text that is not Unicode: half a surrogate pair, undefined bytes | a BLOB, in a TEXT column |
| The same in gbk, cp1251 and the like, when longer than `max_allowed_packet` | the sync fails, and names the column |
| A decimal that no number in SQLite represents exactly: more than 15 digits, `NaN`, `Infinity` | TEXT |
| A value or a row of more than 1,000,000,000 bytes, SQLite's limit | the largest values are NULL until the row fits |
| A type that is not on this page, such as an extension's | the source's own text, or its bytes in hex (MySQL) |

A verification counts a row that was too large as different.
"""
POSTGRESQL = """
## PostgreSQL

PostgreSQL reads a stored value back as the same value: `SELECT '…'::type`. For the numbers of objects (`regclass` and
similar types), cast to `oid` first. Read a `real` from its digits, not from the double.

Text is Unicode, whatever the database's encoding. These encodings have bytes without a Unicode character: EUC_CN,
EUC_JP, EUC_JIS_2004, EUC_KR, ISO_8859_6, ISO_8859_7, ISO_8859_8, LATIN3, WIN874, WIN1250 to WIN1255, WIN1257 and
WIN1258. A text with such bytes, or with one of several EUC characters that share one Unicode character, is a BLOB in
that encoding. In EUC_TW the server converts the text; if it cannot, the table's sync fails. MULE_INTERNAL cannot be
read: PostgreSQL does not convert it to Unicode.
"""
EXTENSIONS = "\n### Extensions\n"
ARRAYS = "\n### Types that users define\n"
MYSQL = """
## MySQL and MariaDB

Text is Unicode, whatever its character set and collation; the collation is not kept. CHAR comes without its padding, as
the server sends it. An ENUM's error value and an empty label, if there is one, become the same text. Invisible,
virtual, stored and compressed columns are treated as their type, and so are the row start and row end of a
system-versioned table; the replica has its current rows.

A BLOB in a TEXT column is text that is not Unicode. If its first byte is FF, the other bytes are the text in the
column's own character set; else it is what the server sends as UTF-8, and reads back as such.
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
