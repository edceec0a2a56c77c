"""How long the search texts of a statement can be, and how many terms they can have, from its program in EXPLAIN.

FTS5 parses a search text in time that grows with the square of its terms, and ranks a row by it in time that grows the
same way. SQLite cannot be interrupted in either.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

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
# Their result is at most as long as their first argument.
_NO_LONGER = frozenset(("lower", "ltrim", "rtrim", "substr", "substring", "trim", "upper"))
# Nothing else begins or ends a term, unless a table's own options say so; see `full_text.CHARACTER_TERMS`.
_TERM = re.compile(rb"[0-9A-Za-z_\x1a\x80-\xff]+")
_BM25 = re.compile(r"\s*bm25\s*\(", re.IGNORECASE)
# A search text that takes more than this to follow has an unknown size.
MOST_LOOKUPS, MOST_DEPTH, MOST_STEPS_BACK, MOST_WRITERS = 2000, 50, 100, 20

Step = tuple[Any, ...]


class Size(NamedTuple):
    """At most how much a search text has.

    bytes: its length in UTF-8.
    terms: the words or empty phrases in it, whichever are more. One may have been cut in two, so that they count twice.
    """

    bytes: int
    terms: int

    def __add__(self, other: Size) -> Size:  # type: ignore[override]
        return Size(self.bytes + other.bytes, self.terms + other.terms)


class Search(NamedTuple):
    """An argument of a search; its size is None if the steps do not bound it, because rows make it.

    is_rank: whether it does not say what to find, but names a function that ranks.
    ranks_otherwise: whether that may be another one than bm25.
    """

    size: Size | None
    is_rank: bool
    ranks_otherwise: bool


_NUMBER = Size(32, 4)


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


def is_bm25(rank: Any) -> bool:
    """Whether a rank function, as FTS5 takes it from a search or from the table's options, is bm25."""
    return isinstance(rank, str) and _BM25.match(rank) is not None


def searches(found: Sequence[Step], parameter: Callable[[int], Any]) -> list[Search]:
    """Return what is known about each argument of each search.

    found: what `steps` returns.
    parameter: returns the value of a parameter by its number, from 1.
    """
    # The program of each trigger follows with its own addresses and registers.
    starts = [at for at, step in enumerate(found) if step[0] == 0 and step[1]] + [len(found)]
    return [
        search
        for start, end in itertools.pairwise(starts)
        for search in _Program(found[start:end], parameter).searches()
    ]


class _Program:
    """One program; the work on a long one is bounded, and beyond that a size is unknown."""

    def __init__(self, found: Sequence[Step], parameter: Callable[[int], Any]) -> None:
        self._steps = found
        self._parameter = parameter
        self._left = MOST_LOOKUPS
        # By the address of a literal, and the negative number of a parameter: pieces may repeat one many times.
        self._measured: dict[int, Size] = {}
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

    def searches(self) -> Iterator[Search]:
        for at, (_, opcode, _, _, first, kinds, *_) in enumerate(self._steps):
            if opcode == "VFilter" and kinds and _SEARCHES.search(kinds):
                # After the plan and the number of arguments come the arguments; digits are the numbers of columns.
                for argument, kind in enumerate(re.sub(r"\d", "", kinds)):
                    if _SEARCHES.match(kind):
                        register = first + 2 + argument
                        is_rank = kind == "r"
                        yield Search(self._size(register, at, 0), is_rank, is_rank and not self._is_bm25(register, at))

    def _is_bm25(self, register: int, before: int) -> bool:
        return (writers := self._writers_of(register, before)) is not None and all(
            is_bm25(step[5] if step[1] == "String8" else self._parameter(step[2]) if step[1] == "Variable" else None)
            for step in (self._steps[at] for at in writers)
        )

    def _writers_of(self, register: int, before: int) -> list[int] | None:
        """Return the steps of which one wrote what a register holds at a step; None if they are not known."""
        for at in range(before - 1, max(-1, before - MOST_STEPS_BACK), -1):
            if at + 1 in self._targets or self._steps[at][1] not in _STRAIGHT:
                break
            if register in _written(self._steps[at]):
                return [at]
        writers = self._writers.get(register, [])
        if self._unreadable or register in self._unknown or not 0 < len(writers) <= MOST_WRITERS:
            return None
        return writers

    def _size(self, register: int, before: int, depth: int) -> Size | None:
        """Return what the register may hold at a step: what the steps right before it wrote, or any step."""
        self._left -= 1
        if self._left < 0 or depth > MOST_DEPTH:
            return None
        if (writers := self._writers_of(register, before)) is None:
            return None
        sizes = [self._result(at, register, depth + 1) for at in writers]
        known = [size for size in sizes if size is not None]
        if len(known) != len(sizes):
            return None
        return Size(max(size.bytes for size in known), max(size.terms for size in known))

    def _result(self, at: int, register: int, depth: int) -> Size | None:
        _, opcode, p1, p2, _p3, p4, *_ = self._steps[at]
        if opcode in _NUMBERS:
            return _NUMBER
        if opcode == "String8":
            return self._measure(at, p4 or "")
        if opcode == "Blob":
            # P4 shows it up to its first zero byte.
            return Size(int(p1), (int(p1) + 1) // 2)
        if opcode == "Variable":
            return self._measure(-p1, self._parameter(p1))
        if opcode in ("Copy", "SCopy"):
            return self._size(p1 + register - p2, at, depth)
        if opcode == "Concat":
            one, two = self._size(p1, at, depth), self._size(p2, at, depth)
            return None if one is None or two is None else one + two
        return self._function(str(p4).partition("(")[0], p2, at, depth)

    def _measure(self, key: int, value: Any) -> Size:
        if key not in self._measured:
            self._measured[key] = _measured(value)
        return self._measured[key]

    def _function(self, name: str, first: int, at: int, depth: int) -> Size | None:
        if name in _NO_LONGER:
            return self._size(first, at, depth)
        if name == "replace":
            text, by = self._size(first, at, depth), self._size(first + 2, at, depth)
            if text is None or by is None:
                return None
            length = text.bytes * max(1, by.bytes)
            return Size(length, (length + 1) // 2)
        return None


def _targets(step: Step) -> tuple[int, ...]:
    return tuple(step[2:5]) if step[1] == "Jump" else (step[3], step[4]) if step[1] == "InitCoroutine" else (step[3],)


def _written(step: Step) -> range:
    _, opcode, _, p2, p3, *_ = step
    if opcode in ("Concat", "Function", "PureFunc"):
        return range(p3, p3 + 1)
    return range(p2, (p2 + p3 if opcode in ("Copy", "Move") else max(p2, p3) if opcode == "Null" else p2) + 1)


def _measured(value: Any) -> Size:
    if not isinstance(value, (str, bytes)):
        return _NUMBER
    text = value.encode() if isinstance(value, str) else value
    return Size(len(text), max(len(_TERM.findall(text)), (text.count(b'"') + 1) // 2))
