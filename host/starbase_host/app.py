"""The application: `create_app(config)` builds it; its lifespan starts the parts of the host and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as StarletteRoute

from starbase_host import openapi, requests
from starbase_host.admin_token import admin_token
from starbase_host.alarms import AlarmService, PluginAlarms
from starbase_host.clock import Clock, iso
from starbase_host.config import HostConfig
from starbase_host.database import Database, DatabaseError
from starbase_host.discovery import LoadedPlugin, toml_key
from starbase_host.errors import ConfigError, InvalidRequest, TooLarge, Unavailable
from starbase_host.failures import Failure
from starbase_host.http import (
    Answer,
    BodyResponse,
    Cors,
    RouteOwner,
    Tokens,
    body_quota,
    body_values_quota,
    endpoint,
    on_http_exception,
    read_json,
)
from starbase_host.lock import Lock
from starbase_host.login_throttle import LoginThrottle
from starbase_host.modes import remove_other_access
from starbase_host.plugins import Host, Plugins
from starbase_host.query import Query, QueryRunner
from starbase_host.routes import MAX_NAME, MAX_NAMED, Caller, Route
from starbase_host.watcher import Watcher

STATEMENT = {
    "type": "object",
    "properties": {
        "sql": {"type": "string", "minLength": 1, "description": "Exactly one statement."},
        "params": {"type": ["array", "object", "null"], "description": 'A BLOB is {"$base64": "…"}.'},
    },
    "required": ["sql"],
    "additionalProperties": False,
}
QUERY_BODY = {
    "oneOf": [
        STATEMENT,
        {
            "type": "object",
            "properties": {"transaction": {"type": "array", "items": STATEMENT, "minItems": 1}},
            "required": ["transaction"],
            "additionalProperties": False,
        },
    ]
}

# The columns of the tables that the role client may read. A value for each table would be too long for a client where a
# table has thousands of columns.
TABLES = """
    SELECT t.name, t.type, c.name, c.type, c.pk
    FROM pragma_table_list AS t JOIN pragma_table_info(t.name) AS c WHERE t.type <> 'shadow' ORDER BY t.name, c.cid
