"""Removes secrets from a message, in any encoding and even if they are cut short.

Owns the forms in which a secret may be written, and the words of messages. Must not know where secrets come from.

A server, a driver or a library may quote a secret anywhere: encoded, escaped or cut. So every part of eight characters
of a secret is searched for. A short secret, or one that is a word of messages such as `password`, is masked only in
places where a secret can be. Otherwise no error could be read.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from urllib.parse import quote, quote_plus

MASK = "***"
# In characters: more than a log or a record shows of one message.
LONGEST = 64 * 1024
# So many characters of a secret are found wherever they are. Fewer would match by chance, and reveal little.
PART = 8
# Words in messages of the servers, the drivers and this project, which may also be a password.
WORDS = " ".join(files(__package__).joinpath("wording.txt").read_text(encoding="utf-8").split())
# Names of settings; a secret may follow one.
NAMES = ("password", "passwd", "pwd", "secret", "token")
BEFORE = "|".join(f"(?<={name}=)" for name in NAMES)
# A colon comes before words of messages too, but then the line goes on. MySQL's "using password: YES" only says
# whether there was one.
BEFORE_COLON = "|".join(f"(?<!using {name}: )(?<={name}: )" for name in NAMES)
QUOTES = "'\"`"


def scrub(message: str, hidden: Iterable[str], mask: str = MASK) -> str:
    """Replace every secret in a message, and every part of at least eight characters of one, by `mask`.

    hidden: the secrets.

    A secret that is shorter, or a word of messages, is masked only in quotes, as the value of a setting, before the @
    of a URL and, if it is more than letters, where it is not inside a word. A long message is cut, because a source may
    send one of many MiB.
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
    """Mark a short secret, or one that is a word, in the places that `scrub` lists."""
    if form not in message:
        return
    text = f"(?P<it>{re.escape(form)})"
    # The end of a value that is not in quotes.
    end = r"(?![^\s'\"`&,;)}\]])"
    # In a URL, it follows the user.
    places = [rf"(?P<quote>[{QUOTES}]){text}(?P=quote)", rf"(?i:{BEFORE}){text}{end}", rf"://[^\s/@:]*:{text}@"]
    places.append(rf"(?i:{BEFORE_COLON}){text}(?=$|[\n,;)}}\]])")
    if not form.isalpha() and len(form) > 2 and re.search(r"\w", form):
        # Not inside a word or a number.
        places.append(rf"(?<![^\W_]){text}(?![^\W_])")
    for place in places:
        for found in re.finditer(place, message):
            marked[found.start("it") : found.end("it")] = b"\1" * len(form)


def _is_wording(text: str) -> bool:
    """Whether a text consists only of words of messages, or parts of them."""
    return text.replace(" ", "").isalpha() and all(part in WORDS for part in text.lower().split(" "))


def _forms(secret: str) -> Iterator[str]:
    """A secret as it may be written: plain, for a URL, in JSON, in Python's or SQL's quotes, in base64 or hex."""
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
        # For each alignment, only the characters that no neighbour of the secret changes.
        first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
        inner = base64.b64encode(b"\0" * offset + raw).decode()[first:last]
        if len(inner) >= PART:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")
