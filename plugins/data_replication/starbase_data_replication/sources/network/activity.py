"""The network activity of one connection: whether bytes still come, and whether the network to the source has failed.

Owns a protocol between a driver's transport and the driver's own protocol, and the socket's keepalives. Must not know
what the bytes mean, nor what happens when none come.

A server that sorts or counts sends nothing for minutes, and neither does a network that has failed. The kernel can
tell them apart: the other machine's kernel answers its probes, however busy the server is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

# Called when bytes come from a source; set by the run that the current task works for.
ON_ACTIVITY: ContextVar[Callable[[], None] | None] = ContextVar("on_activity", default=None)

# A machine that does not answer for half a minute counts as gone: 15 seconds without bytes, then a probe every 5.
# TCP_USER_TIMEOUT is in milliseconds; it does the same while sent bytes wait for their acknowledgement.
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}


class ActivityProtocol(asyncio.Protocol):
    """Passes everything on to the driver's protocol, and reports that bytes have come.

    on_activity: called after each piece of data; None while no run uses the connection.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.on_activity: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        self._driver.data_received(data)
        # A protocol with `made_progress` says whether these bytes were more than what an idle server sends.
        if self.on_activity is not None and getattr(self._driver, "made_progress", True):
            self.on_activity()

    def eof_received(self) -> bool | None:
        kept: bool | None = self._driver.eof_received()
        return kept

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.connection_lost(exc)

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


def watch(transport: Any) -> ActivityProtocol:
    """Report the activity of a connection to the current task's run. The first call puts the protocol in its place."""
    protocol = transport.get_protocol()
    if not isinstance(protocol, ActivityProtocol):
        protocol = ActivityProtocol(protocol)
        transport.set_protocol(protocol)
        keep_alive(transport.get_extra_info("socket"))
    protocol.on_activity = ON_ACTIVITY.get()
    return protocol


def keep_alive(connection: Any) -> None:
    """Let the kernel find out that the other machine is gone. Not every system has every option."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
