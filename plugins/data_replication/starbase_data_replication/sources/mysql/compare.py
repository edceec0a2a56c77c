"""Comparing a MySQL or MariaDB table: counts, checksums and hashes of rows, from one snapshot, as `Comparing` has it.

Owns the canonical text of a row as MySQL's SQL, and what MySQL makes of a floating number. Must not know what the
results are compared with.
"""

from __future__ import annotations

import math
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import takewhile

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.model import NO_AFFINITY, Column, Options, TableSchema, text_or_bytes
from starbase_data_replication.sources.batches import keys_of
from starbase_data_replication.sources.expressions import bracketed
from starbase_data_replication.sources.mysql.connection import Connection
from starbase_data_replication.sources.mysql.errors import translate_errors
from starbase_data_replication.sources.mysql.rows import RowStream
from starbase_data_replication.sources.mysql.source_code import SourceCode
from starbase_data_replication.sources.mysql.sql import (
    after,
    among,
    column_sql,
    compared,
    key_text,
    selected,
    table_sql,
)
from starbase_data_replication.sources.mysql.types import AS_JSON, EXACT_ALONE, GEOMETRIES, JSON, shortest_float
from starbase_data_replication.sources.protocols import SHA256, Key, Part, Summary

FETCHED_ROWS = 1000
FETCHED_BYTES = 1024 * 1024

# Types that the replica orders as MySQL does; a bigint unsigned only as the first column.
ORDERED = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year", "binary", "varbinary"})
# Collations that compare the bytes of UTF-8, and do not pad with blanks.
ORDERED_COLLATIONS = ("utf8mb4_0900_bin", "utf8mb4_nopad_bin", "utf8mb3_nopad_bin", "utf8_nopad_bin")

# Several of these in a row may come to more than max_allowed_packet, and a text that does is NULL.
# MariaDB answers NULL for the digits of bytes, too, when there are more.
LONG = frozenset({"mediumtext", "longtext", "json", "blob", "mediumblob", "longblob", *GEOMETRIES})

# A document of which the server gives an empty text. Only large ones are asked: a text is at most six times as long as
# what is stored.
LOST_JSON = "(JSON_STORAGE_SIZE({}) > @@max_allowed_packet DIV 8 AND LENGTH({}) = 0)"

# The server writes a number without an exponent while the point is at most so far to the right or the left of its
# first digit; also one further to the right, where digits follow it (my_gcvt in strings/dtoa).
RIGHTMOST_POINT = 15
LEFTMOST_POINT = -14


def double_text(value: float) -> str:
    """A double as the server writes it: the same digits as Python's, which are the fewest that tell it apart."""
    if not math.isfinite(value):
        return f"!{value}"
    sign, parts, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, parts))
    point = len(digits) + int(exponent)
    minus = "-" if sign else ""
    if value == 0:
        return f"{minus}0"
    if point < LEFTMOST_POINT or point > max(RIGHTMOST_POINT, len(digits) - 1):
        return f"{minus}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{point - 1}"
    if point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    whole, fraction = digits[:point].ljust(point, "0"), digits[point:]
    return f"{minus}{whole}{'.' if fraction else ''}{fraction}"


def float_text(value: float) -> str:
    """The text of the four-byte float that the replica keeps as this double, or `!` and the number if none does."""
    try:
        exact: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return f"!{value}"
    text = double_text(exact)
    return text if math.isfinite(exact) and shortest_float(text) == value else f"!{value}"


FORMS = {"double": double_text, "float": float_text}


def _form(column: Column) -> Callable[[float], str]:
    form = FORMS[column.tracking_kind]
    return partial(in_json, form=form) if column.cast.select == AS_JSON else form


def in_json(value: float, *, form: Callable[[float], str] = double_text) -> str:
    """The same in a JSON document, where a double always has a point or an exponent."""
    text = form(value)
    return text if text.startswith("!") or "." in text or "e" in text else f"{text}.0"


