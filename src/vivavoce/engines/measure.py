"""How fast an engine is by itself, on this machine: what ``vivavoce bench-engines`` prints.

Every figure is a measured time, or a ratio of one to the length of the sound that it was about; nothing is
estimated. An engine is measured once to warm it, and then as often as is asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vivavoce.audio.resample import Resampler
from vivavoce.engines import base

_TEXT: Final = "Thank you for calling. The next train to Oslo leaves at nine, from platform four."
_QUESTION: Final = "Please tell me in two or three sentences what you can do for me."
_PIECE_MS: Final = 40
_TAIL_MS: Final = 320
_BATCHES: Final = (1, 8, 32, 128)
_FRAMES: Final = 50

Figures: TypeAlias = dict[str, float]
"""Figure -> value; the name ends with the unit."""
Int16: TypeAlias = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Material:
    """What engines are given to work on."""

    speech: Int16
    """A sentence, mono."""
    rate: int
    """Hz of it."""
    count_tokens: Callable[[str], int]
    """Tokens of a text."""
    language: str | None = None
    """ISO-639-1, for recognisers."""

    def pcm(self, rate: int) -> bytes:
        """The sentence as s16le at ``rate``."""
        resampled: bytes = Resampler(self.rate, rate).process(self.speech, last=True).astype("<i2").tobytes()
        return resampled


async def measure(engine: base.Engine, material: Material, runs: int) -> list[Figures]:
    """Figures of each run of an engine that was started. Raises :class:`EngineError`, as the engine does."""
    work = _work(engine, material)
    await work()
    return [await work() for _ in range(runs)]


def _work(engine: base.Engine, material: Material) -> Callable[[], Any]:
    match engine:
        case base.Vad():
            return lambda: _vad(engine)
        case base.Transcriber():
            return lambda: _transcriber(engine, material)
        case base.EndOfTurn():
            return lambda: _end_of_turn(engine, material)
        case base.LanguageModel():
            return lambda: _language_model(engine, material)
        case base.Synthesizer():
            return lambda: _synthesizer(engine)
        case base.SpeechModel():
            return lambda: _speech_model(engine)
        case _:
            raise TypeError(f"a {type(engine).__name__} is no engine")


async def _vad(vad: base.Vad) -> Figures:
    """Of one frame, at several sizes of a batch."""
    able = vad.capabilities
    random = np.random.default_rng(1)

    def run(batch: int) -> float:
        frames = random.normal(0, 0.1, (batch, able.frame_samples)).astype(np.float32)
        states = np.zeros((batch, able.state_size), np.float32)
        began = time.perf_counter()
        for _ in range(_FRAMES):
            vad.infer(frames, states)
        return (time.perf_counter() - began) / _FRAMES / batch * 1e6

    return {f"a frame, {batch} at a time us": await asyncio.to_thread(run, batch) for batch in _BATCHES}


async def _transcriber(engine: base.Transcriber, material: Material) -> Figures:
    """All sound at once, for the factor of real time; then as it is spoken, for the wait after its end."""
    rate = engine.capabilities.sample_rate
    pcm = material.pcm(rate)
    options = base.TranscriptionOptions(language=material.language)

    async def at_once() -> AsyncGenerator[bytes, None]:
        yield pcm

    began = time.perf_counter()
    await _all(engine.transcribe(at_once(), options))
    took = time.perf_counter() - began
    ended = 0.0

    async def spoken() -> AsyncGenerator[bytes, None]:
        nonlocal ended
        step = rate * _PIECE_MS // 1000 * 2
        start = time.perf_counter()
        for n, at in enumerate(range(0, len(pcm), step), 1):
            await asyncio.sleep(max(0.0, start + n * _PIECE_MS / 1000 - time.perf_counter()))
            yield pcm[at : at + step]
        ended = time.perf_counter()

    await _all(engine.transcribe(spoken(), options))
    return {
        "real-time factor": took / (len(pcm) / 2 / rate),
        "final words after the end of speech ms": (time.perf_counter() - ended) * 1000,
    }


async def _end_of_turn(engine: base.EndOfTurn, material: Material) -> Figures:
    able = engine.capabilities
    size = able.audio_ms * able.sample_rate // 1000 * 2
    pcm = material.pcm(able.sample_rate) + bytes(able.sample_rate * _TAIL_MS // 1000 * 2)
    words = _TEXT if able.reads_words else None
    pause = base.Pause(words, None, pcm[max(0, len(pcm) - size) :] if size else b"", _TAIL_MS)
    began = time.perf_counter()
    await engine.judge(pause)
    return {"a judgement ms": (time.perf_counter() - began) * 1000}


def _request(modalities: frozenset[Any] = frozenset({"text"})) -> base.GenerationRequest:
    return base.GenerationRequest(
        instructions="You are a friendly assistant. Keep your answers short.",
        turns=(base.Message("user", (base.TextInput(_QUESTION),)),),
        modalities=modalities,
        max_output_tokens=200,
    )


async def _language_model(engine: base.LanguageModel, material: Material) -> Figures:
    began = time.perf_counter()
    first = last = None
    said = ""
    async with aclosing(engine.generate(_request())) as deltas:
        async for delta in deltas:
            last = time.perf_counter()
            if isinstance(delta, base.TextDelta):
                first = first or last
                said += delta.text
    if first is None or last is None:
        raise base.EngineError("no_output", "The model said nothing.")
    return {
        "first token ms": (first - began) * 1000,
        "tokens/s": material.count_tokens(said) / max(last - began, 1e-9),
    }


async def _synthesizer(engine: base.Synthesizer) -> Figures:
    began = time.perf_counter()
    first: float | None = None
    size = 0
    async with aclosing(engine.synthesize(base.SynthesisRequest(_TEXT, min(engine.capabilities.voices)))) as chunks:
        async for chunk in chunks:
            first = first or time.perf_counter()
            size += len(chunk.pcm)
    if first is None or not size:
        raise base.EngineError("no_output", "The synthesiser made no sound.")
    return {
        "real-time factor": (time.perf_counter() - began) / (size / 2 / engine.capabilities.sample_rate),
        "first audio ms": (first - began) * 1000,
    }


async def _speech_model(engine: base.SpeechModel) -> Figures:
    generation = _request(frozenset({"text", "audio"}))
    began = time.perf_counter()
    first: float | None = None
    size = 0
    request = base.SpeechRequest(generation, min(engine.capabilities.voices))
    async with aclosing(engine.respond(request)) as deltas:
        async for delta in deltas:
            if isinstance(delta, base.AudioDelta):
                first = first or time.perf_counter()
                size += len(delta.pcm)
    if first is None or not size:
        raise base.EngineError("no_output", "The model made no sound.")
    return {
        "real-time factor": (time.perf_counter() - began) / (size / 2 / engine.capabilities.sample_rate),
        "first audio ms": (first - began) * 1000,
    }


async def _all(work: AsyncGenerator[Any, None]) -> None:
    async with aclosing(work) as products:
        async for _ in products:
            pass
