"""What a session hears: audio to the VAD, spans of audio to the recogniser, words back.

Laws
----
1. One recognition an utterance: input transcription and the model share its result.
2. An utterance ends in exactly one report, ``Recognised`` or ``RecognitionFailed``, or is dropped and ends in none.
3. Words that arrive before a model asks for them are kept for it, up to :data:`KEPT_RESULTS`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final

from vivavoce.audio.formats import AudioFormat, Clip
from vivavoce.audio.g711 import to_samples
from vivavoce.audio.resample import Resampler, clip_to_pcm
from vivavoce.core import contract as c
from vivavoce.core.context import Entry
from vivavoce.engines.base import EngineError, Transcriber, TranscriptionOptions
from vivavoce.runtime.bugs import outline
from vivavoce.runtime.vad_pool import VadPool
from vivavoce.wire.server_events import Logprob
from vivavoce.wire.session_config import Transcription

log = logging.getLogger(__name__)

KEPT_RESULTS: Final = 64
_THREAD_BYTES: Final = 480_000
"""A clip longer than this (10 s of pcm16) is resampled off the event loop."""


class Utterance:
    """The audio of one item on its way to the recogniser; an async iterator of PCM at the engine's rate.

    What waits here is audio that the session holds anyway, so its length is bounded by the session's.
    """

    def __init__(self, item_id: str, rate: int, options: TranscriptionOptions) -> None:
        self.item_id = item_id
        self.options = options
        self.words: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.words.add_done_callback(_seen)
        self._rate = rate
        self._resampler: tuple[AudioFormat, Resampler] | None = None
        self._clips: deque[Clip] = deque()
        self._closed = False
        self._news = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self._closed

    def feed(self, clip: Clip) -> None:
        self._clips.append(clip)
        self._news.set()

    def close(self) -> None:
        """No more audio comes."""
        self._closed = True
        self._news.set()

    def fail(self, code: str, message: str) -> None:
        """There will be no words; changes nothing if there are some already."""
        if not self.words.done():
            self.words.set_exception(EngineError(code, message))

    async def audio(self) -> AsyncGenerator[bytes, None]:
        """s16le mono at the engine's rate, as it comes. What it holds of the sound is freed when it is closed."""
        try:
            while True:
                while self._clips:
                    pcm = await self._convert(self._clips.popleft())
                    if pcm:
                        yield pcm
                if self._closed:
                    break
                self._news.clear()
                await self._news.wait()
            if self._resampler is not None:
                tail = self._resampler[1].process(to_samples(b"", AudioFormat.PCM16), last=True)
                if tail.size:
                    yield tail.astype("<i2").tobytes()
        finally:
            self._resampler = None
            self._clips.clear()

    async def _convert(self, clip: Clip) -> bytes:
        if clip.size > _THREAD_BYTES:
            return await asyncio.to_thread(self._resample, clip)
        return self._resample(clip)

    def _resample(self, clip: Clip) -> bytes:
        parts = []
        for fmt, data in clip.segments:
            if self._resampler is None or self._resampler[0] is not fmt:
                self._resampler = (fmt, Resampler(fmt.rate, self._rate))
            parts.append(self._resampler[1].process(to_samples(data, fmt)).astype("<i2").tobytes())
        return b"".join(parts)


