"""Puppet engines: they do what a test tells them, when it tells them, and nothing else.

Each implements a protocol of :mod:`vivavoce.engines.base`. A command returns when everything that follows from it
inside the server has been handed to the session, so a test needs no sleeps.

The commands name responses and items by their ids, which engines never learn. A puppet reads them from the name of
the task that runs it (``respond resp_...``, ``recognise item_...``), as the driver and the listener give it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeAlias, TypeVar

import numpy as np

from vivavoce.audio.resample import FRAME_MS
from vivavoce.engines.base import (
    EndOfTurnCapabilities,
    EngineError,
    Finish,
    Float32,
    Pause,
    SpeechDelta,
    SpeechModelCapabilities,
    SpeechRequest,
    TranscriberCapabilities,
    TranscriptDelta,
    TranscriptionOptions,
    VadCapabilities,
)
from vivavoce.runtime.vad_pool import FRAME_TICKS, VadPool
from vivavoce.wire.session_config import VOICES

VERSION: Final = "1"
_RATE: Final = 24000

Cue: TypeAlias = SpeechDelta | Exception
_Cue = TypeVar("_Cue")


class _Puppet:
    name = "puppet"
    version = VERSION

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""


class PuppetVad(_Puppet):
    """The probability of speech in a frame is its mean amplitude."""

    capabilities = VadCapabilities(sample_rate=_RATE, frame_samples=_RATE * FRAME_MS // 1000, state_size=1)

    def __init__(self) -> None:
        self._broken = False
        self._going = threading.Event()
        self._going.set()

    def break_once(self) -> None:
        """Fail on the next frame."""
        self._broken = True

    @property
    def held(self) -> bool:
        return not self._going.is_set()

    def hold(self) -> None:
        """Judge nothing until :meth:`go`."""
        self._going.clear()

    def go(self) -> None:
        """Judge what waits."""
        self._going.set()

    async def close(self) -> None:
        """Let go of the thread that may be held."""
        self._going.set()

    def infer(self, frames: Float32, states: Float32) -> Float32:
        self._going.wait()
        if self._broken:
            self._broken = False
            raise EngineError("vad_failed", "The VAD was told to fail.")
        probabilities: Float32 = np.abs(frames).mean(axis=1, dtype=np.float32)
        return probabilities


class WatchedVadPool(VadPool):
    """A pool that can tell when it has reported all audio that it was fed."""

    def __init__(self, vad: PuppetVad) -> None:
        super().__init__(vad, interval=0)
        self._puppet = vad

    async def _run_slice(self, executor: ThreadPoolExecutor) -> None:
        """A VAD that is held would hold the event loop too, and nobody could let it go: a case for the thread."""
        if self._puppet.held:
            self._learned = False
        await super()._run_slice(executor)

    async def reported(self) -> None:
        """Wait until less than a frame waits in every stream; does not wait for a VAD that is held.

        Frames that are forgotten while they are judged end in no callback, so there is nothing to wait on but the
        pool's own account.
        """
        while not self._puppet.held and any(s.backlog_ticks >= FRAME_TICKS for s in self._streams):  # noqa: ASYNC110
            await asyncio.sleep(0)


class PuppetTranscriber(_Puppet):
    """Hears each utterance to its end, then waits to be told what it was."""

    def __init__(self, *, logprobs: bool = False) -> None:
        self.capabilities = TranscriberCapabilities(sample_rate=_RATE, streaming=True, logprobs=logprobs)
        self._parts: dict[str, _Part[TranscriptDelta | Exception]] = {}

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptDelta, None]:
        part = _enter(self._parts, "recognise")
        async for _ in audio:
            pass
        words, _ = await part.cues.get()
        if isinstance(words, Exception):
            raise words
        if words.text:
            yield words

    async def say(self, item_id: str, words: TranscriptDelta | Exception) -> None:
        """What was said in ``item_id``, or why nobody knows; returns when the session has been told."""
        part = _part(self._parts, item_id)
        part.cues.put_nowait((words, asyncio.Event()))
        await part.ended()


class PuppetEndOfTurn(_Puppet):
    """Asked whether a speaker has finished, it waits to be told."""

    capabilities = EndOfTurnCapabilities(sample_rate=_RATE, audio_ms=0, reads_words=False)

    def __init__(self) -> None:
        self._question: tuple[asyncio.Future[float], asyncio.Task[object]] | None = None
        self._asked = asyncio.Event()

    async def judge(self, pause: Pause) -> float:
        task = asyncio.current_task()
        assert task is not None
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        mine = self._question = (answer, task)
        self._asked.set()
        try:
            return await answer
        finally:
            if self._question is mine:
                self._question = None
                self._asked.clear()

    async def answer(self, probability: float) -> None:
        """Answer the question that waits, or the next one; returns when the session has been told."""
        await self._asked.wait()
        assert self._question is not None
        answer, task = self._question
        answer.set_result(probability)
        await asyncio.wait([task])


class PuppetSpeechModel(_Puppet):
    """A model that hears and speaks for itself, one delta at a command."""

    def __init__(self, sample_rate: int = _RATE, *, sees_images: bool = False, reasons: bool = False) -> None:
        self.capabilities = SpeechModelCapabilities(
            sample_rate, hears_audio=True, voices=frozenset(VOICES), sees_images=sees_images, reasons=reasons
        )
        self.requests: dict[str, SpeechRequest] = {}
        """What was asked, by response id."""
        self._parts: dict[str, _Part[Cue]] = {}

    async def respond(self, request: SpeechRequest) -> AsyncGenerator[SpeechDelta, None]:
        self.requests[_owner("respond")] = request
        part = _enter(self._parts, "respond")
        while True:
            cue, taken = await part.cues.get()
            if isinstance(cue, Exception):
                raise cue
            yield cue
            # We are asked for more: what we gave was reported, and the session has said what there is to say.
            taken.set()
            if isinstance(cue, Finish):
                return

    async def play(self, response_id: str, cue: Cue) -> None:
        """Make ``response_id`` produce one delta, finish or fail; returns when the session has been told.

        The response must have been created, and not have ended.
        """
        part = _part(self._parts, response_id)
        taken = asyncio.Event()
        part.cues.put_nowait((cue, taken))
        if isinstance(cue, Finish | Exception):
            await part.ended()
        else:
            await part.taken_or_ended(taken)


class _Part(Generic[_Cue]):
    """What a puppet is to do for one response or item; made by whichever side comes first."""

    def __init__(self) -> None:
        self.cues: asyncio.Queue[tuple[_Cue, asyncio.Event]] = asyncio.Queue()
        self._task: asyncio.Future[asyncio.Task[object]] = asyncio.get_running_loop().create_future()
        self._over = False

    def entered(self, task: asyncio.Task[object]) -> None:
        """Also for the second time: an item is listened to anew when its transcription is changed in mid-speech."""
        if self._task.done():
            self._renew()
        self._over = False
        self._task.set_result(task)
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[object]) -> None:
        # A task that has ended holds much of its session.
        if self._task.done() and self._task.result() is task:
            self._renew()
            self._over = True

    def _renew(self) -> None:
        self._task = asyncio.get_running_loop().create_future()

    async def ended(self) -> None:
        if not self._over:
            await asyncio.wait([await self._task])

    async def taken_or_ended(self, taken: asyncio.Event) -> None:
        if self._over:
            return
        task = await self._task
        waiting = asyncio.create_task(taken.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()


def _part(parts: dict[str, _Part[_Cue]], owner: str) -> _Part[_Cue]:
    if owner not in parts:
        parts[owner] = _Part()
    return parts[owner]


def _enter(parts: dict[str, _Part[_Cue]], work: str) -> _Part[_Cue]:
    """The part of the task that runs."""
    part, task = _part(parts, _owner(work)), asyncio.current_task()
    assert task is not None
    part.entered(task)
    return part


def _owner(work: str) -> str:
    task = asyncio.current_task()
    name = task.get_name() if task else ""
    kind, _, owner = name.partition(" ")
    if kind != work:
        raise AssertionError(f"a puppet is run by a task named '{work} <id>', not by {name!r}")
    return owner
