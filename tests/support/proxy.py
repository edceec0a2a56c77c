"""A TCP proxy between a host and its source, which a test can make slow, deaf, broken or false.

It runs in its own thread; every method may be called from any other. What it does holds for the connections
that are open and for those to come, until `heal`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

CHUNK = 65536


@dataclass
class Fault:
    """What is wrong with the network now. passed: bytes that came from the source since then.

    black_hole: nothing passes in either direction. refuse: no port listens. delay_seconds: before each chunk.
    bytes_per_second: a trickle. cut_at: a connection ends when so many bytes have passed, once. corrupt: changes
    what comes from the source, given where it begins.
    """

    black_hole: bool = False
    delay_seconds: float = 0.0
    bytes_per_second: float | None = None
    cut_at: int | None = None
    corrupt: Callable[[int, bytes], bytes] | None = None
    passed: int = field(default=0)


class Proxy:
    """Listens on loopback and passes everything on to one server."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.host = "127.0.0.1"
        self.port = 0
        self.accepted = 0
        self.cuts = 0
        self.fault = Fault()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def begin(self, **fault: Any) -> None:
        """From now on the network has this fault, and no other."""
        self._call(self._begin(Fault(**fault)))

    def heal(self) -> None:
        """From now on everything passes again. What a black hole has swallowed stays lost: its connections end."""
        self._call(self._heal())

    def cut(self) -> None:
        """Reset every connection that is open."""
        self._call(self._cut())

    def refuse(self) -> None:
        """The port no longer listens, and open connections are reset; `heal` listens again."""
        self._call(self._refuse())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        await self._refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _begin(self, fault: Fault) -> None:
        self.fault = fault

    async def _heal(self) -> None:
        swallowed = self.fault.black_hole
        self.fault = Fault()
        if swallowed:
            await self._cut()
        if self._server is None:
            await self._listen()

    async def _cut(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection(*self.target)
        except OSError:
            _reset(writer)
            self._writers.discard(writer)
            return
        self._writers.add(back)
        for source, sink, answers in ((reader, back, False), (there, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool) -> None:
        try:
            while data := await source.read(CHUNK):
                if answers:
                    data = await self._suffer(data)
                elif self.fault.black_hole:
                    data = b""
                cut = answers and self.fault.cut_at is not None and self.fault.passed >= self.fault.cut_at
                if cut:
                    data = data[: len(data) - (self.fault.passed - (self.fault.cut_at or 0))]
                sink.write(data)
                await sink.drain()
                if cut:
                    self.fault.cut_at = None
                    self.cuts += 1
                    # In good order: a reset would take back what has not been read yet.
                    sink.close()
                    return
            sink.close()
        except (OSError, EOFError):
            _reset(sink)
        finally:
            self._writers.discard(sink)

    async def _suffer(self, data: bytes) -> bytes:
        """What is left of a chunk from the source. Raises ConnectionError where it is cut."""
        fault = self.fault
        if fault.black_hole:
            return b""
        if fault.delay_seconds:
            await asyncio.sleep(fault.delay_seconds)
        if fault.bytes_per_second is not None:
            await asyncio.sleep(len(data) / fault.bytes_per_second)
        at, fault.passed = fault.passed, fault.passed + len(data)
        if fault.corrupt is not None:
            data = fault.corrupt(at, data)
        return data


def _reset(writer: asyncio.StreamWriter) -> None:
    """End with a reset, and not in good order."""
    with contextlib.suppress(OSError):
        raw = writer.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()
