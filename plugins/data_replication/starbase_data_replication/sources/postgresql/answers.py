"""What a server sends once it has let us in: bounded before the driver, which keeps whole messages and all rows of an
answer.

Owns those bounds, and what counts as news. Must not know what is asked. While COPY sends the rows of a table, only
their bytes are counted: to look at each row's message would cost a part of what the driver does with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Iterator
from typing import Any

from starbase_data_replication.sources.batches import (
    ANSWER_BYTES,
    COLUMN_BYTES,
    LONGEST_ROW_BYTES,
    MESSAGE_BYTES,
    VALUE_BYTES,
    TooMuch,
)

HEAD_BYTES = 5
_length = struct.Struct(">I").unpack_from
_count = struct.Struct(">H").unpack_from

READY, ROW, COLUMNS, SETTING = b"ZDTS"
# What a server may send at any time, whether it works or not: notices, settings, and what others notify.
ASIDES = frozenset(b"NSA")
# The driver keeps each setting that it hears of. PostgreSQL tells fourteen.
MAX_SETTINGS = 200
# What is news of rows, in a stream of which nobody has taken any.
NEWS_BYTES = 1 << 20


class Answers(asyncio.Protocol):
    """Stands before the driver's protocol and gives everything on; hangs up on a server that sends too much.

    news: whether what came last was more than asides.
    """

    def __init__(self, driver: Any, transport: Any) -> None:
        self.news = False
        self._driver = driver
        self._transport = transport
        self._refused: TooMuch | None = None
        # Of the answer so far, or of the row while rows are streamed.
        self._cost = 0
        # Of a message that goes on in what is to come: how many bytes, or the beginning of its head.
        self._left = 0
        self._head = b""
        self._settings: set[bytes] = set()
        self._streams = False
        self._last = b""

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Inside, a COPY sends rows, and whoever takes them calls `taken`."""
        self._streams, self._cost = True, 0
        try:
            yield
        finally:
            self._streams, self._cost = False, 0
            # What may have come behind the end of the answer: a notice that the server is about to stop.
            last, self._last = self._last, b""
            end = last.rfind(b"Z\0\0\0\5")
            self._left, self._head = 0, b""
            if end >= 0:
                self._judge(last[end:])

    def taken(self) -> None:
        """Rows were taken."""
        self._cost = 0

    def data_received(self, data: bytes) -> None:
        if self._refused is not None:
            return
        try:
            if self._streams:
                self._judge_rows(data)
            else:
                self._judge(data)
        except TooMuch as error:
            self._refused = error
            self._transport.abort()
            return
        self._driver.data_received(data)

    def _judge_rows(self, data: bytes) -> None:
        self.news = not self._cost or self._cost // NEWS_BYTES < (self._cost + len(data)) // NEWS_BYTES
        self._cost += len(data)
        self._last = data
        if self._cost > LONGEST_ROW_BYTES:
            raise TooMuch("a row", LONGEST_ROW_BYTES)

    def _judge(self, data: bytes) -> None:
        self.news = self._left > 0
        if self._head:
            data, self._head = self._head + data, b""
        at, size = self._left, len(data)
        while size - at >= HEAD_BYTES:
            kind, (length,) = data[at], _length(data, at + 1)
            counts = kind in (ROW, COLUMNS) and length >= 6
            if counts and size - at < HEAD_BYTES + 2:
                break
            if kind == READY:
                self._cost = 0
                self.news = True
            else:
                self._cost += length + MESSAGE_BYTES
                if counts:
                    each = VALUE_BYTES if kind == ROW else COLUMN_BYTES
                    self._cost += each * _count(data, at + HEAD_BYTES)[0]
                if self._cost > ANSWER_BYTES:
                    raise TooMuch
                if kind == SETTING:
                    self._settings.add(data[at + HEAD_BYTES : at + HEAD_BYTES + 64].partition(b"\0")[0])
                    if len(self._settings) > MAX_SETTINGS:
                        raise TooMuch("settings")
                self.news = self.news or kind not in ASIDES
            at += 1 + max(length, 4)
        if at >= size:
            self._left = at - size
        else:
            self._left, self._head = 0, data[at:]

    def eof_received(self) -> bool | None:
        kept: bool | None = self._driver.eof_received()
        return kept

    def connection_lost(self, error: Exception | None) -> None:
        self._driver.connection_lost(self._refused or error)

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()
