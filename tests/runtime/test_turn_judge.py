"""The end of a turn, judged: what the engine is told, and what becomes of its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from vivavoce.audio.formats import TICKS_PER_MS, AudioFormat, Clip
from vivavoce.core import contract as c
from vivavoce.engines.base import (
    EndOfTurnCapabilities,
    EngineError,
    PartialTranscript,
    Pause,
    TranscriberCapabilities,
    TranscriptDelta,
    TranscriptionOptions,
)
from vivavoce.runtime import listener
from vivavoce.runtime.listener import Listener
from vivavoce.runtime.vad_pool import VadPool
from vivavoce.testing.fakes import PuppetVad
from vivavoce.wire.session_config import Transcription

SECOND = Clip(((AudioFormat.PCM16, bytes(48_000)),))
SILENT_FROM = 19_200
NOTHING = Clip()


def question(item_id: str = "a", clip: Clip = SECOND) -> c.JudgeTurn:
    return c.JudgeTurn(item_id, SILENT_FROM, SILENT_FROM + 192 * TICKS_PER_MS, clip)


class Judge:
    """Says 0.75, or what it is given to say or do."""

    name = version = "judge"

    def __init__(self, *, audio_ms: int = 500, reads_words: bool = True) -> None:
        self.capabilities = EndOfTurnCapabilities(8000, audio_ms, reads_words)
        self.says: float | Exception = 0.75
        self.waits: asyncio.Event | None = None
        self.asked: list[Pause] = []

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def judge(self, pause: Pause) -> float:
        self.asked.append(pause)
        if self.waits is not None:
            await self.waits.wait()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class Recogniser:
    """Says after every piece of sound what it has heard so far, from the second on; then counts all."""

    name = version = "recogniser"

    def __init__(self, *, partials: bool = True) -> None:
        self.capabilities = TranscriberCapabilities(16000, streaming=True, partials=partials)
        self.options: list[TranscriptionOptions] = []
        self.goes = asyncio.Event()
        self.goes.set()
        self.ended = 0

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptDelta | PartialTranscript, None]:
        self.options.append(options)
        heard = 0
        try:
            async for piece in audio:
                await self.goes.wait()
                heard += len(piece)
                if options.partials:
                    yield PartialTranscript(f"about {heard // 32000} s", heard // 32)
            yield TranscriptDelta("all")
        finally:
            self.ended += 1


class Bench:
    def __init__(
        self, group: asyncio.TaskGroup, pool: VadPool, judge: Judge, recogniser: Recogniser, words_needed: bool
    ) -> None:
        self.judge = judge
        self.recogniser = recogniser
        self.posted: list[c.Input] = []
        self._group = group
        self.listener = Listener(
            post=self.posted.append,
            spawn=self._spawn,
            vad_pool=pool,
            transcriber=recogniser,
            end_of_turn=judge,
            words_needed=words_needed,
        )

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._group.create_task(work, name=name)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - tasks of the listener tell nobody
                await asyncio.sleep(0.001)

    async def answer(self) -> c.Input:
        await self.until(lambda: self.posted)
        return self.posted.pop(0)


@asynccontextmanager
async def bench(
    judge: Judge | None = None, recogniser: Recogniser | None = None, *, words_needed: bool = True
) -> AsyncIterator[Bench]:
    async with VadPool(PuppetVad()) as pool, asyncio.TaskGroup() as group:
        made = Bench(group, pool, judge or Judge(), recogniser or Recogniser(), words_needed)
        yield made
        made.listener.drop("a")


async def test_it_is_told_the_words_and_the_end_of_the_sound() -> None:
    async with bench() as made:
        made.listener.open("a", Transcription(language="de"), judged=True)
        made.listener.feed("a", SECOND)
        made.listener.feed("a", SECOND)
        made.listener.judge(question())
        assert await made.answer() == c.TurnJudged("a", SILENT_FROM, 0.75)
        (pause,) = made.judge.asked
        assert (pause.language, pause.silence_ms, len(pause.pcm)) == ("de", 192, 500 * 16)
        # All that was fed, but for what a resampler holds back.
        assert pause.words in ("about 1 s", "about 2 s")
        assert made.recogniser.options == [TranscriptionOptions("de", partials=True)]


async def test_no_sound_for_a_judge_of_words_and_no_words_for_a_judge_of_sound() -> None:
    async with bench(Judge(audio_ms=0)) as made:
        made.listener.open("a", None, judged=True)
        made.listener.judge(question(clip=NOTHING))
        await made.answer()
        assert made.judge.asked == [Pause(None, None, b"", 192)]
    async with bench(Judge(reads_words=False)) as made:
        made.listener.open("a", None, judged=True)
        made.listener.judge(question())
        await made.answer()
        assert (made.judge.asked[0].words, len(made.judge.asked[0].pcm)) == (None, 500 * 16)
        assert made.recogniser.options == [TranscriptionOptions()]


async def test_a_recogniser_without_partial_words_is_not_waited_for() -> None:
    async with bench(recogniser=Recogniser(partials=False)) as made:
        made.listener.open("a", None, judged=True)
        made.listener.feed("a", SECOND)
        made.listener.judge(question())
        await made.answer()
        assert made.judge.asked[0].words is None


async def test_a_recogniser_that_is_busy_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "CATCH_UP_S", 0.01)
    recogniser = Recogniser()
    recogniser.goes.clear()
    async with bench(recogniser=recogniser) as made:
        made.listener.open("a", None, judged=True)
        made.listener.feed("a", SECOND)
        made.listener.judge(question())
        await made.answer()
        assert made.judge.asked[0].words is None


@pytest.mark.parametrize("transcription", [None, Transcription()])
async def test_words_that_only_the_judge_wants_end_with_the_turn(transcription: Transcription | None) -> None:
    """A model that hears needs none; the recogniser is stopped, unless the client wants the transcript."""
    async with bench(words_needed=False) as made:
        made.listener.open("a", transcription, judged=True)
        made.listener.feed("a", SECOND)
        await made.until(lambda: made.recogniser.options)
        made.listener.finish("a")
        if transcription is None:
            assert made.posted == [c.RecognitionFailed("a", None)]
        else:
            await made.until(lambda: len(made.posted) == 2)
            assert made.posted == [c.RecognitionDelta("a", "all"), c.Recognised("a", "all")]
        await made.until(lambda: made.recogniser.ended == 1)


@pytest.mark.parametrize("how", ["withdraw", "finish", "drop"])
async def test_a_question_that_is_over_is_not_answered(how: str) -> None:
    judge = Judge()
    judge.waits = asyncio.Event()
    async with bench(judge, words_needed=False) as made:
        made.listener.judge(question())
        await made.until(lambda: judge.asked)
        made.listener.withdraw("b")
        getattr(made.listener, how)("a")
        judge.waits.set()
        made.listener.judge(question("b"))
        await made.until(lambda: c.TurnJudged("b", SILENT_FROM, 0.75) in made.posted)
        assert c.TurnJudged("a", SILENT_FROM, 0.75) not in made.posted


async def test_the_next_question_takes_the_place_of_the_last() -> None:
    judge = Judge()
    judge.waits = asyncio.Event()
    async with bench(judge) as made:
        made.listener.judge(question())
        made.listener.judge(question())
        await made.until(lambda: judge.asked)
        judge.waits.set()
        assert await made.answer() == c.TurnJudged("a", SILENT_FROM, 0.75)
        await asyncio.sleep(0)
        assert made.posted == []


@pytest.mark.parametrize(
    ("says", "logged"),
    [
        (EngineError("overloaded", "Too much."), "the end of a cannot be judged: overloaded"),
        (KeyError("what was said"), "the end of a cannot be judged: builtins.KeyError"),
        (float("nan"), "the end of a cannot be judged: builtins.ValueError"),
        (1.5, "the end of a cannot be judged: builtins.ValueError"),
        (-0.1, "the end of a cannot be judged: builtins.ValueError"),
    ],
)
async def test_no_answer_from_a_judge_that_fails(
    says: float | Exception, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    judge = Judge()
    judge.says = says
    with caplog.at_level(logging.WARNING):
        async with bench(judge) as made:
            made.listener.judge(question())
            await made.until(lambda: caplog.records)
            assert made.posted == []
    assert [record.getMessage()[: len(logged)] for record in caplog.records] == [logged]
    assert "what was said" not in caplog.text
