"""Shared state in Redis (or what speaks like it: Valkey, KeyDB), for servers of many processes and machines.

Laws
----
1. A call is one script, so one round trip and one step. Time is that of Redis, unless a clock is given.
2. All keys begin with ``prefix`` and end by themselves. A script has one key, so a cluster may spread them.
3. Redis is *lost* when a call fails or takes longer than :data:`PATIENCE_S`; a call a second looks for it, so an
   idle server notices too. While it is lost nobody asks it but the one who looks whether it is back.
4. While it is lost, counters follow the policy. ``closed``: nothing is admitted. ``local_share``: each process
   counts for itself and admits its share of every limit, one divided by the processes that were known last; it
   begins with its share of what was known to be used. Values raise ``Unavailable`` either way.
5. A Redis that is back may have forgotten all. Its counters are lifted to what this process knows of them.
6. A correction belongs to the counters that admitted what it corrects; when those are gone, so is the correction.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

from vivavoce.gateway.shared.base import Charge, Mode, Outcome, Unavailable
from vivavoce.gateway.shared.leaky import drained
from vivavoce.gateway.shared.memory import MemoryCounters, MemoryState

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

log = logging.getLogger(__name__)

OnLoss: TypeAlias = Literal["closed", "local_share"]

PATIENCE_S: Final = 0.5
"""Seconds that a call may take."""
LOOK_S: Final = 1.0
"""Seconds between looks whether Redis is there."""
PROCESS_TTL_S: Final = 5.0
"""Seconds after which a process that says nothing is not counted any more."""
RETRY_S: Final = 2.0
"""Seconds after which who was refused for want of Redis may try again."""
_CONNECTIONS: Final = 16
_PROCESSES: Final = "processes"
_SHARED: Final = 0
"""Where a charge was made: in Redis. Periods without it are numbered from 1."""

_T = TypeVar("_T")

# Each takes the second to work in as its first argument, empty for Redis's own. A counter is "level second".
_NOW: Final = """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end
local function text(number) return string.format('%.17g', number) end
local function keep(seconds)
  local wanted = math.ceil(seconds * 1000) + 60000
  if redis.call('PTTL', KEYS[1]) < wanted then redis.call('PEXPIRE', KEYS[1], wanted) end
end
"""
_CHARGE: Final = (
    _NOW
    + """
local mode = ARGV[2]
local count = (#ARGV - 2) / 5
local levels, waits, admitted = {}, {}, 1
for i = 1, count do
  local at = 5 * i - 2
  local amount, ceiling, drain = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local level, wait = 0, 0
  local kept = redis.call('HGET', KEYS[1], ARGV[at])
  if kept then
    local units, since = string.match(kept, '(%S+) (%S+)')
    level = tonumber(units)
    local passed = now - tonumber(since)
    if passed > 0 then level = math.max(0, level - drain * passed) end
  end
  if mode == 'admit' then
    if ARGV[at + 4] == '1' then
      local over = level - ceiling
      if over >= 0 then wait = over / drain + 0.001 end
    else
      local over = level + math.min(amount, ceiling) - ceiling
      if over > 0.001 then wait = over / drain end
    end
  end
  if wait > 0 then admitted = 0 end
  levels[i], waits[i] = level, wait
end
local reply = {admitted}
if admitted == 1 then
  local longest = 0
  for i = 1, count do
    local at = 5 * i - 2
    local amount, drain = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 3])
    if mode == 'raise' then levels[i] = math.max(levels[i], amount)
    else levels[i] = math.max(0, levels[i] + amount) end
    redis.call('HSET', KEYS[1], ARGV[at], text(levels[i]) .. ' ' .. text(now))
    longest = math.max(longest, levels[i] / drain)
  end
  keep(longest)
end
for i = 1, count do reply[#reply + 1] = text(levels[i]) end
for i = 1, count do reply[#reply + 1] = text(waits[i]) end
return reply
"""
)
_PUT: Final = (
    _NOW
    + """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'value', ARGV[2], 'ends', text(now + ARGV[3]))
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[3] * 1000))
"""
)
_GET: Final = (
    _NOW
    + """
