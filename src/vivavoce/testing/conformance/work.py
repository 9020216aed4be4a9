"""One ordinary piece of work for an engine of each kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from vivavoce.engines import base
from vivavoce.testing.conformance.subject import MARK, Sound, Subject

TEXT = f"Good morning, {MARK}. How are you today?"
PIECE_MS = 40


def request(text: str = TEXT, **beside: Any) -> base.GenerationRequest:
    turn = base.Message("user", (base.TextInput(text),))
    return base.GenerationRequest(instructions="Answer in one short sentence.", turns=(turn,), **beside)


def stream(engine: Any, subject: Subject, *, endless: bool = False) -> AsyncGenerator[Any, None]:
    """The generator of one piece of work; ``endless``: where it can be, one without an end."""
    match subject.kind:
        case "transcriber":
            rate = engine.capabilities.sample_rate
            sound = Sound(subject.sentence(rate), piece_bytes(rate), endless=endless)
            options = base.TranscriptionOptions()
            return hear(engine, sound, options)
        case "language_model":
            return engine.generate(request())  # type: ignore[no-any-return]
        case "synthesizer":
            return engine.synthesize(base.SynthesisRequest(TEXT, voice(engine)))  # type: ignore[no-any-return]
        case "speech_model":
            return engine.respond(base.SpeechRequest(request(), voice(engine)))  # type: ignore[no-any-return]
        case "end_of_turn":
            return _judge(engine, subject)
        case _:
            raise ValueError(f"a {subject.kind} does not stream")


async def hear(
    engine: base.Transcriber, sound: Sound, options: base.TranscriptionOptions
) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript, None]:
    """As the server does it: the source is closed with the work."""
    async with aclosing(sound.pieces()) as pieces, aclosing(engine.transcribe(pieces, options)) as deltas:
        async for delta in deltas:
            yield delta


async def _judge(engine: base.EndOfTurn, subject: Subject) -> AsyncGenerator[float, None]:
    yield await engine.judge(pause(engine, subject))


def pause(engine: base.EndOfTurn, subject: Subject) -> base.Pause:
    able = engine.capabilities
    pcm = subject.sentence(able.sample_rate) + bytes(able.sample_rate // 1000 * 320 * 2)
    size = able.audio_ms * able.sample_rate // 1000 * 2
    return base.Pause(TEXT if able.reads_words else None, None, pcm[len(pcm) - min(size, len(pcm)) :], 320)


def piece_bytes(rate: int) -> int:
    return rate * PIECE_MS // 1000 * 2


def voice(engine: Any) -> str:
    """One that it has."""
    name: str = min(engine.capabilities.voices)
    return name


async def done(engine: Any, subject: Subject) -> list[Any]:
    """All that one piece of work yields. Raises NotConforming when it takes too long."""

    async def collect() -> list[Any]:
        async with aclosing(stream(engine, subject)) as products:
            return [product async for product in products]

    return await subject.patiently(collect(), "a piece of work")
