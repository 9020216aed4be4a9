"""A synthesiser over streamed ``/audio/speech``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal

import msgspec

from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.g711 import from_samples, to_samples
from vivavoce.audio.resample import Resampler
from vivavoce.engines import base
from vivavoce.engines.openai_compatible.messages import Json
from vivavoce.engines.openai_compatible.options import (
    PATH_OPTIONS,
    VOICES,
    ConnectionOptions,
    Text,
    chosen_voice,
    read_options,
    voice_map,
)
from vivavoce.engines.openai_compatible.upstream import Upstream
from vivavoce.engines.openai_compatible.wav_stream import NotWav, WavReader

__all__ = ["PATH_OPTIONS", "OpenAICompatibleSynthesizer", "create"]

RESERVED: Final = frozenset({"model", "input", "voice", "response_format", "speed", "stream_format"})


class SynthesizerOptions(ConnectionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    response_format: Literal["pcm", "wav"] = "pcm"
    sample_rate: Annotated[int, msgspec.Meta(ge=8000, le=48000)] = 24000
    """Hz of ``pcm``, which does not say itself; ``wav`` is brought to it."""
    voice: Text | None = None
    """The server's voice for all that ``voices`` does not name; None: they keep their names."""
    voices: Mapping[str, Text] = msgspec.field(default_factory=dict)
    """Protocol voice -> the server's."""
    instructions: Text | None = None
    """How to speak, for models that take that."""
    extra_body: Mapping[str, Any] = msgspec.field(default_factory=dict)


class OpenAICompatibleSynthesizer:
    """A :class:`~vivavoce.engines.base.Synthesizer`."""

    name = "openai_compatible"

    def __init__(self, options: SynthesizerOptions, upstream: Upstream) -> None:
        """Raises EngineOptionsError."""
        self._options = options
        self._upstream = upstream
        self.version = upstream.version
        self.capabilities = base.SynthesizerCapabilities(
            sample_rate=options.sample_rate, voices=voice_map(options.voice, options.voices)
        )

    @property
    def working(self) -> bool:
        return self._upstream.working

    async def start(self) -> None:
        """Raises EngineError where the option ``check`` is ``fail``."""
        await self._upstream.start(lambda: self.synthesize(base.SynthesisRequest("Hello.", VOICES[0])))

    async def close(self) -> None:
        await self._upstream.close()

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        """Raises EngineError, by the codes of :mod:`vivavoce.engines.openai_compatible.upstream`."""
        if not request.text.strip():
            return
        sound = _Pcm() if self._options.response_format == "pcm" else _Wav(self._options.sample_rate)
        try:
            async with aclosing(self._upstream.sound("audio/speech", json=self._body(request))) as pieces:
                async for piece in pieces:
                    if pcm := sound.feed(piece):
                        yield base.SpeechChunk(pcm)
            if pcm := sound.end():
                yield base.SpeechChunk(pcm)
        except NotWav:
            raise self._upstream.nonsense() from None

    def _body(self, request: base.SynthesisRequest) -> Json:
        options = self._options
        body: Json = {
            "model": options.model,
            "input": request.text,
            "voice": chosen_voice(self.capabilities.voices, request.voice),
            "response_format": options.response_format,
        }
        if request.speed != 1:
            body["speed"] = request.speed
        if options.instructions is not None:
            body["instructions"] = options.instructions
        return body | dict(options.extra_body)


class _Pcm:
    """Bytes cut anywhere -> whole samples."""

    def __init__(self) -> None:
        self._half = b""

    def feed(self, piece: bytes) -> bytes:
        piece = self._half + piece
        whole = len(piece) // 2 * 2
        self._half = piece[whole:]
        return piece[:whole]

    def end(self) -> bytes:
        return b""


class _Wav:
    """A WAV file cut anywhere -> samples at ``rate`` Hz. Both methods raise NotWav."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._file = WavReader()
        self._whole = _Pcm()
        self._resampler: Resampler | None = None

    def feed(self, piece: bytes) -> bytes:
        return self._resampled(self._whole.feed(self._file.feed(piece)))

    def end(self) -> bytes:
        self._file.end()
        return self._resampled(b"", last=True)

    def _resampled(self, pcm: bytes, *, last: bool = False) -> bytes:
        if self._file.rate is None:
            return b""
        if self._resampler is None:
            self._resampler = Resampler(self._file.rate, self._rate)
        samples = self._resampler.process(to_samples(pcm, AudioFormat.PCM16), last=last)
        return from_samples(samples, AudioFormat.PCM16)


def create(options: base.JsonObject) -> base.Synthesizer:
    """Raises EngineOptionsError, and EngineError without ``httpx``."""
    read = read_options(options, SynthesizerOptions, RESERVED)
    return OpenAICompatibleSynthesizer(read, Upstream(read, "synthesiser"))
