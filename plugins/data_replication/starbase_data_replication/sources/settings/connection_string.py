"""Parses `scheme://user:password@host:port/database?name=value`, and writes it again.

Owns only the syntax: a dialect knows which schemes and parameters it takes. Every part stays as written
(percent-encoded), so that `str(split(text)) == text`, always.

A password that is not encoded is accepted if the text can be read in only one way: the last `@` ends the password.
A text that can be read in two ways is refused. So an `@` after the hosts, in a database's name or a parameter, must be
written `%40`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

# In characters: room for many hosts and parameters; limits what the expressions below have to match.
MAX_LENGTH = 8192
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")
PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*=")
HOSTS = re.compile(r"(?:(?:\[[^\[\]]*\]|[^:,\[\]]*)(?::[0-9]*)?(?:,|\Z))*\Z")
BRACKETED = re.compile(r"\[([^\[\]]*)\](?::(.*))?\Z", re.DOTALL)
ENCODING_HINT = "in a user or password write % as %25, @ as %40, / as %2F, ? as %3F, # as %23"


@dataclass(frozen=True, kw_only=True)
class ConnectionString:
    """The parts of a connection string, as written (percent-encoded).

    None means that a part and its mark are absent, which differs from an empty part.

    scheme: what is before `://`.
    user: what is before the `@`, up to a `:`.
    password: what follows that `:`, up to the `@`.
    hosts: hosts and ports, separated by commas; may be empty.
    database: what follows the `/`.
    parameters: names and values after the `?`.
    """

    scheme: str
    user: str | None
    password: str | None
    hosts: str
    database: str | None
    parameters: tuple[tuple[str, str], ...] | None

    def __str__(self) -> str:
        text = f"{self.scheme}://"
        if self.user is not None:
            text += self.user + ("" if self.password is None else f":{self.password}") + "@"
        text += self.hosts
        if self.database is not None:
            text += f"/{self.database}"
        if self.parameters is not None:
            text += "?" + "&".join(f"{name}={value}" for name, value in self.parameters)
        return text


def split(text: str) -> ConnectionString:
    """Parse a connection string. Raises ValueError, whose message contains nothing of the text."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"must not be longer than {MAX_LENGTH} characters")
    scheme, mark, rest = text.partition("://")
    if not mark or not SCHEME.match(scheme):
        raise ValueError("must look like scheme://USER:PASSWORD@HOST:PORT/DATABASE")
    userinfo, at, address = rest.rpartition("@")
    if at and _reads_otherwise(userinfo, rest):
        raise ValueError(f"can be read in two ways; {ENCODING_HINT}; after the host, write @ as %40")
    user, colon, password = userinfo.partition(":")
    location, question, query = address.partition("?")
    hosts, slash, database = location.partition("/")
    if "#" in address or not _is_query(query):
        raise ValueError(f"has a # or parameters that are not name=value&name=value; {ENCODING_HINT}")
    pairs = [item.partition("=") for item in query.split("&") if item]
    return ConnectionString(
        scheme=scheme,
        user=user if at else None,
        password=password if at and colon else None,
        hosts=hosts,
        database=database if slash else None,
        parameters=tuple((name, value) for name, _, value in pairs) if question else None,
    )


def _is_query(query: str) -> bool:
    return not query or all(PARAMETER.match(item) for item in query.split("&"))


def _reads_otherwise(userinfo: str, rest: str) -> bool:
    """Whether `rest` is valid too if the first / or ? ends the hosts, as in RFC 3986."""
    end = re.search("[/?#]", userinfo)
    if end is None or not HOSTS.match(userinfo[: end.start()].rpartition("@")[2]):
        return False
    return end[0] == "/" or (end[0] == "?" and _is_query(rest[end.end() :]))


def decode(text: str) -> str:
    """Percent-decode. A `+` stays a `+`, as in libpq, and so does a `%` that does not encode anything.

    Raises ValueError if the bytes are not UTF-8.
    """
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("holds percent-encoded bytes that are not UTF-8") from None


def split_hosts(hosts: str) -> list[tuple[str, str | None]]:
    """Split `h1:p1,[::1]:p2,%2Frun%2Fsocket` into pairs of a decoded host and its port, None without one.

    Raises ValueError.
    """
    return [_split_host(item) for item in hosts.split(",")]


def _split_host(item: str) -> tuple[str, str | None]:
    if item.startswith("["):
        bracketed = BRACKETED.match(item)
        if bracketed is None:
            raise ValueError("holds an IPv6 address whose brackets do not match; write [::1] or [::1]:5432")
        return decode(bracketed[1]), bracketed[2]
    if item.count(":") > 1:
        raise ValueError(f"holds a host with more than one colon; write IPv6 as [::1]:5432, and {ENCODING_HINT}")
    host, colon, port = item.partition(":")
    return decode(host), port if colon else None


def split_if_possible(text: object) -> ConnectionString | None:
    """Parse a connection string; return None if the text is not one."""
    try:
        return split(text) if isinstance(text, str) else None
    except ValueError:
        return None
