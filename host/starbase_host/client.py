"""How a command talks to the host: over HTTP if one is running, else in this process for a moment.

The lock file of the database decides which. Both have the same routes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from starbase_host.admin_token import known_token
from starbase_host.app import create_app
from starbase_host.config import HostConfig
from starbase_host.errors import ConfigError, Conflict, StarbaseError
from starbase_host.lock import Holder, holder_of
from starbase_host.new_plugin import PACKAGE, fill, write_new
from starbase_host.printable import printable, printable_json

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("starbase")

CONNECT_TIMEOUT_SECONDS = 5.0
# A request that reads or configures gets its answer soon, even from a busy host; only a run may take hours.
READ_TIMEOUT_SECONDS = 60.0
# How long a starting host may take until its lock file has its address.
START_SECONDS = 5.0
POLL_SECONDS = 0.05
# No real host has this address.
IN_PROCESS = "http://in-process"


class CommandFailed(StarbaseError):
    """The host returned an error, or cannot be reached.

    status: the HTTP status of the error; 503 when the host cannot be reached.
    """

    code = "command_failed"
    status = 503


class HostClient:
    """Sends requests to one host, as admin.

    in_process: True when no host is running, so that this process does the work, and no alarm fires.
    """

    def __init__(
        self, client: httpx.AsyncClient, loop: asyncio.AbstractEventLoop, *, in_process: bool, token_from: str
    ) -> None:
        self.in_process = in_process
        self._client = client
        self._token_from = token_from
        self._loop = loop

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: dict[str, Any] | None = None,
        patient: bool = False,
    ) -> Any:
        """Call a route and return its `result`.

        method, path: such as "GET", "/status".
        body: a JSON value; None sends no body.
        params: the query parameters.
        patient: wait for the answer without a limit; else READ_TIMEOUT_SECONDS.
        Raises CommandFailed with the error of the route, or when the host does not answer.
        """
        answer = self.begin(method, path, body=body, params=params, patient=patient)
        try:
            return answer.result()
        except BaseException:
            answer.cancel()
            raise

    def begin(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: dict[str, Any] | None = None,
        patient: bool = False,
    ) -> concurrent.futures.Future[Any]:
        """Do the same as `request` without waiting; the future has the result or the error."""
        return asyncio.run_coroutine_threadsafe(self._request(method, path, body, params, patient), self._loop)

    async def _request(self, method: str, path: str, body: Any, params: dict[str, Any] | None, patient: bool) -> Any:
        import httpx

        content = None if body is None else json.dumps(body)
        seconds = None if patient else READ_TIMEOUT_SECONDS
        timeout = httpx.Timeout(seconds, connect=CONNECT_TIMEOUT_SECONDS)
        try:
            response = await self._client.request(method, path, content=content, params=params, timeout=timeout)
        except httpx.ReadTimeout:
            undone = "" if method == "GET" else "; it may still do what you asked"
            why = f"has not answered within {seconds:g} s{undone}; look at its log, or restart it"
            raise CommandFailed(f"the host at {self._client.base_url} {why}") from None
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise CommandFailed(f"the host at {self._client.base_url} cannot be reached: {reason}") from error
        try:
            answer = response.json()
        except ValueError:
            raise CommandFailed(f"the host returned status {response.status_code} without JSON", status=502) from None
        if response.is_success:
            return answer["result"]
        if response.status_code == 401:
            raise CommandFailed(
                f"the host at {self._client.base_url} has another admin token than {self._token_from}, where this "
                "command reads it; restart the host, or put its token there",
                status=401,
            )
        raise CommandFailed(str(answer.get("error")), status=response.status_code)


class CommandHost:
    """The argument of `register_commands`: the configuration, the connection to the host, and the output.

    json_output: whether the user asked for JSON with --json.
    """

    def __init__(self, config: HostConfig | ConfigError, *, json_output: bool = False) -> None:
        """config: if it is a ConfigError, the first command that needs the configuration raises it."""
        self._config = config
        self.json_output = json_output

    @property
    def config(self) -> HostConfig:
        """The configuration. Raises ConfigError when plugin.toml cannot be read or is wrong."""
        if isinstance(self._config, ConfigError):
            raise self._config
        return self._config

    @contextlib.contextmanager
    def client(self) -> Iterator[HostClient]:
        """Connect to the running host, or start one in this process until the context ends.

        Raises ConfigError, Conflict or CommandFailed.
        """
        with self._client(only_running=False) as client:
            assert client is not None
            yield client

    @contextlib.contextmanager
    def running_client(self) -> Iterator[HostClient | None]:
        """Connect to the running host; None if no host is running. Raises what `client` raises."""
        with self._client(only_running=True) as client:
            yield client

    @contextlib.contextmanager
    def _client(self, *, only_running: bool) -> Iterator[HostClient | None]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="client", daemon=True)
        thread.start()
        stack = contextlib.AsyncExitStack()
        try:
            client = asyncio.run_coroutine_threadsafe(self._connect(stack, only_running), loop).result()
            if client is None:
                yield None
                return
            token_from = (
                f"admin_token in {self.config.path}" if self.config.admin_token else str(self.config.token_file)
            )
            in_process = str(client.base_url).rstrip("/") == IN_PROCESS
            yield HostClient(client, loop, in_process=in_process, token_from=token_from)
        finally:
            asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def write_plugin(self, name: str, templates: Mapping[str, str]) -> None:
        """Write a new plugin into the new directory `name`, with its pyproject.toml and README, and say so.

        templates: the texts of its files by their names. In both, $name is the plugin's name, $title that of its class,
            $path that of its routes, $api the version of the host's API, and $$ a dollar sign.
        Raises ConfigError if the name cannot be a plugin's, or nothing can be written; Conflict if it exists.
        """
        files = fill(name, {**templates, **PACKAGE})
        write_new(Path(name), files)
        self.emit({"directory": name, "files": list(files)}, f"{name} has {', '.join(files)}; its tests: pytest {name}")

    def emit(self, result: Any, text: str) -> None:
        """Print the result of a command: `text`, or `result` as JSON with --json.

        Control characters are shown as escapes, except line breaks and tabs in `text`.
        """
        shown = printable_json(json.dumps(result, ensure_ascii=False)) if self.json_output else ""
        click.echo(shown or printable(text, lines=True))

    async def _connect(self, stack: contextlib.AsyncExitStack, only_running: bool) -> httpx.AsyncClient | None:
        # Imported here, because the host itself does not need it, and would start later.
        import httpx

        url = await self._address()
        if url is None and only_running:
            return None
        if url is not None:
            # This is plain HTTP to our own host. The machine's certificates are not needed, and may be missing.
            nothing_trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(verify=nothing_trusted)
        else:
            url = IN_PROCESS
            app = create_app(self.config, fire_alarms=False)
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app)
        client = httpx.AsyncClient(
            base_url=url,
            transport=transport,
            headers={"authorization": f"Bearer {known_token(self.config)}", "content-type": "application/json"},
        )
        return await stack.enter_async_context(client)

    async def _address(self) -> str | None:
        """Return the URL of the host that holds the database; None when no process holds it.

        Only the lock file is trusted for that: another process may listen at the configured address, and would get the
        admin token.
        """
        path = self.config.lock_file
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        waited_for: Holder | None = None
        while (holder := holder_of(path)) is not None:
            if not holder.serves:
                raise Conflict(f"another {holder} is using {self.config.database}; try again when it has ended")
            if holder.url is not None:
                return holder.url
            if asyncio.get_running_loop().time() > deadline:
                raise CommandFailed(
                    f"the {holder} that holds {path} has not written its address; check its log, and try again"
                )
            if waited_for is None and holder.pid is not None:
                waited_for = holder
                log.info("the %s is starting or stopping; waiting for it", holder)
            await asyncio.sleep(POLL_SECONDS)
        return None
