"""Reads plugin.toml into frozen values; every error names the file, the key and the fix.

Owns the host's keys. Under `[plugins.NAME]`, it owns only `module` and `enabled`; the plugin gets its other keys as
they are written, with `${NAME}` replaced.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starbase_host.errors import ConfigError, did_you_mean
from starbase_host.texts import ENV_REFERENCE, MALFORMED_REFERENCE

# Not a URL: its first part would be read as an IPv6 address, and its path as part of the port.
BIND = re.compile(r"[^\s\x00-\x1f/]+:([0-9]{1,5})\Z")
# As a browser sends it: in lowercase and without a path.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\sA-Z/?#@,]+\Z")
PLUGIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """One `[plugins.NAME]` table.

    name: the NAME.
    module: the module that defines the plugin; None for a plugin that is installed as an entry point.
    enabled: whether the host loads it.
    options: the plugin's own keys.
    """

    name: str
    module: str | None = None
    enabled: bool = True
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """The `[host]` table.

    bind: address and port to listen on; port 0 takes a free port.
    database: the internal SQLite database; a path relative to the directory of plugin.toml.
    admin_token: the token of role admin; when it is None, the host makes one.
    client_token: the token of role client; when it is None, no caller has that role.
    hook_timeout_seconds: how long one call of a plugin's hook may take.
    max_query_rows: how many rows one statement may return.
    max_query_seconds: how long a statement or transaction may run.
    max_client_temp_bytes: how many bytes a request of role client may have in temporary files.
    max_admin_temp_bytes: the same for role admin.
    max_body_bytes: how long the body of a request may be.
    max_guess_wait_seconds: how long an address that sends many wrong tokens has to wait, at most; 0 turns this off.
    cors_origins: origins whose pages may call every route; None lets any page call the routes of role client.
    plugins: the `[plugins.NAME]` tables; None enables every installed plugin.
    path: the file that this was read from; None for the defaults.
    holds_token: whether that file itself contains a token, rather than a `${NAME}`.
    token_variables: the environment variables that the tokens come from.
    """

    bind: str = "127.0.0.1:8000"
    database: Path = Path("data/starbase.db")
    admin_token: str | None = field(default=None, repr=False)
    client_token: str | None = field(default=None, repr=False)
    hook_timeout_seconds: float = 10.0
    max_query_rows: int = 100_000
    max_query_seconds: float = 30.0
    max_client_temp_bytes: int = 256 * 1024 * 1024
    max_admin_temp_bytes: int = 4 * 1024**3
    max_body_bytes: int = 4 * 1024 * 1024
    max_guess_wait_seconds: float = 60.0
    cors_origins: tuple[str, ...] | None = None
    plugins: tuple[PluginConfig, ...] | None = None
    path: Path | None = None
    holds_token: bool = False
    token_variables: frozenset[str] = frozenset()

    @property
    def host(self) -> str:
        return self.bind.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.bind.rpartition(":")[2])

    @property
    def token_file(self) -> Path:
        """The file for an admin token that the host made."""
        return self.database.with_name(self.database.name + ".admin-token")

    @property
    def lock_file(self) -> Path:
        # Beside the real file: with the name of a symbolic link, a second host would find another lock file.
        real = Path(os.path.realpath(self.database))
        return real.with_name(real.name + ".lock")


TYPE_WORDS: dict[tuple[type, ...], str] = {
    (str,): "a string",
    (int,): "a whole number",
    (int, float): "a number",
    (bool,): "true or false",
    (list,): "a list of strings",
}

# key: (types, lower bound, upper bound). The bounds are None when the type is enough.
HOST_KEYS: dict[str, tuple[tuple[type, ...], float | None, float | None]] = {
    "bind": ((str,), None, None),
    "database": ((str,), None, None),
    "admin_token": ((str,), None, None),
    "client_token": ((str,), None, None),
    "hook_timeout_seconds": ((int, float), 0.01, 3600),
    "max_query_rows": ((int,), 1, 10_000_000),
    "max_query_seconds": ((int, float), 0.01, 86_400),
    "max_client_temp_bytes": ((int,), 1024, 1024**4),
    "max_admin_temp_bytes": ((int,), 1024, 1024**4),
    "max_body_bytes": ((int,), 1024, 1024**3),
    "max_guess_wait_seconds": ((int, float), 0, 3600),
    "cors_origins": ((list,), None, None),
}


def is_token(text: str) -> bool:
    """Whether a text can be sent as a bearer token: printable ASCII without spaces, not empty."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def load(path: Path, environ: Mapping[str, str] | None = None) -> HostConfig:
    """Read plugin.toml.

    environ: the environment variables; by default those of the process.
    Raises ConfigError, whose message begins with the name of the file.
    """
    return parse(_read_document(path), path=path, environ=os.environ if environ is None else environ)


def load_plugins(path: Path, environ: Mapping[str, str] | None = None) -> HostConfig:
    """Read only the plugins from plugin.toml, to show their commands and to run those that do not need a host.

    A `${NAME}` whose variable is not set stays as it is written. Raises ConfigError when the file cannot be read, or a
    plugin is wrong.
    """
    document = _read_document(path)
    values = os.environ if environ is None else environ
    plugins = {"plugins": document["plugins"]} if "plugins" in document else {}
    return parse(plugins, path=path, environ=_UnsetAsWritten(values))


