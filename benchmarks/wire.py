"""A proxy in front of a server that counts round trips: how often the server answered after its client had spoken.

And for how long the client waited for those answers, the server's own work included.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator


class CountingProxy:
    """Listens on 127.0.0.1; everything goes through unchanged."""

    def __init__(self, host: str, port: int) -> None:
        self.round_trips = 0
        self.waited_seconds = 0.0
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                asked: list[float] = []
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass, args=(client, server, asked, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, asked, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, asked: list[float], from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if from_client:
                    asked.append(time.perf_counter())
                elif asked:
                    self.round_trips += 1
                    self.waited_seconds += time.perf_counter() - asked[-1]
                    asked.clear()
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def counting_proxy(host: str, port: int) -> Iterator[CountingProxy]:
    proxy = CountingProxy(host, port)
    try:
        yield proxy
    finally:
        proxy.close()
