"""Serves the application with uvicorn: the socket, the signals, and an end within five seconds."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import uvicorn

from starbase_host.app import Core, create_app
from starbase_host.clock import Clock
from starbase_host.config import HostConfig
from starbase_host.errors import ConfigError

GRACE_SECONDS = 2


class Server(uvicorn.Server):
    """uvicorn's server, which tells the host that it stops before it waits for open requests to end."""

    def __init__(self, config: uvicorn.Config, core: Core, listener: socket.socket) -> None:
        super().__init__(config)
        self._core = core
        self._listener = listener
        self.ready: Callable[[], None] = lambda: None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await super().serve(sockets or [self._listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._core.stop()
        await super().shutdown(sockets)


@contextlib.asynccontextmanager
async def serving(config: HostConfig, *, clock: Clock | None = None) -> AsyncIterator[tuple[Server, str]]:
    """A running host inside this context: the server (set `should_exit` to stop it) and its address."""
    app = create_app(config, clock=clock)
    core: Core = app.state.core
    with contextlib.closing(bind(config)) as listener:
        async with app.router.lifespan_context(app):
            url = _url(listener)
            core.lock.describe(url)
            settings = uvicorn.Config(
                app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=GRACE_SECONDS
            )
            yield Server(settings, core, listener), url
            # Where uvicorn was never served, nothing has said yet that the end has come.
            core.stop()


def serve(config: HostConfig, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C. `ready` hears the address once requests are answered."""

    async def run() -> None:
        async with serving(config) as (server, url):
            server.ready = lambda: ready(url)
            await server.serve()

    run_until_signal(run())


def run_until_signal(main: Coroutine[Any, Any, None]) -> None:
    """Run `main`, which serves a `Server`. The signals that uvicorn catches and raises again end quietly here."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with asyncio.Runner() as runner:
            # The runner puts its own handler on SIGINT only where Python's default one stands.
            runner.run(main)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def bind(config: HostConfig) -> socket.socket:
    """The listening socket. Raises ConfigError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(1024)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        name = f"{config.path.name}: host.bind" if config.path else "host.bind"
        raise ConfigError(name, f"cannot listen on {config.bind}: {error.strerror}; choose another port") from error
    return listener


def _url(listener: socket.socket) -> str:
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
