"""Who gets a session, over real sockets (protocol sections 1.1 - 1.4)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError
from multidict import CIMultiDictProxy
from server_fakes import (
    AZURE,
    BETA,
    KEY,
    NAME,
    OPENAI,
    PATIENCE_S,
    Fakes,
    Wire,
    config,
    no_sessions,
    serving,
    session,
)

from vivavoce.engines.registry import Registry
from vivavoce.server.app import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

BAD_KEY = "not-the-key-of-the-tests"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
BROWSER = ("realtime", f"openai-insecure-api-key.{KEY}", "openai-beta.realtime-v1")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "installed", Fakes)
        async with serving(config()) as server:
            yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: Server) -> AsyncIterator[ClientSession]:
    async with ClientSession(f"http://127.0.0.1:{server.port}") as client:
        yield client


async def refusal(client: ClientSession, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to an upgrade request that is refused before the upgrade."""
    async with client.get(path, headers=UPGRADE | headers) as answer:
        assert answer.content_type == "application/json"
        body = await answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    return answer.status, body["error"]


CUSTOM = {f"my-header-{i}": "x" for i in range(11)}
REFUSED: list[tuple[str, dict[str, str], int, str, str]] = [
    (AZURE, {}, 401, "401", "Access denied due to invalid subscription key"),
    (AZURE, {"api-key": "wrong"}, 401, "401", "Access denied due to invalid subscription key"),
    (f"{AZURE}&api-key=wrong", {}, 401, "401", "Access denied"),
    (AZURE.replace(NAME, "other"), {"api-key": KEY}, 404, "DeploymentNotFound", "The API deployment for this"),
    (AZURE.replace(NAME, "other"), {"api-key": "wrong"}, 401, "401", "Access denied"),
    (AZURE.replace("2024-10-01", "2023-01-01"), {"api-key": KEY}, 404, "404", "Resource not found"),
    (f"/openai/realtime?deployment={NAME}", {"api-key": KEY}, 404, "404", "Resource not found"),
    (AZURE.replace("2024-10-01-preview", "2024-12-17-preview"), {"api-key": KEY}, 404, "404", "Resource not found"),
    (AZURE.replace("2024-10-01-preview", "2024-10-01-Preview"), {"api-key": KEY}, 404, "404", "Resource not found"),
    (AZURE.replace("api-version", "Api-Version"), {"api-key": KEY}, 404, "404", "Resource not found"),
    (AZURE.replace("?", "?api-version=x&"), {"api-key": KEY}, 404, "404", "Resource not found"),
    (AZURE.partition("&")[0], {"api-key": KEY}, 404, "DeploymentNotFound", "The API deployment for this"),
    (AZURE.replace("openai", "OpenAI"), {"api-key": KEY}, 404, "404", "Resource not found"),
    ("/openai/elsewhere", {"api-key": KEY}, 404, "404", "Resource not found"),
    ("/", {}, 404, "404", "Resource not found"),
    (f"{AZURE}&intent=transcription", {"api-key": KEY}, 400, "OpperationNotSupported", "Transcription sessions"),
    (AZURE, {"api-key": KEY, **CUSTOM}, 431, "431", "Request header fields too large"),
]


@pytest.mark.parametrize(("path", "headers", "status", "code", "message"), REFUSED)
async def test_refused_before_the_upgrade(
    client: ClientSession, path: str, headers: dict[str, str], status: int, code: str, message: str
) -> None:
    answered, error = await refusal(client, path, headers)
    assert (answered, error["code"]) == (status, code)
    assert error["message"].startswith(message)


@pytest.mark.parametrize("path", [AZURE, OPENAI, "/openai/v1/realtime?model=x"])
async def test_a_plain_request_is_told_to_upgrade(client: ClientSession, path: str) -> None:
    async with client.get(path, headers={"api-key": KEY}) as answer:
        assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")
        assert (await answer.json())["error"]["code"] == "UpgradeRequired"


async def test_ten_custom_headers_pass(client: ClientSession) -> None:
    headers = {"api-key": KEY, **dict(list(CUSTOM.items())[:10])}
    async with client.ws_connect(AZURE, headers=headers) as socket:
        assert (await Wire(socket).next())["type"] == "session.created"


