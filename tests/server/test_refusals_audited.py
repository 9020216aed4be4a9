"""What the server writes down of those who knock with the wrong key."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import server_fixtures
from aiohttp import ClientSession, WSServerHandshakeError
from dev_tokens import GROUP, STRANGER, TENANT, dev_token, with_tokens
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


async def test_whose_token_it_was_is_written_down(fakes: Fakes, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    settings = msgspec.structs.replace(config(), audit=AuditSettings(path=str(path)))
    tokens = {
        "no role": dev_token(STRANGER, appid="shop"),
        "another tenant": dev_token(tenant=GROUP),
        "expired": dev_token(expires_s=-301),
    }
    async with serving(with_tokens(tmp_path, settings)) as server, ClientSession() as client:
        for token in tokens.values():
            url = f"http://127.0.0.1:{server.port}{AZURE}"
            with pytest.raises(WSServerHandshakeError):
                await client.ws_connect(url, headers={"Authorization": f"Bearer {token}"})
    text = path.read_text(encoding="ascii")
    assert not any(part in text for token in tokens.values() for part in token.split("."))
    stranger, foreigner, late = [json.loads(line) for line in text.splitlines()]
    assert stranger["actor"] == {
        "kind": "entra",
        "id": f"development:{TENANT}/{STRANGER}",
        "tenant": TENANT,
        "oid": STRANGER,
        "appid": "shop",
    }
    assert stranger["details"] == {"status": 401, "code": "PermissionDenied"}
    assert foreigner["actor"]["tenant"] == GROUP
    assert foreigner["details"]["status"] == 400
    assert late["actor"] == {"kind": "anonymous"}
    assert late["details"] == {"status": 401, "code": "401", "reason": "it has expired"}
