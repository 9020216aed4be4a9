"""The numbered differences of COMPATIBILITY.md from D45 on: each test shows what its number says."""
# ruff: noqa: N802  The names carry the numbers as the page writes them.

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from datetime import date

import pytest
import pytest_asyncio
from aiohttp import ClientSession, WSServerHandshakeError
from probes import Bench
from server_fakes import KEY, NAME, Fakes, Wire, config, serving

from vivavoce.engines.registry import Registry
from vivavoce.gateway import client_secrets
from vivavoce.gateway.models.catalogue import shipped
from vivavoce.gateway.models.lifecycle import refusal_of_version
from vivavoce.gateway.resource import Model
from vivavoce.gateway.throttle import Throttle
from vivavoce.server import app
from vivavoce.testing import script as s

OPENAI = f"/v1/realtime?model={NAME}"
AZURE = f"/openai/v1/realtime?model={NAME}"
MINTS = {OPENAI: "/v1/realtime/client_secrets", AZURE: "/openai/v1/realtime/client_secrets"}


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(app, "ClientSecrets", functools.partial(client_secrets.ClientSecrets, clock=clock))
    return clock


@pytest_asyncio.fixture
async def client(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ClientSession]:
    monkeypatch.setattr(Registry, "installed", Fakes)
    async with serving(config()) as server, ClientSession(f"http://127.0.0.1:{server.port}") as client:
        yield client


async def minted(client: ClientSession, path: str) -> dict[str, str]:
    """A client secret of an address, as a header."""
    body = {"session": {"type": "realtime", "model": NAME}}
    async with client.post(MINTS[path], json=body, headers={"api-key": KEY}) as answer:
        return {"Authorization": f"Bearer {(await answer.json())['value']}"}


@pytest.mark.parametrize("profile", ["azure-2024-12-17", "openai-ga"])
def test_D45_the_words_that_were_heard(profile: str) -> None:
    bench = Bench(
        profile,
        """
> {"type": "response.create"}
~ text "One two three four five"
~ audio 1000ms
~ finish stop
< response.output_item.done {"item": {"id": "$item"}}
""",
    )
    cut = {"item_id": "$item", "content_index": 0, "audio_end_ms": 520}
    bench.send({"type": "conversation.item.truncate", **cut})
    bench.send({"type": "response.create"})
    (plan,) = (fields["plan"] for name, fields in bench.runner.take_effects() if name == "StartResponse")
    (entry,) = plan["context"]
    assert entry["item"]["content"][0]["transcript"] is None
    assert entry["heard_text"] == "One two three"


def test_D46_the_item_before() -> None:
    bench = Bench("openai-ga")
    previous = []
    for text in "ab":
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "id": f"item_{text}", "role": "user", "content": content}
        added, done = bench.send({"type": "conversation.item.create", "item": item})
        assert isinstance(added, dict)
        assert isinstance(done, dict)
        assert (added["type"], done["type"]) == ("conversation.item.added", "conversation.item.done")
        previous.append((added["previous_item_id"], done["previous_item_id"]))
    assert previous == [(None, None), ("item_a", "item_a")]


@pytest.mark.parametrize(("profile", "told"), [("openai-ga", 1), ("azure-ga", 0)])
def test_D47_rate_limits(profile: str, told: int) -> None:
    bench = Bench(profile, '> {"type": "response.create"}')
    ended = bench.runner.perform(s.Finish("stop", None), bench.names)
    kinds = [event["type"] for event in ended if isinstance(event, dict)]
    assert kinds == ["response.done", *["rate_limits.updated"] * told]


@pytest.mark.parametrize("path", [OPENAI, AZURE])
async def test_D48_a_client_secret_opens_sessions(path: str, client: ClientSession) -> None:
    secret = await minted(client, path)
    for _ in range(2):
        async with client.ws_connect(path, headers=secret) as socket:
            assert (await Wire(socket).next())["type"] == "session.created"


async def test_D49_a_client_secret_that_has_expired(client: ClientSession, clock: Clock) -> None:
    secrets = [await minted(client, path) for path in (OPENAI, AZURE)]
    clock.now += 7201
    async with client.ws_connect(OPENAI, headers=secrets[0]) as socket:
        assert (await Wire(socket).next())["error"]["code"] == "invalid_api_key"
        assert (await socket.receive()).data == 3000
    with pytest.raises(WSServerHandshakeError) as refused:
        await client.ws_connect(AZURE, headers=secrets[1])
    assert refused.value.status == 401


async def test_D50_a_client_secret_without_a_model(client: ClientSession) -> None:
    async with client.post(MINTS[OPENAI], json={}, headers={"api-key": KEY}) as answer:
        assert (await answer.json())["session"]["model"].startswith(NAME)
    async with client.post(MINTS[AZURE], json={}, headers={"api-key": KEY}) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "DeploymentNotFound")


def test_D51_who_guesses_waits() -> None:
    throttle = Throttle(lambda: 0.0)
    for _ in range(60):
        assert throttle.wait_s("192.0.2.1", "a") == 0
        throttle.failed("192.0.2.1", "a")
    assert throttle.wait_s("192.0.2.1", "a") == pytest.approx(1)
    assert throttle.wait_s("192.0.2.2", "a") == 0


def test_D52_a_deprecated_version() -> None:
    model = Model("gpt-4o-realtime-preview", "2024-10-01")
    assert refusal_of_version(model, shipped(), date(2025, 3, 25)) is None
