"""The limits of an answer: how much a server may send after the login, and in which messages.

Checked before the driver sees a byte. The driver keeps whole messages and all rows of an answer in memory, and its
compiled reader believes each length: one below four makes it loop for ever, or ends the process. Must not know what is
asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import Iterator
from typing import Any

from starbase_data_replication.errors import WHERE_TO_LOOK
from starbase_data_replication.sources.batches import (
    ANSWER_BYTES,
    COLUMN_BYTES,
    LONGEST_ROW_BYTES,
    MESSAGE_BYTES,
    VALUE_BYTES,
    TooMuch,
)

HEAD_BYTES = 5
_head = struct.Struct(">BI").unpack_from
_count = struct.Struct(">H").unpack_from

READY, ROW, COLUMNS, SETTING, COPIED, NOTIFICATION = b"ZDTSdA"
# Every kind of message that answers what the driver sends. It would read one of the kind 0 for ever.
KINDS = frozenset(b"123ACDEHINSTZcdnst")
# A length counts its own four bytes. The driver takes a longer one for a negative number.
SHORTEST, LONGEST = 4, (1 << 31) - 1
READY_LENGTH = 5
# Their texts end with a zero byte, which the driver looks for also beyond their end; it would go on from there.
ZERO_ENDED = frozenset(b"CEN")
# What a server may send at any time, busy or not: notices, settings and notifications.
ASIDES = frozenset(b"NSA")
# The driver keeps each setting that a server reports. PostgreSQL reports fourteen.
MAX_SETTINGS = 200
LONGEST_SETTING = 30_000
# Kinds of which the whole message is checked.
CHECKED_WHOLE = frozenset((SETTING, NOTIFICATION))
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


class OddMessage(Exception):
    """Bytes that are not a message that PostgreSQL sends."""

    def __init__(self) -> None:
        super().__init__(f"the server sends bytes that are not PostgreSQL's protocol; {WHERE_TO_LOOK}")


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
        self._refused: TooMuch | OddSetting | OddMessage | None = None
        # In bytes, of the answer so far, or of the row while rows are streamed.
        self._cost = 0
        # Of a message that continues in the next bytes: how many are left, and whether it must end with a zero byte; or
        # its beginning.
        self._left = 0
        self._zero_ended = False
        self._begun = b""
        self._settings: set[bytes] = set()
        self._streams = False

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Within this context, COPY sends rows, and the caller that takes them calls `taken`."""
        self._streams, self._cost = True, 0
        try:
            yield
        finally:
            self._streams, self._cost = False, 0

    def taken(self) -> None:
        """Count the next row from zero: rows were taken."""
        self._cost = 0

    def data_received(self, data: bytes) -> None:
        if self._refused is not None:
            return
        try:
            self._check(data)
        except (TooMuch, OddSetting, OddMessage) as error:
            self._refused = error
            self._transport.abort()
            return
        self._driver.data_received(data)

    def _check(self, data: bytes) -> None:
        self.made_progress = self._left > 0
        if self._streams:
            cost = self._cost + len(data)
            self.made_progress = not self._cost or self._cost // PROGRESS_BYTES < cost // PROGRESS_BYTES
            self._spend(len(data))
        if self._begun:
            data, self._begun = self._begun + data, b""
        at, size = self._left, len(data)
        if self._zero_ended and at <= size:
            self._end(data[at - 1])
        while size - at >= HEAD_BYTES:
            kind, length = _head(data, at)
            if kind == COPIED and self._streams and SHORTEST <= length <= LONGEST_ROW_BYTES:
                at = _after_rows(data, at)
                continue
            after = self._after_message(data, at, kind, length)
            if after is None:
                break
            at = after
        if at >= size:
            self._left = at - size
        else:
            # The driver has these bytes, and does nothing with them.
            self._left, self._begun = 0, data[at:]

    def _after_message(self, data: bytes, at: int, kind: int, length: int) -> int | None:
        """Check the message that begins there. Returns where it ends; None if too little of it is there to check."""
        body, end, size = at + HEAD_BYTES, at + 1 + length, len(data)
        if kind not in KINDS or not SHORTEST <= length <= LONGEST or (kind == READY and length != READY_LENGTH):
            raise OddMessage
        if kind == READY:
            self._cost = 0
            self.made_progress = True
            return end
        counts = kind in (ROW, COLUMNS) and length >= SHORTEST + 2
        if counts and size < body + 2:
            return None
        if kind in CHECKED_WHOLE:
            if length > LONGEST_SETTING:
                raise OddSetting if kind == SETTING else OddMessage
            if size < end:
                return None
            self._check_aside(kind, data[body:end])
        each = VALUE_BYTES if kind == ROW else COLUMN_BYTES
        self._spend(length + MESSAGE_BYTES + (each * _count(data, body)[0] if counts else 0))
        self.made_progress = self.made_progress or kind not in ASIDES
        if kind in ZERO_ENDED:
            self._zero_ended = True
            if end <= size:
                self._end(data[end - 1])
        return end

    def _spend(self, cost: int) -> None:
        self._cost += cost
        if self._streams and self._cost > LONGEST_ROW_BYTES:
            raise TooMuch("a row", LONGEST_ROW_BYTES)
        if not self._streams and self._cost > ANSWER_BYTES:
            raise TooMuch

    def _check_aside(self, kind: int, body: bytes) -> None:
        if kind == SETTING:
            check_setting(body)
            self._settings.add(body.partition(b"\0")[0])
            if len(self._settings) > MAX_SETTINGS:
                raise TooMuch("settings")
        elif not body.endswith(b"\0") or body.count(b"\0", 4) < 2:
            # A number, and two texts.
            raise OddMessage

    def _end(self, last: int) -> None:
        """A message whose texts end with a zero byte ends with this one."""
        self._zero_ended = False
        if last != 0:
            raise OddMessage

    def eof_received(self) -> bool | None:
        kept: bool | None = self._driver.eof_received()
        return kept

    def connection_lost(self, error: Exception | None) -> None:
        self._driver.connection_lost(self._refused or error)

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


def _after_rows(data: bytes, at: int) -> int:
    """Where the messages that hold rows end. There is one for each row of a table, so this loop must be fast."""
    last = len(data) - HEAD_BYTES
    while at <= last:
        kind, length = _head(data, at)
        if kind != COPIED or not SHORTEST <= length <= LONGEST_ROW_BYTES:
            break
        at += 1 + length
    return at
