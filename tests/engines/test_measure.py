"""Measuring engines: what is reported is what was measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator

import numpy as np
import pytest

from vivavoce.engines import base, measure
from vivavoce.engines.measure import Material
from vivavoce.engines.registry import EngineKind, Registry
from vivavoce.testing.virtual_time import advance, run

SPEECH = np.zeros(24_000, np.int16)
"""One second."""
MATERIAL = Material(SPEECH, 24_000, lambda text: len(text.split()))


class Timed:
    """Engines whose every step takes a time that is known."""

    name = version = "timed"

    async def start(self) -> None: ...
    async def close(self) -> None: ...


class Ear(Timed):
    capabilities = base.TranscriberCapabilities(16_000, True)

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta, None]:
        async for _ in audio:
            pass
        await asyncio.sleep(0.25)
        yield base.TranscriptDelta("words")


class Model(Timed):
    capabilities = base.LanguageModelCapabilities()
    silent = False

    async def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        await asyncio.sleep(0.5)
        for _ in range(0 if self.silent else 10):
            yield base.TextDelta("word ")
            await asyncio.sleep(0.1)
        yield base.Finish()


class Voice(Timed):
    capabilities = base.SynthesizerCapabilities(16_000, voices={"alloy": "a"})

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        for _ in range(2):
            await asyncio.sleep(0.1)
            yield base.SpeechChunk(bytes(16_000))


@pytest.mark.parametrize(
    ("engine", "figures"),
    [
        (Ear(), {"real-time factor": 0.25, "final words after the end of speech ms": 250}),
        (Model(), {"first token ms": 500, "tokens/s": 10 / 1.5}),
        (Voice(), {"real-time factor": 0.2, "first audio ms": 100}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_figures_are_times_and_their_ratios(
    engine: base.Engine, figures: measure.Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def time_passes() -> None:
        while True:
            for _ in range(10):
                await asyncio.sleep(0)
            advance(0.01)

    async def work() -> list[measure.Figures]:
        monkeypatch.setattr(time, "perf_counter", asyncio.get_running_loop().time)
        passing = asyncio.create_task(time_passes())
        try:
            return await measure.measure(engine, MATERIAL, 2)
        finally:
            passing.cancel()

    first, second = run(work())
    assert first == pytest.approx(figures, rel=0.05)
    assert second == pytest.approx(first)


async def test_a_model_that_says_nothing_is_a_fault() -> None:
    engine = Model()
    engine.silent = True
    with pytest.raises(base.EngineError, match="said nothing"):
        await measure.measure(engine, MATERIAL, 1)


@pytest.mark.parametrize(("kind", "name", "count"), [("vad", "silero", 4), ("end_of_turn", "turn_hints", 1)])
async def test_engines_that_stream_nothing_are_measured_too(kind: EngineKind, name: str, count: int) -> None:
    engine = Registry.installed().create(kind, name, {})
    await engine.start()
    try:
        (figures,) = await measure.measure(engine, MATERIAL, 1)
    finally:
        await engine.close()
    assert len(figures) == count
    assert all(value > 0 for value in figures.values())
