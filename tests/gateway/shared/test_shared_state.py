"""What every form of the shared state must do: the same tests for each of them."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from redis_server import RedisServer, redis_server

from vivavoce.gateway.shared.base import Charge, SharedState
from vivavoce.gateway.shared.memory import MemoryState
from vivavoce.gateway.shared.redis import RedisState
from vivavoce.gateway.shared.workers import WorkerCounters, WorkersState

FORMS: Final = ("memory", *(() if sys.platform == "win32" else ("workers", "redis")))
LONG_S: Final = 3600.0


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        yield server


@pytest.fixture(params=FORMS)
async def state(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> AsyncIterator[SharedState]:
    made: SharedState
    match request.param:
        case "memory":
            made = MemoryState(clock)
        case "workers":
            made = WorkersState(tmp_path, clock)
        case _:
            server: RedisServer = request.getfixturevalue("redis")
            made = RedisState(server.url, prefix=secrets.token_hex(4), on_loss="closed", clock=clock)
    yield made
    await made.close()
    await made.close()


def tokens(amount: float) -> Charge:
    return Charge("tokens", amount, ceiling=100, drain=10)


def requests(amount: float) -> Charge:
    return Charge("requests", amount, ceiling=2, drain=0.5)


# ----------------------------------------------------------------------------------------------------- counters


async def test_a_counter_rises_drains_and_never_falls_below_nothing(state: SharedState, clock: Clock) -> None:
    assert (await state.charge("a", [tokens(70)])).levels == (70,)
    clock.now += 3
    assert (await state.charge("a", [tokens(0)])).levels == (40,)
    clock.now += 3600
    assert (await state.charge("a", [tokens(-5)], "add")).levels == (0,)


async def test_what_would_pass_the_ceiling_waits(state: SharedState, clock: Clock) -> None:
    await state.charge("a", [tokens(70)])
    refused = await state.charge("a", [tokens(50)])
    assert (refused.admitted, refused.levels, refused.waits) == (False, (70,), (2.0,))
    clock.now += 1.99
    assert not (await state.charge("a", [tokens(50)])).admitted
    clock.now += 0.01
    admitted = await state.charge("a", [tokens(50)])
    assert admitted.admitted
    assert admitted.levels == pytest.approx((100,))


async def test_all_charges_of_a_call_are_made_or_none(state: SharedState) -> None:
    assert (await state.charge("a", [requests(2), tokens(10)])).levels == (2, 10)
    refused = await state.charge("a", [requests(1), tokens(10)])
    assert (refused.admitted, refused.levels, refused.waits) == (False, (2, 10), (2.0, 0.0))


async def test_more_than_the_ceiling_is_admitted_on_an_empty_counter(state: SharedState, clock: Clock) -> None:
    assert (await state.charge("a", [tokens(250)])).levels == (250,)
    assert (await state.charge("a", [tokens(1)])).waits == pytest.approx((15.1,))
    clock.now += 20
    assert (await state.charge("a", [tokens(250)])).waits == (5.0,)


async def test_below_looks_at_what_there_is_and_not_at_what_comes(state: SharedState, clock: Clock) -> None:
    def work(amount: float) -> Charge:
        return Charge("utilization", amount, ceiling=100, drain=10, below=True)

    assert (await state.charge("a", [work(99)])).admitted
    assert (await state.charge("a", [work(500)])).levels == (599,)
    refused = await state.charge("a", [work(0)])
    assert not refused.admitted
    assert refused.waits == pytest.approx((49.901,))
    clock.now += 49.89
    assert not (await state.charge("a", [work(1)])).admitted
    clock.now += 0.011
    assert (await state.charge("a", [work(1)])).admitted


async def test_what_is_added_asks_nobody(state: SharedState) -> None:
    assert (await state.charge("a", [tokens(170), requests(-1)], "add")).levels == (170, 0)
    assert (await state.charge("a", [tokens(-100)], "add")).levels == (70,)


async def test_raising_lifts_what_is_lower(state: SharedState, clock: Clock) -> None:
    await state.charge("a", [tokens(70)])
    clock.now += 1
    assert (await state.charge("a", [tokens(50), requests(1)], "raise")).levels == (60, 1)
    assert (await state.charge("a", [tokens(90)], "raise")).levels == (90,)


async def test_names_and_counters_are_apart(state: SharedState) -> None:
    await state.charge("a", [tokens(70)])
    assert (await state.charge("b", [tokens(1)])).levels == (1,)
    assert (await state.charge("a", [Charge("token", 1, 100, 10)])).levels == (1,)


async def test_a_counter_survives_a_change_of_its_limit(state: SharedState, clock: Clock) -> None:
    await state.charge("a", [tokens(80)])
    clock.now += 2
    assert (await state.charge("a", [Charge("tokens", 10, ceiling=50, drain=5)])).waits == (6.0,)


@pytest.mark.skipif(sys.platform == "win32", reason="workers are forked")
class TestWorkerCounters:
    def test_places_are_found_by_name_and_used_again(self) -> None:
        counters = WorkerCounters(places=32)
        for round_, index in itertools.product(range(3), range(32)):
            now = 1000.0 + 60 * round_
            assert counters.charge(f"d{round_} {index}", [tokens(50)], now).levels == (50,)
        for index in range(32):
            assert counters.charge(f"d2 {index}", [tokens(0)], 1121.0, "add").levels == (40,)

    def test_forked_processes_lose_no_charge(self) -> None:
        counters = WorkerCounters()
        fork = multiprocessing.get_context("fork")
        processes = [fork.Process(target=_charge_often, args=(counters,)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0, 0]
        still = Charge("tokens", 0, ceiling=1e9, drain=1)
        assert counters.charge("a", [still], 0.0, "add").levels == (600,)
        assert counters.charge("b", [still], 0.0, "add").levels == (600,)


def _charge_often(counters: WorkerCounters) -> None:
    for _ in range(200):
        for name in "ab":
            counters.charge(name, [Charge("tokens", 1, ceiling=1e9, drain=1)], 0.0)


# ------------------------------------------------------------------------------------------------------- values


async def test_values_are_kept_replaced_and_deleted(state: SharedState) -> None:
    assert await state.get("a") is None
    await state.put("a", b"one", LONG_S)
    await state.put("a", b"\x00two", LONG_S)
    await state.put("b", b"", LONG_S)
    assert (await state.get("a"), await state.get("b")) == (b"\x00two", b"")
    assert await state.delete("b")
    assert not await state.delete("b")
    assert (await state.get("a"), await state.get("b")) == (b"\x00two", None)


async def test_of_all_who_take_a_value_one_has_it(state: SharedState) -> None:
    await state.put("a", b"one", LONG_S)
    taken = await asyncio.gather(*(state.take("a") for _ in range(5)))
    assert sorted(value or b"" for value in taken) == [b"", b"", b"", b"", b"one"]
    assert await state.get("a") is None


async def test_values_end(state: SharedState, clock: Clock) -> None:
    await state.put("a", b"one", 10)
    await state.put("b", b"two", 10)
    clock.now += 5
    await state.put("b", b"three", 10)
    clock.now += 4.9
    assert (await state.get("a"), await state.get("b")) == (b"one", b"three")
    clock.now += 0.1
    assert (await state.get("a"), await state.take("a"), await state.delete("a")) == (None, None, False)
    assert await state.get("b") == b"three"
    clock.now += 5
    assert await state.get("b") is None


# ------------------------------------------------------------------------------------------------------ members


async def test_members_join_once_leave_and_end(state: SharedState, clock: Clock) -> None:
    assert await state.join("a", "one", 10)
    assert await state.join("a", "two", 10)
    assert await state.join("b", "one", 10)
    clock.now += 6
    assert await state.join("a", "two", 10)
    assert (await state.count("a"), await state.count("b"), await state.count("c")) == (2, 1, 0)
    clock.now += 4
    assert (await state.count("a"), await state.count("b")) == (1, 0)
    await state.leave("a", "two")
    await state.leave("a", "two")
    assert await state.count("a") == 0


async def test_a_full_group_keeps_its_members_and_takes_no_other(state: SharedState, clock: Clock) -> None:
    assert await state.join("a", "one", 10, limit=2)
    assert await state.join("a", "two", 20, limit=2)
    assert not await state.join("a", "three", 10, limit=2)
    assert await state.join("a", "one", 10, limit=1)
    assert await state.count("a") == 2
    clock.now += 10
    assert await state.join("a", "three", 10, limit=2)
