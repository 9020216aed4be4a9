"""URLs and their headers, refused handshakes, and the ways a connection ends."""

from __future__ import annotations

import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from demo_fake_server import KEY

from vivavoce.demo.client import (
    BadUrl,
    ClientError,
    ConnectError,
    ConnectionLost,
    ProtocolFault,
    connect,
    resolve,
)

AZURE = "/openai/realtime?api-version=2024-10-01-preview&deployment=my+model"
OPENAI = "/v1/realtime?model=my+model"
API_KEY = {"api-key": KEY}
BEARER = {"OpenAI-Beta": "realtime=v1", "Authorization": f"Bearer {KEY}"}

RESOLVED = [
    ("ws://host:8089", "ws://host:8089" + AZURE, API_KEY),
    ("ws://host:8089/", "ws://host:8089" + AZURE, API_KEY),
    ("http://host:8089", "ws://host:8089" + AZURE, API_KEY),
    ("https://my.openai.azure.com", "wss://my.openai.azure.com" + AZURE, API_KEY),
    ("https://my.openai.azure.com/openai/", "wss://my.openai.azure.com" + AZURE, API_KEY),
    ("wss://host/openai/realtime", "wss://host" + AZURE, API_KEY),
    ("wss://api.openai.com", "wss://api.openai.com" + OPENAI, BEARER),
    ("https://api.openai.com/v1", "wss://api.openai.com" + OPENAI, BEARER),
    ("http://host:1/v1/realtime", "ws://host:1" + OPENAI, BEARER),
    ("http://[::1]:8089", "ws://[::1]:8089" + AZURE, API_KEY),
    ("ws://host/openai/realtime?deployment=x", "ws://host/openai/realtime?deployment=x", API_KEY),
    ("ws://host/v1/realtime?model=x&a=b", "ws://host/v1/realtime?model=x&a=b", BEARER),
    ("ws://host/proxy/v1/realtime", "ws://host/proxy/v1/realtime", BEARER),
    ("ws://host/other/?a=b#part", "ws://host/other/?a=b", API_KEY),
]


@pytest.mark.parametrize(("url", "connected", "headers"), RESOLVED)
def test_urls(url: str, connected: str, headers: dict[str, str]) -> None:
    target = resolve(url, deployment="my model", api_key=KEY)
    assert (target.url, target.headers, target.shown) == (connected, headers, connected)
    assert target.secrets == (KEY,)


def test_without_a_key_no_header_carries_one() -> None:
    assert resolve("ws://h", deployment="d", api_key=None).headers == {}
    assert resolve("ws://h/v1", deployment="d", api_key=None).headers == {"OpenAI-Beta": "realtime=v1"}


def test_secrets_inside_the_url_are_not_shown() -> None:
    url = f"wss://user:pass@host:1/openai/realtime?api-key={KEY}&deployment=d"
    target = resolve(url, deployment="d", api_key=None)
    assert target.url == url
    assert target.shown == "wss://host:1/openai/realtime?api-key=***&deployment=d"
    assert set(target.secrets) == {KEY, "pass"}
    assert KEY not in repr(target)


@pytest.mark.parametrize("url", ["", "host", "localhost:8089", "ftp://host", "ws://", "ws://h:port", "ws://[x"])
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(BadUrl):
        resolve(url, deployment="d", api_key=None)


@pytest.mark.parametrize("key", ["", "a\nb", "schlüssel"])
def test_keys_that_no_header_carries(key: str) -> None:
    with pytest.raises(BadUrl):
        resolve("ws://h", deployment="d", api_key=key)


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    async with TestServer(app) as server:
        yield f"ws://127.0.0.1:{server.port}"


async def failure(url: str) -> ClientError:
    """How a conversation with ``url`` ends."""
    try:
        async with connect(resolve(url, deployment="d", api_key=KEY)) as client:
            async for _ in client.events():
                pass
    except ClientError as fault:
        return fault
    raise AssertionError("events() came to an end without saying why")


