"""Makes untrusted text safe for a log, a record or a terminal: control characters become escapes.

A name or an error message from a source can hold a line break, which forges a line of the log, or an escape sequence,
which a terminal obeys. Characters that change the direction of text make a terminal show something else.
"""

from __future__ import annotations

import logging
import re

# Control characters, line separators, characters that change the direction of text, and halves of surrogate pairs.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# For JSON text, which escapes the others itself.
_CONTROL_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
CUT = " … ({} characters more)"
INDENT = "    "


def printable(text: str, *, at_most: int | None = None, lines: bool = False) -> str:
    """Replace each control character in a text by an escape such as `\\x1b`, and shorten the text.

    at_most: keep this many characters, and append how many were cut; None keeps all.
    lines: keep line breaks and tabs.
    """
    if at_most is not None and len(text) > at_most:
        text = text[:at_most] + CUT.format(len(text) - at_most)
    if lines:
        return _CONTROL.sub(lambda found: found[0] if found[0] in "\n\t" else _escape(found), text)
    return _CONTROL.sub(_escape, text)


def printable_json(text: str) -> str:
    """Escape the control characters in a JSON text; its meaning stays the same."""
    return _CONTROL_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return _SHORT.get(character) or (f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}")


class OneLineFormatter(logging.Formatter):
    """Formats a record as one line, and indents the lines of a traceback: no text in it can pass for a record."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), lines=True).replace("\n", f"\n{INDENT}")
