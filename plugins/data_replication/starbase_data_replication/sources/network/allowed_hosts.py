"""Which hosts a source may be on: judged by the address that is then connected to, with no second look-up between.

Owns the rules and the look-up. Must not know any dialect. A name is only a name until it is looked up: one that anybody
may choose can be made to mean the address where a cloud hands out its machine's credentials, or an inner server.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from starbase_data_replication.errors import SourceRejected, SourceUnavailable
from starbase_data_replication.sources.unreachable import Unreachable, not_known, place, unreachable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

OPTION = "allowed_source_hosts"
# Link-local, and the addresses beside it at which clouds answer any of their machines: Amazon, Google, Scaleway,
# Alibaba, Oracle, Azure. What the last one means, a network's own translation to IPv4 (RFC 8215), is not known here.
REFUSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128", "fd00:42::42/128",
        "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32", "64:ff9b:1::/48",
    )
)  # fmt: skip
REFUSED_NAMES = ("metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")
FOUR_NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+){3}\Z")
# With an IPv4 address in their last 32 bits: by NAT64, translated (RFC 6052, RFC 2765), and of old.
HOLDING_IPV4 = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96"))
# Digits and marks of a pattern alone: it could match addresses, but also a name that begins like one.
PATTERN_OF_ADDRESSES = re.compile(r"[0-9][0-9.*?\[\]!-]*\Z")
WHOLE_PARTS = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3}){0,2})(?:\.\*)+\Z")


def wrong_with(entry: object) -> str | None:
    """Why an entry of the list would never match anything, and its mend; or None."""
    if not isinstance(entry, str) or not entry.strip(". \t\r\n"):
        return "must be a name, a pattern, an address, a network or the path of a socket"
    if entry[0] in "/*?[" and "/" in entry:
        # The path of a socket, or a pattern of one.
        return None
    if any(character.isspace() for character in entry):
        return "has a space in it; remove it"
    if "://" in entry:
        return f"is a URL; write its host alone{_host_of(entry)}"
    if "/" in entry:
        return _wrong_with_network(entry)
    if "," in entry:
        return "holds several; give each an entry of its own"
    if "@" in entry:
        return f"holds a user; write {entry.rpartition('@')[2]}"
    return _wrong_with_host(entry)


def _host_of(url: str) -> str:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    return f": {host}" if host else ""


def _wrong_with_network(entry: str) -> str | None:
    try:
        meant = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return "is no network; write one such as 10.0.0.0/8"
    address = entry.partition("/")[0]
    if str(meant.network_address) == str(ipaddress.ip_address(address)):
        return None
    return f"has bits after its prefix; write {meant}, or {address} for that one address"


def _wrong_with_host(entry: str) -> str | None:
    if _is_address(entry):
        return f"has a zone; write {entry.partition('%')[0]}" if "%" in entry else None
    inner, bracket, _ = entry.removeprefix("[").partition("]")
    if bracket and _is_address(inner):
        return f"has {'a port, which is not judged' if ']:' in entry else 'brackets'}; write {inner}"
    host, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and ":" not in host:
        return f"has a port, which is not judged; write {host}"
    if colon:
        return "is no address, and a name has no colon; write a name, an address or a network"
    if PATTERN_OF_ADDRESSES.match(entry) and any(mark in entry for mark in "*?["):
        return f"is a pattern, which a name can match too; write a network such as {_network_like(entry)}"
    if FOUR_NUMBERS.match(entry):
        return "is no address; each part is a number from 0 to 255, without leading zeros"
    return None


def _network_like(pattern: str) -> str:
    found = WHOLE_PARTS.match(pattern)
    if found is None or any(int(part) > 255 for part in found[1].split(".")):
        return "10.0.0.0/8"
    parts = found[1].split(".")
    return f"{'.'.join([*map(str, map(int, parts)), *['0'] * (4 - len(parts))])}/{8 * len(parts)}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class Reach:
    """The rules of one host.

    allowed: names, patterns of names (`*.example.com`), addresses, networks (`10.0.0.0/8`), and paths of sockets, of
        which a source must match one; None for any host but those that are refused. An address or network listed here
        is allowed even if it would be refused.
    """

    def __init__(self, allowed: Iterable[str] | None = None) -> None:
        self._any = allowed is None
        self._networks: list[Network] = []
        self._names: list[str] = []
        # As written: unlike a name, a path is another one in other letters.
        self._paths = list(allowed or ())
        for entry in self._paths:
            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                self._names.append(_folded(entry))

    def check_socket(self, path: str) -> None:
        """Raises SourceRejected for a Unix socket that may not be used: with a list, one that is not on it."""
        # `..` would leave the folder that a pattern names.
        outside = ".." in path.split("/")
        if not self._any and (outside or not any(fnmatchcase(path, pattern) for pattern in self._paths)):
            raise SourceRejected(f"the socket {path} is not among {OPTION}")

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host that may be connected to. Raises SourceRejected, or SourceUnavailable for none."""
        name = _folded(host)
        if name in REFUSED_NAMES:
            raise SourceRejected(f"{host} is a name of a cloud's metadata service; no source can be there")
        if not self._may_be_allowed(name):
            # Not looked up: whoever is asked what a name means learns the name.
            raise SourceRejected(f"{host} may not be used as a source; it is not among {OPTION}")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise SourceUnavailable(not_known(host, error)) from None
        known = list(dict.fromkeys(str(address[0]) for *_, address in found))
        usable = [text for text in known if self._is_allowed(name, ipaddress.ip_address(text))]
        if not usable:
            mend = f"allow it in {OPTION} if it should be" if self._any else f"it is not among {OPTION}"
            raise SourceRejected(f"{host} ({', '.join(known)}) may not be used as a source; {mend}")
        return usable

    def _may_be_allowed(self, name: str) -> bool:
        """Whether some address would do: with a network in the list, any name could mean one in it."""
        return self._any or bool(self._networks) or any(fnmatchcase(name, pattern) for pattern in self._names)

    def _is_allowed(self, name: str, address: Address) -> bool:
        meant = _meant(address)
        if any(each in network for network in self._networks for each in (address, *meant)):
            return True
        if any(each in network for network in REFUSED for each in (address, *meant)):
            return False
        return self._any or any(fnmatchcase(name, pattern) for pattern in self._names)


