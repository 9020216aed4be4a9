"""What all processes of a server have to know together: counters, short-lived values, members of groups.

Laws
----
1. A *counter* is a leaky bucket: it rises by what is charged and drains steadily, never below 0. One that nobody
   has charged stands at 0, so a counter needs no beginning, and one that is empty can be forgotten.
2. One call is one step, whoever else calls: all of its charges are made, or none. Over a network it is one round
   trip.
3. A *value* is bytes under a name, gone after its time to live. Who keeps a secret here names it by a digest of it:
   names may be seen by whoever looks after the store, and values are never logged.
4. A *member* of a group has a time to live too, and whoever it stands for renews it: what a process that died held
   is given back by itself.
5. Where the state cannot be reached, calls raise :class:`Unavailable` within a second or so. Counters then follow
   the policy that the configuration states, and raise nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

ROUNDING: Final = 1e-3
"""Units. Draining subtracts floats: without this, whoever waits for just as long as told could miss by an error of
rounding."""
MOMENT_S: Final = 1e-3
"""Seconds that are added to the wait of what must fall *under* its ceiling."""

Mode: TypeAlias = Literal["admit", "add", "raise"]
"""``admit``: charge, unless a ceiling is in the way; ``add``: charge in any case (a correction may be negative);
``raise``: lift each counter to ``amount`` where it is lower."""


class Unavailable(Exception):
    """The shared state cannot be reached now. It has no text of the connection, whose URL may hold a password."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What one counter is charged."""

    counter: str
    """One of those that the call's name has: ``tokens``."""
    amount: float
    """Units, such as tokens or requests."""
    ceiling: float
    """Units that the counter may hold. A charge of more is admitted on an empty counter, and leaves it above."""
    drain: float
    """Units that drain in a second; more than 0."""
    below: bool = False
    """Admitted whenever the counter is under its ceiling, even where the charge lifts it above (protocol 9.1)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the charges of one call, in their order."""

    admitted: bool
    levels: tuple[float, ...]
    """Units that each counter holds now."""
    waits: tuple[float, ...]
    """Seconds until each charge would be admitted if nobody else came; 0 where nothing is in its way."""
    where: int = 0
    """Which counters answered. A correction belongs to those that admitted what it corrects."""


class Counters(Protocol):
    """Counters in the memory of this machine, which answer at once."""

    def charge(self, name: str, charges: Sequence[Charge], now: float, mode: Mode = "admit") -> Outcome:
        """Charge counters of ``name`` at ``now``, monotone seconds of a clock that all who share them share."""


class SharedState(Protocol):
    """All of it. Every name is a namespace of its own: counters, values and groups never meet."""

    @property
    def reachable(self) -> bool:
        """It answers, as far as is known."""

    @property
    def losses(self) -> int:
        """Times that it was lost."""

    @property
    def counters(self) -> Counters | None:
        """The counters behind :meth:`charge` where they answer at once; None where a call is a round trip."""

    async def charge(
        self, name: str, charges: Sequence[Charge], mode: Mode = "admit", where: int | None = None
    ) -> Outcome:
        """Charge counters of ``name`` (law 2), now; those of ``where`` alone, if they still count."""

    async def put(self, name: str, value: bytes, ttl_s: float) -> None:
        """Keep a value for ``ttl_s`` seconds, replacing an older one. Raises Unavailable, as all that follow."""

    async def get(self, name: str) -> bytes | None:
        """The value; None where there is none (any more)."""

    async def take(self, name: str) -> bytes | None:
        """Get and delete: of all who take a value, one has it."""

    async def delete(self, name: str) -> bool:
        """Whether there was one."""

    async def join(self, group: str, member: str, ttl_s: float, limit: int | None = None) -> bool:
        """Become a member, or stay one, for ``ttl_s`` seconds; False, and nothing done, for a new member where
        there are ``limit`` already."""

    async def leave(self, group: str, member: str) -> None:
        """No longer; nothing happens where it was none."""

    async def count(self, group: str) -> int:
        """Members now."""

    async def close(self) -> None:
        """Let go of connections. Idempotent."""
