"""The limits of an answer: how much a server may send after the login, checked before the driver sees it.

The driver keeps whole messages and all rows of an answer in memory. While COPY sends the rows of a table, only their
bytes are counted: parsing each row's message would cost time for every row. Must not know what is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
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
# What a server may send at any time, busy or not: notices, settings and notifications.
ASIDES = frozenset(b"NSA")
# The driver keeps each setting that a server reports. PostgreSQL reports fourteen.
MAX_SETTINGS = 200
LONGEST_SETTING = 30_000
# The driver decodes every text by the codec that the server names, and Python has some that unpack a thousand bytes
# into gigabytes. It asks for UTF-8, for which servers have several names.
ENCODING = b"client_encoding"
# A pooler may repeat the quoted text of the startup message.
UTF8 = re.compile(rb"('?)(utf[-_]?8|unicode)\1", re.IGNORECASE)
# While no row was taken, so many bytes of rows count as progress, so that activity shows in a long row.
PROGRESS_BYTES = 1 << 20


class OddSetting(Exception):
    """A setting that PostgreSQL never reports."""

    def __init__(self) -> None:
        super().__init__(
            "the server sends a setting that cannot be read, or text in another encoding than UTF-8, though it was "
            "asked for UTF-8; check host and port of sourceConfig, and at any pooler in between"
        )


def check_setting(body: bytes) -> None:
    """Raises OddSetting for a message about a setting, without its head, that the driver must not see."""
    name, _, rest = body.partition(b"\0")
    value, end, more = rest.partition(b"\0")
    if not end or more or (name == ENCODING and UTF8.fullmatch(value) is None):
        raise OddSetting


class AnswerLimiter(asyncio.Protocol):
    """Receives what the server sends and passes it to the driver; hangs up if it is too much.

    Attributes:
        made_progress: whether the last bytes were more than notices, settings and notifications.
    """

    def __init__(self, driver: Any, transport: Any) -> None:
        self.made_progress = False
        self._driver = driver
        self._transport = transport
        self._refused: TooMuch | OddSetting | None = None
        # In bytes, of the answer so far, or of the row while rows are streamed.
        self._cost = 0
        # Of a message that continues in the next bytes: how many are left, or the beginning of its head.
        self._left = 0
        self._head = b""
        self._settings: set[bytes] = set()
        self._streams = False
        self._last = b""

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Within this context, COPY sends rows, and the caller that takes them calls `taken`."""
        self._streams, self._cost = True, 0
        try:
            yield
        finally:
            self._streams, self._cost = False, 0
            # Bytes after the end of the answer, such as a notice that the server is shutting down.
            last, self._last = self._last, b""
            end = last.rfind(b"Z\0\0\0\5")
            self._left, self._head = 0, b""
            if end >= 0:
                self._count_messages(last[end:])
            # In between nothing was looked at.
            if self._driver.get_settings().get_text_codec().name != "utf-8":
                self._refuse(OddSetting())

    def taken(self) -> None:
        """Count the next row from zero: rows were taken."""
        self._cost = 0

    def data_received(self, data: bytes) -> None:
        if self._refused is not None:
            return
        try:
            if self._streams:
                self._count_rows(data)
            else:
                self._count_messages(data)
        except (TooMuch, OddSetting) as error:
            self._refuse(error)
            return
        self._driver.data_received(data)

    def _refuse(self, error: TooMuch | OddSetting) -> None:
        self._refused = error
        self._transport.abort()

    def _count_rows(self, data: bytes) -> None:
        self.made_progress = not self._cost or self._cost // PROGRESS_BYTES < (self._cost + len(data)) // PROGRESS_BYTES
        self._cost += len(data)
        self._last = data
        if self._cost > LONGEST_ROW_BYTES:
            raise TooMuch("a row", LONGEST_ROW_BYTES)

    def _count_messages(self, data: bytes) -> None:
        self.made_progress = self._left > 0
        if self._head:
            data, self._head = self._head + data, b""
        at, size = self._left, len(data)
        while size - at >= HEAD_BYTES:
            kind, (length,) = data[at], _length(data, at + 1)
            counts = kind in (ROW, COLUMNS) and length >= 6
            if counts and size - at < HEAD_BYTES + 2:
                break
            if kind == SETTING and length > LONGEST_SETTING:
                raise OddSetting
            if kind == SETTING and size - at <= length:
                # The driver has its beginning, and does nothing with it.
                break
            if kind == READY:
                self._cost = 0
                self.made_progress = True
            else:
                self._cost += length + MESSAGE_BYTES
                if counts:
                    each = VALUE_BYTES if kind == ROW else COLUMN_BYTES
                    self._cost += each * _count(data, at + HEAD_BYTES)[0]
                if self._cost > ANSWER_BYTES:
                    raise TooMuch
                if kind == SETTING:
                    check_setting(data[at + HEAD_BYTES : at + 1 + length])
                    self._settings.add(data[at + HEAD_BYTES : at + HEAD_BYTES + 64].partition(b"\0")[0])
                    if len(self._settings) > MAX_SETTINGS:
                        raise TooMuch("settings")
                self.made_progress = self.made_progress or kind not in ASIDES
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
