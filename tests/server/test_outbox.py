"""What the outbox puts on the wire: whole frames in order, those that wait together in one write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiohttp import ClientConnectionResetError, WSMsgType, web
from raw_socket import CLOSE, PING, TEXT, RawSocket
from raw_socket import frame as client_frame
from server_fakes import PATIENCE_S, eventually, rest

from vivavoce.server.handshake import Socket
from vivavoce.server.outbox import AT_ONCE_BYTES, FULL_BYTES, SocketOutbox


class Taker:
    """A socket that takes all at once."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def send_texts(self, frames: list[bytes]) -> None:
        self.batches.append([len(frame) for frame in frames])


@asynccontextmanager
async def connected(*, compress: bool = False) -> AsyncIterator[tuple[Socket, asyncio.Transport, RawSocket]]:
    """A socket of ours, its transport, and the client at its other end."""
    opened: asyncio.Future[tuple[Socket, asyncio.Transport]] = asyncio.get_running_loop().create_future()

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = Socket(timeout=1, autoping=False, compress=compress)
        await socket.prepare(request)
        assert request.transport is not None
        opened.set_result((socket, request.transport))
        while (await socket.receive()).type is not WSMsgType.CLOSE:
            pass
        return socket

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if compress else ""
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + offer.encode() + b"\r\n"
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            client = RawSocket(reader, writer, await reader.readuntil(b"\r\n\r\n"))
            socket, transport = await opened
        yield socket, transport, client
    finally:
        writer.transport.abort()
        await runner.cleanup()


def box(transport: asyncio.Transport, stall_s: float = 20.0) -> SocketOutbox:
    return SocketOutbox(stall_s=stall_s, abort=transport.abort, unsent=transport.get_write_buffer_size)


def length(size: int) -> bytes:
    """As RFC 6455 writes it."""
    if size < 126:
        return bytes([size])
    return b"\x7e" + size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)


async def test_frames_leave_together_up_to_a_bound() -> None:
    taker = Taker()
    outbox = SocketOutbox(stall_s=20.0, abort=lambda: None, unsent=lambda: 0)
    third = AT_ONCE_BYTES // 3
    for size in (third, third, third, third, AT_ONCE_BYTES + 1, 1, FULL_BYTES + 1, AT_ONCE_BYTES - 1, 1, 1):
        outbox.send(bytes(size))
    writer = asyncio.create_task(outbox.run(cast(Socket, taker)))
    await rest()
    assert taker.batches == [
        [third, third, third],
        [third],
        [AT_ONCE_BYTES + 1],
        [1],
        [FULL_BYTES + 1],
        [AT_ONCE_BYTES - 1, 1],
        [1],
    ]
    assert not outbox.crowded
    outbox.send(b"x")
    await rest()
    assert taker.batches[-1] == [1]
    writer.cancel()


async def test_the_bytes_of_frames_of_every_length_and_a_close_behind_them() -> None:
    sizes = [0, 1, 125, 126, 127, 65535, 65536, 200_000, 5, 6]
    texts = [bytes([65 + at]) * size for at, size in enumerate(sizes)]
    async with connected() as (socket, transport, client):
        outbox = box(transport)
        for text in texts:
            outbox.send(text)
        outbox.close(1001, "enough")
        outbox.send(b"too late")
        writing = asyncio.create_task(outbox.run(socket))
        async with asyncio.timeout(PATIENCE_S):
            for text in texts:
                head = length(len(text))
                assert await client.reader.readexactly(1 + len(head)) == b"\x81" + head
                assert await client.reader.readexactly(len(text)) == text
            assert await client.read() == (CLOSE, (1001).to_bytes(2) + b"enough")
            client.write(client_frame(CLOSE, (1001).to_bytes(2)))
            await writing


async def test_a_control_frame_stands_between_whole_frames() -> None:
    async with connected() as (socket, transport, client):
        outbox = box(transport)
        writing = asyncio.create_task(outbox.run(socket))
        for at in range(3):
            outbox.send(b"%d" % at)
            outbox.send(bytes(AT_ONCE_BYTES))
            await socket.ping(b"here?")
        read = [await client.read() for _ in range(9)]
        assert sorted(len(payload) for kind, payload in read if kind == PING) == [5, 5, 5]
        assert [payload[:1] for kind, payload in read if kind == TEXT] == [b"0", b"\0", b"1", b"\0", b"2", b"\0"]
        writing.cancel()


async def test_where_it_is_agreed_on_each_is_compressed() -> None:
    async with connected(compress=True) as (socket, transport, client):
        outbox = box(transport)
        for at in range(5):
            outbox.send(b"%d" % at * 1000)
        writing = asyncio.create_task(outbox.run(socket))
        for at in range(5):
            assert await client.read() == (TEXT, b"%d" % at * 1000)
        assert client.compressed == [True] * 5
        writing.cancel()


async def test_a_reader_that_stalls_gets_all_of_it_when_it_goes_on() -> None:
    """Many frames, far more than the system takes of us, so that the transport holds the writer back."""
    async with connected() as (socket, transport, client):
        outbox = box(transport)
        writing = asyncio.create_task(outbox.run(socket))
        sent = [b"%05d" % at * 1200 for at in range(3000)]
        for text in sent:
            outbox.send(text)
        await eventually(lambda: transport.get_write_buffer_size() > 0)
        await rest()
        assert outbox.full
        assert transport.get_write_buffer_size() < 64 * 1024 + 2 * AT_ONCE_BYTES, "the rest waits here"
        for text in sent:
            assert await client.read() == (TEXT, text)
        assert not outbox.crowded
        writing.cancel()


async def test_a_reader_that_stalls_for_too_long_is_cut_off() -> None:
    async with connected() as (socket, transport, _):
        outbox = box(transport, stall_s=0.05)
        for _ in range(3000):
            outbox.send(bytes(6000))
        async with asyncio.timeout(PATIENCE_S):
            await outbox.run(socket)
        assert transport.is_closing()
        assert outbox.closing == (1006, "")


@pytest.mark.parametrize("how", ["aborted", "closed"])
async def test_who_writes_to_a_connection_that_ends_is_told(how: str) -> None:
    async with connected() as (socket, transport, client):
        if how == "aborted":
            transport.abort()
        else:
            closing = asyncio.create_task(socket.close(code=1000))
            await client.read()
            client.write(client_frame(CLOSE, (1000).to_bytes(2)))
            await closing
        with pytest.raises(ClientConnectionResetError):
            await socket.send_texts([b"1", b"2"])
        outbox = box(transport)
        outbox.send(b"3")
        await outbox.run(socket)
        assert outbox.closing == (1006, "")


async def test_frames_that_wait_together_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as (socket, transport, client):
        assert socket._writer is not None
        writes: list[int] = []
        real = transport

        class Counting:
            def write(self, data: bytes) -> None:
                writes.append(len(data))
                real.write(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        monkeypatch.setattr(socket._writer, "transport", Counting())
        outbox = box(transport)
        for _ in range(20):
            outbox.send(b"delta")
        writing = asyncio.create_task(outbox.run(socket))
        for _ in range(20):
            assert await client.read() == (TEXT, b"delta")
        assert writes == [20 * len(b"xxdelta")]
        writing.cancel()
