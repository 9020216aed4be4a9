"""The bucket of provisioned throughput, against a reference that is written the other way round and is exact."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_server import RedisServer, redis_server

from vivavoce.gateway.models.catalogue import shipped
from vivavoce.gateway.provisioned import Provision
from vivavoce.gateway.shared.base import Outcome, SharedState
from vivavoce.gateway.shared.memory import MemoryState
from vivavoce.gateway.shared.redis import RedisState

RECORDED: Final = Path(__file__).parent / "data" / "recorded_traffic.jsonl"
CLOSE: Final = 1e-6
"""Of 100 %: what doubles may be off after hundreds of steps."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Reference:
    """It knows no level, but the moment at which the bucket will be empty, as a fraction."""

    def __init__(self, provision: Provision) -> None:
        self._weight = Fraction(provision.input_tokens_per_minute, provision.output_tokens_per_minute)
        self._drain = Fraction(provision.ptus * provision.input_tokens_per_minute, 60)
        self._guess = provision.guessed_output
        self._empty_at = Fraction(0)

    def utilization(self, now: Fraction) -> Fraction:
        return max(Fraction(0), self._empty_at - now) / 60

    def admit(self, now: Fraction, prompt: int, cached: int, max_output: int | None) -> Fraction | None:
        """What it is charged; None: refused."""
        if self._empty_at - now >= 60:
            return None
        charged = self._cost(prompt, cached, self._guess if max_output is None else max_output)
        self._move(now, charged)
        return charged

    def complete(self, now: Fraction, charged: Fraction, prompt: int, cached: int, output: int) -> None:
        self._move(now, self._cost(prompt, cached, output) - charged)

    def _cost(self, prompt: int, cached: int, output: int) -> Fraction:
        return prompt - (cached if cached >= 1024 else 0) + output * self._weight

    def _move(self, now: Fraction, cost: Fraction) -> None:
        self._empty_at = max(now, max(now, self._empty_at) + cost / self._drain)


@dataclass(frozen=True, slots=True)
class Request:
    """Times in whole milliseconds, which a double and a fraction both can say."""

    at_ms: int
    prompt: int
    cached: int
    max_output: int | None
    output: int
    lasts_ms: int


def recorded() -> list[Request]:
    rows = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    return [
        Request(
            round(row["time"] * 1000),
            row["prompt_tokens"],
            row["cached_tokens"],
            row["max_tokens"],
            row["output_tokens"],
            round(row["seconds"] * 1000),
        )
        for row in rows
    ]


async def follow(provision: Provision, requests: Sequence[Request], state: SharedState, clock: Clock) -> list[bool]:
    """Both do the same; compared at each step. Returns what was admitted."""
    reference = Reference(provision)
    events = sorted(
        [(one.at_ms, 1, index) for index, one in enumerate(requests)]
        + [(one.at_ms + one.lasts_ms, 0, index) for index, one in enumerate(requests)]
    )
    charged: dict[int, tuple[float, Fraction]] = {}
    admitted = [False] * len(requests)
    for at_ms, begins, index in events:
        request, now = requests[index], Fraction(at_ms, 1000)
        clock.now = at_ms / 1000
        if begins:
            estimate = provision.estimate(request.prompt, request.cached, request.max_output)
            near_full = abs(reference.utilization(now) - 1) < CLOSE
            outcome = await state.charge("d", [provision.charge(estimate)])
            expected = None
            if not near_full or outcome.admitted:
                expected = reference.admit(now, request.prompt, request.cached, request.max_output)
                assert near_full or outcome.admitted == (expected is not None)
            if outcome.admitted and expected is not None:
                charged[index] = (estimate, expected)
                admitted[index] = True
            elif not outcome.admitted:
                told = Fraction(outcome.waits[0])
                assert reference.utilization(now + told) < 1
                assert reference.utilization(now + told - Fraction(2, 1000)) > 1 - CLOSE
        elif index in charged:
            estimate, expected = charged.pop(index)
            actual = provision.cost(request.prompt, request.cached, request.output)
            outcome = await state.charge("d", [provision.charge(actual - estimate)], "add")
            reference.complete(now, expected, request.prompt, request.cached, request.output)
        else:
            continue
        check(provision, outcome, reference.utilization(now))
    return admitted


def check(provision: Provision, outcome: Outcome, expected: Fraction) -> None:
    assert outcome.levels[0] / provision.capacity == pytest.approx(float(expected), abs=CLOSE)


