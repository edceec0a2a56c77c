"""The part of the schema that a client may see: the tables, columns and indexes that it may read, in SQLite's form.

sqlite_schema and the pragmas show every table, and SQLite's authorizer cannot filter their rows. So the host rewrites a
client's statement that names one of them: it reads a virtual table with only the visible rows. If a rewrite is wrong,
the statement fails, but hidden names stay hidden, because the authorizer refuses the real tables to clients.

Knows one connection. Must not know which role may read what; `Guard` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw

Row = tuple[Any, ...]

# No user can create a table with this prefix.
PREFIX = "sqlite_visible_"
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "schema": ("type", "name", "tbl_name", "rootpage", "sql"),
    "table_list": ("schema", "name", "type", "ncol", "wr", "strict"),
    "table_info": ("cid", "name", "type", "notnull", "dflt_value", "pk"),
    "table_xinfo": ("cid", "name", "type", "notnull", "dflt_value", "pk", "hidden"),
    "index_list": ("seq", "name", "unique", "origin", "partial"),
}
# The pragmas that take a table as argument.
OF_A_TABLE = ("table_info", "table_xinfo", "index_list")
TABLES = frozenset(f"{PREFIX}{name}".encode() for name in COLUMNS)

_NAME = r"sqlite_(?:schema|master)|pragma_(?:table_list|table_x?info|index_list)"
# A client's text can be long and malformed: an unclosed token ends at the end of the text, and the possessive
# quantifiers never backtrack. Else a short statement could block the interpreter for hours.
_TOKEN = re.compile(
    rf"""
    '(?:[^']++|'')*+(?:'|\Z) | --[^\n]*+ | /\*.*?(?:\*/|\Z)
    | (?:(?:"main"|\[main\]|`main`|(?<![\w$.])main)\s*+\.\s*+)?
      (?:"(?P<a>{_NAME})" | \[(?P<b>{_NAME})\] | `(?P<c>{_NAME})` | (?<![\w$])(?P<d>{_NAME})(?![\w$]))
    | "(?:[^"]++|"")*+(?:"|\Z) | `(?:[^`]++|``)*+(?:`|\Z) | \[[^\]]*+(?:\]|\Z)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_ARGUMENT = (
    r"""(?:'(?P<{0}a>(?:[^']++|'')*+)'|"(?P<{0}b>(?:[^"]++|"")*+)"|\[(?P<{0}c>[^\]]*+)\]"""
    r"""|`(?P<{0}d>[^`]*+)`|(?P<{0}e>\w++))"""
)
_PRAGMA = re.compile(
    r"\s*+PRAGMA\s++(?:main\s*+\.\s*+)?(?P<name>table_list|table_x?info|index_list)\s*+"
    rf"(?:\(\s*+{_ARGUMENT.format('i')}\s*+\)|=\s*+{_ARGUMENT.format('e')})?[\s;]*+\Z",
    re.IGNORECASE,
)


def mentions_schema(sql: str) -> bool:
    """Whether a statement may read the schema."""
    folded = sql.lower()
    return "pragma" in folded or "sqlite_schema" in folded or "sqlite_master" in folded


def rewrite(sql: str) -> str:
    """Rewrite a client's statement so that it reads only the visible part of the schema."""
    if not mentions_schema(sql):
        return sql
    if (pragma := _PRAGMA.match(sql)) is not None:
        return _rewrite_pragma(pragma)
    return _TOKEN.sub(_rewrite_token, sql)


def restore_names(text: str) -> str:
    """Put the names of the original statement back into a message of SQLite."""
    return re.sub(rf"{PREFIX}(table|index)_", r"pragma_\1_", text).replace(PREFIX, "sqlite_")


def _rewrite_token(token: re.Match[str]) -> str:
    name = next((group for group in token.groups() if group is not None), None)
    if name is None or _follows_a_dot(token):
        return token.group()
    kind = name.lower().removeprefix("pragma_")
    return PREFIX + ("schema" if kind.startswith("sqlite_") else kind)


def _follows_a_dot(token: re.Match[str]) -> bool:
    """Whether a dot comes before the token, so that it names a column, or a table of another database."""
    sql, at = token.string, token.start()
    while at and sql[at - 1].isspace():
        at -= 1
    return at > 0 and sql[at - 1] == "."


