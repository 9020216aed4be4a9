"""Whatever a peer does to its connection: memory stays bounded, it is cut off in time, and others do not notice."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import server_fixtures
from aiohttp import ClientSession, WSServerHandshakeError
from raw_socket import PING, TEXT, event, frame, raw_socket
from server_fakes import (
    AZURE,
    KEY,
    PATIENCE_S,
    Fakes,
    config,
    eventually,
    no_sessions,
    only,
    rest,
    serving,
    session,
)

from vivavoce.core.input_audio import MAX_BUFFER_TICKS
from vivavoce.runtime.driver import Driver
from vivavoce.server import handshake, outbox, websocket
from vivavoce.server.app import Server
from vivavoce.server.outbox import FULL_BYTES, SocketOutbox
from vivavoce.wire.dialects.shapes import APPEND_LIMIT

fakes = server_fixtures.fakes
server = server_fixtures.server

LARGEST_ANSWER = 1024
HEAD = f"GET {AZURE} HTTP/1.1\r\nHost: x\r\napi-key: {KEY}\r\n"


@asynccontextmanager
async def connection(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def the_end(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


# --------------------------------------------------------------------------------------------------- before it


@pytest.mark.parametrize("sent", ["", "G", HEAD, f"{HEAD}Upgrade: websoc"])
async def test_half_a_request_is_cut_off_and_sessions_are_not(fakes: Fakes, sent: str) -> None:
    async with serving(config(request_timeout_s=0.2)) as server, session(server) as wire:
        async with connection(server) as (reader, writer):
            writer.write(sent.encode())
            assert await the_end(reader) == b""
        await wire.silence()


async def test_an_idle_connection_is_cut_off(fakes: Fakes) -> None:
    async with serving(config(request_timeout_s=0.2)) as server, connection(server) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await the_end(reader)).startswith(b"HTTP/1.1 200 ")


OVERSIZED = {
    "headers": HEAD + "".join(f"a{n}: x\r\n" for n in range(200)) + "\r\n",
    "header": f"{HEAD}long: {'x' * 10_000}\r\n\r\n",
    "header without end": HEAD + "long: " + "x" * 1_000_000,
    "name without end": HEAD + "x" * 1_000_000,
    "target": f"GET {AZURE}&x={'y' * 10_000} HTTP/1.1\r\nHost: x\r\n\r\n",
    "target without end": "GET /" + "y" * 1_000_000,
}


@pytest.mark.parametrize("name", OVERSIZED)
async def test_an_oversized_request_is_refused(server: Server, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with session(server) as wire, connection(server) as (reader, writer):
        writer.write(OVERSIZED[name].encode())
        answer = await the_end(reader)
        # Of one without end not everything is read, so that the connection is reset and the answer may be lost.
        assert answer.startswith(b"HTTP/1.0 400 ") or (not answer and "without end" in name)
        assert "a request was refused" in caplog.text
        await wire.silence()


async def test_a_crowd_at_the_door(fakes: Fakes) -> None:
    async with (
        serving(config(max_sessions=5)) as server,
        ClientSession(f"http://127.0.0.1:{server.port}") as client,
    ):
        knocks = [client.ws_connect(AZURE, headers={"api-key": KEY}) for _ in range(60)]
        answers = await asyncio.gather(*knocks, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, WSServerHandshakeError)]
        sockets = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert (len(refused), len(sockets), server.endpoint.open_sessions) == (55, 5, 5)
        for answer in refused:
            assert answer.headers is not None
            assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        for socket in sockets:
            await socket.close()
        await no_sessions(server)
        async with session(server) as wire:
            await wire.silence()


# --------------------------------------------------------------------------------------------------- within it


async def test_a_hundred_thousand_messages_from_who_does_not_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    send = SocketOutbox.send

    def watched(box: SocketOutbox, data: bytes) -> None:
        nonlocal most
        send(box, data)
        most = max(most, box._bytes)

    monkeypatch.setattr(SocketOutbox, "send", watched)
    full = asyncio.Event()
    ready = Driver.ready

    async def noted(driver: Driver) -> None:
        full.set()
        await ready(driver)

    monkeypatch.setattr(Driver, "ready", noted)
    count = 100_000
    async with session(server) as other, raw_socket(server, receive_bytes=4096) as client:
        client.write(frame(TEXT, b"{}") * count)
        async with asyncio.timeout(PATIENCE_S):
            await full.wait()
        await rest()
        # The socket is read no further than the answers to what was read have room.
        assert FULL_BYTES < most <= FULL_BYTES + LARGEST_ANSWER
        await other.silence()
        await other.send("response.create")
        assert (await other.until("response.done"))[-1]["response"]["status"] == "completed"
        monkeypatch.undo()
        for _ in range(count):
            assert (await client.read())[0] == TEXT
        client.write(event("input_audio_buffer.clear"))
        assert (await client.event())["type"] == "input_audio_buffer.cleared"
    assert most <= FULL_BYTES + LARGEST_ANSWER


async def test_the_largest_appends_back_to_back(server: Server) -> None:
    held = MAX_BUFFER_TICKS * 2 // APPEND_LIMIT
    append = event("input_audio_buffer.append", audio=base64.b64encode(bytes(APPEND_LIMIT)).decode())
    async with session(server) as other, raw_socket(server) as client:
        client.write(event("session.update", session={"turn_detection": None}))
        await client.until("session.updated")
        for _ in range(held + 2):
            client.write(append)
        for _ in range(held):
            await other.silence()
        for _ in range(2):
            assert (await client.event())["error"]["code"] == "input_audio_buffer_full"
        client.write(event("input_audio_buffer.clear"))
        assert (await client.event())["type"] == "input_audio_buffer.cleared"


async def test_pings_from_who_does_not_read(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(outbox, "CLOSE_S", 0.1)
    tasks = asyncio.all_tasks()
    async with serving(config(ping_interval_s=0.3)) as server:
        async with raw_socket(server, receive_bytes=4096) as client:
            flood = frame(PING, bytes(125)) * 1000
            with pytest.raises(ConnectionError):  # noqa: PT012
                while True:
                    client.write(flood)
                    async with asyncio.timeout(PATIENCE_S):
                        await client.writer.drain()
        await no_sessions(server)
        assert "a client that does not read is cut off" in caplog.text
        assert "closed by the server with 1011" in caplog.text
    await only(tasks)


# ---------------------------------------------------------------------------------------------- who has vanished


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_peer_that_says_nothing_any_more(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither pings nor the close frame are answered, and no FIN comes: its machine is gone."""
    monkeypatch.setattr(handshake, "CLOSE_TIMEOUT_S", 0.1)
    tasks = asyncio.all_tasks()
    async with serving(config(ping_interval_s=0.2)) as server, raw_socket(server) as client:
        opcode, payload = await client.read()
        assert (opcode, len(payload)) == (PING, 4)
        opcode, payload = await client.read()
        assert (int.from_bytes(payload[:2]), payload[2:]) == (1011, b"keepalive ping timeout")
        await no_sessions(server)
    await only(tasks)


async def test_a_peer_that_answers_pings_stays(fakes: Fakes) -> None:
    async with serving(config(ping_interval_s=0.4)) as server, raw_socket(server) as client:
        seen = set()
        for _ in range(2):
            opcode, payload = await client.read()
            assert (opcode, len(payload)) == (PING, 4)
            seen.add(payload)
            client.write(frame(10, payload))
        assert len(seen) > 1
        client.write(event("input_audio_buffer.clear"))
        while (await client.read())[0] == PING:
            pass


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts files in /proc")
async def test_what_a_vanished_reader_leaves_unread_is_not_kept(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our farewell waits behind it in a buffer that nobody empties; the system would keep both for ever."""
    monkeypatch.setattr(websocket, "CLOSE_S", 0.1)
    monkeypatch.setattr(handshake, "CLOSE_TIMEOUT_S", 0.1)
    async with serving(config()) as server:
        files = open_files()
        async with raw_socket(server, receive_bytes=4096) as client:
            (box,) = server.endpoint._open
            while not box._unsent():
                client.write(frame(TEXT, b"{}") * 100)
                await rest(20)
            await server.endpoint.drain(PATIENCE_S)
            # The client's own end is left.
            await eventually(lambda: open_files() == files + 1)
