"""uvicorn's HTTP protocol with bounds: how many connections, how long a request may take to come, and its headers.

Its refusals are in the host's envelope, as those of the routes are. Knows no route.
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

# Of all clients together; each costs a file descriptor, of which a process has 1,024 where nobody has raised that.
MAX_CONNECTIONS = 500
# The request line and all headers: their size, and the time from the first byte (or the connection) to the last.
HEADER_BYTES = 32 * 1024
HEADER_SECONDS = 10.0
PIECE_BYTES = 4 * 1024
# How long an answer may wait for its client to take more of it: at one time, and in all.
STALLED_SECONDS = 30.0
ANSWER_SECONDS = 300.0
# A line that ends without CR, a CR that ends none, a header that goes on in the next line: others read a request with
# these in another way, and would see another request.
_AMBIGUOUS = re.compile(rb"(?<!\r)\n|\r(?!\n)|\n[ \t]")
PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class StrictBuffer(ReceiveBuffer):
    """What has come of a request; its headers are refused where two readers may disagree about them."""

    @overrides("h11._readers.maybe_read_from_IDLE_client")
    def maybe_extract_lines(self) -> list[bytearray] | None:
        before = bytes(self)
        lines = super().maybe_extract_lines()
        if lines is not None and _AMBIGUOUS.search(before, 0, len(before) - len(self)):
            raise h11.RemoteProtocolError("a line that does not end as HTTP's do, or a header in several lines")
        return lines


class Protocol(H11Protocol):
    """One connection of a client."""

    _header_timer: asyncio.TimerHandle | None = None
    _stalled_timer: asyncio.TimerHandle | None = None
    # Of the answer under way: which it is, how long it has waited, and since when it waits.
    _answering: Any = None
    _waited = 0.0
    _waits_since = 0.0

    @overrides(library="uvicorn")
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.conn._receive_buffer = StrictBuffer()
        # Whatever a client does not take at once counts as waiting for it.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, "the host has too many connections; try again")
            return
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    @overrides(library="uvicorn")
    def data_received(self, data: bytes) -> None:
        while data and not self.transport.is_closing():
            # h11 counts what is incomplete after each piece: headers that come in one piece would be of any size.
            size = len(data) if self._in_request() else PIECE_BYTES
            super().data_received(data[:size])
            data = data[size:]
        if self._in_request():
            self._cancel_timer()
        elif self._header_timer is None and not self.transport.is_closing():
            # The first bytes of a request on a connection that has served another.
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    @overrides(library="uvicorn")
    def pause_writing(self) -> None:
        """Called by asyncio: the client takes no more now."""
        super().pause_writing()
        if self._answering is not self.cycle:
            self._answering, self._waited = self.cycle, 0.0
        self._waits_since = self.loop.time()
        left = min(STALLED_SECONDS, ANSWER_SECONDS - self._waited)
        self._stalled_timer = self.loop.call_later(max(0.0, left), self.transport.abort)

    @overrides(library="uvicorn")
    def resume_writing(self) -> None:
        """Called by asyncio: the client has taken all."""
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
        """Called by uvicorn where h11 cannot read a request."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        if self._in_request():
            # An answer is under way, or will be; a second one would be taken for a part of it.
            self.transport.close()
        elif status == 431:
            self._refuse(431, f"the request line and headers are over {HEADER_BYTES} bytes")
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

    def _too_slow(self) -> None:
        self._header_timer = None
        if not self._in_request() and not self.transport.is_closing():
            self._refuse(408, f"the request's headers did not come within {HEADER_SECONDS:g} seconds")

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
            # Something has been answered on this connection, and not to its end.
            pass
        self.transport.close()
