"""A password with every odd character, and the search for it in every form in which it may be written."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

# No two neighbouring parts of it are found in ordinary text, so that a part of it is a leak too.
PASSWORD = """Zq'7"x%41@k/é\\ü $v:?#&=+w{j}`;Zq"""
# A piece that no escaping changes, long enough to be no chance.
PIECES = ("Zq'7", "x%41@k", "w{j}`;Zq")


def forms(secret: str) -> set[bytes]:
    """A secret in plain, for URLs, in JSON, in Python's and SQL's quotes, in base64 at any offset."""
    texts = {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        quote(secret, safe="").replace("%27", "'"),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(secret))[3:-3],
        repr(secret)[1:-1],
        ascii(secret)[1:-1],
        secret.replace("'", "''"),
        secret.replace("\\", "\\\\"),
    }
    found = {text.encode() for text in texts} | {secret.encode("latin-1", "replace"), secret.encode("utf-16-le")}
    raw = secret.encode()
    for offset in range(3):
        # What stands before it changes the first characters, what follows the last ones.
        middle = base64.b64encode(b"\0" * offset + raw)[4:-4]
        found |= {middle, middle.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def leaks(text: str | bytes, secret: str = PASSWORD) -> list[bytes]:
    """The forms in which a text holds the secret, or a piece of it."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    pieces = {piece.encode() for piece in PIECES if piece in secret}
    return sorted(form for form in forms(secret) | pieces if form in data)


def files_with(directory: Path, secret: str = PASSWORD, *, but: tuple[str, ...] = ()) -> Iterator[tuple[Path, bytes]]:
    """The files below a directory that hold the secret, and how; those with a name in `but` are left out."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name not in but:
            yield from ((path, form) for form in leaks(path.read_bytes(), secret))
