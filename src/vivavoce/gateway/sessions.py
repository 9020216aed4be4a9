"""The directory of sessions: how many are open with each deployment, over all processes that share the state.

Laws
----
1. A session is a member of the group of its deployment, from before the upgrade to after its end, in this process
   and for all others. It is renewed meanwhile; one whose process died is forgotten after :data:`TTL_S`.
2. Where a deployment has a limit, a session that would be one too many does not begin. One that has begun stays,
   also when the shared state has forgotten it or is lost.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from vivavoce.gateway.shared.base import SharedState, Unavailable

log = logging.getLogger(__name__)

TTL_S: Final = 60.0
"""Seconds after which a session that nobody renews is forgotten."""
RENEW_S: Final = 15.0
"""Seconds between renewals."""
_AT_ONCE: Final = 16
"""Sessions that are renewed before others get their turn: with workers, each is a transaction."""


class SessionDirectory:
    """The sessions of this process, as all processes know them."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._here: dict[str, str] = {}
        """Label of the deployment by session."""

    async def enter(self, session: str, label: str, limit: int | None) -> bool:
        """A session may begin; False where there are ``limit`` with its deployment. Raises Unavailable."""
        if not await self._shared.join(_group(label), session, TTL_S, limit):
            return False
        self._here[session] = label
        return True

    async def leave(self, session: str) -> None:
        """It has ended."""
        label = self._here.pop(session, None)
        if label is not None:
            try:
                await self._shared.leave(_group(label), session)
            except Unavailable:
                log.info("a session that has ended is forgotten in %.0f s: what is shared cannot be reached", TTL_S)

    async def count(self, label: str) -> int:
        """Sessions with a deployment, in all processes. Raises Unavailable."""
        return await self._shared.count(_group(label))

    async def renew_regularly(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(RENEW_S)
            await self.renew()

    async def renew(self) -> None:
        """Say of all sessions here that they are still there."""
        for number, (session, label) in enumerate(list(self._here.items())):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            if session not in self._here:
                continue
            try:
                await self._shared.join(_group(label), session, TTL_S)
                if session not in self._here:
                    # It ended while it was renewed.
                    await self._shared.leave(_group(label), session)
            except Unavailable:
                return


def _group(label: str) -> str:
    return f"sessions of {label}"
