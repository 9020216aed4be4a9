"""Whoever guesses keys is made to wait.

Laws
----
1. Every bad key or forged token counts against the address that it came from, and against the account that it was
   for. Each count leaks away evenly: ``failures`` in ``window_s`` fill an address, and then one more is possible
   each ``window_s / failures`` seconds. While an address is full it is told to wait, whatever it offers, so that a
   guess cannot be told from a hit.
2. A correct key from an address that has not failed always opens. When an account is full (many addresses guess
   together), only those addresses wait at once that have failed themselves.
3. Memory is bounded: at most ``tracked`` addresses, the ones that failed last.
4. IPv6 addresses count by their /64, which is one customer.

Pure: the clock is given, in seconds. A success forgives nothing, or one good key would allow to guess others for
ever.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

TRACKED: Final = 10_000
"""Addresses, and accounts, whose failures are remembered."""
_V6_CUSTOMER: Final = 64


@dataclass(slots=True)
class _Count:
    level: float
    at: float


class _Counts:
    """Leaking counts by name, bounded in number."""

    def __init__(self, limit: int, window_s: float, most: int) -> None:
        self.limit = limit
        self._rate = limit / window_s
        self._most = most
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def level(self, name: str, now: float) -> float:
        count = self._counts.get(name)
        return 0.0 if count is None else max(0.0, count.level - (now - count.at) * self._rate)

    def add(self, name: str, now: float) -> None:
        self._counts[name] = _Count(min(self.limit, self.level(name, now) + 1), now)
        self._counts.move_to_end(name)
        if len(self._counts) > self._most:
            self._counts.popitem(last=False)

    def wait_s(self, name: str, now: float, limit: float) -> float:
        """Seconds until there is room for one more below ``limit``."""
        return max(0.0, (self.level(name, now) - (limit - 1)) / self._rate)


class Throttle:
    """Counts failures; see the laws above."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        failures: int = 60,
        account_failures: int = 600,
        window_s: float = 60.0,
        tracked: int = TRACKED,
    ) -> None:
        self._clock = clock
        self._addresses = _Counts(failures, window_s, tracked)
        self._accounts = _Counts(account_failures, window_s, tracked)

    def wait_s(self, address: str, account: str) -> float:
        """Seconds that this address must wait before it may try again; 0 when it may now."""
        now, name = self._clock(), customer(address)
        wait_s = self._addresses.wait_s(name, now, self._addresses.limit)
        if wait_s == 0 and self._accounts.wait_s(account, now, self._accounts.limit):
            wait_s = self._addresses.wait_s(name, now, 1)
        return wait_s

    def failed(self, address: str, account: str) -> None:
        now = self._clock()
        self._addresses.add(customer(address), now)
        self._accounts.add(account, now)


def customer(address: str) -> str:
    """What an address counts as: itself, or the /64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _V6_CUSTOMER), strict=False))


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Whose request it is: ``peer``, or where that is a trusted proxy, the last address that ``X-Forwarded-For``
    names (lines in order) and that is no trusted proxy itself. Nobody else's word counts.
    """
    address = peer
    hops = [hop.strip() for line in forwarded_for for hop in line.split(",")]
    while hops and _is_trusted(address, trusted):
        address = _bare(hops.pop())
    return address


def _bare(hop: str) -> str:
    """Without the port that some proxies add: ``1.2.3.4:567``, ``[2001:db8::1]:567``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    host, colon, port = hop.rpartition(":")
    return host if colon and port.isdigit() and ":" not in host else hop


def _is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed.version == network.version and parsed in network for network in trusted)