class _UnsetAsWritten(dict[str, str]):
    """Environment variables in which an unset NAME has the value `${NAME}`."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return f"${{{name}}}"


def _read_document(path: Path) -> Mapping[str, Any]:
    try:
        # Some editors write a byte order mark first, which TOML does not allow.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(str(path), "does not exist; name another file with --config") from None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}; name another file with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), "is not UTF-8; save it as UTF-8") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"is not TOML: {error}") from error


def parse(document: Mapping[str, Any], *, path: Path, environ: Mapping[str, str]) -> HostConfig:
    """Check a parsed plugin.toml.

    path: the file, for messages and for a relative `database`.
    environ: the environment variables that `${NAME}` refers to.
    Raises ConfigError.
    """
    reader = _Reader(path, environ)
    reader.check_keys(document, ("host", "plugins"), "")
    host = reader.table(document.get("host", {}), "host")
    reader.check_keys(host, tuple(HOST_KEYS), "host.")
    values = {key: reader.value(f"host.{key}", host[key], *HOST_KEYS[key]) for key in host}
    if "bind" in values:
        reader.check_bind(values["bind"])
    if "cors_origins" in values:
        values["cors_origins"] = reader.origins(values["cors_origins"])
    for token in ("admin_token", "client_token"):
        reader.check_token(f"host.{token}", values.get(token))
    if values.get("admin_token") is not None and values.get("admin_token") == values.get("client_token"):
        raise reader.error("host.client_token", "is the same as admin_token; choose another token for the client")
    database = reader.database(values.pop("database", str(HostConfig.database)))
    plugins = reader.table(document.get("plugins", {}), "plugins")
    written = [host[token] for token in ("admin_token", "client_token") if token in host]
    return HostConfig(
        **values,
        database=database,
        path=path,
        holds_token=any(ENV_REFERENCE.search(token) is None for token in written),
        token_variables=frozenset(name for token in written for name in ENV_REFERENCE.findall(token)),
        plugins=tuple(reader.plugin(name, plugins[name]) for name in plugins),
    )


class _Reader:
    """Checks values; its errors name the file."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self.environ = environ

    def error(self, key: str, message: str) -> ConfigError:
        return ConfigError(f"{self.path.name}: {key}" if key else self.path.name, message)

    def check_keys(self, table: Mapping[str, Any], keys: tuple[str, ...], prefix: str) -> None:
        for key in table:
            if key not in keys:
                raise self.error(f"{prefix}{key}", f"unknown key; {did_you_mean(key, keys)}")

    def table(self, value: Any, key: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self.error(key, f"must be a table; write [{key}]")
        return value

    def value(
        self, key: str, value: Any, types: tuple[type, ...], low: float | None = None, high: float | None = None
    ) -> Any:
        value = self.resolve(key, value)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise self.error(key, f"must be {TYPE_WORDS[types]}")
        if isinstance(value, int | float) and low is not None and high is not None and not low <= value <= high:
            raise self.error(key, f"must be between {low} and {high}")
        return value

    def resolve(self, key: str, value: Any) -> Any:
        """Replace `${NAME}` in strings, also inside tables and lists. Raises ConfigError when NAME is not set."""
        if isinstance(value, dict):
            return {name: self.resolve(f"{key}.{name}", item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(f"{key}[{index}]", item) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        if MALFORMED_REFERENCE.search(value):
            # If it stayed as it is, it would be a token that anyone can guess.
            fix = "NAME is a letter or _, then letters, digits and _; to have ${ in a value, put it into a variable"
            raise self.error(key, f"contains a ${{ that is not part of a ${{NAME}}; {fix}")

        def replacement(match: re.Match[str]) -> str:
            name = match.group(1)
            if name not in self.environ:
                raise self.error(key, f"the environment variable {name} is not set; set it, or remove the key")
            return self.environ[name]

        return ENV_REFERENCE.sub(replacement, value)

    def database(self, name: str) -> Path:
        path = self.path.absolute().parent / name
        if not name or "\0" in name:
            raise self.error("host.database", f"must name a file, such as {HostConfig.database}")
        if os.path.isdir(path):
            raise self.error("host.database", f"{path} is a directory; name a file, such as {HostConfig.database}")
        return path

    def check_bind(self, bind: str) -> None:
        found = BIND.match(bind)
        if found is None or int(found[1]) > 65535:
            raise self.error("host.bind", "must be ADDRESS:PORT, such as 127.0.0.1:8000")

    def origins(self, found: list[Any]) -> tuple[str, ...]:
        for index, origin in enumerate(found):
            if not isinstance(origin, str) or (origin != "*" and not ORIGIN.match(origin)):
                example = "such as https://app.example.com or http://localhost:3000, or *"
                raise self.error(f"host.cors_origins[{index}]", f"must be an origin as browsers send it, {example}")
        return tuple(found)

    def check_token(self, key: str, token: str | None) -> None:
        if token is not None and not is_token(token):
            raise self.error(key, "must be printable ASCII without spaces, and not empty")

    def plugin(self, name: str, value: Any) -> PluginConfig:
        key = f"plugins.{name}"
        if not PLUGIN_NAME.match(name):
            raise self.error(key, "is not a plugin's name; use a letter, then letters, digits and underscores")
        options = dict(self.table(value, key))
        enabled = self.value(f"{key}.enabled", options.pop("enabled", True), (bool,))
        module = options.pop("module", None)
        if module is not None:
            module = self.value(f"{key}.module", module, (str,))
            if not module or module.startswith(".") or module.endswith(".py") or "/" in module:
                raise self.error(
                    f"{key}.module", "must be the name of a module, such as my_package.audit, not of a file"
                )
        # A plugin that is not enabled keeps its options as they are written: variables that only it needs may be unset.
        resolved = self.resolve(key, options) if enabled else options
        return PluginConfig(name=name, module=module, enabled=enabled, options=resolved)
