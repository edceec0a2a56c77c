"""The replica's side of a comparison: parts, sums and hashes like those of `Comparing`, from SQLite.

Owns the canonical text of a row as SQLite's SQL. Each function on a connection reads a bounded number of rows, so that
no reader is busy for long. Must not know what it is compared with, and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from hashlib import md5, sha256
from typing import Any

import apsw

from starbase_data_replication.errors import SchemaMismatch
from starbase_data_replication.model import NO_AFFINITY, Cast, Column, TableSchema, plain
from starbase_data_replication.sources import DIGESTS, MD5, SHA256, Comparing, Key, Part, Summary
from starbase_host import Database, fold_name, quote

# Rows of a part at first: enough that its statement costs little beside them, and few enough to bound a reader's time.
# And rows of a part that is compared row by row, instead of being split further.
PART_ROWS = 8192
LEAF_ROWS = 256
# SQLite's functions take at least 127 arguments, and a column takes up to three.
COLUMNS_OF_ONE_CALL = 30
# A decimal, as a source writes one.
DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?\Z|NaN\Z|-?Infinity\Z")

Visit = Callable[[Key, int, int], None]


class Digest:
    """What rows, and long values in them, are hashed with: as the source does it."""

    def __init__(self, source: Comparing) -> None:
        # A dialect of another plugin may not have this attribute.
        name = getattr(source, "digest", MD5)
        if name not in DIGESTS:
            raise SchemaMismatch(f"the dialect hashes rows with {name!r}, which is not one of {', '.join(DIGESTS)}")
        self._function = {MD5: md5, SHA256: sha256}[name]

    def hash_of(self, text: bytes) -> int:
        """The first 60 bits."""
        return int.from_bytes(self._function(text, usedforsecurity=False).digest()[:8], "big") >> 4

    def of_value(self, value: bytes) -> str:
        """What stands for a long value."""
        return self._function(value, usedforsecurity=False).hexdigest()


def bytes_that_are_no_text(value: bytes) -> int | str:
    """How many bytes, or a mark that no source's text has, where they are UTF-8."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return len(value)
    return "!"


def canonical_text(encoded: Callable[[str], bytes], value: bytes) -> bytes:
    """A text's length and bytes, as its source has them; a mark that no source's text has, for one that it cannot have.

    value: the text's bytes: a user may have written a text that is not valid UTF-8.
    """
    try:
        text = encoded(value.decode())
    except UnicodeError:
        return b"!" + value
    return b"%d:%b" % (len(text), text)


def digits_of(value: float | str | bytes, *, cast: Cast) -> str:
    """A wide decimal's digits; with a mark where it is stored as something else than the cast makes of it."""
    if isinstance(value, bytes) or (isinstance(value, str) and not DECIMAL.match(value)):
        return f"!{value.hex() if isinstance(value, bytes) else value.encode().hex()}"
    digits = plain(value)
    assert cast.convert is not None
    return digits if type(cast.convert(digits)) is type(value) else f"!{digits}"


