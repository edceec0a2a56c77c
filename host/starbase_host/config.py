"""plugin.toml, read into frozen values; every error names the file, the key and the mend.

Owns the host's own keys. What stands under `[plugins.NAME]` beside `module` and `enabled` is that plugin's
business and is handed over as it is, with `${NAME}` resolved.
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

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
NO_REFERENCE = re.compile(rf"(?!{REFERENCE.pattern})\$\{{")
# No URL: its first part would be taken for an IPv6 address, and its path for a part of the port.
BIND = re.compile(r"[^\s\x00-\x1f/]+:([0-9]{1,5})\Z")
# In small letters, and without a path: as a browser sends it.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\sA-Z/?#@,]+\Z")
PLUGIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """One `[plugins.NAME]` table. `module` is None for a plugin installed as an entry point."""

    name: str
    module: str | None = None
    enabled: bool = True
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """The `[host]` table. Seconds are floats, sizes bytes.

    bind: address and port to listen on; port 0 takes a free one.
    database: the internal SQLite database; relative to the file that names it.
    admin_token, client_token: None where not set. The host makes an admin token then; nobody is client.
    cors_origins: whose pages may call every route; None for any page, but only the routes of role client.
    max_guess_wait_seconds: how long an address that has sent many wrong tokens is told to wait at most; 0 for not.
    max_query_rows, max_query_seconds, max_body_bytes: limits of POST /query and of every body.
    max_client_temp_bytes, max_admin_temp_bytes: what a request to /query may write to temporary files, by its role.
    path: the file this was read from, for messages; None for the defaults.
    holds_token: whether that file holds a token itself, and no name of a variable in its place.
    token_variables: the variables of the environment that its tokens are read from.
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
        """Where an admin token that the host made itself is kept."""
        return self.database.with_name(self.database.name + ".admin-token")

    @property
    def lock_file(self) -> Path:
        # Of the file itself, so that a symbolic link does not lead a second host past it.
        real = Path(os.path.realpath(self.database))
        return real.with_name(real.name + ".lock")


TYPE_WORDS: dict[tuple[type, ...], str] = {
    (str,): "a string",
    (int,): "a whole number",
    (int, float): "a number",
    (bool,): "true or false",
    (list,): "a list of strings",
}

# key: (types, lower bound, upper bound). None where the type says it all.
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
    """Whether a text can be sent as a bearer token."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def load(path: Path, environ: Mapping[str, str] | None = None) -> HostConfig:
    """Read plugin.toml. Raises ConfigError, whose message begins with the file's name."""
    return parse(_document(path), path=path, environ=os.environ if environ is None else environ)


def load_plugins(path: Path, environ: Mapping[str, str] | None = None) -> HostConfig:
    """Its plugins alone, so that their commands can be shown and those that need no host can run.

    A `${NAME}` that is not set stays as written. Raises ConfigError for a file that cannot be read, or a wrong plugin.
    """
    document = _document(path)
    values = os.environ if environ is None else environ
    plugins = {"plugins": document["plugins"]} if "plugins" in document else {}
    return parse(plugins, path=path, environ=_AsWritten(values))


class _AsWritten(dict[str, str]):
    """Variables of which each is set: one that is not has its own reference as its value."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return f"${{{name}}}"


def _document(path: Path) -> Mapping[str, Any]:
    try:
        # Some editors put a byte order mark first, which is none of TOML's.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(str(path), "no such file; name another with --config") from None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}; name another with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), "is not UTF-8; save it as such") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"is not TOML: {error}") from error


def parse(document: Mapping[str, Any], *, path: Path, environ: Mapping[str, str]) -> HostConfig:
    """Check a parsed plugin.toml. `path` stands in every message and is what `database` is relative to."""
    reader = _Reader(path, environ)
    reader.known(document, ("host", "plugins"), "")
    host = reader.table(document.get("host", {}), "host")
    reader.known(host, tuple(HOST_KEYS), "host.")
    values = {key: reader.value(f"host.{key}", host[key], *HOST_KEYS[key]) for key in host}
    if "bind" in values:
        reader.check_bind(values["bind"])
    if "cors_origins" in values:
        values["cors_origins"] = reader.origins(values["cors_origins"])
    for token in ("admin_token", "client_token"):
        reader.check_token(f"host.{token}", values.get(token))
    if values.get("admin_token") is not None and values.get("admin_token") == values.get("client_token"):
        raise reader.error("host.client_token", "is the same as admin_token; give the client one of its own")
    database = reader.database(values.pop("database", str(HostConfig.database)))
    plugins = reader.table(document.get("plugins", {}), "plugins")
    written = [host[token] for token in ("admin_token", "client_token") if token in host]
    return HostConfig(
        **values,
        database=database,
        path=path,
        holds_token=any(REFERENCE.search(token) is None for token in written),
        token_variables=frozenset(name for token in written for name in REFERENCE.findall(token)),
        plugins=tuple(reader.plugin(name, plugins[name]) for name in plugins),
    )


class _Reader:
    """Checks values and words its errors with the file's name."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self.environ = environ

    def error(self, key: str, message: str) -> ConfigError:
        return ConfigError(f"{self.path.name}: {key}" if key else self.path.name, message)

    def known(self, table: Mapping[str, Any], keys: tuple[str, ...], prefix: str) -> None:
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
            raise self.error(key, f"must lie between {low} and {high}")
        return value

    def resolve(self, key: str, value: Any) -> Any:
        """Replace `${NAME}` in strings, also inside tables and lists."""
        if isinstance(value, dict):
            return {name: self.resolve(f"{key}.{name}", item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(f"{key}[{index}]", item) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        if NO_REFERENCE.search(value):
            # Left as it is, it would be a token that everybody can guess.
            mend = "NAME is a letter or _, then letters, digits and _; a text that holds ${ comes out of a variable"
            raise self.error(key, f"holds a ${{ that begins no ${{NAME}}; {mend}")

        def replacement(match: re.Match[str]) -> str:
            name = match.group(1)
            if name not in self.environ:
                raise self.error(key, f"the environment variable {name} is not set; set it, or remove the key")
            return self.environ[name]

        return REFERENCE.sub(replacement, value)

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
                mend = "as browsers send it, such as https://app.example.com or http://localhost:3000, or *"
                raise self.error(f"host.cors_origins[{index}]", f"must be an origin, {mend}")
        return tuple(found)

    def check_token(self, key: str, token: str | None) -> None:
        if token is not None and not is_token(token):
            raise self.error(key, "must be printable ASCII without spaces, and not empty")

    def plugin(self, name: str, value: Any) -> PluginConfig:
        key = f"plugins.{name}"
        if not PLUGIN_NAME.match(name):
            raise self.error(key, "a plugin's name is a letter, then letters, digits and underscores")
        options = dict(self.table(value, key))
        enabled = self.value(f"{key}.enabled", options.pop("enabled", True), (bool,))
        module = options.pop("module", None)
        if module is not None:
            module = self.value(f"{key}.module", module, (str,))
            if not module or module.startswith(".") or module.endswith(".py") or "/" in module:
                raise self.error(f"{key}.module", "must be a module's name, such as my_package.audit, and no file's")
        # A plugin left out keeps its options as written: a variable that only it needs may be unset.
        resolved = self.resolve(key, options) if enabled else options
        return PluginConfig(name=name, module=module, enabled=enabled, options=resolved)
