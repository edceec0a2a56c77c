"""SQLite functions that the host replaces for clients by Python versions with limits.

The work of these functions grows with the product of two lengths, and SQLite cannot be interrupted inside a call: a
short statement could block a reader for hours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import apsw

from starbase_host import sandbox_rules as rules
from starbase_host.errors import InvalidRequest, TooLarge


def replace_trim(connection: apsw.Connection) -> None:
    """Replace trim(X, Y), ltrim(X, Y) and rtrim(X, Y) on this connection."""

    def limited(strip: Callable[[str, str], str]) -> Callable[..., Any]:
        def trim(value: Any, characters: Any) -> str | None:
            if value is None or characters is None:
                return None
            return strip(*_check_texts("trim", value, characters))

        return trim

    for name, strip in (("trim", str.strip), ("ltrim", str.lstrip), ("rtrim", str.rstrip)):
        connection.create_scalar_function(
            name, limited(strip), numargs=2, deterministic=True, flags=apsw.SQLITE_INNOCUOUS
        )


def replace_unhex(connection: apsw.Connection) -> None:
    """Replace unhex(X, Y) on this connection."""

    def unhex(*arguments: Any) -> Any:
        value, ignored = arguments
        if value is None or ignored is None:
            return None
        text, between = _check_texts("unhex", value, ignored)
        # SQLite stops reading at a NUL.
        text, between = text.partition("\0")[0], between.translate(_HEX_DIGITS)
        others = f"[{re.escape(between)}]*+" if between else ""
        if not re.fullmatch(f"{others}(?:[0-9A-Fa-f]{{2}}{others})*+", text):
            return None
        return bytes.fromhex(text.translate(dict.fromkeys(map(ord, between))))

    connection.create_scalar_function("unhex", unhex, numargs=2, deterministic=True, flags=apsw.SQLITE_INNOCUOUS)


_HEX_DIGITS = dict.fromkeys(map(ord, "0123456789ABCDEFabcdef"))


def _check_texts(name: str, value: Any, characters: Any) -> tuple[str, str]:
    """Return both arguments. Raises InvalidRequest when one is not text, TooLarge when one is too long."""
    if not isinstance(value, str) or not isinstance(characters, str):
        raise InvalidRequest(f"{name}(X, Y) takes text; write CAST(X AS TEXT)")
    if len(value) > rules.TRIM_CHARACTERS or len(characters) > rules.TRIM_SET_CHARACTERS:
        raise TooLarge(
            f"{name}(X, Y) takes at most {rules.TRIM_CHARACTERS:,} and {rules.TRIM_SET_CHARACTERS} characters"
        )
    return value, characters
