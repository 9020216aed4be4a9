"""How much a model reads at once, and what of a longer context it reads (protocol section 7.2).

Laws
----
1. Instructions, tools and the newest item are always read; when these alone are too long, nothing helps.
2. What is left out is the oldest: whole items, and no more of them than the way to cut demands.
3. The work is that of the items that are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vivavoce.core.context import Entry
from vivavoce.wire import session_config as sc


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens that a model reads and writes for one response. None: any number."""

    max_input: int | None = None
    """Instructions, tools and items together."""
    max_output: int | None = None

    def surplus(
        self, truncation: sc.Truncation, prompt_tokens: int, context: tuple[Entry, ...], tokens: int
    ) -> int | None:
        """How many of the oldest entries are left out; None where it cannot be made to fit.

        ``prompt_tokens`` are those of instructions and tools, ``tokens`` those of all of ``context``.
        """
        room = None if self.max_input is None else self.max_input - prompt_tokens
        most, kept = _limits(truncation, room)
        count, last = 0, len(context) - 1
        if truncation != "disabled" and most is not None and tokens > most:
            while tokens > kept and count < last:
                tokens -= context[count].tokens
                count += 1
        return count if room is None or tokens <= room else None


def _limits(truncation: sc.Truncation, room: int | None) -> tuple[int | None, int]:
    """(tokens that items may have, those that are left of them when they have more)."""
    if not isinstance(truncation, sc.RetentionRatio):
        return room, room or 0
    limits = [limit for limit in (room, truncation.post_instructions) if limit is not None]
    most = min(limits, default=None)
    # A hair more, since 0.29 of 100 is a little less than 29.
    return most, math.floor((most or 0) * truncation.retention_ratio + 1e-6)