class Replica:
    """One replica table, compared in these columns, as the source's `Comparing` has it.

    mark: the column that is set in rows that are gone from the source: they are not seen.
    """

    def __init__(
        self,
        database: Database,
        table: str,
        schema: TableSchema,
        columns: Sequence[Column],
        source: Comparing,
        *,
        mark: str | None = None,
    ) -> None:
        self._database = database
        self._name = table
        self._table = quote(table)
        self._seen = [] if mark is None else [f"{quote(mark)} IS NULL"]
        digest = Digest(source)
        self._hash_of = digest.hash_of
        self._digests = source.digests
        self._forms = {name: f"replica_form_{number}" for number, name in enumerate(source.forms)}
        self._functions: dict[str, Any] = {"replica_digest": digest.of_value, "replica_bytes": bytes_that_are_no_text}
        self._functions |= {self._forms[name]: form for name, form in source.forms.items()}
        encoded: Callable[[str], bytes] | None = getattr(source, "encoded", None)
        self._is_encoded = encoded is not None
        if encoded is not None:
            self._functions |= {"replica_encoded": partial(canonical_text, encoded)}
        casts = {column.name: column.cast for column in schema.columns}
        self._digits = {
            column.name: f"replica_decimal_{number}"
            for number, column in enumerate(schema.columns)
            if column.cast.decimal and column.cast.declared == NO_AFFINITY
        }
        self._functions |= {name: partial(digits_of, cast=casts[column]) for column, name in self._digits.items()}
        order = [schema.column(name) for name in source.order]
        self._order = [quote(column.target) for column in order]
        self._mixed = bool(order) and order[0].cast.declared == NO_AFFINITY
        self._key = schema.target_key
        # A table without a key is walked along SQLite's own, and a row is known by all that it holds.
        self._walked = [quote(name) for name in self._key] or [_rowid(schema)]
        self._key_text = self._text(schema.key_columns or columns)
        self._row_text = self._text(columns)

    async def parts(self) -> AsyncIterator[Part]:
        """The whole table in parts. The first has no lower bound and the last no upper one: the source has more."""
        await self._database.read(self._check)
        part = await self._database.read(partial(self._next_part, after=None))
        yield part
        while part.through is not None:
            part = await self._database.read(partial(self._next_part, after=part.through))
            yield part

    async def split(self, part: Part) -> list[Part]:
        """The same rows in smaller parts; in one, where the key cannot take them apart."""
        return await self._database.read(partial(self._split, part=part))

    async def summarise(self, part: Part) -> dict[int, Summary]:
        if part.buckets == 1:
            return {0: await self._database.read(partial(self._sum, part=part))}
        rows, sums = [0] * part.buckets, [0] * part.buckets

        def add(key: Key, bucket: int, hashed: int) -> None:
            rows[bucket] += 1
            sums[bucket] += hashed

        await self.walk(part, add)
        return {bucket: Summary(rows[bucket], sums[bucket]) for bucket in range(part.buckets) if rows[bucket]}

    async def walk(self, part: Part, visit: Visit) -> None:
        """Call `visit(key, bucket, hash)` for each row of a part, in a reader's thread."""
        if part.keys is not None:
            await self._database.read(partial(self._look_up, keys=part.keys, visit=visit))
            return
        reached = await self._database.read(partial(self._step, part=part, after=None, visit=visit))
        while reached is not None:
            reached = await self._database.read(partial(self._step, part=part, after=reached, visit=visit))

    def _check(self, connection: apsw.Connection) -> None:
        """A table that a user has made may order its key in another way than by its bytes, so not as the source."""
        try:
            # Looking a column up does not notice that the schema has changed; a statement does.
            connection.execute(f"SELECT {', '.join(self._walked)} FROM {self._table} LIMIT 0")
            collations = {connection.column_metadata(None, self._name, name)[1] for name in self._key}
        except apsw.SQLError as error:
            raise SchemaMismatch(f"there is no replica {self._name} with the source's key: sync first") from error
        if collations - {"BINARY"}:
            self._order = []

    def _next_part(self, connection: apsw.Connection, *, after: Key | None) -> Part:
        part = Part(after=after)
        part = replace(part, through=self._boundary(connection, part, PART_ROWS))
        where, values = self._where(part)
        found: int = connection.execute(f"SELECT count(*) FROM {self._table}{where}", values).get
        # Rows whose place in the order is the same cannot be taken apart by it, but by their keys' hashes.
        buckets = 1 << (found // PART_ROWS).bit_length() if found > 4 * PART_ROWS else 1
        return replace(part, buckets=buckets)

    def _split(self, connection: apsw.Connection, *, part: Part) -> list[Part]:
        parts = []
        while (through := self._boundary(connection, part, LEAF_ROWS)) not in (None, part.through):
            parts.append(replace(part, through=through))
            part = replace(part, after=through)
        return [*parts, part]

    def _boundary(self, connection: apsw.Connection, part: Part, rows: int) -> Key | None:
        """Where the order has come after so many rows of a part; None when that is past the last of them.

        The rows that it steps over are bounded, and it steps over each of them once: no walk by OFFSET.
        """
        if not self._order:
            return None
        names = ", ".join(self._order)
        where, values = self._where(part)
        sql = f"SELECT {names} FROM {self._table}{where} ORDER BY {names} LIMIT 1 OFFSET {rows - 1}"
        found: Key | None = connection.execute(sql, values).fetchone()
        if found is not None and self._mixed and isinstance(found[0], str):
            # An integer above 2^63: the source does not order it as text, so nothing may end in between.
            return None
        return found

    def _sum(self, connection: apsw.Connection, *, part: Part) -> Summary:
        self._register(connection)
        where, values = self._where(part)
        sql = f"SELECT count(*), replica_sum({self._row_text}) FROM {self._table}{where}"
        answer: Any = connection.execute(sql, values).fetchone()
        return Summary(answer[0], int(answer[1]))

    def _step(self, connection: apsw.Connection, *, part: Part, after: Key | None, visit: Visit) -> Key | None:
        """Visit the next rows of a walk. Where it has come; None at its end."""
        self._register(connection)
        names = ", ".join(self._walked)
        where, values = self._where(part)
        if after is not None:
            where += f" {'AND' if where else 'WHERE'} ({names}) > ({_marks(after)})"
            values += after
        key_text = self._key_text if part.buckets > 1 else "x''"
        sql = (
            f"SELECT {names}, {key_text}, {self._row_text} FROM {self._table}{where} ORDER BY {names} LIMIT {PART_ROWS}"
        )
        chosen = None if part.only_buckets is None else frozenset(part.only_buckets)
        rows, length, bucket = 0, len(self._key), 0
        row: tuple[Any, ...] = ()
        for row in connection.execute(sql, values):
            rows += 1
            if part.buckets > 1:
                bucket = self._hash_of(row[-2]) % part.buckets
            if chosen is None or bucket in chosen:
                visit(row[:length], bucket, self._hash_of(row[-1]))
        return row[:-2] if rows == PART_ROWS else None

    def _look_up(self, connection: apsw.Connection, *, keys: Sequence[Key], visit: Visit) -> None:
        self._register(connection)
        names = ", ".join(self._walked)
        same = " AND ".join([*self._seen, f"({names}) = ({_marks(self._walked)})"])
        sql = f"SELECT {names}, {self._row_text} FROM {self._table} WHERE {same}"
        for key in keys:
            for *found, text in connection.execute(sql, key):
                # Another row may be the same to the table, if a user has given it a collation.
                if tuple(found) == key:
                    visit(key, 0, self._hash_of(text))

    def _where(self, part: Part) -> tuple[str, Key]:
        conditions = list(self._seen)
        values: Key = ()
        for operator, key in ((">", part.after), ("<=", part.through)):
            if key is not None:
                conditions.append(f"({', '.join(self._order)}) {operator} ({_marks(key)})")
                values += key
        return f" WHERE {' AND '.join(conditions)}" if conditions else "", values

    def _text(self, columns: Sequence[Column]) -> str:
        pieces = [self._canonical(column) for column in columns]
        groups = [", ".join(pieces[at : at + COLUMNS_OF_ONE_CALL]) for at in range(0, len(pieces), COLUMNS_OF_ONE_CALL)]
        return f"CAST(concat({', '.join(f'concat({group})' for group in groups)}) AS BLOB)"

    def _canonical(self, column: Column) -> str:
        """Two or three arguments of concat, which leaves out what is NULL.

        What is stored may be of another type than the cast makes: it gets a mark that no source's text has.
        """
        name = quote(column.target)
        case, other = f"CASE typeof({name}) WHEN 'null' THEN NULL", f"ELSE '!' || hex({name}) END, ','"
        match column.cast.declared:
            case "TEXT" | "BLOB" as declared if column.name in self._digests:
                kept = f"WHEN 'blob' THEN iif(replica_bytes({name}) = '!', '!', replica_digest({name}))"
                digested = f"WHEN '{declared.lower()}' THEN replica_digest(CAST({name} AS BLOB))"
                return f"{case} {digested} {kept if declared == 'TEXT' else ''} {other}"
            case _ if column.name in self._digits:
                return f"{case} ELSE {self._digits[column.name]}({name}) END, ','"
            case "REAL" | "NUMERIC" as declared if column.cast.decimal:
                # What is no number is NaN, or nothing that a source has.
                text = f"WHEN 'text' THEN iif({name} = 'NaN', {name}, '!' || hex({name}))"
                number = (
                    f"'real' THEN format('%.{column.cast.scale}f', {name})"
                    if declared == "REAL"
                    else f"'integer' THEN {name}"
                )
                return f"{case} WHEN {number} {text} {other}"
            case "INTEGER":
                return f"{case} WHEN 'integer' THEN {name} {other}"
            case "BLOB":
                return f"{case} WHEN 'blob' THEN 'x' || hex({name}) {other}"
            case declared if declared == NO_AFFINITY:
                text = f"octet_length({name}) || ':' || {name}"
                form = self._forms.get(column.name)
                number = f"'integer' THEN {name}" if form is None else f"'real' THEN {form}({name})"
                return f"{case} WHEN {number} WHEN 'text' THEN {text} {other}"
        if self._is_encoded:
            text = f"WHEN 'text' THEN replica_encoded(CAST({name} AS BLOB))"
            return f"CASE typeof({name}) {text} WHEN 'null' THEN ':' ELSE concat(octet_length({name}), ':', {name}) END"
        # If the source's text has no encoding, it is stored as bytes where it is not UTF-8.
        bytes_of = f"WHEN 'blob' THEN replica_bytes({name})"
        return f"{case} WHEN 'text' THEN octet_length({name}) {bytes_of} ELSE '!' END, ':', {name}"

    def _register(self, connection: apsw.Connection) -> None:
        aggregate: Any = partial(_Sum, self._hash_of)
        connection.create_aggregate_function("replica_sum", aggregate, 1)
        for name, function in self._functions.items():
            connection.create_scalar_function(name, function, 1, deterministic=True)


class _Sum:
    """The aggregate: as text, because the sum does not fit into SQLite's integers."""

    def __init__(self, hash_of: Callable[[bytes], int]) -> None:
        self._sum = 0
        self._hash_of = hash_of

    def step(self, text: bytes) -> None:
        self._sum += self._hash_of(text)

    def final(self) -> str:
        return str(self._sum)


def _rowid(schema: TableSchema) -> str:
    taken = {fold_name(column.target) for column in schema.columns}
    free = next((name for name in ("rowid", "oid", "_rowid_") if name not in taken), None)
    if free is None:
        raise SchemaMismatch(
            f"{schema.table} has no key, and its columns take every name that SQLite has for a row: "
            'rename one, as in rename: {"oid": "oid_2"}'
        )
    return free


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
