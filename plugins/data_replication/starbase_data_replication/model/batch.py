"""Rows on their way from a source to the replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple, overload

Row = Sequence[Any]


class Rows(Sequence[Row]):
    """Rows of one width, held as one list of values, which may be changed in place.

    SQLite takes values, not rows: making a tuple for each of a million rows, and taking it apart, costs a fifth of a
    first load.
    """

    __slots__ = ("values", "width")

    def __init__(self, values: list[Any], width: int) -> None:
        self.values = values
        self.width = width

    @classmethod
    def of(cls, rows: Sequence[Row], width: int) -> Rows:
        """These rows as `Rows`; the same object if they are already."""
        return rows if isinstance(rows, Rows) else Rows(list(chain.from_iterable(rows)), width)

    def column(self, index: int) -> list[Any]:
        return self.values[index :: self.width]

    def replace_column(self, index: int, values: Sequence[Any]) -> None:
        self.values[index :: self.width] = values

    def __len__(self) -> int:
        return len(self.values) // self.width

    def __iter__(self) -> Iterator[Row]:
        return zip(*[iter(self.values)] * self.width, strict=True)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return list(self)[index]
        at = range(len(self))[index] * self.width
        return tuple(self.values[at : at + self.width])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def rows_in_words(count: int) -> str:
    """A number of rows for a message: `1 row`, `2 rows`."""
    return "1 row" if count == 1 else f"{count} rows"


class UnrepresentableValues(NamedTuple):
    """Values of a column that SQLite cannot hold as they are.

    Attributes:
        column: the source's name of the column.
        policy: what they are, and what became of them, in words.
    """

    column: str
    policy: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows on their way. Values are already what SQLite stores; integers may be their digits.

    Attributes:
        rows: any sequence of rows; `Rows` costs least for many.
        bytes: bytes of their values.
        last_key: the key of the last row in the source's text form, if the read is in key order and can be resumed.
        last: whether no batch follows. The last one may be empty.
        unrepresentable: how many of the values could not be represented.
    """

    rows: Sequence[Row]
    bytes: int
    last_key: tuple[str, ...] | None = None
    last: bool = False
    unrepresentable: Mapping[UnrepresentableValues, int] = field(default_factory=dict)