local kept = redis.call('HMGET', KEYS[1], 'value', 'ends')
if not kept[1] then return false end
local ended = now >= tonumber(kept[2])
if ended or ARGV[2] == 'take' then redis.call('DEL', KEYS[1]) end
return not ended and kept[1]
"""
)
_JOIN: Final = (
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))
local limit = tonumber(ARGV[4])
local full = limit and redis.call('ZCARD', KEYS[1]) >= limit
if full and not redis.call('ZSCORE', KEYS[1], ARGV[2]) then return {0, 0} end
redis.call('ZADD', KEYS[1], text(now + ARGV[3]), ARGV[2])
keep(tonumber(ARGV[3]))
return {1, redis.call('ZCARD', KEYS[1])}
"""
)
_COUNT: Final = (
    _NOW
    + """
return redis.call('ZCOUNT', KEYS[1], '(' .. text(now), '+inf')
"""
)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of counters that are charged together."""

    charges: tuple[Charge, ...]
    """For their ceilings and drains; the amounts mean nothing."""
    levels: tuple[float, ...]
    at: float
    """The second of our own clock in which they were so high."""

    def levels_at(self, now: float) -> tuple[float, ...]:
        pairs = zip(self.levels, self.charges, strict=True)
        return tuple(drained(level, self.at, now, one.drain) for level, one in pairs)


class RedisState:
    """A :class:`vivavoce.gateway.shared.base.SharedState`. Enter it as a context to look after Redis meanwhile."""

    def __init__(self, url: str, *, prefix: str, on_loss: OnLoss, clock: Callable[[], float] | None = None) -> None:
        """``url``: redis://, rediss:// (TLS) or unix://, with user and password where there are any; ``clock``:
        seconds that all processes share, None for those of Redis. Connects when it is first used. Raises ValueError
        for a URL that is none."""
        self._redis = _client(url)
        self._prefix = prefix
        self._on_loss: OnLoss = on_loss
        self._given = clock
        self._clock = clock or time.monotonic
        self._charge: AsyncScript = self._redis.register_script(_CHARGE)
        self._put: AsyncScript = self._redis.register_script(_PUT)
        self._get: AsyncScript = self._redis.register_script(_GET)
        self._join: AsyncScript = self._redis.register_script(_JOIN)
        self._count: AsyncScript = self._redis.register_script(_COUNT)
        self._known: dict[tuple[str, ...], _Known] = {}
        """By their name, and which of its counters they are."""
        self._process = secrets.token_hex(8)
        self._processes = 1
        self._local = MemoryCounters()
        self._alone = MemoryState(self._clock)
        self._looking: asyncio.Task[None] | None = None
        self.reachable = True
        """Redis answers, as far as is known."""
        self.losses = 0
        """Times that it was lost."""
        self.dropped = 0
        """Corrections that came too late (law 6)."""

    counters: None = None

    # ------------------------------------------------------------------------------------------- the connection

    async def open(self) -> None:
        """Look for Redis, and go on looking until :meth:`close`. Where it is not there, it is lost from the
        beginning, which is logged and raises nothing."""
        await self._look()
        self._looking = asyncio.get_running_loop().create_task(self._look_regularly(), name="look for Redis")

    async def close(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            while not looking.done():
                # Again and again: a connection that fails at that moment swallows it.
                looking.cancel()
                await asyncio.wait([looking], timeout=PATIENCE_S)
            if self.reachable:
                with suppress(Unavailable):
                    await self.leave(_PROCESSES, self._process)
        await self._redis.aclose()

    async def _look_regularly(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S if self.reachable else LOOK_S / 4)
            await self._look()

    async def _look(self) -> None:
        """Say that we are here, learn how many are, and find out whether Redis has gone or is back."""
        try:
            _, self._processes = await self._joined(_PROCESSES, self._process, PROCESS_TTL_S, None)
            if not self.reachable:
                await self._recover()
        except Unavailable as fault:
            self._lose(fault)
        self._forget_empty()

    async def _run(self, script: AsyncScript, key: str, *arguments: str | bytes | int) -> Any:
        """Raises Unavailable."""
        from redis.exceptions import RedisError

        now = "" if self._given is None else repr(self._given())
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await script(keys=[f"{self._prefix}:{key}"], args=[now, *arguments])
        except (RedisError, OSError, TimeoutError) as fault:
            raise Unavailable(type(fault).__name__) from None

    async def _asked(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask Redis unless it is lost. Raises Unavailable."""
        if not self.reachable:
            raise Unavailable("lost")
        try:
            return await ask()
        except Unavailable as fault:
            self._lose(fault)
            raise

    def _lose(self, fault: Unavailable) -> None:
        if not self.reachable:
            return
        why = str(fault)
        self.reachable = False
        self.losses += 1
        now = self._clock()
        if self._on_loss == "closed":
            log.error("Redis is lost (%s): nothing is admitted until it is back", why)
            return
        log.error("Redis is lost (%s): each of %d processes admits its share", why, self._processes)
        self._local = MemoryCounters()
        self._alone = MemoryState(self._clock)
        for (name, *_), known in self._known.items():
            shares = (level / self._processes for level in known.levels_at(now))
            charges = [
                replace(one, amount=share) for one, share in zip(self._ours(known.charges), shares, strict=True)
            ]
            self._local.charge(name, charges, now, "add")

    async def _recover(self) -> None:
        """Law 5. Raises Unavailable."""
        now = self._clock()
        # Meanwhile others are charged here, and some for the first time.
        for (name, *_), known in list(self._known.items()):
            if any(levels := known.levels_at(now)):
                raised = [replace(one, amount=level) for one, level in zip(known.charges, levels, strict=True)]
                await self._charged(name, raised, "raise")
        self.reachable = True
        log.info("Redis is back")

    def _forget_empty(self) -> None:
        now = self._clock()
        for key in [key for key, known in self._known.items() if not any(known.levels_at(now))]:
            del self._known[key]

    # ------------------------------------------------------------------------------------------------- counters

    async def charge(
        self, name: str, charges: Sequence[Charge], mode: Mode = "admit", where: int | None = None
    ) -> Outcome:
        place = _SHARED if self.reachable else self.losses
        if where is not None and where != place:
            return self._late(name, charges)
        try:
            outcome = await self._asked(lambda: self._charged(name, charges, mode))
        except Unavailable:
            if where == _SHARED:
                return self._late(name, charges)
            outcome = self._without(name, charges, mode)
        self._known[_known_by(name, charges)] = _Known(tuple(charges), outcome.levels, self._clock())
        return outcome

    async def _charged(self, name: str, charges: Sequence[Charge], mode: Mode) -> Outcome:
        arguments: list[str | bytes | int] = [mode]
        for one in charges:
            arguments += [one.counter, repr(float(one.amount)), repr(float(one.ceiling)), repr(float(one.drain))]
            arguments.append(int(one.below))
        admitted, *numbers = await self._run(self._charge, f"counters:{name}", *arguments)
        values = tuple(float(number) for number in numbers)
        return Outcome(bool(admitted), values[: len(charges)], values[len(charges) :], _SHARED)

    def _late(self, name: str, charges: Sequence[Charge]) -> Outcome:
        self.dropped += 1
        return Outcome(True, self._levels(name, charges), (0.0,) * len(charges))

    def _levels(self, name: str, charges: Sequence[Charge]) -> tuple[float, ...]:
        known = self._known.get(_known_by(name, charges))
        return (0.0,) * len(charges) if known is None else known.levels_at(self._clock())

    def _without(self, name: str, charges: Sequence[Charge], mode: Mode) -> Outcome:
        """Law 4."""
        if self._on_loss == "closed":
            wait = RETRY_S if mode == "admit" else 0.0
            return Outcome(mode != "admit", self._levels(name, charges), (wait,) * len(charges), self.losses)
        outcome = self._local.charge(name, self._ours(charges), self._clock(), mode)
        levels = tuple(level * self._processes for level in outcome.levels)
        return replace(outcome, levels=levels, where=self.losses)

    def _ours(self, charges: Sequence[Charge]) -> list[Charge]:
        """With our share of the limits."""
        count = self._processes
        return [replace(one, ceiling=one.ceiling / count, drain=one.drain / count) for one in charges]

    # --------------------------------------------------------------------------------------------------- values

    async def put(self, name: str, value: bytes, ttl_s: float) -> None:
        await self._asked(lambda: self._run(self._put, f"value:{name}", value, repr(float(ttl_s))))

    async def get(self, name: str) -> bytes | None:
        return await self._read(name, "get")

    async def take(self, name: str) -> bytes | None:
        return await self._read(name, "take")

    async def _read(self, name: str, how: str) -> bytes | None:
        value: bytes | None = await self._asked(lambda: self._run(self._get, f"value:{name}", how))
        return value

    async def delete(self, name: str) -> bool:
        return await self.take(name) is not None

    # -------------------------------------------------------------------------------------------------- members

    async def join(self, group: str, member: str, ttl_s: float, limit: int | None = None) -> bool:
        try:
            joined, _ = await self._asked(lambda: self._joined(group, member, ttl_s, limit))
        except Unavailable:
            if self._on_loss == "closed":
                raise
            share = None if limit is None else -(-limit // self._processes)
            return await self._alone.join(group, member, ttl_s, share)
        return joined

    async def _joined(self, group: str, member: str, ttl_s: float, limit: int | None) -> tuple[bool, int]:
        most = "" if limit is None else limit
        joined, count = await self._run(self._join, f"group:{group}", member, repr(float(ttl_s)), most)
        return bool(joined), int(count)

    async def leave(self, group: str, member: str) -> None:
        await self._alone.leave(group, member)
        with suppress(Unavailable):
            await self._asked(lambda: self._left(group, member))

    async def _left(self, group: str, member: str) -> None:
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._redis.zrem(f"{self._prefix}:group:{group}", member)
        except (RedisError, OSError, TimeoutError) as fault:
            raise Unavailable(type(fault).__name__) from None

    async def count(self, group: str) -> int:
        try:
            return int(await self._asked(lambda: self._run(self._count, f"group:{group}")))
        except Unavailable:
            if self._on_loss == "closed":
                raise
            return await self._alone.count(group)


def _known_by(name: str, charges: Sequence[Charge]) -> tuple[str, ...]:
    return name, *(one.counter for one in charges)


def _client(url: str) -> Redis:
    """Nothing of its own patience or repeats: a call fails once, and soon."""
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as Disconnected

    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=PATIENCE_S,
        socket_timeout=PATIENCE_S,
        socket_connect_timeout=PATIENCE_S,
        # A connection that a restarted server has closed is found out only when it is used.
        retry=Retry(NoBackoff(), 1, supported_errors=(Disconnected,)),
    )
    return Redis.from_pool(pool)