provisions = st.builds(
    Provision,
    ptus=st.integers(1, 300),
    input_tokens_per_minute=st.integers(100, 60_000),
    output_tokens_per_minute=st.integers(50, 20_000),
    guessed_output=st.integers(0, 5000),
)
tokens = st.integers(0, 60_000)


@st.composite
def traffic(draw: st.DrawFn) -> list[Request]:
    at_ms = 0
    requests = []
    for gap in draw(st.lists(st.integers(0, 40_000), min_size=1, max_size=40)):
        at_ms += gap
        prompt = draw(tokens)
        requests.append(
            Request(
                at_ms=at_ms,
                prompt=prompt,
                cached=draw(st.integers(0, prompt)),
                max_output=draw(st.none() | st.integers(1, 20_000)),
                output=draw(st.integers(0, 20_000)),
                lasts_ms=draw(st.integers(0, 90_000)),
            )
        )
    return requests


@given(provisions, traffic())
@settings(max_examples=150, deadline=None)
def test_the_bucket_in_memory_is_the_reference(provision: Provision, requests: list[Request]) -> None:
    clock = Clock()
    asyncio.run(follow(provision, requests, MemoryState(clock), clock))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        yield server


async def follow_in_redis(redis: RedisServer, provision: Provision, requests: Sequence[Request]) -> list[bool]:
    clock = Clock()
    state = RedisState(redis.url, prefix=secrets.token_hex(8), on_loss="closed", clock=clock)
    try:
        admitted = await follow(provision, requests, state, clock)
        assert (state.losses, state.dropped) == (0, 0)
        return admitted
    finally:
        await state.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Redis to start")
@given(provision=provisions, requests=traffic())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_bucket_in_redis_is_the_reference(
    redis: RedisServer, provision: Provision, requests: list[Request]
) -> None:
    asyncio.run(follow_in_redis(redis, provision, requests))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Redis to start")
async def test_recorded_traffic(redis: RedisServer) -> None:
    """Too much for one unit: both admit the same, in memory and in Redis, and not all of it."""
    throughput = shipped().throughput("gpt-4o")
    assert throughput is not None
    provision = Provision.of(throughput, 1)
    clock = Clock()
    admitted = await follow(provision, recorded(), MemoryState(clock), clock)
    assert await follow_in_redis(redis, provision, recorded()) == admitted
    assert 0 < sum(admitted) < len(admitted)


# --------------------------------------------------------------------------------------- each law by its numbers

UNIT: Final = Provision(10, 600, 200)
"""6000 input tokens a minute, 100 a second; one of output counts for 3."""


@pytest.mark.parametrize(
    ("prompt", "cached", "max_output", "estimate"),
    [
        (1000, 0, 100, 1300),
        (2000, 1023, 100, 2300),
        (2000, 1024, 100, 1276),
        (2000, 2000, 100, 300),
        (1000, 0, None, 1000 + 3 * 1024),
    ],
)
def test_the_estimate(prompt: int, cached: int, max_output: int | None, estimate: float) -> None:
    assert UNIT.estimate(prompt, cached, max_output) == estimate


def test_of_a_cached_token_a_part_may_cost() -> None:
    assert Provision(10, 600, 200, cache_discount=0.5).cost(2000, 1500, 0) == 1250


async def test_bursts_pass_full_refuses_and_corrections_go_both_ways() -> None:
    clock = Clock()
    state = MemoryState(clock)

    async def charge(amount: float, *, correct: bool = False) -> tuple[bool, int, int]:
        """Admitted; units in the bucket; ms to wait."""
        outcome = await state.charge("d", [UNIT.charge(amount)], "add" if correct else "admit")
        return outcome.admitted, round(outcome.levels[0]), round(outcome.waits[0] * 1000)

    assert await charge(5999) == (True, 5999, 0)
    assert await charge(6001) == (True, 12_000, 0)
    assert await charge(1) == (False, 12_000, 60_001)
    assert await charge(-3000, correct=True) == (True, 9000, 0)
    clock.now += 30.001
    assert await charge(0) == (True, 6000, 0)
    assert await charge(600, correct=True) == (True, 6600, 0)
    clock.now += 3600
    assert await charge(0) == (True, 0, 0)


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_units_and_throughput_start_at_one(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="start at 1"):
        Provision(*wrong)
