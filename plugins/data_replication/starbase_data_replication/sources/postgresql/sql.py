"""Names and keys as PostgreSQL's SQL: what every statement of this room is made of. Knows no connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starbase_data_replication.casts import text_or_bytes
from starbase_data_replication.model import Column, TableName, TableSchema
from starbase_data_replication.sources.base import Key
from starbase_data_replication.sources.postgresql.types import OWN_TEXT

# Makes of a value what stands for it in a statement: a literal, or the place of something bound.
Bind = Callable[[str | Sequence[str]], str]


def quoted(name: str) -> str:
    """An identifier as PostgreSQL's SQL."""
    return '"' + name.replace('"', '""') + '"'


def table_sql(table: TableName) -> str:
    return f"{quoted(table.schema or 'public')}.{quoted(table.name)}"


def selected(column: Column) -> str:
    """The expression that answers what the replica stores."""
    return column.cast.select.replace("{}", f"t.{quoted(column.name)}")


def sent(expression: str, column: Column) -> str:
    """The same, as it is sent: text that may be in no encoding goes as its bytes, which the server does not check."""
    raw = column.cast.convert is text_or_bytes
    return f"convert_to({expression}, 'SQL_ASCII')" if raw else expression


def copied(column: Column) -> str:
    """The expression whose values COPY writes as the replica stores them.

    Where `::text` is the type's own output, COPY does it anyway: doing it before as well costs the server a twentieth.
    """
    own_text = column.tracking_kind in OWN_TEXT and column.cast.convert is None
    return f"t.{quoted(column.name)}" if own_text else sent(selected(column), column)


def where_sql(expression: str) -> str:
    """A user's expression as a condition. A comment at its end must not swallow what follows."""
    return f"({expression}\n)"


def key_text(value: Any) -> str:
    """A key's value, as the replica stores it, as the text that PostgreSQL reads."""
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)


def literal(value: str | Sequence[str]) -> str:
    """A text, or a list of texts, as PostgreSQL's SQL, where backslashes have no meaning (see SETTINGS)."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"ARRAY[{', '.join(map(literal, value))}]"


def among(schema: TableSchema, keys: Sequence[Key], bind: Bind) -> str:
    """The condition that a row's key is one of these."""
    left, right, names, lists = [], [], [], []
    for position, column in enumerate(schema.key_columns):
        names.append(f"k{position}")
        lists.append(f"{bind([key_text(key[position]) for key in keys])}::text[]")
        # What the replica's text cannot be turned back into is compared as that text, without an index.
        readable = column.cast.resumable
        left.append(f"t.{quoted(column.name)}" if readable else selected(column))
        right.append(f"k{position}::{column.compare_type}" if readable else f"k{position}")
    listed = f"unnest({', '.join(lists)}) AS k ({', '.join(names)})"
    return f"({', '.join(left)}) IN (SELECT {', '.join(right)} FROM {listed})"