# The rules where nobody has set any. Frozen in effect: nothing changes a Reach once it is made.
DEFAULT = Reach()


class CheckedLoop:
    """An event loop for a driver that looks names up itself: it connects only to what the rules allow.

    Everything but connecting is the running loop's. TLS begun later on the connection still gets the host's name.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, reach: Reach) -> None:
        self._loop = loop
        self._reach = reach

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, factory: Callable[[], Any], host: str, port: int, **options: Any) -> Any:
        failures: list[OSError] = []
        for address in await self._reach.addresses(host, port):
            try:
                return await self._loop.create_connection(factory, address, port, **options)
            except OSError as error:
                failures.append(unreachable(error, place(address, port)))
        raise _one(failures)

    async def create_unix_connection(self, factory: Callable[[], Any], path: str, **options: Any) -> Any:
        self._reach.check_socket(path)
        try:
            return await self._loop.create_unix_connection(factory, path, **options)
        except OSError as error:
            raise unreachable(error, path) from error


def _one(failures: Sequence[OSError]) -> OSError:
    return failures[0] if len(failures) == 1 else Unreachable("; ".join(str(failure) for failure in failures))


def _meant(address: Address) -> tuple[Address, ...]:
    """The IPv4 addresses that an IPv6 one stands for."""
    if not isinstance(address, ipaddress.IPv6Address):
        return ()
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in HOLDING_IPV4):
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(each for each in inner if each is not None)


def _folded(name: str) -> str:
    return name.lower().rstrip(".")
