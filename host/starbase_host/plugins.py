"""Checks the plugins of one host and calls their hooks.

The host calls each implementation itself: pluggy stops at the first that raises, and does not await. When an
implementation raises, times out or returns an invalid answer, the host logs that with the plugin's name; the two query
hooks refuse the query as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from starbase_host import hookspecs
from starbase_host.alarms import Alarm, OwnerAbsent, PluginAlarms
from starbase_host.clock import Clock
from starbase_host.config import HostConfig
from starbase_host.database import Database
from starbase_host.discovery import LoadedPlugin, find, one_line, toml_key
from starbase_host.errors import ConfigError, NotFound, PluginFailed, QueryRejected, did_you_mean
from starbase_host.isolation import Lifespan, leave_all
from starbase_host.plugin_answers import InvalidAnswer, copy_answer, routes_of
from starbase_host.routes import Route, route_problem

log = logging.getLogger("starbase.plugins")

LEAVE_TIMEOUT_SECONDS = 3.0
# Entering a lifespan may call a hook of other plugins, and each of those calls may take `hook_timeout_seconds`.
ENTER_TIMES = 3

T = TypeVar("T")

# The paths of the host's own routes; no plugin may register one of them.
HOST_PATHS = ("/query", "/tables", "/health", "/status", "/plugins", "/openapi.json")


class Host:
    """The host as one plugin sees it.

    name: the plugin's name.
    database: the internal SQLite database: `await host.database.write(function)`, `read(function)`, `migrate`.
    alarms: this plugin's timers.
    clock: the source of time.
    config: the host's configuration.
    stopping: an asyncio.Event that is set when the host begins to stop.
    serves: False in a command that runs the host for a moment, where no alarm fires.
    log: this plugin's logger.
    """

    def __init__(
        self,
        *,
        name: str,
        plugins: Plugins,
        database: Database,
        alarms: PluginAlarms,
        clock: Clock,
        config: HostConfig,
        serves: bool,
    ) -> None:
        self.name = name
        self.serves = serves
        self.database = database
        self.alarms = alarms
        self.clock = clock
        self.config = config
        self.stopping = plugins.stopping
        self.log = logging.getLogger(f"starbase.plugin.{name}")
        self._plugins = plugins

    def plugin(self, name: str) -> Any:
        """Return the object of another plugin. Raises NotFound when that plugin is not enabled."""
        return self._plugins.get(name).instance

    async def call(self, hook: str, **arguments: Any) -> list[tuple[str, Any]]:
        """Call a hook in every plugin that implements it, at the same time, each within `hook_timeout_seconds`.

        Returns (plugin name, answer) pairs, without the plugins that failed. Failures are logged.
        """
        return await self._plugins.call(hook, **arguments)

    async def call_plugin(
        self, plugin: str, hook: str, *, convert: Callable[[Any], Any] | None = None, **arguments: Any
    ) -> Any:
        """Call one plugin's implementation of a hook within `hook_timeout_seconds`, and return its answer.

        convert: turns the answer into what this method returns. It runs in that plugin's thread, within the same time
            limit, so that no method of the answer's type runs on the event loop.
        Raises NotFound when the plugin is not enabled or does not implement the hook; TimeoutError; and what the hook
        or `convert` raises.
        """
        return await self._plugins.call_one(plugin, hook, convert=convert, **arguments)

    def implementers(self, hook: str) -> list[str]:
        """Return the names of the plugins that implement a hook, in the order of plugin.toml."""
        return self._plugins.implementers(hook)


class Plugins:
    """The plugins of one host."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._loaded: dict[str, LoadedPlugin] = {}
        self.stopping = asyncio.Event()

    @property
    def loaded(self) -> list[LoadedPlugin]:
        """The enabled plugins, in the order of plugin.toml."""
        return list(self._loaded.values())

    def get(self, name: str) -> LoadedPlugin:
        if name not in self._loaded:
            raise NotFound(f"plugin {name} is not enabled; add [plugins.{name}] to plugin.toml")
        return self._loaded[name]

    def load(self) -> None:
        """Make every enabled plugin and check its hooks. Raises ConfigError, which names the file and the key."""
        self._manager.add_hookspecs(hookspecs)
        self._loaded = {plugin.name: plugin for plugin in find(self._config)}
        for plugin in self.loaded:
            self._register(plugin)
        self._add_hookspecs()
        self._check_hooks()

    async def call(self, hook: str, *, only: str | None = None, **arguments: Any) -> list[tuple[str, Any]]:
        """Call every implementation at the same time. Failures are logged, and left out of the result."""
        calls = [
            self._call_logged(plugin, function, hook, _select_arguments(names, arguments))
            for plugin, function, names in self._implementations(hook)
            if only in (None, plugin.name)
        ]
        return [answer for answer in await asyncio.gather(*calls) if answer is not None]

    async def call_one(
        self, plugin: str, hook: str, *, convert: Callable[[Any], Any] | None = None, **arguments: Any
    ) -> Any:
        """Call one plugin's implementation. Raises NotFound, TimeoutError, and what it or `convert` raises."""
        for each, function, names in self._implementations(hook):
            if each.name == plugin:
                return await each.worker.call(
                    function, _select_arguments(names, arguments), self._config.hook_timeout_seconds, convert
                )
        raise NotFound(f"plugin {plugin} is not enabled, or does not implement {hook}")

    def implementers(self, hook: str) -> list[str]:
        return [plugin.name for plugin, _, _ in self._implementations(hook)]

    def call_plain(self, hook: str, **arguments: Any) -> list[tuple[str, Any]]:
        """Call one implementation after the other without an event loop, before the host runs or without a host."""
        answers = []
        for plugin, function, names in self._implementations(hook):
            try:
                answer = plugin.worker.call_plain(
                    function, _select_arguments(names, arguments), self._config.hook_timeout_seconds
                )
            except Exception as error:
                self._record_failure(plugin, hook, error, traceback=False)
            else:
                answers.append((plugin.name, answer))
        return answers

    async def before_query(self, query: T) -> T:
        """Pass a query through each `before_query`, in the order of plugin.toml. A failure refuses the query."""
        for plugin, function, names in self._implementations("before_query"):
            query = await self._call_query_hook(
                plugin, "before_query", function, _select_arguments(names, {"query": query}), query
            )
        return query

    async def after_query(self, query: Any, result: T) -> T:
        """Pass a result through each `after_query`, under the same rules."""
        for plugin, function, names in self._implementations("after_query"):
            arguments = _select_arguments(names, {"query": query, "result": result})
            result = await self._call_query_hook(plugin, "after_query", function, arguments, result)
        return result

    async def alarm(self, alarm: Alarm) -> None:
        """Deliver an alarm to its plugin. Raises what the plugin raises, TimeoutError, or OwnerAbsent."""
        for plugin, function, names in self._implementations("on_alarm"):
            if plugin.name == alarm.plugin:
                await plugin.worker.call(
                    function, _select_arguments(names, {"alarm": alarm}), self._config.hook_timeout_seconds
                )
                return
        why = "does not implement on_alarm" if alarm.plugin in self._loaded else "is not enabled"
        raise OwnerAbsent(f"plugin {alarm.plugin} {why}")

    @contextlib.asynccontextmanager
    async def lifespans(self, hosts: dict[str, Host]) -> AsyncIterator[None]:
        """Enter every `plugin_lifespan`; leave them in reverse order when this context ends."""
        entered: list[Lifespan] = []
        try:
            for plugin, function, names in self._implementations("plugin_lifespan"):
                answer = await self._call_logged(
                    plugin, function, "plugin_lifespan", _select_arguments(names, {"host": hosts[plugin.name]})
                )
                if answer is None:
                    continue
                lifespan = Lifespan(answer[1], partial(self._record_failure, plugin, "plugin_lifespan"))
                if await lifespan.enter(ENTER_TIMES * self._config.hook_timeout_seconds):
                    entered.append(lifespan)
            yield
        finally:
            await leave_all(entered[::-1], LEAVE_TIMEOUT_SECONDS)

    async def routes(self, hosts: dict[str, Host]) -> list[tuple[LoadedPlugin, Route]]:
        """Return the routes of all plugins. Raises ConfigError when prefixes clash or a route is wrong."""
        taken = dict.fromkeys(HOST_PATHS, "the host")
        found: list[tuple[LoadedPlugin, Route]] = []
        for plugin, function, names in self._implementations("register_routes"):
            answer = await self._call_logged(
                plugin, function, "register_routes", _select_arguments(names, {"host": hosts[plugin.name]}), routes_of
            )
            if answer is None:
                continue
            self._check_prefix(plugin, taken)
            for route in answer[1]:
                self._check_route(plugin, route)
                plugin.routes.append(route)
                found.append((plugin, route))
        return found

    def _register(self, plugin: LoadedPlugin) -> None:
        key = toml_key(self._config, f"plugins.{plugin.name}")
        try:
            self._manager.register(plugin.instance, name=plugin.name)
        except pluggy.PluginValidationError as error:
            raise self._wrong_signature(error) from error
        except Exception as error:
            raise ConfigError(key, f"cannot be used: {type(error).__name__}: {one_line(error)}") from error
        plugin.hooks = tuple(sorted(caller.name for caller in self._manager.get_hookcallers(plugin.instance) or []))
        for name in hookspecs.names():
            # If the host ignored this silently, a plugin that guards queries would guard nothing.
            if name not in plugin.hooks and callable(getattr(plugin.instance, name, None)):
                raise ConfigError(key, f"defines {name} but does not mark it; write @hookimpl above it")

    def _add_hookspecs(self) -> None:
        for name, specs in self.call_plain("register_hookspecs"):
            if not _is_hookspecs(specs):
                self._record_failure(
                    self._loaded[name], "register_hookspecs", TypeError("did not return a module or class")
                )
                continue
            try:
                self._manager.add_hookspecs(specs)
            except pluggy.PluginValidationError as error:
                raise self._wrong_signature(error) from error
            except ValueError as error:
                raise ConfigError(
                    toml_key(self._config, f"plugins.{name}"),
                    f"its hookspecs cannot be used: {one_line(error)}; rename the hook",
                ) from error

    def _wrong_signature(self, error: pluggy.PluginValidationError) -> ConfigError:
        owner = next(plugin.name for plugin in self.loaded if plugin.instance is error.plugin)
        return ConfigError(
            toml_key(self._config, f"plugins.{owner}"), f"{one_line(error)}; use only the arguments of the hook"
        )

    def _check_hooks(self) -> None:
        callers = {name: each for name, each in vars(self._manager.hook).items() if isinstance(each, pluggy.HookCaller)}
        known = [name for name, caller in callers.items() if caller.has_spec()]
        for name, caller in callers.items():
            for implementation in caller.get_hookimpls():
                key = toml_key(self._config, f"plugins.{implementation.plugin_name}")
                if implementation.hookwrapper or implementation.wrapper:
                    raise ConfigError(key, f"its {name} is a wrapper, which is never called; write a plain hookimpl")
                if name not in known and not implementation.optionalhook:
                    optional = "mark it hookimpl(optionalhook=True) if another plugin offers it"
                    fix = did_you_mean(name, known, otherwise=optional)
                    raise ConfigError(key, f"implements an unknown hook, {name}; {fix}")

    def _check_prefix(self, plugin: LoadedPlugin, taken: dict[str, str]) -> None:
        for other, owner in taken.items():
            if (plugin.prefix + "/").startswith(other + "/") or (other + "/").startswith(plugin.prefix + "/"):
                raise ConfigError(
                    toml_key(self._config, f"plugins.{plugin.name}"),
                    f"its prefix {plugin.prefix} clashes with {other} of {owner}; give it another path_prefix",
                )
        taken[plugin.prefix] = plugin.name

    def _check_route(self, plugin: LoadedPlugin, route: Route) -> None:
        wrong = route_problem(route, plugin.prefix)
        if wrong is not None:
            raise ConfigError(toml_key(self._config, f"plugins.{plugin.name}"), f"its route {route.path} {wrong}")

    def _implementations(self, hook: str) -> list[tuple[LoadedPlugin, Callable[..., Any], tuple[str, ...]]]:
        caller = getattr(self._manager.hook, hook, None)
        found = {impl.plugin_name: impl for impl in caller.get_hookimpls()} if caller is not None else {}
        return [
            (plugin, found[plugin.name].function, found[plugin.name].argnames)
            for plugin in self.loaded
            if plugin.name in found
        ]

    async def _call_query_hook(
        self, plugin: LoadedPlugin, hook: str, function: Callable[..., Any], arguments: dict[str, Any], current: T
    ) -> T:
        """Call one query hook; return a plain copy of its answer, or `current` when it answers None."""
        convert = partial(copy_answer, hook, current)
        try:
            result: T = await plugin.worker.call(function, arguments, self._config.hook_timeout_seconds, convert)
        except QueryRejected:
            raise
        except InvalidAnswer as error:
            log.error("plugin %s: %s returned %s; the query is refused", plugin.name, hook, error)
            raise PluginFailed(f"plugin {plugin.name}: {hook} returned an invalid answer") from error
        except Exception as error:
            log.exception("plugin %s: %s failed; the query is refused", plugin.name, hook)
            raise PluginFailed(f"plugin {plugin.name}: {hook} failed ({type(error).__name__})") from error
        return result

    async def _call_logged(
        self,
        plugin: LoadedPlugin,
        function: Callable[..., Any],
        hook: str,
        arguments: dict[str, Any],
        convert: Callable[[Any], Any] | None = None,
    ) -> tuple[str, Any] | None:
        try:
            return plugin.name, await plugin.worker.call(
                function, arguments, self._config.hook_timeout_seconds, convert
            )
        except Exception as error:
            self._record_failure(plugin, hook, error)
            return None

    def _record_failure(self, plugin: LoadedPlugin, hook: str, error: BaseException, *, traceback: bool = True) -> None:
        plugin.failed = f"{hook}: {type(error).__name__}: {error}"
        log.error("plugin %s: %s", plugin.name, plugin.failed, exc_info=error if traceback else None)


def _select_arguments(names: tuple[str, ...], arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in names}


def _is_hookspecs(specs: Any) -> bool:
    return isinstance(specs, ModuleType | type) and any(
        hasattr(item, f"{hookspecs.PROJECT}_spec") for item in vars(specs).values()
    )
