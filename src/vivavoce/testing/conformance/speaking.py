"""Promises of synthesisers."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from vivavoce.engines import base
from vivavoce.testing.conformance.subject import Checks, NotConforming, Subject, require
from vivavoce.testing.conformance.work import TEXT, voice

_NO_VOICE: Final = "no-such-voice"
_WORDLESS: Final = ("", " ", "\n\t", "...", "\U0001f600", "\u200b", "\ud800", "\x00\x07")
_TIME_SLACK_MS: Final = 50
"""What a word timing may lie beyond the sound: rounding, and the blocks that engines work in."""


async def every_voice_speaks(subject: Subject) -> None:
    """In whole samples, more of them the more there is to say."""
    async with subject.running() as engine:
        for name in sorted(engine.capabilities.voices):
            short, long = [await _ms(engine, subject, text, name) for text in ("Yes.", f"{TEXT} {TEXT}")]
            require(short > 0, f"the voice {name} says nothing")
            require(long > short, f"the voice {name} takes {short:.0f} ms for a word and {long:.0f} for many")


async def words_are_where_they_are_said_to_be(subject: Subject) -> None:
    """Timings are of words of the text, in order, inside the sound; none without the capability."""
    async with subject.running() as engine:
        chunks = await _spoken(engine, subject, base.SynthesisRequest(TEXT, voice(engine)))
        length_ms = sum(len(chunk.pcm) for chunk in chunks) / 2 / engine.capabilities.sample_rate * 1000
        words = [word for chunk in chunks for word in chunk.words]
        require(bool(words) == engine.capabilities.word_timings, f"{len(words)} word timings, against its promise")
        before = base.WordTiming(0, 0, 0)
        for word in words:
            spelled = TEXT[word.start : word.start + word.length]
            require(spelled and not spelled.isspace(), f"a word timing is about {spelled!r}")
            require(word.start >= before.start + before.length, "two word timings overlap in the text")
            require(word.audio_ms >= before.audio_ms, "word timings go back in time")
            require(word.audio_ms <= length_ms + _TIME_SLACK_MS, "a word timing lies beyond the sound")
            before = word


async def nothing_to_say_is_no_fault(subject: Subject) -> None:
    """Empty texts, spaces, signs and broken characters."""
    async with subject.running() as engine:
        for text in _WORDLESS:
            await _spoken(engine, subject, base.SynthesisRequest(text, voice(engine)))


async def speed_is_heard(subject: Subject) -> None:
    """Twice as fast is shorter than half as fast."""
    async with subject.running() as engine:
        fast, slow = [await _ms(engine, subject, TEXT, voice(engine), speed) for speed in (1.5, 0.5)]
        require(fast < slow, f"speed 1.5 takes {fast:.0f} ms and speed 0.5 takes {slow:.0f} ms")


async def a_voice_it_does_not_have_is_a_fault(subject: Subject) -> None:
    """An EngineError, and no sound of another voice."""
    async with subject.running() as engine:
        try:
            await _spoken(engine, subject, base.SynthesisRequest(TEXT, _NO_VOICE))
        except base.EngineError as fault:
            require(fault.code and fault.message, "the fault has no code or no message")
        else:
            raise NotConforming(f"the voice {_NO_VOICE!r} was accepted")


async def _spoken(
    engine: base.Synthesizer, subject: Subject, request: base.SynthesisRequest
) -> list[base.SpeechChunk]:
    async def collect() -> list[base.SpeechChunk]:
        async with aclosing(engine.synthesize(request)) as chunks:
            return [chunk async for chunk in chunks]

    chunks = await subject.patiently(collect(), "a synthesis")
    for chunk in chunks:
        require(isinstance(chunk, base.SpeechChunk), f"it yielded a {type(chunk).__name__}")
        require(isinstance(chunk.pcm, bytes), f"its sound is a {type(chunk.pcm).__name__}, not bytes")
        require(len(chunk.pcm) % 2 == 0, f"a chunk of {len(chunk.pcm)} bytes is no whole samples")
    return chunks


async def _ms(engine: base.Synthesizer, subject: Subject, text: str, name: str, speed: float = 1.0) -> float:
    chunks = await _spoken(engine, subject, base.SynthesisRequest(text, name, speed))
    return sum(len(chunk.pcm) for chunk in chunks) / 2 / engine.capabilities.sample_rate * 1000


SYNTHESIZER: Final[Checks] = (
    every_voice_speaks,
    words_are_where_they_are_said_to_be,
    nothing_to_say_is_no_fault,
    speed_is_heard,
    a_voice_it_does_not_have_is_a_fault,
)
