"""Limits of a deployment on the real server: what clients are told, and what several servers have in common."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import server_fixtures
from aiohttp import ClientSession, WSServerHandshakeError
from redis_server import RedisServer, redis_server
from server_fakes import (
    AZURE,
    KEY,
    NAME,
    Fakes,
    Wire,
    config,
    endless,
    eventually,
    no_sessions,
    plain,
    serving,
    session,
)

from vivavoce.config import Config, CountersSettings, LimitSettings, Secret
from vivavoce.gateway.shared import redis as shared_redis
from vivavoce.server.app import Server

fakes = server_fixtures.fakes
BETA = {"OpenAI-Beta": "realtime=v1", "Authorization": f"Bearer {KEY}"}


def limited(*, spare: bool = False, **options: Any) -> Config:
    """Its deployment has these options; ``spare``: there is another one beside it."""
    settings = config()
    first = settings.deployments[0]
    others = (msgspec.structs.replace(first, name="spare", capacity=100),) if spare else ()
    return msgspec.structs.replace(settings, deployments=(msgspec.structs.replace(first, **options), *others))


async def refused(server: Server, name: str = NAME) -> tuple[int, str, int, int]:
    """Status, message, ``retry-after`` and ``retry-after-ms`` of the refusal at the Azure path."""
    url = f"http://127.0.0.1:{server.port}/openai/realtime?api-version=2024-10-01-preview&deployment={name}"
    async with ClientSession() as client:
        with pytest.raises(WSServerHandshakeError) as fault:
            await client.ws_connect(url, headers={"api-key": KEY})
        headers = fault.value.headers
        assert headers is not None
        return fault.value.status, fault.value.message, int(headers["retry-after"]), int(headers["retry-after-ms"])


async def respond(wire: Wire) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A response, and the rate limits that were told with it."""
    await wire.send("response.create")
    events = await wire.until("response.done")
    told = [event["rate_limits"] for event in events if event["type"] == "rate_limits.updated"]
    response: dict[str, Any] = events[-1]["response"]
    return response, told[0] if told else []


async def test_connections_of_a_minute(fakes: Fakes) -> None:
    async with serving(limited(connections_per_minute=2)) as server:
        for _ in range(2):
            async with session(server):
                pass
        status, _, seconds, ms = await refused(server)
        assert (status, seconds) == (429, 30)
        assert 29_000 < ms <= 30_000
        async with (
            ClientSession(f"http://127.0.0.1:{server.port}") as client,
            client.ws_connect(f"/v1/realtime?model={NAME}", headers=BETA) as socket,
        ):
            assert (await Wire(socket).next())["error"]["code"] == "rate_limit_exceeded"
            assert (await socket.receive()).data == 1013


async def test_sessions_of_a_deployment(fakes: Fakes) -> None:
    async with serving(limited(spare=True, max_sessions=1)) as server:
        async with session(server):
            assert (await refused(server))[0] == 429
            assert await server.endpoint._sessions.count(NAME) == 1
        await no_sessions(server)
        async with session(server):
            pass
        await no_sessions(server)
        assert await server.endpoint._sessions.count(NAME) == 0


async def test_provisioned_throughput_that_is_used_up(fakes: Fakes) -> None:
    """One unit: 2500 input tokens a minute, of which the guess for one response takes more."""
    settings = limited(sku="ProvisionedManaged", capacity=1)
    async with serving(settings) as server, session(server) as wire, session(server) as other:
        fakes.model.reply = endless
        await wire.send("response.create")
        (limit,) = (await wire.until("rate_limits.updated"))[-1]["rate_limits"]
        assert (limit["name"], limit["limit"], limit["remaining"]) == ("tokens", 2500, 0)
        response, _ = await respond(other)
        error = response["status_details"]["error"]
        assert (response["status"], error["code"]) == ("failed", "rate_limit_exceeded")
        status, _, seconds, ms = await refused(server)
        assert status == 429
        assert seconds * 1000 >= ms > 0
        # What it did not make is given back, and there is room.
        await wire.send("response.cancel")
        await wire.until("response.done")
        async with session(server):
            pass


