"""One connection's line to its source: whether bytes still come, and whether the network between has died.

Owns a listener between a driver's transport and its protocol, and the socket's keepalives. Must not know what is
said on the line, nor what is done about silence.

A server that sorts or counts sends nothing for minutes, and so does a dead network. The kernel tells the second:
its probes are answered by the other machine's kernel, however busy the server is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

# What is to be called when bytes come from a source, for the run that this task works for.
HEARD: ContextVar[Callable[[], None] | None] = ContextVar("heard", default=None)

# A machine that does not answer for half a minute is gone: fifteen seconds of rest, then a probe every five.
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}


class Line(asyncio.Protocol):
    """Hands everything on to the driver's protocol, and tells whoever uses the connection now that bytes have come."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.heard: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        self._driver.data_received(data)
        # What stands there may tell news from what a server says while it does nothing.
        if self.heard is not None and getattr(self._driver, "news", True):
            self.heard()

    def eof_received(self) -> bool | None:
        kept: bool | None = self._driver.eof_received()
        return kept

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.connection_lost(exc)

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


def listen(transport: Any) -> Line:
    """The line of a connection: made at its first use, and from now on telling the run of this task."""
    line = transport.get_protocol()
    if not isinstance(line, Line):
        line = Line(line)
        transport.set_protocol(line)
        keep_alive(transport.get_extra_info("socket"))
    line.heard = HEARD.get()
    return line


def keep_alive(connection: Any) -> None:
    """Let the kernel find out that the other machine is gone. Not every system has every option."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
