"""What the server writes down of those who knock with the wrong key."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import server_fixtures
from aiohttp import ClientSession
from server_fakes import AZURE, OPENAI, Fakes, config, serving

from vivavoce.config import AuditSettings

fakes = server_fixtures.fakes


async def test_a_refused_key_is_written_down_without_the_key(fakes: Fakes, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    settings = msgspec.structs.replace(config(), audit=AuditSettings(path=str(path)))
    async with serving(settings) as server, ClientSession(f"http://127.0.0.1:{server.port}") as client:
        headers = {"api-key": "marked-s3cret", "x-ms-client-request-id": "mine"}
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        nonce = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        async with client.get(AZURE, headers=headers | upgrade | nonce) as answer:
            request_id = answer.headers["apim-request-id"]
            assert answer.status == 401
        async with client.ws_connect(OPENAI, headers={"Authorization": "Bearer marked-s3cret"}) as ws:
            assert (await ws.receive_json())["error"]["code"] == "invalid_api_key"
    text = path.read_text(encoding="ascii")
    assert "s3cret" not in text
    azure, openai = [json.loads(line) for line in text.splitlines()]
    del azure["time"]
    assert azure == {
        "action": "Microsoft.CognitiveServices/accounts/OpenAI/deployments/realtime/action",
        "target": "/openai/realtime",
        "outcome": "refused",
        "actor": {"kind": "anonymous"},
        "details": {"status": 401, "code": "401"},
        "request_id": request_id,
        "client_request_id": "mine",
        "address": "127.0.0.1",
    }
    assert openai["details"] == {"status": 3000, "code": "invalid_api_key"}


async def test_other_refusals_are_none_of_its_business(fakes: Fakes, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    settings = msgspec.structs.replace(config(), audit=AuditSettings(path=str(path)))
    async with (
        serving(settings) as server,
        ClientSession(f"http://127.0.0.1:{server.port}") as client,
        client.get("/openai/elsewhere") as answer,
    ):
        assert answer.status == 404
    assert path.read_text(encoding="ascii") == ""
