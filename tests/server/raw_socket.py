"""A client that may break every rule of RFC 6455: it writes bytes and reads frames."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from server_fakes import AZURE, KEY, PATIENCE_S

from vivavoce.server.app import Server

TEXT: Final = 1
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
MASK: Final = b"\x11\x22\x33\x44"


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, length: int | None = None
) -> bytes:
    """A masked frame. ``length``: that it claims, if it lies; ``reserved``: three bits, 4 for the first."""
    size = len(payload) if length is None else length
    first = fin << 7 | reserved << 4 | opcode
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    mask = int.from_bytes(MASK * (len(payload) // 4 + 1))
    masked = int.from_bytes(payload.ljust(len(payload) + 4 - len(payload) % 4, b"\0")) ^ mask
    return head + MASK + masked.to_bytes(len(payload) + 4 - len(payload) % 4)[: len(payload)]


def event(kind: str, **fields: Any) -> bytes:
    return frame(TEXT, json.dumps({"type": kind, **fields}).encode())


@dataclass
class RawSocket:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answer: bytes = b""
    """Status line and headers."""
    compressed: list[bool] = field(default_factory=list)
    """Of each frame that was read."""
    _inflator: Any = field(default_factory=lambda: zlib.decompressobj(-15))

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload, inflated."""
        async with asyncio.timeout(PATIENCE_S):
            first, size = await self.reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
            payload = await self.reader.readexactly(size)
        self.compressed.append(bool(first & 0x40))
        if self.compressed[-1]:
            payload = self._inflator.decompress(payload + b"\0\0\xff\xff")
        return first & 0xF, payload

    async def event(self) -> dict[str, Any]:
        opcode, payload = await self.read()
        assert opcode == TEXT, (opcode, payload)
        found = json.loads(payload)
        assert isinstance(found, dict)
        return found

    async def until(self, kind: str) -> list[dict[str, Any]]:
        events = [await self.event()]
        while events[-1]["type"] != kind:
            events.append(await self.event())
        return events

    async def closed(self) -> tuple[int, str]:
        """Nothing comes but a close frame, and then the end -> code and reason."""
        opcode, payload = await self.read()
        assert opcode == CLOSE, (opcode, payload)
        self.write(frame(CLOSE, payload))
        # Who closes before it has read all that we wrote resets the connection.
        with suppress(ConnectionResetError):
            async with asyncio.timeout(PATIENCE_S):
                assert await self.reader.read() == b""
        return int.from_bytes(payload[:2]), payload[2:].decode()

    def reset(self) -> None:
        """Gone without a word: the other side gets RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def finish(self) -> None:
        """The connection is closed, but not the session: FIN, or RST if there was something to read."""
        self.writer.transport.abort()


@asynccontextmanager
async def raw_socket(
    server: Server, *, extensions: str = "", receive_bytes: int | None = None
) -> AsyncIterator[RawSocket]:
    """A session past its greeting. ``receive_bytes``: what the client's system takes that nobody has read."""
    raw = sockets.socket()
    if receive_bytes is not None:
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, receive_bytes)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=receive_bytes or 1 << 16)
    offer = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    writer.write(
        f"GET {AZURE} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\napi-key: {KEY}\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n".encode()
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            client = RawSocket(reader, writer, await reader.readuntil(b"\r\n\r\n"))
        assert client.answer.startswith(b"HTTP/1.1 101 "), client.answer
        for _ in range(2):
            assert (await client.read())[0] == TEXT
        yield client
    finally:
        writer.transport.abort()
