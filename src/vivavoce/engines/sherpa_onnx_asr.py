"""Speech recognition by ONNX models of many kinds, streaming or not, with sherpa-onnx (extra ``sherpa-onnx``).

The work is done in worker processes (:mod:`vivavoce.engines.sherpa_onnx_asr_worker`), which decode all utterances
that have something to decode in one batch. The options stand in ``docs/how-to/sherpa-onnx-recogniser.md``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
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
from vivavoce.engines.sherpa_onnx_asr_worker import Request, Settings

FILES: Final = (
    "model",
    "encoder",
    "decoder",
    "joiner",
    "preprocessor",
    "uncached_decoder",
    "cached_decoder",
    "tokens",
)
PATH_OPTIONS: Final = FILES

_WINDOW_BYTES: Final = SAMPLE_RATE * 2 * 10
"""Sound on its way to a worker, which takes nothing in while it decodes."""
_Count = Annotated[int, msgspec.Meta(ge=1, le=256)]


@dataclass(frozen=True, slots=True)
class ModelType:
    """A kind of model that sherpa-onnx knows."""

    factory: str
    files: tuple[str, ...]
    """The options that name its files, all of them needed."""
    search: bool = False
    """It has ``modified_beam_search``."""
    fixed: tuple[tuple[str, str], ...] = ()
    """Arguments of the factory that make it this kind."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Options, and what the factory calls them."""
    language: Literal["", "stream", "whisper", "canary"] = ""
    """How an utterance's language is told to it; see :class:`~vivavoce.engines.sherpa_onnx_asr_worker.Settings`."""
    languages: tuple[str, ...] = ()
    """What all models of this kind know, where that is known."""
    itn: bool = False
    """It can write numbers as digits and set punctuation (``use_itn``)."""


_TRANSDUCER: Final = ("encoder", "decoder", "joiner", "tokens")
_PAIR: Final = ("encoder", "decoder", "tokens")
_SINGLE: Final = ("model", "tokens")

STREAMING: Final = {
    "transducer": ModelType("from_transducer", _TRANSDUCER, search=True),
    "nemo_transducer": ModelType("from_transducer", _TRANSDUCER, language="stream"),
    "paraformer": ModelType("from_paraformer", _PAIR),
    "zipformer2_ctc": ModelType("from_zipformer2_ctc", _SINGLE),
    "nemo_ctc": ModelType("from_nemo_ctc", _SINGLE),
    "wenet_ctc": ModelType("from_wenet_ctc", _SINGLE),
    "t_one_ctc": ModelType("from_t_one_ctc", _SINGLE, languages=("ru",)),
}
OFFLINE: Final = {
    "transducer": ModelType("from_transducer", _TRANSDUCER, search=True),
    "nemo_transducer": ModelType("from_transducer", _TRANSDUCER, fixed=(("model_type", "nemo_transducer"),)),
    "zipformer_ctc": ModelType("from_zipformer_ctc", _SINGLE),
    "nemo_ctc": ModelType("from_nemo_ctc", _SINGLE),
    "wenet_ctc": ModelType("from_wenet_ctc", _SINGLE),
    "omnilingual_ctc": ModelType("from_omnilingual_asr_ctc", _SINGLE),
    "dolphin_ctc": ModelType("from_dolphin_ctc", _SINGLE),
    "paraformer": ModelType("from_paraformer", _SINGLE, renamed=(("model", "paraformer"),)),
    "sense_voice": ModelType("from_sense_voice", _SINGLE, languages=("zh", "en", "ja", "ko", "yue"), itn=True),
    "whisper": ModelType("from_whisper", _PAIR, language="whisper", fixed=(("language", ""),)),
    "nemo_canary": ModelType(
        "from_nemo_canary", _PAIR, language="canary", fixed=(("src_lang", "en"), ("tgt_lang", "en"))
    ),
    "moonshine": ModelType(
        "from_moonshine", ("preprocessor", "encoder", "uncached_decoder", "cached_decoder", "tokens")
    ),
    "moonshine_v2": ModelType("from_moonshine_v2", _PAIR),
    "fire_red_asr": ModelType("from_fire_red_asr", _PAIR),
    "cohere_transcribe": ModelType("from_cohere_transcribe", _PAIR, language="stream"),
}


class SherpaOnnxOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    mode: Literal["streaming", "offline"]
    model_type: str
    model: str | None = None
    encoder: str | None = None
    decoder: str | None = None
    joiner: str | None = None
    preprocessor: str | None = None
    uncached_decoder: str | None = None
    cached_decoder: str | None = None
    tokens: str | None = None
    languages: tuple[str, ...] = ()
    language: str | None = None
    decoding_method: Literal["greedy_search", "modified_beam_search"] = "greedy_search"
    use_itn: bool | None = None
    provider: Literal["cpu", "cuda", "coreml"] = "cpu"
    num_threads: _Count = 1
    max_batch: _Count = 16
    workers: _Count = 1
    utterances_per_worker: Annotated[int, msgspec.Meta(ge=2, le=1024)] = 64
    max_waiting: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 64
    job_timeout_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 60.0
    start_timeout_s: Annotated[float, msgspec.Meta(ge=1, le=36_000)] = 120.0


def create(options: JsonObject) -> Transcriber:
    """The factory named by the entry point. Raises :class:`EngineOptionsError`, :class:`EngineError`."""
    if importlib.util.find_spec("sherpa_onnx") is None:
        raise EngineError("engine_unavailable", "it needs the extra: pip install 'vivavoce[sherpa-onnx]'")
    taken = convert_options(options, SherpaOnnxOptions)
    kinds = STREAMING if taken.mode == "streaming" else OFFLINE
    if taken.model_type not in kinds:
        raise EngineOptionsError(
            "model_type", f"there is no such {taken.mode} model (there are: {', '.join(kinds)})"
        )
    kind = kinds[taken.model_type]
    return SherpaOnnxTranscriber(taken, kind, _arguments(taken, kind))


def _arguments(options: SherpaOnnxOptions, kind: ModelType) -> dict[str, str | int | float | bool]:
    """Those of sherpa-onnx's factory. It would end the process for most that is wrong with them."""
    names = dict(kind.renamed)
    arguments: dict[str, str | int | float | bool] = dict(kind.fixed)
    for name in FILES:
        path = getattr(options, name)
        if (path is not None) != (name in kind.files):
            problem = "has no such file" if path is not None else "needs this file"
            raise EngineOptionsError(name, f"a model of the type {options.model_type} {problem}")
        if path is None:
            continue
        if not Path(path).is_file():
            raise EngineOptionsError(name, f"there is no file {path}")
        arguments[names.get(name, name)] = path
    if options.decoding_method != "greedy_search" and not kind.search:
        raise EngineOptionsError("decoding_method", f"a model of the type {options.model_type} has no such search")
    if options.use_itn is not None:
        if not kind.itn:
            raise EngineOptionsError("use_itn", f"a model of the type {options.model_type} cannot do that")
        arguments["use_itn"] = options.use_itn
    if kind.search:
        arguments["decoding_method"] = options.decoding_method
    return arguments | {"num_threads": options.num_threads, "provider": options.provider}


class SherpaOnnxTranscriber:
    """A :class:`~vivavoce.engines.base.Transcriber`."""

    name = "sherpa_onnx"

    def __init__(
        self, options: SherpaOnnxOptions, kind: ModelType, arguments: dict[str, str | int | float | bool]
    ) -> None:
        streaming = options.mode == "streaming"
        languages = options.languages or kind.languages
        if options.language is not None and languages and options.language not in languages:
            raise EngineOptionsError("language", "is not one of the languages")
        self._language = options.language
        self.capabilities = TranscriberCapabilities(
            sample_rate=SAMPLE_RATE, streaming=streaming, languages=languages, heavy=True, partials=streaming
        )
        settings = Settings(
            mode=options.mode,
            factory=kind.factory,
            arguments=arguments,
            max_batch=options.max_batch,
            settled=options.decoding_method == "greedy_search",
            language=kind.language,
        )
        self._pool = WorkerPool(
            WorkerSpec(
                name=self.name,
                module="vivavoce.engines.sherpa_onnx_asr_worker",
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
        return importlib.metadata.version("sherpa-onnx")

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
        language = (options.language or self._language or "").partition("-")[0].lower()
        if language and self.capabilities.languages and language not in self.capabilities.languages:
            raise EngineError(
                "unsupported_language",
                f"The model of the {self.name} engine does not know the language '{language}'.",
                type="invalid_request_error",
            )
        request = Request(language, partials=options.partials)
        async with aclosing(self._ears.listen(audio, msgspec.json.encode(request), options.session)) as told:
            async for piece in told:
                yield decode_words(piece)
