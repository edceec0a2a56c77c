"""The host's hooks. The docstrings are their documentation; docs/howto/write-a-plugin.md teaches each with an example.

An implementation may be a plain function, which runs in the plugin's own worker thread, or a coroutine
function, which runs on the event loop; both under `hook_timeout_seconds`. It names only the arguments it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from types import ModuleType

    import click

    from starbase_host.alarms import Alarm
    from starbase_host.client import CommandHost
    from starbase_host.plugins import Host
    from starbase_host.query import Query, Result
    from starbase_host.routes import Route

PROJECT = "starbase"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_hookspecs() -> ModuleType | type:
    """Offer hooks of your own to other plugins: answer a module or class of functions marked with `hookspec`.

    Called once at start, before anything else. Plugins that implement one of them mark it
    `hookimpl(optionalhook=True)`, so that they start when your plugin is off.
    """
    raise NotImplementedError


@hookspec
def register_routes(host: Host) -> Sequence[Route]:
    """Answer the plugin's HTTP routes. Called once at start.

    Every path lies under the plugin's prefix: its name with dashes, `/my-plugin`, or what the plugin object
    states as `path_prefix`. Two plugins with one prefix, or a path outside it, stop the start.
    """
    raise NotImplementedError


@hookspec
def register_commands(host: CommandHost) -> Sequence[click.Command]:
    """Answer commands for the `starbase` command line. Called each time it is used.

    `host` is not the host itself, which may run elsewhere or not at all: reach it by `host.client()`. A name
    that another command has already stops the command line.
    """
    raise NotImplementedError


@hookspec
def plugin_lifespan(host: Host) -> AbstractAsyncContextManager[None]:
    """Answer an async context manager that is entered when the host starts and left when it stops.

    Entered in plugin.toml's order, left in reverse. Entering may take three times `hook_timeout_seconds`, leaving
    three seconds for all plugins together.
    """
    raise NotImplementedError


@hookspec
def before_query(query: Query) -> Query | None:
    """See a query before it runs; answer another `Query` to run instead, or None to leave it.

    A chain in plugin.toml's order. Raise QueryRejected(message) to refuse with 403. Any other exception, a
    time-out or nonsense refuses the query with 500: a plugin that guards queries must not fail open.
    """
    raise NotImplementedError


@hookspec
def after_query(query: Query, result: Result) -> Result | None:
    """See a result before it is answered; answer another `Result`, or None to leave it.

    A chain in plugin.toml's order, with the same rules as `before_query`. What a write did has been committed.
    """
    raise NotImplementedError


@hookspec
def on_alarm(alarm: Alarm) -> None:
    """An alarm of this plugin is due. Called for the alarm's owner only.

    At least once, never early; an alarm that was due while the host was off fires at start. One that raises
    is tried again after 2, 4, 8 … up to 300 seconds, without end. While the plugin is off, its alarms wait.
    """
    raise NotImplementedError


def names() -> list[str]:
    """The names of the host's hooks."""
    found: dict[str, Any] = globals()
    return [name for name, item in found.items() if hasattr(item, f"{PROJECT}_spec")]
