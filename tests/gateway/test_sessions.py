"""The directory of sessions over several processes."""

from __future__ import annotations

import asyncio

from vivavoce.gateway.sessions import RENEW_S, TTL_S, SessionDirectory
from vivavoce.gateway.shared.base import Unavailable
from vivavoce.gateway.shared.memory import MemoryState


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_sessions_of_all_processes_are_counted_together_by_deployment() -> None:
    shared = MemoryState(Clock())
    here, there = SessionDirectory(shared), SessionDirectory(shared)
    assert await here.enter("s1", "a", 2)
    assert await there.enter("s2", "a", 2)
    assert not await there.enter("s3", "a", 2)
    assert await there.enter("s3", "b", 2)
    assert await there.enter("s4", "a", None)
    assert (await here.count("a"), await here.count("b")) == (3, 1)
    await here.leave("s1")
    await there.leave("s4")
    await there.leave("s4")
    assert await here.enter("s5", "a", 2)
    assert await there.count("a") == 2


async def test_a_session_is_there_as_long_as_its_process_says_so() -> None:
    clock = Clock()
    shared = MemoryState(clock)
    alive, dead = SessionDirectory(shared), SessionDirectory(shared)
    await alive.enter("s1", "a", None)
    await dead.enter("s2", "a", None)
    clock.now += TTL_S / 2
    await alive.renew()
    clock.now += TTL_S / 2
    assert await alive.count("a") == 1
    # One that was forgotten, for all processes were lost for a while, is there again.
    clock.now += TTL_S
    await alive.renew()
    assert await dead.count("a") == 1
    # One that was refused is not renewed.
    assert not await dead.enter("s3", "a", 1)
    await dead.leave("s2")
    await dead.renew()
    assert await dead.count("a") == 1


async def test_one_that_ends_while_it_is_renewed_ends_nothing_else() -> None:
    class Slow(MemoryState):
        """The session leaves while it is renewed, and then nothing can be reached."""

        async def join(self, group: str, member: str, ttl_s: float, limit: int | None = None) -> bool:
            joined = await super().join(group, member, ttl_s, limit)
            await sessions.leave(member)
            return joined

        async def leave(self, group: str, member: str) -> None:
            raise Unavailable

    shared = Slow(Clock())
    sessions = SessionDirectory(shared)
    await sessions.enter("s1", "a", None)
    await sessions.renew()
    assert sessions._here == {}


async def test_others_get_their_turn_while_many_are_renewed() -> None:
    sessions = SessionDirectory(MemoryState(Clock()))
    for number in range(1000):
        await sessions.enter(f"s{number}", "a", None)
    renewing = asyncio.create_task(sessions.renew())
    turns = 0
    while not renewing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 50


async def test_renewals_of_this_process_do_not_pile_up() -> None:
    clock = Clock()
    shared = MemoryState(clock)
    sessions = SessionDirectory(shared)
    for number in range(10):
        await sessions.enter(f"s{number}", "a", None)
    for _ in range(100):
        clock.now += RENEW_S
        await sessions.renew()
    assert await sessions.count("a") == 10
    assert len(shared._member_ends) <= 10 * (TTL_S / RENEW_S + 1)
