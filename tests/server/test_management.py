"""The management API on a real server: HTTP, headers, and what a change means for sessions."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import server_fixtures
from aiohttp import ClientSession, ClientTimeout
from managed import BANK, BANK_KEY, GROUP, MODEL, SUBSCRIPTION, VERSION, managed, management_token
from server_fakes import Fakes, Wire, config, serving
from yarl import URL

from vivavoce.gateway.arm.bodies import MAX_BODY_BYTES
from vivavoce.server.app import Server

fakes = server_fixtures.fakes
TELLER = f"{BANK}/deployments/teller"
BODY = {
    "sku": {"name": "GlobalStandard", "capacity": 1},
    "properties": {"model": {"format": "OpenAI", "name": MODEL, "version": VERSION}},
}


@pytest_asyncio.fixture
async def server(tmp_path: Path, fakes: Fakes) -> AsyncIterator[Server]:
    async with serving(managed(tmp_path)) as server:
        yield server


@pytest_asyncio.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession(headers={"Authorization": f"Bearer {management_token()}"}) as http:
        yield http


def url(server: Server, path: str, version: str = "2024-10-01") -> str:
    return f"http://127.0.0.1:{server.port}{path}?api-version={version}"


async def test_headers_of_an_answer(server: Server, http: ClientSession) -> None:
    sent = {"x-ms-correlation-request-id": "mine-1", "x-ms-client-request-id": "yours-2"}
    async with http.put(url(server, TELLER), json=BODY, headers=sent) as answer:
        assert answer.status == 201
        assert answer.headers["ETag"] == (await answer.json())["etag"]
        assert answer.headers["x-ms-correlation-request-id"] == "mine-1"
        assert answer.headers["x-ms-client-request-id"] == "yours-2"
        assert len(answer.headers["x-ms-request-id"]) == 36
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.content_type == "application/json"
    async with http.get(url(server, TELLER), headers={"x-ms-correlation-request-id": "two words"}) as answer:
        assert answer.headers["x-ms-correlation-request-id"] == answer.headers["x-ms-request-id"]
    async with http.delete(url(server, TELLER)) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    async with http.delete(url(server, TELLER)) as answer:
        assert answer.status == 204


async def test_without_a_token_the_answer_says_how_to_get_one(server: Server) -> None:
    async with ClientSession() as http, http.get(url(server, BANK)) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer authorization_uri=")
        assert (await answer.json())["error"]["code"] == "AuthenticationFailed"


async def test_a_key_of_the_account_opens_nothing_here(server: Server) -> None:
    for headers in ({"api-key": BANK_KEY}, {"Authorization": f"Bearer {BANK_KEY}"}):
        async with ClientSession(headers=headers) as http, http.get(url(server, BANK)) as answer:
            assert answer.status == 401


@pytest.mark.parametrize(
    "root", ["/subscriptions", "/SUBSCRIPTIONS", "/Providers/Microsoft.CognitiveServices/operations"]
)
async def test_roots_have_no_case(root: str, server: Server, http: ClientSession) -> None:
    async with http.get(url(server, root, "2024-10-01" if "Cogn" in root else "2022-12-01")) as answer:
        assert answer.status == 200


async def test_bodies_that_are_refused(server: Server, http: ClientSession) -> None:
    async def put(**more: Any) -> tuple[int, str]:
        async with http.put(url(server, TELLER), **more) as answer:
            return answer.status, (await answer.json())["error"]["code"]

    assert await put(data=b"x", headers={"Content-Type": "text/plain"}) == (415, "UnsupportedMediaType")
    assert await put(data=b"{", headers={"Content-Type": "application/json"}) == (400, "InvalidRequestContent")
    assert await put() == (400, "InvalidRequestContent")
    deep = b"[" * 200_000
    assert await put(data=deep, headers={"Content-Type": "application/json"}) == (400, "InvalidRequestContent")
    large = io.BytesIO(b" " * (MAX_BODY_BYTES + 1))
    assert await put(data=large, headers={"Content-Type": "application/json"}) == (413, "RequestContentTooLarge")


async def test_a_body_that_does_not_come(tmp_path: Path, fakes: Fakes, http: ClientSession) -> None:
    never = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    async with (
        serving(managed(tmp_path, request_timeout_s=0.05)) as server,
        http.put(url(server, TELLER), data=pieces(), timeout=ClientTimeout(60)) as answer,
    ):
        assert (answer.status, (await answer.json())["error"]["code"]) == (408, "RequestTimeout")


async def test_a_path_writes_nothing_into_the_log_but_itself(
    server: Server, http: ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with http.get(URL(url(server, "/subscriptions/a%0D%1B[2Kb"), encoded=True)) as answer:
        assert answer.status == 400
    assert any("/subscriptions/a" in message for message in caplog.messages)
    assert all(message.isprintable() for message in caplog.messages)


async def test_it_is_not_there_unless_it_is_enabled(fakes: Fakes, http: ClientSession) -> None:
    async with serving(config()) as server, http.get(url(server, "/subscriptions")) as answer:
        assert (answer.status, await answer.json()) == (
            404,
            {"error": {"code": "404", "message": "Resource not found"}},
        )


async def test_a_session_goes_on_when_its_deployment_is_deleted(server: Server, http: ClientSession) -> None:
    async with http.put(url(server, TELLER), json=BODY) as answer:
        assert answer.status == 201
    path = f"http://127.0.0.1:{server.port}/openai/v1/realtime?model=teller"
    async with http.ws_connect(path, headers={"api-key": BANK_KEY}) as socket:
        wire = Wire(socket)
        assert (await wire.next())["type"] == "session.created"
        async with http.delete(url(server, TELLER)) as answer:
            assert answer.status == 200
        await wire.silence()
    async with http.get(path, headers={"api-key": BANK_KEY, **_UPGRADE}) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "DeploymentNotFound")


_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def test_a_deployment_is_not_ready_while_an_engine_of_it_does_not_work(
    fakes: Fakes, server: Server, http: ClientSession
) -> None:
    fakes.synthesizer.working = False
    async with http.put(url(server, TELLER), json=BODY) as answer:
        assert (await answer.json())["properties"]["provisioningState"] == "Creating"
        address = answer.headers["Azure-AsyncOperation"]
    async with http.patch(url(server, TELLER), json={"tags": {"a": "b"}}) as answer:
        assert answer.status == 202
    async with http.get(address) as answer:
        assert (answer.headers["Retry-After"], (await answer.json())["status"]) == ("1", "Creating")
    fakes.synthesizer.working = True
    async with http.get(address) as answer:
        assert (await answer.json())["status"] == "Succeeded"
    async with http.get(url(server, TELLER)) as answer:
        assert (await answer.json())["properties"]["provisioningState"] == "Succeeded"


async def test_what_was_made_is_there_after_a_restart(tmp_path: Path, fakes: Fakes, http: ClientSession) -> None:
    fresh = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.CognitiveServices/accounts/fresh"
    )
    account = {"location": "eastus2", "kind": "OpenAI", "sku": {"name": "S0"}}
    async with serving(managed(tmp_path)) as server:
        async with http.put(url(server, fresh), json=account) as answer:
            assert answer.status == 201
        async with http.post(url(server, f"{fresh}/listKeys")) as answer:
            keys = await answer.json()
        async with http.put(url(server, f"{fresh}/deployments/x"), json=BODY) as answer:
            made = await answer.json()
    async with serving(managed(tmp_path)) as server:
        async with http.get(url(server, f"{fresh}/deployments/x")) as answer:
            assert await answer.json() == made
        path = f"http://127.0.0.1:{server.port}/openai/v1/realtime?model=x"
        async with http.ws_connect(path, headers={"api-key": keys["key2"]}) as socket:
            assert (await Wire(socket).next())["type"] == "session.created"


async def test_the_audit_has_every_change_and_no_secret(
    tmp_path: Path, fakes: Fakes, http: ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = management_token()
    async with serving(managed(tmp_path)) as server:
        async with http.put(url(server, TELLER), json=BODY) as answer:
            request_id = answer.headers["x-ms-request-id"]
        async with http.post(url(server, f"{BANK}/listKeys")) as answer:
            keys = await answer.json()
    records = [json.loads(one.getMessage()) for one in caplog.records if one.name == "vivavoce.audit"]
    made = next(one for one in records if one["action"].endswith("deployments/write"))
    assert (made["target"], made["outcome"], made["request_id"]) == (TELLER, "done", request_id)
    assert made["details"]["capacity"] == 1
    assert any(one["action"].endswith("listKeys/action") for one in records)
    said = "\n".join(one.getMessage() for one in caplog.records)
    assert not any(secret in said for secret in (token, *keys.values(), token.split(".")[2]))


async def test_a_bug_is_told_without_its_text(
    server: Server, http: ClientSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from vivavoce.gateway.arm import call

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("what somebody said")

    monkeypatch.setattr(call, "allowed", broken)
    async with http.get(url(server, BANK)) as answer:
        body = await answer.json()
        assert (answer.status, body["error"]["code"]) == (500, "InternalServerError")
        assert answer.headers["x-ms-request-id"] in body["error"]["message"]
    assert "what somebody said" not in caplog.text + json.dumps(body)
    assert "RuntimeError" in caplog.text
