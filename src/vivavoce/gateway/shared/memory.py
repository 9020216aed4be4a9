"""Shared state of one process, which shares it with nobody."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence

from vivavoce.gateway.shared.base import Charge, Mode, Outcome
from vivavoce.gateway.shared.leaky import decide, drained


class MemoryCounters:
    """Counters of this process: its event loop is their one owner."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[str, tuple[float, float]]] = {}
        """By name and counter: units, and the second in which there were so many."""

    def charge(self, name: str, charges: Sequence[Charge], now: float, mode: Mode = "admit") -> Outcome:
        counters = self._counters.setdefault(name, {})
        levels = [drained(*counters.get(one.counter, (0.0, now)), now, one.drain) for one in charges]
        outcome = decide(levels, charges, mode)
        for one, level in zip(charges, outcome.levels, strict=True):
            counters[one.counter] = (level, now)
        return outcome


class MemoryState:
    """A :class:`vivavoce.gateway.shared.base.SharedState`. ``clock``: monotone seconds."""

    reachable = True
    losses = 0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counters = MemoryCounters()
        self._values: dict[str, tuple[bytes, float]] = {}
        self._ends: list[tuple[float, str]] = []
        """When values end, the next one first; some were deleted or renewed meanwhile."""
        self._groups: dict[str, dict[str, float]] = {}
        """When members end, by group."""
        self._member_ends: list[tuple[float, str, str]] = []
        """The same, the next one first; some have left or were renewed meanwhile."""

    @property
    def counters(self) -> MemoryCounters:
        return self._counters

    async def charge(
        self, name: str, charges: Sequence[Charge], mode: Mode = "admit", where: int | None = None
    ) -> Outcome:
        return self._counters.charge(name, charges, self._clock(), mode)

    # ---------------------------------------------------------------------------------------------- values

    async def put(self, name: str, value: bytes, ttl_s: float) -> None:
        self._forget_values()
        end = self._clock() + ttl_s
        self._values[name] = (value, end)
        heapq.heappush(self._ends, (end, name))

    async def get(self, name: str) -> bytes | None:
        self._forget_values()
        value, _ = self._values.get(name, (None, 0.0))
        return value

    async def take(self, name: str) -> bytes | None:
        self._forget_values()
        value, _ = self._values.pop(name, (None, 0.0))
        return value

    async def delete(self, name: str) -> bool:
        return await self.take(name) is not None

    def _forget_values(self) -> None:
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            end, name = heapq.heappop(self._ends)
            if name in self._values and self._values[name][1] == end:
                del self._values[name]

    # --------------------------------------------------------------------------------------------- members

    async def join(self, group: str, member: str, ttl_s: float, limit: int | None = None) -> bool:
        members = self._members(group)
        if member not in members and limit is not None and len(members) >= limit:
            return False
        end = self._clock() + ttl_s
        self._groups.setdefault(group, members)[member] = end
        heapq.heappush(self._member_ends, (end, group, member))
        return True

    async def leave(self, group: str, member: str) -> None:
        members = self._members(group)
        members.pop(member, None)
        if not members:
            self._groups.pop(group, None)

    async def count(self, group: str) -> int:
        return len(self._members(group))

    def _members(self, group: str) -> dict[str, float]:
        now = self._clock()
        while self._member_ends and self._member_ends[0][0] <= now:
            end, where, member = heapq.heappop(self._member_ends)
            if self._groups.get(where, {}).get(member) == end:
                del self._groups[where][member]
        return self._groups.get(group, {})

    async def close(self) -> None:
        """Nothing to let go of."""
