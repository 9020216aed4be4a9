"""Stored prompts over real sockets: those of the account, in sessions and in client secrets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import ClientSession
from server_fakes import KEY, NAME, Fakes, Wire, config, serving

from vivavoce.config import load_config
from vivavoce.engines.registry import Registry
from vivavoce.server.app import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPTS = """
[[account]]
name = "shop"
keys = ["the-key-of-the-shop"]
[prompt.pmpt_desk]
[[prompt.pmpt_desk.version]]
version = "1"
instructions = "Greet {{guest}}."
voice = "cedar"
[prompt.pmpt_till]
account = "shop"
[[prompt.pmpt_till.version]]
version = "1"
instructions = "Sell."
"""
DESK: dict[str, Any] = {"id": "pmpt_desk", "variables": {"guest": "Ann"}}
TILL: dict[str, Any] = {"id": "pmpt_till"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "vivavoce.toml"
    file.write_text(PROMPTS)
    return file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(file: Path) -> AsyncIterator[Server]:
    said = load_config(file, environ={})
    ours = config()
    names = ours.resource.name
    prompts = {
        name: msgspec.structs.replace(one, account=names if one.account == said.resource.name else one.account)
        for name, one in said.prompts.items()
    }
    second = msgspec.structs.replace(ours.deployments[0], account="shop")
    whole = msgspec.structs.replace(
        ours, more_accounts=said.more_accounts, prompts=prompts, deployments=(*ours.deployments, second)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "installed", Fakes)
        async with serving(whole) as server:
            yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: Server) -> AsyncIterator[ClientSession]:
    async with ClientSession(f"http://127.0.0.1:{server.port}") as client:
        yield client


async def asked_with(client: ClientSession, key: str, prompt: dict[str, Any]) -> dict[str, Any]:
    """What a session answers that names a prompt."""
    async with client.ws_connect(f"/openai/v1/realtime?model={NAME}", headers={"api-key": key}) as socket:
        wire = Wire(socket)
        assert (await wire.next())["type"] == "session.created"
        await wire.send("session.update", session={"type": "realtime", "prompt": prompt})
        return await wire.next()


@pytest.mark.parametrize(
    ("key", "own", "others", "instructions"),
    [(KEY, DESK, TILL, "Greet Ann."), ("the-key-of-the-shop", TILL, DESK, "Sell.")],
)
async def test_an_account_has_its_own(
    client: ClientSession, key: str, own: dict[str, Any], others: dict[str, Any], instructions: str
) -> None:
    told = (await asked_with(client, key, own))["session"]
    assert (told["instructions"], told["prompt"]) == (instructions, own)
    refused = (await asked_with(client, key, others))["error"]
    assert refused["message"] == f"Prompt with id '{others['id']}' not found."


async def test_a_client_secret_binds_one(client: ClientSession) -> None:
    body = {"session": {"type": "realtime", "model": NAME, "prompt": DESK}}
    async with client.post("/v1/realtime/client_secrets", json=body, headers={"api-key": KEY}) as answer:
        told = await answer.json()
    assert (told["session"]["instructions"], told["session"]["prompt"]) == ("Greet Ann.", DESK)
    headers = {"Authorization": f"Bearer {told['value']}"}
    async with client.ws_connect("/v1/realtime", headers=headers) as socket:
        session = (await Wire(socket).next())["session"]
    assert (session["instructions"], session["audio"]["output"]["voice"]) == ("Greet Ann.", "cedar")
    assert session["prompt"] == DESK


async def test_no_client_secret_for_a_prompt_of_others(client: ClientSession) -> None:
    body = {"session": {"type": "realtime", "model": NAME, "prompt": TILL}}
    async with client.post("/v1/realtime/client_secrets", json=body, headers={"api-key": KEY}) as answer:
        told = await answer.json()
    assert (answer.status, told["error"]["message"]) == (400, "Prompt with id 'pmpt_till' not found.")
