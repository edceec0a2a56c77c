"""Taking secrets out of a message: where they stand, however they are written there, and however they are cut.

Owns what counts as a secret's form and as a message's own word. Must not know where secrets come from.

A server, a driver or a library may quote a secret anywhere, encoded, escaped, or cut short. So each part of eight
characters is searched for, of every secret that is not like a word. A short one, or one that is a word of messages,
cannot be distinguished from them, and is masked where a secret can stand: else no error could be read where it is
`password`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from urllib.parse import quote, quote_plus

MASK = "***"
LONGEST = 64 * 1024
# Of a secret that is cut, so many characters are found wherever they stand; fewer tell little of it.
PART = 8
# Words of messages, of the servers, the drivers and this project, that may be somebody's password.
WORDS = " ".join(files(__package__).joinpath("wording.txt").read_text(encoding="utf-8").split())
# What stands before the value of a setting.
NAMES = ("password", "passwd", "pwd", "secret", "token")
BEFORE = "|".join(f"(?<={name}=)" for name in NAMES)
# A colon stands before our own words as well, but they go on. MySQL's "using password: YES" says whether there was one.
BEFORE_COLON = "|".join(f"(?<!using {name}: )(?<={name}: )" for name in NAMES)
QUOTES = "'\"`"


def scrub(message: str, hidden: Iterable[str], mask: str = MASK) -> str:
    """A message with every secret in it, and every part of one of at least eight characters, as `mask`.

    A secret that is shorter, or a word of messages, is masked only in quotes, as the value of a setting, before the @
    of a URL, and, where it is more than letters, by itself between other characters. Of a message only the beginning
    is kept that a log or record would show anyway: a source may send one of many MiB.
    """
    if len(message) > LONGEST:
        message = message[:LONGEST] + " …"
    marked = bytearray(len(message))
    parts: set[str] = set()
    for form in {form for secret in hidden for form in _forms(secret)}:
        if len(form) >= PART and not _is_wording(form):
            _mark_all(marked, message, form)
            parts.update(form[at : at + PART] for at in range(len(form) - PART + 1))
        elif form:
            _mark_alone(marked, message, form)
    parts = {part for part in parts if not _is_wording(part)}
    for at in range(len(message) - PART + 1) if parts else ():
        if message[at : at + PART] in parts:
            marked[at : at + PART] = b"\1" * PART
    return _masked(message, marked, mask)


def _masked(message: str, marked: bytearray, mask: str) -> str:
    pieces, at = [], 0
    for found in re.finditer(rb"\x01+", marked):
        pieces += [message[at : found.start()], mask]
        at = found.end()
    return "".join((*pieces, message[at:]))


def _mark_all(marked: bytearray, message: str, form: str) -> None:
    at = message.find(form)
    while at >= 0:
        marked[at : at + len(form)] = b"\1" * len(form)
        at = message.find(form, at + 1)


def _mark_alone(marked: bytearray, message: str, form: str) -> None:
    """Where it stands as a secret: see `scrub`."""
    if form not in message:
        return
    text = f"(?P<it>{re.escape(form)})"
    # What ends a value that is not in quotes.
    end = r"(?![^\s'\"`&,;)}\]])"
    # In a URL, the user stands before it.
    places = [rf"(?P<quote>[{QUOTES}]){text}(?P=quote)", rf"(?i:{BEFORE}){text}{end}", rf"://[^\s/@:]*:{text}@"]
    places.append(rf"(?i:{BEFORE_COLON}){text}(?=$|[\n,;)}}\]])")
    if not form.isalpha() and len(form) > 2 and re.search(r"\w", form):
        # Not inside a word or a number: those end where letters and digits do.
        places.append(rf"(?<![^\W_]){text}(?![^\W_])")
    for place in places:
        for found in re.finditer(place, message):
            marked[found.start("it") : found.end("it")] = b"\1" * len(form)


def _is_wording(text: str) -> bool:
    """Whether a text is nothing but words of messages, or parts of them, with spaces between."""
    return text.replace(" ", "").isalpha() and all(part in WORDS for part in text.lower().split(" "))


def _forms(secret: str) -> Iterator[str]:
    """A secret as it may be written: as it is, for a URL, in JSON, in Python's and SQL's quotes, in base64, in hex."""
    yield secret
    for encoded in (quote(secret, safe="", errors="replace"), quote(secret, errors="replace")):
        yield encoded
        yield re.sub("%[0-9A-F]{2}", lambda at: at[0].lower(), encoded)
    yield quote_plus(secret, errors="replace")
    inner = json.dumps(secret)[1:-1]
    yield inner
    yield json.dumps(inner)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield ascii(secret)[1:-1]
    yield secret.replace("'", "''")
    yield secret.replace("\\", "\\\\")
    raw = secret.encode(errors="replace")
    yield raw.hex()
    yield base64.b64encode(raw).decode()
    for offset in range(3) if len(raw) >= PART else ():
        # Of three alignments, the characters whose bits are the secret's alone: its neighbours change the others.
        first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
        inner = base64.b64encode(b"\0" * offset + raw).decode()[first:last]
        if len(inner) >= PART:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")