def _rewrite_pragma(pragma: re.Match[str]) -> str:
    name = pragma["name"].lower()
    columns = ", ".join(f'"{column}"' for column in COLUMNS[name])
    given = [(kind, pragma[f"{at}{kind}"]) for at in "ie" for kind in "abcde" if pragma[f"{at}{kind}"] is not None]
    sql = f"SELECT {columns} FROM {PREFIX}{name}"
    if not given:
        return sql if name == "table_list" else f"{sql} WHERE 0"
    ((kind, argument),) = given
    doubled = {"a": "'", "b": '"'}.get(kind)
    plain = argument.replace(doubled * 2, doubled) if doubled else argument
    text = "'" + plain.replace("'", "''") + "'"
    return f"{sql} WHERE name = {text} COLLATE NOCASE" if name == "table_list" else f"{sql}({text})"


@dataclass(kw_only=True)
class Catalogue:
    """What the client of one connection may see, as of the last `load`.

    rows: for each table of COLUMNS, its rows by folded table name, and all of them under None.
    """

    rows: dict[str, dict[bytes | None, list[Row]]] = field(default_factory=dict)

    def register(self, connection: apsw.Connection) -> None:
        """Register the virtual tables that rewritten statements read."""
        for name in COLUMNS:
            module: Any = _Module(self, name)
            connection.create_module(f"{PREFIX}{name}", module, use_bestindex_object=False, eponymous=True,
                                     eponymous_only=True, read_only=True)  # fmt: skip

    def load(
        self,
        ask: Callable[[str], list[Row]],
        tables: Mapping[str, str],
        *,
        hides: Callable[[str], bool],
        mentions_hidden: Callable[[str], bool],
    ) -> None:
        """Load the visible part of the schema.

        ask: runs a statement and returns its rows.
        tables: the readable tables and views, each with its quoted name.
        hides: whether the name of an index is hidden.
        mentions_hidden: whether a text may mention a hidden name.
        """
        rows: dict[str, dict[bytes | None, list[Row]]] = {name: {None: []} for name in COLUMNS}
        for kind, name, table, page, sql in ask("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema"):
            if kind in ("table", "view", "index") and table in tables and not (kind == "index" and hides(name)):
                shown = None if sql is not None and mentions_hidden(sql) else sql
                rows["schema"][None].append((kind, name, table, page, shown))
        rows["table_list"][None] = [row for row in ask("PRAGMA table_list") if row[0] == "main" and row[1] in tables]
        for table, quoted in tables.items():
            for name in OF_A_TABLE:
                found = ask(f"PRAGMA {name}({quoted})")
                if name == "index_list":
                    found = [row for row in found if not hides(row[1])]
                rows[name][table.encode().lower()] = [(*row, table) for row in found]
                rows[name][None] += rows[name][table.encode().lower()]
        self.rows = rows


class _Module:
    def __init__(self, catalogue: Catalogue, name: str) -> None:
        self.catalogue, self.name = catalogue, name

    def Connect(self, connection: object, module: str, database: str, table: str, *given: object) -> tuple[str, Any]:
        columns = ", ".join(f'"{column}"' for column in COLUMNS[self.name])
        argument = ', "arg" HIDDEN COLLATE NOCASE, "schema" HIDDEN' if self.name in OF_A_TABLE else ""
        return f"CREATE TABLE visible({columns}{argument})", _Table(self)


class _Table:
    def __init__(self, module: _Module) -> None:
        self._module = module

    def BestIndex(self, constraints: Sequence[tuple[int, int]], orders: object) -> Any:
        """Use the table's name as an index, if the statement gives one."""
        module = self._module
        argument = len(COLUMNS[module.name])
        used: list[Any] = [None] * len(constraints)
        if module.name in OF_A_TABLE:
            for number, (column, operator) in enumerate(constraints):
                if column == argument and operator == apsw.SQLITE_INDEX_CONSTRAINT_EQ:
                    used[number] = (0, True)
                    return used, 1, None, False, 20.0
        return used, 0, None, False, 1e6

    def Open(self) -> _Cursor:
        return _Cursor(self._module)

    def Disconnect(self) -> None:
        pass

    Destroy = Disconnect


class _Cursor:
    def __init__(self, module: _Module) -> None:
        self._module = module
        self._rows: list[Row] = []
        self._at = 0

    def Filter(self, number: int, name: object, arguments: Sequence[Any]) -> None:
        held = self._module.catalogue.rows.get(self._module.name, {})
        key = str(arguments[0]).encode().lower() if number else None
        self._rows, self._at = held.get(key, []), 0

    def Eof(self) -> bool:
        return self._at >= len(self._rows)

    def Rowid(self) -> int:
        return self._at

    def Column(self, number: int) -> Any:
        row = self._rows[self._at]
        if number < 0:
            return self._at
        # The hidden column `schema` of a pragma's table is always "main".
        return row[number] if number < len(row) else "main"

    def Next(self) -> None:
        self._at += 1

    def Close(self) -> None:
        pass
