"""The time that the demo lives by. Tests bring their own, so that none of them waits."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from typing import Protocol


class Wait(Enum):
    """What the demo waits for, with a limit."""

    CONNECTION = auto()
    SESSION = auto()
    ANSWER = auto()
    TRANSCRIPT = auto()


class Clock(Protocol):
    """Monotonic time in seconds."""

    def now(self) -> float:
        """The time; its zero means nothing."""

    async def sleep_until(self, when: float) -> None:
        """Return at ``when``, or at once where that is past."""

    def limit(self, seconds: float, wait: Wait) -> AbstractAsyncContextManager[object]:
        """A block that raises ``TimeoutError`` when it takes longer than ``seconds``."""


class MonotonicClock:
    """The clock of the machine."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - self.now()))

    def limit(self, seconds: float, wait: Wait) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(seconds)
