"""Frames as RFC 6455 and 7692 know them: broken ones end one session with the right code, odd ones do not."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import WSMessage, WSMsgType
from raw_socket import CLOSE, PING, PONG, TEXT, RawSocket, event, frame, raw_socket
from server_fakes import AZURE, KEY, Fakes, config, no_sessions, serving, session
from websockets.asyncio.client import connect

from vivavoce.engines.registry import Registry
from vivavoce.runtime.driver import Driver
from vivavoce.server.app import Server
from vivavoce.server.handshake import Socket
from vivavoce.wire.codec import MAX_FRAME_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLEAR = b'{"type":"input_audio_buffer.clear"}'
DEFLATE = "permessage-deflate"
PIECE = bytes(1 << 20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "installed", Fakes)
        async with serving(config(compression=True)) as server:
            yield server


async def cleared(client: RawSocket) -> None:
    assert (await client.event())["type"] == "input_audio_buffer.cleared"


BROKEN: dict[str, tuple[bytes, int, str]] = {
    "first reserved bit": (frame(TEXT, CLEAR, reserved=4), 1002, "protocol error"),
    "second reserved bit": (frame(TEXT, CLEAR, reserved=2), 1002, "protocol error"),
    "third reserved bit": (frame(TEXT, CLEAR, reserved=1), 1002, "protocol error"),
    "reserved opcode": (frame(3, CLEAR), 1002, "protocol error"),
    "reserved control opcode": (frame(11), 1002, "protocol error"),
    "ping in fragments": (frame(PING, b"x", fin=False), 1002, "protocol error"),
    "ping too long": (frame(PING, bytes(126)), 1002, "protocol error"),
    "continuation of nothing": (frame(0, CLEAR), 1002, "protocol error"),
    "text within text": (frame(TEXT, b"{", fin=False) + frame(TEXT, CLEAR), 1002, "protocol error"),
    "text that is no UTF-8": (frame(TEXT, b'{"type":"\xff\xfe"}'), 1007, "invalid UTF-8"),
    "surrogates in UTF-8": (frame(TEXT, b"\xed\xa0\x80"), 1007, "invalid UTF-8"),
    "fragments that are no UTF-8": (frame(TEXT, b"\xc3", fin=False) + frame(0, b"x"), 1007, "invalid UTF-8"),
    "close of one byte": (frame(CLOSE, b"\x03"), 1002, "protocol error"),
    "close with a code of none": (frame(CLOSE, (999).to_bytes(2)), 1002, "protocol error"),
    "close reason that is no UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007, "invalid UTF-8"),
    "claims too much": (frame(TEXT, length=MAX_FRAME_BYTES + 1), 1009, "message too big"),
    "claims absurdly much": (frame(TEXT, length=(1 << 64) - 1), 1009, "message too big"),
    "fragments of too much": (
        frame(TEXT, PIECE, fin=False) + frame(0, PIECE, fin=False) * (MAX_FRAME_BYTES // len(PIECE)),
        1009,
        "message too big",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_frame_ends_its_session_alone(server: Server, name: str) -> None:
    data, code, reason = BROKEN[name]
    async with session(server) as other, raw_socket(server) as client:
        client.write(event("input_audio_buffer.clear"))
        await cleared(client)
        client.write(data)
        assert await client.closed() == (code, reason)
        await other.silence()
    await no_sessions(server)


async def test_a_close_is_answered(server: Server) -> None:
    for code in (1000, 1001, 3000, 4999):
        async with raw_socket(server) as client:
            client.write(frame(CLOSE, code.to_bytes(2) + b"bye"))
            assert (await client.closed())[0] in (code, 1000)
    async with raw_socket(server) as client:
        client.write(frame(CLOSE))
        assert (await client.closed())[0] in (1000, 0)
    await no_sessions(server)


async def test_fragments_with_control_frames_between(server: Server) -> None:
    text = json.dumps({"type": "nö", "event_id": "ü" * 100}, ensure_ascii=False).encode()
    async with raw_socket(server) as client:
        # Every byte a fragment: letters of two bytes are torn apart.
        client.write(frame(TEXT, text[:1], fin=False))
        for index in range(1, len(text)):
            client.write(frame(PING, bytes([index % 256])) + frame(0, fin=False) + frame(PONG, b"unasked"))
            client.write(frame(0, text[index : index + 1], fin=index == len(text) - 1))
        for index in range(1, len(text)):
            assert await client.read() == (PONG, bytes([index % 256]))
        error = (await client.event())["error"]
        assert (error["code"], error["param"], error["event_id"]) == ("invalid_value", "type", "ü" * 100)
        client.write(frame(TEXT, CLEAR, fin=False) + frame(0))
        await cleared(client)


async def test_a_frame_that_comes_byte_by_byte(server: Server) -> None:
    async with raw_socket(server) as client:
        for byte in frame(PING, bytes(125)) + frame(TEXT, CLEAR):
            client.write(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(0)
        assert await client.read() == (PONG, bytes(125))
        await cleared(client)


# ------------------------------------------------------------------------------------------------- compression


def deflated(payload: bytes) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (squeeze.compress(payload) + squeeze.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


@pytest.mark.parametrize("parameters", ["", "; client_max_window_bits", "; server_no_context_takeover", ", x-y"])
async def test_an_offer_of_compression_is_accepted(server: Server, parameters: str) -> None:
    async with raw_socket(server, extensions=DEFLATE + parameters) as client:
        assert b"\r\nsec-websocket-extensions: permessage-deflate" in client.answer.lower()
        client.write(frame(TEXT, deflated(CLEAR), reserved=4))
        client.write(frame(TEXT, CLEAR))
        client.write(frame(PING, b"plain"))
        answers = [await client.read() for _ in range(3)]
        assert [opcode == TEXT for opcode, _ in answers] == client.compressed[-3:]
        assert (PONG, b"plain") in answers
        kinds = [json.loads(payload)["type"] for opcode, payload in answers if opcode == TEXT]
        assert kinds == ["input_audio_buffer.cleared"] * 2


async def test_without_an_offer_nothing_is_compressed(server: Server) -> None:
    async with raw_socket(server) as client:
        client.write(frame(TEXT, CLEAR))
        await cleared(client)
        assert b"extensions" not in client.answer.lower()
        assert not any(client.compressed)


async def test_compression_is_off_unless_it_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "installed", Fakes)
    async with serving(config()) as server, raw_socket(server, extensions=DEFLATE) as client:
        assert b"extensions" not in client.answer.lower()
        client.write(frame(TEXT, CLEAR))
        await cleared(client)


async def test_a_client_library_that_compresses(server: Server) -> None:
    url = f"ws://127.0.0.1:{server.port}{AZURE}"
    async with connect(url, additional_headers={"api-key": KEY}) as client:
        assert client.response is not None
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        for _ in range(2):
            await client.recv()
        await client.send('{"type":"response.create"}')
        kinds: list[str] = []
        while not kinds or kinds[-1] != "response.done":
            kinds.append(json.loads(await client.recv())["type"])
        assert "response.audio.delta" in kinds


BOMBS: dict[str, tuple[bytes, int]] = {
    "too large": (frame(TEXT, deflated(bytes(MAX_FRAME_BYTES + 1)), reserved=4), 1009),
    "huge": (frame(TEXT, deflated(bytes(40 * MAX_FRAME_BYTES)), reserved=4), 1009),
    "in fragments": (
        frame(TEXT, deflated(bytes(2 * MAX_FRAME_BYTES))[:100], reserved=4, fin=False)
        + frame(0, deflated(bytes(2 * MAX_FRAME_BYTES))[100:]),
        1009,
    ),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_compression_bomb_ends_its_session_alone(server: Server, name: str) -> None:
    data, code = BOMBS[name]
    async with session(server) as other, raw_socket(server, extensions=DEFLATE) as client:
        client.write(data)
        assert (await client.closed())[0] == code
        await other.silence()
    await no_sessions(server)


async def test_text_is_taken_as_it_arrives(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is woken for it, unless something waits that came before."""
    woken: list[WSMsgType] = []
    receive = Socket.receive

    async def watched(socket: Socket) -> WSMessage:
        message = await receive(socket)
        woken.append(message.type)
        return message

    monkeypatch.setattr(Socket, "receive", watched)
    async with raw_socket(server) as client:
        client.write(frame(TEXT, CLEAR))
        await cleared(client)
        assert woken == []
        client.write(frame(PING, b"") + frame(TEXT, CLEAR))
        assert await client.read() == (PONG, b"")
        await cleared(client)
        assert woken == [WSMsgType.PING, WSMsgType.TEXT]
    await no_sessions(server)


