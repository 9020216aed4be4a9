"""What a session hears: audio to the VAD, spans of audio to the recogniser, words back.

Laws
----
1. One recognition an utterance: input transcription, the model and the judge of its end share its result.
2. An utterance ends in exactly one report, ``Recognised`` or ``RecognitionFailed``, or is dropped and ends in none.
3. Words that arrive before a model asks for them are kept for it, up to :data:`KEPT_RESULTS`.
4. A question about the end of an utterance ends with the utterance.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Final

from vivavoce.audio.formats import TICKS_PER_MS, AudioFormat, Clip
from vivavoce.audio.g711 import to_samples
from vivavoce.audio.resample import Resampler, clip_to_pcm
from vivavoce.core import contract as c
from vivavoce.core.context import Entry
from vivavoce.engines.base import (
    EndOfTurn,
    EngineError,
    PartialTranscript,
    Transcriber,
    TranscriptionOptions,
)
from vivavoce.runtime.bugs import outline
from vivavoce.runtime.turn_judge import TurnJudge
from vivavoce.runtime.vad_pool import VadPool
from vivavoce.wire.server_events import Logprob
from vivavoce.wire.session_config import Transcription

log = logging.getLogger(__name__)

KEPT_RESULTS: Final = 64
_DROPPED: Final = "utterance_dropped"
_THREAD_BYTES: Final = 480_000
"""A clip longer than this (10 s of pcm16) is resampled off the event loop."""
CATCH_UP_S: Final = 0.3
"""How long a question about the end of a turn waits for the recogniser to have heard all of it."""
_HEARD_SLACK_TICKS: Final = 100 * TICKS_PER_MS
"""What may be missing then: less than the silence before every question, and more than a resampler holds back."""


class Utterance:
    """The audio of one item on its way to the recogniser; an async iterator of PCM at the engine's rate.

    What waits here is audio that the session holds anyway, so its length is bounded by the session's.
    """

    def __init__(self, item_id: str, rate: int, options: TranscriptionOptions, *, kept: bool = True) -> None:
        self.item_id = item_id
        self.options = options
        self.kept = kept
        """Somebody wants the words when the audio is complete; otherwise they only help to tell when it is."""
        self._words: str | None = None
        self._heard_ms = 0
        self._fed_ticks = 0
        self._progress = asyncio.Event()
        self.words: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.words.add_done_callback(_seen)
        self._rate = rate
        self._resampler: tuple[AudioFormat, Resampler] | None = None
        self._clips: deque[Clip] = deque()
        self._closed = False
        self.closed_at = 0.0
        """When it was closed, in seconds of the event loop."""
        self._news = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self._closed

    def feed(self, clip: Clip) -> None:
        self._clips.append(clip)
        self._fed_ticks += clip.ticks
        self._news.set()

    def progress(self, settled: str, partial: PartialTranscript) -> None:
        """The recogniser has come so far; ``settled`` are its deltas."""
        self._words, self._heard_ms = settled + partial.text, partial.audio_ms
        self._progress.set()

    async def words_so_far(self) -> str | None:
        """What was said in all that was fed; what is known of it when that takes long, and None when nothing is."""
        wanted = self._fed_ticks - _HEARD_SLACK_TICKS
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_S):
                while self._heard_ms * TICKS_PER_MS < wanted:
                    self._progress.clear()
                    await self._progress.wait()
        return self._words

    def close(self) -> None:
        """No more audio comes."""
        self._closed = True
        self.closed_at = asyncio.get_running_loop().time()
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
            if tail := self._held_back():
                yield tail
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
                parts.append(self._held_back())
                self._resampler = (fmt, Resampler(fmt.rate, self._rate))
            parts.append(self._resampler[1].process(to_samples(data, fmt)).astype("<i2").tobytes())
        return b"".join(parts)

    def _held_back(self) -> bytes:
        """What a resampler still has, when no more of its format comes."""
        if self._resampler is None:
            return b""
        return self._resampler[1].process(to_samples(b"", AudioFormat.PCM16), last=True).astype("<i2").tobytes()


class Listener:
    """Hearing of one session. ``post`` takes its reports; tasks are made by ``spawn``."""

    def __init__(
        self,
        *,
        post: Callable[[c.Input], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        vad_pool: VadPool,
        transcriber: Transcriber,
        end_of_turn: EndOfTurn,
        words_needed: bool,
        session: str = "",
        recognised: Callable[[str, float], None] = lambda item_id, seconds: None,
        words_guessed: bool = False,
    ) -> None:
        """``session``: names it to engines, which share themselves fairly among sessions; ``recognised`` is told
        how long after the end of an utterance its words came."""
        self._recognised = recognised
        self._post = post
        self._session_key = session
        self._spawn = spawn
        self._transcriber = transcriber
        self._words_needed = words_needed
        """The model cannot hear, so it needs words even where the client wants no transcription."""
        self._words_guessed = words_guessed
        """The model's words are asked for before an utterance is over (:meth:`guess`)."""
        self.vad = vad_pool.open(self._on_frame, self._on_fault)
        """Where the session's audio is judged."""
        self._utterances: dict[str, tuple[Utterance, asyncio.Task[None]]] = {}
        self._results: dict[str, str] = {}
        """Words, by item."""
        self._early: dict[str, c.Recognised | c.RecognitionFailed] = {}
        """Reports of recognitions that ended while people were still talking, by item."""
        self._judge = TurnJudge(end_of_turn, post=post, spawn=spawn, session=session)
        self._language: str | None = None
        """Of the latest utterance, as its client says."""

    def close(self) -> None:
        self.vad.close()

    # ---------------------------------------------------------------------------------------------- VAD

    def _on_frame(self, end_tick: int, probability: float) -> None:
        self._post(c.VadFrame(end_tick, probability))

    def _on_fault(self, fault: Exception) -> None:
        log.error("voice activity detection failed: %s", type(fault).__name__)
        self._post(c.VadFailed())

    # ------------------------------------------------------------------------------------------- utterances

    def open(
        self, item_id: str, transcription: Transcription | None, *, logprobs: bool = False, judged: bool = False
    ) -> None:
        """``judged``: the end of the utterance will be asked about."""
        self._language = transcription.language if transcription else None
        early = (self._words_guessed and self._words_needed) or (judged and self._judge.reads_words)
        partials = early and self._transcriber.capabilities.partials
        kept = transcription is not None or self._words_needed
        if not kept and not partials:
            return
        options = TranscriptionOptions(
            language=self._language,
            prompt=transcription.prompt if transcription else None,
            logprobs=logprobs and self._transcriber.capabilities.logprobs,
            partials=partials,
        )
        utterance = Utterance(item_id, self._transcriber.capabilities.sample_rate, options, kept=kept)
        task = self._spawn(self._recognise(utterance), f"recognise {item_id}")
        self._utterances[item_id] = (utterance, task)

    def feed(self, item_id: str, clip: Clip) -> None:
        if item_id in self._utterances:
            self._utterances[item_id][0].feed(clip)

    def finish(self, item_id: str) -> None:
        self.withdraw(item_id)
        known = self._utterances.get(item_id)
        if known is not None and known[0].kept:
            known[0].close()
            return
        early = self._early.pop(item_id, c.RecognitionFailed(item_id, None))
        if isinstance(early, c.Recognised):
            self._recognised(item_id, 0.0)
        if known is not None:
            self.drop(item_id)
        self._post(early)

    def drop(self, item_id: str) -> None:
        self.withdraw(item_id)
        self._early.pop(item_id, None)
        if item_id in self._utterances:
            utterance, task = self._utterances.pop(item_id)
            utterance.fail(_DROPPED, "The audio was taken back before it was recognised.")
            task.cancel()

    # ------------------------------------------------------------------------------------- the end of a turn

    def judge(self, question: c.JudgeTurn) -> None:
        """Ask whether the speaker has finished, instead of what was asked before."""
        known = self._utterances.get(question.item_id)
        listens = known is not None and known[0].options.partials
        words = known[0].words_so_far if known is not None and listens else None
        self._judge.ask(question, words=words, language=self._language)

    def withdraw(self, item_id: str) -> None:
        """Nobody wants to know any more whether the speaker of ``item_id`` has finished."""
        self._judge.withdraw(item_id)

    async def words(self, entry: Entry, content_index: int) -> str:
        """What was said in an item's audio: from the recognition under way, or by a new one.

        Raises EngineError.
        """
        item_id = entry.item.id
        if entry.listened:
            known = self._utterances.get(item_id)
            if known is None and item_id in self._results:
                return self._results[item_id]
            if known is not None:
                try:
                    return await asyncio.shield(known[0].words)
                except EngineError as fault:
                    # The item was deleted; but who asks was given it before, and its audio.
                    if fault.code != _DROPPED:
                        raise
        rate = self._transcriber.capabilities.sample_rate
        clip = entry.clips[content_index]
        pcm = await asyncio.to_thread(clip_to_pcm, clip, rate)
        text, _ = await self._transcribe(_once(pcm), TranscriptionOptions(language=self._language))
        self._post(c.Recognised(item_id, text, content_index, clip=clip))
        return text

    async def guess(self, entry: Entry) -> str:
        """What was said in a turn that is not over: as the recogniser of its utterance has it now, or, where that
        does not tell, by a recognition of what there is.

        Raises EngineError.
        """
        known = self._utterances.get(entry.item.id)
        options = TranscriptionOptions()
        if known is not None:
            utterance = known[0]
            words = await utterance.words_so_far() if utterance.options.partials else None
            if words is not None:
                return words.strip()
            options = replace(utterance.options, logprobs=False, partials=False)
        pcm = await asyncio.to_thread(clip_to_pcm, entry.clips[0], self._transcriber.capabilities.sample_rate)
        text, _ = await self._transcribe(_once(pcm), options)
        return text

    async def _recognise(self, utterance: Utterance) -> None:
        item_id = utterance.item_id
        try:
            text, logprobs = await self._transcribe(utterance.audio(), utterance.options, utterance)
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
            self._results[item_id] = text
            if len(self._results) > KEPT_RESULTS:
                del self._results[next(iter(self._results))]
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
            if isinstance(report, c.Recognised):
                self._recognised(utterance.item_id, asyncio.get_running_loop().time() - utterance.closed_at)
            self._post(report)
        else:
            self._early[utterance.item_id] = report

    async def _transcribe(
        self, audio: AsyncGenerator[bytes, None], options: TranscriptionOptions, utterance: Utterance | None = None
    ) -> tuple[str, tuple[Logprob, ...] | None]:
        """The whole transcript; its parts are told on the way, where ``utterance`` says of what."""
        transcript = ""
        held = ""
        logprobs: list[Logprob] = []
        untold = 0
        options = replace(options, session=self._session_key)
        async with aclosing(audio), aclosing(self._transcriber.transcribe(audio, options)) as deltas:
            async for delta in deltas:
                if isinstance(delta, PartialTranscript):
                    if utterance is not None:
                        utterance.progress(transcript + held, delta)
                    continue
                # Space at either end is no part of the transcript, so that at the end of a delta waits for more.
                text = held + delta.text if transcript else delta.text.lstrip()
                held = text[len(text.rstrip()) :]
                text = text.rstrip()
                transcript += text
                logprobs += [Logprob(one.token, one.logprob) for one in delta.logprobs]
                if utterance is not None and text:
                    part = tuple(logprobs[untold:]) if options.logprobs else None
                    untold = len(logprobs)
                    self._post(c.RecognitionDelta(utterance.item_id, text, part))
        return transcript, tuple(logprobs) if options.logprobs else None


async def _once(pcm: bytes) -> AsyncGenerator[bytes, None]:
    yield pcm


def _seen(words: asyncio.Future[str]) -> None:
    """A fault that no model asks about was reported already."""
    if not words.cancelled():
        words.exception()
