"""Whether a tracking column's values rise, by its type and its highest value; and which column would do.

A row with a random tracking value lies below the floor as soon as it is written, and no sync reads it. Pure functions:
each sync notes the highest value anyway, so that checking it costs the source nothing.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from starbase_data_replication.errors import SchemaMismatch, odd_answer
from starbase_data_replication.model import Column, TableSchema

# The tracking column if the user names none and this one rises.
DEFAULT = "id"
# More suggestions make a message hard to read.
MAX_NAMED = 5
UPDATED = re.compile(r"upd|mod|chang|touch|write|written|revis|version", re.IGNORECASE)

# A number at the head of an id is taken for a time if that lies between 2000 and ten years from now.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
AHEAD_SECONDS = 10 * 366 * 86_400
# 1970 on the clock of uuids of versions 1 and 6, which counts steps of 100 ns since 1582.
GREGORIAN = 0x01B21DD213814000

HEX = re.compile(r"[0-9a-f]+\Z", re.IGNORECASE)
UUID_TEXT = re.compile(r"\{?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\}?\Z", re.IGNORECASE)
# ULID, and TypeID, which has a word before it.
ULID = re.compile(r"(?:[a-z][a-z_]*_)?([0-7][0-9a-hjkmnp-tv-z]{25})\Z", re.IGNORECASE)
CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
ISO_TIME = re.compile(r"[12][0-9]{3}-[01][0-9](?:-[0-3][0-9](?:[T ].*)?)?\Z")
# Digests in hex, of 128 bits and more.
DIGESTS = (32, 40, 48, 56, 64, 96, 128)
BYTES_MARK = "\\x"
HIGHEST = "the highest value that there is"
# The kinds of Column.rises whose values must be checked.
LOOKED_AT = ("uuid", "text", "bytes")


def made_elsewhere(schema: TableSchema) -> str | None:
    """Why the source's transactions do not protect an id that rises with a clock; None for other columns."""
    column = schema.tracking
    if column.rises not in LOOKED_AT:
        return None
    made = "is made by the program that writes a row, and not in the order of transactions"
    return f"{column.name} ({column.source_type}) {made}"


def missing(schema: TableSchema, name: str) -> SchemaMismatch:
    """The error of a table without a column of this name."""
    return SchemaMismatch(f"trackingColumn: {schema.table} has no column {name}; {fix(schema, first=True)}")


def of_type(schema: TableSchema, *, named: bool) -> list[str]:
    """The warnings of the tracking column's type. named: whether the user has named the column.

    Raises SchemaMismatch if it has random values by default, or if it was not named and does not rise.
    """
    column = schema.tracking
    if schema.random_default is not None:
        what = "times with a random part" if column.rises == "time" else "random values"
        raise SchemaMismatch(
            f"trackingColumn: {schema.table}.{column.name} has {what} by default ({schema.random_default}), which do "
            f"not rise: new rows would not be read; {fix(schema)}"
        )
    if column.rises != "none":
        return []
    return _doubted(schema, f"is of type {column.source_type}, whose values do not rise", named=named)


def of_value(schema: TableSchema, highest: str | None, *, named: bool, now: float) -> list[str]:
    """The warnings of the tracking column's highest value, in the source's text form; None for an empty table.

    Raises SchemaMismatch if its values are known not to rise, or if it was not named and may not rise.
    """
    column = schema.tracking
    if column.rises not in LOOKED_AT:
        return []
    if highest is None:
        return _doubted(schema, f"holds no value yet that shows whether its {_plural(column)} rise", named=named)
    if rises(column.rises, highest, now=now):
        return []
    if (what := random_kind(column.rises, highest)) is None:
        return _doubted(schema, f"holds {_plural(column)}, and nothing shows that they rise", named=named)
    why = "which do not rise: new rows would not be read" if what != HIGHEST else "so that no new row would be read"
    raise SchemaMismatch(f"trackingColumn: {schema.table}.{column.name} holds {what}, {why}; {fix(schema)}")


def mixed(schema: TableSchema, what: str) -> SchemaMismatch:
    """The error of a column that holds values that do not rise among others that do. what: those values, in words."""
    return SchemaMismatch(
        f"trackingColumn: {schema.table}.{schema.tracking_column} holds {what} among those that rise: new rows like "
        f"them would not be read; {fix(schema)}"
    )


def fix(schema: TableSchema, *, first: bool = False) -> str:
    """The columns that would do, the best first, in words. first: no other column was tried before."""
    found = candidates(schema, tried=None if first else schema.tracking_column)
    if not found:
        return (
            "no column of it is known to rise: add one that each change raises, such as updated_at, or set mode to full"
        )
    named = [f"{each.name} ({each.source_type}{', indexed' if each.indexed else ''})" for each in found[:MAX_NAMED]]
    return f"set trackingColumn to {' or '.join(named)}, or mode to full"


