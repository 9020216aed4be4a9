"""Neither a flood nor a slow reader grows memory, and nobody who stops reading stays for ever."""

from __future__ import annotations

import asyncio
import base64
import json
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import server_fixtures
from server_fakes import AZURE, KEY, Fakes, config, loud, no_sessions, only, quiet, rest, serving, session
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket

from vivavoce.runtime.driver import Driver
from vivavoce.runtime.vad_pool import MAX_BACKLOG_TICKS
from vivavoce.server.app import Server
from vivavoce.server.outbox import ROOM_BYTES, SocketOutbox
from vivavoce.wire.codec import MAX_FRAME_BYTES
from vivavoce.wire.dialects.shapes import APPEND_LIMIT

fakes = server_fixtures.fakes
server = server_fixtures.server

LARGEST_DELTA = 8192


class Stuck:
    """Tells when a producer waits for room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outbox: SocketOutbox | None = None
        self.waiting = asyncio.Event()
        drained = SocketOutbox.drained

        async def watched(outbox: SocketOutbox) -> None:
            if outbox.crowded:
                self.outbox = outbox
                self.waiting.set()
            await drained(outbox)

        monkeypatch.setattr(SocketOutbox, "drained", watched)

    async def bytes_waiting(self) -> int:
        async with asyncio.timeout(30):
            await self.waiting.wait()
        await rest()
        assert self.outbox is not None
        return self.outbox._bytes


@asynccontextmanager
async def slow_reader(server: Server) -> AsyncIterator[ClientConnection]:
    """A client whose system takes little that it has not asked for, past the greeting."""
    small = sockets.socket()
    small.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", server.port))
    url = f"ws://127.0.0.1:{server.port}{AZURE}"
    headers = {"api-key": KEY}
    client = await open_websocket(
        url,
        sock=small,
        additional_headers=headers,
        max_queue=1,
        ping_interval=None,
        close_timeout=0.1,
        # The same noise again and again: compressed, there would be too little of it to wait.
        compression=None,
    )
    try:
        await client.recv()
        await client.recv()
        yield client
    finally:
        client.transport.abort()
        await client.wait_closed()


async def test_a_slow_reader_holds_the_reply_back_and_loses_nothing(
    fakes: Fakes, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck(monkeypatch)
    fakes.synthesizer.seconds = 240.0
    async with slow_reader(server) as client:
        await client.send('{"type":"response.create"}')
        assert ROOM_BYTES < await stuck.bytes_waiting() <= ROOM_BYTES + 2 * LARGEST_DELTA
        made = -1
        while made != (made := fakes.synthesizer.made):
            # Systems give a connection more room as it goes on.
            await rest()
        assert made < 2400
        assert await stuck.bytes_waiting() <= ROOM_BYTES + 2 * LARGEST_DELTA
        sound = 0
        while True:
            event = json.loads(await client.recv())
            if event["type"] == "response.audio.delta":
                sound += len(base64.b64decode(event["delta"]))
            if event["type"] == "response.done":
                break
        assert (event["response"]["status"], sound) == ("completed", 240 * 48_000)
        assert fakes.synthesizer.made == 2400


async def test_a_reader_that_stopped_is_cut_off(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would answer no ping either."""
    tasks = asyncio.all_tasks()
    stuck = Stuck(monkeypatch)
    fakes.synthesizer.seconds = 1e9
    async with serving(config(ping_interval_s=0.2)) as server:
        async with slow_reader(server) as client:
            await client.send('{"type":"response.create"}')
            await stuck.bytes_waiting()
            await no_sessions(server)
        assert (fakes.model.running, fakes.synthesizer.running) == (0, 0)
    await only(tasks)


async def test_a_reader_that_stopped_cannot_hold_up_the_end(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = asyncio.all_tasks()
    stuck = Stuck(monkeypatch)
    fakes.synthesizer.seconds = 1e9
    async with serving(config(shutdown_grace_s=0.1)) as server, slow_reader(server) as client:
        await client.send('{"type":"response.create"}')
        await stuck.bytes_waiting()
        await server.endpoint.drain(0.1)
        await no_sessions(server)
    await only(tasks)


async def test_a_flood_of_audio_meets_back_pressure(
    fakes: Fakes, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    drivers: list[Driver] = []
    waiting = asyncio.Event()
    ready = Driver.ready

    async def watched(driver: Driver) -> None:
        drivers.append(driver)
        waiting.set()
        await ready(driver)

    monkeypatch.setattr(Driver, "ready", watched)
    second = 24_000
    async with session(server) as wire:
        await wire.update(turn_detection={"type": "server_vad", "create_response": False})
        fakes.vad.gate.clear()
        flood: asyncio.Task[Any] | None = None
        try:

            async def pour() -> None:
                audio = base64.b64encode(quiet(1)).decode()
                for _ in range(60):
                    await wire.send("input_audio_buffer.append", audio=audio)
                await wire.send("input_audio_buffer.append", audio=base64.b64encode(loud(0.5) + quiet(1)).decode())

            flood = asyncio.create_task(pour())
            async with asyncio.timeout(30):
                await waiting.wait()
            await rest()
            (driver,) = drivers
            assert driver.busy
            held = driver._hearing.vad.backlog_ticks
            assert MAX_BACKLOG_TICKS < held <= MAX_BACKLOG_TICKS + second
        finally:
            fakes.vad.gate.set()
        await flood
        events = await wire.until("conversation.item.created")
        assert events[0]["type"] == "input_audio_buffer.speech_started"
        # All of it came to the ear, in its place: a padding of 300 ms before the onset.
        assert 60_000 - 300 - 32 <= events[0]["audio_start_ms"] <= 60_000 - 300 + 32


async def test_the_largest_append(server: Server) -> None:
    async with session(server, max_msg_size=0) as wire:
        await wire.update(turn_detection=None)
        await wire.send("input_audio_buffer.append", audio=base64.b64encode(bytes(APPEND_LIMIT)).decode())
        await wire.silence()
        audio = base64.b64encode(bytes(APPEND_LIMIT + 2)).decode()
        await wire.send("input_audio_buffer.append", audio=audio, event_id="too-much")
        error = (await wire.next())["error"]
        assert (error["type"], error["param"], error["event_id"]) == ("invalid_request_error", "audio", "too-much")
        assert str(APPEND_LIMIT) in error["message"]
        await wire.silence()


async def test_a_frame_that_is_too_large(server: Server) -> None:
    async with session(server) as other, session(server) as wire:
        sending = asyncio.create_task(wire.socket.send_str("x" * (MAX_FRAME_BYTES + 1)))
        assert await wire.closed() == 1009
        await asyncio.wait([sending])
        sending.exception()
        await other.silence()


async def test_binary_frames_and_nonsense_are_answered(server: Server) -> None:
    async with session(server) as wire:
        await wire.socket.send_bytes(b'{"type":"input_audio_buffer.clear"}')
        assert (await wire.next())["error"]["code"] == "invalid_event"
        for text, code in [
            ("", "invalid_json"),
            ("[]", "invalid_event"),
            ("{}", "invalid_event"),
            ("[" * 9999, None),
        ]:
            await wire.socket.send_str(text)
            error = (await wire.next())["error"]
            assert error["code"] == (code or "invalid_json")
        await wire.silence()
