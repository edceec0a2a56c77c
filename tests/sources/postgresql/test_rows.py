"""COPY's text taken apart: with any values, and with the stream cut anywhere."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.model import Column, Row
from starbase_data_replication.model.casts import NO_AFFINITY, Cast
from starbase_data_replication.sources.batches import Damaged
from starbase_data_replication.sources.postgresql import rows as reading
from starbase_data_replication.sources.postgresql.rows import CopyText

DECLARED = ("INTEGER", "TEXT", "BLOB", NO_AFFINITY)
COLUMNS = [
    Column(name=f"c{number}", source_type="", nullable=True, cast=Cast(declared=declared))
    for number, declared in enumerate(DECLARED)
]
ESCAPED = {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
rows_sent = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | texts | st.text("\\\n\t\rNnt\v\b\f.", max_size=6),
        st.none() | st.binary(max_size=6),
        st.none() | st.floats(allow_nan=False),
    ),
    max_size=12,
)


def written(value: Any) -> str:
    """A value as COPY writes it."""
    if value is None:
        return "\\N"
    text = f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
    return "".join(ESCAPED.get(character, character) for character in text)


def parsed(sent: bytes, cuts: Sequence[int], columns: Sequence[Column] = COLUMNS) -> list[Row]:
    text = CopyText(columns, width=len(columns))
    found: list[Row] = []
    ends = [*sorted(cut for cut in cuts if 0 < cut < len(sent)), len(sent)]
    for begin, end in zip([0, *ends], ends, strict=False):
        text.feed(sent[begin:end])
        while (taken := text.rows())[1]:
            assert taken[0] > 0
            found += taken[1]
    return found


@given(rows_sent, st.lists(st.integers(0, 400)), st.sampled_from([1, 30, 1 << 17]))
def test_rows_arrive_as_they_were_sent_wherever_the_stream_is_cut(rows: list[Row], cuts: list[int], piece: int) -> None:
    sent = "".join("\t".join(map(written, row)) + "\n" for row in rows).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PIECE_BYTES", piece)
        # An integer travels as its digits, of which SQLite makes a number.
        expected = [(None if row[0] is None else str(row[0]), *row[1:]) for row in rows]
        assert parsed(sent, cuts) == expected
        assert parsed(sent, range(len(sent))) == expected


def test_one_column_of_empty_texts_and_of_nulls() -> None:
    assert parsed(b"\n\\N\n\n", [], COLUMNS[1:2]) == [("",), (None,), ("",)]


def test_a_text_that_is_escaped_throughout() -> None:
    value = json.dumps({"path": "c:\\new\\table", "note": 'a "quoted"\n\tline', "\\N": "\\\\x"})
    assert parsed(f"{written(value)}\n".encode(), [], COLUMNS[1:2]) == [(value,)]


SIZE = 4_000_000


def highest_use(sent: bytes, columns: Sequence[Column]) -> int:
    """The most memory, in bytes, that parsing takes."""
    tracemalloc.start()
    try:
        parsed(sent, [], columns)
    except Damaged:
        pass
    finally:
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return highest


@pytest.mark.parametrize("sent", [b"\t" * SIZE, b"\\" * SIZE, b"\\n" * (SIZE // 2), b"a\\\\" * (SIZE // 3)])
def test_a_long_row_takes_few_times_its_size(sent: bytes) -> None:
    """For any content: as a list of its parts it would take ten times as much and more."""
    assert highest_use(sent + b"\n", COLUMNS[1:2]) < 5 * SIZE


@pytest.mark.parametrize("sent", [b"a\tb\n", b"a\nb\tc\td\te\tf\n", b"\t" * 9 + b"\n", b"\n"])
def test_a_row_of_another_width_is_damaged(sent: bytes) -> None:
    with pytest.raises(Damaged):
        parsed(sent, [])
