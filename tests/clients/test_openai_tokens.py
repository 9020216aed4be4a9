"""The ``openai`` client with a token provider, as applications use it with azure-identity, and no key at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from dev_tokens import STRANGER, change_keys, dev_token, with_tokens
from openai import AsyncAzureOpenAI
from openai_harness import MODEL, Talk, config
from websockets.exceptions import InvalidStatus

from vivavoce.server.app import Server, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> AsyncIterator[Server]:
    settings = with_tokens(folder, config(tmp_path_factory.mktemp("server")))
    keyless = msgspec.structs.replace(settings, resource=msgspec.structs.replace(settings.resource, keys=()))
    async with running(keyless, host="127.0.0.1", port=0) as server:
        yield server


def client_of(server: Server, provider: Callable[[], str]) -> AsyncAzureOpenAI:
    return AsyncAzureOpenAI(
        azure_endpoint="https://myvoice.openai.azure.com",
        azure_ad_token_provider=provider,
        api_version="2024-10-01-preview",
        websocket_base_url=f"ws://127.0.0.1:{server.port}/openai",
    )


async def test_a_conversation_by_a_token(server: Server, folder: Path) -> None:
    """The provider is asked for each connection, and the issuer changes its key between two of them."""
    tokens = iter([dev_token(), dev_token(n=1)])
    client = client_of(server, lambda: next(tokens))
    async with client.beta.realtime.connect(model=MODEL) as connection:
        talk = Talk(connection)
        await talk.until("conversation.created")
        change_keys(folder, 1)
        async with client.beta.realtime.connect(model=MODEL) as second:
            assert (await Talk(second).next()).type == "session.created"
        await connection.session.update(session={"modalities": ["text"]})
        await talk.until("session.updated")
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
        )
        await talk.until("conversation.item.created")
        await connection.response.create()
        events = await talk.until("response.done")
        assert events[-1].response.status == "completed"


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (lambda: dev_token(STRANGER), "PermissionDenied"),
        (lambda: dev_token(expires_s=-301), "401"),
        (lambda: dev_token(audience="https://graph.microsoft.com"), "401"),
    ],
    ids=["no role", "expired", "another audience"],
)
async def test_a_token_that_does_not_open(server: Server, token: Callable[[], str], code: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with client_of(server, token).beta.realtime.connect(model=MODEL):
            pass
    assert refused.value.response.status_code == 401
    error = msgspec.json.decode(refused.value.response.body)["error"]
    assert error["code"] == code
    if code == "401":
        assert error["message"].startswith("Unauthorized. Access token is missing, invalid, audience is incorrect")
    else:
        assert f"`{STRANGER}`" in error["message"]