TOLD: list[tuple[str, dict[str, str], int, str | None, str]] = [
    (OPENAI, BETA, 3000, None, "Missing bearer or basic authentication in header"),
    (
        OPENAI,
        {**BETA, "Authorization": "Bearer a-wrong-key"},
        3000,
        "invalid_api_key",
        "Incorrect API key provided: ",
    ),
    ("/v1/realtime", {**BETA, "Authorization": f"Bearer {KEY}"}, 4000, "missing_model", "You must provide a model"),
    (
        "/v1/realtime?model=whisper-1",
        {**BETA, "Authorization": f"Bearer {KEY}"},
        4000,
        "invalid_model",
        'Model "whisper-1" is not supported in realtime mode.',
    ),
    (
        f"{OPENAI}&call_id=rtc_1",
        {"Authorization": f"Bearer {KEY}"},
        4000,
        "unsupported_api_shape",
        "Joining a call (call_id)",
    ),
]


@pytest.mark.parametrize(("path", "headers", "code", "error_code", "message"), TOLD)
async def test_told_after_the_upgrade(
    client: ClientSession, path: str, headers: dict[str, str], code: int, error_code: str | None, message: str
) -> None:
    async with client.ws_connect(path, headers=headers) as socket:
        event = await Wire(socket).next()
        assert set(event) == {"type", "event_id", "error"}
        assert event["type"] == "error"
        assert len(event["event_id"]) == len("event_") + 21
        error = event["error"]
        assert error["message"].startswith(message)
        assert {**error, "message": ""} == {
            "type": "invalid_request_error",
            "code": error_code,
            "message": "",
            "param": None,
            "event_id": None,
        }
        close = await socket.receive()
        assert (close.type, close.data) == (WSMsgType.CLOSE, code)
        assert close.extra == "invalid_request_error" + (f".{error_code}" if error_code else "")


WAYS_IN: list[tuple[str, dict[str, str], tuple[str, ...]]] = [
    (AZURE, {"api-key": KEY}, ()),
    (f"{AZURE}&api-key={KEY}", {}, ()),
    (AZURE, {"Authorization": f"Bearer {KEY}"}, ()),
    (f"{AZURE}&Authorization=Bearer+{KEY}", {}, ()),
    (f"/openai/realtime/?deployment={NAME}&x=y&api-version=2025-04-01-preview", {"api-key": KEY}, ()),
    (AZURE.replace("2024-10-01-preview", "2024-12-17"), {"api-key": KEY}, ()),
    (f"{AZURE}&Authorization=Bearer%20{KEY}", {}, ()),
    (f"{AZURE}&deployment=other&api-version=other&api-key={KEY}&api-key=other", {}, ()),
    (AZURE, {"Connection": "keep-alive, Upgrade", "api-key": KEY}, ()),
    (OPENAI, {**BETA, "Authorization": f"Bearer {KEY}"}, ()),
    (OPENAI, {}, BROWSER),
    (OPENAI, {}, (*BROWSER, "openai-organization.org-1", "openai-project.proj_1")),
    (OPENAI, {}, BROWSER[1:]),
    (AZURE, {"api-key": KEY}, ("realtime",)),
    (AZURE, {"api-key": KEY}, ("something-else",)),
]


@pytest.mark.parametrize(("path", "headers", "protocols"), WAYS_IN)
async def test_ways_in(
    client: ClientSession,
    path: str,
    headers: dict[str, str],
    protocols: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    server: Server,
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with client.ws_connect(path, headers=headers, protocols=protocols) as socket:
            assert socket.protocol == ("realtime" if "realtime" in protocols else None)
            assert (await Wire(socket).next())["session"]["model"] == f"{NAME}-2024-12-17"
        await no_sessions(server)
    assert "session sess_" in caplog.text
    assert KEY not in caplog.text
    assert KEY not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "protocols", [("realtime", "openai-insecure-api-key.a-bad-key"), ("openai-beta.realtime-v1",)]
)
async def test_a_browser_that_is_refused_still_gets_its_subprotocol(
    client: ClientSession, protocols: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with client.ws_connect(OPENAI, protocols=protocols) as socket:
            assert socket.protocol == ("realtime" if "realtime" in protocols else None)
            assert (await Wire(socket).next())["type"] == "error"
    assert BAD_KEY not in caplog.text


@pytest.mark.parametrize(
    ("path", "of_2025"),
    [(AZURE, False), (AZURE.replace("2024-10-01-preview", "2025-04-01-preview"), True), (OPENAI, True)],
)
async def test_the_profile_follows_the_connection(client: ClientSession, path: str, of_2025: bool) -> None:
    async with client.ws_connect(path, headers={**BETA, "api-key": KEY}) as socket:
        assert ("tracing" in (await Wire(socket).next())["session"]) is of_2025


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (AZURE, {"api-key": KEY, "x-ms-client-request-id": "mine-1"}),
        (f"{AZURE}&x-ms-client-request-id=mine-1", {"api-key": KEY}),
        (OPENAI, {**BETA, "Authorization": f"Bearer {KEY}", "x-ms-client-request-id": "mine-1"}),
    ],
)
async def test_the_id_of_the_request_comes_back_and_is_logged(
    client: ClientSession, path: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture, server: Server
) -> None:
    caplog.set_level("INFO")
    async with client.ws_connect(path, headers=headers) as socket:
        assert socket._response.headers["x-ms-client-request-id"] == "mine-1"
    await no_sessions(server)
    (opened,) = [record.getMessage() for record in caplog.records if ": open," in record.getMessage()]
    assert "(mine-1)" in opened


