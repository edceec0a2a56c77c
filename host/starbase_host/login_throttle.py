"""Failed logins, by address: who guesses tokens is told to wait longer and longer. Knows no HTTP; time is a parameter.

A guess is a token that is wrong and was not tried from that address before, so that a client with an old token, which
tells nobody anything, is not taken for somebody who guesses. Only wrong tokens are ever told to wait: a right one that
had to would be locked out by whoever guesses from its address. What keeps a token from being guessed is its length. An
address is the peer's own: what a header says of it can be written by anybody.
"""

from __future__ import annotations

import functools
import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field

# So many wrong tokens cost nothing: somebody may have several to try, and a guess of a good token needs far more.
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


class Throttle:
    """The failed logins of one host. Bounded: at most MAX_ADDRESSES, each with a few numbers.

    longest_seconds: the longest wait; 0 for none at all.
    """

    def __init__(self, longest_seconds: float = LONGEST_SECONDS) -> None:
        self._longest = longest_seconds
        # The one that failed longest ago comes first.
        self._guesses: OrderedDict[str, _Guesses] = OrderedDict()

    def wait_seconds(self, address: str, now: float) -> float:
        """How long this address has still to wait before another wrong token of it is taken for a mistake."""
        found = self._guesses.get(_network(address))
        return max(0.0, found.until - now) if found is not None else 0.0

    def failed(self, address: str, token: bytes, now: float) -> None:
        """Note a wrong token."""
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


# Asked at every request, mostly by the same few.
@functools.lru_cache(maxsize=1024)
def _network(address: str) -> str:
    """What one party is sure to have: an IPv4 address, or 64 bits of an IPv6 one."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped is not None:
            return str(known.ipv4_mapped)
        return str(ipaddress.ip_network((int(known) >> 64 << 64, 64)))
    return str(known)
