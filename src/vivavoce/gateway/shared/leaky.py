"""The arithmetic of counters, for all that keep them in memory; ``redis.py`` says the same in Lua."""

from __future__ import annotations

from collections.abc import Sequence

from vivavoce.gateway.shared.base import MOMENT_S, ROUNDING, Charge, Mode, Outcome


def drained(level: float, since: float, now: float, drain: float) -> float:
    """What is left at ``now`` of what there was at ``since``. A clock that went back drains nothing."""
    return max(0.0, level - drain * (now - since)) if now > since else level


def wait_s(level: float, charge: Charge) -> float:
    """Seconds until a counter that holds ``level`` takes the charge; 0 for now."""
    if charge.below:
        over = level - charge.ceiling
        return 0.0 if over < 0 else over / charge.drain + MOMENT_S
    over = level + min(charge.amount, charge.ceiling) - charge.ceiling
    return 0.0 if over <= ROUNDING else over / charge.drain


def decide(levels: Sequence[float], charges: Sequence[Charge], mode: Mode) -> Outcome:
    """``levels``: of the charges' counters now. Where the outcome is admitted, its levels are those to keep."""
    pairs = list(zip(levels, charges, strict=True))
    waits = tuple(wait_s(level, one) if mode == "admit" else 0.0 for level, one in pairs)
    if any(waits):
        return Outcome(False, tuple(levels), waits)
    if mode == "raise":
        return Outcome(True, tuple(max(level, one.amount) for level, one in pairs), waits)
    return Outcome(True, tuple(max(0.0, level + one.amount) for level, one in pairs), waits)
