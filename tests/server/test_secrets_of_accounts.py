"""A client secret is of the account whose key minted it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import server_fixtures
from aiohttp import ClientSession, WSServerHandshakeError
from server_fakes import KEY, NAME, Wire, config, serving

from vivavoce.config import AccountSettings, Secret
from vivavoce.gateway.admission import AdmissionPolicy
from vivavoce.server.app import Server

fakes = server_fixtures.fakes

BANK_KEY = "b4nk"
DOOR = "/openai/v1/realtime/client_secrets"
BODY: dict[str, Any] = {"session": {"type": "realtime", "model": NAME}}


@pytest_asyncio.fixture
async def server(fakes: object) -> AsyncIterator[Server]:
    """Two accounts, each with a deployment of the same name."""
    one = config()
    bank = AccountSettings(
        name="bank", subscription="s", resource_group="g", location="l", tenant="t", keys=(Secret(BANK_KEY),)
    )
    other = msgspec.structs.replace(one.deployments[0], account="bank", model="of-the-bank")
    settings = msgspec.structs.replace(one, more_accounts=(bank,), deployments=(*one.deployments, other))
    async with serving(settings) as server:
        yield server


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[ClientSession]:
    async with ClientSession(f"http://127.0.0.1:{server.port}") as client:
        yield client


async def mint(client: ClientSession, **headers: str) -> dict[str, Any]:
    async with client.post(DOOR, json=BODY, headers=headers) as answer:
        assert answer.status == 200
        told: dict[str, Any] = await answer.json()
    return told


async def test_it_opens_the_deployment_of_its_account(client: ClientSession) -> None:
    for key, model in ((KEY, f"{NAME}-2024-12-17"), (BANK_KEY, "of-the-bank-2024-12-17")):
        told = await mint(client, **{"api-key": key})
        assert told["session"]["model"] == model
        async with client.ws_connect(f"/openai/v1/realtime?model={NAME}", headers={"api-key": told["value"]}) as ws:
            assert (await Wire(ws).next())["session"]["model"] == model


async def test_it_is_nothing_at_the_address_of_another(client: ClientSession) -> None:
    headers = {"api-key": (await mint(client, **{"api-key": BANK_KEY}))["value"]}
    path = f"/openai/v1/realtime?model={NAME}"
    async with client.ws_connect(path, headers=headers | {"Host": "bank.openai.azure.com"}) as socket:
        assert (await Wire(socket).next())["type"] == "session.created"
    with pytest.raises(WSServerHandshakeError) as refused:
        await client.ws_connect(path, headers=headers | {"Host": "vivavoce.openai.azure.com"})
    assert refused.value.status == 401


async def test_a_model_that_has_ended_has_none(client: ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AdmissionPolicy, "has_ended", lambda self, record: True)
    for path, told in (
        ("/openai/v1/realtime/client_secrets", (410, "ModelDeprecated")),
        ("/v1/realtime/client_secrets", (404, "model_not_found")),
    ):
        async with client.post(path, json=BODY, headers={"api-key": KEY}) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == told