def check_azure_headers(headers: CIMultiDictProxy[str]) -> None:
    assert str(UUID(headers["apim-request-id"])) == headers["apim-request-id"] == headers["x-request-id"]
    assert 0 <= int(headers["openai-processing-ms"]) < PATIENCE_S * 1000
    assert headers["openai-version"] == "2020-10-01"
    assert headers.getall("x-request-id") == [headers["x-request-id"]]


async def test_what_every_answer_on_an_azure_path_tells(
    client: ClientSession, caplog: pytest.LogCaptureFixture, server: Server
) -> None:
    caplog.set_level("INFO")
    seen = []
    async with client.ws_connect(AZURE, headers={"api-key": KEY}) as socket:
        check_azure_headers(socket._response.headers)
        seen.append(socket._response.headers["x-request-id"])
    await no_sessions(server)
    for path, sent in ((AZURE, {"api-key": "wrong"}), ("/openai/elsewhere", {}), (AZURE, {"Upgrade": "x"})):
        async with client.get(path, headers=UPGRADE | sent | {"x-ms-client-request-id": "mine-2"}) as answer:
            check_azure_headers(answer.headers)
            assert answer.headers["x-ms-client-request-id"] == "mine-2"
            seen.append(answer.headers["x-request-id"])
    assert len(set(seen)) == 4
    # With the id of an answer its line in the log is found.
    assert all(f"request {one}" in caplog.text for one in seen)


async def test_what_answers_on_other_paths_tell(client: ClientSession) -> None:
    names = {"apim-request-id", "openai-processing-ms", "openai-version"}
    async with client.ws_connect(OPENAI, headers={**BETA, "Authorization": f"Bearer {KEY}"}) as socket:
        assert not {*names, "x-request-id"} & {name.lower() for name in socket._response.headers}
    for path in ("/elsewhere", OPENAI):
        async with client.get(path) as answer:
            assert not names & {name.lower() for name in answer.headers}
            assert str(UUID(answer.headers["x-request-id"])) == answer.headers["x-request-id"]


async def test_custom_headers_come_back_on_the_azure_preview_path(client: ClientSession) -> None:
    mine = {"My-Header": "mine, mine", "X-Tenant": "7", "Empty": ""}
    kept = {
        "X-Session-Token": "s3cret",
        "Set-Cookie": "a=b",
        "X-Accel-Redirect": "/",
        "apim-request-id": "forged",
    }
    async with client.ws_connect(AZURE, headers={"api-key": KEY, **mine, **kept, "X-Request-ID": "f"}) as socket:
        headers = socket._response.headers
    assert {name: headers[name] for name in mine} == mine
    assert not {"X-Session-Token", "Set-Cookie", "X-Accel-Redirect", "api-key"} & {*headers}
    check_azure_headers(headers)
    async with client.ws_connect(
        OPENAI, headers={**BETA, "Authorization": f"Bearer {KEY}", "My-Header": "x"}
    ) as socket:
        assert "My-Header" not in socket._response.headers
    async with client.get(AZURE, headers={**UPGRADE, "My-Header": "x"}) as answer:
        assert (answer.status, "My-Header" in answer.headers) == (401, False)


RAW: list[tuple[str, int]] = [
    (AZURE, 101),
    (f"http://elsewhere.example{AZURE}", 101),
    (AZURE.replace("realtime?", "real%74ime?"), 101),
    (AZURE.replace("realtime?", "realtime/?"), 101),
    (AZURE.replace("preview&", "pr%65view&"), 101),
    (AZURE.replace("deployment=", "de%70loyment="), 101),
    (f"{AZURE}&deployment&&=&x=%ff%00&%", 101),
    (f"{AZURE}#fragment", 101),
    (f"/{AZURE}", 404),
    (f"/.{AZURE}", 404),
    (AZURE.replace("realtime?", "realtime%2F%2e%2e?"), 404),
    (AZURE.replace("realtime?", "realtime%00?"), 404),
    (AZURE.replace("realtime?", "realtime/x?"), 404),
    (AZURE.replace("&", ";"), 404),
    (AZURE.replace("&", "%26"), 404),
    (AZURE.replace("2024-10", "2024%2D10%20"), 404),
]


