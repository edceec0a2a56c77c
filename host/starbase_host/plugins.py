"""Checks the plugins of one host and calls their hooks.

The host calls each implementation itself: pluggy stops at the first that raises, and does not await. When an
implementation raises, times out or returns an invalid answer, the host logs that with the plugin's name; the two query
hooks refuse the query as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, TypeVar, overload

import pluggy
from starlette.requests import Request

from starbase_host import hookspecs
from starbase_host.alarms import Alarm, OwnerAbsent, PluginAlarms
from starbase_host.api_version import API, HOST, requirement_problem
from starbase_host.clock import Clock
from starbase_host.config import HostConfig
from starbase_host.database import Database
from starbase_host.discovery import LoadedPlugin, find, one_line, toml_key
from starbase_host.errors import ConfigError, NotFound, PluginFailed, QueryRejected, StarbaseError, did_you_mean
from starbase_host.failures import Failure, Streak, has_plain_text
from starbase_host.isolation import RUNNING, Lifespan, Worker, leave_all
from starbase_host.plugin_answers import InvalidAnswer, copy_answer, copy_caller, copy_decision, routes_of
from starbase_host.read_rules import STRICTNESS, ReadDecision
from starbase_host.requests import copy_request
from starbase_host.routes import ROOT, Caller, Role, Route

log = logging.getLogger("starbase.plugins")

LEAVE_TIMEOUT_SECONDS = 3.0
# Entering a lifespan may call a hook of other plugins, and each of those calls may take `hook_timeout_seconds`.
ENTER_TIMES = 3

T = TypeVar("T")
HERE = os.path.dirname(__file__)

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
        request: Callable[..., Awaitable[Any]],
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
        self._request = request

    @overload
    def plugin(self, which: str, /) -> Any: ...

    @overload
    def plugin(self, which: type[T], /) -> T: ...

    def plugin(self, which: str | type[T], /) -> Any:
        """Return the object of another plugin, by its name in plugin.toml, or by a class of which it is an instance.

        With a class, the answer has that type. Raises NotFound when no such plugin is enabled.
        """
        return self._plugins.get(which).instance if isinstance(which, str) else self._plugins.get_instance(which)

    async def request(
        self,
        method: str,
        path: str,
        *,
        role: Role | None,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a route of this host in this process, without a token, and return its `result`.

        method, path: such as "POST", "/query".
        role: the role of the request; None for that of a caller without a token.
        body: a JSON value; None sends no body.
        params: the query parameters.
        The answer of a route without the envelope is returned as bytes. Raises StarbaseError with the message and the
        status of a refusal; Unavailable before the routes exist.
        """
        caller = Caller(role=role, by=self.name) if role is not None else None
        return await self._request(method, path, body=body, params=params, caller=caller)

    async def call(self, hook: str, *, only: str | None = None, **arguments: Any) -> list[tuple[str, Any]]:
        """Call a hook in every plugin that implements it, at the same time, each within `hook_timeout_seconds`.

        only: the name of a plugin, to call only that one.
        Returns (plugin name, answer) pairs, without the plugins that failed. Failures are logged.
        """
        return await self._plugins.call(hook, only=only, **arguments)

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

    async def call_function(
        self, plugin: str, what: str, function: Callable[..., Any], *arguments: Any, worker: Worker | None = None
    ) -> bool:
        """Call a function that another plugin has given you, within `hook_timeout_seconds`.

        plugin: the plugin whose function it is: what `running_plugin` returned when you got the function.
        what: what messages call the function.
        worker: the thread for a plain function; that of the plugin's hooks if you leave it out.
        A failure is logged and counted as that of a hook. Returns whether the function has returned.
        """
        return await self._plugins.call_given(plugin, what, function, arguments, worker)

    def running_plugin(self) -> str:
        """Return the name of the plugin whose code has called you; your own outside of any plugin's code."""
        return RUNNING.get() or self.name

    def record_failure(self, plugin: str, what: str, why: str) -> None:
        """Count a failure of another plugin's code that you have called yourself, for `GET /plugins`. Logs nothing.

        plugin: the name of the plugin whose code it is; a plugin that is not enabled is ignored.
        what: the hook, or the part of the plugin, such as `dialect acme`.
        why: the kind of the error and its text, in your own words if the text may hold a secret.
        """
        self._plugins.record(plugin, what, why)


