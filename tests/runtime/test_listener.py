"""The listener's side of recognition: one report an utterance, whenever the recogniser gives up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any

import pytest

from vivavoce.audio.formats import AudioFormat, Clip
from vivavoce.core import contract as c
from vivavoce.core.context import Entry
from vivavoce.engines.base import (
    EngineError,
    TokenLogprob,
    TranscriberCapabilities,
    TranscriptDelta,
    TranscriptionOptions,
    VadCapabilities,
)
from vivavoce.runtime.listener import Listener, Utterance
from vivavoce.runtime.vad_pool import VadPool
from vivavoce.testing.fakes import PuppetEndOfTurn
from vivavoce.wire import items
from vivavoce.wire.server_events import Logprob
from vivavoce.wire.session_config import Transcription

SECOND = Clip(((AudioFormat.PCM16, bytes(48_000)),))


def entry(item_id: str, *, listened: bool = True) -> Entry:
    item = items.MessageItem(item_id, "user", (items.InputAudioPart(),))
    return Entry(item, clips={0: SECOND}, listened=listened)


class Deaf:
    """A VAD that is never asked."""

    name = version = "deaf"
    capabilities = VadCapabilities(sample_rate=16000, frame_samples=512, state_size=1)

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    def infer(self, frames: Any, states: Any) -> Any:
        raise AssertionError


class Recogniser:
    """Says how many bytes it heard, or fails, at once or at the end."""

    name = version = "recogniser"
    capabilities = TranscriberCapabilities(sample_rate=16000, streaming=True)
    fault: BaseException | None = None
    at_once = False
    asked = 0

    def __init__(self) -> None:
        self.options: list[TranscriptionOptions] = []

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptDelta, None]:
        self.asked += 1
        self.options.append(options)
        assert options.session == "sess_1", "engines share themselves fairly among sessions"
        if self.fault and self.at_once:
            raise self.fault
        size = sum([len(piece) async for piece in audio])
        if self.fault:
            raise self.fault
        yield TranscriptDelta(f"{size} ")
        yield TranscriptDelta("bytes ")


class Bench:
    def __init__(
        self,
        group: asyncio.TaskGroup,
        pool: VadPool,
        *,
        words_needed: bool = True,
        recogniser: Recogniser | None = None,
    ) -> None:
        self.recogniser = recogniser or Recogniser()
        self.posted: list[c.Input] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self._group = group
        self.end_of_turn = PuppetEndOfTurn()
        self.listener = Listener(
            post=self.posted.append,
            spawn=self._spawn,
            vad_pool=pool,
            transcriber=self.recogniser,
            end_of_turn=self.end_of_turn,
            words_needed=words_needed,
            session="sess_1",
        )

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._group.create_task(work, name=name)
        self.tasks.add(task)
        return task

    async def settled(self) -> list[c.Input]:
        await asyncio.wait(self.tasks)
        return self.posted


async def test_deltas_then_the_whole() -> None:
    async with VadPool(Deaf()) as pool, asyncio.TaskGroup() as group:
        bench = Bench(group, pool)
        bench.listener.open("a", None)
        bench.listener.feed("a", SECOND)
        bench.listener.finish("a")
        assert await bench.settled() == [
            c.RecognitionDelta("a", "32000"),
            c.RecognitionDelta("a", " bytes"),
            c.Recognised("a", "32000 bytes"),
        ]
        assert await bench.listener.words(entry("a"), 0) == "32000 bytes"
        assert bench.recogniser.asked == 1


class Sure(Recogniser):
    """Knows how sure it is, and tells who asks."""

    capabilities = TranscriberCapabilities(sample_rate=16000, streaming=True, logprobs=True)

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptDelta, None]:
        for text, logprob in ((" hel", -0.5), ("lo ", -0.25), ("  ", -0.1), ("you\n", -1.0)):
            yield TranscriptDelta(text, (TokenLogprob(text, logprob),) if options.logprobs else ())


async def test_space_at_the_ends_is_no_part_of_a_transcript() -> None:
    async with VadPool(Deaf()) as pool, asyncio.TaskGroup() as group:
        bench = Bench(group, pool, recogniser=Sure())
        bench.listener.open("a", Transcription())
        bench.listener.finish("a")
        told = [report.text for report in await bench.settled() if isinstance(report, c.RecognitionDelta)]
        assert told == ["hel", "lo", "   you"]
        assert bench.posted[-1] == c.Recognised("a", "hello   you")


@pytest.mark.parametrize(("recogniser", "knows"), [(Recogniser, False), (Sure, True)])
async def test_log_probabilities_come_from_the_recogniser_or_not_at_all(
    recogniser: type[Recogniser], knows: bool
) -> None:
    async with VadPool(Deaf()) as pool, asyncio.TaskGroup() as group:
        bench = Bench(group, pool, recogniser=recogniser())
        bench.listener.open("a", Transcription(), logprobs=True)
        bench.listener.finish("a")
        *parts, whole = await bench.settled()
        assert isinstance(whole, c.Recognised)
        wanted = (Logprob(" hel", -0.5), Logprob("lo ", -0.25), Logprob("  ", -0.1), Logprob("you\n", -1.0))
        assert whole.logprobs == (wanted if knows else None)
        told = [part.logprobs for part in parts if isinstance(part, c.RecognitionDelta)]
        assert told == ([wanted[:1], wanted[1:2], wanted[2:]] if knows else [None, None])


@pytest.mark.parametrize(
    ("fault", "code"), [(EngineError("engine_overloaded", "Busy."), "engine_overloaded"), (KeyError("x"), None)]
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_one_report_when_it_fails(fault: Exception, code: str | None, at_once: bool) -> None:
    """A recogniser that gives up while the person still talks is told when the audio is complete, with its code."""
    async with VadPool(Deaf()) as pool, asyncio.TaskGroup() as group:
        bench = Bench(group, pool)
        bench.recogniser.fault, bench.recogniser.at_once = fault, at_once
        bench.listener.open("a", Transcription())
        bench.listener.feed("a", SECOND)
        if at_once:
            assert await bench.settled() == []
            bench.listener.feed("a", SECOND)
        bench.listener.finish("a")
        assert await bench.settled() == [c.RecognitionFailed("a", code)]
        bench.recogniser.fault = None
        # A later response asks anew.
        assert await bench.listener.words(entry("a"), 0) == "32000 bytes"


async def test_an_engine_that_is_done_early_is_told_when_the_audio_is_complete() -> None:
    async with VadPool(Deaf()) as pool, asyncio.TaskGroup() as group:
        bench = Bench(group, pool)

        async def hasty(
            audio: AsyncIterator[bytes], options: TranscriptionOptions
        ) -> AsyncGenerator[TranscriptDelta, None]:
            await anext(audio)
            yield TranscriptDelta("hello")

        bench.recogniser.transcribe = hasty  # type: ignore[method-assign]  # of this one object
        bench.listener.open("a", None)
        bench.listener.feed("a", SECOND)
        assert await bench.settled() == [c.RecognitionDelta("a", "hello")]
        bench.listener.finish("a")
        assert bench.posted[1:] == [c.Recognised("a", "hello")]


async def test_a_cancellation_of_the_engines_own_is_a_failure() -> None:
    async with VadPool(Deaf()) as pool, asyncio.TaskGroup() as group:
        bench = Bench(group, pool)
        bench.recogniser.fault = asyncio.CancelledError()
        bench.listener.open("a", None)
        bench.listener.finish("a")
        assert await bench.settled() == [c.RecognitionFailed("a", None)]


async def test_words_of_an_item_that_only_has_the_id_of_another() -> None:
    """A client may delete an item and send other audio under its id."""
    async with VadPool(Deaf()) as pool, asyncio.TaskGroup() as group:
        bench = Bench(group, pool)
        bench.listener.open("a", None)
        bench.listener.finish("a")
        assert (await bench.settled())[-1] == c.Recognised("a", "0 bytes")
        assert await bench.listener.words(entry("a", listened=False), 0) == "32000 bytes"
        assert await bench.listener.words(entry("a"), 0) == "0 bytes"


async def test_who_waits_for_the_words_of_an_item_that_is_deleted_gets_them_from_its_audio() -> None:
    async with VadPool(Deaf()) as pool, asyncio.TaskGroup() as group:
        bench = Bench(group, pool)
        bench.listener.open("a", None)
        given = entry("a")
        waiting = group.create_task(bench.listener.words(given, 0))
        await asyncio.sleep(0)
        bench.listener.drop("a")
        assert await waiting == "32000 bytes"
        assert await bench.settled() == [c.Recognised("a", "32000 bytes", clip=given.clips[0])]


async def _fault(listener: Listener, item_id: str) -> str:
    with pytest.raises(EngineError) as caught:
        await listener.words(entry(item_id), 0)
    return caught.value.code


async def test_the_clients_language_and_prompt_reach_the_recogniser() -> None:
    """The prompt is of what the client wants transcribed; other audio of the session shares the language."""
    async with VadPool(Deaf()) as pool, asyncio.TaskGroup() as group:
        bench = Bench(group, pool)
        bench.listener.open("a", Transcription(language="fr", prompt="Noms"))
        bench.listener.finish("a")
        await bench.settled()
        await bench.listener.words(entry("b", listened=False), 0)
        assert bench.recogniser.options == [
            TranscriptionOptions("fr", "Noms", session="sess_1"),
            TranscriptionOptions("fr", session="sess_1"),
        ]


async def test_nobody_is_asked_for_words_that_nobody_wants() -> None:
    async with VadPool(Deaf()) as pool, asyncio.TaskGroup() as group:
        bench = Bench(group, pool, words_needed=False)
        bench.listener.open("a", None)
        bench.listener.feed("a", SECOND)
        bench.listener.finish("a")
        assert bench.posted == [c.RecognitionFailed("a", None)]
        assert bench.recogniser.asked == 0


async def test_a_change_of_format_in_an_utterance_loses_no_sound() -> None:
    """What one format's resampler holds back (some 30 to 90 ms) comes before the first of the next one."""
    utterance = Utterance("item_1", 16_000, TranscriptionOptions())
    for fmt, size in ((AudioFormat.PCM16, 48_000), (AudioFormat.G711_ULAW, 8_000), (AudioFormat.PCM16, 48_000)):
        utterance.feed(Clip(((fmt, bytes(size)),)))
    utterance.close()
    heard = b"".join([piece async for piece in utterance.audio()])
    assert abs(len(heard) // 2 - 3 * 16_000) <= 3
