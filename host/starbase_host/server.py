"""Serves the application with uvicorn: the socket, the signals, and an end within five seconds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import uvicorn

from starbase_host.app import Core, create_app
from starbase_host.clock import Clock
from starbase_host.config import HostConfig
from starbase_host.discovery import toml_key
from starbase_host.errors import ConfigError
from starbase_host.library_overrides import check_overrides, overrides
from starbase_host.protocol import HEADER_BYTES, Protocol, StrictBuffer

log = logging.getLogger("starbase")

GRACE_SECONDS = 2
KEEP_ALIVE_SECONDS = 5
# From the signal to the end of the process, at the latest.
LAST_SECONDS = 4.5
SIGNALS = frozenset((signal.SIGINT, signal.SIGTERM))
PORT_MENDS = {
    errno.EADDRINUSE: "choose another port",
    errno.EACCES: "choose a port above 1023, or allow this one to the process",
}


class Server(uvicorn.Server):
    """uvicorn's server, which tells the host that it stops before it waits for open requests to end."""

    def __init__(self, config: uvicorn.Config, core: Core, listener: socket.socket) -> None:
        super().__init__(config)
        self.core = core
        self._listener = listener
        self.ready: Callable[[], None] = lambda: None
        self.ending: Callable[[], None] = lambda: None

    @overrides(library="uvicorn")
    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await super().serve(sockets or [self._listener])

    @overrides("uvicorn.server.Server._serve")
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready()

    @overrides("uvicorn.server.Server._serve")
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.ending()
        # The address is given up before the lock: who listens there next must get no command's token.
        with contextlib.suppress(ConfigError):
            self.core.lock.describe(None)
        self.core.stop()
        await super().shutdown(sockets)


@contextlib.asynccontextmanager
async def serving(config: HostConfig, *, clock: Clock | None = None) -> AsyncIterator[tuple[Server, str]]:
    """A running host inside this context: the server (set `should_exit` to stop it) and its address."""
    check_overrides(Server, Protocol, StrictBuffer)
    app = create_app(config, clock=clock)
    core: Core = app.state.core
    # The lock first: the second host on a database must hear of the first, and not that its port is taken.
    with core.holding(), contextlib.closing(bind(config)) as listener:
        async with app.router.lifespan_context(app):
            url = _url(listener)
            core.listens(url)
            settings = uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                # A header of theirs would let callers name their own address.
                proxy_headers=False,
                server_header=False,
                h11_max_incomplete_event_size=HEADER_BYTES,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
            yield Server(settings, core, listener), url
            # Where uvicorn was never served, nothing has said yet that the end has come.
            core.stop()


def serve(config: HostConfig, ready: Callable[[str, bool], None]) -> None:
    """Serve until SIGTERM or Ctrl-C.

    `ready` hears the address once requests are answered, and whether an admin token was made.
    """
    ending = Ending()

    async def run() -> None:
        ending.main = asyncio.current_task()
        async with serving(config) as (server, url):
            server.ready = lambda: ready(url, server.core.made_token)
            server.ending = ending.hurry
            ending.server = server
            # What is alive now stays: it need not be looked through again.
            gc.collect()
            gc.freeze()
            await server.serve()

    before = {number: signal.signal(number, ending.on_signal) for number in SIGNALS}
    try:
        # The runner puts its own handler on SIGINT only where Python's default one stands.
        with ending.watching(), asyncio.Runner() as runner, contextlib.suppress(asyncio.CancelledError):
            runner.run(run())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    ending.leave()


class Ending:
    """What a signal does: end the start, or the server; and end the process when that takes too long."""

    def __init__(self) -> None:
        self.main: asyncio.Task[None] | None = None
        self.server: Server | None = None
        self._signalled = False

    def on_signal(self, *_: object) -> None:
        """Called while the host starts, and once more when uvicorn, which has caught it, is done."""
        self.hurry()
        if self.server is not None:
            self.server.should_exit = True
        elif self.main is not None:
            self.main.get_loop().call_soon_threadsafe(self.main.cancel)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Hear of a signal in a thread as well: Python calls a handler only once the main thread runs Python again.

        What a driver or a plugin computes there may take for ever. The signal itself writes its number.
        """
        hearing, telling = socket.socketpair()
        telling.setblocking(False)

        def hear() -> None:
            with contextlib.suppress(OSError):
                while numbers := hearing.recv(64):
                    if not SIGNALS.isdisjoint(numbers):
                        self.hurry()

        with hearing, telling:
            threading.Thread(target=hear, name="signals", daemon=True).start()
            before = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(before)
                # The thread reads the end.
                telling.shutdown(socket.SHUT_RDWR)

    def hurry(self) -> None:
        """Whatever a plugin or a statement does that cannot be interrupted, the process ends. Once is enough."""
        if not self._signalled:
            self._signalled = True
            timer = threading.Timer(LAST_SECONDS, self.leave)
            timer.daemon = True
            timer.start()

    def leave(self) -> None:
        """End now where threads that do not end would keep the interpreter. What is committed is safe."""
        left = [
            thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon
        ]
        if left or threading.current_thread() is not threading.main_thread():
            log.warning("the host ends although some of its threads do not: %s", [thread.name for thread in left])
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)


def bind(config: HostConfig) -> socket.socket:
    """The listening socket. Raises ConfigError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Named, or asyncio does not know the connections for TCP and leaves Nagle's algorithm on: an answer is written in
    # two pieces, of which the second then waits 40 ms for the client to acknowledge the first.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(1024)
        listener.setblocking(False)
    except (OSError, UnicodeError) as error:
        listener.close()
        reason = f"cannot listen on {config.bind}: {getattr(error, 'strerror', None) or 'is no name'}"
        mend = PORT_MENDS.get(getattr(error, "errno", None) or 0, "write an address of this machine, such as 127.0.0.1")
        raise ConfigError(toml_key(config, "host.bind"), f"{reason}; {mend}") from error
    return listener


def _url(listener: socket.socket) -> str:
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
