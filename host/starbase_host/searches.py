"""How long the search texts of a statement can be, from its program as EXPLAIN shows it.

FTS5 parses a search text in time that grows with the square of its terms, and ranks a row by it in time that grows the
same way. SQLite cannot be interrupted in either.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# How FTS5 calls the constraints that it parses, in P4 of VFilter: MATCH, LIKE, GLOB and the rank function.
_SEARCHES = re.compile(r"[MLGr]")
_NUMBERS = frozenset(("Int64", "Integer", "Null", "Real"))
# These write one register, and go on to the next step.
_STRAIGHT = _NUMBERS | {"Blob", "Concat", "Copy", "Function", "PureFunc", "SCopy", "String8", "Variable"}
_OTHERS = """
    Add Affinity AggFinal AggInverse AggStep AggStep1 AggValue BeginSubrtn Cast Close CollSeq Column Compare
    DeferredSeek Divide Explain Halt IdxInsert IdxRowid Insert MakeRecord Move Multiply Noop NullRow OpenAutoindex
    OpenDup OpenEphemeral OpenPseudo OpenRead OpenWrite Param Permutation RealAffinity ResultRow RowData Rowid Sequence
    SorterData SorterInsert SorterOpen Subtract TableLock Transaction VBegin VColumn VOpen VUpdate
"""
# These never jump to P2; a step that is not among them is taken for one that may.
_STAYS = _STRAIGHT | frozenset(_OTHERS.split())
_WITHOUT = """
    Explain Goto Halt Init Next Noop Once OpenEphemeral OpenRead OpenWrite Prev ResultRow Rewind SorterNext SorterOpen
    SorterSort TableLock Transaction VBegin VFilter VNext VOpen
"""
# These write no register, though one of their numbers may look like it.
_NO_REGISTER = frozenset(_WITHOUT.split())
# Their result is no longer than their first argument.
_NO_LONGER = frozenset(("lower", "ltrim", "rtrim", "substr", "substring", "trim", "upper"))
_NUMBER_BYTES = 32
# A search text that takes more than this to follow has an unknown size.
MOST_LOOKUPS, MOST_DEPTH, MOST_STEPS_BACK, MOST_WRITERS = 2000, 50, 100, 20

Step = tuple[Any, ...]


def steps(rows: Iterator[Step]) -> list[Step]:
    """Read the rows of EXPLAIN, (address, opcode, p1, p2, p3, p4, …). One that cannot be decoded has the opcode ""."""
    found: list[Step] = []
    while True:
        try:
            found.append(next(rows))
        except StopIteration:
            return found
        except UnicodeDecodeError:
            # EXPLAIN shows a BLOB literal of the statement as text.
            found.append((len(found), "", 0, 0, 0, None))


def search_texts(found: Sequence[Step], parameter: Callable[[int], Any]) -> list[int | None]:
    """Return how many bytes each search text may have; None if the steps do not bound it, because rows make it.

    found: what `steps` returns.
    parameter: returns the value of a parameter by its number, from 1.
    """
    # The program of each trigger follows with its own addresses and registers.
    starts = [at for at, step in enumerate(found) if step[0] == 0 and step[1]] + [len(found)]
    return [
        size
        for start, end in itertools.pairwise(starts)
        for size in _Program(found[start:end], parameter).search_texts()
    ]


class _Program:
    """One program; the work on a long one is bounded, and beyond that a size is unknown."""

    def __init__(self, found: Sequence[Step], parameter: Callable[[int], Any]) -> None:
        self._steps = found
        self._parameter = parameter
        self._left = MOST_LOOKUPS
        self._targets = {target for step in found if step[1] not in _STAYS for target in _targets(step)}
        # The steps that write each register, and the registers that a step of another kind may write.
        self._writers: dict[int, list[int]] = {}
        self._unknown: set[int] = set()
        self._unreadable = False
        for at, step in enumerate(found):
            if step[1] in _STRAIGHT:
                for register in _written(step):
                    self._writers.setdefault(register, []).append(at)
            elif step[1] == "":
                self._unreadable = True
            elif step[1] not in _NO_REGISTER:
                self._unknown.update(step[2:5], _written(step))

    def search_texts(self) -> Iterator[int | None]:
        for at, (_, opcode, _, _, first, kinds, *_) in enumerate(self._steps):
            if opcode == "VFilter" and kinds and _SEARCHES.search(kinds):
                # After the plan and the number of arguments come the arguments; digits are the numbers of columns.
                for argument, kind in enumerate(re.sub(r"\d", "", kinds)):
                    if _SEARCHES.match(kind):
                        yield self._size(first + 2 + argument, at, 0)

    def _size(self, register: int, before: int, depth: int) -> int | None:
        """Return how many bytes the register may hold at a step: what the steps right before it wrote, or any step."""
        self._left -= 1
        if self._left < 0 or depth > MOST_DEPTH:
            return None
        for at in range(before - 1, max(-1, before - MOST_STEPS_BACK), -1):
            if at + 1 in self._targets or self._steps[at][1] not in _STRAIGHT:
                break
            if register in _written(self._steps[at]):
                return self._result(at, register, depth + 1)
        writers = self._writers.get(register, [])
        if self._unreadable or register in self._unknown or not 0 < len(writers) <= MOST_WRITERS:
            return None
        sizes = [self._result(at, register, depth + 1) for at in writers]
        known = [size for size in sizes if size is not None]
        return max(known) if len(known) == len(sizes) else None

    def _result(self, at: int, register: int, depth: int) -> int | None:
        _, opcode, p1, p2, _p3, p4, *_ = self._steps[at]
        if opcode in _NUMBERS:
            return _NUMBER_BYTES
        if opcode == "String8":
            return len((p4 or "").encode())
        if opcode == "Blob":
            return int(p1)
        if opcode == "Variable":
            return _bytes(self._parameter(p1))
        if opcode in ("Copy", "SCopy"):
            return self._size(p1 + register - p2, at, depth)
        if opcode == "Concat":
            one, two = self._size(p1, at, depth), self._size(p2, at, depth)
            return None if one is None or two is None else one + two
        return self._function(str(p4).partition("(")[0], p2, at, depth)

    def _function(self, name: str, first: int, at: int, depth: int) -> int | None:
        if name in _NO_LONGER:
            return self._size(first, at, depth)
        if name == "replace":
            text, by = self._size(first, at, depth), self._size(first + 2, at, depth)
            return None if text is None or by is None else text * max(1, by)
        return None


def _targets(step: Step) -> tuple[int, ...]:
    return tuple(step[2:5]) if step[1] == "Jump" else (step[3], step[4]) if step[1] == "InitCoroutine" else (step[3],)


def _written(step: Step) -> range:
    _, opcode, _, p2, p3, *_ = step
    if opcode in ("Concat", "Function", "PureFunc"):
        return range(p3, p3 + 1)
    return range(p2, (p2 + p3 if opcode in ("Copy", "Move") else max(p2, p3) if opcode == "Null" else p2) + 1)


def _bytes(value: Any) -> int:
    return len(value.encode()) if isinstance(value, str) else len(value) if isinstance(value, bytes) else _NUMBER_BYTES
