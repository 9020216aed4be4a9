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

import importlib.metadata
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
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
from vivavoce.engines.builtin.worker_hearing import WINDOW_BYTES, Ears
from vivavoce.engines.builtin.worker_options import convert_options
from vivavoce.engines.builtin.worker_pool import WorkerPool, WorkerSpec

SAMPLE_RATE: Final = 16000


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
        self._pool = WorkerPool(
            WorkerSpec(
                name=self.name,
                module="vivavoce.engines.builtin.pocketsphinx_worker",
                workers=workers,
                slots=options.decoders_per_worker,
                max_waiting=options.max_waiting,
                job_timeout_s=options.job_timeout_s,
                send_window=WINDOW_BYTES,
            )
        )
        self._ears = Ears(self._pool, workers * options.decoders_per_worker)

    @property
    def version(self) -> str:
        return importlib.metadata.version("pocketsphinx")

    async def start(self) -> None:
        await self._pool.start()

    @property
    def working(self) -> bool:
        return self._pool.working

    @property
    def restarts(self) -> int:
        return self._pool.restarts

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
        words: list[tuple[str, float]] = []
        async with aclosing(
            self._ears.listen(audio, WITH_PARTIALS if options.partials else b"", options.session)
        ) as told:
            async for piece in told:
                match msgspec.json.decode(piece, type=Heard | HeardSoFar):
                    case Heard(words=words):
                        pass
                    case HeardSoFar(text, audio_ms) if options.partials:
                        yield PartialTranscript(text, audio_ms)
        # Together the tokens are the text, so that space between words belongs to the later one.
        tokens = tuple(TokenLogprob(f" {word}" if i else word, logprob) for i, (word, logprob) in enumerate(words))
        if tokens:
            text = "".join(token.token for token in tokens)
            yield TranscriptDelta(text, tokens if options.logprobs else ())