REFUSALS = [
    (401, '{"error":{"code":"401","message":"Access denied."}}', ": Access denied. (code 401)"),
    (
        404,
        '{"error":{"code":"DeploymentNotFound","message":"No such."}}',
        ": No such. (code DeploymentNotFound)",
    ),
    (404, '{"error":{"message":"No such."}}', ": No such."),
    (403, '{"message":"No."}', ": No."),
    (403, '{"error":"nope"}', ": nope"),
    (403, '{"error":{"code":"Forbidden"}}', ": Forbidden"),
    (500, "[1]", ""),
    (503, "Busy, try later\nreally", ": Busy, try later"),
    (502, "<html>Bad gateway</html>", ""),
    (429, "", ""),
]


@pytest.mark.parametrize(("status", "body", "reason"), REFUSALS)
async def test_a_refused_handshake_tells_status_and_reason(status: int, body: str, reason: str) -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["api-key"] == KEY
        return web.Response(status=status, text=body)

    async with serving(refuse) as url:
        fault = await failure(url)
    assert isinstance(fault, ConnectError)
    assert fault.status == status
    assert str(fault) == f"the server refused the connection: HTTP {status}{reason}"


async def test_a_redirect_is_refused_and_the_key_stays_here() -> None:
    asked: list[str] = []

    async def redirect(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        raise web.HTTPTemporaryRedirect("/elsewhere")

    async with serving(redirect) as url:
        fault = await failure(url)
    assert str(fault) == "the server refused the connection: HTTP 307 (a redirect)"
    assert asked == ["/openai/realtime"]


async def test_nobody_listens() -> None:
    with sockets.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        fault = await failure(f"ws://127.0.0.1:{port}/x")
    assert isinstance(fault, ConnectError)
    assert str(fault) == f"cannot connect to ws://127.0.0.1:{port}/x: connection refused"


async def test_a_server_without_tls() -> None:
    async def never(request: web.BaseRequest) -> web.StreamResponse:
        raise AssertionError("no handshake can arrive")

    async with serving(never) as url:
        fault = await failure(url.replace("ws://", "wss://"))
    assert str(fault).endswith("the server does not speak TLS as expected")


ENDS: list[tuple[Callable[[web.WebSocketResponse], Awaitable[object]], type[ClientError], str]] = [
    (lambda s: s.send_bytes(b"{}"), ProtocolFault, "the server sent a binary frame"),
    (lambda s: s.send_str("{"), ProtocolFault, "the server sent a frame that is not JSON"),
    (lambda s: s.send_str("[]"), ProtocolFault, "the server sent a frame that is not an event"),
    (lambda s: s.send_str('{"type":1}'), ProtocolFault, "the server sent a frame that is not an event"),
    (
        lambda s: s.close(code=1001, message=b"Bye."),
        ConnectionLost,
        "the server closed the connection (code 1001: Bye.)",
    ),
    (lambda s: s.close(), ConnectionLost, "the server closed the connection (code 1000)"),
]


@pytest.mark.parametrize(("act", "kind", "message"), ENDS)
async def test_ends(
    act: Callable[[web.WebSocketResponse], Awaitable[object]], kind: type[ClientError], message: str
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await act(socket)
        async for _ in socket:
            pass
        return socket

    async with serving(handler) as url:
        fault = await failure(url)
    assert type(fault) is kind
    assert str(fault) == message


async def test_a_connection_that_breaks() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert request.transport is not None
        request.transport.abort()
        return socket

    async with serving(handler) as url:
        fault = await failure(url)
    assert isinstance(fault, ConnectionLost)


async def test_sending_into_a_closed_connection() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=1001)
        return socket

    async with serving(handler) as url, connect(resolve(url, deployment="d", api_key=None)) as client:
        with pytest.raises(ConnectionLost):
            async for _ in client.events():
                pass
        with pytest.raises(ConnectionLost):
            await client.send({"type": "response.create"})
