"""How much a standard deployment may be used: the counters that ``rate_limits.updated`` shows (protocol 9.2).

Laws
----
1. Two counters, ``requests`` and ``tokens``, start empty and drain continuously at limit/60 per second; what a
   limit leaves above its counter is what ``rate_limits.updated`` calls remaining.
2. A response takes one request and its estimated tokens before it starts, both or none; afterwards the estimate is
   put right, once. What it really used may exceed what was there: the counter then stands above its limit, shows 0
   remaining, and drains first.
3. A response that needs more tokens than the limit would never be admitted. It is admitted on an empty counter and
   owes the rest, so the rate holds over time.
4. Requests come evenly: no more at once than fall to a window of some seconds, and at least one.
5. No task. The counters of :class:`Quota` are of one process, whose event loop is their one owner, or shared by all
   workers of a server, who take turns by a lock; it answers at once. Those of :class:`SharedQuota` are elsewhere.
   Time comes from the given clock, in seconds; workers that share counters share the clock too.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from vivavoce.gateway.shared.base import ROUNDING, Charge, Counters, Mode, Outcome, SharedState
from vivavoce.gateway.shared.leaky import drained
from vivavoce.gateway.shared.memory import MemoryCounters
from vivavoce.wire.server_events import RateLimit, Usage

LimitName: TypeAlias = Literal["requests", "tokens"]
NAMES: Final[tuple[LimitName, ...]] = ("requests", "tokens")

MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Denied:
    """Not now. ``name``: the limit in the way; ``retry_after_s``: when the same request would be admitted."""

    name: LimitName
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Asked:
    """What a response may use."""

    tokens: int
    """All of it: what it reads, and the most that it may say."""
    reads: Usage
    """Of which the input alone counts."""
    max_output_tokens: int | None
    """None where nobody has set a limit."""


class Reserved(Protocol):
    """What a response was granted, to be put right when it has ended."""

    def settle(self, used: Usage) -> Awaitable[None] | None:
        """It has ended and used that; the second time changes nothing."""


class Limiter(Protocol):
    """What limits the responses of a deployment. It answers at once, or awaitably where it has to ask."""

    def ask(self, asked: Asked) -> Reserved | Denied | Awaitable[Reserved | Denied]:
        """May a response begin? A no changes nothing."""

    def connect(self) -> Denied | Awaitable[Denied | None] | None:
        """May a connection come, as far as responses could begin? It takes nothing."""

    def status(self) -> tuple[RateLimit, ...]:
        """What ``rate_limits.updated`` shows now, as known from the last answer."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a deployment may use in a minute."""

    tokens: int
    requests: int
    request_window_s: float = MINUTE_S
    """Seconds of which the share of requests may come at once."""

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.requests < 1:
            raise ValueError("limits start at 1")

    def charges(self, *, requests: int, tokens: float) -> tuple[Charge, Charge]:
        """What a response, or a correction, charges the counters."""
        at_once = max(1.0, self.requests * min(self.request_window_s, MINUTE_S) / MINUTE_S)
        return (
            Charge("requests", requests, at_once, self.requests / MINUTE_S),
            Charge("tokens", tokens, self.tokens, self.tokens / MINUTE_S),
        )

    def denied(self, outcome: Outcome) -> Denied | None:
        """Why charges were not made; None where they were."""
        if outcome.admitted:
            return None
        requests, tokens = outcome.waits
        return Denied("requests" if requests >= tokens else "tokens", max(requests, tokens))

    def shown(self, levels: Sequence[float]) -> tuple[RateLimit, RateLimit]:
        """``requests``, then ``tokens``: the limit, what is left, and seconds until the counter is empty."""
        requests, tokens = (
            RateLimit(
                name=name,
                limit=limit,
                remaining=max(0, math.floor(limit - level + ROUNDING)),
                reset_seconds=level * MINUTE_S / limit,
            )
            for name, limit, level in zip(NAMES, (self.requests, self.tokens), levels, strict=True)
        )
        return requests, tokens


class Reservation:
    """What one response has taken. Exactly one of :meth:`settle` and :meth:`release` has an effect, and once."""

    __slots__ = ("_open", "_quota", "tokens")

    def __init__(self, quota: Quota, tokens: int) -> None:
        self._quota = quota
        self._open = True
        self.tokens = tokens
        """The estimate."""

    def settle(self, used: int | Usage) -> None:
        """The response has ended and used so many tokens."""
        actual_tokens = used if isinstance(used, int) else used.total
        if actual_tokens < 0:
            raise ValueError(f"a response cannot use {actual_tokens} tokens")
        self._close(requests=0, tokens=actual_tokens - self.tokens)

    def release(self) -> None:
        """The response never started: give everything back."""
        self._close(requests=-1, tokens=-self.tokens)

    def _close(self, *, requests: int, tokens: int) -> None:
        if self._open:
            self._open = False
            self._quota.take(requests=requests, tokens=tokens)


