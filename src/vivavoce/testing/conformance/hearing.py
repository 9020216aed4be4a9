"""Promises of what hears: voice activity detection, recognisers, and judges of the end of a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final

import numpy as np

from vivavoce.engines import base
from vivavoce.testing.conformance.subject import Checks, NotConforming, Sound, Subject, require, turns
from vivavoce.testing.conformance.work import hear, pause, piece_bytes

_FRAMES: Final = 20
_CLOSE_ENOUGH: Final = 1e-3
"""Between a stream in a batch and the same alone: another order of the same additions."""
_NO_LANGUAGE: Final = "zz"


# ---------------------------------------------------------------------------------------------------- VAD


async def probabilities_are_one_for_each_stream(subject: Subject) -> None:
    """float32 in 0..1, [B] for batches of any size, from a thread that is not the event loop's."""
    async with subject.running() as vad:
        for batch in (1, 3, 65):
            told = await asyncio.to_thread(vad.infer, _frames(vad, batch, 1)[0], _new(vad, batch))
            require(isinstance(told, np.ndarray), f"infer returned a {type(told).__name__}")
            require(told.shape == (batch,), f"{batch} streams got probabilities of shape {told.shape}")
            require(told.dtype == np.float32, f"the probabilities are {told.dtype}")
            require(bool(((told >= 0) & (told <= 1)).all()), "a probability is not in 0..1")


async def streams_do_not_hear_each_other(subject: Subject) -> None:
    """A stream gets the same in any batch and at any place, and its memory is its row of ``states`` alone."""
    async with subject.running() as vad:
        sound = _frames(vad, 5, _FRAMES)
        together = _run(vad, sound)
        for stream in range(5):
            alone = _run(vad, sound[:, stream : stream + 1])[:, 0]
            apart = float(np.abs(alone - together[:, stream]).max())
            require(apart <= _CLOSE_ENOUGH, f"a stream differs by {apart:.3g} in the company of others")
        order = np.array([3, 0, 4, 1, 2])
        apart = float(np.abs(_run(vad, sound[:, order]) - together[:, order]).max())
        require(apart <= _CLOSE_ENOUGH, f"a stream differs by {apart:.3g} at another place of the batch")


async def silence_is_no_speech(subject: Subject) -> None:
    """Ten frames of zeros end below one half."""
    async with subject.running() as vad:
        told = _run(vad, np.zeros((10, 1, vad.capabilities.frame_samples), np.float32))
        require(float(told[-1, 0]) < 0.5, f"digital silence is speech with {float(told[-1, 0]):.2f}")


def _frames(vad: base.Vad, batch: int, count: int) -> base.Float32:
    """[count, batch, frame_samples] of hum and noise, the same every time."""
    samples = vad.capabilities.frame_samples
    random = np.random.default_rng(7)
    time = np.arange(count * samples, dtype=np.float32) / np.float32(vad.capabilities.sample_rate)
    pitches = np.linspace(90, 240, batch, dtype=np.float32)[:, None]
    sound = 0.3 * np.sign(np.sin(2 * np.pi * pitches * time)) * (np.sin(2 * np.pi * 3 * time) > 0)
    sound = sound + 0.02 * random.standard_normal(sound.shape)
    shaped: base.Float32 = sound.astype(np.float32).reshape(batch, count, samples).swapaxes(0, 1).copy()
    return shaped


def _new(vad: base.Vad, batch: int) -> base.Float32:
    return np.zeros((batch, vad.capabilities.state_size), np.float32)


def _run(vad: base.Vad, sound: base.Float32) -> base.Float32:
    states = _new(vad, sound.shape[1])
    return np.stack([vad.infer(np.ascontiguousarray(frames), states) for frames in sound])


VAD: Final[Checks] = (probabilities_are_one_for_each_stream, streams_do_not_hear_each_other, silence_is_no_speech)


# -------------------------------------------------------------------------------------------- recognisers


async def deltas_are_the_transcript(subject: Subject) -> None:
    """Texts, no partial ones unasked; in pieces of any length, odd ones too, and known words are found."""
    async with subject.running() as engine:
        for piece in (piece_bytes(engine.capabilities.sample_rate), 3_333, 1 << 20):
            words = _text(await _heard(engine, subject, subject.sentence(engine.capabilities.sample_rate), piece))
            if subject.words is not None:
                told = "".join(c for c in words.lower() if c.isalnum() or c.isspace() or c == "'")
                require(" ".join(told.split()) == subject.words, f"in pieces of {piece} bytes it heard {told!r}")


async def nothing_said_is_no_fault(subject: Subject) -> None:
    """No sound at all gives no words; a second of silence ends without a fault."""
    async with subject.running() as engine:
        rate = engine.capabilities.sample_rate
        require(not _text(await _heard(engine, subject, b"", 640)).strip(), "it heard words in no sound at all")
        await _heard(engine, subject, bytes(rate * 2), piece_bytes(rate))


async def logprobs_come_where_they_are_asked_for(subject: Subject) -> None:
    """Of every token of a delta, never above 0; none unasked."""
    async with subject.running() as engine:
        able = engine.capabilities
        sound = subject.sentence(able.sample_rate)
        for asked in {False, able.logprobs}:
            for delta in await _heard(engine, subject, sound, 3200, base.TranscriptionOptions(logprobs=asked)):
                if isinstance(delta, base.PartialTranscript):
                    continue
                require(asked or not delta.logprobs, "there are logprobs that nobody asked for")
                require(all(one.logprob <= 0 for one in delta.logprobs), "a logprob is above 0")
                tokens = "".join(one.token for one in delta.logprobs)
                require(not asked or tokens == delta.text, f"the tokens {tokens!r} are not the text {delta.text!r}")


