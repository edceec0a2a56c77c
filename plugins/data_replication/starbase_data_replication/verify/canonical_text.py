"""The canonical text of a row as SQLite's SQL, and the hash that is made of it.

Both sides of a comparison write a row as the docstring of `Comparing` says; here it is written of what SQLite stores.
Must not know which rows are compared, nor with what.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import md5, sha256
from typing import Any

import apsw

from starbase_data_replication.errors import SchemaMismatch
from starbase_data_replication.model import NO_AFFINITY, Cast, Column, TableSchema, plain
from starbase_data_replication.sources import DIGESTS, MD5, SHA256, Comparing
from starbase_host import quote

# SQLite's functions take at least 127 arguments, and a column takes up to three.
COLUMNS_OF_ONE_CALL = 30
# A decimal, as a source writes one.
DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?\Z|NaN\Z|-?Infinity\Z")


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


class CanonicalText:
    """The SQL of the canonical texts of rows, compared in these columns, as the source's `Comparing` has it.

    Attributes:
        key: the expression of the key's text; of the whole row's, if the table has no key.
        row: the expression of the row's text.
        hash_of: the hash of a text.
    """

    def __init__(self, schema: TableSchema, columns: Sequence[Column], source: Comparing) -> None:
        digest = Digest(source)
        self.hash_of = digest.hash_of
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
        self.key = self._text(schema.key_columns or columns)
        self.row = self._text(columns)

    def register(self, connection: apsw.Connection) -> None:
        """Give a connection the functions that the expressions use, and `replica_sum`, of the hashes of texts."""
        aggregate: Any = partial(_Sum, self.hash_of)
        connection.create_aggregate_function("replica_sum", aggregate, 1)
        for name, function in self._functions.items():
            connection.create_scalar_function(name, function, 1, deterministic=True)

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


class _Sum:
    """The aggregate: as text, because the sum does not fit into SQLite's integers."""

    def __init__(self, hash_of: Callable[[bytes], int]) -> None:
        self._sum = 0
        self._hash_of = hash_of

    def step(self, text: bytes) -> None:
        self._sum += self._hash_of(text)

    def final(self) -> str:
        return str(self._sum)
