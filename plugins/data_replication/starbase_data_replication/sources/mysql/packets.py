"""The rows of one result set, parsed from the bytes that MySQL sends. Must not know where the bytes come from.

aiomysql's reader awaits twice for each row, which costs several times as much as the network. Here one loop parses all
the rows in a piece of the stream.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from pymysql.constants import CR
from pymysql.err import InternalError, OperationalError, raise_mysql_exception

from starbase_data_replication.model import Rows, text_or_bytes
from starbase_data_replication.sources.batches import LONGEST_ROW_BYTES, TooMuch

HEADER_BYTES = 4
LENGTH_BITS = 0xFFFFFF
# A packet of this length continues in the next one.
FULL_PACKET = 0xFFFFFF
# In bytes: larger rows are not copied together with others.
LARGE_BYTES = 1 << 18

NULL = 0xFB
END = 0xFE
ERROR = 0xFF
LONGEST_END = 8
NO_ROW = "a packet is not a row"

_header = struct.Struct("<I").unpack_from
# After these first bytes stands the length of a value, in so many bytes.
LENGTHS = {0xFC: 2, 0xFD: 3, 0xFE: 8}


class RowParser:
    """Takes the stream of a result set from its first row, and gives whole rows.

    binary: for each column, whether its values are bytes; other values are text, or bytes if they are not UTF-8.
    sequence: the number that the next packet must have.

    Attributes:
        wanted: at least so many bytes are missing, once `parse` has returned all rows that were there.
        ended: whether the end of the result set has come.
        width: the number of columns.
    """

    def __init__(self, binary: Sequence[bool], *, sequence: int) -> None:
        self.wanted = HEADER_BYTES
        self.ended = False
        self.width = len(binary)
        self._binary = tuple(binary)
        self._sequence = sequence
        self._parts: list[bytes] = []
        self._data = b""
        self._at = 0
        # The payloads of a row that continues in the next packet.
        self._begun: list[memoryview] = []

    def feed(self, data: bytes) -> None:
        """Take a piece of the stream, of any length. Pieces are joined once `wanted` bytes are there."""
        self._parts.append(data)
        self.wanted -= len(data)
        if self.wanted <= 0:
            rest = memoryview(self._data)[self._at :]
            self._data = b"".join((rest, *self._parts)) if rest or len(self._parts) > 1 else data
            self._parts.clear()
            self._at = 0

    def parse(self, rows: int, size: int) -> tuple[Rows, int]:
        """The next whole rows, until there are `rows` of them or `size` bytes; and their size in bytes.

        Raises pymysql's exceptions for an error that the server sends, and for bytes that are not its protocol.
        """
        taken = Rows([], self.width)
        taken_bytes = 0
        while len(taken) < rows and taken_bytes < size and not self.ended and self.wanted <= 0:
            length = self._next()
            if length is None:
                break
            try:
                if length < LARGE_BYTES and not self._begun:
                    taken_bytes += self._parse_small(taken, rows, size - taken_bytes)
                else:
                    taken_bytes += self._parse_large(taken, length)
            except LookupError as error:
                raise InternalError(NO_ROW) from error
        return taken, taken_bytes

    def _next(self) -> int | None:
        """The length of the next packet if all of it is there; otherwise set `wanted` and return None."""
        there = len(self._data) - self._at
        length = _header(self._data, self._at)[0] & LENGTH_BITS if there >= HEADER_BYTES else 0
        self.wanted = HEADER_BYTES + length - there
        return length if self.wanted <= 0 else None

    def _parse_small(self, taken: Rows, rows: int, size: int) -> int:
        """Parse rows while they are whole and small. This loop must be fast."""
        data, at, sequence, binary = self._data, self._at, self._sequence, self._binary
        # An ASCII text is a slice of this, without decoding.
        latin = data.decode("latin-1")
        last = len(data) - HEADER_BYTES
        begin, room = at, rows - len(taken)
        add = taken.values.append
        while room and at - begin < size and at <= last:
            header = _header(data, at)[0]
            length = header & LENGTH_BITS
            here = at + HEADER_BYTES
            end = here + length
            if length >= LARGE_BYTES or end > len(data):
                break
            if header >> 24 != sequence:
                check_number(header >> 24, sequence)
            first = data[here] if length else NULL
            if first >= END and (first == ERROR or length <= LONGEST_END):
                self._finish(first, data[here:end])
                break
            for is_bytes in binary:
                count = data[here]
                here += 1
                if count >= NULL:
                    if count == NULL:
                        add(None)
                        continue
                    width = LENGTHS[count]
                    count = int.from_bytes(data[here : here + width], "little")
                    here += width
                until = here + count
                text = latin[here:until]
                add(data[here:until] if is_bytes else text if text.isascii() else text_or_bytes(data[here:until]))
                here = until
            if here != end:
                raise InternalError(NO_ROW)
            at = end
            sequence = (sequence + 1) & 0xFF
            room -= 1
        self._at, self._sequence = at, sequence
        return at - begin

    def _parse_large(self, taken: Rows, length: int) -> int:
        """One packet of a row that is large, or that began in another packet."""
        start = self._at + HEADER_BYTES
        check_number(self._data[start - 1], self._sequence)
        self._sequence = (self._sequence + 1) & 0xFF
        self._begun.append(memoryview(self._data)[start : start + length])
        if sum(map(len, self._begun)) > LONGEST_ROW_BYTES:
            raise InternalError(str(TooMuch("a row", LONGEST_ROW_BYTES)))
        self._at = start + length
        if self._at == len(self._data):
            self._data, self._at = b"", 0
        if length == FULL_PACKET:
            return 0
        payload = self._begun[0] if len(self._begun) == 1 else memoryview(b"".join(self._begun))
        self._begun.clear()
        taken.values += _record(payload, self._binary)
        return len(payload)

    def _finish(self, first: int, payload: bytes) -> None:
        self.ended = True
        if first == ERROR:
            raise_mysql_exception(payload)


def check_number(number: int, expected: int) -> None:
    """Raises OperationalError or InternalError if a packet does not have the expected number."""
    if number == expected:
        return
    if number == 0:
        # A server that shuts down sends its error out of turn.
        raise OperationalError(CR.CR_SERVER_LOST, "Lost connection to MySQL server during query")
    raise InternalError(f"Packet sequence number wrong - got {number} expected {expected}")


def _record(payload: memoryview, binary: Sequence[bool]) -> list[Any]:
    """A row's values, copied only once."""
    row: list[Any] = []
    here = 0
    for is_bytes in binary:
        count = payload[here]
        here += 1
        if count == NULL:
            row.append(None)
            continue
        if count > NULL:
            width = LENGTHS[count]
            count = int.from_bytes(payload[here : here + width], "little")
            here += width
        value = payload[here : here + count]
        row.append(bytes(value) if is_bytes else _text(value))
        here += count
    if here != len(payload):
        raise InternalError(NO_ROW)
    return row


def _text(value: memoryview) -> str | bytes:
    """As text_or_bytes, without a copy of a large value."""
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        return bytes(value)