class MysqlComparing:
    """A snapshot of one table, open for comparing, on a connection inside its transaction."""

    # MySQL has no MD5 from 9.6 on, and a server in FIPS mode may refuse it.
    digest = SHA256
    order: tuple[str, ...]
    forms: Mapping[str, Callable[[float], str]]
    digests: frozenset[str]

    def __init__(
        self, connection: Connection, schema: TableSchema, columns: Sequence[Column], options: Options
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._key = schema.key_columns
        self._columns = columns
        self._options = options
        self._doing = f"comparing {schema.table}"
        self._code = SourceCode(connection, schema, self._doing)
        first = self._key[:1]
        ordered = takewhile(lambda column: _orders_alike(column, first=column in first), self._key)
        self.order = tuple(column.name for column in ordered)
        self.forms = {each.name: _form(each) for each in schema.columns if each.tracking_kind in FORMS}
        for column in columns:
            if column.cast.select == EXACT_ALONE:
                raise SourceRejected(
                    f"{self._doing}: a MySQL older than 8.0.28 writes no exact text of column {column.name}, a "
                    f"{column.source_type}, to be compared; name it in excludeColumns, or upgrade the server"
                )
        self.digests = frozenset(each.name for each in schema.columns if each.tracking_kind in LONG)

    async def summarise(self, parts: Sequence[Part]) -> list[dict[int, Summary]]:
        selects = [self._summary(number, part) for number, part in enumerate(parts)]
        # A statement contains the caller's filter only once.
        statements = [" UNION ALL ".join(selects)] if self._schema.where is None else selects
        await self._code.begin()
        with translate_errors(self._doing, rows=True):
            rows = [row for sql in statements for row in await self._connection.fetch(sql)]
            await self._code.check()
            found: list[dict[int, Summary]] = [{} for _ in parts]
            for number, bucket, count, checksum in rows:
                if bucket is None:
                    raise self._too_large()
                found[int(number)][int(bucket)] = Summary(int(count), int(checksum))
        return found

    async def hashes(self, part: Part) -> AsyncIterator[list[tuple[Key, int]]]:
        names = "".join(f"{selected(column)}, " for column in self._key)
        await self._code.begin()
        with translate_errors(self._doing, rows=True):
            stream = await RowStream.open(
                self._connection, f"SELECT {names}{self._hash(self._columns)} {self._from(part)}"
            )
        while not stream.ended:
            with translate_errors(self._doing, rows=True):
                rows, _ = await stream.take(FETCHED_ROWS, FETCHED_BYTES)
                if stream.ended:
                    await self._code.check()
                if any(row[-1] is None for row in rows):
                    raise self._too_large()
                keys = keys_of(rows, self._key)
                found = [(tuple(key), int(row[-1])) for key, row in zip(keys, rows, strict=True)]
            yield found

    def _too_large(self) -> SourceRejected:
        documents = [f"column {column.name}" for column in self._columns if column.tracking_kind == JSON]
        what = f"a row, or the text of its JSON ({', '.join(documents)})," if documents else "a row"
        return SourceRejected(
            f"{self._doing}: {what} is larger than the server's max_allowed_packet, so it has no hash; "
            "raise max_allowed_packet at the source"
        )

    def _summary(self, number: int, part: Part) -> str:
        bucket, group = "0", ""
        if part.buckets > 1:
            bucket, group = self._bucket(part), " GROUP BY bucket"
        checksum = f"COALESCE(SUM({self._hash(self._columns)}), 0)"
        return f"(SELECT {number}, {bucket} AS bucket, COUNT(*), {checksum} {self._from(part)}{group})"

    def _from(self, part: Part) -> str:
        sql = f"FROM {table_sql(self._schema.table)} AS t"
        conditions = []
        if self._schema.where is not None:
            conditions.append(bracketed(self._schema.where, self._connection.syntax))
        if self._options.deleted_column is not None:
            conditions.append(f"{column_sql(self._schema.column(self._options.deleted_column))} IS NULL")
        if self._options.null_tracking == "ignore":
            conditions.append(f"{column_sql(self._schema.tracking)} IS NOT NULL")
        columns = [self._schema.column(name) for name in self.order]
        if part.keys is not None:
            conditions.append(among(self._schema, part.keys) if part.keys else "FALSE")
        if part.after is not None:
            conditions.append(after(columns, [key_text(value) for value in part.after]))
        if part.through is not None:
            through = [key_text(value) for value in part.through]
            single = len(columns) == 1
            conditions.append(compared(columns[0], "<=", through[0]) if single else f"NOT {after(columns, through)}")
        if part.only_buckets is not None:
            conditions.append(f"{self._bucket(part)} IN ({', '.join(map(str, part.only_buckets))})")
        return f"{sql} WHERE {' AND '.join(conditions)}" if conditions else sql

    def _bucket(self, part: Part) -> str:
        return f"MOD({self._hash(self._key or self._columns)}, {part.buckets})"

    def _hash(self, columns: Sequence[Column]) -> str:
        # CONCAT_WS leaves out what is NULL. In bytes, since texts of two collations would become one text, which cannot
        # hold bytes that are not valid text, or would be refused.
        text = f"CONCAT_WS(CAST(X'' AS BINARY), {', '.join(self._canonical(column) for column in columns)})"
        hashed = f"CAST(CONV(LEFT({_digest(text)}, 15), 16, 10) AS UNSIGNED)"
        lost = [LOST_JSON.replace("{}", column_sql(column)) for column in columns if column.tracking_kind == JSON]
        return f"IF({' OR '.join(lost)}, NULL, {hashed})" if lost else hashed

    def _canonical(self, column: Column) -> str:
        value = selected(column)
        # Converted, text in utf8mb4 would have question marks for what is not valid in it.
        sent = column.cast.convert is text_or_bytes or column.compare_type.startswith("utf8mb4 ")
        text = value if sent else f"CONVERT({value} USING utf8mb4)"
        match column.cast.declared:
            case "INTEGER":
                # A column that is declared ZEROFILL is written with zeros before its digits.
                return f"{value} + 0, ','"
            case "BLOB":
                if column.name in self.digests:
                    return f"{_digest(value)}, ','"
                return f"CONCAT('x', HEX({value})), ','"
            case _ if column.cast.decimal:
                # As an integer, without the zeros of ZEROFILL; those of the scale are not in what has none.
                number = f"({value} + 0)"
                if column.cast.declared != NO_AFFINITY or not column.cast.scale:
                    return f"{number}, ','"
                return f"TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {number})), ','"
            case declared if declared == NO_AFFINITY:
                if column.name in self.forms:
                    return f"{value}, ','"
                number = f"({value} + 0)"
                return f"IF({number} < 9223372036854775808, {number}, CONCAT(LENGTH({number}), ':', {number})), ','"
        if column.name in self.digests:
            return f"{_digest(text)}, ','"
        return f"LENGTH({text}), ':', {text}"


def _digest(expression: str) -> str:
    return f"SHA2({expression}, 256)"


def _orders_alike(column: Column, *, first: bool) -> bool:
    if column.tracking_kind == "varchar":
        return column.compare_type.endswith(ORDERED_COLLATIONS)
    if column.cast.decimal:
        return column.cast.declared != NO_AFFINITY
    return column.tracking_kind in ORDERED and (first or column.cast.declared != NO_AFFINITY)
