"""How many long values a statement can hold at once, counted in its program as EXPLAIN shows it.

Each step that makes a value has its own register, which keeps the value until the step runs again. So a limit on
one value bounds the memory of a statement only when it is divided by the number of these steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VALUES = """
    AggFinal AggInverse AggStep AggStep1 AggValue Blob Cast Column Concat Function MakeRecord Param PureFunc RowCell
    RowData SorterData String String8 VColumn Variable
"""
# SCopy does not make a value, but passes one value as several arguments of a function, which may return them all.
_MAKES_ONE = frozenset((*_VALUES.split(), "SCopy"))
# These write their arguments as JSON, where one byte of text can become six; SQLite measures only the result.
_ESCAPING = tuple(
    f"{name}("
    for name in (
        "json_array", "json_array_insert", "json_group_array", "json_group_object", "json_insert", "json_object",
        "json_quote", "json_replace", "json_set",
    )
)  # fmt: skip
_ESCAPED = 7


def weight(program: Iterator[tuple[Any, ...]]) -> int:
    """Count the values; at least 1.

    program: rows of EXPLAIN, (address, opcode, p1, p2, p3, p4, …).
    """
    found, times = 0, 1
    while True:
        try:
            _, opcode, _, _, p3, p4, *_ = next(program)
        except StopIteration:
            return max(1, found) * times
        except UnicodeDecodeError:
            # EXPLAIN shows a BLOB literal of the statement as text.
            opcode, p3, p4 = "Blob", 0, None
        if opcode in _MAKES_ONE:
            found += 1
        elif opcode == "Copy":
            found += 1 + p3
        if isinstance(p4, str) and p4.startswith(_ESCAPING):
            times = _ESCAPED
