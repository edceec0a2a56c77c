"""The host's hooks. The docstrings are their documentation; docs/howto/write-a-plugin.md teaches each with an example.

An implementation may be a plain function, which runs in the plugin's own thread, or a coroutine function, which runs on
the event loop. Both have `hook_timeout_seconds`. An implementation names only the arguments that it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from types import ModuleType

    import click
    from starlette.requests import Request

    from starbase_host.alarms import Alarm
    from starbase_host.client import CommandHost
    from starbase_host.plugins import Host
    from starbase_host.query import Query, Result
    from starbase_host.read_rules import ReadDecision
    from starbase_host.routes import Caller, Role, Route

PROJECT = "starbase"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_hookspecs() -> ModuleType | type:
    """Offer your own hooks to other plugins: return a module or class of functions marked with `hookspec`.

    Called once at start, before any other hook. Plugins that implement one of your hooks mark it
    `hookimpl(optionalhook=True)`, so that they also start when your plugin is not enabled.
    """
    raise NotImplementedError


@hookspec
def register_routes(host: Host) -> Sequence[Route]:
    """Return the plugin's HTTP routes. Called once at start.

    Every path lies under the plugin's prefix: the `path_prefix` of the plugin object, or else its name with dashes, as
    in `/my-plugin`. If two plugins have the same prefix, or a path lies outside it, the host does not start.
    """
    raise NotImplementedError


@hookspec
def register_commands(host: CommandHost) -> Sequence[click.Command]:
    """Return commands for the `starbase` command line. Called each time somebody uses it.

    `host` is not the host itself, which may run in another process or not at all: use `host.client()` to reach it. If
    another command already has the name, the command line fails.
    """
    raise NotImplementedError


@hookspec
def plugin_lifespan(host: Host) -> AbstractAsyncContextManager[None]:
    """Return an async context manager that the host enters when it starts and leaves when it stops.

    The host enters them in the order of plugin.toml and leaves them in reverse. Entering may take three times
    `hook_timeout_seconds`; leaving may take three seconds for all plugins together.
    """
    raise NotImplementedError


@hookspec
def authenticate(request: Request) -> Role | Caller | None:
    """Say who sends a request that has no valid token, such as by a cookie or a JWT: a role, a `Caller`, or None.

    Called for routes that need a role, in the order of plugin.toml, until a plugin knows the caller. `request` is a
    copy without a body. A plugin that raises, times out or returns anything else knows nobody: the next one is asked,
    and if no plugin knows the caller, the request is refused with 500. If none fails, it is refused with 401, and the
    request's Authorization and Cookie headers count as a failed login.
    """
    raise NotImplementedError


@hookspec
def before_query(query: Query) -> Query | None:
    """See a query before it runs: return another `Query` to run instead, or None to leave it.

    The plugins form a chain in the order of plugin.toml. Raise QueryRejected(message) to refuse the query with 403. Any
    other exception, a time-out or an invalid answer refuses it with 500: a plugin that guards queries must not fail
    open.
    """
    raise NotImplementedError


@hookspec
def after_query(query: Query, result: Result) -> Result | None:
    """See a result before the caller gets it: return another `Result`, or None to leave it.

    The plugins form a chain in the order of plugin.toml, with the same rules as `before_query`. The changes of a write
    are already committed.
    """
    raise NotImplementedError


@hookspec
def authorize_read(role: Role, table: str, column: str) -> ReadDecision | None:
    """Decide whether a role may read a column in SQL: "allow", "null" (it reads NULL), "deny" (403), or None.

    Called once for each role, table and column that a statement reads; the host keeps the answer until it stops.
    `column` is "" where a statement reads no column, such as in count(*). The strictest answer of all plugins counts;
    None is "allow". SQLite's authorizer enforces it in every expression, also in views. A plugin that raises, times out
    or returns anything else refuses the query with 500, and is asked again.
    """
    raise NotImplementedError


@hookspec
def on_alarm(alarm: Alarm) -> None:
    """An alarm of this plugin is due. The host calls only the plugin that set the alarm.

    The host delivers an alarm at least once and never early. If it was due while the host was off, it fires at start.
    If this hook raises, the host calls it again after 2, 4, 8 … up to 300 seconds, without end. While the plugin is not
    enabled, its alarms wait.
    """
    raise NotImplementedError


def names() -> list[str]:
    """Return the names of the host's hooks."""
    found: dict[str, Any] = globals()
    return [name for name, item in found.items() if hasattr(item, f"{PROJECT}_spec")]
