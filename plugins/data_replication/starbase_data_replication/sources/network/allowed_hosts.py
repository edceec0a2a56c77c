"""Which hosts a source may be on: the address that was checked is the one that is connected to.

Owns the rules and the look-up of names. Must not know any dialect. Anyone who controls a name can make it mean another
address: the one where a cloud gives out its machine's credentials, or a server of the internal network. So a name is
looked up once, and the result is checked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from starbase_data_replication.errors import SourceRejected
from starbase_data_replication.sources.network.lookups import Lookups
from starbase_data_replication.sources.unreachable import Unreachable, place, unreachable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

OPTION = "allowed_source_hosts"
# Link-local networks, and the other addresses of metadata services: Amazon, Google, Scaleway, Alibaba, Oracle, Azure.
# The last one is a network's own translation to IPv4 (RFC 8215), whose IPv4 addresses cannot be known here.
REFUSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128", "fd00:42::42/128",
        "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32", "64:ff9b:1::/48",
    )
)  # fmt: skip
REFUSED_NAMES = ("metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")
FOUR_NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+){3}\Z")
# Networks whose addresses hold an IPv4 address in their last 32 bits: NAT64 (RFC 6052), SIIT (RFC 2765), and the
# deprecated IPv4-compatible ones.
HOLDING_IPV4 = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96"))
# Only digits and the marks of a pattern: meant for addresses, but a name that begins like one would match too.
PATTERN_OF_ADDRESSES = re.compile(r"[0-9][0-9.*?\[\]!-]*\Z")
WHOLE_PARTS = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3}){0,2})(?:\.\*)+\Z")


def wrong_with(entry: object) -> str | None:
    """Why an entry of the list would never match anything, with the fix; None if it can match."""
    if not isinstance(entry, str) or not entry.strip(". \t\r\n"):
        return "must be a name, a pattern, an address, a network or the path of a socket"
    if entry[0] in "/*?[" and "/" in entry:
        # The path of a socket, or a pattern of paths.
        return None
    if any(character.isspace() for character in entry):
        return "contains a space; remove it"
    if "://" in entry:
        return f"is a URL; write its host alone{_host_of(entry)}"
    if "/" in entry:
        return _wrong_with_network(entry)
    if "," in entry:
        return "contains several; make each a separate entry"
    if "@" in entry:
        return f"contains a user; write {entry.rpartition('@')[2]}"
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
        return "is not a valid network; write one such as 10.0.0.0/8"
    address = entry.partition("/")[0]
    if str(meant.network_address) == str(ipaddress.ip_address(address)):
        return None
    return f"has bits after its prefix; write {meant}, or {address} for that one address"


def _wrong_with_host(entry: str) -> str | None:
    if _is_address(entry):
        return f"has a zone; write {entry.partition('%')[0]}" if "%" in entry else None
    inner, bracket, _ = entry.removeprefix("[").partition("]")
    if bracket and _is_address(inner):
        return f"has {'a port, which is not checked' if ']:' in entry else 'brackets'}; write {inner}"
    host, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and ":" not in host:
        return f"has a port, which is not checked; write {host}"
    if colon:
        return "is not an address, and a name cannot contain a colon; write a name, an address or a network"
    if PATTERN_OF_ADDRESSES.match(entry) and any(mark in entry for mark in "*?["):
        return f"is a pattern, which a name could match too; write a network such as {_network_like(entry)}"
    if FOUR_NUMBERS.match(entry):
        return "is not an address; each part must be a number from 0 to 255, without leading zeros"
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


class HostPolicy:
    """Where the sources of one host may be.

    allowed: names, patterns of names (`*.example.com`), addresses, networks (`10.0.0.0/8`) and paths of sockets. A
        source must match one of them; None allows every host except the refused ones. An address or network listed
        here is allowed even if it would be refused.
    """

    def __init__(self, allowed: Iterable[str] | None = None) -> None:
        self._lookups = Lookups()
        self._any = allowed is None
        self._networks: list[Network] = []
        self._names: list[str] = []
        # As written: unlike that of a name, the case of a path matters.
        self._paths = list(allowed or ())
        for entry in self._paths:
            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                self._names.append(_folded(entry))

    @property
    def limits(self) -> bool:
        """Whether there is a list."""
        return not self._any

    def check_socket(self, path: str, what: str = "the socket") -> None:
        """Raise SourceRejected for a Unix socket, or a file, that is not on the list, if there is a list."""
        # `..` would leave the folder that a pattern names.
        outside = ".." in path.split("/")
        if not self._any and (outside or not any(fnmatchcase(path, pattern) for pattern in self._paths)):
            raise SourceRejected(f"{what} {path} is not in {OPTION}; add it there")

    async def addresses(self, host: str) -> list[str]:
        """Look a host up, and return the addresses that are allowed.

        Raises SourceRejected if none is allowed, and SourceUnavailable if the name has no address.
        """
        name = _folded(host)
        if name in REFUSED_NAMES:
            raise SourceRejected(
                f"{host} is a cloud's metadata service and cannot be a source; check host of sourceConfig"
            )
        if not self._may_be_allowed(name):
            # Not looked up: every name server that is asked learns the name.
            raise SourceRejected(f"{host} may not be used as a source; it is not in {OPTION}")
        known = await self._lookups.addresses(host)
        usable = [text for text in known if self._is_allowed(name, ipaddress.ip_address(text))]
        if not usable:
            fix = f"add it to {OPTION} if it should be one" if self._any else f"it is not in {OPTION}"
            raise SourceRejected(f"{host} ({', '.join(known)}) may not be used as a source; {fix}")
        return usable

    def _may_be_allowed(self, name: str) -> bool:
        """Whether the list could allow this name: if it has a network, any name could mean an address in it."""
        return self._any or bool(self._networks) or any(fnmatchcase(name, pattern) for pattern in self._names)

    def _is_allowed(self, name: str, address: Address) -> bool:
        inner = _inner_ipv4(address)
        if any(each in network for network in self._networks for each in (address, *inner)):
            return True
        if any(each in network for network in REFUSED for each in (address, *inner)):
            return False
        return self._any or any(fnmatchcase(name, pattern) for pattern in self._names)


# The rules without a list. Shared, because nothing changes the rules of a HostPolicy after it is made.
DEFAULT = HostPolicy()


class CheckedLoop:
    """An event loop for a driver that looks names up itself: it connects only where the policy allows.

    Everything except connecting is the running loop's. A driver that starts TLS later still passes the host's name.

    Attributes:
        looks_up: the name that the last connection looks up; empty once its addresses are known.
    """

    looks_up = ""

    def __init__(self, loop: asyncio.AbstractEventLoop, policy: HostPolicy) -> None:
        self._loop = loop
        self._policy = policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, factory: Callable[[], Any], host: str, port: int, **options: Any) -> Any:
        failures: list[OSError] = []
        self.looks_up = host
        addresses = await self._policy.addresses(host)
        self.looks_up = ""
        for address in addresses:
            try:
                return await self._loop.create_connection(factory, address, port, **options)
            except OSError as error:
                failures.append(unreachable(error, place(address, port)))
        raise _one(failures)

    async def create_unix_connection(self, factory: Callable[[], Any], path: str, **options: Any) -> Any:
        self._policy.check_socket(path)
        try:
            return await self._loop.create_unix_connection(factory, path, **options)
        except OSError as error:
            raise unreachable(error, path) from error


def _one(failures: Sequence[OSError]) -> OSError:
    return failures[0] if len(failures) == 1 else Unreachable("; ".join(str(failure) for failure in failures))


def _inner_ipv4(address: Address) -> tuple[Address, ...]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if not isinstance(address, ipaddress.IPv6Address):
        return ()
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in HOLDING_IPV4):
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(each for each in inner if each is not None)


def _folded(name: str) -> str:
    return name.lower().rstrip(".")
