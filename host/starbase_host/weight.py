"""How many long values a statement can hold at once, read from its program, as EXPLAIN shows it.

Each step that makes a value has a register of its own, and what is in it stays until the step comes again: a bound on
one value bounds the memory of a statement only when it is divided by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VALUES = """
    AggFinal AggInverse AggStep AggStep1 AggValue Blob Cast Column Concat Function MakeRecord Param PureFunc RowCell
    RowData SorterData String String8 VColumn Variable
"""
# SCopy makes none, but brings one value to several arguments of a function, which may put each into its answer.
_MAKES_ONE = frozenset((*_VALUES.split(), "SCopy"))
# They write what they are given into JSON, where one byte of a text may become six; SQLite measures only the result.
_ESCAPING = tuple(
    f"{name}("
    for name in (
        "json_array", "json_array_insert", "json_group_array", "json_group_object", "json_insert", "json_object",
        "json_quote", "json_replace", "json_set",
    )
)  # fmt: skip
_ESCAPED = 7


def weight(program: Iterator[tuple[Any, ...]]) -> int:
    """The number of values; at least 1. program: rows of EXPLAIN, (address, opcode, p1, p2, p3, p4, …)."""
    found, times = 0, 1
    while True:
        try:
            _, opcode, _, _, p3, p4, *_ = next(program)
        except StopIteration:
            return max(1, found) * times
        except UnicodeDecodeError:
            # It shows a BLOB of the statement's own as text.
            opcode, p3, p4 = "Blob", 0, None
        if opcode in _MAKES_ONE:
            found += 1
        elif opcode == "Copy":
            found += 1 + p3
        if isinstance(p4, str) and p4.startswith(_ESCAPING):
            times = _ESCAPED
