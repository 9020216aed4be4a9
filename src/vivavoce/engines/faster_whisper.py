"""Speech recognition by Whisper models in CTranslate2's form, with faster-whisper (extra ``faster-whisper``).

The work is done in worker processes (:mod:`vivavoce.engines.faster_whisper_worker`), each with a model of its own;
while people speak, what they said so far is decoded again and again; see there for how. The options stand in
``docs/how-to/faster-whisper.md``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from vivavoce.engines.base import (
    EngineError,
    EngineOptionsError,
    JsonObject,
    PartialTranscript,
    Transcriber,
    TranscriberCapabilities,
    TranscriptDelta,
    TranscriptionOptions,
)
from vivavoce.engines.builtin.worker_hearing import SAMPLE_RATE, Ears, decode_words
from vivavoce.engines.builtin.worker_options import convert_options
from vivavoce.engines.builtin.worker_pool import WorkerPool, WorkerSpec
from vivavoce.engines.faster_whisper_worker import Ready, Request, Settings

PATH_OPTIONS: Final = ("model",)

_WINDOW_BYTES: Final = SAMPLE_RATE * 2 * 20
"""Sound on its way to a worker, which takes nothing in while it decodes."""
_PROMPT_CHARACTERS: Final = 10_000
"""The end of a client's prompt that a worker gets, which reads it for every decoding; of this 100 tokens count."""
_FILES: Final = ("model.bin", "config.json", "tokenizer.json")

_Count = Annotated[int, msgspec.Meta(ge=1, le=256)]


class FasterWhisperOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    model: str | None = None
    hub_model: str | None = None
    download: bool = False
    language: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    device_index: Annotated[int, msgspec.Meta(ge=0)] = 0
    compute_type: Literal[
        "default", "auto", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16",
        "float32",
    ] = "default"  # fmt: skip
    cpu_threads: _Count | None = None
    beam_size: Annotated[int, msgspec.Meta(ge=1, le=32)] = 5
    fallback: bool = True
    vad_filter: bool = False
    partial_interval_ms: Annotated[int, msgspec.Meta(ge=0, le=20_000)] = 1000
    workers: _Count = 1
    utterances_per_worker: Annotated[int, msgspec.Meta(ge=2, le=1024)] = 64
    max_waiting: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 64
    job_timeout_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 120.0
    start_timeout_s: Annotated[float, msgspec.Meta(ge=1, le=36_000)] = 300.0


def create(options: JsonObject) -> Transcriber:
    """The factory named by the entry point. Raises :class:`EngineOptionsError`, :class:`EngineError`."""
    if importlib.util.find_spec("faster_whisper") is None:
        raise EngineError("engine_unavailable", "it needs the extra: pip install 'vivavoce[faster-whisper]'")
    taken = convert_options(options, FasterWhisperOptions)
    return FasterWhisperTranscriber(taken, _model(taken))


def _model(options: FasterWhisperOptions) -> str:
    """What faster-whisper is to load. It would take the path of a missing folder for a name at the hub."""
    if options.hub_model is not None:
        if options.model is not None:
            raise EngineOptionsError("hub_model", "give either a folder (model) or a name (hub_model)")
        return options.hub_model
    if options.model is None:
        raise EngineOptionsError("model", "a folder with a CTranslate2 Whisper model is needed (or hub_model)")
    if options.download:
        raise EngineOptionsError("download", "only a hub_model can be downloaded")
    missing = [name for name in _FILES if not (Path(options.model) / name).is_file()]
    if missing:
        raise EngineOptionsError(
            "model", f"no CTranslate2 Whisper model: there is no {Path(options.model) / missing[0]}"
        )
    return options.model


class FasterWhisperTranscriber:
    """A :class:`~vivavoce.engines.base.Transcriber`; deltas come while people speak, the last at the end."""

    name = "faster_whisper"
    capabilities = TranscriberCapabilities(
        sample_rate=SAMPLE_RATE, streaming=True, heavy=True, logprobs=True, partials=True
    )

    def __init__(self, options: FasterWhisperOptions, model: str) -> None:
        self._language = options.language
        self._languages: frozenset[str] = frozenset()
        settings = Settings(
            model=model,
            download=options.download,
            device=options.device,
            device_index=options.device_index,
            compute_type=options.compute_type,
            cpu_threads=options.cpu_threads or max(1, min(8, (os.cpu_count() or 1) // options.workers)),
            beam_size=options.beam_size,
            fallback=options.fallback,
            vad_filter=options.vad_filter,
            partial_interval_ms=options.partial_interval_ms,
        )
        self._pool = WorkerPool(
            WorkerSpec(
                name=self.name,
                module="vivavoce.engines.faster_whisper_worker",
                setup=msgspec.json.encode(settings),
                workers=options.workers,
                slots=options.utterances_per_worker,
                max_waiting=options.max_waiting,
                job_timeout_s=options.job_timeout_s,
                send_window=_WINDOW_BYTES,
                start_timeout_s=options.start_timeout_s,
            )
        )
        self._ears = Ears(self._pool, options.workers * options.utterances_per_worker)

    @property
    def version(self) -> str:
        return importlib.metadata.version("faster-whisper")

    async def start(self) -> None:
        hello = await self._pool.start()
        self._languages = frozenset(msgspec.json.decode(hello, type=Ready).languages)
        if self._language is not None:
            try:
                self._known(self._language)
            except EngineError as error:
                await self._pool.close()
                raise EngineError("engine_unavailable", error.message) from None

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
        language = options.language or self._language
        request = Request(
            language=None if language is None else self._known(language),
            prompt=None if options.prompt is None else options.prompt[-_PROMPT_CHARACTERS:],
            logprobs=options.logprobs,
            partials=options.partials,
        )
        async with aclosing(self._ears.listen(audio, msgspec.json.encode(request), options.session)) as told:
            async for piece in told:
                yield decode_words(piece)

    def _known(self, language: str) -> str:
        code = language.partition("-")[0].lower()
        if code not in self._languages:
            raise EngineError(
                "unsupported_language",
                f"The model of the {self.name} engine does not know the language '{code}'.",
                type="invalid_request_error",
            )
        return code
