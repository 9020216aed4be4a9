"""Synthesisers whose models speak in worker processes: what is the same for all of them.

An engine's own module reads its options and finds its voices; its own worker loads the models and makes the sound
(:func:`serve`). Between the two there is :class:`PooledSynthesizer`.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from vivavoce.engines.base import (
    EngineError,
    EngineOptionsError,
    SpeechChunk,
    SynthesisRequest,
    SynthesizerCapabilities,
)
from vivavoce.engines.builtin.speech_job import CancelledJob, SpeechJob, unpack_chunk
from vivavoce.engines.builtin.worker_channel import Channel, Kind
from vivavoce.engines.builtin.worker_pool import WorkerPool, WorkerSpec

VOICE_NAMES: Final = (
    *("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse"),
    *("marin", "cedar"),
)
"""The voices of the protocol, those of later editions last."""

LONGEST_TEXT: Final = 100_000
"""Characters; over an hour of speech."""
LONGEST_PHRASE: Final = 300
"""Characters that a model speaks in one go, and that nobody can cancel meanwhile."""

_WINDOW_BYTES: Final = 2 * 1024 * 1024
"""Some 40 s of sound: a worker is free again as soon as it has spoken, however slowly the sound is sent on."""
_CHUNK_BYTES: Final = 8 * 1024
_LOAD_S: Final = 300.0
_FAULTS: Final = 3
"""Failed jobs in a row after which a worker gives way to a new one: a device in a bad state stays in it."""
_SPEECHLESS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that no model reads, and that C libraries stumble over."""
_SENTENCE: Final = re.compile(r".+?(?:[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]+|\n+|$)", re.DOTALL)
_BREAKS: Final = (re.compile(r".*[,;:–—、，；：](?=\s|$)", re.DOTALL), re.compile(r".*\s", re.DOTALL))


class PoolOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Options that all of these engines have; each adds its own."""

    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    """Of one worker."""
    max_waiting: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 256
    job_timeout_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 60.0


class SpeakRequest(msgspec.Struct, frozen=True):
    """Payload of OPEN. ``voice`` is the protocol's name."""

    text: str
    voice: str
    speed: float


class Hello(msgspec.Struct, frozen=True):
    """Payload of READY."""

    sample_rate: int


def named_voices(voices: Mapping[str, str], default_voice: str | None) -> dict[str, str]:
    """Protocol voice -> the engine's own, for all that the options name and, by ``default_voice``, for the rest.

    Raises :class:`EngineOptionsError` for a voice that the protocol does not have.
    """
    for name in voices:
        if name not in VOICE_NAMES:
            raise EngineOptionsError(f"voices.{name}", f"no such voice; the voices are {', '.join(VOICE_NAMES)}")
    if not voices and default_voice is None:
        raise EngineOptionsError("voices", "name a voice for each one of the protocol, or a default_voice")
    filled = {name: default_voice for name in VOICE_NAMES if default_voice is not None}
    return {**filled, **voices}


def option_of(name: str, voices: Mapping[str, str]) -> str:
    """The option that a protocol voice comes from, to blame it."""
    return f"voices.{name}" if name in voices else "default_voice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An engine's worker, and what it is."""

    name: str
    package: str
    """The distribution whose version is the engine's."""
    module: str
    """Run as ``python -m module``; its ``main`` calls :func:`serve`."""
    setup: bytes


