"""The packets of a MySQL result set: as a server sends them, and what a parser makes of a stream of them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from starbase_data_replication.sources.mysql.packets import FULL_PACKET, RowParser

Record = tuple[Any, ...]
FIRST = 250
MISSING = b"\xfb"
END = b"\xfe\0\0\2\0"


def length(number: int) -> bytes:
    """A number as the protocol writes a value's length."""
    if number < 0xFB:
        return bytes([number])
    if number < 1 << 16:
        return b"\xfc" + struct.pack("<H", number)
    return b"\xfd" + struct.pack("<I", number)[:3] if number < 1 << 24 else b"\xfe" + struct.pack("<Q", number)


def payload(record: Sequence[str | bytes | None]) -> bytes:
    values = (value.encode() if isinstance(value, str) else value for value in record)
    return b"".join(MISSING if value is None else length(len(value)) + value for value in values)


def stream(payloads: Sequence[bytes], *, full: int = FULL_PACKET) -> bytes:
    """The packets of these payloads, numbered from FIRST, which soon begins again."""
    sent, number = b"", FIRST
    for whole in payloads:
        pieces = [whole[at : at + full] for at in range(0, len(whole) + 1, full)]
        for piece in pieces:
            sent += struct.pack("<I", len(piece) | (number % 256) << 24) + piece
            number += 1
    return sent


def parsed_by(
    parser: RowParser, sent: bytes, cuts: Sequence[int], *, rows: int = 1000, size: int = 1 << 30
) -> list[Record]:
    """What comes of a stream that arrives in these pieces."""
    found: list[Record] = []
    ends = [*sorted(cut for cut in cuts if 0 < cut < len(sent)), len(sent)]
    for begin, end in zip([0, *ends], ends, strict=False):
        parser.feed(sent[begin:end])
        while parser.wanted <= 0 and not parser.ended:
            taken, taken_bytes = parser.parse(rows, size)
            assert len(taken) <= rows
            assert (taken_bytes > 0) == bool(taken)
            found += map(tuple, taken)
        assert parser.ended == (end == len(sent))
    return found


def error_packet() -> bytes:
    return b"\xff" + struct.pack("<H", 1317) + b"#70100Query execution was interrupted"


def packed(record: Sequence[str | bytes | None]) -> bytes:
    """A row as the server puts it together."""
    values = (b"\xfe" if value is None else value.encode() if isinstance(value, str) else value for value in record)
    joined = b"\xff".join((b"\xf8", *values, b"\xf9"))
    return length(len(joined)) + joined