"""
_COLUMN = {"name": {"type": "string"}, "type": {"type": "string"}, "key": {"type": "integer", "minimum": 0}}
_TABLE = {
    "name": {"type": "string"},
    "type": {"type": "string", "enum": ["table", "view", "virtual"]},
    "columns": {"type": "array", "items": {"type": "object", "properties": _COLUMN, "required": list(_COLUMN)}},
}
TABLES_ANSWER = {"type": "array", "items": {"type": "object", "properties": _TABLE, "required": list(_TABLE)}}

# For routes without query parameters. /health accepts any, because probes add some to avoid caches.
NO_QUERY: dict[str, dict[str, Any]] = {}
log = logging.getLogger("starbase")

# A shorter token can be guessed, because guesses with the right token never have to wait.
SHORT_TOKEN = 16
# Each statement has its own costs, and a client's body could contain tens of thousands.
CLIENT_STATEMENTS = 1000
VERSION = importlib.metadata.version("starbase-host")


def create_app(config: HostConfig, *, clock: Clock | None = None, fire_alarms: bool = True) -> Starlette:
    """Build the host as an ASGI application, with `app.state.core` as its `Core`.

    clock: the source of time.
    fire_alarms: False for a command that runs the host for a moment: no alarm fires, and the lock file names a command.
    Raises ConfigError when a plugin cannot be loaded.
    """
    core = Core(config, clock or Clock(), fire_alarms=fire_alarms)
    core.plugins.load()
    core.plugins.warn()
    app = Starlette(
        lifespan=lambda app: core.lifespan(app),
        middleware=[Middleware(Cors, config.cors_origins)],
        exception_handlers={HTTPException: on_http_exception},
    )
    # A redirect would not have the envelope.
    app.router.redirect_slashes = False
    app.state.core = core
    app.state.max_body_bytes = config.max_body_bytes
    app.state.parsing = asyncio.Lock()
    app.state.bodies = body_quota()
    app.state.body_values = body_values_quota()
    return app


class Core:
    """The parts of one host, and the endpoints of its own routes."""

    def __init__(self, config: HostConfig, clock: Clock, *, fire_alarms: bool) -> None:
        self.config = config
        self.clock = clock
        self.plugins = Plugins(config, clock)
        self.lock = Lock(config.lock_file)
        self.database = Database(config.database)
        self.alarms = AlarmService(self.database, clock, self.plugins.alarm)
        self.queries = QueryRunner(
            self.database,
            self.plugins,
            max_rows=config.max_query_rows,
            max_seconds=config.max_query_seconds,
            temp_bytes={"client": config.max_client_temp_bytes, "admin": config.max_admin_temp_bytes},
            clock=clock,
        )
        self.started_at = clock.now()
        self.made_token = False
        # Its own clock: the watcher waits in real time, also where a test moves the host's.
        self.watcher = Watcher(Clock(), self.plugins.plugin_of)
        self._app: Starlette | None = None
        self._document: dict[str, Any] = {}
        self._fire_alarms = fire_alarms

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Start the lock, the database, the plugins and the alarms; stop them in reverse order."""
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self.hold_lock())
            token, self.made_token = admin_token(self.config)
            if self._fire_alarms:
                _warn_of_short_tokens(self.config)
                if self.config.path is not None and self.config.holds_token:
                    remove_other_access(self.config.path)
            tokens = Tokens(
                admin=token,
                client=self.config.client_token,
                throttle=LoginThrottle(self.config.max_guess_wait_seconds),
                clock=self.clock,
                authenticate=self.plugins.authenticate if self.plugins.implementers("authenticate") else None,
            )
            with self._name_database_key():
                self.database.open()
            stack.push_async_callback(asyncio.to_thread, self.database.close)
            stack.push_async_callback(self.queries.end_watch)
            stack.callback(self.queries.close)
            if self._fire_alarms:
                stack.enter_context(self.watcher.run(asyncio.get_running_loop(), self.database.writer))
            await self.database.migrate("host", "starbase_host.sql")
            hosts = {plugin.name: self._host(plugin.name) for plugin in self.plugins.loaded}
            own, theirs = self._routes(), await self.plugins.routes(hosts)
            named = [("host", route) for route in own] + [(plugin.name, route) for plugin, route in theirs]
            self._document = openapi.document(named, VERSION)
            app.router.routes[:] = [
                *(_starlette_route(route, endpoint(route, tokens)) for route in own),
                *(_starlette_route(route, endpoint(route, tokens, _owner(plugin))) for plugin, route in theirs),
            ]
            self._app = app
            await stack.enter_async_context(self.plugins.lifespans(hosts))
            if self._fire_alarms:
                await stack.enter_async_context(self.alarms.run())
            # This runs first at the end, so that long waits end.
            stack.callback(self.stop)
            yield

    @contextlib.contextmanager
    def hold_lock(self) -> Iterator[None]:
        """Hold the lock inside this context. The server enters it before it binds its address; the lifespan too."""
        with self._name_database_key():
            self.lock.acquire(serves=self._fire_alarms)
        try:
            yield
        finally:
            self.lock.release()

    def announce(self, url: str) -> None:
        """Write the address into the lock file, for commands."""
        with self._name_database_key():
            self.lock.describe(url)

    @contextlib.contextmanager
    def _name_database_key(self) -> Iterator[None]:
        """Turn an error of the database file into an error of the key `host.database`."""
        try:
            yield
        except (ConfigError, DatabaseError) as error:
            why = error.reason if isinstance(error, ConfigError) else str(error)
            raise ConfigError(toml_key(self.config, "host.database"), why) from error

    def stop(self) -> None:
        """Tell everything that waits or runs long that the host is stopping. May be called more than once."""
        self.plugins.stopping.set()
        self.queries.interrupt()

    def _host(self, name: str) -> Host:
        return Host(
            name=name,
            plugins=self.plugins,
            database=self.database,
            alarms=PluginAlarms(self.alarms, name),
            clock=self.clock,
            config=self.config,
            serves=self._fire_alarms,
            request=self._request,
        )

    async def _request(self, *arguments: Any, **named: Any) -> Any:
        if self._app is None:
            raise Unavailable("the host has not started yet; call this in plugin_lifespan or later")
        return await requests.request(self._app, *arguments, **named)

    def _routes(self) -> list[Route]:
        return [
            Route("/query", self.query, ("POST",), "client", "Run SQL; rows as objects", NO_QUERY, QUERY_BODY),
            Route("/query/raw", self.query_raw, ("POST",), "client", "Run SQL; columns and rows", NO_QUERY, QUERY_BODY),
            Route(
                "/tables",
                self.tables,
                ("GET",),
                "client",
                "The tables that you can read, and their columns",
                NO_QUERY,
                answer=TABLES_ANSWER,
            ),
            Route("/health", self.health, ("GET",), None, "Whether the host is ready"),
            Route("/status", self.status, ("GET",), "admin", "The host, its database and its plugins", NO_QUERY),
            Route("/plugins", self.list_plugins, ("GET",), "admin", "The plugins, their hooks and routes", NO_QUERY),
            Route("/openapi.json", self.openapi, role=None, summary="This document", envelope=False),
        ]

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json: without a token, because tools read it so. It reveals no more than the documentation."""
        return JSONResponse(self._document)

    async def query(self, request: Request) -> Response:
        """POST /query: rows as objects."""
        return await self._run(request, raw=False)

    async def query_raw(self, request: Request) -> Response:
        """POST /query/raw: columns and rows, with duplicate names."""
        return await self._run(request, raw=True)

    async def tables(self, request: Request) -> Any:
        """GET /tables: what the role client may read, also for an admin."""
        found = await self.queries.run(Query(sql=TABLES, role="client"))
        tables: dict[str, dict[str, Any]] = {}
        rules = self.queries.read_rules
        if rules is not None:
            await rules.decide("client", [(row[0], row[2]) for row in found.rows])
        for name, kind, column, declared, key in found.rows:
            if rules is not None and rules.find("client", name, column) == "deny":
                continue
            table = tables.setdefault(name, {"name": name, "type": kind, "columns": []})
            table["columns"].append({"name": column, "type": declared, "key": key})
        return list(tables.values())

    async def health(self, request: Request) -> Any:
        if self.plugins.stopping.is_set():
            raise Unavailable("the host is stopping")
        return {"status": "ready"}

    async def status(self, request: Request) -> Any:
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "started_at": iso(self.started_at),
            "uptime_seconds": round(self.clock.now() - self.started_at, 3),
            "database": {"path": str(self.config.database), "bytes": _size(self.config.database)},
            "hold_ups": self.watcher.shown(),
            "plugins": await self.list_plugins(request),
        }

    async def list_plugins(self, request: Request) -> Any:
        return [
            {
                **plugin.summary(),
                "routes": [{"path": route.path, "methods": list(route.methods)} for route in plugin.routes],
                "failed": plugin.failed,
                "failures": plugin.failures.shown(),
            }
            for plugin in self.plugins.loaded
        ]

    async def _run(self, request: Request, *, raw: bool) -> Response:
        body = await read_json(request)
        if not isinstance(body, dict):
            raise InvalidRequest('the body must be an object: {"sql": "…", "params": […]}')
        caller = request.state.caller
        role = caller.role
        if "transaction" not in body:
            return BodyResponse(await self.queries.answer(_query(body, "", caller, raw=raw)))
        unknown = sorted(set(body) - {"transaction"})
        statements = body["transaction"]
        if unknown or not isinstance(statements, list) or not statements:
            raise InvalidRequest('"transaction" must be the only field, and a list of {"sql", "params"}')
        if role == "client" and len(statements) > CLIENT_STATEMENTS:
            raise TooLarge(f"the transaction has more than {CLIENT_STATEMENTS:,} statements, a client's limit")
        queries = [_query(each, f"transaction[{index}].", caller, raw=raw) for index, each in enumerate(statements)]
        return BodyResponse(await self.queries.answer_transaction(queries))


def _warn_of_short_tokens(config: HostConfig) -> None:
    for key in ("admin_token", "client_token"):
        if 0 < len(getattr(config, key) or "") < SHORT_TOKEN:
            log.warning(
                "host.%s is shorter than %d characters, so it can be guessed; use a random one with 32 characters",
                key,
                SHORT_TOKEN,
            )


def _query(body: Any, where: str, caller: Caller, *, raw: bool) -> Query:
    if not isinstance(body, dict):
        raise InvalidRequest(fields={where.rstrip(".") or "body": "must be an object with the field sql"})
    unknown = [key for key in body if key not in ("sql", "params")]
    fields = {f"{where}{key[:MAX_NAME]}": "unknown field; known: sql, params" for key in unknown[:MAX_NAMED]}
    sql, params = body.get("sql"), body.get("params")
    if not isinstance(sql, str) or not sql.strip():
        fields[f"{where}sql"] = "must be a string with one SQL statement"
    if params is not None and not isinstance(params, list | dict):
        fields[f"{where}params"] = "must be a list, or an object for named parameters"
    if fields:
        raise InvalidRequest(fields=fields)
    return Query(sql=str(sql), params=params, role=caller.role, raw=raw, caller=caller)


def _starlette_route(route: Route, handle: Callable[[Request], Awaitable[Response]]) -> StarletteRoute:
    return StarletteRoute(route.path, handle, methods=list(route.methods))


def _owner(plugin: LoadedPlugin) -> RouteOwner:
    def count(route: Route, failure: Failure) -> None:
        plugin.count(f"route {route.path}", str(failure))

    return RouteOwner(plugin.name, plugin.worker.describe, count)


def _size(path: Path) -> int:
    return sum(part.stat().st_size for part in (path, path.with_name(path.name + "-wal")) if part.exists())


__all__ = ["Answer", "Core", "create_app"]
