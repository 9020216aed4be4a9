"""Memory of sessions: listening, speaking, and after half an hour of talk.

The half hour is sent as fast as the server takes it: turns are counted on the audio clock, not on the wall's. What
is held is looked at between two turns, when all is said, and again after the allocator gave back what is free.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from typing import Final

import aiohttp

from bench.load import question
from bench.processes import Server, measure
from bench.report import Figures
from bench.server import KEY

_BYTES_PER_MS: Final = 48
_CHUNK_MS: Final = 100
_PAUSE_MS: Final = 2000
_CALLERS: Final = 100
_LONG_CALLERS: Final = 20
_WARMERS: Final = 5
_SETTLE_S: Final = 20.0
_ANSWERED_S: Final = 0.5


class Caller:
    """One client, and what its conversation holds of sound."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._started_ms = 0
        self._clear = asyncio.Event()
        self.answered = asyncio.Event()
        """Set while no response is under way."""
        self.answered.set()
        self.items = 0
        self.audio_bytes = 0
        """User audio that was committed, and assistant audio."""

    async def say(self, frame: str) -> None:
        await self._socket.send_str(frame)

    async def settle(self) -> None:
        """Until the server has handled all that was sent: a commit of nothing is refused in its turn."""
        self._clear.clear()
        await self._socket.send_str('{"type":"vivavoce.nothing"}')
        async with asyncio.timeout(_SETTLE_S):
            await self._clear.wait()

    async def read(self) -> None:
        async for message in self._socket:
            event = json.loads(message.data)
            match event["type"]:
                case "input_audio_buffer.speech_started":
                    self._started_ms = event["audio_start_ms"]
                case "input_audio_buffer.speech_stopped":
                    self.audio_bytes += (event["audio_end_ms"] - self._started_ms) * _BYTES_PER_MS
                case "conversation.item.created":
                    self.items += 1
                case "response.created":
                    self.answered.clear()
                case "response.done":
                    self.answered.set()
                case "response.audio.delta":
                    self.audio_bytes += len(event["delta"]) * 3 // 4
                case "error":
                    self._clear.set()


def _frames() -> list[str]:
    """Append events of a turn."""
    size = _CHUNK_MS * _BYTES_PER_MS
    sound = question().astype("<i2").tobytes() + bytes(_PAUSE_MS * _BYTES_PER_MS)
    sound += bytes(-len(sound) % size)
    return [
        json.dumps(
            {
                "type": "input_audio_buffer.append",
                "audio": base64.b64encode(sound[at : at + size]).decode(),
            }
        )
        for at in range(0, len(sound), size)
    ]


async def _talk(
    server: Server, callers: int, minutes: Sequence[int], note: Callable[[int, list[Caller]], None]
) -> None:
    """Sessions that hear so many minutes of sound.

    ``note(minute, callers)`` is called after the turn that ends each of ``minutes``, while they are all open.
    """
    frames = _frames()
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
        crowd: list[Caller] = []
        sockets = []
        for _ in range(callers):
            socket = await http.ws_connect(server.url("prompt"), headers={"api-key": KEY}, max_msg_size=0)
            sockets.append(socket)
            crowd.append(Caller(socket))
            group.create_task(crowd[-1].read())
        said_ms = 0
        for minute in minutes:
            while said_ms < minute * 60_000:
                for frame in frames:
                    for caller in crowd:
                        await caller.say(frame)
                for caller in crowd:
                    await caller.settle()
                said_ms += len(frames) * _CHUNK_MS
            await asyncio.sleep(_ANSWERED_S)
            for caller in crowd:
                await caller.answered.wait()
            note(minute, crowd)
        for socket in sockets:
            await socket.close()


def minute_of_talk() -> Figures:
    """What a session holds after a minute of silence, and after one of talk, in real time: everything, the sound of
    its present turn included, on a server that has served others before."""
    figures: Figures = {}
    for who, arguments in (("listening", ("--mute",)), ("speaking", ())):
        with Server() as server:
            measure(server, server.url("prompt"), _WARMERS, "--seconds", "5", "--warmup-s", "1")
            before = server.usage()["rss_kb"]
            url = server.url("prompt")
            run = measure(server, url, _CALLERS, "--seconds", "55", "--warmup-s", "5", *arguments)
            figures[f"KB per {who} session"] = (run.rss_kb - before) / _CALLERS
    return figures


def half_an_hour() -> Figures:
    """What a session holds while it talks for half an hour."""
    figures: Figures = {}
    with Server() as server:
        asyncio.run(_talk(server, _WARMERS, (1,), lambda minute, crowd: None))
        before, tidy_before = server.usage()["rss_kb"], server.usage(tidy=True)["rss_kb"]

        def note(minute: int, crowd: list[Caller]) -> None:
            held, tidy = server.usage()["rss_kb"], server.usage(tidy=True)["rss_kb"]
            figures[f"KB per session after {minute} min"] = (held - before) / _LONG_CALLERS
            figures[f"KB of it in use after {minute} min"] = (tidy - tidy_before) / _LONG_CALLERS
            figures[f"items after {minute} min"] = sum(caller.items for caller in crowd) / _LONG_CALLERS
            sound = sum(caller.audio_bytes for caller in crowd) / _LONG_CALLERS
            figures[f"KB of sound heard and said in {minute} min"] = sound / 1024

        asyncio.run(_talk(server, _LONG_CALLERS, (1, 5, 10, 20, 30), note))
    return figures
