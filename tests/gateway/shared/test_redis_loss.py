"""What becomes of the limits when Redis is lost and comes back: noticed at once, by the policy, and no restart."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from redis_server import RedisServer, redis_server

from vivavoce.gateway.limiting import ConnectionRate
from vivavoce.gateway.quota import Asked, Denied, RateLimits, SharedQuota, SharedReservation
from vivavoce.gateway.shared.base import Charge, Mode, Outcome, Unavailable
from vivavoce.gateway.shared.redis import OnLoss, RedisState
from vivavoce.wire.server_events import Usage

LIMITS: Final = RateLimits(tokens=6000, requests=600)
PATIENCE_S: Final = 30.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        yield server


@asynccontextmanager
async def processes(redis: RedisServer, clock: Clock, on_loss: OnLoss) -> AsyncIterator[list[RedisState]]:
    """Two of them, which know of each other."""
    states = [RedisState(redis.url, prefix="v", on_loss=on_loss, clock=clock) for _ in range(2)]
    for state in states:
        await state.open()
    for state in states:
        await state._look()
    try:
        yield states
    finally:
        for state in states:
            await state.close()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not happened():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def asked(tokens: int) -> Asked:
    return Asked(tokens, Usage(input_text=tokens), None)


async def granted(quota: SharedQuota, tokens: int) -> SharedReservation:
    answer = await quota.ask(asked(tokens))
    assert isinstance(answer, SharedReservation)
    return answer


async def denied(quota: SharedQuota, tokens: int) -> Denied:
    answer = await quota.ask(asked(tokens))
    assert isinstance(answer, Denied)
    return answer


def left(quota: SharedQuota) -> int:
    return quota.status()[1].remaining


async def test_closed_admits_nothing_until_redis_is_back(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vivavoce.gateway.shared.redis")
    clock = Clock()
    async with processes(redis, clock, "closed") as states:
        one, other = (SharedQuota(LIMITS, state, "d", clock) for state in states)
        held = await granted(one, 4000)
        await granted(other, 1000)
        assert (left(one), left(other)) == (2000, 1000)
        redis.kill()
        # The first to ask finds out, and is refused as all that follow; the other process is not asked.
        assert (await denied(one, 1)).retry_after_s > 0
        assert (states[0].reachable, states[0].losses) == (False, 1)
        await until(lambda: not states[1].reachable)
        with pytest.raises(Unavailable):
            await states[1].put("a", b"", 1)
        # A correction has nowhere to go; it is not forgotten that so much was reserved.
        await held.settle(Usage())
        assert states[0].dropped == 1
        clock.now += 10
        redis.start()
        await until(lambda: all(state.reachable for state in states))
        # The new Redis has been told what both knew: 5000, less what has drained.
        await denied(one, 3000)
        await granted(one, 1999)
        assert left(one) == 1
        assert "Redis is lost" in caplog.text
        assert "Redis is back" in caplog.text


async def test_a_local_share_keeps_all_processes_together_within_the_limit(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with processes(redis, clock, "local_share") as states:
        one, other = (SharedQuota(LIMITS, state, "d", clock) for state in states)
        await granted(one, 2000)
        await states[1].charge("d", LIMITS.charges(requests=0, tokens=0), "add")
        before = await granted(one, 0)
        redis.kill()
        # Each of two has 3000 a minute; half of what was used counts as its own.
        grant = await granted(one, 2000)
        await denied(one, 1)
        assert (await denied(one, 50)).retry_after_s == pytest.approx(1)
        await until(lambda: not states[1].reachable)
        await granted(other, 2000)
        await denied(other, 1)
        assert "each of 2 processes admits its share" in caplog.text
        # What was granted before the loss is settled nowhere, what was granted since here.
        await before.settle(Usage(input_text=1000))
        await grant.settle(Usage(input_text=500))
        await granted(one, 1500)
        await denied(one, 1)
        clock.now += 30
        redis.start()
        await until(lambda: all(state.reachable for state in states))
        await denied(other, 3001)
        await granted(other, 2999)
        await until(lambda: states[0].reachable)
        await denied(one, 100)


async def test_a_redis_that_was_never_there_is_waited_for(redis: RedisServer) -> None:
    clock = Clock()
    redis.kill()
    async with processes(redis, clock, "closed") as states:
        assert not states[0].reachable
        quota = SharedQuota(LIMITS, states[0], "d", clock)
        await denied(quota, 1)
        redis.start()
        await until(lambda: states[0].reachable)
        await granted(quota, 6000)


async def test_new_connections_are_counted_beside_the_quota(redis: RedisServer) -> None:
    """Under the same name, as a deployment has them."""
    clock = Clock()
    async with processes(redis, clock, "closed") as states:
        state = states[0]
        quota, rate = SharedQuota(LIMITS, state, "d", clock), ConnectionRate(10, state, "d", clock)
        held = await granted(quota, 4000)
        answer = rate.connect()
        assert isinstance(answer, Awaitable)
        assert await answer is None
        redis.kill()
        await held.settle(Usage())
        assert left(quota) == 2000
        redis.start()
        await until(lambda: state.reachable)
        await denied(quota, 2001)
        await granted(quota, 2000)


async def test_it_comes_back_while_others_are_admitted(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    async with processes(redis, clock, "local_share") as states:
        state = states[0]
        for name in ("a", "b"):
            await granted(SharedQuota(LIMITS, state, name, clock), 1000)
        redis.kill()
        await until(lambda: not state.reachable)
        charged = state._charged

        async def charged_slowly(name: str, charges: Sequence[Charge], mode: Mode) -> Outcome:
            """Somebody is admitted to what nobody has used before, while Redis is told what is known."""
            if not state.reachable:
                await granted(SharedQuota(LIMITS, state, f"new beside {name}", clock), 1)
            return await charged(name, charges, mode)

        monkeypatch.setattr(state, "_charged", charged_slowly)
        redis.start()
        await until(lambda: state.reachable)
        await denied(SharedQuota(LIMITS, state, "a", clock), 5001)


async def test_a_redis_that_hangs_is_lost_too(redis: RedisServer) -> None:
    clock = Clock()
    async with processes(redis, clock, "closed") as states:
        quota = SharedQuota(LIMITS, states[0], "d", clock)
        with redis.client() as client:
            client.execute_command("CLIENT", "PAUSE", "60000", "ALL")
        await denied(quota, 1)
        assert not states[0].reachable


async def test_keys_have_the_prefix_and_end(redis: RedisServer) -> None:
    state = RedisState(redis.url, prefix="here", on_loss="closed")
    quota = SharedQuota(LIMITS, state, "d", Clock())
    await granted(quota, 6000)
    await state.put("a", b"x", 30)
    await state.join("g", "m", 30)
    await state.close()
    with redis.client() as client:
        ends = {key.decode(): client.pttl(key) for key in client.scan_iter("*")}
    assert ends.keys() == {"here:counters:d", "here:value:a", "here:group:g"}
    assert 29_000 < ends["here:value:a"] <= 30_000
    assert all(60_000 < ends[key] <= 120_000 for key in ("here:counters:d", "here:group:g"))


async def test_it_closes_though_a_cancellation_is_swallowed(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, swallowed = asyncio.Event(), asyncio.Event()

    async def joined(*_: object) -> tuple[bool, int]:
        """As a client does whose connection breaks just then."""
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if swallowed.is_set():
                raise
            swallowed.set()
            raise Unavailable("cancelled") from None
        return True, 1

    async with processes(redis, Clock(), "closed") as states:
        monkeypatch.setattr(states[0], "_joined", joined)
        await asyncio.wait_for(asked.wait(), PATIENCE_S)
        closing = asyncio.create_task(states[0].close())
        # Not a timeout: what it cancels must not be what ends the wait.
        assert await asyncio.wait([closing], timeout=PATIENCE_S) == ({closing}, set())
    assert swallowed.is_set()