class Listener:
    """Hearing of one session. ``post`` takes its reports; tasks are made by ``spawn``."""

    def __init__(
        self,
        *,
        post: Callable[[c.Input], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        vad_pool: VadPool,
        transcriber: Transcriber,
        words_needed: bool,
    ) -> None:
        self._post = post
        self._spawn = spawn
        self._transcriber = transcriber
        self._words_needed = words_needed
        """The model cannot hear, so it needs words even where the client wants no transcription."""
        self._vad = vad_pool.open(self._on_frame, self._on_fault)
        self._utterances: dict[str, tuple[Utterance, asyncio.Task[None]]] = {}
        self._results: deque[Utterance] = deque(maxlen=KEPT_RESULTS)
        self._early: dict[str, c.Recognised | c.RecognitionFailed] = {}
        """Reports of recognitions that ended while people were still talking, by item."""

    @property
    def backlog_ticks(self) -> int:
        """Audio that waits for the VAD, in ticks."""
        return self._vad.backlog_ticks

    def close(self) -> None:
        self._vad.close()

    # ---------------------------------------------------------------------------------------------- VAD

    def feed_vad(self, effect: c.FeedVad) -> None:
        self._vad.feed(effect.start_tick, effect.format, effect.data)

    def reset_vad(self) -> None:
        self._vad.reset()

    def _on_frame(self, end_tick: int, probability: float) -> None:
        self._post(c.VadFrame(end_tick, probability))

    def _on_fault(self, fault: Exception) -> None:
        log.error("voice activity detection failed: %s", type(fault).__name__)
        self._post(c.VadFailed())

    # ------------------------------------------------------------------------------------------- utterances

    def open(self, item_id: str, transcription: Transcription | None, *, logprobs: bool = False) -> None:
        if transcription is None and not self._words_needed:
            return
        options = TranscriptionOptions(
            language=transcription.language if transcription else None,
            prompt=transcription.prompt if transcription else None,
            logprobs=logprobs and self._transcriber.capabilities.logprobs,
        )
        utterance = Utterance(item_id, self._transcriber.capabilities.sample_rate, options)
        task = self._spawn(self._recognise(utterance), f"recognise {item_id}")
        self._utterances[item_id] = (utterance, task)

    def feed(self, item_id: str, clip: Clip) -> None:
        if item_id in self._utterances:
            self._utterances[item_id][0].feed(clip)

    def finish(self, item_id: str) -> None:
        if item_id in self._utterances:
            self._utterances[item_id][0].close()
        else:
            self._post(self._early.pop(item_id, c.RecognitionFailed(item_id, None)))

    def drop(self, item_id: str) -> None:
        self._early.pop(item_id, None)
        if item_id in self._utterances:
            utterance, task = self._utterances.pop(item_id)
            utterance.fail("item_deleted", "The audio was taken back before it was recognised.")
            task.cancel()

    async def words(self, entry: Entry, content_index: int) -> str:
        """What was said in an item's audio: from the recognition under way, or by a new one.

        Raises EngineError.
        """
        item_id = entry.item.id
        if entry.listened:
            known = self._utterances.get(item_id)
            utterance = known[0] if known else next((u for u in self._results if u.item_id == item_id), None)
            if utterance is not None:
                return await asyncio.shield(utterance.words)
        rate = self._transcriber.capabilities.sample_rate
        pcm = await asyncio.to_thread(clip_to_pcm, entry.clips[content_index], rate)
        text, _ = await self._transcribe(_once(pcm), TranscriptionOptions())
        self._post(c.Recognised(item_id, text, content_index))
        return text

    async def _recognise(self, utterance: Utterance) -> None:
        item_id = utterance.item_id
        try:
            text, logprobs = await self._transcribe(utterance.audio(), utterance.options, item_id)
        except EngineError as fault:
            log.warning("recognition of %s failed: %s", item_id, fault.code)
            utterance.fail(fault.code, fault.message)
            self._report(utterance, c.RecognitionFailed(item_id, fault.code))
        except Exception as bug:
            log.error("recognition of %s failed: %s", item_id, outline(bug))
            utterance.fail("recognition_failed", f"The recogniser failed: {type(bug).__name__}.")
            self._report(utterance, c.RecognitionFailed(item_id, None))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # Nobody stopped us: the engine let a cancellation of its own escape.
                self._report(utterance, c.RecognitionFailed(item_id, None))
            raise
        else:
            utterance.words.set_result(text)
            self._results.append(utterance)
            self._report(utterance, c.Recognised(item_id, text, logprobs=logprobs))
        finally:
            utterance.fail("recognition_stopped", "Recognition was stopped.")
            known = self._utterances.get(item_id)
            # After a drop the item may be listened to anew.
            if known is not None and known[0] is utterance:
                del self._utterances[item_id]

    def _report(self, utterance: Utterance, report: c.Recognised | c.RecognitionFailed) -> None:
        """Told when the audio is complete, and not before: until then the session expects none (law 2)."""
        if utterance.closed:
            self._post(report)
        else:
            self._early[utterance.item_id] = report

    async def _transcribe(
        self, audio: AsyncGenerator[bytes, None], options: TranscriptionOptions, item_id: str | None = None
    ) -> tuple[str, tuple[Logprob, ...] | None]:
        """The whole transcript; its parts are told on the way, where ``item_id`` says of what."""
        transcript = ""
        held = ""
        logprobs: list[Logprob] = []
        untold = 0
        async with aclosing(audio), aclosing(self._transcriber.transcribe(audio, options)) as deltas:
            async for delta in deltas:
                # Space at either end is no part of the transcript, so that at the end of a delta waits for more.
                text = held + delta.text if transcript else delta.text.lstrip()
                held = text[len(text.rstrip()) :]
                text = text.rstrip()
                transcript += text
                logprobs += [Logprob(one.token, one.logprob) for one in delta.logprobs]
                if item_id is not None and text:
                    part = tuple(logprobs[untold:]) if options.logprobs else None
                    untold = len(logprobs)
                    self._post(c.RecognitionDelta(item_id, text, part))
        return transcript, tuple(logprobs) if options.logprobs else None


async def _once(pcm: bytes) -> AsyncGenerator[bytes, None]:
    yield pcm


def _seen(words: asyncio.Future[str]) -> None:
    """A fault that no model asks about was reported already."""
    if not words.cancelled():
        words.exception()