class PooledSynthesizer:
    """A :class:`~vivavoce.engines.base.Synthesizer` that speaks in worker processes."""

    def __init__(self, program: Program, capabilities: SynthesizerCapabilities, options: PoolOptions) -> None:
        self.name = program.name
        self.capabilities = capabilities
        self._package = program.package
        self._pool = WorkerPool(
            WorkerSpec(
                name=program.name,
                module=program.module,
                setup=program.setup,
                workers=options.workers,
                max_waiting=options.max_waiting,
                job_timeout_s=options.job_timeout_s,
                receive_window=_WINDOW_BYTES,
                start_timeout_s=_LOAD_S,
            )
        )

    @property
    def version(self) -> str:
        """Of the package that brings the engine; empty when it is not installed."""
        try:
            return importlib.metadata.version(self._package)
        except importlib.metadata.PackageNotFoundError:
            return ""

    @property
    def working(self) -> bool:
        return self._pool.working

    @property
    def restarts(self) -> int:
        return self._pool.restarts

    async def start(self) -> None:
        hello = msgspec.json.decode(await self._pool.start(), type=Hello)
        if hello.sample_rate != self.capabilities.sample_rate:
            await self._pool.close()
            problem = (
                f"speaks at {hello.sample_rate} Hz, not at {self.capabilities.sample_rate} Hz as its files say"
            )
            raise EngineError("engine_unavailable", f"The {self.name} engine {problem}.")

    async def close(self) -> None:
        await self._pool.close()

    async def synthesize(self, request: SynthesisRequest) -> AsyncGenerator[SpeechChunk, None]:
        """See :class:`~vivavoce.engines.base.Synthesizer`. Raises :class:`EngineError`: ``unknown_voice``,
        ``text_too_long``, ``engine_overloaded``, ``engine_unavailable``, ``engine_crashed``."""
        if request.voice not in self.capabilities.voices:
            raise EngineError(
                "unknown_voice", f"The {self.name} engine has no such voice.", type="invalid_request_error"
            )
        if len(request.text) > LONGEST_TEXT:
            problem = f"The {self.name} engine speaks at most {LONGEST_TEXT} characters at a time."
            raise EngineError("text_too_long", problem, type="invalid_request_error")
        text = _SPEECHLESS.sub(" ", request.text)
        if not has_words(text):
            return
        asked = msgspec.json.encode(SpeakRequest(text, request.voice, request.speed))
        async with self._pool.job(asked, request.session) as job:
            job.end()
            async for payload in job:
                pcm, _ = unpack_chunk(payload)
                yield SpeechChunk(pcm)


# ------------------------------------------------------------------------------------------------- the worker


def phrases(text: str) -> Iterator[str]:
    """Pieces of ``text`` to speak one after the other: sentences, long ones cut at commas, else between words.
    Together they are the text, without what has no word in it."""
    for found in _SENTENCE.finditer(text):
        rest = found[0]
        while len(rest) > LONGEST_PHRASE:
            head = rest[:LONGEST_PHRASE]
            cuts = (match.end() for at in _BREAKS if (match := at.match(head)) and match[0].strip())
            cut = next(cuts, LONGEST_PHRASE)
            yield from _worded(rest[:cut])
            rest = rest[cut:]
        yield from _worded(rest)


def _worded(piece: str) -> Iterator[str]:
    if has_words(piece):
        yield piece


def has_words(text: str) -> bool:
    """There is something to say."""
    return any(character.isalnum() for character in text)


class Mouth:
    """What a worker speaks into, during one job."""

    def __init__(self, job: SpeechJob) -> None:
        self._job = job

    def check(self) -> None:
        """Raises :class:`CancelledJob` when nobody listens any more."""
        self._job.check()

    def say(self, samples: npt.NDArray[np.float32]) -> None:
        """Send sound, -1..1; what goes beyond is clipped. Raises :class:`CancelledJob`."""
        pcm = (np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes()
        for at in range(0, len(pcm), _CHUNK_BYTES):
            self._job.send(pcm[at : at + _CHUNK_BYTES])


def serve(channel: Channel, sample_rate: int, speak: Callable[[SpeakRequest, Mouth], None]) -> None:
    """Say that the models are loaded, and speak, one job at a time, until the server is gone, or until
    :data:`_FAULTS` jobs in a row have failed."""
    channel.send(0, Kind.READY, msgspec.json.encode(Hello(sample_rate)))
    faults = 0
    while True:
        frame = channel.receive()
        if frame.kind is not Kind.OPEN:
            continue
        try:
            request = msgspec.json.decode(frame.payload, type=SpeakRequest)
            speak(request, Mouth(SpeechJob(channel, frame.job, _WINDOW_BYTES)))
        except CancelledJob:
            channel.send(frame.job, Kind.DONE)
        except Exception as error:
            # Its message may quote the text.
            fault = {"code": "engine_failed", "message": f"The synthesiser failed ({type(error).__name__})."}
            channel.send(frame.job, Kind.FAILED, msgspec.json.encode(fault))
            faults += 1
            if faults == _FAULTS:
                raise SystemExit(1) from None
        else:
            channel.send(frame.job, Kind.DONE)
            faults = 0


def onnx_session(channel: Channel, model: str | bytes, *, threads: int, device: str) -> Any:
    """An ``onnxruntime.InferenceSession`` that burns no CPU while it waits. Ends the worker when it cannot be."""
    import onnxruntime

    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        channel.fail_start("the onnxruntime that is installed knows no CUDA; install onnxruntime-gpu in its place")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=[provider])
    if provider not in session.get_providers():
        channel.fail_start("CUDA does not start here; onnxruntime has printed why")
    return session
