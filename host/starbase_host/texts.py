"""What texts from outside may hold: `${NAME}`, a reference to an environment variable, and halves of surrogate pairs.

Must not know where a text comes from, nor what an error about it says.
"""

from __future__ import annotations

import re

# Its group is NAME.
ENV_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# A `${` that does not begin an ENV_REFERENCE.
MALFORMED_REFERENCE = re.compile(rf"(?!{ENV_REFERENCE.pattern})\$\{{")
_SURROGATE = re.compile("[\ud800-\udfff]")


def has_surrogate(text: str) -> bool:
    """Whether a text holds half of a surrogate pair: it has no UTF-8, so SQLite cannot store it."""
    return not text.isascii() and _SURROGATE.search(text) is not None
