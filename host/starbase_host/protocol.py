"""uvicorn's HTTP protocol with limits: on connections, on the size of headers, and on the time of a request.

Its errors have the same envelope as those of the routes. Must not know routes.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

import h11
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol

from starbase_host.library_overrides import overrides

# For all clients together. Each connection needs a file descriptor, and a process has 1,024 of them by default.
MAX_CONNECTIONS = 500
# The size of the request line and all headers, and the time from the first byte (or the connection) to the last.
HEADER_BYTES = 32 * 1024
HEADER_SECONDS = 10.0
PIECE_BYTES = 4 * 1024
MAX_HEADERS = 100
# A chunked body may have so many small chunks, as of somebody who types; after that, they have a least average size.
MANY_CHUNKS = 1000
LEAST_CHUNK_BYTES = 64
# How long an answer may wait for a client that does not read: at a time, and in total.
STALLED_SECONDS = 30.0
ANSWER_SECONDS = 300.0
# A line that ends without CR, a CR that does not end a line, a header that continues in the next line: a proxy may
# parse such a request differently, and see another request.
_AMBIGUOUS = re.compile(rb"(?<!\r)\n|\r(?!\n)|\n[ \t]")
PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class StrictBuffer(ReceiveBuffer):
    """The bytes of a request.

    It refuses headers that two parsers could understand differently, and requests of very many small pieces: each takes
    a step of the event loop's time, however few bytes it has.
    """

    def __init__(self) -> None:
        super().__init__()
        self._chunks = self._bytes = 0

    def __iadd__(self, data: bytes | bytearray) -> StrictBuffer:
        super().__iadd__(data)
        self._bytes += len(data)
        return self

    @overrides("h11._readers.ChunkedReader.__call__")
    def maybe_extract_next_line(self) -> bytearray | None:
        """Read the line before a chunk."""
        line = super().maybe_extract_next_line()
        if line is not None:
            self._chunks += 1
            if self._chunks > MANY_CHUNKS and self._bytes < self._chunks * LEAST_CHUNK_BYTES:
                raise h11.RemoteProtocolError(
                    f"more than {MANY_CHUNKS} chunks, of under {LEAST_CHUNK_BYTES} bytes on average"
                )
        return line

    @overrides("h11._readers.maybe_read_from_IDLE_client")
    def maybe_extract_lines(self) -> list[bytearray] | None:
        before = bytes(self)
        lines = super().maybe_extract_lines()
        self._chunks = self._bytes = 0
        if lines is not None and len(lines) > MAX_HEADERS:
            raise h11.RemoteProtocolError(f"more than {MAX_HEADERS} headers", error_status_hint=431)
        if lines is not None and _AMBIGUOUS.search(before, 0, len(before) - len(self)):
            raise h11.RemoteProtocolError("a line does not end with CR LF, or a header continues in the next line")
        return lines


class Protocol(H11Protocol):
    """One connection of a client."""

    _header_timer: asyncio.TimerHandle | None = None
    _stalled_timer: asyncio.TimerHandle | None = None
    # The current answer, how long it has waited for the client, and since when it waits now.
    _answering: Any = None
    _waited = 0.0
    _waits_since = 0.0

    @overrides(library="uvicorn")
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.conn._receive_buffer = StrictBuffer()
        # Every byte that the client does not take at once counts as waiting.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, "the host has too many connections; try again")
            return
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._time_out_headers)

    @overrides(library="uvicorn")
    def data_received(self, data: bytes) -> None:
        while data and not self.transport.is_closing():
            # h11 checks the size only after each piece: headers that come in one piece could have any size.
            size = len(data) if self._in_request() else PIECE_BYTES
            super().data_received(data[:size])
            data = data[size:]
        if self._in_request():
            self._cancel_timer()
        elif self._header_timer is None and not self.transport.is_closing():
            # The first bytes of a second request on this connection.
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self._time_out_headers)

    @overrides(library="uvicorn")
    def pause_writing(self) -> None:
        """asyncio calls this when the client does not take more bytes."""
        super().pause_writing()
        if self._answering is not self.cycle:
            self._answering, self._waited = self.cycle, 0.0
        self._waits_since = self.loop.time()
        left = min(STALLED_SECONDS, ANSWER_SECONDS - self._waited)
        self._stalled_timer = self.loop.call_later(max(0.0, left), self.transport.abort)

    @overrides(library="uvicorn")
    def resume_writing(self) -> None:
        """asyncio calls this when the client has taken all bytes."""
        super().resume_writing()
        self._waited += self.loop.time() - self._waits_since
        self._cancel_stalled()

    @overrides(library="uvicorn")
    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._cancel_stalled()
        super().connection_lost(exc)

    @overrides("uvicorn.protocols.http.h11_impl.H11Protocol.handle_events")
    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this when h11 cannot parse a request."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        if self._in_request():
            # The current request has its own answer; a second one would be read as part of it.
            self.transport.close()
        elif status == 431:
            self._refuse(
                431, f"the request line and headers are longer than {HEADER_BYTES} bytes, or over {MAX_HEADERS}"
            )
        else:
            self._refuse(400, "the request is not HTTP/1.1")

    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _cancel_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _cancel_stalled(self) -> None:
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()
            self._stalled_timer = None

    def _time_out_headers(self) -> None:
        self._header_timer = None
        if not self._in_request() and not self.transport.is_closing():
            self._refuse(408, f"the headers of the request did not arrive within {HEADER_SECONDS:g} seconds")

    def _refuse(self, status: int, message: str) -> None:
        self._cancel_timer()
        body = json.dumps({"error": message}).encode()
        headers: list[tuple[str, str]] = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
        ]
        events: list[Any] = [
            h11.Response(status_code=status, headers=headers, reason=PHRASES.get(status, "")),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        try:
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            # An answer on this connection has begun, but not ended.
            pass
        self.transport.close()
