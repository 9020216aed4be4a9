"""The recorder between a client and a server that do as a test says."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError, web

from vivavoce.record.proxy import Recorded, RecordOptions, recording
from vivavoce.record.recording import End, Recording, Writer, load
from vivavoce.record.upstream import BadTarget, header_of, join, passed_on, target_of

KEY: Final = "k3y-of-the-client"
PATIENCE_S: Final = 30.0
"""When a test hangs, not when it is slow."""
CERTIFICATE: Final = Path(__file__).parent / "data" / "localhost.pem"

UPGRADE: Final = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "api-key": KEY,
}

Talk = Callable[[web.WebSocketResponse], Awaitable[None]]


class Server:
    """A server that keeps the requests that it got."""

    def __init__(self, talk: Talk, tls: ssl.SSLContext | None = None) -> None:
        self.talk = talk
        self.tls = tls
        self.requests: list[web.Request] = []
        self.answer: web.Response | None = None
        self.subprotocols: tuple[str, ...] = ()
        self.headers: dict[str, str] = {}
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.answer is not None:
            return self.answer
        socket = web.WebSocketResponse(protocols=self.subprotocols, autoping=False, autoclose=False, max_msg_size=0)
        socket.headers.update(self.headers)
        await socket.prepare(request)
        await self.talk(socket)
        return socket

    @property
    def url(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.port}"


@asynccontextmanager
async def server(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    one = Server(talk, tls)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", one.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    one.port = runner.addresses[0][1]
    try:
        yield one
    finally:
        await runner.cleanup()


class Bench:
    """A recorder in front of a server."""

    def __init__(self, port: int, out: Path, done: asyncio.Queue[Recorded]) -> None:
        self.url = f"ws://127.0.0.1:{port}"
        self.out = out
        self._done = done

    async def recorded(self) -> tuple[Recorded, Recording]:
        async with asyncio.timeout(PATIENCE_S):
            one = await self._done.get()
        return one, load(one.path)


@asynccontextmanager
async def bench(url: str, folder: Path, **options: Any) -> AsyncIterator[Bench]:
    done: asyncio.Queue[Recorded] = asyncio.Queue()
    out = folder / "s.jsonl"
    async with recording(
        RecordOptions(target=target_of(url), out=out, **options),
        host="127.0.0.1",
        port=0,
        on_recorded=done.put_nowait,
    ) as port:
        yield Bench(port, out, done)


@asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[ClientWebSocketResponse]:
    async with (
        ClientSession() as session,
        session.ws_connect(url, autoping=False, autoclose=False, max_msg_size=0, **options) as socket,
    ):
        yield socket


async def echo(socket: web.WebSocketResponse) -> None:
    """Everything back, until a close, which is answered."""
    while True:
        message = await socket.receive(PATIENCE_S)
        match message.type:
            case WSMsgType.TEXT:
                await socket.send_str(message.data)
            case WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            case WSMsgType.PING:
                await socket.pong(message.data)
            case WSMsgType.CLOSE:
                await socket.close(code=message.data or 1000)
                return
            case _:
                return


async def get(socket: ClientWebSocketResponse) -> Any:
    message = await socket.receive(PATIENCE_S)
    return message.type, message.data


# ------------------------------------------------------------------------------------------------------ relaying


async def test_messages_pass_as_they_are_and_in_order(tmp_path: Path) -> None:
    texts = ['{"type": "a", "n":  1.0}', "not json", '{"type":"\\ud800 ü"}', ""]
    async with server(echo) as real, bench(real.url, tmp_path) as one:
        async with client(f"{one.url}/v1/realtime?model=m") as socket:
            for text in texts:
                await socket.send_str(text)
            await socket.send_bytes(b"\x00\xff")
            await socket.ping(b"1234")
            got = [await get(socket) for _ in range(6)]
            assert got == [
                *((WSMsgType.TEXT, text) for text in texts),
                (WSMsgType.BINARY, b"\x00\xff"),
                (WSMsgType.PONG, b"1234"),
            ]
            await socket.close(code=4001, message=b"enough")
        told, kept = await one.recorded()
    assert (told.frames, told.outcome) == (10, "closed by the client with 4001")
    assert kept.end == End(4001, "enough", "client")
    for side in ("client", "server"):
        frames = [frame for _, frame in kept.of(side)]
        assert [frame.text for frame in frames] == [None, "not json", None, "", None]
        assert [frame.event for frame in frames][::2] == [{"type": "a", "n": 1.0}, {"type": "\ud800 ü"}, None]
        assert frames[-1].binary == "AP8="
    for text in texts:  # An answer stands after what it answers.
        frames = [frame for frame in kept.frames if text in (frame.text, json.dumps(frame.event))]
        assert [frame.sender for frame in frames] in (["client", "server"], [])
    times = [frame.t_ms for frame in kept.frames]
    assert times == sorted(times)


async def test_the_close_of_the_server_passes(tmp_path: Path) -> None:
    async def leave(socket: web.WebSocketResponse) -> None:
        await socket.send_str('{"type": "error"}')
        await socket.close(code=4004, message="nö".encode())

    async with server(leave) as real, bench(real.url, tmp_path) as one:
        async with client(one.url) as socket:
            assert (await get(socket))[0] is WSMsgType.TEXT
            message = await socket.receive(PATIENCE_S)
            assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4004, "nö")
        told, kept = await one.recorded()
    assert kept.end == End(4004, "nö", "server")
    assert told.outcome == "closed by the server with 4004"


async def test_the_close_of_the_client_passes(tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []

    async def wait(socket: web.WebSocketResponse) -> None:
        message = await socket.receive(PATIENCE_S)
        seen.append((message.data, message.extra or ""))
        await socket.close(code=message.data)

    async with server(wait) as real, bench(real.url, tmp_path) as one:
        async with client(one.url) as socket:
            await socket.close(code=4001, message=b"enough")
        await one.recorded()
    assert seen == [(4001, "enough")]


async def test_a_connection_that_is_lost_is_lost_for_both(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def wait(socket: web.WebSocketResponse) -> None:
        assert (await socket.receive(PATIENCE_S)).type is WSMsgType.CLOSED
        gone.set()

    async def vanish(socket: web.WebSocketResponse) -> None:
        await socket.send_str('{"type": "last words"}')
        assert socket._req is not None
        assert socket._req.transport is not None
        await asyncio.sleep(0)
        socket._req.transport.close()

    async with server(wait) as real, bench(real.url, tmp_path) as one:
        async with client(one.url) as socket:
            connection = socket._response.connection
            assert connection is not None
            assert connection.transport is not None
            connection.transport.abort()
            async with asyncio.timeout(PATIENCE_S):
                await gone.wait()
        _, kept = await one.recorded()
        assert kept.end == End(1006, "", "client")
        real.talk = vanish
        async with client(one.url) as socket:
            assert (await get(socket))[0] is WSMsgType.TEXT
            assert (await get(socket))[0] is WSMsgType.CLOSED
            assert socket.close_code == 1006
        _, kept = await one.recorded()
        assert kept.end == End(1006, "", "server")


async def test_pings_of_the_server_reach_the_client(tmp_path: Path) -> None:
    async def ping(socket: web.WebSocketResponse) -> None:
        await socket.ping(b"abcd")
        message = await socket.receive(PATIENCE_S)
        await socket.close(code=4000, message=f"{message.type.name} {message.data.decode()}".encode())

    async with server(ping) as real, bench(real.url, tmp_path) as one, client(one.url) as socket:
        assert await get(socket) == (WSMsgType.PING, b"abcd")
        await socket.pong(b"abcd")
        assert (await socket.receive(PATIENCE_S)).extra == "PONG abcd"


async def test_a_long_message_passes(tmp_path: Path) -> None:
    text = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 21 * 1024 * 1024})
    async with server(echo) as real, bench(real.url, tmp_path) as one, client(one.url) as socket:
        await socket.send_str(text)
        assert await get(socket) == (WSMsgType.TEXT, text)


async def test_a_client_that_does_not_read_holds_the_server_up(tmp_path: Path) -> None:
    sent = 0
    messages = [json.dumps({"type": "x", "n": n, "audio": "x" * 400_000}) for n in range(100)]

    async def flood(socket: web.WebSocketResponse) -> None:
        nonlocal sent
        for message in messages:
            await socket.send_str(message)
            sent += 1
        await echo(socket)

    async with server(flood) as real, bench(real.url, tmp_path) as one, client(one.url) as socket:
        before = -1
        async with asyncio.timeout(PATIENCE_S):
            while sent == 0 or sent > before:
                before = sent
                await asyncio.sleep(0.2)
        assert sent < len(messages) // 2
        assert [await get(socket) for _ in messages] == [(WSMsgType.TEXT, message) for message in messages]


async def test_connections_have_files_of_their_own(tmp_path: Path) -> None:
    async with server(echo) as real, bench(real.url, tmp_path) as one:
        for n in range(3):
            async with client(one.url) as socket:
                await socket.send_str(json.dumps({"n": n}))
                await get(socket)
        paths = [(await one.recorded())[0].path.name for _ in range(3)]
    assert paths == ["s.jsonl", "s-2.jsonl", "s-3.jsonl"]
    assert [load(tmp_path / path).frames[0].event for path in paths] == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_a_recorder_that_is_stopped_closes_both(tmp_path: Path) -> None:
    async with server(echo) as real:
        async with bench(real.url, tmp_path) as one:
            session = ClientSession()
            socket = await session.ws_connect(one.url, autoclose=False)
            await socket.send_str("x")
            await get(socket)

            async def say_goodbye() -> int | None:
                message = await socket.receive(PATIENCE_S)
                assert message.type is WSMsgType.CLOSE
                await socket.close()
                return int(message.data)

            closing = asyncio.create_task(say_goodbye())
        assert await closing == 1001
        await session.close()
        _, kept = await one.recorded()
    assert kept.end == End(1001, "the recorder was stopped", "recorder")


async def test_what_cannot_be_written_is_not_relayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with server(echo) as real, bench(real.url, tmp_path) as one:
        async with client(one.url) as socket:
            monkeypatch.setattr(Writer, "frame", full)
            await socket.send_str("x")
            message = await socket.receive(PATIENCE_S)
            assert (message.type, message.data, message.extra) == (
                WSMsgType.CLOSE,
                1011,
                "the recording cannot be written",
            )
        await one.recorded()
        assert "No space left on device" in caplog.text
    async with server(echo) as real, bench(real.url, tmp_path / "nowhere") as one:
        with pytest.raises(WSServerHandshakeError) as refused:
            async with client(one.url):
                raise AssertionError
        assert refused.value.status == 500
        assert real.requests == []


# ----------------------------------------------------------------------------------------------------- handshake


async def test_the_request_passes_and_its_keys_are_not_kept(tmp_path: Path) -> None:
    offered = ("realtime", f"openai-insecure-api-key.{KEY}-1", "openai-beta.realtime-v1")
    headers = {
        "api-key": f"{KEY}-2",
        "Authorization": f"Bearer {KEY}-3",
        "OpenAI-Beta": "realtime=v1",
        "Cookie": f"a={KEY}-4",
        "User-Agent": "me",
        "X-Replaced": "old",
    }
    query = f"deployment=d%20e&api-key={KEY}-5&x=1&x=2"
    async with (
        server(echo) as real,
        bench(real.url, tmp_path, headers=(("x-replaced", f"{KEY}-6"), ("X-New", "n3w-secret"))) as one,
    ):
        real.subprotocols = ("realtime",)
        real.headers = {"x-request-id": "r1", "Set-Cookie": f"b={KEY}-7"}
        async with client(f"{one.url}/openai/realtime?{query}", headers=headers, protocols=offered) as socket:
            assert socket.protocol == "realtime"
            assert socket._response.headers["x-request-id"] == "r1"
            assert socket._response.headers["Set-Cookie"] == f"b={KEY}-7"
            await socket.send_str(json.dumps({"type": "x", "said": [f"{KEY}-{n}" for n in range(1, 8)]}))
            await get(socket)
        told, kept = await one.recorded()
    (request,) = real.requests
    assert request.rel_url.raw_path_qs == f"/openai/realtime?{query}"
    got = {name.lower(): value for name, value in request.headers.items()}
    sent = {name.lower(): value for name, value in headers.items()}
    assert sent | {"x-replaced": f"{KEY}-6", "x-new": "n3w-secret"} == {
        name: got[name] for name in [*sent, "x-new"]
    }
    assert request.headers["Sec-WebSocket-Protocol"] == ",".join(offered)
    assert request.headers["Host"] == f"127.0.0.1:{real.port}"
    text = told.path.read_text()
    assert "n3w-secret" not in text
    # Cookies are hidden as such, but what is in them is not known as a key where somebody says it.
    assert [n for n in range(1, 8) if f"{KEY}-{n}" in text] == [4, 7]
    shown = dict(kept.header.headers)
    assert (shown["api-key"], shown["Authorization"], shown["x-replaced"], shown["X-New"]) == ("***",) * 4
    assert (shown["User-Agent"], shown["OpenAI-Beta"]) == ("me", "realtime=v1")
    assert kept.header.url == f"{real.url}/openai/realtime?deployment=d%20e&api-key=***&x=1&x=2"
    assert kept.header.subprotocols == ("realtime", "openai-insecure-api-key.***", "openai-beta.realtime-v1")
    assert kept.header.answer.subprotocol == "realtime"
    assert dict(kept.header.answer.headers)["Set-Cookie"] == "***"


async def test_a_refusal_passes_and_is_recorded(tmp_path: Path) -> None:
    body = {"error": {"code": "429", "message": f"Not with {KEY}."}}
    async with server(echo) as real, bench(real.url, tmp_path) as one, ClientSession() as session:
        real.answer = web.json_response(body, status=429, headers={"retry-after-ms": "17"})
        async with session.get(f"{one.url.replace('ws', 'http')}/openai/realtime", headers=UPGRADE) as answer:
            assert (answer.status, await answer.json()) == (429, body)
            assert answer.headers["retry-after-ms"] == "17"
        told, kept = await one.recorded()
    assert told.outcome == "refused with 429"
    assert (kept.header.answer.status, kept.frames, kept.end) == (429, (), None)
    assert json.loads(kept.header.answer.body or "") == {"error": {"code": "429", "message": "Not with ***."}}


async def test_headers_of_others_that_carry_secrets_are_hidden(tmp_path: Path) -> None:
    headers = {"Helicone-Auth": f"{KEY}-1", "x-goog-api-key": f"{KEY}-2", "x-tenant": "t"}
    async with server(echo) as real, bench(real.url, tmp_path) as one:
        async with client(f"{one.url}/?subscription-key={KEY}-3", headers=headers) as socket:
            await socket.send_str(json.dumps({"type": "x", "said": f"{KEY}-1 {KEY}-2 {KEY}-3"}))
            await get(socket)
        told, kept = await one.recorded()
    assert KEY not in told.path.read_text()
    shown = dict(kept.header.headers)
    assert (shown["Helicone-Auth"], shown["x-goog-api-key"], shown["x-tenant"]) == ("***", "***", "t")


async def test_a_refusal_that_comes_in_pieces_passes_whole(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 8\r\n\r\nhalf")
        await writer.drain()
        for _ in range(50):
            await asyncio.sleep(0)
        writer.write(b"half")
        writer.close()

    listening = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, bench(f"ws://127.0.0.1:{port}", tmp_path) as one, ClientSession() as session:
        async with session.get(one.url.replace("ws", "http"), headers=UPGRADE) as answer:
            assert (answer.status, await answer.read()) == (401, b"halfhalf")
        _, kept = await one.recorded()
    assert kept.header.answer.body == "halfhalf"


async def test_a_redirect_is_a_refusal(tmp_path: Path) -> None:
    async with server(echo) as real, bench(real.url, tmp_path) as one, ClientSession() as session:
        real.answer = web.Response(status=302, headers={"Location": f"{real.url}/elsewhere"})
        url = one.url.replace("ws", "http")
        async with session.get(url, headers=UPGRADE, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, f"{real.url}/elsewhere")
        assert len(real.requests) == 1
        assert (await one.recorded())[1].header.answer.status == 302


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    async with server(echo) as real:
        nobody = real.url
    async with bench(nobody, tmp_path) as one:
        with pytest.raises(WSServerHandshakeError) as refused:
            async with client(one.url):
                raise AssertionError
        assert refused.value.status == 502
        told, kept = await one.recorded()
    assert told.outcome == "the server cannot be reached: the connection failed"
    assert kept.header.answer.status == 502


async def test_only_websockets_are_relayed(tmp_path: Path) -> None:
    async with server(echo) as real, bench(real.url, tmp_path) as one, ClientSession() as session:
        async with session.post(one.url.replace("ws", "http"), data=b"x") as answer:
            assert answer.status == 426
        assert real.requests == []
        assert os.listdir(tmp_path) == []


async def test_tls_upstream(tmp_path: Path) -> None:
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(CERTIFICATE)
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    async with server(echo, own) as real:
        async with bench(real.url, tmp_path, tls=trusting) as one, client(one.url) as socket:
            await socket.send_str("x")
            assert await get(socket) == (WSMsgType.TEXT, "x")
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        async with bench(real.url, tmp_path) as one:
            with pytest.raises(WSServerHandshakeError):
                async with client(one.url):
                    raise AssertionError
            told, _ = await one.recorded()
            assert "its certificate is not trusted" in told.outcome


async def test_without_audio(tmp_path: Path) -> None:
    event = {"type": "input_audio_buffer.append", "audio": "AAAA"}
    async with server(echo) as real, bench(real.url, tmp_path, audio=False) as one:
        async with client(one.url) as socket:
            await socket.send_str(json.dumps(event))
            assert await get(socket) == (WSMsgType.TEXT, json.dumps(event))
        _, kept = await one.recorded()
    assert kept.header.audio is False
    assert [frame.event for frame in kept.frames] == [{**event, "audio": {"bytes": 3}}] * 2


async def test_nothing_is_logged_of_a_session(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with server(echo) as real, bench(real.url, tmp_path) as one:
        real.subprotocols = ("other",)
        url = f"{one.url}/?api-key={KEY}"
        async with client(url, protocols=("x", f"openai-insecure-api-key.{KEY}")) as socket:
            await socket.send_str("said in trust")
            await get(socket)
    assert KEY not in caplog.text
    assert "said in trust" not in caplog.text


# ----------------------------------------------------------------------------------------------- urls and headers


@pytest.mark.parametrize(
    ("url", "path", "query", "joined"),
    [
        ("wss://h", "/v1/realtime", "model=a", "wss://h/v1/realtime?model=a"),
        ("https://h:8443/", "/v1/realtime", "", "wss://h:8443/v1/realtime"),
        ("ws://h/openai/realtime", "/v1/realtime", "model=a%2Fb", "ws://h/openai/realtime?model=a%2Fb"),
        ("ws://h/p?deployment=d", "/x", "Deployment=e&a=1&a=2", "ws://h/p?deployment=d&a=1&a=2"),
        ("ws://h?deployment=d", "/x%20y", "api-key=k", "ws://h/x%20y?deployment=d&api-key=k"),
        ("http://[::1]:80/p#f", "/x", "", "ws://[::1]/p"),
        ("ws://u:p@h/p", "/x", "", "ws://u:p@h/p"),
    ],
)
def test_urls_are_joined(url: str, path: str, query: str, joined: str) -> None:
    assert str(join(target_of(url), path, query)) == joined


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h", "ws://", "ws://h:99999", "//h/p", "ws://h:x"])
def test_bad_urls(url: str) -> None:
    with pytest.raises(BadTarget):
        target_of(url)


def test_headers_of_the_command_line() -> None:
    assert header_of("api-key:  k:1 ") == ("api-key", "k:1")
    for text in ("x", ": y", "a b: c", "x: \u00fc", "x: a\nb", "Host: h", "sec-websocket-key: k"):
        with pytest.raises(BadTarget) as caught:
            header_of(text)
        assert "ü" not in str(caught.value)


def test_headers_of_one_connection_stay() -> None:
    headers = [("Host", "h"), ("upgrade", "websocket"), ("Sec-WebSocket-Key", "k"), ("X-A", "1"), ("x-a", "2")]
    assert passed_on(headers) == (("X-A", "1"), ("x-a", "2"))
    assert passed_on(headers, [("x-A", "3")]) == (("x-A", "3"),)
