"""Comparing a PostgreSQL table: counts, checksums and hashes of rows, from one snapshot, as `Comparing` has it.

Owns the canonical text of a row as PostgreSQL's SQL. Must not know what the results are compared with.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from importlib.resources import files
from itertools import takewhile
from typing import Any, Self

from starbase_data_replication.model import NO_AFFINITY, Column, Options, TableSchema, whole_or_text
from starbase_data_replication.sources.batches import keys_of
from starbase_data_replication.sources.expressions import Syntax, bracketed
from starbase_data_replication.sources.postgresql.encodings import encoding_of
from starbase_data_replication.sources.postgresql.errors import translate_errors
from starbase_data_replication.sources.postgresql.source_code import SourceCode
from starbase_data_replication.sources.postgresql.sql import (
    among,
    key_text,
    operator,
    quoted,
    same_files,
    selected,
    sent,
    table_sql,
)
from starbase_data_replication.sources.protocols import MD5, SHA256, Key, Part, Summary

BYTE_ORDERED = files(__package__).joinpath("byte_ordered.sql").read_text(encoding="utf-8")

# If source and replica do not order the keys alike, a pass over all keys takes as long as reading the table.
TIMEOUT_SECONDS = 3600.0
FETCHED_ROWS = 1000
# A function takes a hundred arguments, and a column is up to three.
COLUMNS_OF_ONE_CALL = 30

# Types that the replica orders as PostgreSQL does, whatever the collation; text depends on it.
ORDERED = frozenset({"int2", "int4", "int8", "oid", "bool", "uuid", "bytea"})
ORDERED_BY_BYTES = frozenset({"text", "varchar"})
FLOATS = frozenset({"float4", "float8"})


def eight_bytes(value: float) -> str:
    """A floating number as float8send has it, in hex."""
    return struct.pack(">d", value).hex()


class PostgresqlComparing:
    """A snapshot of one table, open for comparing. Made by `open`, on a connection inside its transaction."""

    order: tuple[str, ...]
    forms: Mapping[str, Callable[[float], str]]
    digests: frozenset[str]
    encoded: Callable[[str], bytes] | None

    def __init__(
        self,
        connection: Any,
        schema: TableSchema,
        columns: Sequence[Column],
        options: Options,
        *,
        order: tuple[str, ...],
    ) -> None:
        self.order = order
        self.forms = {column.name: eight_bytes for column in schema.columns if column.tracking_kind in FLOATS}
        self.digests = frozenset()
        self._connection = connection
        self._schema = schema
        self._numbers = {each.name: number for number, each in enumerate((*schema.columns, *schema.left_out))}
        # Without a key, a row is known by all that it holds.
        self._key = schema.key_columns
        self._columns = columns
        self._options = options
        self._doing = f"comparing {schema.table}"
        self._code = SourceCode(connection, schema, self._doing)
        # Text without an encoding, or in one with gaps, is not converted: the replica has its bytes.
        server_encoding = connection.get_settings().server_encoding
        encoding = encoding_of(server_encoding)
        self.encoded = None if encoding is None else encoding.encoded
        as_it_is = encoding is not None or server_encoding == "SQL_ASCII"
        self._encoded = "{}" if as_it_is or server_encoding == "UTF8" else "pg_catalog.convert_to({}, 'UTF8')"
        # A server in FIPS mode refuses MD5; PostgreSQL has the other from 11 on.
        self.digest = SHA256 if connection.get_server_version().major >= 11 else MD5
        converted = f"pg_catalog.convert_to({{}}, '{'SQL_ASCII' if as_it_is else 'UTF8'}')"
        sha256 = f"pg_catalog.encode(pg_catalog.sha256({converted}), 'hex')"
        self._hashed = sha256 if self.digest == SHA256 else f"pg_catalog.md5({self._encoded})"

    @classmethod
    async def open(cls, connection: Any, schema: TableSchema, columns: Sequence[Column], options: Options) -> Self:
        rows = await connection.fetch(
            BYTE_ORDERED, schema.table.schema, schema.table.name, [column.name for column in schema.key_columns]
        )
        utf8 = connection.get_settings().server_encoding == "UTF8"
        byte_ordered = {row["name"] for row in rows} if utf8 else set()

        def alike(column: Column) -> bool:
            if column.cast.decimal:
                return column.cast.declared != NO_AFFINITY
            kind = column.tracking_kind
            return kind in ORDERED or (kind in ORDERED_BY_BYTES and column.name in byte_ordered)

        order = tuple(column.name for column in takewhile(alike, schema.key_columns))
        return cls(connection, schema, columns, options, order=order)

    async def summarise(self, parts: Sequence[Part]) -> list[dict[int, Summary]]:
        rows: list[Any] = []
        # A statement contains the caller's filter only once.
        together = len(parts) if self._schema.where is None else 1
        await self._code.begin()
        for first in range(0, len(parts), together or 1):
            values: list[Any] = []
            some = enumerate(parts[first : first + together], first)
            sql = " UNION ALL ".join(self._summary(number, part, values) for number, part in some)
            with translate_errors(self._doing, rows=True):
                rows += await self._connection.fetch(sql, *values, timeout=TIMEOUT_SECONDS)
        await self._code.check()
        found: list[dict[int, Summary]] = [{} for _ in parts]
        with translate_errors(self._doing):
            for number, bucket, count, checksum in rows:
                found[number][bucket] = Summary(count, int(checksum))
        return found

    async def hashes(self, part: Part) -> AsyncIterator[list[tuple[Key, int]]]:
        values: list[Any] = []
        names = "".join(f"{sent(self._name(column), column)}, " for column in self._key)
        sql = f"SELECT {names}{self._hash(self._columns)} {self._from(part, values)}"
        await self._code.begin()
        with translate_errors(self._doing, rows=True):
            cursor = await self._connection.cursor(sql, *values, timeout=TIMEOUT_SECONDS)
        more = True
        while more:
            with translate_errors(self._doing, rows=True):
                records = await cursor.fetch(FETCHED_ROWS, timeout=TIMEOUT_SECONDS)
                more = len(records) == FETCHED_ROWS
                keys = keys_of(records, self._key)
                found = [(tuple(key), record[-1]) for key, record in zip(keys, records, strict=True)]
            if not more:
                await self._code.check()
            yield found

    def _summary(self, number: int, part: Part, values: list[Any]) -> str:
        bucket, group = "0::int8", ""
        if part.buckets > 1:
            bucket, group = self._bucket(part), " GROUP BY 2"
        checksum = f"coalesce(pg_catalog.sum({self._hash(self._columns)}), 0)::text"
        return f"(SELECT {number}, {bucket}, count(*), {checksum} {self._from(part, values)}{group})"

    def _from(self, part: Part, values: list[Any]) -> str:
        """FROM and WHERE of a part. The results of the casts are computed once a row, however often they are used:
        OFFSET 0 keeps the planner from taking the inner SELECT apart.
        """
        used = {column.name: column for column in (*self._key, *self._columns)}.values()
        expressions = ", ".join(f"{selected(column)} AS c{self._number(column)}" for column in used)
        sql = f"SELECT {expressions} FROM {table_sql(self._schema.table)} AS t{self._where(part, values)}"
        sql = f"FROM ({sql} OFFSET 0) AS s"
        if part.only_buckets is None:
            return sql
        # Bound as texts: the driver would have to ask the server what an array of numbers is made of.
        values.append([str(bucket) for bucket in part.only_buckets])
        return f"{sql} WHERE {self._bucket(part)} = ANY (${len(values)}::text[]::int8[])"

    def _where(self, part: Part, values: list[Any]) -> str:
        def bind(value: str | Sequence[str]) -> str:
            values.append(value)
            return f"${len(values)}"

        conditions = same_files(self._schema)
        if part.keys is not None:
            conditions.append(among(self._schema, part.keys, bind))
        if self._schema.where is not None:
            conditions.append(bracketed(self._schema.where, Syntax.POSTGRESQL))
        if self._options.deleted_column is not None:
            conditions.append(f"t.{quoted(self._options.deleted_column)} IS NULL")
        if self._options.null_tracking == "ignore":
            conditions.append(f"t.{quoted(self._schema.tracking_column)} IS NOT NULL")
        columns = [self._schema.column(name) for name in self.order]
        for sign, key in ((">", part.after), ("<=", part.through)):
            if key is not None:
                left = ", ".join(f"t.{quoted(column.name)}" for column in columns)
                first = len(values) + 1
                values += map(key_text, key)
                right = ", ".join(f"${n}::text::{column.compare_type}" for n, column in enumerate(columns, first))
                conditions.append(f"({left}) {operator(sign, *columns)} ({right})")
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""

    def _bucket(self, part: Part) -> str:
        return f"{self._hash(self._key or self._columns)} % {part.buckets}::int8"

    def _hash(self, columns: Sequence[Column]) -> str:
        pieces = [self._canonical(column) for column in columns]
        groups = [", ".join(pieces[at : at + COLUMNS_OF_ONE_CALL]) for at in range(0, len(pieces), COLUMNS_OF_ONE_CALL)]
        texts = [f"pg_catalog.concat({group})" for group in groups]
        text = f"pg_catalog.concat({', '.join(texts)})" if texts[1:] else texts[0]
        return f"('x' || pg_catalog.left({self._hashed.format(text)}, 15))::bit(60)::int8"

    def _canonical(self, column: Column) -> str:
        """Two or three arguments of concat, which leaves out what is NULL."""
        name = self._name(column)
        match column.cast.declared:
            case "INTEGER":
                return f"{name}, ','"
            case "BLOB":
                return f"'x' || pg_catalog.upper(pg_catalog.encode({name}, 'hex')), ','"
            case _ if column.cast.decimal:
                if column.cast.declared != NO_AFFINITY or column.cast.convert is whole_or_text:
                    return f"{name}, ','"
                trimmed = f"pg_catalog.rtrim(pg_catalog.rtrim({name}, '0'), '.')"
                return f"CASE WHEN pg_catalog.strpos({name}, '.') > 0 THEN {trimmed} ELSE {name} END, ','"
            case declared if declared == NO_AFFINITY:
                if column.name not in self.forms:
                    large = f"pg_catalog.octet_length({name})::text || ':' || {name}"
                    return f"CASE WHEN {name}::numeric < 9223372036854775808 THEN {name} ELSE {large} END, ','"
                bits = f"pg_catalog.encode(pg_catalog.float8send({name}), 'hex')"
                return f"CASE {name} WHEN 'NaN' THEN '3:NaN' ELSE {bits} END, ','"
        return f"pg_catalog.octet_length({self._encoded.format(name)}), ':', {name}"

    def _name(self, column: Column) -> str:
        return f"s.c{self._number(column)}"

    def _number(self, column: Column) -> int:
        return self._numbers[column.name]
