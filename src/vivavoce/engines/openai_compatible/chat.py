"""``/chat/completions``, streamed: the request, and what its chunks say."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from vivavoce.engines import base
from vivavoce.engines.openai_compatible.messages import Json, chat_messages
from vivavoce.engines.openai_compatible.options import ConnectionOptions, Text
from vivavoce.engines.openai_compatible.upstream import Refusal, Upstream

RESERVED: Final = frozenset({"messages", "model", "stream", "tools", "tool_choice", "modalities", "audio", "n"})
"""Fields of the request that ``extra_body`` may not set."""


class ChatOptions(ConnectionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the language model and the speech model have in common."""

    sees_images: bool = False
    calls_tools: bool = True
    reasons: bool = False
    """It takes ``reasoning_effort``."""
    system_role: Literal["system", "developer"] = "system"
    alternate_roles: bool = False
    """One system message, then user and assistant by turns: some chat templates refuse anything else."""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    """Instead of the session's."""
    send_temperature: bool = True
    """False for models that refuse one."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens", "none"] = "max_tokens"
    seed: int | None = None
    stop: Annotated[tuple[Text, ...], msgspec.Meta(max_length=16)] = ()
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    include_usage: bool = True
    think_tags: tuple[Text, Text] = ("<think>", "</think>")
    """Around thoughts at the beginning of an answer, which are not spoken."""
    extra_body: Mapping[str, Any] = msgspec.field(default_factory=dict)


SMALL: Final = base.GenerationRequest(
    "", (base.Message("user", (base.TextInput("Hi"),)),), frozenset({"text"}), max_output_tokens=1
)
"""A request that costs next to nothing."""


def chat_body(request: base.GenerationRequest, options: ChatOptions) -> Json:
    """The fields of a streamed request. Those of ``extra_body`` win over what the other options say."""
    body: Json = {
        "model": options.model,
        "messages": chat_messages(request, system_role=options.system_role, alternate=options.alternate_roles),
        "stream": True,
    }
    if options.include_usage:
        body["stream_options"] = {"include_usage": True}
    if options.send_temperature:
        body["temperature"] = request.temperature if options.temperature is None else options.temperature
    if options.max_tokens_field != "none" and request.max_output_tokens is not None:
        body[options.max_tokens_field] = request.max_output_tokens
    for name, value in (("seed", options.seed), ("top_p", options.top_p), ("stop", list(options.stop) or None)):
        if value is not None:
            body[name] = value
    if request.tools and options.calls_tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = _tool_choice(request.tool_choice)
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.reasoning is not None:
        body["reasoning_effort"] = request.reasoning
    return body | dict(options.extra_body)


def _tool(tool: base.Tool) -> Json:
    parameters = dict(tool.parameters) or {"type": "object", "properties": {}}
    function: Json = {"name": tool.name, "parameters": parameters}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _tool_choice(choice: base.ToolChoice) -> str | Json:
    if isinstance(choice, base.NamedTool):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


# ------------------------------------------------------------------------------------------------- chunks


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Audio(msgspec.Struct):
    data: str | None = None
    transcript: str | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    audio: _Audio | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    audio_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    audio_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class Chunk(msgspec.Struct):
    """One event of the stream. Fields that are not here mean nothing to us."""

    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None

    @property
    def begins(self) -> bool:
        """The model is at work: it says something, if only to itself."""
        for choice in self.choices or ():
            delta = choice.delta or _Delta()
            if choice.finish_reason or delta.content or delta.refusal or delta.tool_calls or delta.audio:
                return True
            if delta.reasoning_content or delta.reasoning:
                return True
        return False


ChatDelta: TypeAlias = base.TextDelta | base.AudioDelta | base.ToolCallStart | base.ToolArgumentsDelta | base.Finish

_REASONS: Final[dict[str, Literal["stop", "max_output_tokens", "content_filter"]]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


class ChatReader:
    """Chunks -> what an engine yields.

    Calls are handed on one after the other, as the protocol has them: the first as it comes, the others at the end.
    """

    def __init__(self, options: ChatOptions, nonsense: base.EngineError) -> None:
        self.ended = False
        """The model has said that it is done."""
        self._nonsense = nonsense
        self._thoughts = _Thoughts(*options.think_tags)
        self._calls: list[_OpenCall] = []
        self._late: list[str] = []
        """Words that came after a call had begun; they are said after it."""
        self._reason: Literal["stop", "max_output_tokens", "content_filter"] = "stop"
        self._usage: base.Usage | None = None

    @property
    def calling(self) -> bool:
        """A call has begun."""
        return bool(self._calls)

    def read(self, chunk: Chunk) -> Iterable[base.TextDelta | base.ToolCallStart | base.ToolArgumentsDelta]:
        """What can be handed on now. Raises EngineError."""
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)
        for choice in (chunk.choices or ())[:1]:
            delta = choice.delta or _Delta()
            text = self._thoughts.left(delta.content or "") + (delta.refusal or "")
            if text and self._calls:
                self._late.append(text)
            elif text:
                yield base.TextDelta(text)
            for call in delta.tool_calls or ():
                yield from self._call(call)
            if choice.finish_reason:
                self.ended = True
                self._reason = _REASONS.get(choice.finish_reason, "stop")

    def end(self) -> Iterable[base.TextDelta | base.ToolCallStart | base.ToolArgumentsDelta | base.Finish]:
        """What was held back, and the end. Raises EngineError."""
        if rest := self._thoughts.rest():
            self._late.insert(0, rest)
            if not self._calls:
                yield base.TextDelta(self._late.pop(0))
        for place, call in enumerate(self._calls):
            if not call.name:
                raise self._nonsense
            if place > 0:
                yield base.ToolCallStart(call.name)
                if call.arguments:
                    yield base.ToolArgumentsDelta(call.arguments)
            if not call.arguments:
                yield base.ToolArgumentsDelta("{}")
        if self._late:
            yield base.TextDelta("".join(self._late))
        yield base.Finish(self._reason, self._usage)

    def _call(self, piece: _Call) -> Iterable[base.ToolCallStart | base.ToolArgumentsDelta]:
        function = piece.function or _Function()
        call = self._open_call(piece, function)
        live = call is self._calls[0]
        if function.name and not call.name:
            call.name = function.name
            if live:
                yield base.ToolCallStart(call.name)
                if call.arguments:
                    yield base.ToolArgumentsDelta(call.arguments)
        if function.arguments:
            call.arguments += function.arguments
            if live and call.name:
                yield base.ToolArgumentsDelta(function.arguments)

    def _open_call(self, piece: _Call, function: _Function) -> _OpenCall:
        """Which call a piece belongs to. Some servers give every call the index 0, or none, and tell them apart by
        their ids; some repeat the id in each piece."""
        same = [call for call in self._calls if piece.index is None or call.index == piece.index]
        call = same[-1] if same else None
        if call is None or (piece.id and call.id and piece.id != call.id and function.name):
            call = _OpenCall(piece.index)
            self._calls.append(call)
        call.id = call.id or piece.id or ""
        return call


class _OpenCall:
    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments = ""


class _Thoughts:
    """Takes the thoughts out of an answer that begins with them."""

    def __init__(self, begin: str, end: str) -> None:
        self._begin = begin
        self._end = end
        self._waiting = ""
        self._state: Literal["beginning", "thinking", "thought", "speaking"] = "beginning"

    def left(self, text: str) -> str:
        """What of ``text`` is to be spoken now."""
        if self._state == "speaking":
            return text
        self._waiting += text
        if self._state == "beginning":
            beginning = self._waiting.lstrip()
            if not beginning.startswith(self._begin):
                if self._begin.startswith(beginning):
                    return ""
                return self._speak(self._waiting)
            self._state = "thinking"
            self._waiting = beginning[len(self._begin) :]
        if self._state == "thinking":
            _, end, after = self._waiting.partition(self._end)
            if not end:
                # The mark may be cut in two.
                self._waiting = self._waiting[-len(self._end) :]
                return ""
            self._state = "thought"
            self._waiting = after
        said = self._waiting.lstrip()
        return self._speak(said) if said else ""

    def rest(self) -> str:
        """What waited for a mark that did not come."""
        return self._waiting if self._state == "beginning" else ""

    def _speak(self, text: str) -> str:
        self._state, self._waiting = "speaking", ""
        return text


def _usage(reported: Any) -> base.Usage | None:
    """None where the numbers make no sense: no answer should fail for its bill."""
    try:
        told = msgspec.convert(reported, _Usage)
    except msgspec.ValidationError:
        return None
    read, wrote = told.prompt_tokens, told.completion_tokens
    if read is None or wrote is None or read < 0 or wrote < 0:
        return None
    inputs, outputs = told.prompt_tokens_details, told.completion_tokens_details
    audio = _within(read, inputs.audio_tokens if inputs else 0)
    cached = _within(read, inputs.cached_tokens if inputs else 0)
    text = read - audio
    spoken = _within(wrote, outputs.audio_tokens if outputs else 0)
    return base.Usage(
        # Which part of it was cached is not told: text comes first in every prompt.
        base.InputUsage(text, audio, cached_text=min(cached, text), cached_audio=max(0, cached - text)),
        output_text=wrote - spoken,
        output_audio=spoken or None,
    )


def _within(whole: int, part: int | None) -> int:
    return min(whole, max(0, part or 0))


# ------------------------------------------------------------------------------------------------ exchange


def decoded(data: bytes) -> Chunk:
    """Raises ValueError (of which msgspec's errors are)."""
    return msgspec.json.decode(data, type=Chunk)


async def chunks(upstream: Upstream, body: Json, reader: ChatReader) -> AsyncGenerator[Chunk, None]:
    """The chunks of one completion. Raises EngineError."""

    def decode(data: bytes) -> Chunk:
        chunk = decoded(data)
        if chunk.error:
            raise upstream.reported(chunk.error)
        return chunk

    events = upstream.events(
        "chat/completions",
        decode=decode,
        begins=lambda chunk: chunk.begins,
        complete=lambda: reader.ended,
        json=body,
    )
    async with aclosing(events):
        async for chunk in events:
            yield chunk


async def completed(
    upstream: Upstream, body: Json, options: ChatOptions
) -> AsyncGenerator[base.TextDelta | base.ToolCallStart | base.ToolArgumentsDelta | base.Finish, None]:
    """A completion of text and calls, to its Finish. Raises EngineError."""
    reader = ChatReader(options, upstream.nonsense())
    try:
        async with aclosing(chunks(upstream, body, reader)) as received:
            async for chunk in received:
                for delta in reader.read(chunk):
                    yield delta
    except Refusal as refusal:
        if refusal.reason != "content_filter":
            raise
        yield base.Finish("content_filter")
        return
    for last in reader.end():
        yield last
