"""The conformance kit: every built-in engine passes it, and engines that break a promise do not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar, Final

import numpy as np
import pytest

from vivavoce.engines import base
from vivavoce.testing import conformance
from vivavoce.testing.conformance import Check, Subject

BUILT_IN: Final = (
    Subject.installed("vad", "silero"),
    Subject.installed(
        "transcriber",
        "pocketsphinx",
        options={"workers": 1},
        bad_options={"workers": 0, "job_timeout_s": "long"},
        words="hello can you tell me what you heard me say",
    ),
    Subject.installed("end_of_turn", "turn_hints", bad_options={"language": "tlh"}),
    Subject.installed(
        "language_model", "scripted", options={"word_delay_ms": 0}, bad_options={"word_delay_ms": -1}
    ),
    Subject.installed("synthesizer", "espeak", bad_options={"words_per_minute": 1, "voices": {"nobody": "en"}}),
)


@pytest.mark.parametrize(
    "check",
    [check for subject in BUILT_IN for check in conformance.checks(subject)],
    ids=lambda check: f"{check.subject.kind}-{check}",
)
async def test_built_in_engines_conform(check: Check) -> None:
    await check.run()


# -------------------------------------------------------------------------------- engines that break a promise


class Good:
    """What all of the engines below have right."""

    name = "good"
    version = "1"

    def __init__(self) -> None:
        self.working = False

    async def start(self) -> None:
        self.working = True

    async def close(self) -> None:
        self.working = False


class Tone(Good):
    """A synthesiser: 10 ms a character."""

    capabilities = base.SynthesizerCapabilities(sample_rate=16000, word_timings=True, voices={"alloy": "a"})

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        if request.voice not in self.capabilities.voices:
            raise base.EngineError("unknown_voice", "There is no such voice.")
        at_ms = 0.0
        for at, character in enumerate(request.text):
            await asyncio.sleep(0)
            samples = round(160 / request.speed)
            words = (base.WordTiming(at, 1, round(at_ms)),) if not character.isspace() else ()
            at_ms += samples / 16
            yield base.SpeechChunk(bytes(samples * 2), words)


class Ear(Good):
    """A recogniser: a word for every second of sound."""

    capabilities = base.TranscriberCapabilities(
        sample_rate=16000, streaming=True, languages=("en",), logprobs=True, partials=True
    )

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript, None]:
        if options.language not in (None, "en"):
            raise base.EngineError("unsupported_language", "English only.")
        heard = 0
        async for piece in audio:
            heard += len(piece)
            if options.partials:
                yield base.PartialTranscript("so far", heard // 32)
        for _ in range(heard // 32000):
            yield base.TranscriptDelta("tick", (base.TokenLogprob("tick", -0.1),) if options.logprobs else ())


class Writer(Good):
    """A language model: two words, and a call where a function must be called."""

    capabilities = base.LanguageModelCapabilities()

    async def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        yield base.TextDelta("Hello")
        await asyncio.sleep(0)
        yield base.TextDelta(" there")
        if request.tools and request.tool_choice not in ("auto", "none"):
            yield base.ToolCallStart(request.tools[0].name)
            yield base.ToolArgumentsDelta('{"place": "Oslo"}')
        yield base.Finish()


class Speaker(Good):
    """A speech model: a word and its sound."""

    capabilities = base.SpeechModelCapabilities(sample_rate=16000, hears_audio=False, voices=frozenset({"alloy"}))

    async def respond(self, request: base.SpeechRequest) -> AsyncGenerator[base.SpeechDelta, None]:
        yield base.TextDelta("Hello")
        await asyncio.sleep(0)
        if "audio" in request.generation.modalities:
            yield base.AudioDelta(bytes(320))
        yield base.Finish()


class Gate(Good):
    """A VAD without memory."""

    capabilities = base.VadCapabilities(sample_rate=16000, frame_samples=512, state_size=1)

    def infer(self, frames: base.Float32, states: base.Float32) -> base.Float32:
        loud: base.Float32 = np.clip(np.abs(frames).mean(axis=1), 0, 1).astype(np.float32)
        return loud


class Coin(Good):
    """A judge that never knows."""

    capabilities = base.EndOfTurnCapabilities(sample_rate=16000, audio_ms=100, reads_words=True)

    async def judge(self, pause: base.Pause) -> float:
        return 0.5


def subject(kind: conformance.Kind, engine: type[Good], **beside: Any) -> Subject:
    def create(options: Mapping[str, object]) -> Good:
        for name in options:
            raise base.EngineOptionsError(name, "there are no options")
        return engine()

    return Subject(kind=kind, create=create, patience_s=0.5, **beside)


GOOD: Final[dict[conformance.Kind, type[Good]]] = {
    "vad": Gate,
    "transcriber": Ear,
    "end_of_turn": Coin,
    "language_model": Writer,
    "synthesizer": Tone,
    "speech_model": Speaker,
}


@pytest.mark.parametrize(("kind", "engine"), GOOD.items())
def test_a_good_engine_passes(kind: conformance.Kind, engine: type[Good]) -> None:
    assert conformance.report(subject(kind, engine)) == []


class Nameless(Tone):
    name = ""


class Sleepless(Tone):
    """Never ends."""

    async def close(self) -> None:
        await asyncio.get_running_loop().create_future()


class Boaster(Tone):
    """Says that it works when it was closed."""

    async def close(self) -> None: ...


class Litterer(Tone):
    """Leaves a task of each life."""

    tasks: ClassVar[list[asyncio.Task[bool]]] = []

    async def start(self) -> None:
        await super().start()
        self.tasks.append(asyncio.create_task(asyncio.Event().wait()))


class FileHoarder(Tone):
    """Leaves a file of each life open."""

    files: ClassVar[list[int]] = []

    async def start(self) -> None:
        await super().start()
        self.files.append(os.open(os.devnull, os.O_RDONLY))


class Spawner(Tone):
    """Leaves a process of each life."""

    processes: ClassVar[list[subprocess.Popen[bytes]]] = []

    def _spawn(self) -> None:
        self.processes.append(subprocess.Popen(["/bin/sleep", "600"]))

    async def start(self) -> None:
        await super().start()
        self._spawn()


class OneSlot(Tone):
    """Loses its only slot when it is closed early."""

    def __init__(self) -> None:
        super().__init__()
        self._slot = asyncio.Semaphore(1)

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        await self._slot.acquire()
        async for chunk in super().synthesize(request):
            yield chunk
        self._slot.release()


class Gossip(Tone):
    """Logs what it is to say."""

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        logging.getLogger("gossip").debug("saying %s", request.text)
        async for chunk in super().synthesize(request):
            yield chunk


class HalfSamples(Tone):
    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        async for chunk in super().synthesize(request):
            yield base.SpeechChunk(chunk.pcm[1:], chunk.words)


class Leisurely(Tone):
    """Knows one speed."""

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        async for chunk in super().synthesize(base.SynthesisRequest(request.text, request.voice)):
            yield chunk


class AnyVoice(Tone):
    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        async for chunk in super().synthesize(base.SynthesisRequest(request.text, "alloy", request.speed)):
            yield chunk


class Untimed(Tone):
    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        async for chunk in super().synthesize(request):
            yield base.SpeechChunk(chunk.pcm)


class Touchy(Tone):
    """Cannot take an empty text."""

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        if not request.text.strip():
            raise base.EngineError("no_text", "There is nothing to say.")
        async for chunk in super().synthesize(request):
            yield chunk


class Polyglot(Ear):
    """Takes any language."""

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript, None]:
        async for delta in super().transcribe(audio, base.TranscriptionOptions(partials=options.partials)):
            yield delta


class Dreamer(Ear):
    """Hears words in nothing."""

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript, None]:
        yield base.TranscriptDelta("you")
        async for delta in super().transcribe(audio, options):
            yield delta


class Deaf(Ear):
    """Takes sound that breaks off for its end."""

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript, None]:
        with contextlib.suppress(ConnectionError):
            async for delta in super().transcribe(audio, options):
                yield delta


class Greedy(Ear):
    """Goes on listening when nobody waits for the words."""

    tasks: ClassVar[list[asyncio.Task[None]]] = []

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript, None]:
        async def listen() -> None:
            async for _ in audio:
                pass

        self.tasks.append(asyncio.create_task(listen()))
        await asyncio.wait(self.tasks[-1:])
        yield base.TranscriptDelta("")


class Chatty(Writer):
    """Does not stop after its end."""

    async def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        yield base.Finish()
        yield base.TextDelta("And")


class Meddler(Writer):
    """Calls functions that it may not call."""

    async def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        for tool in request.tools:
            yield base.ToolCallStart(tool.name)
            yield base.ToolArgumentsDelta("{}")
        yield base.Finish()


class Mumbler(Writer):
    """Arguments that are no JSON."""

    async def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        if request.tool_choice == "required":
            yield base.ToolCallStart("get_weather")
            yield base.ToolArgumentsDelta("Oslo")
        yield base.Finish()


class NeverSilent(Speaker):
    async def respond(self, request: base.SpeechRequest) -> AsyncGenerator[base.SpeechDelta, None]:
        yield base.AudioDelta(bytes(320))
        yield base.Finish()


class Crowd(Gate):
    """Hears the loudest of all streams in each."""

    def infer(self, frames: base.Float32, states: base.Float32) -> base.Float32:
        loud = super().infer(frames, states)
        return np.full_like(loud, loud.max())


class Sure(Coin):
    async def judge(self, pause: base.Pause) -> float:
        return 2.0


BROKEN: Final[list[tuple[conformance.Kind, type[Good], str]]] = [
    ("synthesizer", Nameless, "is_what_its_kind_says"),
    ("synthesizer", Ear, "is_what_its_kind_says"),
    ("synthesizer", Sleepless, "closing_twice_is_closing_once"),
    ("synthesizer", Boaster, "works_between_start_and_close"),
    ("synthesizer", Litterer, "leaves_nothing_behind"),
    ("synthesizer", FileHoarder, "leaves_nothing_behind"),
    ("synthesizer", Spawner, "leaves_nothing_behind"),
    ("synthesizer", OneSlot, "closed_early_it_works_on"),
    ("synthesizer", OneSlot, "cancelled_it_works_on"),
    ("synthesizer", Gossip, "logs_tell_nothing_of_the_work"),
    ("synthesizer", HalfSamples, "every_voice_speaks"),
    ("synthesizer", Leisurely, "speed_is_heard"),
    ("synthesizer", AnyVoice, "a_voice_it_does_not_have_is_a_fault"),
    ("synthesizer", Untimed, "words_are_where_they_are_said_to_be"),
    ("synthesizer", Touchy, "nothing_to_say_is_no_fault"),
    ("transcriber", Polyglot, "a_language_it_does_not_know_is_a_fault"),
    ("transcriber", Polyglot, "logprobs_come_where_they_are_asked_for"),
    ("transcriber", Dreamer, "nothing_said_is_no_fault"),
    ("transcriber", Deaf, "sound_that_breaks_off_breaks_the_work"),
    ("transcriber", Greedy, "cancelled_it_works_on"),
    ("language_model", Chatty, "a_turn_ends_in_one_finish"),
    ("language_model", Meddler, "tools_are_called_as_they_may_be"),
    ("language_model", Mumbler, "tools_are_called_as_they_may_be"),
    ("speech_model", NeverSilent, "a_turn_of_text_has_no_sound"),
    ("vad", Crowd, "streams_do_not_hear_each_other"),
    ("end_of_turn", Sure, "judgements_are_probabilities"),
]


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    yield
    for process in Spawner.processes:
        process.kill()
        process.wait()
    for file in FileHoarder.files:
        os.close(file)
    for left in (Spawner.processes, FileHoarder.files, Litterer.tasks, Greedy.tasks):
        left.clear()


@pytest.mark.parametrize(("kind", "engine", "check"), BROKEN)
def test_a_broken_promise_is_found(kind: conformance.Kind, engine: type[Good], check: str) -> None:
    (broken,) = (one for one in conformance.checks(subject(kind, engine)) if str(one) == check)
    with pytest.raises(conformance.NotConforming):
        broken()


def test_options_must_be_refused_by_name() -> None:
    careless = Subject(kind="synthesizer", create=lambda _: Tone())
    assert conformance.report(careless) == [
        "options_are_refused_by_name: the option no_such_option = 1 was accepted"
    ]


def test_a_start_that_fails_must_be_an_engine_error() -> None:
    class Broken(Tone):
        async def start(self) -> None:
            raise base.EngineError("engine_unavailable", "There is no device.")

    subjects = [subject("synthesizer", engine, unstartable={}) for engine in (Broken, Tone)]
    told = [[line for line in conformance.report(one) if "start" in line.partition(":")[0]] for one in subjects]
    assert told[1] == ["a_start_that_fails_is_told_and_leaves_nothing: the start that was to fail succeeded"]
    assert not [line for line in told[0] if line.startswith("a_start_that_fails")]
