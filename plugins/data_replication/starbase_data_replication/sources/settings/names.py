"""Texts as people write them: which cannot be used, how a table is named.

Owns no field's meaning. Must not know any dialect.
"""

from __future__ import annotations

import re
import unicodedata

from starbase_host import ConfigError, has_surrogate


def is_pem(text: object) -> bool:
    """Whether a setting holds certificates themselves, and not the name of a file."""
    return isinstance(text, str) and text.lstrip().startswith("-----BEGIN ")


def text_problem(text: str, *, control: bool = False) -> str | None:
    """Why a string cannot be used at all, or None.

    NUL and lone surrogates never can; other control characters only where `control` allows them.
    """
    # MySQL writes one at the end of the certificates that it makes.
    if "\0" in (text.rstrip("\0") if is_pem(text) else text):
        return "must not hold a NUL character"
    if has_surrogate(text):
        return "is not valid Unicode; it holds half of a surrogate pair"
    if not control and any(unicodedata.category(character) == "Cc" for character in text):
        return "must not hold control characters such as a line break; remove them"
    return None


def split_name(text: str, *, quotes: str = '"') -> tuple[str, ...]:
    """`table` or `schema.table` as its one or two names; raises ConfigError with the mend.

    An unquoted name is taken verbatim, its case kept. A name with a dot stands in one of `quotes`; that quote
    inside it is doubled.
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
    """The first name, and what follows it: nothing, or a dot and the rest."""
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