async def test_what_has_no_room_spills_over(fakes: Fakes) -> None:
    settings = limited(spare=True, sku="ProvisionedManaged", capacity=1, spillover="spare")
    async with serving(settings) as server, session(server) as wire, session(server) as other:
        fakes.model.reply = endless
        await wire.send("response.create")
        await wire.until("rate_limits.updated")
        await other.send("response.create")
        await other.until("response.output_item.added")
        spare = server.endpoint._deployments["spare"].quota
        assert spare.status()[1].remaining < 100_000 - 4096
        async with session(server):
            pass


async def test_the_texts_of_a_message_in_both_dialects(fakes: Fakes) -> None:
    settings = msgspec.structs.replace(config(), limits=LimitSettings(message_chars=10))
    long = [{"type": "input_text", "text": text} for text in ("12345", "678901")]
    async with serving(settings) as server, ClientSession(f"http://127.0.0.1:{server.port}") as client:
        for path in (AZURE, f"/openai/v1/realtime?model={NAME}"):
            async with client.ws_connect(path, headers={"api-key": KEY}) as socket:
                wire = Wire(socket)
                for content, told in ((long, "error"), (long[1:], "conversation.item")):
                    item = {"type": "message", "role": "user", "content": content}
                    await wire.send("conversation.item.create", item=item)
                    while not (event := await wire.next())["type"].startswith((told, "error")):
                        pass
                    assert event["type"].startswith(told)
                    if told == "error":
                        error = event["error"]
                        assert (error["code"], error["param"]) == ("string_above_max_length", "item.content")


# --------------------------------------------------------------------------------------- two servers, one Redis


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        yield server


@pytest.fixture
async def servers(
    redis: RedisServer, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Server, Server]]:
    # A Redis that is slow because the machine is busy is not lost; one that was killed is, at once.
    monkeypatch.setattr(shared_redis, "PATIENCE_S", 5.0)
    settings = limited(capacity=10, requests_per_minute=600, max_sessions=3)
    settings = msgspec.structs.replace(settings, counters=CountersSettings(url=Secret(redis.url)))
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(serving(settings)) for _ in range(2)]
        yield one, other


def tokens_left(limits: list[dict[str, Any]]) -> int:
    return int(next(limit["remaining"] for limit in limits if limit["name"] == "tokens"))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Redis to start")
class TestTwoServers:
    async def test_a_quota_is_one_for_both(self, servers: tuple[Server, Server], fakes: Fakes) -> None:
        one, other = servers
        fakes.model.reply = endless
        async with session(one) as wire, session(other) as second:
            await wire.send("response.create")
            limits = (await wire.until("rate_limits.updated"))[-1]["rate_limits"]
            assert tokens_left(limits) < 10_000 - 4096
            await second.send("response.create")
            limits = (await second.until("rate_limits.updated"))[-1]["rate_limits"]
            assert tokens_left(limits) < 10_000 - 2 * 4096 + 200
            third, _ = await self._refused(one)
            assert third["status_details"]["error"]["code"] == "rate_limit_exceeded"
            # Who hangs up gives back what was set aside, for both.
            wire.vanish()
            await no_sessions(one)
            fakes.model.reply = plain
            async with session(one) as again:
                response, _ = await respond(again)
                assert response["status"] == "completed"

    async def _refused(self, server: Server) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        async with session(server) as wire:
            return await respond(wire)

    async def test_sessions_are_counted_together(self, servers: tuple[Server, Server]) -> None:
        one, other = servers
        async with session(one), session(other), session(other):
            assert (await refused(one))[0] == (await refused(other))[0] == 429
            assert await one.endpoint._sessions.count(NAME) == 3
        await no_sessions(other)
        async with session(one):
            pass

    async def test_without_redis_nothing_is_admitted_and_sessions_live(
        self, servers: tuple[Server, Server], redis: RedisServer
    ) -> None:
        one, _ = servers
        async with session(one) as wire:
            assert (await respond(wire))[0]["status"] == "completed"
            redis.kill()
            response, _ = await respond(wire)
            assert response["status_details"]["error"]["code"] == "rate_limit_exceeded"
            assert (await refused(one))[0] == 429
            async with ClientSession(f"http://127.0.0.1:{one.port}") as client, client.get("/metrics") as answer:
                text = await answer.text()
            assert "vivavoce_shared_state_working 0.0" in text
            assert "vivavoce_shared_state_losses_total 1.0" in text
            redis.start()
            quota = one.endpoint._deployments[NAME].quota
            await eventually(lambda: quota._shared.reachable)  # type: ignore[attr-defined]
            assert (await respond(wire))[0]["status"] == "completed"
