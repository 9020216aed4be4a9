"""What limits a deployment: counters of its sku, where they are, and who takes what has no room.

Laws
----
1. A :class:`Limiter` answers at once where its counters do, and awaitably where they are a round trip away.
2. A provisioned deployment counts utilization alone. It is full for new connections too, as for responses.
3. What a deployment with a spill-over refuses, the other deployment of the account is asked for, and counts.
4. New connections are counted beside all that: they cost no tokens.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from vivavoce.gateway.provisioned import Provision, parts
from vivavoce.gateway.quota import MINUTE_S, Asked, Denied, Limiter, Reserved
from vivavoce.gateway.shared.base import ROUNDING, Charge, Mode, Outcome, SharedState
from vivavoce.gateway.shared.leaky import drained
from vivavoce.wire.server_events import RateLimit, Usage

_T = TypeVar("_T")
_U = TypeVar("_U")
Soon: TypeAlias = _T | Awaitable[_T]
"""At once, or later."""

_CONNECTIONS: Final = "connections"


def then(answer: Soon[_T], make: Callable[[_T], Soon[_U]]) -> Soon[_U]:
    """``make`` of the answer, when it is there."""
    return _later(answer, make) if isinstance(answer, Awaitable) else make(answer)


async def _later(answer: Awaitable[_T], make: Callable[[_T], Soon[_U]]) -> _U:
    made = make(await answer)
    return await made if isinstance(made, Awaitable) else made


class CountersOf:
    """The counters of one name, wherever they are, and what is known of them. ``clock``: monotone seconds."""

    def __init__(self, shared: SharedState, name: str, clock: Callable[[], float]) -> None:
        self._shared = shared
        self._name = name
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}

    def charge(self, charges: Sequence[Charge], mode: Mode = "admit", where: int | None = None) -> Soon[Outcome]:
        """As :meth:`SharedState.charge`."""
        counters = self._shared.counters
        if counters is not None:
            return counters.charge(self._name, charges, self._clock(), mode)
        return self._ask(charges, mode, where)

    async def refresh(self, charge: Charge) -> None:
        """Ask for the level of its counter, where nothing here knows it."""
        if self._shared.counters is None:
            await self._ask([Charge(charge.counter, 0, charge.ceiling, charge.drain)], "add", None)

    async def _ask(self, charges: Sequence[Charge], mode: Mode, where: int | None) -> Outcome:
        outcome = await self._shared.charge(self._name, charges, mode, where)
        now = self._clock()
        for one, level in zip(charges, outcome.levels, strict=True):
            self._levels[one.counter] = (level, now)
        return outcome

    def level(self, charge: Charge) -> float:
        """Of its counter now; where it is a round trip away, as the last answer has left it."""
        now = self._clock()
        counters = self._shared.counters
        if counters is not None:
            nothing = Charge(charge.counter, 0, charge.ceiling, charge.drain)
            return counters.charge(self._name, [nothing], now, "add").levels[0]
        return drained(*self._levels.get(charge.counter, (0.0, now)), now, charge.drain)


class ProvisionedLimiter:
    """Responses and connections of a provisioned deployment."""

    def __init__(self, provision: Provision, shared: SharedState, name: str, clock: Callable[[], float]) -> None:
        self.provision = provision
        self._counters = CountersOf(shared, name, clock)

    def ask(self, asked: Asked) -> Soon[Reserved | Denied]:
        prompt, cached, _ = parts(asked.reads)
        estimate = self.provision.estimate(prompt, cached, asked.max_output_tokens)

        def reserved(outcome: Outcome) -> Reserved | Denied:
            if outcome.admitted:
                return _Estimate(self, estimate, outcome.where)
            return Denied("tokens", outcome.waits[0])

        return then(self._counters.charge([self.provision.charge(estimate)]), reserved)

    def put_right(self, difference: float, where: int) -> Soon[Outcome]:
        """``where``: as the outcome of the reservation said."""
        return self._counters.charge([self.provision.charge(difference)], "add", where)

    def connect(self) -> Soon[Denied | None]:
        """Is there room for a connection? It is charged nothing."""

        def answer(outcome: Outcome) -> Denied | None:
            return None if outcome.admitted else Denied("tokens", outcome.waits[0])

        return then(self._counters.charge([self.provision.charge(0)]), answer)

    @property
    def utilization(self) -> float:
        """1 is 100 %; bursts lift it above."""
        return self._counters.level(self.provision.charge(0)) / self.provision.capacity

    async def refresh(self) -> None:
        """Learn what other processes have used meanwhile."""
        await self._counters.refresh(self.provision.charge(0))

    def status(self) -> tuple[RateLimit, ...]:
        """Input tokens of a minute, less those that are used."""
        limit, level = self.provision.capacity, self.utilization * self.provision.capacity
        return (
            RateLimit(
                name="tokens",
                limit=math.floor(limit),
                remaining=max(0, math.floor(limit - level + ROUNDING)),
                reset_seconds=level / self.provision.drain,
            ),
        )


class _Estimate:
    """What a response was charged before it began."""

    def __init__(self, limiter: ProvisionedLimiter, amount: float, where: int) -> None:
        self._limiter = limiter
        self._amount = amount
        self._where = where
        self._open = True

    def settle(self, used: Usage) -> Awaitable[None] | None:
        if not self._open:
            return None
        self._open = False
        difference = self._limiter.provision.cost_of(used) - self._amount
        answer = then(self._limiter.put_right(difference, self._where), lambda _: None)
        return answer if isinstance(answer, Awaitable) else None


class Spilled:
    """What another deployment has granted."""

    __slots__ = ("_granted",)

    def __init__(self, granted: Reserved) -> None:
        self._granted = granted

    def settle(self, used: Usage) -> Awaitable[None] | None:
        return self._granted.settle(used)


class SpillOver:
    """A provisioned deployment that hands what it has no room for to another one of the account."""

    def __init__(self, first: ProvisionedLimiter, second: Callable[[], Limiter | None]) -> None:
        """``second``: what limits the other one now; None where it is not there."""
        self.first = first
        self._second = second

    def ask(self, asked: Asked) -> Soon[Reserved | Denied]:
        """:class:`Spilled` is what the other one has granted."""
        first = self.first.ask(asked)
        if isinstance(first, Awaitable):
            return self._ask_later(first, asked)
        other = self._second()
        if not isinstance(first, Denied) or other is None:
            return first
        second = other.ask(asked)
        return self._other_later(first, second) if isinstance(second, Awaitable) else self._either(first, second)

    async def _ask_later(self, answer: Awaitable[Reserved | Denied], asked: Asked) -> Reserved | Denied:
        first = await answer
        other = self._second()
        if not isinstance(first, Denied) or other is None:
            return first
        second = other.ask(asked)
        return self._either(first, await second if isinstance(second, Awaitable) else second)

    async def _other_later(self, first: Denied, answer: Awaitable[Reserved | Denied]) -> Reserved | Denied:
        return self._either(first, await answer)

    def _either(self, first: Denied, second: Reserved | Denied) -> Reserved | Denied:
        if isinstance(second, Denied):
            return min(first, second, key=lambda denied: denied.retry_after_s)
        return Spilled(second)

    def connect(self) -> Soon[Denied | None]:
        """There is room where one of both has some."""

        def spill(first: Denied | None) -> Soon[Denied | None]:
            other = self._second()
            return first if first is None or other is None else other.connect()

        return then(self.first.connect(), spill)

    def status(self) -> tuple[RateLimit, ...]:
        return self.first.status()


class ConnectionRate:
    """New connections of a deployment, per minute; all of a minute's may come at once."""

    def __init__(self, per_minute: int, shared: SharedState, name: str, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._counters = CountersOf(shared, name, clock)

    def connect(self) -> Soon[Denied | None]:
        """Count one, if there is room."""

        def answer(outcome: Outcome) -> Denied | None:
            return None if outcome.admitted else Denied("requests", outcome.waits[0])

        charge = Charge(_CONNECTIONS, 1, self._per_minute, self._per_minute / MINUTE_S)
        return then(self._counters.charge([charge]), answer)
