"""No byte of a message that PostgreSQL never sends reaches the driver, wherever the network cuts it.

What the driver's compiled reader would do with one (loop for ever, or end the process) is in test_hostile_sources.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starbase_data_replication.sources.batches import TooMuch
from starbase_data_replication.sources.postgresql.answer_limits import AnswerLimiter, OddMessage, OddSetting
from starbase_data_replication.sources.postgresql.handshake import HandshakeState, NotPostgresql, check_handshake


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def head(kind: bytes, length: int) -> bytes:
    return kind + struct.pack("!I", length & 0xFFFFFFFF)


GOOD = [
    message(b"d", b"1\tx\n"), message(b"d", b""), message(b"d", bytes(700)), message(b"Z", b"T"), message(b"1", b""),
    message(b"C", b"COPY 7\0"), message(b"D", b"\0\1\0\0\0\1x"), message(b"N", b"SNOTICE\0\0"), message(b"c", b""),
    message(b"S", b"name\0value\0"), message(b"A", b"\0\0\0\1name\0text\0"), message(b"E", b"SERROR\0C42501\0\0"),
    message(b"T", b"\0\0"), message(b"H", b"\0\0\2\0\0\0\0"),
]  # fmt: skip
BAD = {
    **{f"{kind!r} of {length}": head(kind, length) for kind in (b"d", b"1", b"Z", b"D", b"E") for length in range(4)},
    **{f"{kind!r} of {length}": head(kind, length) for kind in (b"d", b"1", b"Z", b"D") for length in (-1, 1 << 31)},
    "a row of 1 GiB": head(b"d", (1 << 30) + 5),
    "the kind 0": head(b"\0", 4),
    "a kind that only clients send": head(b"Q", 9),
    "a login": head(b"R", 8),
    "two bytes of readiness": head(b"Z", 6),
    "an error without its end": message(b"E", b"SERROR"),
    "a notice without its end": message(b"N", b"SNOTICE\0Mx"),
    "a tag without its end": message(b"C", b"COPY 7"),
    "a notification of one text": message(b"A", b"\0\0\0\1name\0"),
    "a short notification": message(b"A", b"\0\0"),
}


class Received:
    """A driver and a transport, which note what they get."""

    def __init__(self) -> None:
        self.data = b""
        self.aborted = False
        self.lost: Exception | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = error

    def abort(self) -> None:
        self.aborted = True


def received(data: bytes, cuts: list[int], *, streams: bool) -> Received:
    found = Received()
    limiter = AnswerLimiter(found, found)
    with ExitStack() as stack:
        if streams:
            stack.enter_context(limiter.streaming())
        ends = [*sorted(min(cut, len(data)) for cut in cuts), len(data)]
        for begin, end in zip([0, *ends], ends, strict=False):
            limiter.data_received(data[begin:end])
    limiter.connection_lost(None)
    return found


@pytest.mark.parametrize("streams", [False, True], ids=["answer", "copy"])
@pytest.mark.parametrize("what", BAD)
def test_a_message_that_no_server_sends(what: str, streams: bool) -> None:
    before, bad = b"".join(GOOD), BAD[what]
    every = [*range(len(before) + len(bad))]
    for cuts in ([], [len(before)], *([len(before) + cut] for cut in range(1, len(bad))), every):
        found = received(before + bad + bytes(40), cuts, streams=streams)
        assert found.aborted
        assert len(found.data) < len(before) + len(bad)
        assert isinstance(found.lost, OddMessage | TooMuch)


@given(st.lists(st.sampled_from(GOOD), max_size=8), st.lists(st.integers(0, 800), max_size=9), st.booleans())
def test_what_servers_send_is_passed_on(said: list[bytes], cuts: list[int], streams: bool) -> None:
    data = b"".join(said)
    found = received(data, cuts, streams=streams)
    assert found.data == data
    assert not found.aborted
    assert found.lost is None


def test_a_setting_is_checked_while_rows_are_streamed() -> None:
    said = message(b"d", b"1\n") + message(b"S", b"client_encoding\0bz2_codec\0")
    assert isinstance(received(said, [], streams=True).lost, OddSetting)


@pytest.mark.parametrize(
    "said",
    [
        message(b"R", b"\0\0"), message(b"R", b"\0\0\0\5sal"), message(b"R", b"\0\0\0\nSCRAM-SHA-256\0"),
        message(b"R", bytes(4)) + message(b"K", bytes(7)), message(b"R", bytes(4)) + message(b"Z", b""),
        message(b"E", b"SERROR\0Mx"), message(b"E", b""), message(b"N", b"SNOTICE"),
    ],
    ids=["no number", "a short salt", "an open list", "a short key", "no state", "an open error", "no error",
         "an open notice"],
)  # fmt: skip
def test_a_message_of_a_handshake_that_lacks_a_part(said: bytes) -> None:
    """The driver would look for it in what comes after, and read the next message from there."""
    with pytest.raises(NotPostgresql):
        check_handshake(said + bytes(40), HandshakeState(secure=True))


def test_silence_in_a_long_row_is_not_news() -> None:
    found: Any = Received()
    limiter = AnswerLimiter(found, SimpleNamespace())
    with limiter.streaming():
        news = []
        for piece in (head(b"d", 5_000_000), *[bytes(300_000)] * 8):
            limiter.data_received(piece)
            news.append(limiter.made_progress)
    assert news == [True, False, False, False, True, False, False, True, False]
