"""Asking a meter: one question of a session at a time, answered in the order in which they were asked.

Laws
----
1. Where the meter answers at once, so do we, and no task is made. Otherwise one task asks, one question after the
   other; nobody waits for it.
2. A settlement comes after its reservation, so one that is granted when nobody wants it any more is settled too.
3. After :meth:`Metering.hush` nobody is told anything; after :meth:`Metering.close` nothing is left to be asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from vivavoce.core.contract import ReserveQuota
from vivavoce.runtime.engines import Denial, Meter, Reservation
from vivavoce.wire.server_events import RateLimit, Usage

log = logging.getLogger(__name__)

PATIENCE_S: Final = 2.0
"""Seconds that a meter gets to answer what is still asked when a session has ended."""

_Ask: TypeAlias = Callable[[], Any]
_Tell: TypeAlias = Callable[[Any], None]


class Metering:
    """The questions of one session to one meter."""

    def __init__(self, meter: Meter, broke: Callable[[Exception], None]) -> None:
        """``broke`` is told of a bug of the meter, which answers nothing any more."""
        self._meter = meter
        self._broke = broke
        self._waiting: deque[tuple[_Ask, _Tell]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._reservations: dict[str, Reservation] = {}
        self._hushed = False

    @property
    def rate_limits(self) -> tuple[RateLimit, ...]:
        """As the last answer has left them."""
        return self._meter.rate_limits()

    def reserve(self, asked: ReserveQuota, answered: Callable[[Denial | None], None]) -> None:
        """Ask for a response; None: it is granted, and to be settled under its id."""

        def tell(answer: Reservation | Denial) -> None:
            if isinstance(answer, Denial):
                self._tell(answered, answer)
            else:
                self._reservations[asked.response_id] = answer
                self._tell(answered, None)

        self._do(lambda: self._meter.reserve(asked), tell)

    def settle(self, response_id: str, used: Usage, settled: Callable[[None], None] = lambda _: None) -> None:
        """Put right what was reserved for a response, if anything was; the second time changes nothing."""

        def ask() -> Awaitable[None] | None:
            reservation = self._reservations.pop(response_id, None)
            return None if reservation is None else reservation.settle(used)

        self._do(ask, lambda _: self._tell(settled, None))

    def _tell(self, whom: _Tell, what: object) -> None:
        if not self._hushed:
            whom(what)

    def _do(self, ask: _Ask, tell: _Tell) -> None:
        if self._task is not None:
            self._waiting.append((ask, tell))
            return
        answer = ask()
        if isinstance(answer, Awaitable):
            self._task = asyncio.get_running_loop().create_task(self._work(answer, tell), name="ask the meter")
        else:
            tell(answer)

    async def _work(self, answer: Awaitable[Any], tell: _Tell) -> None:
        try:
            tell(await answer)
            while self._waiting:
                ask, tell = self._waiting.popleft()
                next_answer = ask()
                tell(await next_answer if isinstance(next_answer, Awaitable) else next_answer)
        except Exception as bug:
            self._waiting.clear()
            self._broke(bug)
        finally:
            self._task = None

    def hush(self) -> None:
        """Tell nobody anything from now on."""
        self._hushed = True

    async def close(self) -> None:
        """Wait for what is still to be asked; nothing more will be."""
        self.hush()
        task = self._task
        if task is None:
            return
        _, late = await asyncio.wait([task], timeout=PATIENCE_S)
        if late:
            log.warning("a meter does not answer; what was reserved there drains by itself")
            task.cancel()
            await asyncio.wait([task])
