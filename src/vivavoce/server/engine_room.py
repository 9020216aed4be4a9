"""The engines of what is served, as the runtime wants them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import cast

from vivavoce.engines.base import Vad
from vivavoce.gateway.deployments import Deployments, Recipe, Served
from vivavoce.runtime.engines import SILENT, Cascaded, Engines, Native, Telemetry
from vivavoce.runtime.vad_pool import VadPool
from vivavoce.server.metrics import Metrics


class EngineRoom:
    """Deployments with the same VAD share its pool. The pools of all VADs run within the block, also of those that
    no deployment uses yet."""

    def __init__(self, deployments: Deployments, metrics: Metrics | None) -> None:
        self._metrics = metrics
        self._telemetries: dict[str, Telemetry] = {}
        for served in deployments:
            self._telemetry(served.deployment.label)
        vads = [cast(Vad, engine) for (kind, _), engine in deployments.engines if kind == "vad"]
        self._pools = {id(vad): VadPool(vad) for vad in vads}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> None:
        for pool in self._pools.values():
            await self._stack.enter_async_context(pool)

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def running(self) -> bool:
        """Every pool judges."""
        return all(pool.running for pool in self._pools.values())

    def __call__(self, served: Served) -> Engines:
        """For one session."""
        recipe = served.recipe
        return Engines(
            self._pools[id(recipe.vad)],
            recipe.transcriber,
            recipe.end_of_turn,
            _speaker(recipe),
            telemetry=self._telemetry(served.deployment.label),
        )

    def _telemetry(self, label: str) -> Telemetry:
        """It shows from the first time on that it is asked for."""
        if self._metrics is None:
            return SILENT
        if label not in self._telemetries:
            self._telemetries[label] = self._metrics.telemetry(label)
        return self._telemetries[label]


def _speaker(recipe: Recipe) -> Cascaded | Native:
    if recipe.speech_model is not None:
        return Native(recipe.speech_model)
    assert recipe.language_model is not None
    assert recipe.synthesizer is not None
    return Cascaded(recipe.language_model, recipe.synthesizer)
