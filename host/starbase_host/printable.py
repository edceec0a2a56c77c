"""Texts of strangers, for a log, a record or a terminal: what would do something there is written as its escape.

A name or an error that a source sends may hold a line break, which forges a line of the log, or an escape sequence,
which a terminal obeys; and what turns the direction of writing shows another text than there is.
"""

from __future__ import annotations

import logging
import re

# Control characters, the separators of lines, what turns the direction of writing, and halves of surrogate pairs.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# In a JSON text, whose own escapes hold the rest.
_ACTING_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
CUT = " … ({} characters more)"
INDENT = "    "


def printable(text: str, *, at_most: int | None = None, lines: bool = False) -> str:
    """A text with an escape such as `\\x1b` in the place of each character that acts, and cut.

    at_most: how many characters stay; how many more there were is added. lines: leave line breaks and tabs.
    """
    if at_most is not None and len(text) > at_most:
        text = text[:at_most] + CUT.format(len(text) - at_most)
    if lines:
        return _ACTING.sub(lambda found: found[0] if found[0] in "\n\t" else _escape(found), text)
    return _ACTING.sub(_escape, text)


def printable_json(text: str) -> str:
    """A JSON text that means the same and holds no character that acts."""
    return _ACTING_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return _SHORT.get(character) or (f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}")


class Lines(logging.Formatter):
    """A record is one line, and what follows it, a traceback's, is indented: no text in it passes for a record."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), lines=True).replace("\n", f"\n{INDENT}")
