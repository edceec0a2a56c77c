"""The equations in the conditions of a SELECT: SQLite puts `5` in the place of each other `x` beside `x = 5`.

Reads each token once. An equation may be found where SQLite sees none, but not the other way round. Must not know what
a column costs, nor the schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

_ENDS = frozenset(
    (
        *("and", "or", "where", "on", "having", "group", "order", "limit", "join", "window", "set", "when", "then"),
        *("else", "returning"),
    )
)
_BEGINS = frozenset(("and", "or", "where", "on", "having", "when", "then", "else"))


class Counted(Protocol):
    """The tokens that were read so far.

    names: the columns.
    plain: how many other tokens.
    equations: those that were found.
    """

    names: list[str]
    plain: int
    equations: list[Equation]


class Equation(NamedTuple):
    """A term with `=`, or IN with a single value.

    plain: how many tokens it has that are neither names nor the dots in them.
    first, last: its names, as a range of all names of its clause.
    """

    plain: int
    first: int
    last: int


@dataclass(slots=True)
class _Term:
    """What has been read between two brackets, or two ANDs in them."""

    plain: int
    first: int
    equal: bool = False
    dots: int = 0
    all_dots: int = 0
    between: int = 0
    commas: bool = False
    is_case: bool = False
    is_list: bool = False


class Equations:
    """Finds the equations of one clause while its tokens come."""

    def __init__(self, part: Counted, *, counts: bool) -> None:
        self._part = part
        self._counts = counts
        self._terms = [self._begin()]
        self._before = ""

    def _begin(self) -> _Term:
        return _Term(self._part.plain, len(self._part.names))

    def read(self, kind: str, word: str) -> None:
        """Take one token, before it is counted."""
        before, self._before = self._before, word if kind in ("mark", "word") else ""
        if kind == "mark":
            self._read_mark(word, before)
        elif kind != "word":
            return
        elif word == "case":
            self._terms.append(self._begin())
            self._terms[-1].is_case = True
        elif word == "end" and self._terms[-1].is_case:
            self._close()
        elif word == "between":
            self._terms[-1].between += 1
        elif word == "and" and self._terms[-1].between:
            self._terms[-1].between -= 1
        elif word in _ENDS:
            self._end_term()
            # These are counted next, and no part of what they begin.
            self._terms[-1].plain += word in _BEGINS
            if word in ("where", "set"):
                self._counts = word == "where"

    def _read_mark(self, word: str, before: str) -> None:
        if word == "(":
            self._terms.append(self._begin())
            self._terms[-1].plain += 1
            self._terms[-1].is_list = before == "in"
        elif word == ")":
            while len(self._terms) > 1 and self._terms[-1].is_case:
                self._close()
            if len(self._terms) > 1:
                self._close()
        elif word == ",":
            self._end_term()
            self._terms[-1].commas = True
        elif word == ".":
            self._terms[-1].dots += 1
        elif word == "=" and before not in ("<", ">", "!"):
            self._terms[-1].equal = True

    def _close(self) -> None:
        self._end_term()
        term = self._terms.pop()
        self._terms[-1].dots += term.all_dots
        if term.is_list and not term.commas:
            self._terms[-1].equal = True

    def _end_term(self) -> None:
        term, part = self._terms[-1], self._part
        if term.equal and self._counts:
            part.equations.append(Equation(part.plain - term.plain - term.dots, term.first, len(part.names)))
        term.all_dots += term.dots
        term.dots = 0
        term.plain, term.first, term.equal, term.between = part.plain, len(part.names), False, 0

    def end(self) -> None:
        """Take the end of the clause."""
        while len(self._terms) > 1:
            self._close()
        self._end_term()
