"""Discovers the plugins that plugin.toml names, installed or beside it, and makes them. Must not know hooks."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from starbase_host.config import HostConfig, PluginConfig
from starbase_host.errors import ConfigError
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
    prefix: of the paths of its routes, such as /my-plugin.
    hooks: the names of the hooks that it implements.
    failed: the last failure of one of its hooks; None when none has failed.
    routes: the routes that it registered.
    """

    name: str
    instance: Any
    worker: Worker
    origin: str
    prefix: str
    hooks: tuple[str, ...] = ()
    failed: str | None = None
    routes: list[Route] = field(default_factory=list)


def find(config: HostConfig) -> list[LoadedPlugin]:
    """Make every enabled plugin, in the order of plugin.toml. Raises ConfigError, which names the file and the key."""
    installed = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    return [_make(config, wanted, installed) for wanted in _wanted(config, installed)]


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


def _make(config: HostConfig, wanted: PluginConfig, installed: dict[str, EntryPoint]) -> LoadedPlugin:
    key = toml_key(config, f"plugins.{wanted.name}")
    try:
        factory = _factory(config, wanted, installed, key)
        instance = factory(wanted.options)
        if instance is None:
            raise ConfigError(key, "its factory returned None; return the plugin object from `plugin(options)`")
        prefix = getattr(instance, "path_prefix", None) or "/" + wanted.name.replace("_", "-")
    except ConfigError as error:
        if error.field.startswith(key):
            raise
        raise ConfigError(f"{key}.{error.field}", error.reason) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(key, f"cannot be loaded: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(prefix, str) or not PREFIX.match(prefix):
        raise ConfigError(key, f"its path_prefix {prefix!r} must look like /my-plugin")
    return LoadedPlugin(
        name=wanted.name,
        instance=instance,
        worker=Worker(wanted.name),
        origin=wanted.module or f"entry point {wanted.name}",
        prefix=prefix,
    )


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
