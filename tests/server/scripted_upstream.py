"""A Realtime server that does what a test says, right or wrong, for a relay to meet."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer
from server_fakes import CONFIG, PATIENCE_S, Fakes

from vivavoce.engines.registry import Engine, EngineKind
from vivavoce.engines.upstream_realtime import UpstreamRealtime, create
from vivavoce.server.app import Server, running

UPSTREAM_KEY: Final = "the-upstream-key"
SOUND: Final = bytes(range(240)) * 20
"""100 ms."""

Event: TypeAlias = dict[str, Any]


class Gone(Exception):
    """The relay has hung up."""


class Up:
    """The upstream end of one connection."""

    def __init__(self, socket: web.WebSocketResponse, number: int) -> None:
        self._socket = socket
        self.number = number
        """Of the connection, from 1."""
        self.heard: list[Event] = []
        self.closed = asyncio.Event()

    async def next(self, kind: str) -> Event:
        """What the relay says, up to this."""
        while True:
            message = await self._socket.receive()
            if message.type is not WSMsgType.TEXT:
                raise Gone
            event: Event = json.loads(message.data)
            self.heard.append(event)
            if event["type"] == kind:
                return event

    async def say(self, kind: str, **fields: Any) -> None:
        await self._socket.send_str(json.dumps({"type": kind, "event_id": "event_x", **fields}))

    async def say_raw(self, text: str | bytes) -> None:
        await (self._socket.send_str(text) if isinstance(text, str) else self._socket.send_bytes(text))

    def drop(self) -> None:
        """The connection is gone without a word."""
        transport = self._socket._req.transport if self._socket._req is not None else None
        assert transport is not None
        transport.abort()

    async def close(self, code: int = 1000) -> None:
        await self._socket.close(code=code)

    # ---------------------------------------------------------------------------- pieces of a right answer

    async def created(self, name: str = "r1") -> Event:
        event = await self.next("response.create")
        await self.say("response.created", response={"id": name, "status": "in_progress"})
        return event

    async def message(self, item: str = "i1", response: str = "r1", index: int = 0) -> None:
        made = {"id": item, "type": "message", "role": "assistant", "content": []}
        await self.say("response.output_item.added", response_id=response, output_index=index, item=made)

    async def words(self, text: str, item: str = "i1", response: str = "r1") -> None:
        await self.say("response.audio_transcript.delta", response_id=response, item_id=item, delta=text)

    async def sound(self, pcm: bytes = SOUND, item: str = "i1", response: str = "r1") -> None:
        delta = base64.b64encode(pcm).decode()
        await self.say("response.audio.delta", response_id=response, item_id=item, delta=delta)

    async def item_done(self, item: str = "i1", response: str = "r1") -> None:
        await self.say("response.output_item.done", response_id=response, item={"id": item, "type": "message"})

    async def done(self, response: str = "r1", status: str = "completed", **fields: Any) -> None:
        await self.say("response.done", response={"id": response, "status": status, **fields})

    async def answer(self, text: str = "Yes.", name: str = "1") -> Event:
        """A whole spoken response, of one message."""
        event = await self.created(f"r{name}")
        await self.message(f"i{name}", f"r{name}")
        await self.words(text, f"i{name}", f"r{name}")
        await self.sound(SOUND, f"i{name}", f"r{name}")
        await self.item_done(f"i{name}", f"r{name}")
        await self.done(f"r{name}")
        return event


Play: TypeAlias = Callable[[Up], Awaitable[None]]


class ScriptedUpstream:
    """Connections play the plays in their order, the last of them again and again."""

    def __init__(self, *plays: Play) -> None:
        self.plays = plays
        self.connections: list[Up] = []
        self.requests: list[web.Request] = []
        self.refusal: web.Response | None = None
        """In the place of an upgrade."""
        self.greeting: Event | None = {"type": "session.created", "session": {"id": "sess_up"}}
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.refusal is not None:
            return self.refusal
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        up = Up(socket, len(self.connections) + 1)
        self.connections.append(up)
        try:
            if self.greeting is not None:
                await socket.send_str(json.dumps(self.greeting))
            await self.plays[min(up.number, len(self.plays)) - 1](up)
            while True:
                await up.next("")
        except (Gone, ConnectionError):
            pass
        finally:
            up.closed.set()
        return socket

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ScriptedUpstream]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self.handle)
        server = TestServer(app)
        await server.start_server()
        assert server.port is not None
        self.port = server.port
        try:
            yield self
        finally:
            await server.close()


class Relays(Fakes):
    """Fakes, and a relay."""

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__()
        relay = create(options)
        assert isinstance(relay, UpstreamRealtime)
        self.relay = relay

    def create(
        self, kind: EngineKind, name: str, options: Mapping[str, object], *, base: Path | None = None
    ) -> Engine:
        return self.relay if kind == "speech_model" else super().create(kind, name, options, base=base)


def options(port: int, **more: object) -> dict[str, object]:
    """Of a relay to a server on this machine."""
    return {
        "url": f"ws://127.0.0.1:{port}/v1/realtime?model=m",
        "dialect": "preview",
        "api_key": UPSTREAM_KEY,
        "check_at_start": False,
        "connect_timeout_s": PATIENCE_S,
        "first_output_timeout_s": PATIENCE_S,
        "idle_timeout_s": PATIENCE_S,
    } | more


@asynccontextmanager
async def relaying(port: int, **more: object) -> AsyncIterator[tuple[Server, UpstreamRealtime]]:
    """A server in front of the one on ``port``; ``more`` are options of the relay."""
    deployment = msgspec.structs.replace(CONFIG.deployments[0], speech_model="fake")
    settings = msgspec.structs.replace(CONFIG, deployments=(deployment,))
    registry = Relays(options(port, **more))
    async with running(settings, host="127.0.0.1", port=0, registry=registry) as server:
        yield server, registry.relay
