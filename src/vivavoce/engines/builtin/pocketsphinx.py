"""Speech recognition that works offline after ``pip install``: pocketsphinx with its US English model.

The work is done in worker processes (:mod:`vivavoce.engines.builtin.pocketsphinx_worker`), while the person
speaks; see there for how. What remains after the last piece of audio is a second search over the utterance.

Options of its configuration table:

- ``workers``: processes; default half the cores, at most 4;
- ``decoders_per_worker``: utterances at a time in one process; about 100 MB each, made when first needed. All but
  one of all decoders may follow people who are still talking;
- ``max_waiting``: utterances that may wait for a decoder;
- ``job_timeout_s``: the longest silence of a worker that has work.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Final

import msgspec

from vivavoce.engines.base import (
    EngineError,
    JsonObject,
    PartialTranscript,
    TokenLogprob,
    Transcriber,
    TranscriberCapabilities,
    TranscriptDelta,
    TranscriptionOptions,
)
from vivavoce.engines.builtin.pocketsphinx_worker import WITH_PARTIALS, Heard, HeardSoFar
from vivavoce.engines.builtin.worker_options import convert_options
from vivavoce.engines.builtin.worker_pool import Job, WorkerPool, WorkerSpec

SAMPLE_RATE: Final = 16000
_WINDOW_BYTES: Final = SAMPLE_RATE * 2
"""One second of sound on its way to a worker."""
_BACKLOG_BYTES: Final = SAMPLE_RATE * 2 * 60
"""A minute of sound of an utterance that waits for a decoder; a longer one is left with who sends it."""


class PocketsphinxOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None
    decoders_per_worker: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    max_waiting: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 64
    job_timeout_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 60.0


def create(options: JsonObject) -> Transcriber:
    """The factory named by the entry point. Raises :class:`EngineOptionsError`."""
    return PocketsphinxTranscriber(convert_options(options, PocketsphinxOptions))


class PocketsphinxTranscriber:
    """A :class:`~vivavoce.engines.base.Transcriber`; one delta per utterance, at its end, none for silence.

    Partial transcripts are those of the first search, which a later word may still change.
    """

    name = "pocketsphinx"
    capabilities = TranscriberCapabilities(
        sample_rate=SAMPLE_RATE, streaming=True, languages=("en",), heavy=True, logprobs=True, partials=True
    )

    def __init__(self, options: PocketsphinxOptions) -> None:
        workers = options.workers or max(1, min(4, (os.cpu_count() or 1) // 2))
        self._turnstile = Turnstile(max(1, workers * options.decoders_per_worker - 1))
        self._pool = WorkerPool(
            WorkerSpec(
                name=self.name,
                module="vivavoce.engines.builtin.pocketsphinx_worker",
                workers=workers,
                slots=options.decoders_per_worker,
                max_waiting=options.max_waiting,
                job_timeout_s=options.job_timeout_s,
                send_window=_WINDOW_BYTES,
            )
        )

    @property
    def version(self) -> str:
        return importlib.metadata.version("pocketsphinx")

    async def start(self) -> None:
        await self._pool.start()

    @property
    def working(self) -> bool:
        return self._pool.working

    async def close(self) -> None:
        await self._pool.close()

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptDelta | PartialTranscript, None]:
        """See :class:`~vivavoce.engines.base.Transcriber`. Raises :class:`EngineError`: ``unsupported_language``,
        ``engine_overloaded``, ``engine_unavailable``, ``engine_crashed``, ``recognition_failed``."""
        language = (options.language or "en").partition("-")[0].lower()
        if language not in self.capabilities.languages:
            raise EngineError(
                "unsupported_language",
                f"The {self.name} engine knows English (en) only.",
                type="invalid_request_error",
            )
        partials: asyncio.Queue[PartialTranscript | None] = asyncio.Queue()
        # A task group may not be left open over a yield: it would cancel whoever iterates.
        work = asyncio.create_task(self._recognise(audio, partials if options.partials else None))
        work.add_done_callback(lambda _: partials.put_nowait(None))
        try:
            while (partial := await partials.get()) is not None:
                yield partial
            words = work.result()
        finally:
            work.cancel()
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # seen, when nobody iterates to the end
        # Together the tokens are the text, so that space between words belongs to the later one.
        tokens = tuple(TokenLogprob(f" {word}" if i else word, logprob) for i, (word, logprob) in enumerate(words))
        if tokens:
            text = "".join(token.token for token in tokens)
            yield TranscriptDelta(text, tokens if options.logprobs else ())

    async def _recognise(
        self, audio: AsyncIterator[bytes], partials: asyncio.Queue[PartialTranscript | None] | None
    ) -> list[tuple[str, float]]:
        backlog = Backlog(_BACKLOG_BYTES)
        words: list[tuple[str, float]] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._turnstile.fill(backlog, audio))
                await self._turnstile.enter(backlog)
                async with self._pool.job(b"" if partials is None else WITH_PARTIALS) as job:
                    group.create_task(_feed(job, backlog))
                    async for piece in job:
                        match msgspec.json.decode(piece, type=Heard | HeardSoFar):
                            case Heard(words=words):
                                pass
                            case HeardSoFar(text, audio_ms) if partials is not None:
                                partials.put_nowait(PartialTranscript(text, audio_ms))
        except BaseExceptionGroup as faults:
            raise _first_leaf(faults) from None
        finally:
            await self._turnstile.leave(backlog)
        return words


class Backlog:
    """Sound between who sends it and a decoder that may not be free yet: bounded, whole samples, in any pieces."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sound = bytearray()
        self._complete = False
        self._changed = asyncio.Condition()

    @property
    def complete(self) -> bool:
        """The last of the sound is here."""
        return self._complete

    async def fill(self, audio: AsyncIterator[bytes]) -> None:
        """Take in all of ``audio``; waits while ``limit`` bytes are held."""
        async for piece in audio:
            async with self._changed:
                await self._changed.wait_for(lambda: len(self._sound) < self._limit)
                self._sound += piece
                self._changed.notify_all()
        async with self._changed:
            self._complete = True
            self._changed.notify_all()

    async def take(self) -> bytes:
        """All whole samples that are there, at least one; empty at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._sound) >= 2 or self._complete)
            whole = len(self._sound) // 2 * 2
            taken = bytes(self._sound[:whole])
            del self._sound[:whole]
            self._changed.notify_all()
            return taken


class Turnstile:
    """Decides which utterances may take a decoder.

    One whose speaker is still talking holds its decoder for as long as the talk lasts, and leaves it idle for most
    of that time. So only ``early`` of them may, which leaves a decoder to those that are complete: they need it for
    a moment, and somebody waits for them.
    """

    def __init__(self, early: int) -> None:
        self._early = early
        self._holders: set[Backlog] = set()
        self._changed = asyncio.Condition()

    async def fill(self, backlog: Backlog, audio: AsyncIterator[bytes]) -> None:
        """Fill the backlog; when it is complete its place among the early ones is free again."""
        await backlog.fill(audio)
        await self.leave(backlog)

    async def enter(self, backlog: Backlog) -> None:
        """Wait until the utterance is complete, or may begin early."""
        async with self._changed:
            await self._changed.wait_for(lambda: backlog.complete or len(self._holders) < self._early)
            if not backlog.complete:
                self._holders.add(backlog)

    async def leave(self, backlog: Backlog) -> None:
        """The utterance is over, or complete. Idempotent."""
        async with self._changed:
            self._holders.discard(backlog)
            self._changed.notify_all()


async def _feed(job: Job, backlog: Backlog) -> None:
    while sound := await backlog.take():
        await job.send(sound)
    job.end()


def _first_leaf(faults: BaseExceptionGroup[BaseException]) -> BaseException:
    first = faults.exceptions[0]
    return _first_leaf(first) if isinstance(first, BaseExceptionGroup) else first
