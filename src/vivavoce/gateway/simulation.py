"""What provisioned throughput would do with some traffic: the server's own admission on a clock of its own. Pure.

Laws
----
1. Admission is that of :mod:`vivavoce.gateway.provisioned` on counters of memory, and nothing else.
2. A call that is refused is gone: nobody repeats it.
3. What is due at one moment happens in this order: ends of responses, by the order of their beginnings; then calls.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from vivavoce.gateway.provisioned import WINDOW_S, Provision
from vivavoce.gateway.shared.memory import MemoryCounters

Arrivals: TypeAlias = Literal["even", "random"]

MOST_PTUS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """One response of the traffic."""

    at_s: float
    prompt: int
    output: int
    """Tokens that it will have made when it ends."""
    cached: int = 0
    """Of the prompt."""
    max_output: int | None = None
    duration_s: float = 0.0
    """From its admission to its end."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Traffic as a few numbers."""

    calls_per_minute: float
    minutes: float
    prompt: int
    output: int
    cached: int = 0
    max_output: int | None = None
    duration_s: float = 5.0
    burst_calls: int = 0
    """Calls that come together, beside the others."""
    burst_every_s: float = 60.0
    arrivals: Arrivals = "even"
    seed: int = 0

    @property
    def count(self) -> float:
        """How many calls there are about, before any is made."""
        return self.minutes * (self.calls_per_minute + self.burst_calls * 60 / self.burst_every_s)

    def calls(self) -> list[Call]:
        """All of them, in order."""
        call = Call(0.0, self.prompt, self.output, self.cached, self.max_output, self.duration_s)
        end_s = self.minutes * 60
        times = list(self._times(end_s))
        if self.burst_calls:
            count = int(end_s / self.burst_every_s - 1e-9) + 1
            times += [index * self.burst_every_s for index in range(count) for _ in range(self.burst_calls)]
        return [replace(call, at_s=at) for at in sorted(times)]

    def _times(self, end_s: float) -> Iterable[float]:
        if self.calls_per_minute <= 0:
            return
        gap = 60 / self.calls_per_minute
        if self.arrivals == "even":
            yield from (index * gap for index in range(int(end_s / gap - 1e-9) + 1))
            return
        chance = random.Random(self.seed)
        at = chance.expovariate(1 / gap)
        while at < end_s:
            yield at
            at += chance.expovariate(1 / gap)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened to utilization."""

    at_s: float
    utilization: float
    """After it; 1 is 100 %."""
    what: Literal["admitted", "refused", "ended"]
    retry_after_s: float = 0.0
    """What one that was refused is told."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a simulation."""

    provision: Provision
    steps: tuple[Step, ...]
    end_s: float

    @property
    def admitted(self) -> int:
        return sum(step.what == "admitted" for step in self.steps)

    @property
    def refused(self) -> int:
        """Answered 429."""
        return sum(step.what == "refused" for step in self.steps)

    @property
    def peak(self) -> float:
        return max((step.utilization for step in self.steps), default=0.0)

    @property
    def mean(self) -> float:
        """Over all of the time."""
        drain = self.provision.drain / self.provision.capacity
        area, level, since = 0.0, 0.0, 0.0
        for step in (*self.steps, Step(self.end_s, 0.0, "ended")):
            passed = step.at_s - since
            falling = min(passed, level / drain)
            area += level * falling - drain * falling**2 / 2
            level, since = step.utilization, step.at_s
        return area / self.end_s if self.end_s else 0.0

    def highest(self, slots: int) -> list[float]:
        """The highest utilization in each of so many equal stretches of the time."""
        drain = 1 / WINDOW_S
        width = self.end_s / slots
        highest = [0.0] * slots
        level, since, at = 0.0, 0.0, 0
        for slot in range(slots):
            begin, end = slot * width, (slot + 1) * width
            highest[slot] = max(0.0, level - drain * (begin - since))
            while at < len(self.steps) and (self.steps[at].at_s < end or slot == slots - 1):
                level, since = self.steps[at].utilization, self.steps[at].at_s
                highest[slot] = max(highest[slot], level)
                at += 1
        return highest


def simulate(provision: Provision, calls: Sequence[Call]) -> Outcome:
    """``calls``: in the order of their times."""
    counters = MemoryCounters()
    steps: list[Step] = []
    ends: list[tuple[float, int, float]] = []
    last = 0.0

    def note(at_s: float, level: float, what: Literal["admitted", "refused", "ended"], wait: float = 0.0) -> None:
        nonlocal last
        last = at_s
        steps.append(Step(at_s, level / provision.capacity, what, wait))

    def end_until(at_s: float) -> None:
        while ends and ends[0][0] <= at_s:
            end_s, _, difference = heapq.heappop(ends)
            note(end_s, counters.charge("", [provision.charge(difference)], end_s, "add").levels[0], "ended")

    for index, call in enumerate(calls):
        end_until(call.at_s)
        estimate = provision.estimate(call.prompt, call.cached, call.max_output)
        outcome = counters.charge("", [provision.charge(estimate)], call.at_s)
        if outcome.admitted:
            note(call.at_s, outcome.levels[0], "admitted")
            difference = provision.cost(call.prompt, call.cached, call.output) - estimate
            heapq.heappush(ends, (call.at_s + call.duration_s, index, difference))
        else:
            note(call.at_s, outcome.levels[0], "refused", outcome.waits[0])
    end_until(float("inf"))
    return Outcome(provision, tuple(steps), last)


def ptus_needed(provision: Provision, calls: Sequence[Call], minimum: int, step: int) -> int | None:
    """The fewest units, ``minimum`` and some steps, with which nothing is refused; None where there are none below
    :data:`MOST_PTUS`. More units refuse nothing that fewer admit, as long as those refuse nothing at all."""

    def refuses(steps: int) -> bool:
        return simulate(replace(provision, ptus=minimum + steps * step), calls).refused > 0

    if not refuses(0):
        return minimum
    enough = 1
    while refuses(enough):
        if minimum + enough * step > MOST_PTUS:
            return None
        enough *= 2
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (middle, enough) if refuses(middle) else (few, middle)
    return minimum + enough * step
