"""A strict server of the OpenAI API: it refuses what the service refuses, and answers what a test tells it.

Requests are held against the types of the ``openai`` package, unknown fields included, and then against the rules
that the types do not tell: the order of calls and outputs, tools and their choice.
"""

from __future__ import annotations

import asyncio
import io
import json
import threading
import wave
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from aiohttp import web
from openai.types.audio.speech_create_params import SpeechCreateParams
from openai.types.audio.transcription_create_params import TranscriptionCreateParamsNonStreaming
from openai.types.chat import ChatCompletionMessageParam
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from pydantic import TypeAdapter, ValidationError

KEY: Final = "sk-fake"
MODEL: Final = "some-model"

_CHAT: Final = TypeAdapter[Any](CompletionCreateParamsStreaming)
_MESSAGE: Final = TypeAdapter[Any](ChatCompletionMessageParam)
_SPEECH: Final = TypeAdapter[Any](SpeechCreateParams)
_NOT_IN_A_FORM: Final = {"file", "include[]"}


class Refused(Exception):
    """A request that the service would refuse."""


@dataclass
class Asked:
    """One request as it came."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: dict[str, Any]
    """JSON, or the fields of a form; a file as its bytes."""


Answer: TypeAlias = Callable[[web.Request], AsyncIterator[bytes] | web.Response]


@dataclass
class Fake:
    """``answers`` are given in order to what is posted; without any, ``always`` gives one for each request."""

    answers: deque[Any] = field(default_factory=deque)
    always: Callable[[Asked], Any] | None = None
    models: Any = field(default_factory=lambda: {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
    models_status: int = 200
    asked: list[Asked] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """A client has closed the stream of an answer before its end."""
    key: str | None = KEY
    url: str = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Fake]:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/openai/models", self._models)
        app.router.add_post("/{path:.*}", self._post)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    @contextmanager
    def in_a_thread(self) -> Iterator[Fake]:
        """For who has an event loop of his own for each step."""
        ready, over = threading.Event(), asyncio.Event()
        loop = asyncio.new_event_loop()

        async def serve() -> None:
            async with self.serving():
                ready.set()
                await over.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
        thread.start()
        ready.wait()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join()
            loop.close()

    # -------------------------------------------------------------------------------------------- requests

    async def _models(self, request: web.Request) -> web.Response:
        if not self._may(request):
            return _error(401, "invalid_api_key")
        return web.json_response(self.models, status=self.models_status)

    def _may(self, request: web.Request) -> bool:
        if self.key is None:
            return True
        return self.key in (
            request.headers.get("api-key"),
            request.headers.get("authorization", "").removeprefix("Bearer "),
        )

    async def _post(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport and request.transport.get_extra_info("peername"))
        if not self._may(request):
            return _error(401, "invalid_api_key")
        path = request.path.split("/v1/")[-1].split("/deployments/")[-1]
        path = path.split("/", 1)[1] if request.path.startswith("/openai/") else path
        try:
            body = await _read(request, path)
        except Refused as refused:
            self.refused.append(str(refused))
            return _error(400, "invalid_request_error")
        asked = Asked(path, dict(request.query), dict(request.headers), body)
        self.asked.append(asked)
        answer = self.answers.popleft() if self.answers or self.always is None else self.always(asked)
        if isinstance(answer, web.Response):
            return answer
        return await self._stream(request, answer)

    async def _stream(self, request: web.Request, answer: Stream) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": answer.content_type})
        await response.prepare(request)
        try:
            for piece in answer.pieces:
                if isinstance(piece, asyncio.Event):
                    await piece.wait()
                else:
                    await response.write(piece)
            if answer.cut and request.transport is not None:
                request.transport.abort()
        except (asyncio.CancelledError, ConnectionError):
            self.gone.set()
            raise
        return response


@dataclass
class Stream:
    """``pieces``: bytes to send, and events to wait for."""

    pieces: list[Any]
    content_type: str = "text/event-stream"
    cut: bool = False
    """Break the connection at the end."""


def _error(
    status: int, code: str, *, message: str = "no", headers: Mapping[str, str] | None = None
) -> web.Response:
    error = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return web.json_response(error, status=status, headers=headers)


error = _error


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE: Final = b"data: [DONE]\n\n"


def chunk(delta: Mapping[str, Any] | None = None, finish: str | None = None, **beside: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return event(
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices} | beside
    )


def says(*words: str, finish: str = "stop", usage: Mapping[str, Any] | None = None) -> Stream:
    """A completion of text."""
    pieces: list[Any] = [chunk({"role": "assistant", "content": ""})]
    pieces += [chunk({"content": word}) for word in words]
    pieces.append(chunk({}, finish))
    if usage is not None:
        pieces.append(chunk(usage=usage))
    return Stream([*pieces, DONE])


def calls(name: str, *arguments: str) -> Stream:
    """A completion that is a call."""
    first = {"index": 0, "id": "call_up", "type": "function", "function": {"name": name, "arguments": ""}}
    pieces: list[Any] = [chunk({"role": "assistant", "content": None, "tool_calls": [first]})]
    pieces += [chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in arguments]
    return Stream([*pieces, chunk({}, "tool_calls"), DONE])


# ---------------------------------------------------------------------------------------------- strictness


async def _read(request: web.Request, path: str) -> dict[str, Any]:
    if path == "audio/transcriptions":
        return _check_form(await _form(request))
    body: dict[str, Any] = await request.json()
    if path == "chat/completions":
        _check_chat(body)
    elif path == "audio/speech":
        _check(_SPEECH, body)
        if not body["input"].strip() or len(body["input"]) > 4096:
            raise Refused("input: 1 to 4096 characters")
    else:
        raise Refused(f"no such path: {path}")
    return body


async def _form(request: web.Request) -> dict[str, Any]:
    form: dict[str, Any] = {}
    for name, value in (await request.post()).items():
        if isinstance(value, web.FileField):
            form[name] = value.file.read()
        elif name.endswith("[]"):
            form.setdefault(name, []).append(value)
        else:
            form[name] = value
    return form


def _check_form(form: dict[str, Any]) -> dict[str, Any]:
    known = set(TranscriptionCreateParamsNonStreaming.__annotations__) | {"include[]", "stream"}
    base = TranscriptionCreateParamsNonStreaming.__mro__[0]
    for cls in getattr(base, "__orig_bases__", ()):
        known |= set(getattr(cls, "__annotations__", {}))
    if unknown := set(form) - known:
        raise Refused(f"unknown: {unknown}")
    for name in ("file", "model"):
        if not form.get(name):
            raise Refused(f"{name} is missing")
    with wave.open(io.BytesIO(form["file"])) as file:
        if file.getnframes() * 10 < file.getframerate():
            raise Refused("audio_too_short")
    if form.get("include[]", ["logprobs"]) != ["logprobs"] or form.get("response_format") != "json":
        raise Refused("logprobs come with json")
    return form


def _check(adapter: TypeAdapter[Any], value: object) -> None:
    try:
        read = _plain(adapter.validate_python(value, strict=True))
    except ValidationError as fault:
        raise Refused(str(fault)) from None
    if read != value:
        raise Refused(f"unknown fields: {value}")


def _plain(value: Any) -> Any:
    """Iterables are read by pydantic when somebody iterates; what it does not know it leaves out."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_plain(inner) for inner in value]
    return value


def _check_chat(body: dict[str, Any]) -> None:
    _check(_CHAT, body)
    if not body["messages"]:
        raise Refused("messages is empty")
    open_calls: list[str] = []
    for message in body["messages"]:
        _check(_MESSAGE, message)
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise Refused("a tool message answers a call of the assistant message before it, once")
            open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            raise Refused("each tool call must be answered")
        calls = message.get("tool_calls", [])
        open_calls = [call["id"] for call in calls]
        if not all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in calls):
            raise Refused("arguments are a JSON object")
        if message.get("content") is None and not calls:
            raise Refused("content is missing")
    if open_calls:
        raise Refused("each tool call must be answered")
    if body.get("tools") == [] or ("tool_choice" in body and "tools" not in body):
        raise Refused("tool_choice needs tools, which are not empty")
    if len(body.get("stop") or ()) > 4:
        raise Refused("stop has up to 4")
    if "audio" in body.get("modalities", []) and body["audio"]["format"] != "pcm16":
        raise Refused("streamed audio is pcm16")
