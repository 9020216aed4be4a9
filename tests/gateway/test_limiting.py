"""What limits a deployment, where the counters answer at once and where they are a round trip away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import pytest

from vivavoce.gateway.limiting import ConnectionRate, ProvisionedLimiter, Soon, Spilled, SpillOver
from vivavoce.gateway.provisioned import Provision
from vivavoce.gateway.quota import Asked, Denied, RateLimits, Reserved, limiter
from vivavoce.gateway.shared.base import Charge, Mode, Outcome, SharedState
from vivavoce.gateway.shared.memory import MemoryState
from vivavoce.wire.server_events import Usage

UNIT: Final = Provision(10, 600, 200, guessed_output=100)
"""6000 input tokens a minute; one of output counts for 3."""
_T = TypeVar("_T")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Far(MemoryState):
    """As if it were on another machine."""

    @property
    def counters(self) -> None:  # type: ignore[override]
        return None

    async def charge(
        self, name: str, charges: Sequence[Charge], mode: Mode = "admit", where: int | None = None
    ) -> Outcome:
        return self._counters.charge(name, charges, self._clock(), mode)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[MemoryState, Far])
def shared(request: pytest.FixtureRequest, clock: Clock) -> SharedState:
    make: Callable[[Clock], SharedState] = request.param
    return make(clock)


async def now(answer: Soon[_T]) -> _T:
    return await answer if isinstance(answer, Awaitable) else answer


def asked(prompt: int, max_output: int | None = None, cached: int = 0) -> Asked:
    return Asked(prompt + (max_output or 4096), Usage(input_text=prompt, cached_audio=cached), max_output)


async def granted(answer: Soon[Reserved | Denied]) -> Reserved:
    reserved: Reserved | Denied = await now(answer)
    assert not isinstance(reserved, Denied)
    return reserved


async def denied(answer: Soon[Reserved | Denied]) -> Denied:
    refused = await now(answer)
    assert isinstance(refused, Denied)
    return refused


async def settle(reserved: Reserved, used: Usage) -> None:
    answer = reserved.settle(used)
    if answer is not None:
        await answer


async def test_a_provisioned_deployment_counts_what_a_response_weighs(shared: SharedState, clock: Clock) -> None:
    limited = ProvisionedLimiter(UNIT, shared, "d", clock)
    reserved = await granted(limited.ask(asked(1000, 500)))
    assert limited.utilization == pytest.approx(2500 / 6000)
    (limit,) = limited.status()
    assert (limit.name, limit.limit, limit.remaining, limit.reset_seconds) == ("tokens", 6000, 3500, 25)
    used = Usage(input_text=1000, output_text=50, output_audio=50)
    await settle(reserved, used)
    await settle(reserved, used)
    assert limited.utilization == pytest.approx(1300 / 6000)
    await granted(limited.ask(asked(3000, cached=2000)))
    assert limited.utilization == pytest.approx(2600 / 6000)
    clock.now += 10
    assert limited.utilization == pytest.approx(1600 / 6000)


async def test_full_refuses_responses_and_connections(shared: SharedState, clock: Clock) -> None:
    limited = ProvisionedLimiter(UNIT, shared, "d", clock)
    assert await now(limited.connect()) is None
    assert limited.utilization == 0
    await granted(limited.ask(asked(9000, 1000)))
    assert (await denied(limited.ask(asked(1, 1)))).retry_after_s == pytest.approx(60.001)
    full = await now(limited.connect())
    assert full is not None
    assert full.retry_after_s == pytest.approx(60.001)
    clock.now += 60.001
    assert await now(limited.connect()) is None
    await granted(limited.ask(asked(1, 1)))


async def test_what_others_use_is_learned_by_asking(clock: Clock) -> None:
    """Two processes, one bucket that is a round trip away."""
    far = Far(clock)
    here, there = (ProvisionedLimiter(UNIT, far, "d", clock) for _ in range(2))
    await granted(there.ask(asked(3000, 0)))
    assert (here.utilization, there.utilization) == (0, 0.5)
    await here.refresh()
    assert here.utilization == 0.5
    clock.now += 30
    assert here.utilization == 0
    await here.refresh()
    assert (await now(there.connect()), here.utilization) == (None, 0)


async def test_what_has_no_room_spills_over_and_is_settled_there(shared: SharedState, clock: Clock) -> None:
    first = ProvisionedLimiter(UNIT, shared, "first", clock)
    second = limiter(RateLimits(tokens=6000, requests=600), shared, "second", clock)
    both = SpillOver(first, lambda: second)
    await granted(both.ask(asked(6000, 1)))
    spilled = await granted(both.ask(asked(1000, 2000)))
    assert isinstance(spilled, Spilled)
    assert second.status()[1].remaining == 3000
    await settle(spilled, Usage(input_text=1000))
    assert second.status()[1].remaining == 5000
    assert first.utilization == pytest.approx(6003 / 6000)
    assert await now(both.connect()) is None
    assert both.status() == first.status()
    # When neither has room, the shorter wait is told.
    assert (await denied(both.ask(asked(4000, 1500)))).retry_after_s == pytest.approx(0.031)


async def test_connections_per_minute(shared: SharedState, clock: Clock) -> None:
    rate = ConnectionRate(3, shared, "d", clock)
    assert [await now(rate.connect()) for _ in range(3)] == [None] * 3
    assert await now(rate.connect()) == Denied("requests", 20)
    clock.now += 20
    assert await now(rate.connect()) is None
    again = await now(rate.connect())
    assert again is not None
    assert again.retry_after_s == pytest.approx(20)


async def test_requests_come_evenly_over_their_window(shared: SharedState, clock: Clock) -> None:
    even = limiter(RateLimits(tokens=10**6, requests=60, request_window_s=10), shared, "d", clock)
    for _ in range(10):
        await granted(even.ask(asked(1, 1)))
    refused = await denied(even.ask(asked(1, 1)))
    assert (refused.name, refused.retry_after_s) == ("requests", 1)
    assert even.status()[0].remaining == 50
    clock.now += 1
    await granted(even.ask(asked(1, 1)))
    assert isinstance(await now(even.ask(asked(1, 1))), Denied)


async def test_a_window_takes_one_request_at_least(shared: SharedState, clock: Clock) -> None:
    slow = limiter(RateLimits(tokens=10**6, requests=2, request_window_s=1), shared, "d", clock)
    await granted(slow.ask(asked(1, 1)))
    assert (await denied(slow.ask(asked(1, 1)))).retry_after_s == 30