class Quota:
    """The two counters of one deployment, where they answer at once."""

    __slots__ = ("_clock", "_counters", "_name", "limits")

    def __init__(
        self,
        tokens_per_minute: int,
        requests_per_minute: int,
        clock: Callable[[], float],
        counters: Counters | None = None,
        name: str = "",
        request_window_s: float = MINUTE_S,
    ) -> None:
        """Limits are at least 1; ``clock`` gives monotone seconds; ``counters``: where the deployment ``name``
        counts, None for counters of its own; ``request_window_s`` as of :class:`RateLimits`."""
        self.limits = RateLimits(tokens_per_minute, requests_per_minute, request_window_s)
        self._clock = clock
        self._counters = MemoryCounters() if counters is None else counters
        self._name = name

    def reserve(self, tokens: int) -> Reservation | Denied:
        """Take one request and ``tokens`` (0 or more), or nothing at all."""
        if tokens < 0:
            raise ValueError(f"cannot reserve {tokens} tokens")
        denied = self.limits.denied(self._charge(1, tokens, "admit"))
        return Reservation(self, tokens) if denied is None else denied

    def ask(self, asked: Asked) -> Reservation | Denied:
        return self.reserve(asked.tokens)

    def connect(self) -> None:
        """A connection costs no tokens."""

    def take(self, *, requests: int, tokens: int) -> None:
        """Count without asking; negative numbers give back."""
        self._charge(requests, tokens, "add")

    def status(self) -> tuple[RateLimit, RateLimit]:
        """What ``rate_limits.updated`` shows now."""
        return self.limits.shown(self._charge(0, 0, "add").levels)

    def _charge(self, requests: int, tokens: int, mode: Mode) -> Outcome:
        charges = self.limits.charges(requests=requests, tokens=tokens)
        return self._counters.charge(self._name, charges, self._clock(), mode)


class SharedReservation:
    """What one response has taken from counters that are elsewhere; see :class:`Reservation`."""

    __slots__ = ("_open", "_quota", "_where", "tokens")

    def __init__(self, quota: SharedQuota, tokens: int, where: int) -> None:
        self._quota = quota
        self._where = where
        self._open = True
        self.tokens = tokens
        """The estimate."""

    async def settle(self, used: Usage) -> None:
        """The response has ended and used that."""
        if self._open:
            self._open = False
            await self._quota.put_right(used.total - self.tokens, self._where)


class SharedQuota:
    """The two counters of one deployment, where an answer is a round trip: one for each reservation, one for each
    settlement. ``clock``: monotone seconds."""

    __slots__ = ("_at", "_clock", "_levels", "_name", "_shared", "limits")

    def __init__(self, limits: RateLimits, shared: SharedState, name: str, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._shared = shared
        self._name = name
        self._clock = clock
        self._levels: tuple[float, ...] = (0.0, 0.0)
        self._at = clock()

    async def ask(self, asked: Asked) -> SharedReservation | Denied:
        outcome = await self._charge(1, asked.tokens, "admit", None)
        return self.limits.denied(outcome) or SharedReservation(self, asked.tokens, outcome.where)

    def connect(self) -> None:
        """A connection costs no tokens."""

    async def put_right(self, tokens: int, where: int) -> None:
        """``where``: as the outcome of the reservation said."""
        await self._charge(0, tokens, "add", where)

    def status(self) -> tuple[RateLimit, ...]:
        """As the last answer has left it, less what has drained since."""
        since, now = self._at, self._clock()
        charges = self.limits.charges(requests=0, tokens=0)
        return self.limits.shown(
            [drained(level, since, now, one.drain) for level, one in zip(self._levels, charges, strict=True)]
        )

    async def _charge(self, requests: int, tokens: int, mode: Mode, where: int | None) -> Outcome:
        charges = self.limits.charges(requests=requests, tokens=tokens)
        outcome = await self._shared.charge(self._name, charges, mode, where)
        self._levels, self._at = outcome.levels, self._clock()
        return outcome


def limiter(limits: RateLimits, shared: SharedState, name: str, clock: Callable[[], float]) -> Quota | SharedQuota:
    """The counters of a standard deployment, under ``name``."""
    if shared.counters is None:
        return SharedQuota(limits, shared, name, clock)
    return Quota(limits.tokens, limits.requests, clock, shared.counters, name, limits.request_window_s)
