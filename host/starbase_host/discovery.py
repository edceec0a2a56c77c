"""Discovers the plugins that plugin.toml names, installed or beside it, and makes them. Must not know hooks."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from starbase_host.api_version import API, HOST
from starbase_host.clock import Clock
from starbase_host.config import HostConfig, PluginConfig
from starbase_host.errors import ConfigError
from starbase_host.failures import FailureLog
from starbase_host.isolation import Worker
from starbase_host.routes import Route

ENTRY_POINT_GROUP = "starbase.plugins"
PREFIX = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._~-]*)+\Z")


@dataclass(kw_only=True)
class LoadedPlugin:
    """An enabled plugin.

    name: its name in plugin.toml, or that of its entry point.
    instance: the object that its factory returned.
    worker: the thread that its plain functions run in.
    origin: its module, or `entry point NAME`.
    files: where its code lies: the file of its factory, and the directory of the package around it.
    prefix: of the paths of its routes, such as /my-plugin.
    requires: the API versions that it needs, by name, as its attribute `requires` says.
    api_version: the version of what it offers to other plugins, as its attribute says.
    hooks: the names of the hooks that it implements.
    unknown_hooks: those of them that no plugin offers, so that they are never called.
    failed: the last failure of one of its hooks; None when none has failed.
    failures: how often each hook and route has failed.
    routes: the routes that it registered.
    clock: the source of the time of failures.
    """

    name: str
    instance: Any
    worker: Worker
    origin: str
    prefix: str
    files: tuple[str, ...] = ()
    requires: Any = None
    api_version: str | None = None
    hooks: tuple[str, ...] = ()
    unknown_hooks: tuple[str, ...] = ()
    failed: str | None = None
    failures: FailureLog = field(default_factory=FailureLog)
    routes: list[Route] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    def owns(self, file: str) -> int:
        """How closely a source file belongs to this plugin: how long the path is that they share; 0 if it does not."""
        return max((len(own) for own in self.files if file == own or file.startswith(own + os.sep)), default=0)

    def summary(self) -> dict[str, Any]:
        """What is known of it before the host runs, as `starbase plugins` and `GET /plugins` show it."""
        return {
            "name": self.name,
            "origin": self.origin,
            "prefix": self.prefix,
            "hooks": list(self.hooks),
            "unknown_hooks": list(self.unknown_hooks),
        }

    def count(self, hook: str, why: str) -> None:
        """Count a failure. hook: the hook, or the route or other part of the plugin."""
        self.failed = f"{hook}: {why}"
        self.failures.add(hook, why, self.clock.now())


def find(config: HostConfig, clock: Clock, leave_out: Callable[[str, ConfigError], None]) -> list[LoadedPlugin]:
    """Make every enabled plugin, in the order of plugin.toml.

    leave_out: called with the name of a plugin that cannot be made, and the error, which names the file and the key.
    """
    installed = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    found = []
    for wanted in _wanted(config, installed):
        try:
            found.append(_make(config, wanted, installed, clock))
        except ConfigError as error:
            leave_out(wanted.name, error)
    return found


def toml_key(config: HostConfig, key: str) -> str:
    """Return a key as the field of a ConfigError: after the name of the file, if there is a file."""
    return f"{config.path.name}: {key}" if config.path else key


def one_line(error: BaseException) -> str:
    """Return the message of an exception without line breaks."""
    return " ".join(str(error).split())


def _wanted(config: HostConfig, installed: dict[str, EntryPoint]) -> list[PluginConfig]:
    if config.plugins is None:
        return [PluginConfig(name=name) for name in sorted(installed)]
    return [plugin for plugin in config.plugins if plugin.enabled]


def _make(config: HostConfig, wanted: PluginConfig, installed: dict[str, EntryPoint], clock: Clock) -> LoadedPlugin:
    key = toml_key(config, f"plugins.{wanted.name}")
    worker = Worker(wanted.name)
    try:
        factory = _factory(config, wanted, installed, key)
        instance = factory(wanted.options)
        if instance is None:
            raise ConfigError(key, "its factory returned None; return the plugin object from `plugin(options)`")
        files = _files(factory)
        requires, version = getattr(instance, "requires", None), getattr(instance, "api_version", None)
        prefix = getattr(instance, "path_prefix", None) or "/" + wanted.name.replace("_", "-")
    except (Exception, SystemExit) as error:
        if type(error) is ImportError and type(error.name) is str and error.name.partition(".")[0] == HOST:
            fix = f"this host has API {API}; install a newer starbase-host, or another version of this plugin"
            raise ConfigError(key, f"cannot be loaded: {worker.describe_plain(error)}; {fix}") from error
        if type(error) is not ConfigError or not (type(error.field) is type(error.reason) is str):
            raise ConfigError(key, f"cannot be loaded: {worker.describe_plain(error)}") from error
        if error.field.startswith(key):
            raise
        raise ConfigError(f"{key}.{error.field}", error.reason) from error
    if type(prefix) is not str or not PREFIX.match(prefix):
        shown = repr(prefix) if type(prefix) is str else "that is not text"
        raise ConfigError(key, f"its path_prefix {shown} must look like /my-plugin")
    return LoadedPlugin(
        name=wanted.name,
        instance=instance,
        worker=worker,
        origin=wanted.module or f"entry point {wanted.name}",
        prefix=prefix,
        files=files,
        requires=requires,
        api_version=version if type(version) is str else None,
        clock=clock,
    )


def _files(factory: Any) -> tuple[str, ...]:
    name = getattr(factory, "__module__", None)
    module = sys.modules.get(name) if type(name) is str else None
    package = sys.modules.get(name.partition(".")[0]) if type(name) is str else None
    file = getattr(module, "__file__", None)
    return tuple(path for path in (file, *getattr(package, "__path__", ())) if type(path) is str)


def _factory(
    config: HostConfig, wanted: PluginConfig, installed: dict[str, EntryPoint], key: str
) -> Callable[..., Any]:
    if wanted.module is None:
        if wanted.name not in installed:
            raise ConfigError(
                key,
                f"this plugin is not installed (found: {', '.join(sorted(installed)) or 'none'}); "
                'install it, or name its module with `module = "…"`',
            )
        factory = installed[wanted.name].load()
    else:
        directory = str(config.path.absolute().parent) if config.path else None
        if directory is not None and directory not in sys.path:
            # As for a script, Python finds a module in the directory of plugin.toml.
            sys.path.append(directory)
        module = importlib.import_module(wanted.module)
        factory = getattr(module, "plugin", None)
    if not callable(factory):
        raise ConfigError(key, "has no factory; define `plugin(options)` in it")
    return factory  # type: ignore[no-any-return]