class Plugins:
    """The plugins of one host."""

    def __init__(self, config: HostConfig, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or Clock()
        self._streaks: dict[tuple[str, str], Streak] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._loaded: dict[str, LoadedPlugin] = {}
        self.left_out: dict[str, ConfigError] = {}
        self.stopping = asyncio.Event()

    @property
    def loaded(self) -> list[LoadedPlugin]:
        """The enabled plugins, in the order of plugin.toml."""
        return list(self._loaded.values())

    def get(self, name: str) -> LoadedPlugin:
        if name not in self._loaded:
            raise NotFound(f"plugin {name} is not enabled; add [plugins.{name}] to plugin.toml")
        return self._loaded[name]

    def get_instance(self, kind: type[T]) -> T:
        """Return the first plugin object of this class. Raises NotFound."""
        for plugin in self.loaded:
            if isinstance(plugin.instance, kind):
                return plugin.instance
        raise NotFound(f"no plugin that is a {kind.__name__} is enabled; add its table to plugin.toml")

    def plugin_of(self, file: str, preferred: str | None) -> str | None:
        """The plugin that a source file belongs to; None if it is not a plugin's.

        preferred: the plugin to name if the file lies in a package that several plugins share.
        """
        found = {plugin.name: reach for plugin in self.loaded if (reach := plugin.owns(file))}
        if not found:
            return None
        if preferred in found and found[preferred] == max(found.values()):
            return preferred
        return max(found, key=lambda name: found[name])

    def load(self, *, strict: bool = True) -> None:
        """Make every enabled plugin and check its hooks. Raises ConfigError, which names the file and the key.

        Call `warn` too, unless you show what is left out yourself.

        strict: False leaves out a plugin that is wrong. Without a plugin.toml that is always so: nobody has enabled the
            plugin, or could have given it the options that it needs.
        """
        strict = strict and self._config.plugins is not None
        self._manager.add_hookspecs(hookspecs)

        def leave_out(name: str, error: ConfigError) -> None:
            if strict:
                raise error
            self.left_out[name] = error

        found = find(self._config, self._clock, leave_out)
        offered = {HOST: API, **{plugin.name: plugin.api_version for plugin in found}}
        for plugin in found:
            self._loaded[plugin.name] = plugin
            try:
                self._check_requires(plugin, offered)
                self._register(plugin)
            except ConfigError as error:
                del self._loaded[plugin.name]
                leave_out(plugin.name, error)
        self._add_hookspecs()
        self._check_hooks()

    def warn(self) -> None:
        """Log which plugins are left out, and which hooks no plugin offers although they are spelt almost like one."""
        for left_out, error in self.left_out.items():
            fix = f"to give it options, write a plugin.toml with [plugins.{left_out}]"
            log.warning("plugin %s is left out: %s; %s", left_out, error, fix)
        known = self._known_hooks()
        for plugin in self.loaded:
            for name in plugin.unknown_hooks:
                fix = did_you_mean(name, known, otherwise="none")
                if fix != "none":
                    log.warning(
                        "plugin %s: nobody offers the hook %s, so it is never called; %s", plugin.name, name, fix
                    )

    async def call(self, hook: str, *, only: str | None = None, **arguments: Any) -> list[tuple[str, Any]]:
        """Call every implementation at the same time. Failures are logged, and left out of the result."""
        calls = [
            self._call_often(plugin, function, hook, _select_arguments(names, arguments))
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

    def call_plain(
        self, hook: str, *, convert: Callable[[Any], Any] | None = None, **arguments: Any
    ) -> list[tuple[str, Any]]:
        """Call one implementation after the other without an event loop, before the host runs or without a host.

        convert: turns each answer into what is returned, in the plugin's thread.
        """
        answers = []
        for plugin, function, names in self._implementations(hook):
            try:
                answer = plugin.worker.call_plain(
                    function, _select_arguments(names, arguments), self._config.hook_timeout_seconds, convert
                )
            except Exception as error:
                failure = plugin.worker.describe_plain(error)
                plugin.count(hook, str(failure))
                log.error("plugin %s: %s: %s", plugin.name, hook, failure)
            else:
                answers.append((plugin.name, answer))
        return answers

    async def authenticate(self, request: Request) -> Caller | None:
        """Ask the plugins, one after the other, who sends a request; None when none knows.

        Raises PluginFailed when none knows, and one has failed.
        """
        failure: StarbaseError | None = None
        for plugin, function, names in self._implementations("authenticate"):
            # A copy for each, so that no plugin changes what the next one, or the route, gets.
            arguments = _select_arguments(names, {"request": copy_request(request)})
            try:
                found: Caller | None = await self._call_closed(
                    plugin, "authenticate", function, arguments, partial(copy_caller, plugin.name)
                )
            except StarbaseError as error:
                failure = failure or error
                continue
            if found is not None:
                return found
        if failure is not None:
            raise failure
        return None

    async def authorize_read(self, role: Role, table: str, column: str) -> ReadDecision:
        """Ask every plugin about a column; the strictest answer counts. Raises PluginFailed."""
        asked = {"role": role, "table": table, "column": column}
        answers: list[ReadDecision] = ["allow"]
        for plugin, function, names in self._implementations("authorize_read"):
            arguments = _select_arguments(names, asked)
            answers.append(await self._call_closed(plugin, "authorize_read", function, arguments, copy_decision))
        return max(answers, key=lambda answer: STRICTNESS[answer])

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
        """Deliver an alarm to its plugin. Raises PluginFailed, after the failure is logged, or OwnerAbsent."""
        for plugin, function, names in self._implementations("on_alarm"):
            if plugin.name == alarm.plugin:
                arguments = _select_arguments(names, {"alarm": alarm})
                try:
                    await plugin.worker.call(function, arguments, self._config.hook_timeout_seconds)
                except Exception as error:
                    raise PluginFailed(str(await self._record_failure(plugin, "on_alarm", error))) from None
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
                lifespan = Lifespan(answer[1], plugin.name, partial(self._record_failure, plugin, "plugin_lifespan"))
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
                plugin, function, "register_routes", _select_arguments(names, {"host": hosts[plugin.name]}),
                partial(routes_of, plugin.prefix),
            )  # fmt: skip
            if answer is None:
                continue
            self._check_prefix(plugin, taken)
            plugin.routes, wrong = answer[1]
            if wrong is not None:
                raise ConfigError(toml_key(self._config, f"plugins.{plugin.name}"), wrong)
            self._check_root(plugin, taken)
            found += [(plugin, route) for route in plugin.routes]
        return found

    def _check_root(self, plugin: LoadedPlugin, taken: dict[str, str]) -> None:
        if any(route.path == ROOT for route in plugin.routes):
            owner = taken.setdefault(ROOT, plugin.name)
            if owner != plugin.name:
                key = toml_key(self._config, f"plugins.{plugin.name}")
                raise ConfigError(key, f"its route / belongs to {owner} already; turn off the page of one of them")

    def _check_requires(self, plugin: LoadedPlugin, offered: dict[str, str | None]) -> None:
        wrong = None if plugin.requires is None else requirement_problem(plugin.requires, offered)
        if wrong is not None:
            raise ConfigError(toml_key(self._config, f"plugins.{plugin.name}"), wrong)

    def _register(self, plugin: LoadedPlugin) -> None:
        key = toml_key(self._config, f"plugins.{plugin.name}")
        try:
            # In its thread: pluggy reads each attribute of the object, and a property may do anything.
            unmarked = plugin.worker.call_plain(
                self._register_hooks, {"plugin": plugin}, self._config.hook_timeout_seconds
            )
        except pluggy.PluginValidationError as error:
            raise self._wrong_signature(error) from error
        except Exception as error:
            raise ConfigError(key, f"cannot be used: {plugin.worker.describe_plain(error)}") from error
        if unmarked is not None:
            raise ConfigError(key, f"defines {unmarked} but does not mark it; write @hookimpl above it")

    def _register_hooks(self, plugin: LoadedPlugin) -> str | None:
        """Register the hooks of a plugin; return a hook of the host that it defines but does not mark, or None."""
        self._manager.register(plugin.instance, name=plugin.name)
        plugin.hooks = tuple(sorted(caller.name for caller in self._manager.get_hookcallers(plugin.instance) or []))
        # If the host ignored this silently, a plugin that guards queries would guard nothing.
        unmarked = (name for name in hookspecs.names() if name not in plugin.hooks)
        return next((name for name in unmarked if callable(getattr(plugin.instance, name, None))), None)

    def _add_hookspecs(self) -> None:
        for name, specs in self.call_plain("register_hookspecs", convert=_checked_hookspecs):
            plugin = self._loaded[name]
            try:
                plugin.worker.call_plain(
                    self._manager.add_hookspecs, {"module_or_class": specs}, self._config.hook_timeout_seconds
                )
            except pluggy.PluginValidationError as error:
                raise self._wrong_signature(error) from error
            except Exception as error:
                failure = plugin.worker.describe_plain(error)
                why = failure.text if isinstance(error, ValueError) else str(failure)
                raise ConfigError(
                    toml_key(self._config, f"plugins.{name}"),
                    f"its hookspecs cannot be used: {why}; rename the hook",
                ) from error

    def _wrong_signature(self, error: pluggy.PluginValidationError) -> ConfigError:
        owner = next(plugin.name for plugin in self.loaded if plugin.instance is error.plugin)
        return ConfigError(
            toml_key(self._config, f"plugins.{owner}"), f"{one_line(error)}; use only the arguments of the hook"
        )

    def _callers(self) -> dict[str, pluggy.HookCaller]:
        return {name: each for name, each in vars(self._manager.hook).items() if isinstance(each, pluggy.HookCaller)}

    def _known_hooks(self) -> list[str]:
        return [name for name, caller in self._callers().items() if caller.has_spec()]

    def _check_hooks(self) -> None:
        known = self._known_hooks()
        for name, caller in self._callers().items():
            for implementation in caller.get_hookimpls():
                if implementation.plugin_name in self.left_out:
                    continue
                key = toml_key(self._config, f"plugins.{implementation.plugin_name}")
                if implementation.hookwrapper or implementation.wrapper:
                    raise ConfigError(key, f"its {name} is a wrapper, which is never called; write a plain hookimpl")
                if name not in known and not implementation.optionalhook:
                    optional = "mark it hookimpl(optionalhook=True) if another plugin offers it"
                    fix = did_you_mean(name, known, otherwise=optional)
                    raise ConfigError(key, f"implements an unknown hook, {name}; {fix}")
                if name not in known:
                    plugin = self._loaded[implementation.plugin_name]
                    plugin.hooks = tuple(hook for hook in plugin.hooks if hook != name)
                    plugin.unknown_hooks = (*plugin.unknown_hooks, name)

    def _check_prefix(self, plugin: LoadedPlugin, taken: dict[str, str]) -> None:
        for other, owner in taken.items():
            if (plugin.prefix + "/").startswith(other + "/") or (other + "/").startswith(plugin.prefix + "/"):
                raise ConfigError(
                    toml_key(self._config, f"plugins.{plugin.name}"),
                    f"its prefix {plugin.prefix} clashes with {other} of {owner}; give it another path_prefix",
                )
        taken[plugin.prefix] = plugin.name

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
        result: T = await self._call_closed(plugin, hook, function, arguments, partial(copy_answer, hook, current))
        return result

    async def _call_closed(
        self,
        plugin: LoadedPlugin,
        hook: str,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        convert: Callable[[Any], Any],
    ) -> Any:
        """Call a hook whose failure refuses what it was called for; return the answer as `convert` makes it.

        Raises QueryRejected; PluginFailed for any other failure, which is logged.
        """
        try:
            return await plugin.worker.call(function, arguments, self._config.hook_timeout_seconds, convert)
        except Exception as error:
            if isinstance(error, QueryRejected) and has_plain_text(error):
                raise
            failure = await plugin.worker.describe(error)
            if isinstance(error, QueryRejected) and failure.text is not None:
                raise QueryRejected(failure.text) from None
            if isinstance(error, InvalidAnswer):
                plugin.count(hook, f"returned {failure.text}")
                log.error("plugin %s: %s returned %s; that is refused", plugin.name, hook, failure.text)
                raise PluginFailed(f"plugin {plugin.name}: {hook} returned an invalid answer") from None
            plugin.count(hook, str(failure))
            log.error("plugin %s: %s failed; that is refused\n%s", plugin.name, hook, failure.details)
            raise PluginFailed(f"plugin {plugin.name}: {hook} failed ({failure.kind})") from None

    async def _call_often(
        self, plugin: LoadedPlugin, function: Callable[..., Any], hook: str, arguments: dict[str, Any]
    ) -> tuple[str, Any] | None:
        answer = await self._try_often(plugin, hook, plugin.worker, function, arguments)
        return None if answer is None else (plugin.name, answer[0])

    async def call_given(
        self, name: str, what: str, function: Callable[..., Any], arguments: tuple[Any, ...], worker: Worker | None
    ) -> bool:
        plugin = self.get(name)
        return await self._try_often(plugin, what, worker or plugin.worker, function, arguments) is not None

    async def _try_often(
        self, plugin: LoadedPlugin, what: str, worker: Worker, function: Callable[..., Any], arguments: Any
    ) -> tuple[Any] | None:
        """Call what is called again and again; return its answer in a tuple, or None if it failed.

        Of failures in a row, only some are logged, and their end.
        """
        streak = self._streaks.setdefault((plugin.name, what), Streak(self._config.hook_timeout_seconds))
        try:
            answer = await worker.call(function, arguments, self._config.hook_timeout_seconds)
        except Exception as error:
            failure = await worker.describe(error)
            plugin.count(what, str(failure))
            if streak.fail(self._clock.monotonic(), f"{failure.kind} {failure.place}"):
                times = f" ({streak.count:,} failures in a row)" if streak.count > 1 else ""
                _log_failure(plugin, f"{what}{times}", failure)
            return None
        if ended := streak.succeed(self._clock.monotonic()):
            log.warning("plugin %s: %s works again, after %s failures", plugin.name, what, f"{ended:,}")
        return (answer,)

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
            await self._record_failure(plugin, hook, error)
            return None

    def record(self, name: str, what: str, why: str) -> None:
        """Count a failure of a plugin, if it is enabled."""
        if name in self._loaded:
            self._loaded[name].count(what, why)

    async def _record_failure(self, plugin: LoadedPlugin, hook: str, error: BaseException) -> Failure:
        failure = await plugin.worker.describe(error)
        plugin.count(hook, str(failure))
        _log_failure(plugin, hook, failure)
        return failure


def _log_failure(plugin: LoadedPlugin, hook: str, failure: Failure) -> None:
    # What the host itself raises, such as TimeoutError, has a traceback that says nothing about the plugin.
    more = "" if failure.place.startswith(HERE) else f"\n{failure.details}"
    log.error("plugin %s: %s: %s%s", plugin.name, hook, failure, more)


def _select_arguments(names: tuple[str, ...], arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in names}


def _checked_hookspecs(specs: Any) -> ModuleType | type:
    marked = f"{hookspecs.PROJECT}_spec"
    if isinstance(specs, ModuleType | type) and any(hasattr(item, marked) for item in vars(specs).values()):
        return specs
    raise TypeError("did not return a module or class with hookspecs")
