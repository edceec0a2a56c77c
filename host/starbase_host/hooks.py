"""The host's hooks as types: a plugin's class that derives from them is checked by a type checker.

Each protocol has the name of its hook, and is only for a method with all arguments of the hook. A method may be a plain
function or a coroutine function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import click
    from starlette.requests import Request

    from starbase_host.alarms import Alarm
    from starbase_host.client import CommandHost
    from starbase_host.plugins import Host
    from starbase_host.query import Query, Result
    from starbase_host.read_rules import ReadDecision
    from starbase_host.routes import Caller, Role, Route


class RegisterHookspecs(Protocol):
    def register_hookspecs(self) -> ModuleType | type: ...


class RegisterRoutes(Protocol):
    def register_routes(self, host: Host) -> Sequence[Route] | Awaitable[Sequence[Route]]: ...


class RegisterCommands(Protocol):
    def register_commands(self, host: CommandHost) -> Sequence[click.Command]: ...


class PluginLifespan(Protocol):
    def plugin_lifespan(self, host: Host) -> AbstractAsyncContextManager[None]: ...


class Authenticate(Protocol):
    def authenticate(self, request: Request) -> Role | Caller | Awaitable[Role | Caller | None] | None: ...


class BeforeQuery(Protocol):
    def before_query(self, query: Query) -> Query | Awaitable[Query | None] | None: ...


class AfterQuery(Protocol):
    def after_query(self, query: Query, result: Result) -> Result | Awaitable[Result | None] | None: ...


class AuthorizeRead(Protocol):
    def authorize_read(
        self, role: Role, table: str, column: str
    ) -> ReadDecision | Awaitable[ReadDecision | None] | None: ...


class OnAlarm(Protocol):
    def on_alarm(self, alarm: Alarm) -> Awaitable[None] | None: ...


__all__ = [
    "AfterQuery",
    "Authenticate",
    "AuthorizeRead",
    "BeforeQuery",
    "OnAlarm",
    "PluginLifespan",
    "RegisterCommands",
    "RegisterHookspecs",
    "RegisterRoutes",
]
