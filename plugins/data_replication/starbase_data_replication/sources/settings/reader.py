"""Reads a sourceConfig: takes its values, from single keys or a connection string, and collects every problem.

Owns the checks of hosts, ports, texts, numbers and choices. A dialect's package says which keys exist and what they
mean. No message shows a value, because a value may contain a secret or a part of one.

A value with a `${NAME}` is not checked before it is resolved.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

from starbase_data_replication.sources.settings.connection_string import (
    ENCODING_HINT,
    ConnectionString,
    decode,
    split,
    split_hosts,
)
from starbase_data_replication.sources.settings.env_references import has_reference, is_reference
from starbase_data_replication.sources.settings.names import is_pem, text_problem
from starbase_data_replication.sources.settings.scrubbing import MASK
from starbase_host import did_you_mean

HOST = re.compile(r"[\w.-]+\Z")
# The longest name in DNS, in characters.
MAX_HOST = 253
# More than any cluster lists; each is checked, and tried, one after the other.
MAX_HOSTS = 32


class SettingsReader:
    """One pass over a sourceConfig.

    resolved: whether every `${NAME}` has been replaced, so that each value can be checked.
    problems: field to what is wrong with it, with the fix.
    values: what was found, by the dialect's names of the keys, whichever form it came from.
    """

    def __init__(self, settings: Mapping[str, Any], *, resolved: bool) -> None:
        self.resolved = resolved
        self.problems: dict[str, str] = {}
        self.values: dict[str, Any] = {
            key: value for key, value in settings.items() if key != "dialect" and value is not None
        }
        self._labels: dict[str, str] = {}

    @property
    def connection_string(self) -> Any:
        return self.values.get("connectionString")

    @property
    def opaque(self) -> bool:
        """Whether the connection string is still a `${NAME}`, so that its parts are not known."""
        return not self.resolved and is_reference(self.connection_string)

    def problem(self, name: str, message: str) -> None:
        """Record what is wrong with a key, or with that part of a connection string."""
        label = self._labels.get(name)
        field = f"sourceConfig.{name}" if label is None else "sourceConfig.connectionString"
        message = f"{label} {message}" if label else message
        known = self.problems.get(field)
        if known is None or message not in known:
            self.problems[field] = message if known is None else f"{known}; {message}"

    def missing(self, key: str, what: str) -> None:
        """Record that a required key is missing. what: what it means, for a connection string without that part."""
        if self.connection_string is None:
            self.problem(key, "is required, unless you give a connectionString")
        else:
            self.problem("connectionString", f"does not say {what}; write scheme://USER:PASSWORD@HOST:PORT/DATABASE")

    def keep_known(self, known: Iterable[str]) -> None:
        """Remove unknown keys, with a problem for each."""
        known = (*known, "connectionString")
        for key in [key for key in self.values if key not in known]:
            del self.values[key]
            shown = key[:60].encode("utf-8", "backslashreplace").decode()
            self.problem(shown, f"is not a key of this dialect; {did_you_mean(shown, known)}")

    def expand(
        self,
        *,
        schemes: tuple[str, ...],
        parameters: Mapping[str, str],
        beside: str,
        refused: Mapping[str, str],
    ) -> bool:
        """Replace a connection string by the values in it.

        schemes: the ones that the dialect takes.
        parameters: a parameter's name to its key.
        beside: the one key that may be given together with a connection string.
        refused: parameters that users do write, and why the dialect does not take them.

        Returns False if the values cannot be known, because the string is malformed or still a `${NAME}`.
        """
        text = self.connection_string
        for key in [key for key in self.values if key not in (beside, "connectionString")]:
            del self.values[key]
            self.problem(key, "cannot be given together with connectionString; remove one of them")
        parts = self._connection_string(text, schemes)
        if parts is None:
            return False
        try:
            self._take_parts(parts)
        except ValueError as error:
            self.problem("connectionString", str(error))
            return False
        for name, value in parts.parameters or ():
            if name in parameters:
                self._take(parameters[name], value, label=f'parameter "{name}"')
            else:
                why = f" ({refused[name]})" if name in refused else ""
                self.problem("connectionString", f'parameter "{name}" is not supported{why}; remove it')
        return True

    def _connection_string(self, text: Any, schemes: tuple[str, ...]) -> ConnectionString | None:
        example = f"{schemes[0]}://USER:PASSWORD@HOST:PORT/DATABASE"
        if not isinstance(text, str):
            self.problem("connectionString", f"must be a string such as {example}")
            return None
        if self.opaque:
            return None
        if (why := text_problem(text)) is not None:
            self.problem("connectionString", why)
            return None
        try:
            parts = split(text)
        except ValueError as error:
            self.problem("connectionString", str(error).replace("scheme://", f"{schemes[0]}://"))
            return None
        if parts.scheme.lower() not in schemes:
            self.problem("connectionString", f"must begin with {' or '.join(f'{one}://' for one in schemes)}")
            return None
        return parts

    def _take_parts(self, parts: ConnectionString) -> None:
        self._take("user", parts.user, label="the user")
        self._take("password", parts.password, label="the password")
        self._take("database", parts.database or None, label="the database")
        if parts.hosts:
            pairs = split_hosts(parts.hosts)
            self.values["host"] = tuple(host for host, _ in pairs)
            self._labels["host"] = "the host"
            if any(port is not None for _, port in pairs):
                self.values["port"] = tuple(port for _, port in pairs)
                self._labels["port"] = "the port"

    def _take(self, key: str, value: str | None, *, label: str) -> None:
        if value is None:
            return
        if key in self._labels:
            self.problem("connectionString", f"{label} and {self._labels[key]} mean the same; remove one")
            return
        self._labels[key] = label
        try:
            self.values[key] = decode(value)
        except ValueError as error:
            self.problem(key, str(error))

    def _unresolved(self, value: Any) -> bool:
        return not self.resolved and has_reference(value)

    def text(self, key: str, default: str | None = None, *, empty: bool = False, control: bool = False) -> str | None:
        """A string, or the default if the key is missing."""
        value = self.values.get(key)
        if value is None or self._unresolved(value):
            return default if value is None else str(value)
        if not isinstance(value, str):
            self.problem(key, "must be a string")
        elif not value and not empty:
            self.problem(key, "must not be empty; remove it, or write a value")
        elif (why := text_problem(value, control=control)) is not None:
            self.problem(key, why)
        else:
            return value
        return default

    def file_or_pem(self, key: str) -> str | None:
        """A file's name, or the text of certificates without the NUL at its end."""
        value = self.values.get(key)
        if not is_pem(value):
            return self.text(key)
        self.values[key] = str(value).rstrip("\0")
        return self.text(key, control=True)

    def password(self) -> str | None:
        """The password, which may be empty, and contain any character except NUL."""
        if self.values.get("password") == MASK:
            self.problem("password", f"is {MASK}, which stands for a hidden password; write the password itself")
        return self.text("password", empty=True, control=True)

    def choice(self, key: str, choices: Iterable[str], default: str | None) -> str | None:
        """One of the choices, or the default if the key is missing or wrong."""
        value = self.text(key, default)
        if value is not None and not self._unresolved(value) and value not in choices:
            self.problem(key, f"must be one of {', '.join(choices)}")
            return default
        return value

    def whole(self, key: str, value: Any, low: int, high: int) -> str | None:
        """A whole number from `low` to `high`, given as an integer or digits. Returns its digits, or its `${NAME}`."""
        if self._unresolved(value):
            return str(value)
        digits = str(value) if type(value) is int and low <= value <= high else value
        if isinstance(digits, str) and re.fullmatch("[0-9]{1,9}", digits) and low <= int(digits) <= high:
            return str(int(digits))
        hint = f"; {ENCODING_HINT}" if self._labels.get(key) == "the port" else ""
        self.problem(key, f"must be a whole number from {low} to {high}{hint}")
        return None

    def addresses(self, default_port: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The hosts, and as many ports. In a text, both are separated by commas, as in libpq."""
        hosts = self.values.get("host")
        if isinstance(hosts, str):
            hosts = tuple(hosts.split(","))
        if hosts is None:
            self.missing("host", "the host")
            hosts = ()
        elif not isinstance(hosts, tuple):
            self.problem("host", "must be a string")
            hosts = ()
        elif len(hosts) > MAX_HOSTS:
            self.problem("host", f"has {len(hosts)} hosts; give at most {MAX_HOSTS}")
            return (), ()
        return tuple(self._host(host) for host in hosts), self._ports(len(hosts), default_port)

    def _ports(self, count: int, default: int) -> tuple[str, ...]:
        ports = self.values.get("port", default)
        if isinstance(ports, str):
            ports = ports.split(",")
        elif not isinstance(ports, tuple):
            ports = [ports]
        if len(ports) == 1 and count > 1 and not isinstance(ports, tuple):
            ports = [*ports] * count
        if count and len(ports) != count:
            self.problem("port", f"has {len(ports)} values for {count} hosts; give one, or as many as hosts")
            return ()
        return tuple(self.whole("port", default if port is None else port, 1, 65535) or "" for port in ports)

    def _host(self, host: str) -> str:
        if self._unresolved(host):
            return host
        name = host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host
        if not name:
            self.problem("host", "must not be empty")
        elif (why := text_problem(name)) is not None:
            self.problem("host", why)
        elif "://" in name:
            self.problem("host", "is a URL; write it as connectionString, or only the host's name here")
        elif not name.startswith("/") and not _is_host(name):
            self.problem("host", "must be a host's name, an IP address or a socket's path; the port goes into port")
        return name


def _is_host(name: str) -> bool:
    if len(name) > MAX_HOST:
        return False
    if ":" in name:
        try:
            return ipaddress.ip_address(name).version == 6
        except ValueError:
            return False
    try:
        # As the resolver encodes a name; this fails for an empty label or one that is too long.
        return HOST.match(name) is not None and len(name.encode("idna")) <= MAX_HOST
    except UnicodeError:
        return False
