"""Texts that users write: which ones cannot be used, and how a table is named.

Must not know what a field means, nor any dialect.
"""

from __future__ import annotations

import re
import unicodedata

from starbase_host import ConfigError, has_surrogate


def is_pem(text: object) -> bool:
    """Whether a setting is the text of certificates or keys (PEM), and not the name of a file."""
    return isinstance(text, str) and text.lstrip().startswith("-----BEGIN ")


def text_problem(text: str, *, control: bool = False) -> str | None:
    """Why a string cannot be used at all; None if it can.

    NUL and half a surrogate pair are never allowed, other control characters only with `control`.
    """
    # MySQL writes a NUL at the end of the certificates that it makes.
    if "\0" in (text.rstrip("\0") if is_pem(text) else text):
        return "must not hold a NUL character"
    if has_surrogate(text):
        return "is not valid Unicode; it holds half of a surrogate pair"
    if not control and any(unicodedata.category(character) == "Cc" for character in text):
        return "must not hold control characters such as a line break; remove them"
    return None


def split_name(text: str, *, quotes: str = '"') -> tuple[str, ...]:
    """Split `table` or `schema.table` into its one or two names. Raises ConfigError with the fix.

    quotes: the characters that may quote a name, as one that contains a dot must be. Inside, the quote is doubled. An
        unquoted name is taken literally, with its case.
    """
    if (why := text_problem(text, control=True)) is not None:
        raise ConfigError("sourceTable", why)
    names: list[str] = []
    rest = "." + text
    while rest:
        name, rest = _first_name(rest[1:], quotes)
        names.append(name)
    if len(names) > 2:
        raise ConfigError(
            "sourceTable", 'has more than two names; write schema.table, and a name with a dot as "my.table"'
        )
    return tuple(names)


def _first_name(text: str, quotes: str) -> tuple[str, str]:
    """The first name, and what follows it: nothing, or a dot and the other names."""
    mark = text[:1]
    if mark and mark in quotes:
        quoted = re.match(rf"{mark}((?:[^{mark}]|{mark}{mark})*){mark}(?=\.|\Z)", text)
        if quoted is None:
            raise ConfigError(
                "sourceTable",
                'has a quote that does not end; write "schema"."table", and a quote inside a name twice',
            )
        name, rest = quoted[1].replace(mark * 2, mark), text[quoted.end() :]
    else:
        name, dot, tail = text.partition(".")
        rest = dot + tail
        if any(quote in name for quote in quotes):
            raise ConfigError(
                "sourceTable",
                'has a quote inside a name; write "schema"."table", and a quote inside a name twice',
            )
        if name != name.strip():
            raise ConfigError(
                "sourceTable", "has a space at the beginning or end of a name; remove it, or quote the name"
            )
    if not name:
        raise ConfigError("sourceTable", "must name a table: table or schema.table")
    return name, rest
