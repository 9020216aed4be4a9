"""Provisioned throughput: how a response is admitted where throughput was bought (protocol section 9.1). Pure.

Laws
----
1. Utilization is counted in input tokens: one of output weighs as many as the throughput of the model says. 100 %
   is what the units are worth in a minute. It drains at that rate, always, and never falls below 0.
2. A response is admitted whenever utilization is under 100 %, also when it lifts utilization above: short bursts
   pass. At 100 % or more it is refused, and told when utilization will be under it.
3. What it is charged first is an estimate: its prompt, without the part that is served from the cache where that is
   1024 tokens or more, and all the output that it may make, or a guess where nobody has set a limit.
4. When it has ended, the estimate is put right, once, in either direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vivavoce.gateway.models.catalogue import ModelCatalogue, Throughput
from vivavoce.gateway.shared.base import Charge
from vivavoce.wire.server_events import Usage

CACHE_COUNTS_FROM: Final = 1024
"""Cached tokens of a prompt below this are no discount."""
GUESSED_OUTPUT: Final = 1024
"""Output tokens that a response is taken to make when nobody has limited it."""
WINDOW_S: Final = 60.0
"""Seconds whose throughput is 100 %."""
COUNTER: Final = "utilization"

REALTIME_STAND_INS: Final = {
    "gpt-4o-realtime-preview": "gpt-4o",
    "gpt-4o-mini-realtime-preview": "gpt-4o-mini",
    "gpt-realtime": "gpt-4o",
    "gpt-realtime-mini": "gpt-4o-mini",
}
"""No page tells the throughput of realtime models: theirs is taken to be that of the model they were made of."""


def throughput_of(model: str, catalogue: ModelCatalogue) -> Throughput | None:
    """What a unit is worth for a model, or for the one that stands in for it."""
    return catalogue.throughput(model) or catalogue.throughput(REALTIME_STAND_INS.get(model, ""))


def with_throughput(catalogue: ModelCatalogue) -> list[str]:
    """The models for which :func:`throughput_of` knows an answer."""
    stand_ins = {model for model in REALTIME_STAND_INS if throughput_of(model, catalogue) is not None}
    return sorted({row.model for row in catalogue.throughputs} | stand_ins)


@dataclass(frozen=True, slots=True)
class Provision:
    """The throughput of one deployment."""

    ptus: int
    """Provisioned throughput units."""
    input_tokens_per_minute: int
    """Per PTU; so is the next."""
    output_tokens_per_minute: int
    cache_discount: float = 1.0
    """The part of a cached token that costs nothing."""
    guessed_output: int = GUESSED_OUTPUT

    def __post_init__(self) -> None:
        if min(self.ptus, self.input_tokens_per_minute, self.output_tokens_per_minute) < 1:
            raise ValueError("units and their throughput start at 1")

    @classmethod
    def of(cls, throughput: Throughput, ptus: int) -> Provision:
        return cls(ptus, throughput.input_tokens_per_minute, throughput.output_tokens_per_minute)

    @property
    def output_weight(self) -> float:
        """Input tokens that one of output counts for."""
        return self.input_tokens_per_minute / self.output_tokens_per_minute

    @property
    def drain(self) -> float:
        """Input tokens a second."""
        return self.ptus * self.input_tokens_per_minute / 60

    @property
    def capacity(self) -> float:
        """Input tokens that are 100 %."""
        return self.drain * WINDOW_S

    def cost(self, prompt: int, cached: int, output: int) -> float:
        """Input tokens that a response counts for. ``cached``: of the prompt."""
        free = cached * self.cache_discount if cached >= CACHE_COUNTS_FROM else 0.0
        return prompt - free + output * self.output_weight

    def estimate(self, prompt: int, cached: int, max_output: int | None) -> float:
        """Of a response that begins."""
        return self.cost(prompt, cached, self.guessed_output if max_output is None else max_output)

    def cost_of(self, used: Usage) -> float:
        """Of a response that has ended."""
        prompt, cached, output = parts(used)
        return self.cost(prompt, cached, output)

    def charge(self, amount: float) -> Charge:
        """What the bucket is charged; admitted by law 2, put right with its mode ``add``."""
        return Charge(COUNTER, amount, self.capacity, self.drain, below=True)


def parts(used: Usage) -> tuple[int, int, int]:
    """Tokens of the prompt, those of them that were cached, and of output."""
    return (
        used.input_text + used.input_audio,
        used.cached_text + used.cached_audio,
        used.output_text + used.output_audio,
    )