async def partials_come_where_they_are_asked_for(subject: Subject) -> None:
    """They tell how much of the sound they know, never less than before and never more than there is."""
    async with subject.running() as engine:
        able = engine.capabilities
        if not able.partials:
            return
        sound = subject.sentence(able.sample_rate)
        length_ms = len(sound) // 2 * 1000 // able.sample_rate
        options = base.TranscriptionOptions(partials=True)
        known = 0
        for part in await _heard(engine, subject, sound, piece_bytes(able.sample_rate), options, partials=True):
            if isinstance(part, base.PartialTranscript):
                require(
                    known <= part.audio_ms <= length_ms + 1, f"{part.audio_ms} ms after {known}, of {length_ms}"
                )
                known = part.audio_ms


async def a_language_it_does_not_know_is_a_fault(subject: Subject) -> None:
    """Where it says which it knows."""
    async with subject.running() as engine:
        if not engine.capabilities.languages:
            return
        options = base.TranscriptionOptions(language=_NO_LANGUAGE)
        try:
            await _heard(engine, subject, bytes(3200), 3200, options)
        except base.EngineError as fault:
            require(fault.code and fault.message, "the fault has no code or no message")
        else:
            raise NotConforming(f"the language {_NO_LANGUAGE!r} was accepted")
        for language in engine.capabilities.languages[:1]:
            await _heard(engine, subject, bytes(3200), 3200, base.TranscriptionOptions(language=language))


async def sound_that_breaks_off_breaks_the_work(subject: Subject) -> None:
    """An audio source that raises ends the work with a fault, and the engine works on."""

    async def broken() -> AsyncGenerator[bytes, None]:
        yield bytes(3200)
        raise ConnectionResetError("the conformance kit broke the sound")

    async with subject.running() as engine:

        async def use() -> None:
            async for _ in engine.transcribe(broken(), base.TranscriptionOptions()):
                pass

        for _ in range(6):
            try:
                await subject.patiently(use(), "work on broken sound")
            except NotConforming:
                raise
            except Exception:
                continue
            raise NotConforming("sound that breaks off was taken for its end")
        await _heard(engine, subject, subject.sentence(engine.capabilities.sample_rate), 3200)


async def sound_is_taken_no_more_after_the_end(subject: Subject) -> None:
    """Once the work is closed its source is left alone."""
    async with subject.running() as engine:
        rate = engine.capabilities.sample_rate
        sound = Sound(bytes(rate * 4), piece_bytes(rate), endless=True)
        pieces = sound.pieces()
        deltas = engine.transcribe(pieces, base.TranscriptionOptions())
        first = asyncio.create_task(anext(deltas))
        await turns(10)
        first.cancel()
        await subject.patiently(asyncio.wait([first]), "cancelled work")
        await deltas.aclose()
        taken = sound.taken
        await turns(100)
        require(sound.taken == taken, f"{sound.taken - taken} pieces of sound were taken after the end")
        await pieces.aclose()


async def _heard(
    engine: base.Transcriber,
    subject: Subject,
    pcm: bytes,
    piece: int,
    options: base.TranscriptionOptions | None = None,
    *,
    partials: bool = False,
) -> list[base.TranscriptDelta | base.PartialTranscript]:
    async def collect() -> list[base.TranscriptDelta | base.PartialTranscript]:
        asked = options or base.TranscriptionOptions()
        return [delta async for delta in hear(engine, Sound(pcm, piece), asked)]

    deltas = await subject.patiently(collect(), "a recognition")
    for delta in deltas:
        known = isinstance(delta, base.TranscriptDelta | base.PartialTranscript)
        require(known and isinstance(delta.text, str), f"it yielded a {type(delta).__name__}")
        require(partials or isinstance(delta, base.TranscriptDelta), "there are partial transcripts unasked")
    return deltas


def _text(deltas: list[base.TranscriptDelta | base.PartialTranscript]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, base.TranscriptDelta))


TRANSCRIBER: Final[Checks] = (
    deltas_are_the_transcript,
    nothing_said_is_no_fault,
    logprobs_come_where_they_are_asked_for,
    partials_come_where_they_are_asked_for,
    a_language_it_does_not_know_is_a_fault,
    sound_that_breaks_off_breaks_the_work,
    sound_is_taken_no_more_after_the_end,
)


# -------------------------------------------------------------------------------------------- end of turn


async def judgements_are_probabilities(subject: Subject) -> None:
    """0..1 for whatever is known of a pause: words or none, sound or none, any language."""
    async with subject.running() as engine:
        ordinary: Any = pause(engine, subject)
        for words in (None, "", "And then I", "That is all, thank you."):
            for language in (None, "en", "ja", _NO_LANGUAGE):
                for pcm in (ordinary.pcm, b"", bytes(len(ordinary.pcm))):
                    question = base.Pause(words, language, pcm, 32)
                    told = await subject.patiently(engine.judge(question), "a judgement")
                    require(isinstance(told, float) and 0 <= told <= 1, f"it judged {told!r}")


END_OF_TURN: Final[Checks] = (judgements_are_probabilities,)
