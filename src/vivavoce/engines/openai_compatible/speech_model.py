"""A model that hears and speaks for itself, over ``/chat/completions`` with ``modalities: ["text", "audio"]``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated

import msgspec

from vivavoce.engines import base
from vivavoce.engines.openai_compatible.chat import (
    RESERVED,
    SMALL,
    ChatOptions,
    ChatReader,
    Chunk,
    chat_body,
    chunks,
    completed,
)
from vivavoce.engines.openai_compatible.options import (
    PATH_OPTIONS,
    VOICES,
    Text,
    chosen_voice,
    read_options,
    voice_map,
)
from vivavoce.engines.openai_compatible.upstream import Refusal, Upstream

__all__ = ["PATH_OPTIONS", "OpenAICompatibleSpeechModel", "create"]


class SpeechModelOptions(ChatOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hears_audio: bool = True
    sample_rate: Annotated[int, msgspec.Meta(ge=8000, le=48000)] = 24000
    """Hz of the ``pcm16`` that the server sends."""
    voice: Text | None = None
    """The server's voice for all that ``voices`` does not name; None: they keep their names."""
    voices: Mapping[str, Text] = msgspec.field(default_factory=dict)
    """Protocol voice -> the server's."""


class OpenAICompatibleSpeechModel:
    """A :class:`~vivavoce.engines.base.SpeechModel`. This form of the API has no speed."""

    name = "openai_compatible"

    def __init__(self, options: SpeechModelOptions, upstream: Upstream) -> None:
        """Raises EngineOptionsError."""
        self._options = options
        self._upstream = upstream
        self._voices = voice_map(options.voice, options.voices)
        self.version = upstream.version
        self.capabilities = base.SpeechModelCapabilities(
            sample_rate=options.sample_rate,
            hears_audio=options.hears_audio,
            voices=frozenset(VOICES),
            sees_images=options.sees_images,
            reasons=options.reasons,
        )

    @property
    def working(self) -> bool:
        return self._upstream.working

    async def start(self) -> None:
        """Raises EngineError where the option ``check`` is ``fail``."""
        await self._upstream.start(lambda: self.respond(base.SpeechRequest(SMALL, VOICES[0])))

    async def close(self) -> None:
        await self._upstream.close()

    async def respond(self, request: base.SpeechRequest) -> AsyncGenerator[base.SpeechDelta, None]:
        """Raises EngineError, by the codes of :mod:`vivavoce.engines.openai_compatible.upstream`."""
        speaks = "audio" in request.generation.modalities
        body = chat_body(request.generation, self._options)
        body["modalities"] = ["text", "audio"] if speaks else ["text"]
        if speaks:
            body["audio"] = {"voice": chosen_voice(self._voices, request.voice), "format": "pcm16"}
        work = self._spoken(body) if speaks else completed(self._upstream, body, self._options)
        async with aclosing(work) as deltas:
            async for delta in deltas:
                yield delta

    async def _spoken(self, body: dict[str, object]) -> AsyncGenerator[base.SpeechDelta, None]:
        reader = ChatReader(self._options, self._upstream.nonsense())
        half = b""
        late: list[base.AudioDelta] = []
        """Speech beside a call, which has its words after that."""
        try:
            async with aclosing(chunks(self._upstream, body, reader)) as received:
                async for chunk in received:
                    for delta in reader.read(_with_transcript(chunk)):
                        yield delta
                    sound = half + self._sound(chunk)
                    whole = len(sound) // 2 * 2
                    half = sound[whole:]
                    if whole and reader.calling:
                        late.append(base.AudioDelta(sound[:whole]))
                    elif whole:
                        yield base.AudioDelta(sound[:whole])
        except Refusal as refusal:
            if refusal.reason != "content_filter":
                raise
            yield base.Finish("content_filter")
            return
        for last in reader.end():
            if isinstance(last, base.Finish):
                for audio in late:
                    yield audio
            yield last

    def _sound(self, chunk: Chunk) -> bytes:
        audio = chunk.choices[0].delta and chunk.choices[0].delta.audio if chunk.choices else None
        try:
            return base64.b64decode(audio.data or "", validate=True) if audio else b""
        except binascii.Error:
            raise self._upstream.nonsense() from None


def _with_transcript(chunk: Chunk) -> Chunk:
    """What the model says aloud as what it says."""
    for choice in chunk.choices or ():
        if choice.delta is not None and choice.delta.audio is not None and choice.delta.audio.transcript:
            choice.delta.content = (choice.delta.content or "") + choice.delta.audio.transcript
    return chunk


def create(options: base.JsonObject) -> base.SpeechModel:
    """Raises EngineOptionsError, and EngineError without ``httpx``."""
    read = read_options(options, SpeechModelOptions, RESERVED)
    return OpenAICompatibleSpeechModel(read, Upstream(read, "speech model"))
