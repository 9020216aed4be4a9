"""A recogniser over ``/audio/transcriptions``: an utterance is sent as a WAV file when it is complete."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Final

import msgspec

from vivavoce.engines import base
from vivavoce.engines.openai_compatible.messages import wav
from vivavoce.engines.openai_compatible.options import (
    PATH_OPTIONS,
    ConnectionOptions,
    Text,
    read_options,
)
from vivavoce.engines.openai_compatible.upstream import Upstream, collected

__all__ = ["PATH_OPTIONS", "OpenAICompatibleTranscriber", "create"]

RESERVED: Final = frozenset({"file", "model", "language", "prompt", "response_format", "stream", "include[]"})

_SHORTEST_MS: Final = 100
"""OpenAI refuses less; silence fills it up."""


class TranscriberOptions(ConnectionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sample_rate: Annotated[int, msgspec.Meta(ge=8000, le=48000)] = 16000
    language: Text | None = None
    """Where the client names none."""
    languages: tuple[Text, ...] = ()
    """ISO-639-1 codes that the model knows; empty: any."""
    prompt: Text | None = None
    """Where the client gives none."""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    stream: bool = False
    """The server sends words as it finds them."""
    logprobs: bool = False
    """The server can tell how sure it is of each token."""
    extra_body: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """More fields of the form."""


class _Logprob(msgspec.Struct):
    token: str
    logprob: float


class _Content(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Content | None = None
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    """Of a stream, in the forms of OpenAI, of vLLM, and of servers that send one object after the other; and the
    answer to a request without one."""

    type: str = ""
    delta: str | None = None
    text: str | None = None
    logprobs: list[_Logprob] | None = None
    choices: list[_Choice] | None = None
    error: Any = None


class OpenAICompatibleTranscriber:
    """A :class:`~vivavoce.engines.base.Transcriber`."""

    name = "openai_compatible"

    def __init__(self, options: TranscriberOptions, upstream: Upstream) -> None:
        self._options = options
        self._upstream = upstream
        self.version = upstream.version
        self.capabilities = base.TranscriberCapabilities(
            sample_rate=options.sample_rate,
            streaming=False,
            languages=tuple(options.languages),
            logprobs=options.logprobs,
        )

    @property
    def working(self) -> bool:
        return self._upstream.working

    async def start(self) -> None:
        """Raises EngineError where the option ``check`` is ``fail``."""
        await self._upstream.start(lambda: self._transcribe(b"", base.TranscriptionOptions()))

    async def close(self) -> None:
        await self._upstream.close()

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript, None]:
        """Raises EngineError, by the codes of :mod:`vivavoce.engines.openai_compatible.upstream`."""
        language = (options.language or "").partition("-")[0].lower()
        if language and self._options.languages and language not in self._options.languages:
            raise base.EngineError(
                "unsupported_language",
                f"The recogniser does not know the language {language}.",
                type="invalid_request_error",
            )
        pcm = await collected(audio)
        if not pcm:
            return
        async with aclosing(self._transcribe(pcm, options)) as deltas:
            async for delta in deltas:
                yield delta

    async def _transcribe(
        self, pcm: bytes, asked: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta, None]:
        rate = self._options.sample_rate
        pcm = pcm.ljust(rate * _SHORTEST_MS // 1000 * 2, b"\0")
        content = {
            "data": self._form(asked),
            "files": {"file": ("audio.wav", wav(pcm, rate), "audio/wav")},
        }
        if not self._options.stream:
            answer = await self._upstream.whole("audio/transcriptions", decode=self._decoded, **content)
            if answer.text is None:
                raise self._upstream.nonsense()
            text = answer.text.strip()
            if text:
                yield base.TranscriptDelta(text, _logprobs(answer))
            return
        async with aclosing(self._streamed(content)) as deltas:
            async for delta in deltas:
                yield delta

    async def _streamed(self, content: dict[str, Any]) -> AsyncGenerator[base.TranscriptDelta, None]:
        said = ended = False
        events = self._upstream.events(
            "audio/transcriptions", decode=self._decoded, complete=lambda: ended, **content
        )
        async with aclosing(events):
            async for event in events:
                choice = event.choices[0] if event.choices else _Choice()
                ended = ended or event.type in ("", "transcript.text.done") or choice.finish_reason is not None
                text = event.delta or (choice.delta and choice.delta.content) or ""
                if event.type == "transcript.text.done" and not said:
                    text = event.text or ""
                elif not event.type and event.text:
                    text = _apart(event.text) if said else event.text
                text = text if said else text.lstrip()
                if text:
                    said = True
                    yield base.TranscriptDelta(text, _logprobs(event))

    def _form(self, asked: base.TranscriptionOptions) -> dict[str, Any]:
        options = self._options
        form: dict[str, Any] = {"model": options.model, "response_format": "json"}
        for name, value in (
            ("language", asked.language or options.language),
            ("prompt", asked.prompt or options.prompt),
            ("temperature", options.temperature),
        ):
            if value is not None:
                form[name] = str(value).encode("utf-8", "replace").decode()
        if options.stream:
            form["stream"] = "true"
        if asked.logprobs:
            form["include[]"] = ["logprobs"]
        return form | {name: _form_value(value) for name, value in options.extra_body.items()}

    def _decoded(self, data: bytes) -> _Event:
        event = msgspec.json.decode(data, type=_Event)
        if event.error:
            raise self._upstream.reported(event.error)
        return event


def _apart(segment: str) -> str:
    """A segment of a server that trims each. Scripts without spaces are not those of ASCII."""
    return f" {segment}" if segment[0].isascii() and not segment[0].isspace() else segment


def _form_value(value: object) -> str | list[str]:
    if isinstance(value, bool):
        return "true" if value else "false"
    return [str(one) for one in value] if isinstance(value, list) else str(value)


def _logprobs(event: _Event) -> tuple[base.TokenLogprob, ...]:
    return tuple(base.TokenLogprob(one.token, one.logprob) for one in event.logprobs or ())


def create(options: base.JsonObject) -> base.Transcriber:
    """Raises EngineOptionsError, and EngineError without ``httpx``."""
    read = read_options(options, TranscriberOptions, RESERVED)
    return OpenAICompatibleTranscriber(read, Upstream(read, "recogniser"))
