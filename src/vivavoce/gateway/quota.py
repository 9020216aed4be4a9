"""How much a deployment may be used: the counters that ``rate_limits.updated`` shows.

Laws
----
1. Two buckets, ``requests`` and ``tokens``, start full, refill continuously at limit/60 per second and never hold
   more than their limit.
2. A response takes one request and its estimated tokens before it starts, both or none; afterwards the estimate is
   put right, once. What it really used may exceed what was there: the bucket then owes, shows 0, and refills first.
3. A response that needs more tokens than the limit would never be admitted. It is admitted on a full bucket and
   owes the rest, so the rate holds over time.
4. No task. The counters are :class:`Counters`: of one process, whose event loop is their one owner, or shared by
   all workers of a server, who take turns by a lock. Time comes from the given clock, in seconds; workers that
   share counters share the clock too.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from vivavoce.wire.server_events import RateLimit

LimitName: TypeAlias = Literal["requests", "tokens"]

WINDOW_S: Final = 60.0
# Refilling adds floats: without this, whoever waits for exactly `retry_after_s` could miss by a rounding error.
_ROUNDING: Final = 1e-3

Cells: TypeAlias = "array[float] | memoryview[float]"
"""Level and time of the requests, then of the tokens."""
CELLS: Final = 4
_NOBODY_ELSE: Final = nullcontext()


@dataclass(frozen=True, slots=True)
class Denied:
    """Not now. ``name``: the limit in the way; ``retry_after_s``: when the same request would be admitted."""

    name: LimitName
    retry_after_s: float


class Counters:
    """Room for the buckets of many deployments, each found by its name; all begin full."""

    def __init__(self) -> None:
        self._cells: dict[str, Cells] = {}

    def cells(self, name: str) -> Cells:
        """The four numbers of a deployment, always the same ones for a name. NaN where nothing was written yet."""
        return self._cells.setdefault(name, array("d", [math.nan] * CELLS))

    def lock(self) -> AbstractContextManager[object]:
        """Held while a deployment's numbers are read and written."""
        return _NOBODY_ELSE


class _Bucket:
    """``level`` units at ``at`` seconds; below zero it owes. Both lie in ``cells``, from ``first`` on."""

    __slots__ = ("_cells", "_first", "limit")

    def __init__(self, limit: int, now: float, cells: Cells, first: int) -> None:
        self.limit = limit
        self._cells = cells
        self._first = first
        if math.isnan(cells[first]):
            cells[first], cells[first + 1] = float(limit), now

    @property
    def _level(self) -> float:
        return self._cells[self._first]

    @_level.setter
    def _level(self, level: float) -> None:
        self._cells[self._first] = level

    def level(self, now: float) -> float:
        since = self._cells[self._first + 1]
        if now > since:
            self._level = min(self.limit, self._level + (now - since) * self.limit / WINDOW_S)
            self._cells[self._first + 1] = now
        return self._level

    def wait_s(self, units: float, now: float) -> float:
        """Seconds until ``units`` (or a full bucket) are there."""
        missing = min(units, self.limit) - self.level(now)
        return 0.0 if missing <= _ROUNDING else missing * WINDOW_S / self.limit

    def take(self, units: float, now: float) -> None:
        """Negative ``units`` give back."""
        self._level = min(self.limit, self.level(now) - units)

    def show(self, name: LimitName, now: float) -> RateLimit:
        level = self.level(now)
        return RateLimit(
            name=name,
            limit=self.limit,
            remaining=max(0, math.floor(level + _ROUNDING)),
            reset_seconds=(self.limit - level) * WINDOW_S / self.limit,
        )


class Reservation:
    """What one response has taken. Exactly one of :meth:`settle` and :meth:`release` has an effect, and once."""

    __slots__ = ("_open", "_quota", "tokens")

    def __init__(self, quota: Quota, tokens: int) -> None:
        self._quota = quota
        self._open = True
        self.tokens = tokens
        """The estimate."""

    def settle(self, actual_tokens: int) -> None:
        """The response has ended and used ``actual_tokens``."""
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
    """The two counters of one deployment."""

    __slots__ = ("_clock", "_counters", "_requests", "_tokens")

    def __init__(
        self,
        tokens_per_minute: int,
        requests_per_minute: int,
        clock: Callable[[], float],
        counters: Counters | None = None,
        name: str = "",
    ) -> None:
        """Limits are at least 1; ``clock`` gives monotone seconds; ``counters``: where the deployment ``name``
        counts, None for counters of its own."""
        if tokens_per_minute < 1 or requests_per_minute < 1:
            raise ValueError("limits start at 1")
        self._clock = clock
        self._counters = counters or Counters()
        cells = self._counters.cells(name)
        with self._counters.lock():
            self._requests = _Bucket(requests_per_minute, clock(), cells, 0)
            self._tokens = _Bucket(tokens_per_minute, clock(), cells, 2)

    def reserve(self, tokens: int) -> Reservation | Denied:
        """Take one request and ``tokens`` (0 or more), or nothing at all."""
        if tokens < 0:
            raise ValueError(f"cannot reserve {tokens} tokens")
        with self._counters.lock():
            now = self._clock()
            for_requests, for_tokens = self._requests.wait_s(1, now), self._tokens.wait_s(tokens, now)
            if for_requests or for_tokens:
                name: LimitName = "requests" if for_requests >= for_tokens else "tokens"
                return Denied(name, max(for_requests, for_tokens))
            self._requests.take(1, now)
            self._tokens.take(tokens, now)
        return Reservation(self, tokens)

    def take(self, *, requests: int, tokens: int) -> None:
        """Count without asking; negative numbers give back."""
        with self._counters.lock():
            now = self._clock()
            self._requests.take(requests, now)
            self._tokens.take(tokens, now)

    def status(self) -> tuple[RateLimit, RateLimit]:
        """``requests``, then ``tokens``: the limit, what is left now, and seconds until the counter is full."""
        with self._counters.lock():
            now = self._clock()
            return self._requests.show("requests", now), self._tokens.show("tokens", now)
