"""Serves the application with uvicorn: the socket, the signals, and a shutdown within five seconds."""

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
# The longest time from the signal to the end of the process.
LAST_SECONDS = 4.5
SIGNALS = frozenset((signal.SIGINT, signal.SIGTERM))
PORT_FIXES = {
    errno.EADDRINUSE: "choose another port",
    errno.EACCES: "choose a port above 1023, or allow the process to use this one",
}


class Server(uvicorn.Server):
    """uvicorn's server. When it stops, it tells the host first, and then waits for open requests.

    ready: called when the server accepts requests.
    ending: called when the server begins to stop.
    """

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
        # Before the lock is released, the address goes out of its file: a command must not send its token to the next
        # process that listens there.
        with contextlib.suppress(ConfigError):
            self.core.lock.describe(None)
        self.core.stop()
        await super().shutdown(sockets)


@contextlib.asynccontextmanager
async def run_server(config: HostConfig, *, clock: Clock | None = None) -> AsyncIterator[tuple[Server, str]]:
    """Run a host inside this context; yields the server (set `should_exit` to stop it) and its URL.

    Raises ConfigError, Conflict, or IncompatibleLibrary when the host cannot start.
    """
    check_overrides(Server, Protocol, StrictBuffer)
    app = create_app(config, clock=clock)
    core: Core = app.state.core
    # The lock first: a second host on a database must report the first one, not that its port is taken.
    with core.hold_lock(), contextlib.closing(bind(config)) as listener:
        async with app.router.lifespan_context(app):
            url = _url(listener)
            core.announce(url)
            settings = uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                # With proxy headers, callers could forge their address.
                proxy_headers=False,
                server_header=False,
                h11_max_incomplete_event_size=HEADER_BYTES,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
            yield Server(settings, core, listener), url
            # If the server was never started, nothing has stopped the core yet.
            core.stop()


def serve(config: HostConfig, ready: Callable[[str, bool], None]) -> None:
    """Serve until SIGTERM or Ctrl-C.

    ready: called when the host accepts requests, with its URL and whether it made an admin token.
    Raises what `run_server` raises.
    """
    ending = Shutdown()

    async def run() -> None:
        ending.main = asyncio.current_task()
        async with run_server(config) as (server, url):
            server.ready = lambda: ready(url, server.core.made_token)
            server.ending = ending.start_timer
            ending.server = server
            # These objects stay until the end, so the collector need not check them again.
            gc.collect()
            gc.freeze()
            await server.serve()

    before = {number: signal.signal(number, ending.on_signal) for number in SIGNALS}
    try:
        # asyncio.Runner sets its own SIGINT handler only if Python's default one is set.
        with ending.watch_signals(), asyncio.Runner() as runner, contextlib.suppress(asyncio.CancelledError):
            runner.run(run())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    ending.exit_if_threads_run()


class Shutdown:
    """What a signal does: it ends the start or the server, and the process if that takes too long."""

    def __init__(self) -> None:
        self.main: asyncio.Task[None] | None = None
        self.server: Server | None = None
        self._timer_started = False

    def on_signal(self, *_: object) -> None:
        """Handle a signal while the host starts, and again after uvicorn, which catches it, is done."""
        self.start_timer()
        if self.server is not None:
            self.server.should_exit = True
        elif self.main is not None:
            self.main.get_loop().call_soon_threadsafe(self.main.cancel)

    @contextlib.contextmanager
    def watch_signals(self) -> Iterator[None]:
        """Watch for signals in a thread too: Python calls a handler only when the main thread runs Python again.

        A driver or a plugin may keep the main thread busy for ever. The signal itself writes its number to a socket.
        """
        hearing, telling = socket.socketpair()
        telling.setblocking(False)

        def hear() -> None:
            with contextlib.suppress(OSError):
                while numbers := hearing.recv(64):
                    if not SIGNALS.isdisjoint(numbers):
                        self.start_timer()

        with hearing, telling:
            threading.Thread(target=hear, name="signals", daemon=True).start()
            before = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(before)
                # Ends the thread's recv.
                telling.shutdown(socket.SHUT_RDWR)

    def start_timer(self) -> None:
        """Start the timer that ends the process, even if a plugin or a statement cannot be interrupted."""
        if not self._timer_started:
            self._timer_started = True
            timer = threading.Timer(LAST_SECONDS, self.exit_if_threads_run)
            timer.daemon = True
            timer.start()

    def exit_if_threads_run(self) -> None:
        """End the process now if threads would keep the interpreter from ending. Committed data is safe."""
        left = [
            thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon
        ]
        if left or threading.current_thread() is not threading.main_thread():
            log.warning("the host ends while some of its threads still run: %s", [thread.name for thread in left])
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)


def bind(config: HostConfig) -> socket.socket:
    """Make the listening socket. Raises ConfigError when the host cannot listen on the address."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Without IPPROTO_TCP, asyncio does not recognize the connections as TCP and leaves Nagle's algorithm on. An answer
    # is written in two pieces, and the second would wait 40 ms until the client acknowledges the first.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(1024)
        listener.setblocking(False)
    except (OSError, UnicodeError) as error:
        listener.close()
        reason = f"cannot listen on {config.bind}: {getattr(error, 'strerror', None) or 'is not a valid host name'}"
        fix = PORT_FIXES.get(getattr(error, "errno", None) or 0, "use an address of this machine, such as 127.0.0.1")
        raise ConfigError(toml_key(config, "host.bind"), f"{reason}; {fix}") from error
    return listener


def _url(listener: socket.socket) -> str:
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
