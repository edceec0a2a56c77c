"""Keys and tracking values as the texts that a position stores, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence

# A value as the replica stores it. NULL is not among them: no key and no floor is NULL.
Value = int | float | str | bytes

HEX = "hex"


def position_text(value: Value) -> str:
    """The text of a value. A text stands for itself unless it is JSON; bytes are `{"hex": …}`; all else is JSON.

    Raises TypeError for a value of another type.
    """
    if isinstance(value, bytes):
        return json.dumps({HEX: value.hex()})
    if isinstance(value, str):
        return json.dumps(value) if _is_json(value) else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise TypeError(f"a {type(value).__name__} is no value of a replica")


def position_value(text: str) -> Value:
    """The value of a text that `position_text` has made."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return bytes.fromhex(value[HEX]) if isinstance(value, dict) else value


def key_texts(key: Sequence[Value]) -> tuple[str, ...]:
    """The texts of a key's values."""
    return tuple(map(position_text, key))


def key_values(texts: Sequence[str]) -> tuple[Value, ...]:
    """The values of a key's texts."""
    return tuple(map(position_value, texts))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
