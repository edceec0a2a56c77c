"""The bytes of a MySQL result set taken apart: with any values, and with the stream cut anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymysql.err import InternalError, OperationalError

from starbase_data_replication.sources.mysql import packets
from starbase_data_replication.sources.mysql.packets import RowParser
from tests.support.mysql_packets import END, FIRST, Record, error_packet, parsed_by, payload, stream

BINARY = (False, True, False)


def parsed(sent: bytes, cuts: Sequence[int], *, rows: int = 1000, size: int = 1 << 30) -> list[Record]:
    return parsed_by(RowParser(BINARY, sequence=FIRST), sent, cuts, rows=rows, size=size)


values = st.none() | st.text(max_size=8) | st.sampled_from(["é" * 130, "x" * 251, "x" * 300, "\xff" * 70_000])
rows_sent = st.lists(st.tuples(values, st.none() | st.binary(max_size=300), values), max_size=12)


@given(rows_sent, st.lists(st.integers(0, 3000)), st.integers(1, 5), st.sampled_from([1, 400, 1 << 20]))
def test_rows_arrive_as_they_were_sent_wherever_the_stream_is_cut(
    rows: list[Record], cuts: list[int], at_most: int, size: int
) -> None:
    sent = stream([*map(payload, rows), END])
    assert parsed(sent, cuts, rows=at_most, size=size) == rows


def test_a_stream_may_be_cut_at_any_byte() -> None:
    rows = [("a", b"\xff\0", None), (None, None, "é" * 200), ("", b"", "x" * 300), ("7", b"\xfe", "\xfb")]
    sent = stream([*map(payload, rows), END])
    assert all(parsed(sent, [cut]) == rows for cut in range(len(sent)))
    assert parsed(sent, range(len(sent))) == rows


@given(st.lists(st.integers(0, 100), min_size=1, max_size=4), st.sets(st.integers(0, 600)))
def test_a_row_goes_on_in_the_next_packet(sizes: list[int], cuts: set[int]) -> None:
    rows = [("x" * size, bytes(size), None if size % 2 else "é" * size) for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packets, "FULL_PACKET", 40)
        patch.setattr(packets, "LARGE_BYTES", 20)
        sent = stream([*map(payload, rows), END], full=40)
        assert parsed(sent, sorted(cuts)) == rows
        assert parsed(sent, range(len(sent))) == rows


@pytest.mark.parametrize(
    ("sent", "kind", "text"),
    [
        (stream([payload(("a", b"b", "c")), error_packet()]), OperationalError, "interrupted"),
        (stream([payload(("a", b"b", "c"))])[:3] + b"\x07" + payload(("a", b"b", "c")), InternalError, "sequence"),
        (stream([payload(("a", b"b", "c"))])[:3] + b"\0" + payload(("a", b"b", "c")), OperationalError, "Lost"),
        (stream([payload(("a", b"b"))]), InternalError, "row"),
        (stream([payload(("a", b"b", "c", "d"))]), InternalError, "row"),
        (stream([b"\x01a\xff\x01c\x01d"]), InternalError, "row"),
        (stream([b"\x01a\x01b\x30c" + b"c" * 7]), InternalError, "row"),
    ],
)
def test_a_malformed_row_is_an_error(sent: bytes, kind: type[Exception], text: str) -> None:
    for cut in range(len(sent)):
        with pytest.raises(kind, match=text):
            parsed(sent, [cut])
