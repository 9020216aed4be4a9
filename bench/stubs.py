"""Stand-in engines for measurements: they cost next to nothing, so that what is measured is the server.

``prompt`` answers as soon as it is asked. ``paced`` is the same, except that its speech comes in real time, so that
a response lasts and can be interrupted. ``steady`` engines take a fixed time: what an answer takes beside them is
the server's. The VAD is never stood in for: it is part of the hot path.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from importlib.metadata import EntryPoint
from typing import Final

from bench.answer import ANSWER, CHUNK_MS, HEARD, chunks, hum
from vivavoce.engines import base
from vivavoce.engines.registry import Registry
from vivavoce.wire.session_config import VOICES

RATE: Final = 24000

HEARD_S: Final = 0.1
"""What the steady recogniser takes after the end of the sound."""
FIRST_TOKEN_S: Final = 0.15
TOKEN_S: Final = 0.02
CLAUSE_S: Final = 0.05
"""What the steady synthesiser takes for a clause."""
FIRST_CLAUSE: Final = "It is a quarter past nine, "
STEADY_ANSWER: Final = f"{FIRST_CLAUSE}and the next train leaves from platform four."


class _Standin:
    name = "standin"
    version = "1"

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""


class Transcriber(_Standin):
    """Hears the same words in everything."""

    capabilities = base.TranscriberCapabilities(sample_rate=16000, streaming=True)

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta, None]:
        async for _ in audio:
            pass
        yield base.TranscriptDelta(HEARD)


class LanguageModel(_Standin):
    """Gives the same answer to everything."""

    capabilities = base.LanguageModelCapabilities()

    async def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        for word in ANSWER.split(" "):
            yield base.TextDelta(f"{word} ")
        yield base.Finish()


class Synthesizer(_Standin):
    """Hums for as long as the text would take; ``paced`` in real time, otherwise at once."""

    capabilities = base.SynthesizerCapabilities(sample_rate=RATE, voices=dict.fromkeys(VOICES, "hum"))

    def __init__(self, *, paced: bool) -> None:
        self._paced = paced
        self._chunk = hum(RATE)

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        for _ in range(chunks(request.text)):
            if self._paced:
                await asyncio.sleep(CHUNK_MS / 1000)
            yield base.SpeechChunk(self._chunk)


async def _until(moment: float) -> None:
    """A late step does not make the next one later."""
    await asyncio.sleep(moment - asyncio.get_running_loop().time())


class SteadyTranscriber(Transcriber):
    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta, None]:
        async for _ in audio:
            pass
        await asyncio.sleep(HEARD_S)
        yield base.TranscriptDelta(HEARD)


class SteadyLanguageModel(LanguageModel):
    async def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        due = asyncio.get_running_loop().time() + FIRST_TOKEN_S
        for word in STEADY_ANSWER.split(" "):
            await _until(due)
            yield base.TextDelta(f"{word} ")
            due += TOKEN_S
        yield base.Finish()


class SteadySynthesizer(Synthesizer):
    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        await asyncio.sleep(CLAUSE_S)
        async for chunk in super().synthesize(request):
            yield chunk


def ideal_ms(ahead_ms: float = 0) -> float:
    """From the end of a turn to the first sound of its answer, if the server took no time; ``ahead_ms``: begun so
    long before that end. The last words of a turn are known no earlier than the recogniser can know them."""
    tokens = len(FIRST_CLAUSE.split())
    path = HEARD_S + FIRST_TOKEN_S + (tokens - 1) * TOKEN_S + CLAUSE_S
    return max(HEARD_S, path - ahead_ms / 1000) * 1000


def steady_transcriber(options: Mapping[str, object]) -> base.Transcriber:
    return SteadyTranscriber()


def steady_language_model(options: Mapping[str, object]) -> base.LanguageModel:
    return SteadyLanguageModel()


def steady_synthesizer(options: Mapping[str, object]) -> base.Synthesizer:
    return SteadySynthesizer(paced=False)


def transcriber(options: Mapping[str, object]) -> base.Transcriber:
    return Transcriber()


def language_model(options: Mapping[str, object]) -> base.LanguageModel:
    return LanguageModel()


def prompt(options: Mapping[str, object]) -> base.Synthesizer:
    return Synthesizer(paced=False)


def paced(options: Mapping[str, object]) -> base.Synthesizer:
    return Synthesizer(paced=True)


def registry() -> Registry:
    """The stand-ins, and what is built in of that which hears turns."""
    here = "bench.stubs"
    return Registry(
        [
            EntryPoint("silero", "vivavoce.engines.builtin.silero_vad:create", "vivavoce.vad"),
            EntryPoint("turn_hints", "vivavoce.engines.builtin.turn_hints:create", "vivavoce.end_of_turn"),
            EntryPoint("standin", f"{here}:transcriber", "vivavoce.transcriber"),
            EntryPoint("standin", f"{here}:language_model", "vivavoce.language_model"),
            EntryPoint("prompt", f"{here}:prompt", "vivavoce.synthesizer"),
            EntryPoint("steady", f"{here}:steady_transcriber", "vivavoce.transcriber"),
            EntryPoint("steady", f"{here}:steady_language_model", "vivavoce.language_model"),
            EntryPoint("steady", f"{here}:steady_synthesizer", "vivavoce.synthesizer"),
            EntryPoint("paced", f"{here}:paced", "vivavoce.synthesizer"),
        ]
    )