async def test_text_does_not_pass_by_a_long_one(server: Server) -> None:
    """The queue is over its limit with that alone, and what follows is parsed while it is handed to its reader."""
    long = deflated(b'{"type":"nobody"}' + b" " * (200 << 10))
    async with raw_socket(server, extensions=DEFLATE) as client:
        client.write(frame(PING) + frame(TEXT, long, reserved=4) + frame(TEXT, CLEAR))
        assert await client.read() == (PONG, b"")
        assert (await client.event())["error"]["param"] == "type"
        await cleared(client)
    await no_sessions(server)


async def test_what_is_no_deflate_ends_its_session_alone(server: Server) -> None:
    async with session(server) as other, raw_socket(server, extensions=DEFLATE) as client:
        client.write(frame(TEXT, b"\xff" * 50, reserved=4))
        assert await client.closed() == (1002, "protocol error")
        await other.silence()
    await no_sessions(server)


TOOL = b'{"type":"function","name":"f","parameters":{"type":"object","properties":{}}},'


@pytest.mark.parametrize(
    ("bomb", "code"),
    [
        (b" " * (4 << 20), "invalid_json"),
        # Short enough to be read on the event loop, and slow to find the fault of.
        (b'{"type":"session.update","session":{"tools":[' + TOOL * 4000 + b"{}]}}", "missing_required_parameter"),
    ],
    ids=["long", "slow"],
)
async def test_bombs_in_a_row_leave_turns_to_others(
    server: Server, monkeypatch: pytest.MonkeyPatch, bomb: bytes, code: str
) -> None:
    """Each takes longer than a turn, and they come together."""
    gone_off: list[int] = []
    receive_text = Driver.receive_text

    def watched(driver: Driver, text: str | bytes) -> None:
        if len(text) == len(bomb):
            gone_off.append(len(text))
        receive_text(driver, text)

    monkeypatch.setattr(Driver, "receive_text", watched)
    async with session(server) as other, raw_socket(server, extensions=DEFLATE) as client:
        client.write(frame(TEXT, deflated(bomb), reserved=4) * 16)
        await client.writer.drain()
        await other.silence()
        assert len(gone_off) < 8
        while len(gone_off) < 16:
            assert (await client.event())["error"]["code"] == code
        client.reset()
        await other.silence()
    await no_sessions(server)