@pytest.mark.parametrize(("target", "status"), RAW)
async def test_targets_that_no_client_library_would_send(server: Server, target: str, status: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "x", "api-key": KEY, **UPGRADE}.items())
    writer.write(f"GET {target} HTTP/1.1\r\n{head}\r\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        line = await reader.readline()
    writer.transport.abort()
    assert line.startswith(f"HTTP/1.1 {status} ".encode())
    await no_sessions(server)


@pytest.mark.parametrize(
    ("method", "broken"),
    [
        ("GET", {"Sec-WebSocket-Key": ""}),
        ("GET", {"Sec-WebSocket-Version": "8"}),
        ("GET", {"Sec-WebSocket-Key": "dG9vIHNob3J0"}),
        ("GET", {"Sec-WebSocket-Key": "not base64!"}),
        ("GET", {"Connection": "keep-alive"}),
        ("GET", {"Upgrade": "h2c"}),
        ("POST", {}),
        ("PUT", {}),
        ("DELETE", {}),
        ("HEAD", {}),
        ("OPTIONS", {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}),
    ],
)
async def test_a_broken_upgrade_is_no_session(
    client: ClientSession, server: Server, method: str, broken: dict[str, str]
) -> None:
    async with client.request(method, AZURE, headers={"api-key": KEY} | UPGRADE | broken) as answer:
        assert (answer.status, answer.headers["Sec-WebSocket-Version"]) == (426, "13")
        # No other site's page may read an answer of ours.
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    await no_sessions(server)


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /openai/realtime?api-key=sk-MYSECRETKEY foo HTTP/1.1\r\nHost: x\r\n",
        "GET /openai/realtime HTTP/1.1\r\nHost: x\r\napi-key: sk-MYSECRETKEY\x01\r\n",
        "GET /openai/realtime HTTP/1.1\r\nHost: x\r\napi-key: sk-MYSECRETKEY" + "x" * 10_000 + "\r\n",
    ],
)
async def test_a_key_in_a_request_that_cannot_be_read_is_not_logged(
    server: Server, caplog: pytest.LogCaptureFixture, request_line: str
) -> None:
    caplog.set_level("DEBUG")
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"{request_line}\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.")
    writer.close()
    await writer.wait_closed()
    assert "a request was refused" in caplog.text
    assert "MYSECRETKEY" not in caplog.text


async def test_a_path_cannot_forge_a_log_line(
    client: ClientSession, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with client.get("/x%0dERROR%20forged%1b[31m%e2%80%a8y") as answer:
        assert answer.status == 404
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("refused")]
    assert line.isprintable()
    assert line.isascii()


async def test_health(client: ClientSession, server: Server) -> None:
    async with client.get("/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})
    async with client.get("/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ready", "sessions": 0})
    async with session(server), client.get("/readyz") as answer:
        assert await answer.json() == {"status": "ready", "sessions": 1}
    await no_sessions(server)
    async with client.get("/elsewhere") as answer:
        assert answer.status == 404
        assert json.loads(await answer.text()) == {"error": {"code": "404", "message": "Resource not found"}}


async def test_no_more_than_max_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "installed", Fakes)
    async with serving(config(max_sessions=1)) as server:
        async with session(server), ClientSession(f"http://127.0.0.1:{server.port}") as client:
            with pytest.raises(WSServerHandshakeError) as refused:
                await client.ws_connect(AZURE, headers={"api-key": KEY})
            assert refused.value.status == 429
            assert refused.value.headers is not None
            assert (refused.value.headers["retry-after"], refused.value.headers["retry-after-ms"]) == ("1", "1000")
            # Who has no key does not learn that the server is busy.
            assert (await refusal(client, AZURE, {}))[0] == 401
            async with client.ws_connect(OPENAI, headers={**BETA, "Authorization": f"Bearer {KEY}"}) as socket:
                assert (await Wire(socket).next())["error"]["code"] == "server_busy"
                assert (await socket.receive()).data == 1013
        await no_sessions(server)
        async with session(server) as wire:
            await wire.silence()
