"""Finds the plugins that plugin.toml asks for, installed or beside it, and makes them. Knows nothing of hooks."""

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
    """A plugin that is on. `failed` says why it is not working, when it is not."""

    name: str
    instance: Any
    worker: Worker
    origin: str
    prefix: str
    hooks: tuple[str, ...] = ()
    failed: str | None = None
    routes: list[Route] = field(default_factory=list)


def find(config: HostConfig) -> list[LoadedPlugin]:
    """Every enabled plugin, made, in plugin.toml's order. Raises ConfigError with the file, the key and the mend."""
    installed = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    return [_make(config, wanted, installed) for wanted in _wanted(config, installed)]


def toml_key(config: HostConfig, key: str) -> str:
    """A key of plugin.toml as a ConfigError's field: with the file's name, where there is a file."""
    return f"{config.path.name}: {key}" if config.path else key


def one_line(error: BaseException) -> str:
    """What an exception says, without line breaks."""
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
            raise ConfigError(key, "its factory answered None; let `plugin(options)` return the plugin's object")
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
                f"no such plugin is installed (found: {', '.join(sorted(installed)) or 'none'}); "
                'install it, or name its module with `module = "…"`',
            )
        factory = installed[wanted.name].load()
    else:
        beside = str(config.path.absolute().parent) if config.path else None
        if beside is not None and beside not in sys.path:
            # A module that lies beside plugin.toml is found, as a script's neighbours are.
            sys.path.append(beside)
        module = importlib.import_module(wanted.module)
        factory = getattr(module, "plugin", None)
    if not callable(factory):
        raise ConfigError(key, "gives no factory: define `plugin(options)` in it")
    return factory  # type: ignore[no-any-return]
