"""What deployments are used for: counted here as responses come and end, and written to the store now and then.

Laws
----
1. Counting waits for nothing. What was counted is written every :data:`FLUSH_S` and at the end.
2. What could not be written is kept and tried again, so nothing is lost while a database is away, and nothing is
   counted twice.
3. What is older than it is to be kept is deleted once a day, by whichever process comes first; the others find
   nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from vivavoce.gateway.store.base import Store, StoreUnavailable, Usage
from vivavoce.wire import server_events as se

logger = logging.getLogger(__name__)

FLUSH_S: Final = 5.0
"""Seconds."""
SWEEP_S: Final = 86_400.0
"""Seconds after which it is looked again what is too old to be kept."""


class Settles(Protocol):
    """A reservation."""

    def settle(self, used: se.Usage) -> Awaitable[None] | None: ...


class UsageLedger:
    """What is not written yet, by deployment (its id) and hour. ``clock``: aware times."""

    def __init__(self, store: Store, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._clock = clock
        self._open: dict[tuple[str, datetime], list[int]] = {}
        """Requests, input tokens, output tokens."""

    def admitted(self, deployment: str, reservation: Settles) -> Settles:
        """A response of a deployment was admitted. What is returned stands for its reservation, and counts when it
        is settled."""
        self._count(deployment, 1, 0, 0)
        return _Counted(self, deployment, reservation)

    def used(self, deployment: str, used: se.Usage) -> None:
        """A response has ended."""
        self._count(deployment, 0, used.input_text + used.input_audio, used.output_text + used.output_audio)

    def _count(self, deployment: str, *counts: int) -> None:
        hour = self._clock().replace(minute=0, second=0, microsecond=0)
        open_ = self._open.setdefault((deployment, hour), [0, 0, 0])
        for at, count in enumerate(counts):
            open_[at] += count

    async def flush(self) -> None:
        """Write all of it. Raises StoreUnavailable; then all of it is still here, as after a bug."""
        taken, self._open = self._open, {}
        try:
            await self._store.record_usage(
                Usage(deployment=deployment, hour=hour, requests=one[0], input_tokens=one[1], output_tokens=one[2])
                for (deployment, hour), one in taken.items()
            )
        except Exception:
            for key, counts in taken.items():
                kept = self._open.setdefault(key, [0, 0, 0])
                self._open[key] = [before + more for before, more in zip(kept, counts, strict=True)]
            raise

    async def run(self) -> None:
        """Until it is cancelled; then :meth:`close` writes the rest."""
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
            except StoreUnavailable as error:
                logger.warning("usage is not written, and kept: %s", error)
            except Exception as bug:
                logger.error("a bug, usage is not written, and kept: %s", type(bug).__name__)

    async def close(self) -> None:
        """Write what is left; where that fails, it is lost, and told."""
        try:
            await self.flush()
        except StoreUnavailable as error:
            logger.error("the usage of the last seconds is lost: %s", error)


class _Counted:
    """A reservation that counts what was used, the first time that it is settled."""

    __slots__ = ("_deployment", "_ledger", "_reservation")

    def __init__(self, ledger: UsageLedger, deployment: str, reservation: Settles) -> None:
        self._ledger: UsageLedger | None = ledger
        self._deployment = deployment
        self._reservation = reservation

    def settle(self, used: se.Usage) -> Awaitable[None] | None:
        if self._ledger is not None:
            self._ledger.used(self._deployment, used)
            self._ledger = None
        return self._reservation.settle(used)


async def sweep_usage(
    store: Store, days: int, clock: Callable[[], datetime] = lambda: datetime.now(UTC), *, every_s: float = SWEEP_S
) -> None:
    """Delete usage that is older than ``days`` days, now and every ``every_s`` seconds, until cancelled."""
    while True:
        try:
            forgotten = await store.forget_usage(clock() - timedelta(days=days))
            if forgotten:
                logger.info("usage older than %d days is deleted: %d rows", days, forgotten)
        except StoreUnavailable as error:
            logger.warning("old usage is not deleted now: %s", error)
        await asyncio.sleep(every_s)