def candidates(schema: TableSchema, tried: str | None = None) -> list[Column]:
    """The columns whose type rises: times of changes first, then what the source itself counts up, then other times."""

    def rank(column: Column) -> tuple[int, bool]:
        if column.rises == "time":
            return (0 if column.assigned or UPDATED.search(column.name) else 2, not column.indexed)
        return (1, not column.indexed)

    everything = (*schema.columns, *schema.left_out)
    alone = schema.key[0] if len(schema.key) == 1 else None
    found = [
        column
        for column in everything
        if column.name != tried
        and (column.rises == "time" or (column.rises == "number" and (column.assigned or column.name == alone)))
    ]
    return sorted(found, key=rank)


def rises(kind: str, value: str, *, now: float) -> bool:
    """Whether a value has a known form that rises with time: uuids of versions 6 and 7, ULIDs, and the like."""
    kind, value = _as_text(kind, value)
    if (digits := _hex(kind, value)) is not None:
        if len(digits) == 32:
            swapped = digits[0] == "1" and _gregorian(digits[1:16], now)
            by_version = digits[12] == "6" and _gregorian(digits[:12] + digits[13:16], now)
            # A uuid's version says whether it begins with a time; sixteen bytes may also be a ULID.
            in_ms = (kind == "bytes" or digits[12] == "7") and _plausible(int(digits[:12], 16) / 1000, now)
            return in_ms or by_version or (kind != "uuid" and swapped)
        # An ObjectId begins with seconds.
        return len(digits) == 24 and _plausible(int(digits[:8], 16), now)
    if kind == "text" and (found := ULID.match(value)) is not None:
        number = 0
        for letter in found[1][:10].lower():
            number = number * 32 + CROCKFORD.index(letter)
        return _plausible(number / 1000, now)
    return kind == "text" and ISO_TIME.match(value) is not None


def random_kind(kind: str, value: str) -> str | None:
    """What values that do not rise are, in words; None if that is unknown. Call `rises` first."""
    kind, value = _as_text(kind, value)
    digits = _hex(kind, value)
    if not digits:
        return None
    if len(digits) >= 32 and set(digits.lower()) == {"f"}:
        return HIGHEST
    # The highest random value hardly begins with a zero or has decimal digits only; a counter may. Text in the form of
    # a uuid is random whatever it begins with: MariaDB orders uuids by their last part.
    if not (kind == "uuid" or "-" in value) and (digits[0] == "0" or digits.isdigit()):
        return None
    if (version := _version(digits)) is not None and version in "12345":
        return of_version(version)
    if kind == "uuid":
        return None
    return f"random values of {len(digits) // 2} bytes" if len(digits) in DIGESTS else None


def of_version(version: str) -> str:
    """Uuids of a version that does not rise, in words."""
    if version in "12":
        return f"uuids of version {version}, which begin with the lowest part of their time,"
    return f"random uuids (version {version})"


def uuid_version(kind: str, value: str) -> str | None:
    """The digit of a uuid's version; None for other values and for bytes that are text. value: the source's text."""
    as_text = _as_text(kind, value)
    digits = _hex(*as_text)
    return _version(digits) if digits is not None and as_text[0] == kind else None


def _version(digits: str) -> str | None:
    return digits[12] if len(digits) == 32 and digits[16] in "89abAB" else None


def _hex(kind: str, value: str) -> str | None:
    """The hex digits of a uuid, of bytes, or of a text of hex digits; else None."""
    if kind == "bytes":
        return value.removeprefix(BYTES_MARK)
    if UUID_TEXT.match(value):
        return value.strip("{}").replace("-", "")
    return value if len(value) in (24, *DIGESTS) and HEX.match(value) else None


def _as_text(kind: str, value: str) -> tuple[str, str]:
    """The kind and the value; bytes that are text, such as a uuid's, become that text."""
    if kind == "bytes":
        try:
            text = bytes.fromhex(value.removeprefix(BYTES_MARK)).rstrip(b"\0")
        except ValueError as error:
            raise odd_answer(error, "reading the highest tracking value", "this kind of source") from error
        if text and text.isascii() and text.decode().isprintable():
            return "text", text.decode()
    return kind, value


def _gregorian(digits: str, now: float) -> bool:
    return _plausible((int(digits, 16) - GREGORIAN) / 1e7, now)


def _plausible(seconds: float, now: float) -> bool:
    return EARLIEST <= seconds <= now + AHEAD_SECONDS


def _plural(column: Column) -> str:
    return "uuids" if column.rises == "uuid" else f"values ({column.source_type})"


def _doubted(schema: TableSchema, why: str, *, named: bool) -> list[str]:
    name = f"{schema.table}.{schema.tracking_column}"
    if named:
        return [
            f"trackingColumn: {name} {why}: a new row whose value is not above all others is not read; {fix(schema)}"
        ]
    raise SchemaMismatch(f"trackingColumn is left out, and {name} {why}; {fix(schema)}")
