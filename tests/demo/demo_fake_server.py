"""A server that speaks just enough of the protocol, and a clock that moves in step with it.

After each ``append`` the fake sends what its script holds for that chunk, pings, and lets the client's clock
go on when the pong is back. A pong is answered in order with the events before it, so the client has always
taken everything in before it sends the next chunk: no test depends on timing.
"""

from __future__ import annotations

import asyncio
import io
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer
from rich.console import Console

from vivavoce.demo.clock import Wait
from vivavoce.demo.run import CHUNK, DemoOptions, Endpoint, run_demo
from vivavoce.demo.sound import Int16

KEY = "sk-very-secret-0123456789"
Event = dict[str, Any]


def tone(seconds: float, level: float = 0.5, rate: int = 24_000) -> Int16:
    n = np.arange(round(seconds * rate))
    return np.rint(level * 32767 * np.sin(2 * np.pi * 440 * n / rate)).astype(np.int16)


def event(type_: str, **fields: Any) -> Event:
    return {"type": type_, "event_id": "event_x", **fields}


class StepClock:
    """Time that passes only when the client may send its next chunk."""

    def __init__(self, expires: Sequence[Wait] = ()) -> None:
        self.time = 1000.0
        self.permits = asyncio.Semaphore(1)
        self.expires = expires

    def now(self) -> float:
        return self.time

    async def sleep_until(self, when: float) -> None:
        await self.permits.acquire()
        self.time = max(self.time, when)

    def limit(self, seconds: float, wait: Wait) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(0 if wait in self.expires else 60)


@dataclass
class Script:
    """What the fake says, and when. A ``float`` among the events lets so many seconds pass on the client's clock;
    an ``int`` closes the connection with that code."""

    greeting: Sequence[Event] = (event("session.created", session={"id": "sess_1", "model": "fake-model"}),)
    on_update: Sequence[Event | int] = (event("session.updated", session={"id": "sess_1"}),)
    at_chunk: Mapping[int, Sequence[Event | float | int]] = field(default_factory=dict)
    on_response: Sequence[Event | float | int] = ()
    refuse: web.Response | None = None
    hang_at: int | None = None
    """Stop the clock at this chunk."""


class FakeServer:
    def __init__(self, script: Script, clock: StepClock) -> None:
        self.script = script
        self.clock = clock
        self.requests: list[web.BaseRequest] = []
        self.events: list[Event] = []
        self.chunks = 0
        self.hangs = asyncio.Event()
        self.close_code: int | None = None
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if self.script.refuse is not None:
            return self.script.refuse
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        await self._say(socket, self.script.greeting)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await self._hear(socket, json.loads(message.data))
            elif message.type is WSMsgType.PONG:
                self.clock.permits.release()
        self.close_code = socket.close_code
        return socket

    async def _hear(self, socket: web.WebSocketResponse, heard: Event) -> None:
        self.events.append(heard)
        match heard["type"]:
            case "session.update":
                await self._say(socket, self.script.on_update)
            case "response.create":
                await self._say(socket, self.script.on_response)
            case "input_audio_buffer.append":
                await self._say(socket, self.script.at_chunk.get(self.chunks, ()))
                self.chunks += 1
                if self.chunks == self.script.hang_at:
                    self.hangs.set()
                elif not socket.closed:
                    await socket.ping()

    async def _say(self, socket: web.WebSocketResponse, script: Sequence[Event | float | int]) -> None:
        for step in script:
            match step:
                case float():
                    await socket.ping()
                    while (await socket.receive()).type is not WSMsgType.PONG:
                        raise AssertionError("the client spoke while the script held the clock")
                    self.clock.time += step
                case int():
                    await socket.close(code=step, message=b"as scripted")
                case dict():
                    await socket.send_str(json.dumps(step))

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Endpoint]:
        app = web.Application()
        app.router.add_get("/{anything:.*}", self.handle)
        async with TestServer(app) as server:
            self.url = f"ws://127.0.0.1:{server.port}"
            yield Endpoint(self.url, KEY)


@dataclass
class Outcome:
    code: int
    out: str
    server: FakeServer


async def hold(
    script: Script,
    options: DemoOptions,
    *,
    expires: Sequence[Wait] = (),
    own_server: bool = True,
    options_for: Callable[[str], DemoOptions] | None = None,
) -> Outcome:
    """Run the demo against the script, on a console that is no terminal."""
    clock = StepClock(expires)
    server = FakeServer(script, clock)
    out = io.StringIO()
    console = Console(file=out)
    if own_server:
        code = await run_demo(options, serve=server.serve, console=console, clock=clock)
    else:
        assert options_for is not None
        async with server.serve() as endpoint:
            chosen = options_for(endpoint.url)
            code = await run_demo(chosen, serve=server.serve, console=console, clock=clock)
    return Outcome(int(code), out.getvalue(), server)


# -- what a server says about one turn and its answer ---------------------------------------------------


def started(ms: int, item: str = "item_1") -> Event:
    return event("input_audio_buffer.speech_started", audio_start_ms=ms, item_id=item)


def stopped(ms: int, item: str = "item_1") -> list[Event]:
    return [
        event("input_audio_buffer.speech_stopped", audio_end_ms=ms, item_id=item),
        event("input_audio_buffer.committed", item_id=item, previous_item_id=None),
        event("conversation.item.created", item={"id": item}, previous_item_id=None),
    ]


def heard(text: str, item: str = "item_1") -> Event:
    name = "conversation.item.input_audio_transcription.completed"
    return event(name, item_id=item, content_index=0, transcript=text)


def created(response: str = "resp_1") -> Event:
    return event("response.created", response={"id": response, "status": "in_progress", "output": []})


def words(text: str, response: str = "resp_1") -> Event:
    ids = {"response_id": response, "item_id": "item_" + response, "output_index": 0, "content_index": 0}
    return event("response.audio_transcript.delta", **ids, delta=text)


def words_done(text: str, response: str = "resp_1") -> Event:
    ids = {"response_id": response, "item_id": "item_" + response, "output_index": 0, "content_index": 0}
    return event("response.audio_transcript.done", **ids, transcript=text)


def audio(sound: Int16, response: str = "resp_1") -> Event:
    ids = {"response_id": response, "item_id": "item_" + response, "output_index": 0, "content_index": 0}
    return event("response.audio.delta", **ids, delta=b64encode(sound.astype("<i2").tobytes()).decode())


def done(response: str = "resp_1", status: str = "completed", details: Event | None = None) -> Event:
    return event("response.done", response={"id": response, "status": status, "status_details": details})


def answer(response: str = "resp_1", sound: Int16 | None = None) -> list[Event]:
    """A whole answer "You said hello", with 0.2 s of sound unless told otherwise."""
    sound = tone(0.2) if sound is None else sound
    return [
        created(response),
        words("You said", response),
        *([audio(sound[:1000], response)] if sound.size else []),
        words(" hello", response),
        *([audio(sound[1000:], response)] if sound.size else []),
        event("response.audio.done", response_id=response),
        words_done("You said hello", response),
        done(response),
    ]


QUESTION_CHUNKS = 20
LOUD_CHUNK = 14


def question() -> Int16:
    """0.4 s: silence, then a tone whose last sample is in chunk 14, then silence."""
    sound = np.zeros(QUESTION_CHUNKS * CHUNK, np.int16)
    sound[5 * CHUNK : (LOUD_CHUNK + 1) * CHUNK] = tone(0.2)
    return sound
