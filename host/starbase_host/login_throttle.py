"""Failed logins, by address: an address that guesses tokens has to wait longer and longer.

A guess is a wrong token that the address has not sent before, so that a client with an old token does not count as one
that guesses. Only wrong tokens have to wait: if right ones had to, anyone who guesses from the same address could lock
their owners out. What really protects a token is its length. The address is that of the peer, because anyone can write
a header. Must not know HTTP; time is a parameter.
"""

from __future__ import annotations

import functools
import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field

# This many guesses are free: a user may have several tokens to try, and guessing a good token takes far more.
FREE_GUESSES = 20
LONGEST_SECONDS = 60.0
FORGET_SECONDS = 900.0
MAX_ADDRESSES = 10_000


@dataclass
class _Guesses:
    tokens: set[int] = field(default_factory=set)
    count: int = 0
    until: float = 0.0
    last: float = 0.0


class LoginThrottle:
    """The failed logins of one host. It remembers at most MAX_ADDRESSES, each with a few numbers.

    longest_seconds: the longest wait; 0 turns waiting off.
    """

    def __init__(self, longest_seconds: float = LONGEST_SECONDS) -> None:
        self._longest = longest_seconds
        # The address whose last failure is the oldest comes first.
        self._guesses: OrderedDict[str, _Guesses] = OrderedDict()

    def wait_seconds(self, address: str, now: float) -> float:
        """How many seconds this address has to wait before it may send another wrong token.

        now: in seconds, of the same clock as in `record_failure`.
        """
        found = self._guesses.get(_network(address))
        return max(0.0, found.until - now) if found is not None else 0.0

    def record_failure(self, address: str, token: bytes, now: float) -> None:
        """Record a wrong token."""
        network = _network(address)
        found = self._guesses.pop(network, None)
        if found is None or now - found.last > FORGET_SECONDS:
            found = _Guesses()
        self._guesses[network] = found
        found.last = now
        if hash(token) in found.tokens or self._longest <= 0:
            return
        found.count += 1
        if len(found.tokens) < FREE_GUESSES:
            found.tokens.add(hash(token))
        over = found.count - FREE_GUESSES
        if over > 0:
            found.until = now + min(2.0 ** min(over - 1, 30), self._longest)
        while len(self._guesses) > MAX_ADDRESSES:
            self._guesses.popitem(last=False)


# Called for every wrong token, mostly from the same few addresses.
@functools.lru_cache(maxsize=1024)
def _network(address: str) -> str:
    """The addresses that one party can have at will: one IPv4 address, or the /64 network of an IPv6 address."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped is not None:
            return str(known.ipv4_mapped)
        return str(ipaddress.ip_network((int(known) >> 64 << 64, 64)))
    return str(known)
